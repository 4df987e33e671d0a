"""The most probable log-rate of models of counts, and its evidence: compiled loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._compiled import compiled
from .chain import solved_in_full
from .exponential import exp
from .harmonics import combined, fourier_sums, normal_matrix
from .lockstep import solved_together, workspace
from .triangular import cholesky, solve_lower, solve_lower_transposed

__all__ = ["most_probable", "most_probable_waves"]

#: Largest change of a log-rate in one Newton step, and squared change at which the steps stop: the
#: evidence is then right to a few hundredths.
_STRIDE, _TOLERANCE, _MOST_STEPS = 2.0, 1e-2, 30
#: From so many models on it pays to follow their processes together.
_MANY = 4


class _State(NamedTuple):
    """Where each model is: curves (n_models, n_cells), and the coefficients of the columns."""

    log_rate: np.ndarray
    rate: np.ndarray
    #: The log-rate as it was last reached, the process g in it, and K^-1 g.
    begin: np.ndarray
    process: np.ndarray
    pull: np.ndarray
    coefficients: np.ndarray
    value: np.ndarray


@compiled
def _moved(k, state, counts, expected, aim, coefficients, matrix, precision, has_process):
    """Go towards the aim of a Newton step as far as it helps; whether this is the end."""
    n, m = len(aim), len(coefficients)
    log_rate, rate, begin = state.log_rate[k], state.rate[k], state.begin[k]
    process, pull, last_a = state.process[k], state.pull[k], state.coefficients[k]
    g, e = np.zeros(n), np.zeros(n)
    largest = length = 0.0
    for t in range(n):
        change = aim[t] - log_rate[t]
        largest, length = max(largest, abs(change)), length + change * change * rate[t]
        e[t] = counts[t] - rate[t] - rate[t] * change
    if has_process:
        g = aim - matrix @ coefficients
    share = min(1.0, _STRIDE / max(largest, 1e-9))
    while True:
        new = 0.0
        for t in range(n):
            trial = begin[t] + share * (aim[t] - begin[t])
            trial_rate = expected[t] * exp(trial)
            log_rate[t], rate[t] = trial, trial_rate
            new_g = process[t] + share * (g[t] - process[t])
            new_e = pull[t] + share * (e[t] - pull[t])
            new += counts[t] * trial - trial_rate - new_g * new_e / 2
        for j in range(m):
            new_a = last_a[j] + share * (coefficients[j] - last_a[j])
            new -= precision[j] * new_a * new_a / 2
        if new >= state.value[k] - 1e-9 or share < 1e-3:
            break
        share /= 2
    for t in range(n):
        begin[t] = log_rate[t]
        process[t] += share * (g[t] - process[t])
        pull[t] += share * (e[t] - pull[t])
    for j in range(m):
        last_a[j] += share * (coefficients[j] - last_a[j])
    state.value[k] = new
    return share == 1 and length < _TOLERANCE


@compiled
def most_probable(counts, expected, processes, matrix, precision, start):
    """Newton's method for the log-rates, and Laplace's approximation of the evidences.

    Parameters
    ----------
    counts, expected : ndarray, shape (n_cells,)
        Their number is a multiple of 32.
    processes : ndarray, shape (n_models, 10) or (n_models, 0)
        As in `chain.solved`; of several models.
    matrix, precision : ndarray
        As in `chain.solved`; the level alone, unless there is but one model.
    start : ndarray, shape (n_models, n_cells)
        Log-rates near the solutions.

    Returns
    -------
    log_rate : ndarray, shape (n_models, n_cells)
    log_evidence : ndarray, shape (n_models,)
    """
    models, n = start.shape
    m = len(precision)
    rate, right, aim = np.empty((models, n)), np.empty((models, n, 1)), np.empty((models, n))
    for k in range(models):
        for t in range(n):
            rate[k, t] = expected[t] * exp(start[k, t])
    # The start has no process and no coefficients, and so the first step comes from zero.
    state = _State(start.copy(), rate, np.zeros((models, n)), np.zeros((models, n)),
                   np.zeros((models, n)), np.zeros((models, m)), np.full(models, -np.inf))
    coefficients, log_det = np.empty((models, m)), np.empty(models)
    cells = workspace(n if models >= _MANY else 0)
    active, has_process = np.arange(models), processes.shape[1] > 0
    for _ in range(_MOST_STEPS):
        for k in active:
            for t in range(n):
                right[k, t, 0] = rate[k, t] * (state.log_rate[k, t] - 1) + counts[t]
        if len(active) >= _MANY:
            solved_together(cells, active, rate, processes, precision[0], right, aim,
                            coefficients, log_det)
        else:
            for k in active:
                one, own, _, _, _, log_det[k] = solved_in_full(rate[k], processes[k], matrix,
                                                               precision, right[k])
                for t in range(n):
                    aim[k, t] = one[t, 0]
                for j in range(m):
                    coefficients[k, j] = own[j, 0]
        left = 0
        for k in active:
            ended = _moved(k, state, counts, expected, aim[k], coefficients[k], matrix, precision,
                           has_process)
            if not ended:
                active[left] = k
                left += 1
        active = active[:left]
        if left == 0:
            break
    for k in range(models):
        state.value[k] -= log_det[k] / 2
        for t in range(n):
            state.value[k] += expected[t]
    return state.log_rate, state.value


@compiled
def most_probable_waves(counts, expected, waves, slow, changes, precision, start):
    """The same for one model without a process, whose columns are harmonics.

    Parameters
    ----------
    counts, expected : ndarray, shape (n_cells,)
    waves, slow, changes
        As in `~stingray_align.autodecoder.harmonics.Harmonics`.
    precision : ndarray, shape (m,)
    start : ndarray, shape (n_cells,)

    Returns
    -------
    log_rate : ndarray, shape (n_cells,)
    log_evidence : float
    """
    n, m = len(counts), len(precision)
    rate, right, aim = np.empty((1, n)), np.empty(n), np.empty(n)
    for t in range(n):
        rate[0, t] = expected[t] * exp(start[t])
    state = _State(start.copy().reshape(1, n), rate, np.zeros((1, n)), np.zeros((1, n)),
                   np.zeros((1, n)), np.zeros((1, m)), np.full(1, -np.inf))
    coefficients, nothing, log_det = np.empty((m, 1)), np.empty((0, 0)), 0.0
    for _ in range(_MOST_STEPS):
        for t in range(n):
            right[t] = rate[0, t] * (state.log_rate[0, t] - 1) + counts[t]
        cosines, sines = fourier_sums(waves, slow, changes, rate[0], right)
        root = normal_matrix(cosines, sines, changes)
        cosines, sines = cosines[2 * changes + 1:], sines[2 * changes + 1:]
        coefficients[0, 0] = cosines[0, 0]
        at = 1
        for i in range(1, waves.shape[1] // 4 + 1):
            for sums in (cosines, sines):
                for k in range(changes + 1):
                    coefficients[at, 0] = sums[k, i]
                    at += 1
        for j in range(m):
            root[j, j] += precision[j]
        cholesky(root)
        log_det = 0.0
        for j in range(m):
            log_det += 2 * np.log(root[j, j]) - np.log(precision[j])
        solve_lower(root, coefficients)
        solve_lower_transposed(root, coefficients)
        found = coefficients.reshape(m)
        combined(waves, slow, changes, found, aim)
        if _moved(0, state, counts, expected, aim, found, nothing, precision, False):
            break
    evidence = state.value[0] - log_det / 2
    for t in range(n):
        evidence += expected[t]
    return state.log_rate[0], evidence
