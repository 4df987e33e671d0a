"""Coverage of an autodecoder's own intervals on a population with known truth."""

import warnings

import numpy as np
from tqdm.auto import tqdm

from ..errors import DomainShiftWarning
from ..photons import BAND_EDGES, CHANNEL_EDGES
from ._calibration import calibration
from ._report import Comparison

__all__ = ["autodecoder_calibration"]


def autodecoder_calibration(population, model=None, *, levels=(0.68, 0.95), n_times=10,
                            n_draws=300, seed=0, progress=True):
    """Measure the coverage of mean rate, rate at random times, and hardness.

    Parameters
    ----------
    population : Population
        Sources with known truth, as from `stingray_align.datasets.simulate_population`; its
        ``event_lists``, ``true_rate`` and ``truth`` are used.
    model : PoissonAutodecoder, optional
        The bundled model by default.
    levels : sequence of float, optional
        Nominal probability contents.
    n_times : int, optional
        Random exposed times per source at which the rate is tested.
    n_draws : int, optional
        Draws from each posterior.
    seed : int, optional
        Seed of times and draws.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    Comparison of CalibrationResult
        By name: ``"log mean rate"`` (0.5-8 keV), ``"rate at random times"`` (0.5-7 keV), and
        ``"hardness ratio"`` ((H - S) / (H + S) of the source in 0.5-2 and 2-7 keV, the background
        taken off). Coverage by ``time_shape`` is under ``to_table("label")``.
    """
    from ..autodecoder import embed

    truth, rng = population.truth, np.random.default_rng(seed)
    n, edges = len(truth), 50 * (1 + np.outer([-1, 1], levels))
    true = {"log mean rate": np.log10(_plain(truth["source_counts"] + truth["background_counts"])
                                      / _plain(truth["exposure"])),
            "rate at random times": np.empty((n, n_times)),
            "hardness ratio": _plain(truth["hardness"])}
    ends = {what: np.empty((2, len(levels), *values.shape)) for what, values in true.items()}
    for i, events in enumerate(tqdm(population.event_lists, desc="calibration", unit="source",
                                    disable=not progress)):
        with warnings.catch_warnings():
            # the truth is simulated for each instrument, so other ones belong to this test
            warnings.simplefilter("ignore", DomainShiftWarning)
            embedding = embed(events, model)
        vectors = dict(zip(embedding.feature_names, embedding.draws(n_draws, seed=seed).T,
                           strict=True))
        ends["log mean rate"][:, :, i] = np.percentile(vectors["log_rate"], edges)
        ends["hardness ratio"][:, :, i] = np.percentile(_hardness(vectors), edges)
        times = _exposed_times(events.gti, n_times, rng)
        true["rate at random times"][i] = population.true_rate(i, times).sum(axis=1)
        for k, level in enumerate(levels):
            low, high = embedding.rate_interval(times, level, (BAND_EDGES[0], BAND_EDGES[3]),
                                                n_draws=n_draws, seed=seed)
            ends["rate at random times"][:, k, i] = low.value, high.value
    labels = dict.fromkeys(true, np.asarray(truth["time_shape"]))
    labels["hardness ratio"] = _hardness_labels(population)
    return Comparison("Coverage of the autodecoder's intervals", {
        what: calibration(true[what], *ends[what], _plain(truth["counts"]).astype(int),
                          levels=levels, labels=labels[what], what=what, seed=seed)
        for what in true})


def _hardness_labels(population):
    # A truth at the end of the scale lies outside of most intervals, whatever their width.
    extreme = np.abs(_plain(population.truth["hardness"])) > 0.97
    known = population.photons.background.sum(axis=1) > 0
    return np.select([extreme, ~known], ["beyond 0.97", "background unknown"],
                     "background known")


def _plain(column):
    return np.asarray(getattr(column, "value", column), dtype=float)


def _hardness(vectors):
    """Hardness from the decoded shares of the channels, with the truth table's bands."""
    names = [name for name in vectors if name.startswith("decoded_spectrum_")]
    share = np.exp([vectors[name] for name in names])
    soft, hard = (share[(CHANNEL_EDGES[:-1] > low - 1e-6) & (CHANNEL_EDGES[1:] < high + 1e-6)]
                  .sum(axis=0) for low, high in ((0.5, 2), (2, 7)))
    return (hard - soft) / (hard + soft)


def _exposed_times(gti, n, rng):
    gti = np.asarray(gti, dtype=float)
    length = gti[:, 1] - gti[:, 0]
    which = rng.choice(len(gti), size=n, p=length / length.sum())
    return gti[which, 0] + rng.random(n) * length[which]
