"""The mixture of curves of a first pass, without gradients: a compiled loop."""

from __future__ import annotations

import math

import numpy as np

from ..photons import N_TIME_BINS
from ._compiled import compiled, highest
from .exponential import exp
from .smoothing import N_KERNELS, N_RUNS, RUN

__all__ = ["write_offsets"]


@compiled
def write_offsets(g, exposed, logs, in_runs, whole, local, weights, bias, offsets):
    """Write how far the mixture lies from the decoded log-rate; see `inference.LocalMixture`.

    Parameters
    ----------
    g : ndarray of float32, shape (n, 512)
        Decoded log-rate, up to a constant per source.
    exposed : ndarray of float32, shape (n, 512)
    logs, in_runs : ndarray of float32, shapes (n, n_kernels, 512) and (n, 2 n_kernels, 128)
        As in `~stingray_align.autodecoder.smoothing.Smoothed`.
    whole : ndarray of float32, shape (n, width)
        What is known of the whole source, bias included.
    local : ndarray of float32, shape (width, 2 n_kernels + 1)
    weights : ndarray of float32, shape (n_kernels + 2, width)
    bias : ndarray of float32, shape (n_kernels + 2,)
    offsets : ndarray of float32, shape (n, 512)
        Written.
    """
    width = whole.shape[1]
    rate, decoded = np.empty(N_TIME_BINS, dtype=np.float32), np.empty(N_RUNS, dtype=np.float32)
    hidden = np.empty((width, N_RUNS), dtype=np.float32)
    share = np.empty((N_KERNELS + 2, N_RUNS), dtype=np.float32)
    most, total = np.empty(N_RUNS, dtype=np.float32), np.empty(N_RUNS, dtype=np.float32)
    for i in range(len(g)):
        _relative(g[i], exposed[i], rate, decoded)
        for u in range(width):
            row = hidden[u]
            for r in range(N_RUNS):
                row[r] = whole[i, u]
            for c in range(N_KERNELS):
                _add(local[u, c], in_runs[i, c], row)
                _add(local[u, N_KERNELS + 1 + c], in_runs[i, N_KERNELS + c], row)
            _add(local[u, N_KERNELS], decoded, row)
            for r in range(N_RUNS):
                row[r] = max(row[r], np.float32(0))
        for r in range(N_RUNS):
            most[r], total[r] = -np.inf, 0
        for k in range(N_KERNELS + 2):
            row = share[k]
            for r in range(N_RUNS):
                row[r] = bias[k]
            for u in range(width):
                _add(weights[k, u], hidden[u], row)
            for r in range(N_RUNS):
                most[r] = max(most[r], row[r])
        for k in range(N_KERNELS + 2):
            row = share[k]
            for r in range(N_RUNS):
                row[r] = exp(row[r] - most[r])
                total[r] += row[r]
        for r in range(N_RUNS):
            total[r] = 1 / total[r]
        _mix(share, total, logs[i], rate, offsets[i])


@compiled
def _relative(g, exposed, rate, in_runs):
    """Write the log of rate over mean rate, and its means in the runs of four bins."""
    most, whole, total = highest(g), np.float32(0), 0.0
    for j in range(N_TIME_BINS):
        whole += exposed[j]
        total += exposed[j] * exp(g[j] - most)
    mean = np.float32(most + math.log(total / whole))
    for j in range(N_TIME_BINS):
        rate[j] = g[j] - mean
    for r in range(N_RUNS):
        j = RUN * r
        in_runs[r] = (rate[j] + rate[j + 1] + rate[j + 2] + rate[j + 3]) / RUN


@compiled
def _add(weight, x, row):
    for r in range(N_RUNS):
        row[r] += weight * x[r]


@compiled
def _mix(share, scale, logs, rate, offset):
    """The last share is the constant's, the one before the decoded curve's."""
    for r in range(N_RUNS):
        of_decoded = share[N_KERNELS, r] * scale[r] - 1
        for j in range(RUN * r, RUN * (r + 1)):
            offset[j] = of_decoded * rate[j]
    for k in range(N_KERNELS):
        for r in range(N_RUNS):
            weight = share[k, r] * scale[r]
            for j in range(RUN * r, RUN * (r + 1)):
                offset[j] += weight * logs[k, j]
