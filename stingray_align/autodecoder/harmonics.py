"""Harmonics of periods on a chain of cells: compiled loops.

A Newton step for their coefficients needs the sums of all products of two columns. These are again
harmonics, so a few Fourier sums hold them all.
"""

from __future__ import annotations

import math
from functools import cache, cached_property, lru_cache

import numpy as np

from ._compiled import compiled

__all__ = ["Harmonics", "add_power", "combined", "fourier_sums", "normal_matrix"]

#: Cells whose products are summed at once, so that they stay in the cache.
_BLOCK = 256


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


class Harmonics:
    """Harmonics of a period, each times slow cosines that let its amplitude change.

    Parameters
    ----------
    cycles : float
        Cycles of the first harmonic in the window.
    number : int
        Of harmonics.
    changes : int
        Half cycles of the fastest slow cosine.
    n_cells : int
    """

    def __init__(self, cycles, number, changes, n_cells):
        self.number, self.changes = number, changes
        #: Cosines and sines of twice as many harmonics, shape (n_cells, 4 number).
        self.waves = _waves(cycles, number, n_cells)

    def __len__(self):
        return len(self.waves)

    @property
    def slow(self):
        """The slow cosines, to twice as many half cycles, shape (n_cells, 2 changes + 1)."""
        return _slow_cosines(2 * self.changes, len(self))

    @cached_property
    def matrix(self):
        """Level and harmonics as columns, shape (n_cells, 1 + 2 number (changes + 1)).

        Of each harmonic the cosine times each slow cosine, then the sine.
        """
        both = self.waves.reshape(len(self), 2, -1)[:, :, :self.number].swapaxes(1, 2)
        products = both[..., None] * self.slow[:, None, None, :self.changes + 1]
        return np.column_stack([np.ones(len(self)), products.reshape(len(self), -1)])


def _middles(n_cells):
    return (np.arange(n_cells) + 0.5) / n_cells


@lru_cache(maxsize=1)  # the same are asked for with and without changes
def _waves(cycles, number, n_cells):
    angle = 2 * np.pi * cycles * _middles(n_cells)
    waves = np.empty((n_cells, 4 * number))
    _multiply(np.cos(angle), np.sin(angle), waves)
    return waves


@cache
def _slow_cosines(changes, n_cells):
    return np.stack([np.cos(np.pi * k * _middles(n_cells)) * (np.sqrt(2) if k else 1)
                     for k in range(changes + 1)], axis=1)


@compiled
def _multiply(cosine, sine, waves):
    """Write all cosines, then all sines; each is the product of the one before and the first."""
    half = waves.shape[1] // 2
    for t in range(len(waves)):
        x, y = 1.0, 0.0
        for k in range(half):
            x, y = x * cosine[t] - y * sine[t], x * sine[t] + y * cosine[t]
            waves[t, k], waves[t, half + k] = x, y


@compiled
def fourier_sums(waves, slow, changes, weight, right):
    """Sums over the cells of a weight and of a right-hand side times waves and slow cosines.

    Returns
    -------
    cosines, sines : ndarray, shape (3 changes + 2, 2 number + 1)
        By slow cosine, those of the weight before those of the other, and by harmonic from zero.
    """
    n, half, kinds = len(waves), waves.shape[1] // 2, 3 * changes + 2
    values = np.empty((n, kinds))
    cosines, sines = np.zeros((kinds, half + 1)), np.zeros((kinds, half + 1))
    for t in range(n):
        for k in range(2 * changes + 1):
            values[t, k] = weight[t] * slow[t, k]
        for k in range(changes + 1):
            values[t, 2 * changes + 1 + k] = right[t] * slow[t, k]
        for k in range(kinds):
            cosines[k, 0] += values[t, k]
    found = np.zeros((kinds, 2 * half))
    for low in range(0, n, _BLOCK):
        found += values[low:low + _BLOCK].T @ waves[low:low + _BLOCK]
    cosines[:, 1:], sines[:, 1:] = found[:, :half], found[:, half:]
    return cosines, sines


@compiled
def normal_matrix(cosines, sines, changes):
    """Products of columns, weighed and summed over the cells: a product of waves is two waves.

    Returns
    -------
    ndarray, shape (m, m)
        On and below the diagonal, with the columns in the order of `Harmonics.matrix`.
    """
    number, each = (cosines.shape[1] - 1) // 2, changes + 1
    m, root = 1 + 2 * number * each, math.sqrt(0.5)
    normal = np.zeros((m, m))
    normal[0, 0] = cosines[0, 0]
    for k in range(each):
        for i in range(number):
            at = 1 + 2 * i * each + k
            normal[at, 0], normal[at + each, 0] = cosines[k, i + 1], sines[k, i + 1]
        for other in range(each):
            # A product of slow cosines is one of them, or two.
            if k == 0 or other == 0:
                c, s = cosines[k + other].copy(), sines[k + other].copy()
            elif k == other:
                c, s = cosines[0] + root * cosines[2 * k], sines[0] + root * sines[2 * k]
            else:
                c = root * (cosines[abs(k - other)] + cosines[k + other])
                s = root * (sines[abs(k - other)] + sines[k + other])
            for i in range(number):
                for j in range(i + 1):
                    row, column = 1 + 2 * i * each + k, 1 + 2 * j * each + other
                    normal[row, column] = (c[i - j] + c[i + j + 2]) / 2
                    normal[row + each, column + each] = (c[i - j] - c[i + j + 2]) / 2
                    normal[row + each, column] = (s[i + j + 2] + s[i - j]) / 2
                    normal[row, column + each] = (s[i + j + 2] - s[i - j]) / 2
    return normal


@compiled
def combined(waves, slow, changes, coefficients, curve):
    """Write the sum of the columns, each times its coefficient."""
    n, half, each = len(waves), waves.shape[1] // 2, changes + 1
    weights = np.zeros((2 * half, each))
    for i in range(half // 2):
        for k in range(each):
            weights[i, k] = coefficients[1 + 2 * i * each + k]
            weights[half + i, k] = coefficients[1 + (2 * i + 1) * each + k]
    for low in range(0, n, _BLOCK):
        parts = waves[low:low + _BLOCK] @ weights
        for t in range(len(parts)):
            total = coefficients[0]
            for k in range(each):
                total += parts[t, k] * slow[low + t, k]
            curve[low + t] = total
