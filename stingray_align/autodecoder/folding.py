"""Folded light curves: what repeats in a window, at the frequencies where most power is.

For each of two candidate frequencies, that of the strongest harmonic and that of the strongest sum
of three harmonics (the :math:`Z^2_m` statistic of Buccheri et al. 1983, A&A 128, 245), the photons
and the exposure are folded, smoothed in phase with two widths, and unfolded into the window.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import fft

from ..photons import N_TIME_BINS
from ._compiled import compiled

__all__ = ["FOLDS", "Folded", "folded"]

#: Frequencies are tried in steps of 1/4 cycle per window, from 1.5 cycles to 96.
STEPS = 4
LOWEST, HIGHEST = 6, 96 * STEPS
N_PHASES = 32
#: Smoothing in phase, in cycles.
WIDTHS = (1 / 40, 1 / 12)
HARMONICS = (1, 3)
FOLDS = len(WIDTHS) * len(HARMONICS)


class Folded(NamedTuple):
    """Folded estimates of the rate over its mean.

    Attributes
    ----------
    logs : Tensor, shape (n, FOLDS, 512)
        Logarithm of the rate over its mean.
    frequency : Tensor, shape (n, 2)
        Cycles per window.
    power : Tensor, shape (n, 2)
        Power at that frequency, summed over harmonics; each has mean one for constant sources.
    """

    logs: torch.Tensor
    frequency: torch.Tensor
    power: torch.Tensor


@cache
def _phase_kernels():
    """Circular smoothing in phase, float32, shape (n_widths, 32, 32)."""
    distance = np.arange(N_PHASES)[:, None] - np.arange(N_PHASES)
    distance = (distance + N_PHASES // 2) % N_PHASES - N_PHASES // 2
    width = np.array(WIDTHS)[:, None, None] * N_PHASES
    return np.exp(-0.5 * (distance / width) ** 2).astype(np.float32)


def folded(counts, exposed):
    """Fold binned counts and exposure (n, 512)."""
    n = counts.sum(dim=1, keepdim=True)
    excess = counts - n * exposed / exposed.sum(dim=1, keepdim=True)
    wave = fft.rfft(excess.cpu().numpy(), n=STEPS * N_TIME_BINS)
    logs = np.empty((len(n), FOLDS, N_TIME_BINS), dtype=np.float32)
    frequency, power = np.empty((2, len(n), len(HARMONICS)), dtype=np.float32)
    _fold(counts.cpu().numpy(), exposed.cpu().numpy(), wave, LOWEST, HIGHEST, _phase_kernels(),
          logs, frequency, power)
    return Folded(*(torch.as_tensor(x, device=counts.device)
                    for x in (np.log(logs, out=logs), frequency, power)))


@compiled
def _fold(counts, exposed, wave, lowest, highest, kernels, rates, frequency, power):
    """Write what `Folded` holds, with rates in place of their logarithms."""
    known = np.empty(wave.shape[1], dtype=np.float32)
    cell = np.empty(N_TIME_BINS, dtype=np.int64)
    curve = np.empty(N_PHASES, dtype=np.float32)
    for i in range(len(counts)):
        n = total = np.float32(0)
        for j in range(N_TIME_BINS):
            n += counts[i, j]
            total += exposed[i, j]
        for k in range(len(known)):
            known[k] = (wave[i, k].real**2 + wave[i, k].imag**2) / (n + 1)
        for h in range(len(HARMONICS)):
            at, power[i, h] = _strongest(known, HARMONICS[h], lowest, highest)
            frequency[i, h] = np.float32(at) / STEPS
            seen, there = np.zeros(N_PHASES, dtype=np.float32), np.zeros(N_PHASES, dtype=np.float32)
            for j in range(N_TIME_BINS):
                phase = frequency[i, h] * ((j + np.float32(0.5)) / N_TIME_BINS)
                cell[j] = int((phase - math.floor(phase)) * N_PHASES)
                seen[cell[j]] += counts[i, j]
                there[cell[j]] += exposed[i, j]
            for w in range(len(WIDTHS)):
                for p in range(N_PHASES):
                    near = around = np.float32(0)
                    for q in range(N_PHASES):
                        near += seen[q] * kernels[w, p, q]
                        around += there[q] * kernels[w, p, q]
                    curve[p] = (near * (total / max(n, np.float32(1))) + 2) / (around + 2)
                row = rates[i, h * len(WIDTHS) + w]
                for j in range(N_TIME_BINS):
                    row[j] = curve[cell[j]]


@compiled
def _strongest(power, harmonics, lowest, highest):
    """Number of the frequency with most power, alone or with three harmonics, and that power.

    Multiples count as far as the spectrum reaches; with a little less weight, so that a pure
    sinusoid is not taken for a third of its frequency.
    """
    at, most = lowest, np.float32(-1)
    for k in range(lowest, highest + 1):
        here = power[k]
        if harmonics > 1:
            here += np.float32(0.9) * power[2 * k]
            if 3 * k < len(power):
                here += np.float32(0.8) * power[3 * k]
        if here > most:
            at, most = k, here
    return at, most
