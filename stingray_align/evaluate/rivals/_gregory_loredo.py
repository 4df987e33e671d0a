r"""Gregory & Loredo's odds that a source is variable, as in the Chandra Source Catalog.

The window is cut into m = 2, 3, ... equal bins, each with a rate of its own. With
:math:`n_j` of N photons in bin j, which holds the share :math:`\tau_j` of the exposure, the odds of
m bins against a constant rate are

.. math::

   O_m = \frac{(m - 1)! \prod_j n_j!}{(N + m - 1)!} \prod_j \tau_j^{-n_j} ,

the reciprocal of the number of ways to come by these counts, corrected for exposure. Bins without
exposure are not counted in m. All is kept in logarithms.

As in the catalogue, :math:`S(m)`, the mean of the odds of 2 to m bins, is followed up to the
largest m at which it exceeds its maximum divided by :math:`\sqrt e`; there it is the odds O, and
:math:`P = O / (1 + O)` the probability of variability.

References
----------
Gregory & Loredo 1992, ApJ 398, 146; Rots 2006, ASP Conf. Ser. 351, 73; Evans et al. 2010, ApJS
189, 37 (the variability index).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, gammaln

from ...photons import N_TIME_BINS
from ._rival import Rival, RivalEstimate, mean_one, scored

__all__ = ["GregoryLoredoEstimate", "gregory_loredo", "variability_index"]

#: Numbers of bins tried; more than the 512 time bins could not be drawn.
_BINS = np.arange(2, N_TIME_BINS + 1)
_FIRST = np.concatenate([[0], np.cumsum(_BINS)])[:-1]
#: All borders of all these bins, one division of the window after the other.
_BORDERS = np.concatenate([np.arange(m + 1) / m for m in _BINS])
_INSIDE = np.delete(np.arange(len(_BORDERS) - 1), np.cumsum(_BINS + 1)[:-1] - 1)
_GRID = np.linspace(0, 1, N_TIME_BINS + 1)
#: Divisions this unlikely are left out of the light curve.
_NEGLIGIBLE = 1e-4


class _Division(NamedTuple):
    """Counts and shares of the exposure in the bins of one division."""

    counts: np.ndarray
    share: np.ndarray

    def over_bins(self, values):
        """Values in the exposed bins as means over the 512 time bins; 1 without exposure."""
        all_bins = np.ones((*values.shape[:-1], len(self.share)))
        all_bins[..., self.share > 0] = values
        gathered = np.zeros((*values.shape[:-1], len(self.share) + 1))
        np.cumsum(all_bins / len(self.share), axis=-1, out=gathered[..., 1:])
        place = _GRID * len(self.share)
        whole = np.minimum(place.astype(int), len(self.share) - 1)
        at_grid = gathered[..., whole] + (place - whole) * np.diff(gathered)[..., whole]
        return np.diff(at_grid) * N_TIME_BINS

    def moments(self):
        """Mean and variance of the rate in units of its mean, over the time bins."""
        seen, share = self.counts[self.share > 0] + 1.0, self.share[self.share > 0]
        part = seen / seen.sum()
        variance = part * (1 - part) / (seen.sum() + 1)
        return self.over_bins(part / share), self.over_bins(variance / share ** 2)

    def drawn(self, n, rng):
        exposed = self.share > 0
        part = rng.dirichlet(self.counts[exposed] + 1.0, n)
        return self.over_bins(part / self.share[exposed])


class _Curve:
    """Odds, and the light curve averaged over the numbers of bins, for one source."""

    def __init__(self, phase, exposed):
        self.exposed = exposed.astype(float)
        clock = np.concatenate([[0.0], np.cumsum(self.exposed)])
        share = np.diff(np.interp(_BORDERS, _GRID, clock / clock[-1]))[_INSIDE]
        share[share < 1e-9] = 0
        edges = np.searchsorted(np.sort(phase), _BORDERS)
        counts = np.diff(edges)[_INSIDE]
        # the last border is part of the last bin
        counts[_FIRST + _BINS - 1] += len(phase) - edges[np.cumsum(_BINS + 1) - 1]
        counts[share == 0] = 0

        n_exposed = np.add.reduceat((share > 0).astype(int), _FIRST)
        terms = gammaln(counts + 1.0) - counts * np.log(np.where(share > 0, share, 1))
        log_odds = (np.add.reduceat(terms, _FIRST) + gammaln(n_exposed)
                    - gammaln(len(phase) + n_exposed))
        mean = np.logaddexp.accumulate(log_odds) - np.log(_BINS - 1)
        n_used = np.flatnonzero(mean > mean.max() - 0.5)[-1] + 1
        self.log_odds = mean[n_used - 1]
        self.n_bins = _BINS[:n_used]
        self.chance = np.exp(log_odds[:n_used] - np.log(n_used) - self.log_odds)
        self.chance /= self.chance.sum()
        kept = np.flatnonzero(self.chance > _NEGLIGIBLE)
        self._chance = self.chance[kept] / self.chance[kept].sum()
        self._divisions = [
            _Division(counts[first:first + m], share[first:first + m])
            for first, m in zip(_FIRST[kept], _BINS[kept])]

        means, variances = np.array([d.moments() for d in self._divisions]).swapaxes(0, 1)
        self.variable = self._chance @ means
        self.variance = self._chance @ (variances + (means - self.variable) ** 2)
        self.probability = expit(self.log_odds)
        self.shape = mean_one(self.probability * self.variable + 1 - self.probability,
                              self.exposed)

    def within(self, n_sigma):
        """Share of the exposure in which the variable light curve is near its mean."""
        near = np.abs(self.variable - 1) <= n_sigma * np.sqrt(self.variance)
        return self.exposed[near].sum() / self.exposed.sum()

    def drawn(self, n, rng):
        n_variable = rng.binomial(n, self.probability)
        parts = [np.ones((n - n_variable, N_TIME_BINS))]
        for division, number in zip(self._divisions, rng.multinomial(n_variable, self._chance)):
            parts.append(division.drawn(number, rng))
        return rng.permutation(mean_one(np.concatenate(parts), self.exposed))


class GregoryLoredoEstimate(RivalEstimate):
    """Rate of one source by Gregory & Loredo's method; made by calling `gregory_loredo`.

    The rate is the average over all numbers of bins and the constant, with their probabilities.
    """

    @property
    def log10_odds(self):
        """Odds of a variable against a constant rate, decimal logarithm."""
        return float(self._curve.log_odds / np.log(10))

    @property
    def probability(self):
        """Probability that the rate is variable."""
        return float(self._curve.probability)

    @property
    def bin_odds(self):
        """Number of bins m, and the probability of each given that the rate is variable."""
        return self._curve.n_bins, self._curve.chance

    @property
    def fractions(self):
        """Fractions of the light curve within 3 and within 5 sigma of the mean rate."""
        return self._curve.within(3), self._curve.within(5)

    @property
    def variability_index(self):
        """The Chandra Source Catalog's index, 0 to 10; see `variability_index`."""
        return variability_index(self.log10_odds, *self.fractions)


