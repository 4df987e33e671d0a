r"""Log-rates that are Gaussian processes, fitted to counts in cells by Laplace's approximation.

The log-rate is :math:`\eta = g + \Phi a` with :math:`g` a Gauss-Markov process on equal cells and
:math:`\Phi a` a few columns with independent Gaussian coefficients: the unknown mean and, for
periodic models, harmonics. The process is followed from cell to cell
(`stingray_align.autodecoder.chain`), so that a Newton step to the most probable :math:`\eta` costs
the same whatever the length scale. The columns are eliminated by a Schur complement.

References
----------
Rasmussen & Williams 2006, *Gaussian Processes for Machine Learning*, section 3.4 (Laplace's
approximation); Hartikainen & Sarkka 2010, IEEE MLSP (Matern kernels as Markov processes).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from .chain import posterior_variance, prior_draws, solved
from .harmonics import Harmonics
from .newton import most_probable, most_probable_waves

__all__ = ["LEVEL", "Columns", "Fit", "Posterior", "fit", "fit_kernels", "matern12", "matern32",
           "mean_only"]

#: Standard deviation of the log of the level that a process varies about.
LEVEL = 2.0

_NO_PROCESS = np.zeros(0)


class Columns(NamedTuple):
    """Basis functions as columns, and the precision of their coefficients (m,).

    The basis is a matrix (n_cells, m) or `~stingray_align.autodecoder.harmonics.Harmonics`.
    """

    basis: np.ndarray | Harmonics
    precision: np.ndarray

    @property
    def matrix(self):
        return self.basis.matrix if isinstance(self.basis, Harmonics) else self.basis

    @property
    def n_cells(self):
        return len(self.basis)


class Fit(NamedTuple):
    """Most probable log-rate over the constant (n_cells,), and the log of the evidence."""

    log_rate: np.ndarray
    log_evidence: float


@cache
def matern12(length, deviation):
    """Exponential kernel: continuous, but rough. Length in cells; see `chain.solved`."""
    variance = deviation ** 2
    return np.array([np.exp(-1 / length), 0, 0, 0, variance * -np.expm1(-2 / length), 0, 0,
                     variance, 0, 0])


@cache
def matern32(length, deviation):
    """Matern kernel of order 3/2: once differentiable. Length in cells; see `chain.solved`."""
    a, variance = np.sqrt(3) / length, deviation ** 2
    # the second entry of the state is the derivative in units of its standard deviation
    step, lost = np.exp(-a) * np.array([1 + a, a, -a, 1 - a]), np.exp(-2 * a)
    noise = [1 - lost * (1 + 2 * a + 2 * a ** 2), 2 * a ** 2 * lost,
             1 - lost * (1 - 2 * a + 2 * a ** 2)]
    return np.concatenate([step, variance * np.array([*noise, 1, 0, 1])])


@cache
def mean_only(n_cells):
    """The unknown level alone."""
    return Columns(np.ones((n_cells, 1)), np.array([LEVEL ** -2]))


def fit(counts, expected, process, columns, start=None):
    """Most probable log-rate and evidence of one model.

    Parameters
    ----------
    counts, expected : ndarray, shape (n_cells,)
        Photons, and photons expected from a constant rate.
    process : ndarray or None
        From `matern12` or `matern32`; None for the columns alone.
    columns : Columns
    start : ndarray, shape (n_cells,), optional
        A log-rate near the solution.

    Returns
    -------
    Fit
        The evidence is relative to that of the photons under the constant rate.
    """
    start = np.zeros(len(counts)) if start is None else start
    if process is None and isinstance(columns.basis, Harmonics):
        waves = columns.basis
        return Fit(*most_probable_waves(counts, expected, waves.waves, waves.slow, waves.changes,
                                        columns.precision, start))
    process = _NO_PROCESS if process is None else process
    log_rate, log_evidence = most_probable(counts, expected, process[None], columns.matrix,
                                           columns.precision, start[None])
    return Fit(log_rate[0], log_evidence[0])


def fit_kernels(counts, expected, processes, starts):
    """The same for several processes, each about an unknown level, in a fraction of the time.

    Parameters
    ----------
    counts, expected : ndarray, shape (n_cells,)
    processes : sequence of ndarray
    starts : sequence of ndarray, shape (n_cells,)

    Returns
    -------
    list of Fit
    """
    return list(map(Fit, *most_probable(counts, expected, np.array(processes),
                                        *mean_only(len(counts)), np.array(starts))))


class Posterior:
    """Gaussian approximation of the log-rate about its mode, with its mean to second order.

    The third derivative of the likelihood moves the mean of the log-rate off the mode by
    ``-V (rate * v) / 2`` with covariance V and variance v, and the mean of the rate to
    ``exp(mode + v / 2 - V (rate * v) / 2)`` (Tierney & Kadane 1986, JASA 81, 82).

    Parameters
    ----------
    expected : ndarray, shape (n_cells,)
    process : ndarray or None
    columns : Columns
    mode : ndarray, shape (n_cells,)
    """

    def __init__(self, expected, process, columns, mode):
        weight = expected * np.exp(mode)
        self._system = (weight, _NO_PROCESS if process is None else process, columns.matrix,
                        columns.precision)
        variance = posterior_variance(*self._system)
        shift = solved(*self._system, (weight * variance)[:, None])[:, 0]
        self.centre = mode - shift / 2
        self.log_mean = self.centre + variance / 2

    def drawn(self, n, rng):
        """Log-rates drawn from the posterior, shape (n, n_cells)."""
        # A draw from the prior, moved as far as draws of what was seen ask for (Matheron's rule).
        weight, process, matrix, precision = self._system
        log_rate = matrix @ (rng.standard_normal((len(precision), n)) / np.sqrt(precision)[:, None])
        if len(process):
            log_rate += prior_draws(process, rng.standard_normal((len(weight), 2, n)))
        noise = np.sqrt(weight)[:, None] * rng.standard_normal(log_rate.shape)
        moved = solved(*self._system, noise - weight[:, None] * log_rate)
        return self.centre + (log_rate + moved).T
