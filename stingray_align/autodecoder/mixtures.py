"""Quantiles of mixtures of Gaussians: a compiled loop."""

from __future__ import annotations

import math

import numpy as np

from ._compiled import compiled

__all__ = ["quantiles_of_mixtures"]


@compiled
def quantiles_of_mixtures(weight, mean, sd, levels):
    """Invert distribution functions by Newton's method, kept inside a shrinking bracket.

    Parameters
    ----------
    weight, mean, sd : ndarray of float64, shape (n, n_components)
    levels : ndarray of float64, shape (n, n_levels)
        Probabilities between 0 and 1; fastest where they rise.

    Returns
    -------
    ndarray, shape (n, n_levels)
    """
    found = np.empty(levels.shape)
    for i in range(len(levels)):
        lowest = (mean[i] - 6 * sd[i]).min()
        highest = (mean[i] + 6 * sd[i]).max()
        x = 0.5 * (lowest + highest)
        for j in range(levels.shape[1]):
            low, high = lowest, highest
            if j and levels[i, j] >= levels[i, j - 1]:
                low = x  # so that quantiles never fall, not even by the tolerance
            for _ in range(60):
                below, slope = -levels[i, j], 1e-300
                for k in range(weight.shape[1]):
                    z = (x - mean[i, k]) / sd[i, k]
                    below += weight[i, k] * 0.5 * math.erfc(-0.7071067811865476 * z)
                    slope += weight[i, k] * 0.3989422804014327 / sd[i, k] * math.exp(-0.5 * z * z)
                if below > 0:
                    high = x
                else:
                    low = x
                last, x = x, x - below / slope
                if not low < x < high:
                    x = 0.5 * (low + high)
                if abs(x - last) < 1e-7 * (highest - lowest):
                    break
            found[i, j] = x
    return found
