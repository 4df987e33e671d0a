"""Source counts over a known background."""

import numpy as np
from scipy.special import gammaln

__all__ = ["source_counts"]


def source_counts(n, background, n_draws, rng):
    """Draws of the expected source counts, given n counts over a known background.

    The posterior under Jeffreys' prior of the source, :math:`(s + b)^n e^{-s} s^{-1/2}`, is a
    mixture of Gamma distributions, one for each number of photons that may be the source's own.

    Parameters
    ----------
    n : int
        Counts, of source and background.
    background : float
        Counts expected from the background.
    n_draws : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_draws,)

    References
    ----------
    Park et al. 2006, ApJ 652, 610, section 2.2.
    """
    own = np.full(n_draws, n)
    if background > 0:
        own = np.arange(n + 1)
        weight = (gammaln(own + 0.5) - gammaln(own + 1) - gammaln(n - own + 1)
                  + (n - own) * np.log(background))
        cumulative = np.cumsum(np.exp(weight - weight.max()))
        own = np.searchsorted(cumulative, rng.random(n_draws) * cumulative[-1])
    return rng.gamma(own + 0.5)
