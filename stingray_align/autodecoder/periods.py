"""The strongest period of a light curve, searched in the photons themselves.

A decoded curve has forgotten what is faster than its bins and what is too weak to be sure of; a
sum over all photons has not. Both searches work on counts minus those expected of a constant
source, so that gaps leave no period behind.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from ..photons import N_FINE_BINS, N_TIME_BINS
from .batch import fine_counts

__all__ = ["N_PHASES", "Fast", "Slow", "fast_search", "folded", "slow_search"]

#: Steps of the trial frequencies per cycle in the window.
OVERSAMPLING = 4
#: The fast search begins here (cycles per window); slower periods have the finer grid of trials.
FASTEST_SLOW = 128
#: Sources searched at once, so that their fine spectra fit into the processor's cache.
SOURCES_AT_ONCE = 64
#: Phase bins of a folded curve.
N_PHASES = 16


class Slow(NamedTuple):
    """Tensors of shape (n,): ``frequency`` in cycles per window, ``strength`` H of the strongest
    period, and ``other``, H of the strongest one more than two cycles away."""

    frequency: torch.Tensor
    strength: torch.Tensor
    other: torch.Tensor


class Fast(NamedTuple):
    """Tensors: ``frequency`` in cycles per window and ``power`` of the strongest period, (n,);
    ``octaves`` (n, 11), the mean power from 2^k to 2^(k + 1) - 1 cycles."""

    frequency: torch.Tensor
    power: torch.Tensor
    octaves: torch.Tensor


def slow_search(excess, n_photons):
    """Search from 1.25 to 256 cycles per window with up to four harmonics.

    Parameters
    ----------
    excess : Tensor, shape (n, 512)
        Counts minus expected counts of a constant source.
    n_photons : Tensor, shape (n,)

    Returns
    -------
    Slow
        The statistic is H = max(Z²_1, Z²_2 - 4, Z²_4 - 12), where the second, third and fourth
        harmonic weigh 0.9, 0.8 and 0.7 in the sums Z²_m of powers.

    References
    ----------
    de Jager, Raubenheimer & Swanepoel 1989, A&A 221, 180 (H test); Buccheri et al. 1983, A&A 128,
    245 (Z²).
    """
    power = _squared(torch.fft.rfft(excess, n=OVERSAMPLING * N_TIME_BINS)[:, 1:])
    power *= (2 / n_photons.clamp(min=1))[:, None]
    length = power.shape[1]
    best = power.clone()
    half, quarter = length // 2, length // 4
    # Harmonics weigh a little less, lest a sinusoid be taken for a harmonic of half its frequency.
    two = torch.add(power[:, :half], power[:, 1::2], alpha=0.9)
    best[:, :half] = torch.maximum(best[:, :half], two - 4)
    four = torch.add(two[:, :quarter], power[:, 2:3 * quarter:3], alpha=0.8)
    four = torch.add(four, power[:, 3::4], alpha=0.7)
    best[:, :quarter] = torch.maximum(best[:, :quarter], four - 12)
    best[:, :OVERSAMPLING] = 0.0  # a single cycle or less is a trend
    strength, at = best.max(dim=1)
    trial = torch.arange(length)
    near = (trial - at[:, None]).abs() < 2 * OVERSAMPLING
    other = best.masked_fill_(near, 0.0).amax(dim=1)
    return Slow((at + 1) / OVERSAMPLING, strength, other)


def fast_search(photons, expected):
    """Search from 128 to 2048 cycles per window.

    Parameters
    ----------
    photons : `~stingray_align.photons.Photons`
    expected : Tensor, shape (n, 512)
        Counts of a constant source.

    Returns
    -------
    Fast
        Powers have mean 2 for a constant source.

    References
    ----------
    Leahy et al. 1983, ApJ 266, 160.
    """
    parts = []
    for first in range(0, len(photons), SOURCES_AT_ONCE):
        some = slice(first, first + SOURCES_AT_ONCE)
        parts.append(_fast_powers(fine_counts(photons[some]), expected[some]))
    at, power = map(torch.cat, zip(*parts))
    power *= 2 / expected.sum(dim=1, keepdim=True).clamp(min=1)
    return Fast(at.float(), power[:, 0], power[:, 1:])


def _fast_powers(per_fine_bin, expected):
    """Place of the strongest power, and, not normalised, that power and the octaves."""
    excess = expected.repeat_interleave(N_FINE_BINS // N_TIME_BINS, dim=1)
    excess = excess.mul_(-N_TIME_BINS / N_FINE_BINS).add_(per_fine_bin)
    power = _squared(torch.fft.rfft(excess)[:, 1:])
    strongest, at = power[:, FASTEST_SLOW - 1:].max(dim=1, keepdim=True)
    return at[:, 0] + FASTEST_SLOW, torch.cat([strongest, power @ _octaves()], dim=1)


@cache
@torch.inference_mode(False)
def _octaves():
    length = N_FINE_BINS // 2
    octave = torch.floor(torch.log2(torch.arange(1, length + 1) + 0.5)).clamp(max=10).long()
    member = torch.nn.functional.one_hot(octave).float()
    return member / member.sum(dim=0)


def _squared(wave):
    return torch.addcmul(wave.real.square(), wave.imag, wave.imag)


def folded(curves, expected, frequency):
    """Smoothed rates over mean rate against phase.

    Parameters
    ----------
    curves : sequence of Tensor, shape (n, 512)
        Counts, or others to compare with ``expected``.
    expected : Tensor, shape (n, 512)
        Counts of a constant source.
    frequency : Tensor, shape (n,)
        Cycles per window.

    Returns
    -------
    Tensor, shape (n_curves, n, N_PHASES)
    """
    n = len(expected)
    when = (torch.arange(N_TIME_BINS) + 0.5) / N_TIME_BINS
    phase = (when * frequency[:, None]).frac() * N_PHASES
    cell = (phase.int() + N_PHASES * torch.arange(n, dtype=torch.int32)[:, None]).reshape(-1)
    in_phase = torch.stack([torch.zeros(n * N_PHASES).index_add_(0, cell, curve.reshape(-1))
                            for curve in (*curves, expected)]).reshape(-1, n, N_PHASES)
    smooth = in_phase + 0.5 * (in_phase.roll(1, dims=2) + in_phase.roll(-1, dims=2)) + 0.5
    return smooth[:-1] / smooth[-1]