def variability_index(log10_odds, within_3, within_5):
    """Variability index of the Chandra Source Catalog.

    Parameters
    ----------
    log10_odds : float
        Odds of variability, decimal logarithm.
    within_3, within_5 : float
        Fractions of the light curve within 3 and within 5 sigma of the mean rate.

    Returns
    -------
    int
        0 if the probability P is at most 1/2. While the light curve stays near its mean (more
        than 0.997 of it within 3 sigma and all of it within 5): 1 below P = 2/3, 2 below 0.9.
        Otherwise 3 below P = 0.6, 4 below 2/3, 5 below 0.9. From P = 0.9 on by the odds alone:
        6 below 100, 7 below 10^4, 8 below 10^10, 9 below 10^30, and 10 beyond. A source is taken
        for variable from 6 on, and for probably variable from 3 on.

    References
    ----------
    Evans et al. 2010, ApJS 189, 37.

    Examples
    --------
    >>> from stingray_align.evaluate.rivals import variability_index
    >>> variability_index(-0.5, 1, 1), variability_index(0.5, 1, 1), variability_index(12, 0.9, 1)
    (0, 2, 9)
    """
    probability = expit(log10_odds * np.log(10))
    if probability <= 0.5 + 1e-9:  # without photons the odds are one but for rounding
        return 0
    if probability >= 0.9:
        return 6 + int(np.searchsorted([2.0, 4.0, 10.0, 30.0], log10_odds, side="right"))
    if within_3 > 0.997 and within_5 == 1:
        return 1 if probability < 2 / 3 else 2
    return 3 + int(np.searchsorted([0.6, 2 / 3], probability, side="right"))


def _curves(photons):
    photons = scored(photons)
    for i in range(len(photons)):
        yield _Curve(photons[i].phase.astype(float), photons.exposed[i])


#: Gregory & Loredo's average over divisions of the window into 2 to 512 equal bins.
gregory_loredo = Rival("Gregory-Loredo", _curves, GregoryLoredoEstimate)
