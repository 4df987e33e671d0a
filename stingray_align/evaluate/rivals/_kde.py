"""Gaussian kernel estimate of the rate, averaged over kernels by cross-validation.

Kernels are reflected at both ends of the exposed time and stand on a flat pedestal (Silverman
1986, *Density Estimation for Statistics and Data Analysis*). Instead of keeping the one width and
pedestal with the greatest leave-one-out likelihood, all are averaged with that likelihood as
weight, against a constant with prior weight one half: this scores better than any single choice,
above all for faint and constant sources. The uncertainty is a Bayesian bootstrap (Rubin 1981,
Ann. Statist. 9, 130): each photon counts with a weight drawn from Gamma(1).
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct, idct
from scipy.special import softmax

from ...photons import N_TIME_BINS
from ._rival import Rival, bin_means, exposed_positions, scored

__all__ = ["kde"]

#: Kernel widths tried, as fractions of the exposed time, and shares of a flat pedestal.
BANDWIDTHS = np.geomspace(0.5 / N_TIME_BINS, 1.0, 36)
PEDESTALS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
_BORDERS = np.linspace(0, 1, N_TIME_BINS + 1)
#: What each width leaves of the cosines: reflection makes a Gaussian kernel diagonal in them.
_WINDOWS = np.exp(-0.5 * (BANDWIDTHS[:, None] * np.pi * np.arange(N_TIME_BINS)) ** 2)
#: Sources worked on at a time.
_CHUNK = 256


class _Kernels:
    """The averaged kernel acting on counts in 512 equal cells of exposed time."""

    def __init__(self, counts, curved, clock):
        self.counts, self.clock = counts, clock
        self.flat, self.window = 1 - curved.sum(), curved @ _WINDOWS
        self.shape = self._over_bins(counts)

    def _over_bins(self, weights):
        spectrum = dct(weights / max(weights.sum(), 1e-300), norm="ortho")
        density = self.flat + idct(spectrum * self.window, norm="ortho").clip(0) * N_TIME_BINS
        gathered = np.concatenate([[0.0], np.cumsum(density)])
        return bin_means(self.clock, _BORDERS, gathered / gathered[-1])

    def drawn(self, n, rng):
        weights = rng.gamma(self.counts, size=(n, N_TIME_BINS))
        return np.array([self._over_bins(own) for own in weights])


def _curves(photons):
    for first in range(0, len(photons), _CHUNK):
        part = scored(photons[first:first + _CHUNK])
        position, clock = exposed_positions(part)
        counts = _in_cells(position, part)
        for own, curved, ticks in zip(counts, _shares(counts), clock):
            yield _Kernels(own, curved, ticks)


def _shares(counts):
    """Share of each width in the averaged estimate, shape (n, 36); a flat curve has the rest."""
    n = len(counts)
    total = counts.sum(axis=1)
    row, column = np.nonzero(counts)
    weight = counts[row, column]
    spectrum = dct(counts, norm="ortho")
    cosines = dct(np.eye(N_TIME_BINS), norm="ortho")
    score = np.empty((n, len(BANDWIDTHS), len(PEDESTALS)))
    for a, window in enumerate(_WINDOWS):
        curve = idct(spectrum * window, norm="ortho").clip(0) * N_TIME_BINS
        own = (cosines ** 2) @ window * N_TIME_BINS
        others = (curve[row, column] - own[column]).clip(0) / np.maximum(total[row] - 1, 1)
        for b, flat in enumerate(PEDESTALS):
            score[:, a, b] = np.bincount(row, weight * np.log((1 - flat) * others + flat),
                                         minlength=n)
    # the constant has leave-one-out likelihood 1 for each photon, so a score of 0
    chance = softmax(np.column_stack([score.reshape(n, -1) - np.log(score[0].size), np.zeros(n)]),
                     axis=1)[:, :-1].reshape(score.shape)
    return chance @ (1 - np.asarray(PEDESTALS))


def _in_cells(position, photons):
    """Photons in each of 512 equal cells of exposed time, shape (n, 512)."""
    cell = np.minimum((position * N_TIME_BINS).astype(int), N_TIME_BINS - 1)
    cell += photons.source_index * N_TIME_BINS
    counts = np.bincount(cell, minlength=len(photons) * N_TIME_BINS)
    return counts.reshape(len(photons), N_TIME_BINS).astype(float)


#: Kernel estimate averaged over widths and pedestals; intervals from a Bayesian bootstrap.
kde = Rival("cross-validated KDE", _curves)
