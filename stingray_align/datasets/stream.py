"""Simulated sources for training, chunk by chunk, each with what is true of it.

A training that simulates as it goes sees millions of different sources and holds only some
thousand of them in memory. Chunks are numbered and reproducible; they are kept on disk while a
training lasts, so one that is interrupted, or goes over the same sources again, does not simulate
them twice.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from .._files import read_tensors, write_tensors
from ..autodecoder.descriptors import TIME_SHAPES
from ..photons import N_TIME_BINS, Photons
from . import _simulate
from ._shapes import N_CELLS

__all__ = ["RUNS", "TARGETS", "SimulatedStream", "Truth", "simulate_with_truth"]

#: Numbers of the truth table that networks learn to estimate: name and whether in dex.
TARGETS = {"fractional_variability": True, "hardness": False, "n_h": True, "photon_index": False,
           "kT": True, "period": True, "timescale": True}

#: Stretches of four time bins, each with one cell drawn at random whose true rate is kept.
RUNS = 128


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true of ``n`` simulated sources.

    Attributes
    ----------
    share : ndarray of float16, shape (n, 2, 512)
        How the photons of each of two components fall into the time bins, times 512.
    expected : ndarray of float32, shape (n, 3, 20)
        Expected photons of the two components and of the background in each channel.
    cell : ndarray of uint8, shape (n, 128)
        A random one of the 32 fine cells of each run of four time bins.
    log_relative_rate : ndarray of float16, shape (n, 128)
        Log of the rate (0.5-7 keV, with background) in that cell over the mean rate.
    targets : ndarray of float32, shape (n, 7)
        The numbers named in `TARGETS`, nan where there is none.
    time_shape : ndarray of uint8, shape (n,)
        Number in `stingray_align.autodecoder.descriptors.TIME_SHAPES`.
    """

    share: np.ndarray
    expected: np.ndarray
    cell: np.ndarray
    log_relative_rate: np.ndarray
    targets: np.ndarray
    time_shape: np.ndarray

    def __getitem__(self, index):
        return Truth(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def concatenate(cls, parts):
        """Join the truths of several sets of sources."""
        parts = list(parts)
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts])
                      for f in fields(cls)})


def simulate_with_truth(seed, number, counts="training"):
    """One chunk of 512 simulated sources with their truth.

    Parameters
    ----------
    seed, number : int
        Which stream, and which chunk of it.
    counts : str or tuple
        As in `simulate_population`.

    Returns
    -------
    photons : Photons
    truth : Truth
    """
    from .population import _pack

    rng = np.random.default_rng([seed, 7, number])
    chunk = _simulate.simulate(rng, _simulate.CHUNK, counts, _simulate.class_names(None),
                               _simulate.instrument_weights(None))
    return _pack(chunk), _truth(chunk, rng)


def _truth(chunk, rng):
    n = len(chunk.start)
    level = chunk.level * chunk.exposure
    seen = level.sum(axis=2, dtype=float)
    share = level.reshape(2, n, N_TIME_BINS, -1).sum(axis=3)
    share *= (N_TIME_BINS / np.maximum(seen, 1e-30))[:, :, None]
    exposed = chunk.exposure.sum(axis=1, dtype=float)

    width = N_CELLS // RUNS
    cell = rng.integers(width, size=(n, RUNS))
    at = np.arange(RUNS) * width + cell
    in_band = chunk.band_rates()[:, :, :3].sum(axis=2)
    rate = in_band[2][:, None] + sum(
        np.take_along_axis(chunk.level[k], at, axis=1) * in_band[k][:, None] for k in (0, 1))
    mean = (np.stack([*seen, exposed]) * in_band).sum(axis=0) / exposed
    targets = np.stack([chunk.truth[name] for name in TARGETS], axis=1)
    # A period that the window does not show cannot be learned from it.
    hidden = ~chunk.truth["periodic"] | (chunk.truth["period"]
                                         < 4 * chunk.truth["duration"] / N_TIME_BINS)
    targets[hidden, list(TARGETS).index("period")] = np.nan
    dex = np.array(list(TARGETS.values()))
    targets[:, dex] = np.log10(np.maximum(targets[:, dex], 1e-3))
    shape = np.searchsorted(TIME_SHAPES, chunk.truth["time_shape"])
    return Truth(share=share.transpose(1, 0, 2).astype(np.float16),
                 expected=chunk.in_channels().transpose(1, 0, 2).astype(np.float32),
                 cell=cell.astype(np.uint8),
                 log_relative_rate=np.log(rate / mean[:, None]).astype(np.float16),
                 targets=targets.astype(np.float32), time_shape=shape.astype(np.uint8))


class SimulatedStream:
    """Numbered chunks of simulated sources, made ahead by other processes and kept on disk.

    Parameters
    ----------
    directory : path-like
        Where chunks are kept.
    seed : int
    n_chunks : int
        After the last chunk comes the first again.
    n_workers : int
        Processes that simulate ahead; 0 simulates when asked.
    """

    AHEAD = 4

    def __init__(self, directory, seed, n_chunks, *, n_workers=1):
        self.directory, self.seed, self.n_chunks = Path(directory), seed, n_chunks
        self.directory.mkdir(parents=True, exist_ok=True)
        # Forking a process that holds threads of a numerical library may block it.
        self._pool = (ProcessPoolExecutor(n_workers, mp_context=get_context("spawn"))
                      if n_workers else None)
        self._pending = {}

    def __len__(self):
        return self.n_chunks * _simulate.CHUNK

    def chunk(self, number, step=1):
        """Photons and truth of one chunk; every ``step``-th one is made ahead."""
        self._ahead(number, step)
        waiting = self._pending.pop(number % self.n_chunks, None)
        if waiting is not None:
            waiting.result()
        path = self._path(number % self.n_chunks)
        if not path.exists():
            _make(path, self.seed, number % self.n_chunks)
        return _read(path)

    def _ahead(self, number, step):
        if self._pool is None:
            return
        for k in range(number, number + self.AHEAD * step, step):
            k %= self.n_chunks
            if k not in self._pending and not self._path(k).exists():
                self._pending[k] = self._pool.submit(_make, self._path(k), self.seed, k)

    def _path(self, number):
        return self.directory / f"{self.seed}-{number:06d}.safetensors"

    def close(self):
        """End the processes; what is on disk stays for the next run."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def delete(self):
        """Remove the chunks from the disk."""
        for number in range(self.n_chunks):
            self._path(number).unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            self.directory.rmdir()


def _make(path, seed, number):
    photons, truth = simulate_with_truth(seed, number)
    names, instrument = np.unique(photons.instrument, return_inverse=True)
    arrays = {name: getattr(photons, name) for name in Photons.ARRAYS}
    arrays["exposed"] = photons.exposed.astype(np.float16)
    arrays |= {"instrument": instrument.astype(np.uint8)}
    arrays |= {f"truth.{f.name}": getattr(truth, f.name) for f in fields(Truth)}
    write_tensors(path, arrays, kind="photons", version=2, about={"instruments": names.tolist()})


def _read(path):
    arrays, about = read_tensors(path, kind="photons", version=2)
    truth = Truth(**{f.name: arrays.pop(f"truth.{f.name}") for f in fields(Truth)})
    arrays["instrument"] = np.array(about["instruments"])[arrays["instrument"]]
    arrays["exposed"] = arrays["exposed"].astype(np.float32)
    return Photons(**arrays), truth
