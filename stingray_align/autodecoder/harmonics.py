"""Harmonics of periods on a chain of cells, and sums of their powers: compiled loops."""

from __future__ import annotations

from functools import cache

import numpy as np

from ._compiled import compiled

__all__ = ["add_power", "columns_of_harmonics"]


@compiled
def add_power(total, power, first, harmonic):
    """Add the power over its mean, one, at a multiple of each frequency, as far as it is known.

    Parameters
    ----------
    total : ndarray, shape (n_trials,)
        Changed in place; its first entry belongs to ``power[first]``.
    power : ndarray, shape (n_frequencies,)
    first, harmonic : int
    """
    for i in range(min(len(total), (len(power) - 1) // harmonic - first + 1)):
        total[i] += power[harmonic * (first + i)] - 1


def columns_of_harmonics(cycles, n_harmonics, changes, n_cells):
    """Columns of a model: level, and harmonics each times slow cosines.

    Parameters
    ----------
    cycles : float
        Cycles of the first harmonic in the window.
    n_harmonics : int
    changes : int
        Half cycles of the fastest slow cosine.
    n_cells : int

    Returns
    -------
    ndarray, shape (n_cells, 1 + 2 n_harmonics (changes + 1))
        Of each harmonic the cosine, then the sine.
    """
    angle = 2 * np.pi * cycles * _middles(n_cells)
    columns = np.empty((n_cells, 1 + 2 * n_harmonics * (changes + 1)))
    _multiply(np.cos(angle), np.sin(angle), _slow_cosines(changes, n_cells), columns)
    return columns


def _middles(n_cells):
    return (np.arange(n_cells) + 0.5) / n_cells


@cache
def _slow_cosines(changes, n_cells):
    return np.stack([np.cos(np.pi * k * _middles(n_cells)) * (np.sqrt(2) if k else 1)
                     for k in range(changes + 1)], axis=1)


@compiled
def _multiply(cosine, sine, slow, columns):
    """Write the columns; a harmonic is the product of the one before and the first."""
    for t in range(len(columns)):
        row = columns[t]
        row[0] = x = 1.0
        y = 0.0
        for at in range(1, len(row), 2 * slow.shape[1]):
            x, y = x * cosine[t] - y * sine[t], x * sine[t] + y * cosine[t]
            for k in range(slow.shape[1]):
                row[at + k] = x * slow[t, k]
                row[at + slow.shape[1] + k] = y * slow[t, k]
