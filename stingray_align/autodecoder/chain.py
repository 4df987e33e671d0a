r"""Gauss-Markov processes along a chain of equal cells, observed in each: compiled loops.

A process of one or two entries :math:`x_{t+1} = A x_t + \epsilon`, whose first entry :math:`g` is
observed in each cell with a precision :math:`W_t`, is followed forward by a Kalman filter and
backward by its adjoint (Bryson & Frazier 1963), which inverts no matrix: it stays exact for
processes that hardly change from cell to cell, and costs some tens of nanoseconds per cell
whatever their length scale.
"""

from __future__ import annotations

import numpy as np

from ._compiled import compiled
from .triangular import cholesky, solve_lower, solve_lower_transposed

__all__ = ["posterior_variance", "prior_draws", "solved", "solved_in_full"]

#: Cells whose products of columns are worked out at once, so that they stay in the cache.
_BLOCK = 256


@compiled
def _filtered(weight, process, values):
    """One pass forward over the cells.

    Parameters
    ----------
    weight : ndarray, shape (n_cells,)
        Expected counts W.
    process : ndarray, shape (10,)
    values : ndarray, shape (n_cells, k)

    Returns
    -------
    known : ndarray, shape (n_cells, 4)
        Covariance (p00, p01, p11) of the state before its cell is observed, and 1 / (1 + W p00).
    ahead, surprise : ndarray, shape (n_cells, k)
        First entry of the state before its cell is observed, and what the observation adds.
    log_det : float
        ``log det(1 + W K)`` with the covariance K of the process.
    """
    n, k = values.shape
    a, b, c, d, n00, n01, n11, p00, p01, p11 = process
    known, ahead, surprise = np.empty((n, 4)), np.empty((n, k)), np.empty((n, k))
    first, second = np.zeros(k), np.zeros(k)
    log_det, product = 0.0, 1.0
    for t in range(n):
        w = weight[t]
        spread = 1 + w * p00
        left = 1 / spread
        known[t, 0], known[t, 1], known[t, 2], known[t, 3] = p00, p01, p11, left
        for j in range(k):
            new = (values[t, j] - w * first[j]) * left
            ahead[t, j], surprise[t, j] = first[j], new
            x, y = first[j] + p00 * new, second[j] + p01 * new
            first[j], second[j] = a * x + b * y, c * x + d * y
        product *= spread
        if product > 1e200:      # one logarithm for many cells
            log_det += np.log(product)
            product = 1.0
        p11 -= w * left * p01 * p01
        p00, p01 = p00 * left, p01 * left
        right0, right1 = a * p00 + b * p01, a * p01 + b * p11
        last0, last1 = c * p00 + d * p01, c * p01 + d * p11
        p00, p01, p11 = (right0 * a + right1 * b + n00, right0 * c + right1 * d + n01,
                         last0 * c + last1 * d + n11)
    return known, ahead, surprise, log_det + np.log(product)


@compiled
def _smoothed(weight, process, known, ahead, surprise):
    """The pass backward: ``(K^-1 + W)^-1`` acting on the values, in place of ``ahead``."""
    n, k = ahead.shape
    a, b, c, d = process[0], process[1], process[2], process[3]
    first, second = np.zeros(k), np.zeros(k)
    for t in range(n - 1, -1, -1):
        p00, p01, lost = known[t, 0], known[t, 1], weight[t] * known[t, 3]
        for j in range(k):
            x, y = a * first[j] + c * second[j], b * first[j] + d * second[j]
            x += surprise[t, j] - lost * (p00 * x + p01 * y)
            ahead[t, j] += p00 * x + p01 * y
            first[j], second[j] = x, y
    return ahead


@compiled
def _variance(known, weight, process):
    """Diagonal of ``(K^-1 + W)^-1``."""
    a, b, c, d = process[:4]
    out = np.empty(len(weight))
    l00 = l01 = l11 = 0.0
    for t in range(len(weight) - 1, -1, -1):
        p00, p01, lost = known[t, 0], known[t, 1], weight[t] * known[t, 3]
        # A' L A, then what this observation leaves of it, and its own part
        x0, x1, y0, y1 = a * l00 + c * l01, a * l01 + c * l11, b * l00 + d * l01, b * l01 + d * l11
        l00, l01, l11 = x0 * a + x1 * c, x0 * b + x1 * d, y0 * b + y1 * d
        e00, e10 = 1 - lost * p00, -lost * p01
        moved = l00 * e00 + l01 * e10
        l00, l01 = (e00 * moved + e10 * (l01 * e00 + l11 * e10) + lost,
                    l01 * e00 + l11 * e10)
        out[t] = p00 - (p00 * (l00 * p00 + l01 * p01) + p01 * (l01 * p00 + l11 * p01))
    return out


