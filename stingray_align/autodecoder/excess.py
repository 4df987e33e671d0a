"""What photons have over what was expected, under Gaussian kernels: compiled loops."""

from __future__ import annotations

import math

import numpy as np

from ._compiled import compiled

__all__ = ["excess", "under_kernel"]

#: Kernels end at so many widths.
_REACH = 6.0


@compiled
def under_kernel(x, width):
    """Sums of (n_bins,) under a Gaussian kernel that is one at its peak; nothing lies outside."""
    n = len(x)
    reach = min(int(_REACH * width), n - 1)
    padded = np.zeros(n + 2 * reach)
    padded[reach:reach + n] = x
    out = x.copy()
    for lag in range(1, reach + 1):
        height = math.exp(-0.5 * (lag / width) ** 2)
        before, after = padded[reach - lag:], padded[reach + lag:]
        for i in range(n):
            out[i] += height * (before[i] + after[i])
    return out


@compiled
def excess(counts, expected, exposed, widths, floor, prior_stretches):
    """Change of the log-rate of each source that its residuals ask for.

    Parameters
    ----------
    counts, expected, exposed : ndarray, shape (n, n_bins)
        Expected counts sum to the counts.
    widths : ndarray
        Of the kernels in bins, in the order in which they are used.
    floor : float
        Scatter that every network has.
    prior_stretches : float
        Independent stretches of window that count for it.

    Returns
    -------
    ndarray, shape (n, n_bins)
    """
    n_bins = counts.shape[1]
    change = np.ones(counts.shape)
    residual, noise = np.empty(n_bins), np.empty(n_bins)
    for i in range(len(counts)):
        now, n_photons = expected[i].copy(), counts[i].sum()
        for width in widths:
            near, there = under_kernel(counts[i], width), under_kernel(now, width)
            # Excess scatter, each moment weighted by how well it is known, with a prior of its own.
            moment = total = 0.0
            for j in range(n_bins):
                here = max(there[j], 1e-3)
                residual[j], noise[j] = near[j] / here - 1, 0.7071 / here
                weight = exposed[i, j] / (noise[j] + floor) ** 2
                moment += weight * (residual[j] ** 2 - noise[j])
                total += weight
            stretches = n_bins / (2.5 * width)
            scatter = max(floor ** 2, (
                stretches * min(moment / max(total, 1e-9), 1.0) + prior_stretches * floor ** 2)
                / (stretches + prior_stretches))
            whole = 0.0
            for j in range(n_bins):
                step = max(residual[j] * scatter / (scatter + noise[j]), -0.9)
                change[i, j] *= 1 + step
                now[j] *= 1 + step
                whole += now[j]
            now *= n_photons / max(whole, 1e-9)
    return np.log(change)
