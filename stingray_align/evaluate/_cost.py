"""What embedding costs: time per source and memory, beside the time to read a file."""

import sys
import time
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np

from ._report import Report, figures
from .rivals import RIVALS

__all__ = ["CostResult", "cost"]

REFINED = "one, refined, with posterior"


def cost(model=None, *, n_sources=1000, n_single=50, n_training_steps=0, seed=0):
    """Measure the time to embed, on one thread but where said, and the peak memory of this process.

    Parameters
    ----------
    model : PoissonAutodecoder, optional
        The bundled model by default.
    n_sources : int, optional
        Simulated sources (Chandra ACIS, counts as in catalogue windows) for the batched figure.
    n_single : int, optional
        Sources embedded one by one, and repetitions for the file.
    n_training_steps : int, optional
        Steps of a short training on the same sources, for its cost; 0 leaves it out.
    seed : int, optional
        Seed of the sources.

    Returns
    -------
    CostResult

    Notes
    -----
    The file is the Chandra observation of M82 in Stingray's wheel, read by
    `stingray_align.EventList.read` and embedded as one source.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from .. import EventList
    from ..autodecoder import PoissonAutodecoder, embed, embed_vectors
    from ..autodecoder.embedding import CHUNK
    from ..autodecoder.model import one_thread
    from ..datasets import simulate_population

    model = PoissonAutodecoder.pretrained() if model is None else model
    population = simulate_population(n_sources, seed, counts="csc", summaries=0,
                                     instruments=["ACIS-I", "ACIS-S"])
    photons = population.photons
    single = [population.event_lists[i] for i in range(min(n_single, n_sources))]
    embed(single[0], model)  # the first call also loads libraries

    def in_batch():
        return [t / n_sources for t in _times(lambda _: embed_vectors(photons, model), range(5))]

    times, n_threads = {}, torch.get_num_threads()
    if n_threads > 1:
        times[f"first pass, in a batch, {n_threads} threads"] = in_batch()
    with one_thread(), threadpool_limits(1):
        times |= {
            "first pass, in a batch": in_batch(),
            "latent and rate alone, in a batch": [t / n_sources for t in _times(
                lambda _: [model.infer(photons[first:first + CHUNK])
                           for first in range(0, n_sources, CHUNK)], range(5))],
            "refined rates, in a batch": [t / n_sources for t in _times(
                lambda _: model.band_rates(photons), range(2))],
            "first pass, one": _times(lambda events: embed(events, model), single),
            REFINED: _times(lambda events: _everything(embed(events, model)), single),
        }
        for name, rival in RIVALS.items():
            times[f"rival: {name}"] = _times(lambda events: rival(events)._rates,
                                             single[:max(1, n_single // 5)])
        with as_file(files("stingray") / "tests" / "data" / "chandra_test.fits") as path:
            times["read the M82 file"] = _times(lambda _: EventList.read(path), range(n_single))
            field = EventList.read(path)
            times["embed the M82 file"] = _times(lambda _: embed(field, model), range(n_single))
        training = None
        if n_training_steps:
            training = _training_cost(model, photons, n_training_steps)
    return CostResult(milliseconds={what: 1e3 * np.array(t) for what, t in times.items()},
                      photons_per_source=float(photons.n_photons.mean()), training=training,
                      peak_memory=_peak_memory())


def _everything(embedding):
    """Refined rate, covariance of the latent, and intervals of rate, hardness, variability."""
    embedding.covariance
    embedding.hardness()
    embedding.fractional_variability()
    return embedding.rate_interval([embedding.start])


def _times(work, inputs):
    out = []
    for one in inputs:
        start = time.perf_counter()
        work(one)
        out.append(time.perf_counter() - start)
    return out


def _training_cost(model, photons, n_steps):
    """Seconds for 10^4 sources and for 10^5 photons once seen, from a short and a longer fit."""
    def fit(steps):
        fresh = type(model)(**model.get_params() | {
            "n_steps": steps, "n_refinement_steps": steps, "n_posterior_steps": 1})
        return _times(lambda _: fresh.fit(photons, progress=False), [None])[0]

    per_source = (fit(n_steps + 2) - fit(2)) / (n_steps * model.batch_size)
    return {"10^4 sources": 1e4 * per_source,
            "10^5 photons": 1e5 * per_source / photons.n_photons.mean()}


def _peak_memory():
    try:
        import resource
    except ImportError:  # there is none on Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True, eq=False)
class CostResult(Report):
    """Times and memory.

    Attributes
    ----------
    milliseconds : dict of ndarray
        What was done to the time of each repetition in ms; in a batch, per source.
    photons_per_source : float
        Mean number of photons of the simulated sources.
    training : dict of float, or None
        Seconds of training for 10^4 sources or 10^5 photons once seen.
    peak_memory : float
        Peak memory of the process in MiB, libraries included.
    """

    primary_is = "milliseconds per source in a batch"

    milliseconds: dict
    photons_per_source: float
    training: dict | None
    peak_memory: float

    title = "Cost, on one thread but where said"

    @property
    def notes(self):
        """Memory, and training where measured."""
        lines = [f"{self.photons_per_source:.0f} photons per simulated source in the mean; peak "
                 f"memory of the process {self.peak_memory:.0f} MiB, libraries included."]
        if self.training:
            lines += [f"Training: {seconds:.1f} s for {unit} once seen."
                      for unit, seconds in self.training.items()]
        return tuple(lines)

    @property
    def primary(self):
        """Median milliseconds per source in a batch (a float)."""
        return float(np.median(self.milliseconds["first pass, in a batch"]))

    def to_table(self):
        """Median and 16-84 % range in ms, and ratio to the refined pass on one source.

        Returns
        -------
        `~astropy.table.QTable`
        """
        unit = np.median(self.milliseconds[REFINED])
        rows = [(what, *map(float, np.percentile(t, [50, 16, 84])), float(np.median(t) / unit))
                for what, t in self.milliseconds.items()]
        return figures(rows, ["what", "median ms", "low ms", "high ms", "ratio"])
