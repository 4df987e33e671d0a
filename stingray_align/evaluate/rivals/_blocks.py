"""Bayesian blocks: a piecewise constant rate (Scargle et al. 2013, ApJ 764, 167)."""

from __future__ import annotations

import numpy as np
from astropy.stats import bayesian_blocks as _astropy_blocks

from ...photons import N_TIME_BINS
from ._rival import Rival, bin_means, exposed_positions, scored

__all__ = ["bayesian_blocks"]

#: False-alarm probability of a change point.
P0 = 0.05


class _Blocks:
    """Blocks on exposed time, which gaps do not lengthen."""

    def __init__(self, position, clock):
        self.clock, self.edges = clock, np.array([0.0, 1.0])
        # The cost grows with the square of the number of distinct times, and the curve is wanted
        # on 512 bins: beyond that many photons, those of one bin share their time.
        when = (position if position.size <= N_TIME_BINS else
                (position * N_TIME_BINS // 1 + 0.5) / N_TIME_BINS)
        when, times = np.unique(when, return_counts=True)
        if when.size > 1:
            edges = _astropy_blocks(when, times, fitness="events", p0=P0)
            # the first and last block reach to the ends of the exposure, not of the photons
            self.edges = np.concatenate([[0.0], edges[1:-1], [1.0]])
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
