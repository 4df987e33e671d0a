"""Small systems of linear equations, compiled."""

from __future__ import annotations

import numpy as np

from ._compiled import compiled

__all__ = ["cholesky", "solve_lower", "solve_lower_transposed"]


@compiled
def cholesky(matrix):
    """Turn a small matrix into its lower Cholesky factor."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = np.sqrt(total) if i == j else total / matrix[j, j]


@compiled
def solve_lower(root, values):
    """Solve ``root x = values`` for each column, in place."""
    for i in range(len(root)):
        for k in range(i):
            for j in range(values.shape[1]):
                values[i, j] -= root[i, k] * values[k, j]
        for j in range(values.shape[1]):
            values[i, j] /= root[i, i]


@compiled
def solve_lower_transposed(root, values):
    """Solve ``root' x = values`` for each column, in place."""
    for i in range(len(root) - 1, -1, -1):
        for k in range(i + 1, len(root)):
            for j in range(values.shape[1]):
                values[i, j] -= root[k, i] * values[k, j]
        for j in range(values.shape[1]):
            values[i, j] /= root[i, i]
