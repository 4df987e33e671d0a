"""What a careful astronomer would do without a trained model: the rivals of the autodecoder.

Each takes `~stingray_align.photons.Photons` and returns the rate in ct/s, shape (n, 512, 3), on
the 512 time bins and the bands 0.5-1.2, 1.2-2 and 2-7 keV. They see one source at a time and work
on *exposed* time, in which gaps have no length. They share one spectral model: a curve common to
all bands times the band's Jeffreys mean rate, ``(n + 1/2) / T``.

References
----------
Scargle et al. 2013, ApJ 764, 167 (Bayesian blocks); Silverman 1986, *Density Estimation for
Statistics and Data Analysis* (kernel estimates, reflection, likelihood cross-validation).
"""

import numpy as np
from astropy.stats import bayesian_blocks as _astropy_blocks
from scipy.fft import dct, idct
from scipy.special import softmax

from ..photons import BAND_OF_CHANNEL, N_TIME_BINS

__all__ = ["RIVALS", "bayesian_blocks", "constant", "kde"]

#: Kernel widths tried, as fractions of the exposed time, and shares of a flat pedestal.
BANDWIDTHS = np.geomspace(0.5 / N_TIME_BINS, 1.0, 36)
PEDESTALS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)


def constant(photons):
    """Mean rate of each band, ``(n + 1/2) / T`` with n photons in exposure T.

    Parameters
    ----------
    photons : Photons

    Returns
    -------
    ndarray, shape (n, 512, 3)
        Rate in ct/s.
    """
    return np.broadcast_to(_mean_rates(photons)[:, None], (len(photons), N_TIME_BINS, 3))