@compiled
def prior_draws(process, noise):
    """Draws (n_cells, k) of the process, from normal deviates (n_cells, 2, k)."""
    a, b, c, d, n00, n01, n11, p00, p01, p11 = process
    out = np.empty((noise.shape[0], noise.shape[2]))
    for j in range(noise.shape[2]):
        x = y = 0.0
        v00, v01, v11 = p00, p01, p11
        for t in range(noise.shape[0]):
            root = np.sqrt(v00)
            slope = v01 / root
            rest = np.sqrt(max(v11 - slope * slope, 0.0))
            x, y = (a * x + b * y + root * noise[t, 0, j],
                    c * x + d * y + slope * noise[t, 0, j] + rest * noise[t, 1, j])
            v00, v01, v11 = n00, n01, n11
            out[t, j] = x
    return out


@compiled
def _weighted(weight, matrix, right):
    """Columns times weights, and then the right-hand sides."""
    m, k = matrix.shape[1], right.shape[1]
    both = np.empty((len(weight), m + k))
    for t in range(len(weight)):
        for j in range(m):
            both[t, j] = weight[t] * matrix[t, j]
        for j in range(k):
            both[t, m + j] = right[t, j]
    return both


@compiled
def solved_in_full(weight, process, matrix, precision, right):
    """See `solved`, which is the first of what this returns. The others are

    the coefficients (m, k) that belong to it, what the process leaves of the columns (n_cells, m),
    the Cholesky factor of the precision of their coefficients, what the filter knows, and the log
    determinant of the whole system over that of the prior.
    """
    n, m, k = len(weight), matrix.shape[1], right.shape[1]
    if len(process):
        both = _weighted(weight, matrix, right)
        known, ahead, surprise, log_det = _filtered(weight, process, both)
        spread = _smoothed(weight, process, known, ahead, surprise)
        left = matrix - spread[:, :m]
        normal = left.T @ both
    else:
        known, spread, log_det = np.empty((0, 4)), np.empty((0, m + k)), 0.0
        left = matrix
        normal = np.zeros((m, m + k))
        for low in range(0, n, _BLOCK):
            some = slice(low, low + _BLOCK)
            normal += matrix[some].T @ _weighted(weight[some], matrix[some], right[some])
    root, coefficients = normal[:, :m].copy(), normal[:, m:].copy()
    for j in range(m):
        root[j, j] += precision[j]
    cholesky(root)
    for j in range(m):
        log_det += 2 * np.log(root[j, j]) - np.log(precision[j])
    solve_lower(root, coefficients)
    solve_lower_transposed(root, coefficients)
    total = left @ coefficients
    if len(process):
        total += spread[:, m:]
    return total, coefficients, left, root, known, log_det


@compiled
def solved(weight, process, matrix, precision, right):
    """Posterior covariance of the log-rate acting on right-hand sides.

    Parameters
    ----------
    weight : ndarray, shape (n_cells,)
        Expected counts W.
    process : ndarray, shape (10,) or (0,)
        Step (2, 2), then noise and stationary covariance, three entries each; or nothing.
    matrix : ndarray, shape (n_cells, m)
        Columns with independent coefficients.
    precision : ndarray, shape (m,)
        Of the coefficients.
    right : ndarray, shape (n_cells, k)

    Returns
    -------
    ndarray, shape (n_cells, k)
    """
    return solved_in_full(weight, process, matrix, precision, right)[0]


@compiled
def posterior_variance(weight, process, matrix, precision):
    """Diagonal of the covariance in `solved`, shape (n_cells,)."""
    nothing = np.empty((len(weight), 0))
    _, _, left, root, known, _ = solved_in_full(weight, process, matrix, precision, nothing)
    half = left.T.copy()
    solve_lower(root, half)
    own = _variance(known, weight, process) if len(process) else np.zeros(len(weight))
    for j in range(len(half)):
        own += half[j] * half[j]
    return own
