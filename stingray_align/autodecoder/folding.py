"""Folded light curves: what repeats in a window, at the frequencies where most power is.

For each of two candidate frequencies, that of the strongest harmonic and that of the strongest sum
of three harmonics (the :math:`Z^2_m` statistic of Buccheri et al. 1983, A&A 128, 245), the photons
and the exposure are folded, smoothed in phase with two widths, and unfolded into the window.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from scipy import fft

from ..photons import N_TIME_BINS

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
@torch.inference_mode(False)
def _phase_kernels():
    """Circular smoothing in phase, shape (n_widths, 32, 32)."""
    distance = torch.arange(N_PHASES)[:, None] - torch.arange(N_PHASES)
    distance = (distance + N_PHASES // 2) % N_PHASES - N_PHASES // 2
    width = torch.tensor(WIDTHS)[:, None, None] * N_PHASES
    return torch.exp(-0.5 * (distance / width) ** 2)


def folded(counts, exposed):
    """Fold binned counts and exposure (n, 512)."""
    n = counts.sum(dim=1, keepdim=True)
    total = exposed.sum(dim=1, keepdim=True)
    excess = (counts - n * exposed / total).cpu().numpy()
    # three times as fast as torch's
    wave = torch.as_tensor(fft.rfft(excess, n=STEPS * N_TIME_BINS), device=counts.device)
    power = (wave.real**2 + wave.imag**2) / (n + 1)
    tried = power[:, LOWEST:HIGHEST + 1]
    # Multiples of a frequency: every second and third entry, as far as the spectrum reaches; with
    # a little less weight, so that a pure sinusoid is not taken for a third of its frequency.
    triple = (tried + 0.9 * power[:, 2 * LOWEST:2 * HIGHEST + 1:2]
              + 0.8 * _padded(power[:, 3 * LOWEST:3 * HIGHEST + 1:3], tried.shape[1]))
    best, where = zip(*(p.max(dim=1) for p in (tried, triple)))
    frequency = (torch.stack(where, dim=1) + LOWEST) / STEPS

    at = (torch.arange(N_TIME_BINS) + 0.5) / N_TIME_BINS
    phase = (torch.frac(frequency[:, :, None] * at) * N_PHASES).long().clamp(max=N_PHASES - 1)
    pair = torch.stack([counts, exposed], dim=1)[:, :, None].expand(-1, -1, len(HARMONICS), -1)
    where = phase[:, None].expand(-1, 2, -1, -1)
    profile = pair.new_zeros(len(n), 2, len(HARMONICS), N_PHASES).scatter_add(3, where, pair)
    smooth = torch.einsum("ncfp,wpq->ncfwq", profile,
                          _phase_kernels().to(counts.device))
    near, seen = smooth.reshape(len(n), 2, FOLDS, N_PHASES).unbind(dim=1)
    rate = torch.log((near * (total / n.clamp(min=1))[:, :, None] + 2) / (seen + 2))
    unfold = phase.repeat_interleave(len(WIDTHS), dim=1)
    return Folded(rate.gather(2, unfold), frequency, torch.stack(best, dim=1))


def _padded(x, length):
    return torch.nn.functional.pad(x, (0, length - x.shape[1]))