def bayesian_blocks(photons, *, p0=0.05):
    """Piecewise constant rate by Bayesian blocks on the exposed time.

    Parameters
    ----------
    photons : Photons
    p0 : float, optional
        False-alarm probability of a change point, see `astropy.stats.bayesian_blocks`.

    Returns
    -------
    ndarray, shape (n, 512, 3)
        Rate in ct/s.
    """
    position, offsets, clock = _exposed_positions(photons)
    shape = np.ones((len(photons), N_TIME_BINS))
    for i in range(len(photons)):
        own = position[offsets[i]:offsets[i + 1]]
        # The cost grows with the square of the number of distinct times, and the curve is wanted
        # on 512 bins: beyond that many photons, those of one bin share their time.
        when = own if own.size <= N_TIME_BINS else (own * N_TIME_BINS // 1 + 0.5) / N_TIME_BINS
        when, times = np.unique(when, return_counts=True)
        if when.size < 2:
            continue
        edges = _astropy_blocks(when, times, fitness="events", p0=p0)
        # the first and last block reach to the ends of the exposure, not of the photons
        edges = np.concatenate([[0.0], edges[1:-1], [1.0]])
        photons_in = np.histogram(own, edges)[0]
        # half a photon at the mean rate keeps blocks of few photons from extremes
        level = (photons_in + 0.5) / (own.size * np.diff(edges) + 0.5)
        gathered = np.concatenate([[0.0], np.cumsum(level * np.diff(edges))])
        shape[i] = _bin_means(clock[i], edges, gathered / gathered[-1])
    return _with_bands(shape, photons)


def kde(photons):
    """Gaussian kernel estimate of the rate, averaged over kernels by cross-validation.

    Kernels are reflected at both ends of the exposed time and stand on a flat pedestal. Instead of
    keeping the one width and pedestal with the greatest leave-one-out likelihood, all are averaged
    with that likelihood as weight, against a constant with prior weight one half: this scores
    better than any single choice, above all for faint and constant sources.

    Parameters
    ----------
    photons : Photons

    Returns
    -------
    ndarray, shape (n, 512, 3)
        Rate in ct/s.
    """
    position, offsets, clock = _exposed_positions(photons)
    n = len(photons)
    counts = _in_cells(position, offsets)
    total = counts.sum(axis=1)
    row, column = np.nonzero(counts)
    weight = counts[row, column]
    # reflection at the borders makes a Gaussian kernel diagonal in the cosine transform
    spectrum = dct(counts, norm="ortho")
    cosines = dct(np.eye(N_TIME_BINS), norm="ortho")
    order = np.pi * np.arange(N_TIME_BINS)
    score = np.empty((n, len(BANDWIDTHS), len(PEDESTALS)))
    smooth = []
    for a, width in enumerate(BANDWIDTHS):
        window = np.exp(-0.5 * (width * order) ** 2)
        curve = idct(spectrum * window, norm="ortho").clip(0) * N_TIME_BINS
        smooth.append((curve / np.maximum(total, 1)[:, None]).astype(np.float32))
        own = (cosines ** 2) @ window * N_TIME_BINS
        others = (curve[row, column] - own[column]).clip(0) / np.maximum(total[row] - 1, 1)
        for b, flat in enumerate(PEDESTALS):
            score[:, a, b] = np.bincount(row, weight * np.log((1 - flat) * others + flat),
                                         minlength=n)
    # the constant has leave-one-out likelihood 1 for each photon, so a score of 0
    chance = softmax(np.column_stack([score.reshape(n, -1) - np.log(score[0].size), np.zeros(n)]),
                     axis=1)[:, :-1].reshape(score.shape)
    curved = chance @ (1 - np.asarray(PEDESTALS))
    density = 1 - curved.sum(axis=1, keepdims=True)
    density = density + sum(curved[:, [a]] * curve for a, curve in enumerate(smooth))
    borders = np.linspace(0, 1, N_TIME_BINS + 1)
    shape = np.empty_like(density)
    for i in range(n):
        gathered = np.concatenate([[0.0], np.cumsum(density[i])])
        shape[i] = _bin_means(clock[i], borders, gathered / gathered[-1])
    return _with_bands(shape, photons)


#: The rivals shown by default beside every model; the constant is the zero of the scale.
RIVALS = {"Bayesian blocks": bayesian_blocks, "cross-validated KDE": kde}


def _exposed_positions(photons):
    """Photons of the three bands on exposed time (0 to 1), and the clock (n, 513) at bin edges."""
    clock = np.zeros((len(photons), N_TIME_BINS + 1))
    np.cumsum(photons.exposed, axis=1, dtype=float, out=clock[:, 1:])
    clock /= np.maximum(clock[:, -1:], 1e-12)
    scored = photons.select(BAND_OF_CHANNEL[photons.channel] < 3)
    source, bins = scored.source_index, scored.time_bin
    left, right = clock[source, bins], clock[source, bins + 1]
    within = scored.phase.astype(float) * N_TIME_BINS - bins
    return left + (right - left) * within, scored.offsets, clock


def _in_cells(position, offsets):
    """Photons in each of 512 equal cells of exposed time, shape (n, 512)."""
    n = len(offsets) - 1
    source = np.repeat(np.arange(n), np.diff(offsets))
    cell = source * N_TIME_BINS + np.minimum((position * N_TIME_BINS).astype(int), N_TIME_BINS - 1)
    return np.bincount(cell, minlength=n * N_TIME_BINS).reshape(n, N_TIME_BINS).astype(float)


def _bin_means(clock, knots, gathered):
    """Mean of a density over each time bin, from its integral at knots on exposed time."""
    inside = np.interp(clock, knots, gathered)
    length = np.diff(clock)
    mean = np.diff(inside) / np.where(length > 0, length, 1)
    # a bin without exposure takes the level at its place on the exposed clock
    cell = np.clip(np.searchsorted(knots, clock[:-1], side="right") - 1, 0, len(knots) - 2)
    level = np.diff(gathered) / np.diff(knots)
    return np.where(length > 1e-9, mean, level[cell])


def _mean_rates(photons):
    band = BAND_OF_CHANNEL[photons.channel]
    cell = photons.source_index * 4 + band
    counts = np.bincount(cell, minlength=4 * len(photons)).reshape(-1, 4)[:, :3]
    return (counts + 0.5) / photons.exposure[:, None]


def _with_bands(shape, photons):
    return shape[:, :, None] * _mean_rates(photons)[:, None]
