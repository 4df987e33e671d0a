"""Small systems of linear equations, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["cholesky", "colour", "whiten"]


@njit(cache=True, error_model="numpy")
def cholesky(matrix):
    """Turn a small matrix into its lower Cholesky factor."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = np.sqrt(total) if i == j else total / matrix[j, j]


@njit(cache=True, error_model="numpy")
def whiten(root, values):
    """Solve ``root x = values`` for each column, in place."""
    for i in range(len(root)):
        for k in range(i):
            for j in range(values.shape[1]):
                values[i, j] -= root[i, k] * values[k, j]
        for j in range(values.shape[1]):
            values[i, j] /= root[i, i]


@njit(cache=True, error_model="numpy")
def colour(root, values):
    """Solve ``root' x = values`` for each column, in place."""
    for i in range(len(root) - 1, -1, -1):
        for k in range(i + 1, len(root)):
            for j in range(values.shape[1]):
                values[i, j] -= root[k, i] * values[k, j]
        for j in range(values.shape[1]):
            values[i, j] /= root[i, i]
