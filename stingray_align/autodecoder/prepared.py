"""Sources whose evidence is gathered once, for networks that learn from it in many steps.

A Cox process takes tens of milliseconds for a source, a step of the optimiser less than that for
sixty-four of them. So the evidence of many sources is gathered before, and kept beside the
checkpoint while the training lasts.
"""

from __future__ import annotations

import math
from copy import copy, deepcopy
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .._files import read_tensors, write_tensors
from ..photons import N_TIME_BINS
from .batch import fine_counts
from .experts import Evidence, gather_evidence, in_bins, on_fine
from .intervals import mixture, mixture_loss

__all__ = ["Prepared", "Weighed", "examples", "experts_loss"]

#: Share of what is prepared that is not learned from.
HELD_OUT = 0.08
#: In the loss of the intervals a kind of variability counts as its share of the sources to the
#: power of one minus this: with 0, intervals hold over the population, but seldom for its rare
#: kinds, which they take for its common ones; with 1, all kinds would be as common.
BALANCE = 0.35


def examples(model, shown, others, truth):
    """What the weights learn from: the evidence of some photons, and what is true of them.

    Parameters
    ----------
    model : PoissonAutodecoder
    shown, others : Photons
    truth : Truth or None
        Without, the photons not shown are all that is known.

    Returns
    -------
    dict of ndarray
        The fields of `Evidence`; ``target``, the distribution of photons over the time bins, and
        ``weight``, how many there are; ``others``, photons in the fine cells; ``cell`` and
        ``true``, a cell in each run of bins and the log of the true relative rate there; ``kind``
        of variability.
    """
    inferred = model.infer(shown)
    _, evidence = gather_evidence(inferred, model.encode(inferred), model.networks_["refinement"])
    made = {name: value.cpu().numpy().astype(np.float16) for name, value in
            evidence._asdict().items()}
    exposed, n = inferred.batch.exposed.cpu().numpy(), len(shown)
    made["exposed"] = exposed
    counted = fine_counts(others).cpu().numpy()
    if truth is None:
        expected = counted.reshape(n, N_TIME_BINS, -1).sum(axis=2)
        made |= {"cell": np.zeros((n, 128), np.uint8), "true": np.full((n, 128), np.nan),
                 "kind": np.zeros(n, np.uint8)}
    else:
        steady = exposed / exposed.sum(axis=1, keepdims=True)
        share = np.concatenate([truth.share / np.float32(N_TIME_BINS), steady[:, None]], axis=1)
        expected = np.einsum("nkt,nk->nt", share, truth.expected[:, :, :19].sum(axis=2))
        seen = exposed.reshape(n, 128, -1)
        seen = np.take_along_axis(seen, truth.cell[:, :, None] // 8, axis=2)[:, :, 0] > 0
        made |= {"cell": truth.cell, "kind": truth.time_shape,
                 "true": np.where(seen, truth.log_relative_rate.astype(np.float32), np.nan)}
    weight = expected.sum(axis=1)
    made |= {"target": (expected / np.maximum(weight, 1e-9)[:, None]).astype(np.float16),
             "weight": weight.astype(np.float32), "true": made["true"].astype(np.float32),
             "others": counted.clip(max=6e4).astype(np.float16)}
    return made


class Prepared:
    """Examples of many sources; a subclass knows the loss of a network that learns from them.

    Parameters
    ----------
    model : PoissonAutodecoder
    networks : torch.nn.ModuleDict
        Trained, but for the one that is to learn.
    make : callable
        ``make(model, number)`` gives the examples of one chunk of sources.
    n_sources : int
    directory : path-like, optional
        Where chunks are kept.
    progress : bool
    about : dict, optional
        What the training is known by: chunks that another one left are made again.
    held_out : callable, optional
        ``held_out(model)`` gives the examples that the gain is of. Without, they are the last of
        the chunks, which have to be of other sources than the first then.
    """

    #: Sources in a file, and those that are prepared per step of the optimiser.
    CHUNK, PER_STEP = 256, 1
    #: Examples of each source, one after the other; all are learned from, or none.
    VIEWS = 1

    def __init__(self, model, networks, make, n_sources, directory, progress, about=None,
                 held_out=None):
        model = copy(model)
        model.networks_ = deepcopy(networks).cpu()  # where compiled loops can reach them
        self.about, self.directory = about, None if directory is None else Path(directory)
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
        n_chunks, self.arrays = max(1, round(n_sources / self.CHUNK)), {}
        for number in tqdm(range(n_chunks), "preparing sources", disable=not progress):
            for name, values in self._chunk(model, make, number).items():
                if number == 0:  # all are of one size; held twice, they would fill the memory
                    self.arrays[name] = np.empty((n_chunks, *values.shape), values.dtype)
                self.arrays[name][number] = values
        self.arrays = {name: array.reshape(-1, *array.shape[2:])
                       for name, array in self.arrays.items()}
        n = len(next(iter(self.arrays.values())))
        n_sources = n // self.VIEWS
        learned = max(1, min(math.ceil(n_sources * (1 - HELD_OUT)), n_sources - 1))
        self.n_trained = self.VIEWS * learned
        self._held_out = None if held_out is None else held_out(model)

    def _chunk(self, model, make, number):
        if self.directory is None:
            return make(model, number)
        path = self.directory / f"{number:06d}.safetensors"
        if path.exists():
            arrays, about = read_tensors(path, kind="examples", version=1)
            if about == self.about:
                return arrays
        arrays = make(model, number)
        write_tensors(path, arrays, kind="examples", version=1, about=self.about)
        return arrays

    def start(self, network):
        """What the network has to know of the sources before its first step."""

    def draw(self, size, rng):
        """Examples of ``size`` sources, as tensors by name."""
        rows = rng.choice(self.n_trained, min(size, self.n_trained), replace=False)
        return _rows(self.arrays, rows)

    def held_out(self, size=100):
        """Examples not learned from, some at a time."""
        arrays, first = self._held_out, 0
        if arrays is None:
            arrays, first = self.arrays, self.n_trained
        for first in range(first, len(next(iter(arrays.values()))), size):
            yield _rows(arrays, slice(first, first + size))


def _rows(arrays, rows):
    return {name: torch.as_tensor(array[rows].astype(np.float32))
            for name, array in arrays.items()}


class Weighed(Prepared):
    """Examples for the weights of the experts."""

    #: Each is drawn some seven times; half as many were memorised.
    PER_STEP = 9

    def __init__(self, *args):
        super().__init__(*args)
        self.arrays["importance"] = _importance(self.arrays.pop("kind"))

    def loss(self, experts, one):
        """Loss of a batch."""
        return experts_loss(experts, one)

    @torch.no_grad()
    def gain(self, experts):
        """Gain in log-likelihood per photon not seen over a constant, on sources held out."""
        gain = total = 0.0
        for one in self.held_out():
            log_rate, _ = experts(_evidence(one))
            gain += (one["others"] * log_rate).sum().item()
            total += one["others"].sum().item()
        return gain / max(total, 1)


def _importance(kind):
    """Weight of each source in the loss of the intervals, one on average."""
    weight = np.bincount(kind)[kind] ** -BALANCE
    return (weight / weight.mean()).astype(np.float32)


def _evidence(one):
    return Evidence(*(one[name] for name in Evidence._fields))


def experts_loss(experts, one):
    """Loss of the weights of the experts and of the intervals around their mean.

    Parameters
    ----------
    experts : `~stingray_align.autodecoder.experts.Experts`
    one : dict of Tensor
        Examples.
    """
    log_rate, intervals = experts(_evidence(one))
    bins = in_bins(log_rate)
    # Of the time bins the truth is known; of where inside them, the photons not shown.
    in_time = (one["target"] * bins).sum(dim=1)
    inside = ((log_rate - on_fine(bins)) * one["others"]).sum(dim=1)
    weight = torch.rsqrt(one["weight"] + 20)
    counted = one["others"].sum(dim=1)
    score = ((in_time * one["weight"] * weight).sum()
             / (one["weight"] * weight).sum().clamp(min=1)
             + (inside * weight).sum() / (counted * weight).sum().clamp(min=1))
    cells = log_rate.detach().unflatten(1, (intervals.shape[1], -1))
    at = cells.gather(2, one["cell"].long()[:, :, None])[:, :, 0]
    known = torch.isfinite(one["true"]).sum().clamp(min=1)
    missed = one["importance"][:, None] * mixture_loss(mixture(intervals), one["true"] - at)
    return missed.sum() / known - score
