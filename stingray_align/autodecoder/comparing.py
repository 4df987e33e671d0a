"""The experts' estimates of one rate on the fine cells, and how they compare: compiled loops."""

from __future__ import annotations

import math

import numpy as np

from ._compiled import compiled

__all__ = ["compared"]


@compiled
def _brought_to_mean_one(log_rate, exposed):
    """Divide a rate by its mean over the exposure.

    Where inside a bin that is exposed in part its exposure lies is not known: such a bin gets its
    mean throughout.
    """
    n_bins = len(exposed)
    inside = len(log_rate) // n_bins
    total = whole = 0.0
    for j in range(n_bins):
        some = log_rate[inside * j:inside * (j + 1)]
        mean = 0.0
        for c in range(inside):
            mean += math.exp(some[c])
        mean /= inside
        if exposed[j] <= 0.999:
            some[:] = math.log(mean)
        total += exposed[j] * mean
        whole += exposed[j]
    log_rate -= math.log(total / whole)


@compiled
def compared(curves, exposed, n_runs, reference):
    """Normalise estimates in place, and compare them in runs of cells.

    Parameters
    ----------
    curves : ndarray of float64, shape (n, n_curves, n_cells)
        Logs of the rate; replaced by those of the rate over its mean over the exposure, with the
        mean rate throughout each bin that is exposed in part.
    exposed : ndarray, shape (n, n_bins)
        Exposed fraction of each bin.
    n_runs : int
    reference : int
        The curve from which the others' distance is measured.

    Returns
    -------
    means, inside, apart : ndarray, shape (n, n_curves, n_runs)
        Mean and standard deviation of each curve in each run, and its root mean square distance
        from the reference.
    """
    n, n_curves, n_cells = curves.shape
    length = n_cells // n_runs
    means, inside, apart = (np.empty((n, n_curves, n_runs)), np.empty((n, n_curves, n_runs)),
                            np.empty((n, n_curves, n_runs)))
    for i in range(n):
        for k in range(n_curves):
            _brought_to_mean_one(curves[i, k], exposed[i])
        for k in range(n_curves):
            for r in range(n_runs):
                some = curves[i, k, r * length:(r + 1) * length]
                other = curves[i, reference, r * length:(r + 1) * length]
                total = spread = distance = 0.0
                for c in range(length):
                    total += some[c]
                mean = total / length
                for c in range(length):
                    spread += (some[c] - mean) ** 2
                    distance += (some[c] - other[c]) ** 2
                means[i, k, r] = mean
                inside[i, k, r] = math.sqrt(spread / (length - 1))
                apart[i, k, r] = math.sqrt(distance / length)
    return means, inside, apart
