r"""Posteriors that need no training, for the quantities that an autodecoder is judged on.

====================== =====================================================================
mean rate              :math:`\mathrm{Gamma}(n + 1/2) / T` of n photons in exposure T
rate at some time      samples of a log-Gaussian Cox process
counts in a channel    :math:`\mathrm{Gamma}(n + 1/2)` of its n photons
hardness ratio         counts of the two bands with Jeffreys' prior: a Beta distribution of the
                       hard fraction, and with a known background its extension to sources over
                       a background
fractional variability excess variance of the binned light curve with its Gaussian error
====================== =====================================================================

References
----------
Park et al. 2006, ApJ 652, 610 (hardness ratios over a background); Vaughan et al. 2003, MNRAS 345,
1271, equations 8 and 11 (excess variance).
"""

import numpy as np
from scipy.special import ndtri
from scipy.stats import gamma

from .._source_counts import source_counts
from ..photons import BAND_OF_CHANNEL, N_TIME_BINS
from . import rivals as _rivals
from .rivals._rival import channel_counts

__all__ = ["INTERVAL_RIVALS", "rival_quantiles"]

#: Which method stands for a quantity.
INTERVAL_RIVALS = {"mean_rate": "Gamma", "rate": "Cox process",
                   "spectrum": "Gamma of the channel", "hardness": "Beta",
                   "fractional_variability": "excess variance"}

_COUNTS_PER_BIN = 10  # fewer make the excess variance's error wrong, more hide short variability


def rival_quantiles(photons, probabilities, *, n_draws=300, seed=0):
    """Quantiles of what each rival says about a source.

    Parameters
    ----------
    photons : Photons
        ``n`` sources.
    probabilities : array_like, shape (n_probabilities,)
        Rising, between 0 and 1.
    n_draws : int, optional
        Draws of each rate curve.
    seed : int, optional

    Returns
    -------
    dict of ndarray
        ``"rate"``, shape (n, 512, n_probabilities): ct/s of 0.5-7 keV with the background at a
        random time of each bin; and of shape (n, n_probabilities) ``"mean_rate"``: ct/s of
        0.5-8 keV with the background; ``"hardness"`` and ``"fractional_variability"`` of the
        source alone; ``"spectrum"``, shape (n, 20, n_probabilities): counts in each channel with
        the background.
    """
    probabilities = np.asarray(probabilities, dtype=float)
    return {
        "rate": _rate(photons, probabilities, n_draws, seed),
        "mean_rate": _mean_rate(photons, probabilities),
        "spectrum": _spectrum(photons, probabilities),
        "hardness": _hardness(photons, probabilities, np.random.default_rng(seed)),
        "fractional_variability": _excess_variance(photons, probabilities)}


def _mean_rate(photons, probabilities):
    counts = gamma.ppf(probabilities, photons.n_photons[:, None] + 0.5)
    return counts / photons.exposure[:, None]


def _spectrum(photons, probabilities):
    return gamma.ppf(probabilities, channel_counts(photons)[:, :, None] + 0.5)


def _rate(photons, probabilities, n_draws, seed):
    quantiles = np.empty((len(photons), N_TIME_BINS, len(probabilities)))
    rng = np.random.default_rng(seed)
    drawn = _rivals.log_gaussian_cox.drawn_band_rates(photons, n_draws, seed)
    for i, draws in enumerate(drawn):
        inside = np.asarray(draws).sum(axis=2).reshape(n_draws, N_TIME_BINS, -1)
        # A random time in a bin lies in any of its fine cells.
        cell = rng.integers(inside.shape[2], size=(*inside.shape[:2], 1))
        at_random = np.take_along_axis(inside, cell, axis=2)[:, :, 0]
        quantiles[i] = np.quantile(at_random, probabilities, axis=0).T
    return quantiles


def _hardness(photons, probabilities, rng, n_draws=4000):
    band = BAND_OF_CHANNEL[photons.channel]
    index = 2 * photons.source_index + (band == 2)
    counts = np.bincount(index[band < 3], minlength=2 * len(photons)).reshape(-1, 2)
    background = np.column_stack([photons.background[:, :2].sum(axis=1), photons.background[:, 2]])
    quantiles = np.empty((len(photons), len(probabilities)))
    for i in range(len(photons)):
        soft, hard = (source_counts(int(n), float(b), n_draws, rng)
                      for n, b in zip(counts[i], background[i], strict=True))
        quantiles[i] = np.quantile((hard - soft) / np.maximum(hard + soft, 1e-300), probabilities)
    return quantiles


def _excess_variance(photons, probabilities):
    result = np.zeros((len(photons), len(probabilities)))
    wanted = np.log2(np.maximum(photons.n_photons / _COUNTS_PER_BIN, 1)).astype(int)
    n_bins = 2 ** np.clip(wanted, 2, 9)
    for size in np.unique(n_bins):
        rows = np.flatnonzero(n_bins == size)
        counts, exposed = photons[rows].rebinned(size)
        used = exposed > 0.5 * exposed.max(axis=1, keepdims=True)
        n = used.sum(axis=1)
        seconds = np.where(used, exposed, 1)
        mean = np.where(used, counts, 0).sum(axis=1) / np.where(used, exposed, 0).sum(axis=1)
        mean = np.maximum(mean, 0.5)
        rate = counts / seconds
        spread = np.where(used, rate - mean[:, None], 0) ** 2
        noise = np.where(used, mean[:, None] / seconds, 0).sum(axis=1) / n
        excess = (spread.sum(axis=1) / np.maximum(n - 1, 1) - noise) / mean ** 2
        noise /= mean ** 2
        error = np.sqrt((np.sqrt(2 / n) * noise) ** 2
                        + 4 * noise / n * np.maximum(excess, 0))
        # The background dilutes the variability of the source.
        total = np.maximum(photons.n_photons[rows], 1)
        net = np.maximum(total - photons.background[rows].sum(axis=1), 0.5 * np.sqrt(total))
        values = excess[:, None] + error[:, None] * ndtri(probabilities)
        result[rows] = np.sqrt(np.maximum(values, 0)) * (total / net)[:, None]
    return result
