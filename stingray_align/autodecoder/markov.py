r"""Log-rates that are Gaussian processes, fitted to counts in cells by Laplace's approximation.

The log-rate is :math:`\eta = g + \Phi a` with :math:`g` a Gauss-Markov process on equal cells and
:math:`\Phi a` a few columns with independent Gaussian coefficients: the unknown mean and, for
periodic models, harmonics. The precision matrix of a Gauss-Markov process is banded, so that the
Newton steps to the most probable :math:`\eta` cost a few hundred operations per cell whatever the
length scale. The columns are eliminated by a Schur complement.

References
----------
Rue & Held 2005, *Gaussian Markov Random Fields*; Rasmussen & Williams 2006, *Gaussian Processes
for Machine Learning*, section 3.4 (Laplace's approximation); Hartikainen & Sarkka 2010, IEEE MLSP
(Matern kernels as Markov processes).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dsbmv
from scipy.linalg.lapack import dpbtrf, dpbtrs, dpotrf, dpotrs, dtbtrs, dtrtrs

__all__ = ["LEVEL", "Columns", "Fit", "Markov", "Posterior", "fit", "matern12", "matern32",
           "mean_only"]

#: Standard deviation of the log of the level that a process varies about.
LEVEL = 2.0
#: Largest change of a log-rate in one Newton step, and squared change at which the steps stop: the
#: evidence is then right to a few hundredths.
_STRIDE, _TOLERANCE, _MOST_STEPS = 2.0, 1e-2, 30


class Markov(NamedTuple):
    """Precision matrix of a Gauss-Markov process on equal cells.

    Attributes
    ----------
    band : ndarray, shape (n_band, size * n_cells)
        Lower band, of the states of all cells one after the other.
    log_det : float
    size : int
        Entries of the state of a cell; the first is the process itself.
    length : float
        Length scale in cells.
    """

    band: np.ndarray
    log_det: float
    size: int
    length: float


class Columns(NamedTuple):
    """Columns (n_cells, m) and the precision of their coefficients (m,)."""

    matrix: np.ndarray
    precision: np.ndarray


class Fit(NamedTuple):
    """Most probable log-rate over the constant (n_cells,), and the log of the evidence."""

    log_rate: np.ndarray
    log_evidence: float


@cache
def matern12(length, deviation, n_cells):
    """Exponential kernel: continuous, but rough. Length in cells."""
    step = np.array([[np.exp(-1 / length)]])
    return _markov(step, deviation ** 2 * -np.expm1(-2 / length) * np.eye(1), deviation, length,
                   n_cells)


@cache
def matern32(length, deviation, n_cells):
    """Matern kernel of order 3/2: once differentiable. Length in cells."""
    a = np.sqrt(3) / length
    # the second entry of the state is the derivative in units of its standard deviation
    step = np.exp(-a) * np.array([[1 + a, a], [-a, 1 - a]])
    lost = np.exp(-2 * a)
    noise = np.array([[1 - lost * (1 + 2 * a + 2 * a ** 2), 2 * a ** 2 * lost],
                      [2 * a ** 2 * lost, 1 - lost * (1 - 2 * a + 2 * a ** 2)]])
    return _markov(step, deviation ** 2 * noise, deviation, length, n_cells)


def _markov(step, noise, deviation, length, n_cells):
    """Stationary process ``x[t + 1] = step x[t] + noise`` with variance ``deviation ** 2``."""
    size = len(step)
    inverse = np.linalg.inv(noise)
    onward, before = step.T @ inverse @ step, -inverse @ step
    first, middle, last = np.eye(size) / deviation ** 2 + onward, inverse + onward, inverse
    band = np.zeros((2 * size, size * n_cells), order="F")
    for i in range(size):
        for j in range(i, size):
            band[j - i, i::size] = middle[j, i]
            band[j - i, i], band[j - i, i - size] = first[j, i], last[j, i]
        for j in range(size):
            band[size + j - i, i:-size:size] = before[j, i]
    log_det = -2 * size * np.log(deviation) - (n_cells - 1) * np.linalg.slogdet(noise)[1]
    return Markov(band, log_det, size, length)


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
    process : Markov or None
        None for the columns alone.
    columns : Columns
    start : ndarray, shape (n_cells,), optional
        A log-rate near the solution.

    Returns
    -------
    Fit
        The evidence is relative to that of the photons under the constant rate.
    """
    log_rate = np.zeros(len(counts)) if start is None else start
    rate = expected * np.exp(log_rate)
    before, value = None, -np.inf
    for _ in range(_MOST_STEPS):
        system = _System(rate, process, columns)
        state, coefficients = system.solve(rate * log_rate + counts - rate)
        step = columns.matrix @ coefficients - log_rate
        if process is not None:
            step = step + state[::process.size]
        share = min(1.0, _STRIDE / max(np.abs(step).max(), 1e-9))
        after = state, coefficients
        while True:
            if before is None:       # the start has no state: come back to zero until there is one
                now = tuple(share * x for x in after)
                trial = share * (log_rate + step)
            else:
                now = tuple(a + share * (b - a) for a, b in zip(before, after))
                trial = log_rate + share * step
            trial_rate = expected * np.exp(trial)
            new = counts @ trial - trial_rate.sum() - system.penalty(*now) / 2
            if before is None or new >= value - 1e-9 or share < 1e-3:
                break
            share /= 2
        done = share == 1 and (step ** 2 @ rate) < _TOLERANCE
        log_rate, rate, before, value = trial, trial_rate, now, new
        if done:
            break
    return Fit(log_rate, value + expected.sum() - system.log_det / 2)


