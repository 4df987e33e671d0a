"""The strongest period of a light curve, searched in the photons themselves.

A decoded curve has forgotten what is faster than its bins and what is too weak to be sure of; a
sum over all photons has not. Both searches work on counts minus those expected of a constant
source, so that gaps leave no period behind.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft

from ..photons import N_FINE_BINS, N_TIME_BINS
from ._compiled import compiled, highest, where_highest
from .counting import count_fine

__all__ = ["N_OCTAVES", "N_PHASES", "Fast", "Slow", "fast_search", "folded", "slow_search"]

#: Steps of the trial frequencies per cycle in the window.
OVERSAMPLING = 4
N_TRIALS = OVERSAMPLING * N_TIME_BINS // 2
#: The fast search begins here (cycles per window); slower periods have the finer grid of trials.
FASTEST_SLOW = 128
N_OCTAVES = 11
#: Sources searched at once, so that their fine spectra fit into the processor's cache.
SOURCES_AT_ONCE = 32
#: Phase bins of a folded curve.
N_PHASES = 16


class Slow(NamedTuple):
    """Arrays of shape (n,): ``frequency`` in cycles per window, ``strength`` H of the strongest
    period, and ``other``, H of the strongest one more than two cycles away."""

    frequency: np.ndarray
    strength: np.ndarray
    other: np.ndarray


class Fast(NamedTuple):
    """Arrays: ``frequency`` in cycles per window and ``power`` of the strongest period, (n,);
    ``octaves`` (n, 11), the mean power from 2^k to 2^(k + 1) - 1 cycles."""

    frequency: np.ndarray
    power: np.ndarray
    octaves: np.ndarray


def slow_search(wave, n_photons):
    """Search from 1.25 to 256 cycles per window with up to four harmonics.

    Parameters
    ----------
    wave : ndarray of complex64, shape (n, 1025)
        Fourier transform of the counts in the 512 time bins minus those expected of a constant
        source, from 0 to 256 cycles per window in steps of a quarter.
    n_photons : ndarray of float32, shape (n,)

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
    found = Slow(*np.empty((3, len(wave)), dtype=np.float32))
    _strongest_h(wave, n_photons, *found)
    return found


@compiled
def _strongest_h(wave, n_photons, frequency, strength, other):
    """Write what `Slow` holds."""
    power = np.empty(N_TRIALS + 1, dtype=np.float32)
    best = np.empty_like(power)  # parts of one array would make the loops slow
    for i in range(len(wave)):
        norm = 2 / max(n_photons[i], np.float32(1))
        for k in range(N_TRIALS + 1):
            power[k] = best[k] = norm * (wave[i, k].real**2 + wave[i, k].imag**2)
        # Harmonics weigh a little less, lest a sinusoid be taken for a harmonic of half its
        # frequency.
        for k in range(N_TRIALS // 2 + 1):
            two = power[k] + np.float32(0.9) * power[2 * k]
            best[k] = max(best[k], two - 4)
            if k <= N_TRIALS // 4:
                four = two + np.float32(0.8) * power[3 * k] + np.float32(0.7) * power[4 * k]
                best[k] = max(best[k], four - 12)
        for k in range(OVERSAMPLING + 1):  # a single cycle or less is a trend
            best[k] = 0
        at = 1 + where_highest(best[1:])
        frequency[i], strength[i] = np.float32(at) / OVERSAMPLING, best[at]
        for k in range(max(0, at - 2 * OVERSAMPLING + 1), min(at + 2 * OVERSAMPLING, len(best))):
            best[k] = 0
        other[i] = highest(best)


def fast_search(photons, expected):
    """Search from 128 to 2048 cycles per window.

    Parameters
    ----------
    photons : `~stingray_align.photons.Photons`
    expected : ndarray of float32, shape (n, 512)
        Counts of a constant source.

    Returns
    -------
    Fast
        Powers have mean 2 for a constant source.

    References
    ----------
    Leahy et al. 1983, ApJ 266, 160.
    """
    n = len(photons)
    found = Fast(*np.empty((2, n), dtype=np.float32), np.empty((n, N_OCTAVES), dtype=np.float32))
    for first in range(0, n, SOURCES_AT_ONCE):
        some = slice(first, first + SOURCES_AT_ONCE)
        excess = count_fine(photons.offsets[first:first + SOURCES_AT_ONCE + 1], photons.phase)
        _take_off(expected[some], excess)
        _strongest_power(fft.rfft(excess, overwrite_x=True), expected[some],
                         *(x[some] for x in found))
    return found


@compiled
def _take_off(expected, counts):
    """Take counts per time bin (n, 512) off those in the fine cells (n, 4096)."""
    cells = N_FINE_BINS // N_TIME_BINS
    for i in range(len(counts)):
        for j in range(N_TIME_BINS):
            for k in range(j * cells, (j + 1) * cells):
                counts[i, k] -= expected[i, j] / cells


@compiled
def _strongest_power(wave, expected, frequency, power, octaves):
    """Write what `Fast` holds."""
    here = np.empty(wave.shape[1], dtype=np.float32)
    for i in range(len(wave)):
        norm = 2 / max(expected[i].sum(), np.float32(1))
        for k in range(len(here)):
            here[k] = norm * (wave[i, k].real**2 + wave[i, k].imag**2)
        at = FASTEST_SLOW + where_highest(here[FASTEST_SLOW:])
        frequency[i], power[i] = at, here[at]
        for octave in range(N_OCTAVES):
            first, last = 2**octave, 2**(octave + 1)
            if octave == N_OCTAVES - 1:
                last += 1  # the highest frequency of all
            total = np.float32(0)
            for k in range(first, last):
                total += here[k]
            octaves[i, octave] = total / (last - first)


@compiled
def folded(curve, expected, frequency):
    """Smoothed rate over mean rate against phase.

    Parameters
    ----------
    curve : ndarray, shape (512,)
        Counts, or others to compare with ``expected``.
    expected : ndarray, shape (512,)
        Counts of a constant source.
    frequency : float
        Cycles per window.

    Returns
    -------
    ndarray of float32, shape (N_PHASES,)
    """
    seen, mean = np.zeros((2, N_PHASES), dtype=np.float32)
    for j in range(N_TIME_BINS):
        phase = (np.float32(j) + np.float32(0.5)) / np.float32(N_TIME_BINS) * frequency
        cell = int((phase - np.floor(phase)) * N_PHASES)
        seen[cell] += curve[j]
        mean[cell] += expected[j]
    profile = np.empty(N_PHASES, dtype=np.float32)
    for k in range(N_PHASES):
        before, after = k - 1 if k else N_PHASES - 1, (k + 1) % N_PHASES
        above = seen[k] + 0.5 * (seen[before] + seen[after]) + 0.5
        profile[k] = above / (mean[k] + 0.5 * (mean[before] + mean[after]) + 0.5)
    return profile
