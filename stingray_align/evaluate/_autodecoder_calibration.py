"""Coverage and sharpness of an autodecoder's own posteriors on a population with known truth.

What is tested is what an observer quotes: the mean rate, the rate at some time, the counts in each
channel of the spectrum, the hardness ratio and the fractional variability of the source, each
beside the interval that the same photons give without a trained model (see
`stingray_align.evaluate._interval_rivals`); and physical parameters, beside their distribution over
the sources, which is what would be known without photons.
"""

import numpy as np
from tqdm.auto import tqdm

from ..autodecoder.quantities import PARAMETERS
from ..photons import N_TIME_BINS
from ._calibration import quantile_calibration
from ._interval_rivals import INTERVAL_RIVALS, rival_quantiles
from ._report import Comparison

__all__ = ["PROBABILITIES", "autodecoder_calibration"]

_LOW = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45])

#: Where posteriors are compared; the ends of the 68 and 95 % intervals are among them.
PROBABILITIES = np.concatenate([_LOW, [0.5], np.round(1 - _LOW[::-1], 3)])

#: Below this the truth table calls a light curve constant; smaller values are not told apart.
LEAST_VARIABILITY = 0.03


def autodecoder_calibration(population, model=None, *, rivals=True, levels=(0.68, 0.95),
                            n_times=10, batch_size=200, seed=0, progress=True):
    """Measure the coverage and sharpness of posteriors.

    Parameters
    ----------
    population : Population
        Sources with known truth, as from `stingray_align.datasets.simulate_population`; its
        ``photons``, ``true_rate``, ``true_spectra`` and ``truth`` are used.
    model : object, optional
        With a method ``quantiles(photons, probabilities)``, as a PoissonAutodecoder; what it does
        not give is not tested. The bundled model by default.
    rivals : bool, optional
        Whether to show the methods beside it that need no training.
    levels : sequence of float, optional
        Nominal probability contents.
    n_times : int, optional
        Random exposed times per source at which the rate is tested.
    batch_size : int, optional
        Sources worked on at a time.
    seed : int, optional
        Seed of times and draws.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    Comparison of CalibrationResult
        By name: ``"log mean rate"`` (0.5-8 keV with background, dex), ``"rate at random times"``
        (0.5-7 keV with background, in units of the source's true mean, so that no bright source
        decides the score), ``"counts in channels"`` (20 of 0.5-8 keV, with background, expected
        over the exposure; as roots, whose Poisson noise is one half), ``"hardness ratio"``
        ((H - S) / (H + S) of the source in 0.5-2 and 2-7 keV, the background taken off) and
        ``"log fractional variability"`` (of the source, dex; values below 0.03, where the truth
        table calls a light curve constant, count as 0.03); of sources that have one, ``"photon
        index"``, ``"log kT"``, ``"log N_H"`` (at least 1e19 cm-2) and ``"log time scale"`` (dex).
        Coverage by ``time_shape``, of what the spectrum says by instrument, is under
        ``to_table("label")``.
    """
    if model is None:
        from ..autodecoder import PoissonAutodecoder

        model = PoissonAutodecoder.pretrained()
    truth, photons = population.truth, population.photons
    n = len(photons)
    times, bins = _exposed_times(photons, n_times, np.random.default_rng(seed))
    true = {"rate": np.stack([population.true_rate(i, times[i]).sum(axis=1) for i in range(n)]),
            "mean_rate": _plain(truth["source_counts"] + truth["background_counts"])
            / _plain(truth["exposure"]),
            "spectrum": population.true_spectra(), "hardness": _plain(truth["hardness"]),
            **{key: _plain(truth[key]) for key in ("fractional_variability", *PARAMETERS)}}
    methods = {"ours": lambda part: model.quantiles(part, PROBABILITIES)}
    if rivals:
        methods["rival"] = lambda part: rival_quantiles(part, PROBABILITIES, seed=seed)
    found = {name: {} for name in methods}
    for start in tqdm(range(0, n, batch_size), desc="calibration", unit="batch",
                      disable=not progress):
        rows = slice(start, start + batch_size)
        for name, quantiles in methods.items():
            for key, values in quantiles(photons[rows]).items():
                if key == "rate":
                    values = np.take_along_axis(values, bins[rows, :, None], axis=1)
                found[name].setdefault(key, []).append(values)
    mean = true["mean_rate"]
    if rivals:
        for key in PARAMETERS:
            if len(known := true[key][np.isfinite(true[key])]):
                found["rival"][key] = [np.tile(np.quantile(known, PROBABILITIES), (n, 1))]
    counts = _plain(truth["counts"]).astype(int)
    results = {}
    for key, (what, scaled) in _QUANTITIES.items():
        if key not in found["ours"] or not np.isfinite(true[key]).any():
            continue
        ours, *theirs = (scaled(np.concatenate(by_key[key]), mean) for by_key in found.values())
        results[what] = quantile_calibration(
            scaled(true[key], mean), ours, PROBABILITIES, counts, levels=levels,
            labels=_labels(population, key), what=what, seed=seed,
            rivals={INTERVAL_RIVALS.get(key, "population"): values for values in theirs})
    return Comparison("Coverage and sharpness of the autodecoder's posteriors", results)


def _relative(values, mean):
    return values / mean.reshape(-1, *[1] * (values.ndim - 1))


def _dex_above(least):
    # In double precision, or what is cut at the least value would be no tie with a truth that is.
    return lambda values, mean: np.log10(np.maximum(np.asarray(values, dtype=float), least))


#: Key of the quantiles to the name of the quantity and the scale that it is scored on.
_QUANTITIES = {
    "mean_rate": ("log mean rate", _dex_above(1e-12)),
    "rate": ("rate at random times", _relative),
    "spectrum": ("counts in channels", lambda values, mean: np.sqrt(np.maximum(values, 0))),
    "hardness": ("hardness ratio", lambda values, mean: values),
    "fractional_variability": ("log fractional variability", _dex_above(LEAST_VARIABILITY)),
    "photon_index": ("photon index", lambda values, mean: values),
    "kT": ("log kT", _dex_above(1e-3)),
    "n_h": ("log N_H", _dex_above(1e-3)),
    "timescale": ("log time scale", _dex_above(1e-3)),
}


def _labels(population, key):
    if key != "hardness":
        spectral = key in ("spectrum", "photon_index", "kT", "n_h")
        return np.asarray(population.truth["instrument" if spectral else "time_shape"])
    # A truth at the end of the scale lies outside of most intervals, whatever their width.
    extreme = np.abs(_plain(population.truth["hardness"])) > 0.97
    known = population.photons.background.sum(axis=1) > 0
    return np.select([extreme, ~known], ["beyond 0.97", "background unknown"],
                     "background known")


def _plain(column):
    return np.asarray(getattr(column, "value", column), dtype=float)


def _exposed_times(photons, n_times, rng):
    """Random absolute times (n, n_times) in s in proportion to exposure, and their time bins."""
    gathered = np.cumsum(photons.exposed, axis=1, dtype=float)
    drawn = rng.random((len(photons), n_times)) * gathered[:, -1:]
    bins = np.stack([np.searchsorted(own, at, side="right")
                     for own, at in zip(gathered, drawn, strict=True)])
    bins = np.minimum(bins, N_TIME_BINS - 1)
    position = (bins + rng.random(bins.shape)) / N_TIME_BINS
    return photons.start[:, None] + position * photons.duration[:, None], bins