class _System:
    """The Hessian ``[[Q + W, W Phi], [., D + Phi' W Phi]]`` at given expected counts ``W``."""

    def __init__(self, weight, process, columns):
        self.weight, self.process, self.columns = weight, process, columns
        matrix, precision = columns
        weighted = weight[:, None] * matrix
        schur = matrix.T @ weighted
        schur.flat[::len(schur) + 1] += precision
        self.log_det = -np.log(precision).sum()
        if process is None:
            self.left = matrix
        else:
            band = process.band.copy(order="F")
            band[0, ::process.size] += weight
            self.factor = dpbtrf(band, lower=1, overwrite_ab=1)[0]
            self.carried = self._spread(weighted)
            schur -= weighted.T @ self.carried[::process.size]
            self.left = matrix - self.carried[::process.size]
            self.log_det += 2 * np.log(self.factor[0]).sum() - process.log_det
        self.schur = dpotrf(schur, lower=1)[0]
        self.log_det += 2 * np.log(np.diag(self.schur)).sum()

    def _spread(self, values):
        """``(Q + W)^-1`` acting on values (n_cells, k) in the first entries of the states."""
        right = np.zeros((self.factor.shape[1], values.shape[1]), order="F")
        right[::self.process.size] = values
        return dpbtrs(self.factor, right, lower=1, overwrite_b=1)[0]

    def solve(self, values):
        """State and coefficients for a right-hand side ``[values, Phi' values]``."""
        coefficients = dpotrs(self.schur, self.left.T @ values, lower=1)[0]
        if self.process is None:
            return np.zeros(0), coefficients
        return self._spread(values[:, None])[:, 0] - self.carried @ coefficients, coefficients

    def penalty(self, state, coefficients):
        total = self.columns.precision @ coefficients ** 2
        if self.process is not None:
            band = self.process.band
            total += state @ dsbmv(len(band) - 1, 1.0, band, state, lower=1)
        return total


class Posterior:
    """Gaussian approximation of the log-rate about its mode, with its mean to second order.

    The third derivative of the likelihood moves the mean of the log-rate off the mode by
    ``-V (rate * v) / 2`` with covariance V and variance v, and the mean of the rate to
    ``exp(mode + v / 2 - V (rate * v) / 2)`` (Tierney & Kadane 1986, JASA 81, 82).

    Parameters
    ----------
    expected : ndarray, shape (n_cells,)
    process : Markov or None
    columns : Columns
    mode : ndarray, shape (n_cells,)
    """

    def __init__(self, expected, process, columns, mode):
        self._system = _System(expected * np.exp(mode), process, columns)
        variance = self._variance()
        shift = self._covariance_times(self._system.weight * variance)
        self.centre = mode - shift / 2
        self.log_mean = self.centre + variance / 2

    def _variance(self):
        system = self._system
        half = dtrtrs(system.schur, np.asfortranarray(system.left.T), lower=1)[0]
        variance = (half ** 2).sum(axis=0)
        if system.process is None:
            return variance
        n_cells = len(variance)
        # The variance is smooth, so that not every cell is needed; and cells eight length scales
        # apart hardly share any of it, so one solution serves many.
        length = system.process.length
        stride = int(np.clip(length / 4, 1, 8))
        cells = np.append(np.arange(0, n_cells - 1, stride), n_cells - 1)
        probe = np.arange(len(cells)) % int(np.ceil(8 * length / stride))
        unit = np.zeros((n_cells, probe.max() + 1))
        unit[cells, probe] = 1
        own = system._spread(unit)[cells * system.process.size, probe]
        return variance + np.interp(np.arange(n_cells), cells, own)

    def _covariance_times(self, values):
        system = self._system
        state, coefficients = system.solve(values)
        moved = system.columns.matrix @ coefficients
        return moved if system.process is None else moved + state[::system.process.size]

    def drawn(self, n, rng):
        """Log-rates drawn from the posterior, shape (n, n_cells)."""
        system = self._system
        noise = rng.standard_normal((len(system.schur), n))
        log_rate = system.left @ dtrtrs(system.schur, noise, lower=1, trans=1)[0]
        if system.process is not None:
            noise = np.asfortranarray(rng.standard_normal((system.factor.shape[1], n)))
            drawn = dtbtrs(system.factor, noise, uplo="L", trans="T")[0]
            log_rate = log_rate + drawn[::system.process.size]
        return self.centre + log_rate.T
