"""Intervals of parameters that are read off the neighbours, made to hold what they say.

The 16th, 50th and 84th percentile of the neighbours' weighted values are a guess: neighbours do not
share a source's brightness, and the vote's temperature was chosen for classes. On sources whose
truth is known, the factor is found by which the two sides of that interval have to be stretched so
that it holds 68 % of the truths, for few, some and many photons apart (conformal prediction: Lei et
al. 2018, JASA 113, 1094).
"""

import numpy as np

__all__ = ["LOGARITHMIC", "PARAMETERS", "percentiles", "stretched", "stretches"]

#: Columns read off the neighbours: label and format of the value.
PARAMETERS = {
    "photon_index": ("photon index", "{:.2f}"),
    "kT": ("temperature kT", "{:.2g}"),
    "n_h": ("column density", "{:.2g}"),
    "flux": ("flux, 0.5-7 keV", "{:.1e}"),
    "hardness": ("source hardness", "{:+.2f}"),
    "fractional_variability": ("fractional rms", "{:.2f}"),
    "period": ("period", "{:.2g}"),
    "timescale": ("time scale", "{:.2g}"),
}
#: Those that are stretched as logarithms.
LOGARITHMIC = ("kT", "n_h", "flux", "period", "timescale")
_LIMITS = {"hardness": (-1, 1), "fractional_variability": (0, np.inf)}
#: Photon counts that part few, some and many.
_BORDERS = (50, 300)
_LEVEL = 0.68
_FEWEST_WITH = 0.2  # share of the neighbours' weight that must have a parameter
_FEWEST_TRUTHS = 30  # to tell a factor from


def percentiles(table, name, weights):
    """Weighted 16th, 50th, 84th percentile of a column, and the weight of rows that have it.

    Parameters
    ----------
    table : astropy.table.Table, n rows
    name : str
    weights : ndarray, shape (n,)

    Returns
    -------
    (ndarray of shape (3,), float) or None
        None if less than a fifth of the weight has the parameter.
    """
    values = _plain(table[name])
    known = np.isfinite(values) & (weights > 0)
    share = float(weights[known].sum())
    if share < _FEWEST_WITH:
        return None
    return weighted_quantiles(values[known], weights[known], (0.16, 0.5, 0.84)), share


def weighted_quantiles(values, weights, levels):
    """Quantiles of values with weights."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    position = (np.cumsum(weights) - 0.5 * weights) / weights.sum()
    return [float(x) for x in np.interp(levels, position, values)]


def stretched(name, guess, factor):
    """Lower limit, median and upper limit, after the sides were stretched."""
    low, middle, high = _transformed(name, np.array(guess, float))
    out = np.array([middle - factor * (middle - low), middle, middle + factor * (high - middle)])
    if name in LOGARITHMIC:
        return 10 ** out
    return np.clip(out, *_LIMITS.get(name, (-np.inf, np.inf)))


def stretches(table, weights, truth, counts):
    """Factors for which the intervals hold 68 % of known truths.

    Parameters
    ----------
    table : astropy.table.Table, n rows
        Of the catalogue.
    weights : sequence of ndarray, shape (n,)
        Of the neighbours of each source with known truth.
    truth : astropy.table.Table
        Their parameters.
    counts : ndarray
        Their photons.

    Returns
    -------
    ndarray, shape (n_parameters, 3)
        In the order of `PARAMETERS`, for few, some and many photons; one where there are too few
        truths.
    """
    group = np.searchsorted(_BORDERS, counts, side="right")
    factors = np.ones((len(PARAMETERS), len(_BORDERS) + 1))
    for i, name in enumerate(PARAMETERS):
        if name not in table.colnames or name not in truth.colnames:
            continue
        true = _transformed(name, _plain(truth[name]))
        needed = np.full(len(true), np.nan)
        for row, own in enumerate(weights):
            if not np.isfinite(true[row]) or (found := percentiles(table, name, own)) is None:
                continue
            low, middle, high = _transformed(name, np.array(found[0]))
            off = true[row] - middle
            side = high - middle if off > 0 else middle - low
            needed[row] = 0.0 if off == 0 else abs(off) / max(side, 1e-9)
        for j in range(factors.shape[1]):
            some = needed[(group == j) & np.isfinite(needed)]
            if len(some) >= _FEWEST_TRUTHS:
                level = min(1.0, _LEVEL * (1 + 1 / len(some)))
                factors[i, j] = np.clip(np.quantile(some, level), 0.05, 20)
    return factors


def stretch_of(name, counts, factors):
    """The factor of a parameter for so many photons."""
    return float(factors[list(PARAMETERS).index(name), np.searchsorted(_BORDERS, counts, "right")])


def _transformed(name, values):
    if name not in LOGARITHMIC:
        return values
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log10(np.where(values > 0, values, np.nan))


def _plain(column):
    values = np.ma.asarray(getattr(column, "value", column), dtype=float)
    return np.ma.filled(values, np.nan)
