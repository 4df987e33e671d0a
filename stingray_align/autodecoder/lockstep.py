"""Many Gauss-Markov processes followed along one chain of cells in step: a compiled loop.

From one cell to the next a filter waits for a division and some products. The filters of several
processes wait together, so that sixteen cost little more than one. The equations are those of
`stingray_align.autodecoder.chain`.
"""

from __future__ import annotations

import math

import numpy as np

from ._compiled import compiled

__all__ = ["solved_together", "workspace"]

#: Processes that are followed together. A constant, and all that is known of a cell side by side:
#: else a compiler cannot tell that lanes do not touch each other, and works on one at a time.
_LANES = 16
#: What a row of the workspace holds of its cell, as `_LANES` numbers each.
(_WEIGHT, _RIGHT, _P00, _P01, _LOST, _AHEAD_WEIGHT, _NEW_WEIGHT, _AHEAD_RIGHT, _NEW_RIGHT,
 _ENTRIES) = range(0, 10 * _LANES, _LANES)
#: Cells whose determinants are multiplied before the logarithm is taken, and transposed at once.
_BLOCK = 32


@compiled
def workspace(n_cells):
    """Memory for `solved_together`, again and again; for a multiple of 32 cells."""
    return np.zeros((n_cells, _ENTRIES))


@compiled
def _forward(cells, process, log_det):
    """The filter of each lane, for the weights and for the right-hand side.

    ``process`` (10 * lanes,) is as in `chain.solved`, entry by entry.
    """
    p, first, second = np.empty(3 * _LANES), np.zeros(2 * _LANES), np.zeros(2 * _LANES)
    for i in range(3 * _LANES):
        p[i] = process[7 * _LANES + i]
    product = np.ones(_LANES)
    for i in range(_LANES):
        log_det[i] = 0
    for t in range(len(cells)):
        cell = cells[t]
        for i in range(_LANES):
            p00, p01, p11 = p[i], p[_LANES + i], p[2 * _LANES + i]
            a, b, c, d = (process[i], process[_LANES + i], process[2 * _LANES + i],
                          process[3 * _LANES + i])
            spread = 1 + cell[_WEIGHT + i] * p00
            left = 1 / spread
            lost = cell[_WEIGHT + i] * left
            product[i] *= spread
            cell[_P00 + i], cell[_P01 + i], cell[_LOST + i] = p00, p01, lost
            x, y = first[i], second[i]
            new = lost - lost * x
            cell[_AHEAD_WEIGHT + i], cell[_NEW_WEIGHT + i] = x, new
            x, y = x + p00 * new, y + p01 * new
            first[i], second[i] = a * x + b * y, c * x + d * y
            x, y = first[_LANES + i], second[_LANES + i]
            new = cell[_RIGHT + i] * left - lost * x
            cell[_AHEAD_RIGHT + i], cell[_NEW_RIGHT + i] = x, new
            x, y = x + p00 * new, y + p01 * new
            first[_LANES + i], second[_LANES + i] = a * x + b * y, c * x + d * y
            p11 -= lost * p01 * p01
            p00, p01 = p00 * left, p01 * left
            right0, right1 = a * p00 + b * p01, a * p01 + b * p11
            last0, last1 = c * p00 + d * p01, c * p01 + d * p11
            p[i] = right0 * a + right1 * b + process[4 * _LANES + i]
            p[_LANES + i] = right0 * c + right1 * d + process[5 * _LANES + i]
            p[2 * _LANES + i] = last0 * c + last1 * d + process[6 * _LANES + i]
        if t % _BLOCK == _BLOCK - 1:
            for i in range(_LANES):
                log_det[i] += math.log(product[i])
                product[i] = 1
    for i in range(_LANES):
        log_det[i] += math.log(product[i])


@compiled
def _backward(cells, process):
    """The pass backward of each lane, in place of what was known ahead of each cell."""
    first, second = np.zeros(2 * _LANES), np.zeros(2 * _LANES)
    last = len(cells) - 1
    for t in range(len(cells)):
        cell = cells[last - t]
        for i in range(_LANES):
            p00, p01, lost = cell[_P00 + i], cell[_P01 + i], cell[_LOST + i]
            a, b, c, d = (process[i], process[_LANES + i], process[2 * _LANES + i],
                          process[3 * _LANES + i])
            x, y = a * first[i] + c * second[i], b * first[i] + d * second[i]
            x += cell[_NEW_WEIGHT + i] - lost * (p00 * x + p01 * y)
            cell[_AHEAD_WEIGHT + i] += p00 * x + p01 * y
            first[i], second[i] = x, y
            x, y = (a * first[_LANES + i] + c * second[_LANES + i],
                    b * first[_LANES + i] + d * second[_LANES + i])
            x += cell[_NEW_RIGHT + i] - lost * (p00 * x + p01 * y)
            cell[_AHEAD_RIGHT + i] += p00 * x + p01 * y
            first[_LANES + i], second[_LANES + i] = x, y


@compiled
def solved_together(cells, which, weight, processes, precision, right, total, level, log_det):
    """Posterior covariances of log-rates about an unknown level acting on right-hand sides.

    Parameters
    ----------
    cells : ndarray
        From `workspace`.
    which : ndarray of int
        The models to work on.
    weight : ndarray, shape (n_models, n_cells)
        Expected counts W.
    right : ndarray, shape (n_models, n_cells, 1)
    processes : ndarray, shape (n_models, 10)
        As in `chain.solved`.
    precision : float
        Of the level.
    total : ndarray, shape (n_models, n_cells)
        Written: what the covariance makes of the right-hand sides.
    level : ndarray, shape (n_models, 1)
        Written: the level that belongs to it.
    log_det : ndarray, shape (n_models,)
        Written: log determinant of the system over that of its prior.
    """
    process, found = np.zeros(10 * _LANES), np.empty(_LANES)
    normal, moved, lanes = np.empty(_LANES), np.empty(_LANES), np.empty(_LANES, dtype=np.int64)
    for begin in range(0, len(which), _LANES):
        number = min(_LANES, len(which) - begin)
        for i in range(_LANES):
            lanes[i] = which[begin + min(i, number - 1)]  # lanes to spare repeat the last
            for entry in range(10):
                process[entry * _LANES + i] = processes[lanes[i], entry]
        for low in range(0, len(cells), _BLOCK):
            for i in range(_LANES):
                for t in range(low, low + _BLOCK):
                    cells[t, _WEIGHT + i] = weight[lanes[i], t]
                    cells[t, _RIGHT + i] = right[lanes[i], t, 0]
        _forward(cells, process, found)
        _backward(cells, process)
        for i in range(_LANES):
            normal[i], moved[i] = precision, 0.0
        for t in range(len(cells)):
            cell = cells[t]
            for i in range(_LANES):
                left = 1 - cell[_AHEAD_WEIGHT + i]  # what the process leaves of the level
                normal[i] += left * cell[_WEIGHT + i]
                moved[i] += left * cell[_RIGHT + i]
        for i in range(number):
            level[lanes[i], 0] = moved[i] / normal[i]
            log_det[lanes[i]] = found[i] + math.log(normal[i] / precision)
        for low in range(0, len(cells), _BLOCK):
            for i in range(number):
                k = lanes[i]
                for t in range(low, low + _BLOCK):
                    total[k, t] = ((1 - cells[t, _AHEAD_WEIGHT + i]) * level[k, 0]
                                   + cells[t, _AHEAD_RIGHT + i])
