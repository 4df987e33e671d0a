"""Kernel estimates of the rate, and how well each foretells the photons it was not made of."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from ..photons import N_TIME_BINS
from ._compiled import compiled

__all__ = ["KERNELS", "N_RUNS", "RUN", "Smoothed", "smoothed"]

#: Widths of the Gaussian kernels in bins; 0: the bins as they are.
KERNELS = (0.0, 1.5, 3.0, 6.0, 12.0, 24.0, 48.0)
N_KERNELS = len(KERNELS)
#: Bins that share their weights in a mixture of curves, and how many such runs there are.
RUN = 4
N_RUNS = N_TIME_BINS // RUN
#: Kernels end at so many widths, where nothing is left of them.
REACH = 6
#: A little of the mean keeps empty stretches from ruling a kernel out altogether.
FLOOR = 0.02


class Smoothed(NamedTuple):
    """Kernel estimates of the rate over its mean.

    Attributes
    ----------
    averaged : Tensor, shape (n, 512)
        Log of the mean of all of them and the constant, weighted by their scores' likelihood.
    logs : Tensor, shape (n, n_kernels, 512)
        Logarithm of each estimate.
    in_runs : Tensor, shape (n, 2 n_kernels, 128)
        In each run of four bins the mean of each of the logs, and log(1 + mean) of the photons
        that each kernel gathers.
    scores : Tensor, shape (n, n_kernels)
        Leave-one-out log-likelihoods over that of a constant.
    """

    averaged: torch.Tensor
    logs: torch.Tensor
    in_runs: torch.Tensor
    scores: torch.Tensor


@cache
def _kernels():
    """Kernels by lag in bins, from -511 to 511, peaks at one, float32 (n_kernels - 1, 1023)."""
    lag = np.arange(1 - N_TIME_BINS, N_TIME_BINS)
    return np.exp(-0.5 * (lag / np.array(KERNELS[1:])[:, None]) ** 2).astype(np.float32)


@cache
def _full_exposure():
    """Exposure under each kernel where all bins are exposed, float32 (n_kernels, 512)."""
    within = np.empty((N_KERNELS, N_TIME_BINS), dtype=np.float32)
    _gather(np.ones(N_TIME_BINS, dtype=np.float32), _kernels(), within)
    return within


@compiled
def _gather(x, kernels, under):
    """Write the sums of (512,) under each kernel, (n_kernels, 512)."""
    for j in range(N_TIME_BINS):
        under[0, j] = x[j]
    for k in range(1, N_KERNELS):
        for j in range(N_TIME_BINS):
            under[k, j] = 0
    for i in range(N_TIME_BINS):
        weight = x[i]
        if weight != 0:
            for k in range(1, N_KERNELS):
                reach = int(REACH * KERNELS[k])
                row, kernel = under[k], kernels[k - 1]
                # Unsigned: an index that might be negative would keep the loop from being fast.
                first = np.uint64(max(0, i - reach))
                last = np.uint64(min(N_TIME_BINS, i + reach + 1))
                shift = np.uint64(N_TIME_BINS - 1 - i)
                for j in range(first, last):
                    row[j] += weight * kernel[j + shift]


@compiled
def _relative_rate(near, scale, inverse_exposure, exposed, total, rate):
    """Write a kernel estimate over its mean, and return what it was divided by."""
    norm = np.float32(0)
    for j in range(N_TIME_BINS):
        rate[j] = (near[j] * scale + np.float32(FLOOR)) * inverse_exposure[j]
        norm += rate[j] * exposed[j]
    norm /= total
    inverse = 1 / norm
    for j in range(N_TIME_BINS):
        rate[j] *= inverse
    return norm


@compiled
def _in_runs(rate, near, product, mean):
    """Write the product of the rates, whose log is the sum of theirs, and the mean of the other."""
    for k in range(N_RUNS):
        j = RUN * k
        product[k] = rate[j] * rate[j + 1] * rate[j + 2] * rate[j + 3]
        mean[k] = (near[j] + near[j + 1] + near[j + 2] + near[j + 3]) / RUN


@compiled
def _estimate(counts, exposed, kernels, full_exposure, averaged, rates, in_runs, scores):
    """Write what `Smoothed` holds, but for the logarithms."""
    floor = np.float32(FLOOR)
    inverse_full = 1 / (full_exposure + floor)
    near, inverse = np.empty_like(full_exposure), np.empty_like(full_exposure)
    missing = np.empty(N_TIME_BINS, dtype=np.float32)
    occupied = np.empty(N_TIME_BINS, dtype=np.uint64)
    share = np.empty(N_KERNELS + 1)
    for i in range(len(counts)):
        seen, open_ = counts[i], exposed[i]
        total, n_photons, n_occupied, gaps = np.float32(0), np.float32(0), 0, False
        for j in range(N_TIME_BINS):
            total += open_[j]
            n_photons += seen[j]
            missing[j] = 1 - open_[j] if open_[j] < 1 - 1e-5 else 0  # not mere rounding
            gaps |= missing[j] > 0
        for j in range(N_TIME_BINS):
            if seen[j] > 0:
                occupied[n_occupied] = j
                n_occupied += 1
        # Photons per mean rate: one over the mean count of a fully exposed bin.
        scale = min(total / n_photons, np.float32(1e12))
        _gather(seen, kernels, near)
        if gaps:
            _gather(missing, kernels, inverse)
            for k in range(N_KERNELS):
                for j in range(N_TIME_BINS):
                    inverse[k, j] = 1 / (max(full_exposure[k, j] - inverse[k, j], 0) + floor)
        within = inverse if gaps else inverse_full  # usually all is exposed
        for k in range(N_KERNELS):
            norm = _relative_rate(near[k], scale, within[k], open_, total, rates[i, k])
            # The kernels are one at their peak, so a photon counts one in its own estimate.
            score, product = 0.0, 1.0  # one logarithm for many photons
            for m in range(n_occupied):
                j = occupied[m]
                others = max((near[k, j] - 1) * scale + floor, np.float32(0.01))
                others *= within[k, j] / norm
                if seen[j] == 1 and 1e-200 < product < 1e200:
                    product *= others
                else:
                    score += seen[j] * math.log(others)
            score += math.log(product)
            scores[i, k] = share[k] = score
            _in_runs(rates[i, k], near[k], in_runs[i, k], in_runs[i, N_KERNELS + k])
        share[-1] = 0.0
        highest, whole = share.max(), 0.0
        for k in range(N_KERNELS + 1):
            share[k] = math.exp(share[k] - highest)
            whole += share[k]
        mean = averaged[i]
        for j in range(N_TIME_BINS):
            mean[j] = share[-1] / whole
        for k in range(N_KERNELS):
            weight, rate = np.float32(share[k] / whole), rates[i, k]
            for j in range(N_TIME_BINS):
                mean[j] += weight * rate[j]


def smoothed(counts, exposed):
    """Kernel estimates of the rate over its mean.

    Parameters
    ----------
    counts, exposed : Tensor, shape (n, 512)
        Binned counts, and exposure.

    Returns
    -------
    Smoothed
        On the device of ``counts``.
    """
    n, device = len(counts), counts.device
    averaged = np.empty((n, N_TIME_BINS), dtype=np.float32)
    rates = np.empty((n, N_KERNELS, N_TIME_BINS), dtype=np.float32)
    in_runs = np.empty((n, 2 * N_KERNELS, N_RUNS), dtype=np.float32)
    scores = np.empty((n, N_KERNELS), dtype=np.float32)
    _estimate(counts.cpu().numpy(), exposed.cpu().numpy(), _kernels(), _full_exposure(), averaged,
              rates, in_runs, scores)
    np.log(averaged, out=averaged)
    np.log(rates, out=rates)
    of_rates, of_photons = in_runs[:, :N_KERNELS], in_runs[:, N_KERNELS:]
    np.log(of_rates, out=of_rates)
    of_rates /= RUN
    np.log1p(of_photons, out=of_photons)
    return Smoothed(*(torch.as_tensor(x, device=device)
                      for x in (averaged, rates, in_runs, scores)))
