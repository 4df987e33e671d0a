"""Bayesian blocks: a piecewise constant rate (Scargle et al. 2013, ApJ 764, 167)."""

from __future__ import annotations

import numpy as np
from astropy.stats import Events
from scipy.special import xlogy

from ...photons import N_TIME_BINS
from ._rival import Rival, bin_means, exposed_positions, scored

__all__ = ["bayesian_blocks"]

#: False-alarm probability of a change point.
P0 = 0.05


class _Fitness(Events):
    """That of events, for blocks without any, too."""

    def fitness(self, N_k, T_k):
        return xlogy(N_k, N_k / T_k)


class _Blocks:
    """Blocks on exposed time, which gaps do not lengthen."""

    def __init__(self, position, clock):
        self.clock = clock
        # Blocks reach to the ends of the exposure, where there may be no photons.
        when, empty = position, np.array([0.0, 1.0])
        if position.size > N_TIME_BINS:
            # The cost grows with the square of the number of distinct times, and the curve is
            # wanted on 512 bins: with more photons than that, it is bins that are counted.
            centres = (np.arange(N_TIME_BINS) + 0.5) / N_TIME_BINS
            when = centres[np.minimum(position * N_TIME_BINS, N_TIME_BINS - 1).astype(int)]
            empty = np.concatenate([empty, centres])
        when, times = np.unique(np.concatenate([when, empty]), return_counts=True)
        times[np.isin(when, empty)] -= 1
        self.edges = _Fitness(p0=P0).fit(when, times)
        self.photons_in = np.histogram(position, self.edges)[0]
        # half a photon at the mean rate keeps blocks of few photons from extremes
        length = np.diff(self.edges)
        self.shape = self._over_bins((self.photons_in + 0.5) / (position.size * length + 0.5))

    def _over_bins(self, level):
        gathered = np.concatenate([[0.0], np.cumsum(level * np.diff(self.edges))])
        return bin_means(self.clock, self.edges, gathered / gathered[-1])

    def drawn(self, n, rng):
        expected = rng.gamma(self.photons_in + 0.5, size=(n, len(self.photons_in)))
        return np.array([self._over_bins(level) for level in expected / np.diff(self.edges)])


def _curves(photons):
    photons = scored(photons)
    position, clock = exposed_positions(photons)
    for i, (first, last) in enumerate(zip(photons.offsets[:-1], photons.offsets[1:])):
        yield _Blocks(position[first:last], clock[i])


#: Piecewise constant rate with a false-alarm probability of 0.05; Gamma(n + 1/2) in each block.
bayesian_blocks = Rival("Bayesian blocks", _curves)
