"""The vector that alignment consumes: amplitude, latent, and read-outs of the decoded rate.

The latent tells *when* things happen; classes of variability do not care when. So the vector also
holds descriptions of the light curve that do not change with a shift in the window (its levels,
its highest peak and deepest dip, its strongest period, how its colour follows its rate), the
decoded spectrum, and plain photon statistics, each under its name and with its unit.

Each group of read-outs is a compiled function that writes what it finds in one source, a row of
`_Seen`, from the place ``at`` on, and returns the place behind.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import fft

from ..photons import CHANNEL_EDGES, N_CHANNELS, N_TIME_BINS, to_channels
from ._compiled import compiled
from .counting import COLOUR_BIN, N_COLOUR_BINS
from .descriptors import DESCRIPTORS
from .periods import N_OCTAVES, N_PHASES, fast_search, folded, slow_search
from .statistics import HARD_FROM

__all__ = ["N_READOUTS", "feature_names", "feature_units", "feature_vectors", "readouts"]

BANDS = ((0, 6), (6, 10), (10, 19))  # channels of the soft, medium and hard band
RATIOS = ((2, 0), (2, 1), (1, 0))
SCALES = (8, 32)  # time bins of the excess variance
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_MEDIAN = QUANTILES.index(0.5)
_SOFT, _MIDDLE, _HARD = (int(c) for c in to_channels([0.8, 1.6, 4.5]))
_HIGHEST_RATE = 1e4

_CHANNELS = [f"{low:.2f}-{high:.2f}keV" for low, high in zip(CHANNEL_EDGES[:-1], CHANNEL_EDGES[1:])]
_PAIRS = ("hard_soft", "hard_medium", "medium_soft")
_FOLDED = {"maximum": "dex", "median": "dex", "rms": "dex", "skewness": "", "asymmetry": ""}

#: Name to unit of all read-outs, in the order of the functions below that make them.
_READOUTS = {
    # brightness and colour
    "log_counts": "dex(ct)", "log_duration": "dex(s)", "log_exposure": "dex(s)",
    "log_rate": "dex(ct / s)", "background_fraction": "",
    "soft_area": "dex", "hard_area": "dex",
    **{f"decoded_spectrum_{channel}": "" for channel in _CHANNELS},
    **{f"{kind}_hardness_{pair}": "" for kind in ("decoded", "counts") for pair in _PAIRS},
    "decoded_hardness_rms": "dex", "decoded_hardness_rate_correlation": "",
    "decoded_hardness_change": "", "hardness_change_significance": "",
    # levels
    **{f"decoded_level_{round(100 * q):02d}": "dex" for q in QUANTILES},
    "decoded_rms": "dex", "decoded_maximum": "dex", "decoded_minimum": "dex",
    "decoded_skewness": "", "decoded_high_fraction": "",
    **{f"excess_variance_{n}": "" for n in SCALES}, "kuiper_statistic": "",
    # events, dips, trends
    "flare_rise_time": "dex(s)", "flare_decay_time": "dex(s)", "flare_fraction": "",
    "flare_significance": "", "second_peak": "dex", "excursions": "",
    "dip_duration": "dex(s)", "low_excursions": "",
    "steepest_rise": "", "steepest_fall": "", "trend_slope": "", "trend_correlation": "",
    "trend_share": "",
    # periods
    "decoded_strongest_frequency": "dex", "decoded_strongest_share": "",
    "period": "dex(s)", "period_cycles": "dex", "period_strength": "dex", "period_rival": "dex",
    **{f"{kind}_{name}": unit for name, unit in _FOLDED.items()
       for kind in ("folded", "decoded_folded")},
    "fast_period": "dex(s)", "fast_period_power": "dex",
    **{f"power_{2**k}": "" for k in range(N_OCTAVES)},
}


N_READOUTS = len(_READOUTS)


@cache
def feature_names(n_latent):
    """Names of the entries of `feature_vectors`."""
    return (*_READOUTS, *(f"latent_{i}" for i in range(n_latent)), *DESCRIPTORS)


def feature_units(names):
    """Unit of each feature, as a string; decimal logarithms have that of their argument."""
    known = _READOUTS | DESCRIPTORS
    return tuple(known.get(name, "") for name in names)


@torch.inference_mode()
def readouts(inferred):
    """Read-outs of each source.

    Parameters
    ----------
    inferred : `~stingray_align.autodecoder.model.Inferred`

    Returns
    -------
    ndarray of float32, shape (n, N_READOUTS)
    """
    batch = inferred.batch
    seen = _look(batch, inferred.shape)
    found = np.empty((len(seen.n_photons), N_READOUTS), dtype=np.float32)
    _read_out(seen, slow_search(batch.wave, seen.n_photons),
              fast_search(batch.photons, batch.expected), found)
    return found


def feature_vectors(found, latent, descriptors):
    """One vector for each source, ndarray of float32 (n, n_features).

    Columns as in `feature_names`: read-outs, latent and descriptors, one row for each source.
    """
    return np.concatenate([found, latent.numpy(), descriptors.numpy()], axis=1)


class _Seen(NamedTuple):
    """What the read-outs of ``n`` sources are made of."""

    # of the photons
    n_photons: np.ndarray
    per_bin: np.ndarray
    colours: np.ndarray
    exposed: np.ndarray
    expected: np.ndarray
    background: np.ndarray
    background_fraction: np.ndarray
    log_duration: np.ndarray
    exposure: np.ndarray
    log_area: np.ndarray
    #: Share of the exposure, rate over mean rate and its logarithm, (n, 512); these go on in gaps.
    weight: np.ndarray
    rate: np.ndarray
    log_rate: np.ndarray
    #: Fourier transform of weight times deviation of the rate from its mean, (n, 257).
    wave: np.ndarray
    #: On the coarser grid: rate and share of the photons (n, 128), spectra (n, 128, 20).
    coarse_rate: np.ndarray
    coarse_share: np.ndarray
    spectra: np.ndarray
    #: Exposed coarse rates from low to high, then infinity (n, 128).
    ordered: np.ndarray


def _look(batch, shape):
    """Gather what the read-outs need, a `_Seen`."""
    n = len(batch.per_bin)
    exposed = batch.exposed.numpy()
    heads = [head.numpy() for head in (shape.g, shape.s, shape.u, shape.v)]
    rate, log_rate, weight, deviation = np.empty((4, n, N_TIME_BINS), dtype=np.float32)
    coarse_rate, coarse_share, ordered = np.empty((3, n, N_COLOUR_BINS), dtype=np.float32)
    spectra = np.empty((n, N_COLOUR_BINS, N_CHANNELS), dtype=np.float32)
    _below_highest(*heads, exposed, log_rate, spectra)
    np.exp(log_rate, out=rate)
    np.exp(spectra, out=spectra)
    _normalise(exposed, log_rate, rate, weight, deviation, coarse_rate, coarse_share, ordered,
               spectra)
    ordered.sort(axis=1)
    return _Seen(
        *batch.arrays("n_photons", "per_bin", "colours", "exposed"), batch.expected,
        *batch.arrays("background", "background_fraction", "log_duration", "exposure",
                      "log_area"),
        weight, rate, log_rate, fft.rfft(deviation, overwrite_x=True), coarse_rate, coarse_share,
        spectra, ordered)


@compiled
def _below_highest(g, s, u, v, exposed, log_rate, log_spectra):
    """Write log-rate and log-spectra over their highest value, so that no exponential overflows."""
    for i in range(len(g)):
        highest = np.float32(-np.inf)
        for j in range(N_TIME_BINS):
            if exposed[i, j] > 0:
                highest = max(highest, g[i, j])
        for j in range(N_TIME_BINS):
            log_rate[i, j] = min(g[i, j] - highest, np.float32(80))
        for k in range(N_COLOUR_BINS):
            highest = np.float32(-np.inf)
            row = log_spectra[i, k]
            for c in range(N_CHANNELS):
                row[c] = s[i, c] + u[i, k] * v[i, c]
                highest = max(highest, row[c])
            for c in range(N_CHANNELS):
                row[c] -= highest


@compiled
def _normalise(exposed, log_rate, rate, weight, deviation, coarse_rate, coarse_share, ordered,
               spectra):
    """Write rates over the mean rate, and the rest as in `_Seen`."""
    for i in range(len(exposed)):
        total, photons = np.float32(0), np.float32(0)
        for j in range(N_TIME_BINS):
            total += exposed[i, j]
            photons += exposed[i, j] * rate[i, j]
        mean = photons / total
        log_mean, highest = np.float32(math.log(mean)), np.float32(math.log(_HIGHEST_RATE))
        for j in range(N_TIME_BINS):
            rate[i, j] = min(rate[i, j] / mean, np.float32(_HIGHEST_RATE))
            log_rate[i, j] = min(log_rate[i, j] - log_mean, highest)
            weight[i, j] = exposed[i, j] / total
            deviation[i, j] = weight[i, j] * (rate[i, j] - 1)
        for k in range(N_COLOUR_BINS):
            here, share = np.float32(0), np.float32(0)
            for j in range(k * COLOUR_BIN, (k + 1) * COLOUR_BIN):
                here += weight[i, j]
                share += weight[i, j] * rate[i, j]
            coarse_share[i, k] = share
            coarse_rate[i, k] = share / max(here, np.float32(1e-12))
            ordered[i, k] = coarse_rate[i, k] if here > 0 else np.inf
            whole = np.float32(0)
            for c in range(N_CHANNELS):
                whole += spectra[i, k, c]
            for c in range(N_CHANNELS):
                spectra[i, k, c] /= whole


@compiled
def _read_out(seen, slow, fast, out):
    """Write all read-outs of all sources, in the order of their names."""
    for i in range(len(seen.rate)):
        row = out[i]
        at = _brightness(seen, i, row, 0)
        at = _spectrum(seen, i, row, at)
        at = _colour_changes(seen, i, row, at)
        levels = _levels(seen, i)
        peak = _extreme(seen, i, levels[_MEDIAN], True)
        dip = _extreme(seen, i, levels[_MEDIAN], False)
        for k in range(len(levels)):
            row[at + k] = math.log10(levels[k])
        at = _moments(seen, i, peak.level, dip.level, row, at + len(levels))
        at = _variability_tests(seen, i, row, at)
        at = _flare(seen, i, levels[_MEDIAN], peak, row, at)
        at = _dip(seen, i, levels[_MEDIAN], dip, row, at)
        at = _changes(seen, i, row, at)
        at = _decoded_period(seen, i, row, at)
        at = _period(seen, i, slow, row, at)
        _fast_period(seen, i, fast, row, at)


# ---- brightness and colour ----------------------------------------------------------------------
@compiled
def _brightness(seen, i, out, at):
    """Brightness; effective area near 0.8 and 4.5 keV over that near 1.6 keV."""
    area = seen.log_area[i]
    out[at] = math.log10(seen.n_photons[i] + 0.5)
    out[at + 1] = seen.log_duration[i]
    out[at + 2] = math.log10(seen.exposure[i])
    out[at + 3] = out[at] - out[at + 2]
    out[at + 4] = seen.background_fraction[i]
    out[at + 5] = (area[_SOFT] - area[_MIDDLE]) / math.log(10)
    out[at + 6] = (area[_HARD] - area[_MIDDLE]) / math.log(10)
    return at + 7


@compiled
def _spectrum(seen, i, out, at):
    """Photons before the mirror: natural logarithm of each channel's share.

    Hardness ratios (a - b) / (a + b) are of counts, as catalogues give them.
    """
    spectrum, counts = np.zeros((2, N_CHANNELS), dtype=np.float32)
    for k in range(N_COLOUR_BINS):
        share = seen.coarse_share[i, k]
        for c in range(N_CHANNELS):
            spectrum[c] += share * seen.spectra[i, k, c]
            counts[c] += seen.colours[i, k, c]
    whole, background = 0.0, seen.n_photons[i] * seen.background_fraction[i]
    for c in range(N_CHANNELS):
        source = math.log(spectrum[c] + 1e-6) - seen.log_area[i, c]
        out[at + c] = source
        whole += math.exp(source)
        counts[c] = max(counts[c] - background * seen.background[i, c], 0)
    for c in range(N_CHANNELS):
        out[at + c] -= math.log(whole)
    at = _hardness(spectrum, 0.0, out, at + N_CHANNELS)
    return _hardness(counts, 0.5, out, at)


@compiled
def _hardness(spectrum, more, out, at):
    bands = np.empty(len(BANDS))
    for k in range(len(BANDS)):
        first, last = BANDS[k]
        bands[k] = spectrum[first:last].sum() + more
    for k in range(len(RATIOS)):
        a, b = bands[RATIOS[k][0]], bands[RATIOS[k][1]]
        out[at + k] = (a - b) / (a + b)
    return at + len(RATIOS)


@compiled
def _colour_changes(seen, i, out, at):
    """How the share of photons above 2 keV varies, and how it follows the rate.

    Changes are from below to above the mean rate; that of the counts in units of its error.
    """
    share, rate = seen.coarse_share[i], seen.coarse_rate[i]
    hard = np.empty(N_COLOUR_BINS)
    mean = 0.0
    for k in range(N_COLOUR_BINS):
        hard[k] = seen.spectra[i, k, HARD_FROM:].sum()
        mean += share[k] * hard[k]
    in_bright = change = variance = spread = product = 0.0
    high_all = high_hard = low_all = low_hard = 0.0
    for k in range(N_COLOUR_BINS):
        above, deviation = hard[k] - mean, rate[k] - 1
        variance += share[k] * above**2
        spread += share[k] * deviation**2
        product += share[k] * above * deviation
        counts, hard_counts = seen.colours[i, k].sum(), seen.colours[i, k, HARD_FROM:].sum()
        if deviation > 0:
            in_bright += share[k]
            change += share[k] * above
            high_all += counts
            high_hard += hard_counts
        else:
            low_all += counts
            low_hard += hard_counts
    a, b = high_hard + 0.5, low_all - low_hard + 0.5
    c, d = high_all - high_hard + 0.5, low_hard + 0.5
    out[at] = math.log10(math.sqrt(variance) + 1e-3)
    out[at + 1] = product / math.sqrt(variance * spread + 1e-6)
    # the share of the bright part is above the mean by what that of the faint is below
    out[at + 2] = change / (in_bright * (1 - in_bright) + 1e-3)
    error = math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    out[at + 3] = math.asinh(math.log(a * b / (c * d)) / error)
    return at + 4


# ---- levels -------------------------------------------------------------------------------------
@compiled
def _levels(seen, i):
    """Quantiles of the exposed part of the decoded rate."""
    ordered = seen.ordered[i]
    last = -1
    for k in range(N_COLOUR_BINS):
        last += ordered[k] < np.inf
    levels = np.empty(len(QUANTILES))
    for k in range(len(QUANTILES)):
        level = ordered[int(np.rint(np.float32(last) * np.float32(QUANTILES[k])))]
        levels[k] = min(max(level, 1e-3), 1e3)
    return levels


class _Extreme(NamedTuple):
    """Level of the highest peak or the deepest dip, and the bins before it begins and after it."""

    level: float
    at: int
    before: int
    after: int


@compiled
def _extreme(seen, i, median, highest):
    rate, sign = seen.rate[i], 1 if highest else -1
    at, level = -1, -np.inf
    for j in range(N_TIME_BINS):
        if seen.exposed[i, j] > 0 and sign * rate[j] > level:
            at, level = j, sign * rate[j]
    # A peak ends where its excess falls to 1/e, a dip half way up.
    end = sign * median + (level - sign * median) * (1 / math.e if highest else 0.5)
    before, after = at - 1, at + 1
    while before >= 0 and sign * rate[before] >= end:
        before -= 1
    while after < N_TIME_BINS and sign * rate[after] >= end:
        after += 1
    return _Extreme(sign * level, at, before, after)


@compiled
def _moments(seen, i, highest, lowest, out, at):
    """The last is the share of the exposure in which the rate is above twice its mean."""
    variance = third = high = 0.0
    for j in range(N_TIME_BINS):
        weight, deviation = seen.weight[i, j], seen.rate[i, j] - 1
        variance += weight * deviation**2
        third += weight * deviation**3
        high += weight if deviation > 1 else 0
    out[at] = math.log10(math.sqrt(variance) + 0.01)
    out[at + 1] = math.log10(max(highest, 1e-3))
    out[at + 2] = math.log10(max(lowest, 1e-3))
    out[at + 3] = math.asinh(third / (variance + 1e-3) ** 1.5)
    out[at + 4] = high
    return at + 5


@compiled
def _variability_tests(seen, i, out, at):
    counts, expected = seen.per_bin[i], seen.expected[i]
    for scale in SCALES:
        above = squared = 0.0
        bins = N_TIME_BINS // scale
        for k in range(scale):
            number = mean = 0.0
            for j in range(k * bins, (k + 1) * bins):
                number += counts[j]
                mean += expected[j]
            above += (number - mean) ** 2 - mean
            squared += mean**2
        out[at] = math.asinh(above / max(squared, 1e-6) * 3)
        at += 1
    drift, highest, lowest = 0.0, -np.inf, np.inf
    for j in range(N_TIME_BINS):
        drift += counts[j] - expected[j]
        highest, lowest = max(highest, drift), min(lowest, drift)
    out[at] = math.asinh((highest - lowest) / math.sqrt(seen.n_photons[i] + 1))
    return at + 1


# ---- events, dips, trends -----------------------------------------------------------------------
@compiled
def _bin_length(seen, i):
    return 10.0 ** seen.log_duration[i] / N_TIME_BINS


@compiled
def _flare(seen, i, median, peak, out, at):
    """Around the highest peak: times in which the excess falls to 1/e, photons in between.

    ``second_peak`` is the highest level elsewhere over the peak, ``excursions`` the binary
    logarithm of one plus the times that the rate exceeds twice its median.
    """
    counts, quiet, second, entered, inside = 0.0, 0.0, 1e-3, 0, False
    for j in range(N_TIME_BINS):
        rate = seen.rate[i, j]
        if peak.before < j < peak.after:
            counts += seen.per_bin[i, j]
            quiet += median * seen.expected[i, j]
        elif seen.exposed[i, j] > 0:
            second = max(second, rate)
        entered += rate > 2 * median and not inside
        inside = rate > 2 * median
    out[at] = math.log10((peak.at - peak.before) * _bin_length(seen, i))
    out[at + 1] = math.log10((peak.after - peak.at) * _bin_length(seen, i))
    out[at + 2] = counts / max(seen.n_photons[i], 1)
    out[at + 3] = math.asinh((counts - quiet) / math.sqrt(quiet + 1))
    out[at + 4] = math.log10(max(second / peak.level, 1e-4))
    out[at + 5] = math.log2(1.0 + entered)
    return at + 6


@compiled
def _dip(seen, i, median, dip, out, at):
    """How long the rate stays below the middle of its median and its lowest level."""
    entered, inside = 0, False
    for j in range(N_TIME_BINS):
        low = seen.rate[i, j] < 0.5 * median
        entered += low and not inside
        inside = low
    out[at] = math.log10((dip.after - dip.before) * _bin_length(seen, i))
    out[at + 1] = math.log2(1.0 + entered)
    return at + 2


@compiled
def _changes(seen, i, out, at):
    """Largest change of the log-rate within 1/128 of the window; its trend over the window.

    ``trend_share`` is the change from begin to end over the path between.
    """
    log_rate, weight, rate = seen.log_rate[i], seen.weight[i], seen.rate[i]
    middle = variance = 0.0
    for j in range(N_TIME_BINS):
        middle += weight[j] * (j + 0.5) / N_TIME_BINS
        variance += weight[j] * (rate[j] - 1) ** 2
    length = slope = product = 0.0
    for j in range(N_TIME_BINS):
        when = (j + 0.5) / N_TIME_BINS
        lever = weight[j] * (when - middle)
        length += lever * when
        slope += lever * log_rate[j]
        product += lever * rate[j]
    length = max(length, 1e-6)
    path, rise, fall = 0.0, np.float32(-np.inf), np.float32(-np.inf)
    for j in range(1, N_TIME_BINS):
        path += abs(log_rate[j] - log_rate[j - 1])
    for j in range(COLOUR_BIN, N_TIME_BINS):
        step = log_rate[j] - log_rate[j - COLOUR_BIN]
        rise, fall = max(rise, step), max(fall, -step)
    out[at] = rise
    out[at + 1] = fall
    out[at + 2] = slope / length
    out[at + 3] = product / math.sqrt(length * variance + 1e-6)
    out[at + 4] = (log_rate[-1] - log_rate[0]) / (path + 0.05)
    return at + 5


# ---- periods ------------------------------------------------------------------------------------
@compiled
def _decoded_period(seen, i, out, at):
    """Strongest Fourier frequency of the decoded rate (cycles per window), share of its power."""
    total, highest, strongest = 0.0, -1.0, 0
    for k in range(1, seen.wave.shape[1]):
        power = seen.wave[i, k].real**2 + seen.wave[i, k].imag**2
        total += power
        if power > highest:
            highest, strongest = power, k
    out[at] = math.log10(strongest)
    out[at + 1] = highest / (total + 1e-6)
    return at + 2


@compiled
def _period(seen, i, slow, out, at):
    """The strongest period of the photons (H statistic), and what is folded with it.

    ``period_rival`` compares the next strongest period. Folded photons and folded decoded rate
    tell sinusoids, pulses, eclipses and heartbeats apart: maximum and median over the mean, rms,
    skewness of the levels, and of the slopes (slow rise and fast fall).
    """
    cycles, strength = math.log10(slow.frequency[i]), math.log10(slow.strength[i] + 1)
    out[at] = seen.log_duration[i] - cycles
    out[at + 1] = cycles
    out[at + 2] = strength
    out[at + 3] = math.log10(slow.other[i] + 1) - strength
    at += 4
    for kind in range(2):
        counts = seen.per_bin[i] if kind == 0 else seen.expected[i] * seen.rate[i]
        curve = folded(counts, seen.expected[i], slow.frequency[i])
        mean = variance = third = squares = cubes = 0.0
        for k in range(N_PHASES):
            mean += curve[k] / N_PHASES
        for k in range(N_PHASES):
            deviation, slope = curve[k] - mean, curve[(k + 1) % N_PHASES] - curve[k]
            variance += deviation**2 / N_PHASES
            third += deviation**3 / N_PHASES
            squares += slope**2 / N_PHASES
            cubes += slope**3 / N_PHASES
        rms = math.sqrt(variance) + 0.02
        out[at + kind] = math.log10(curve.max())
        out[at + 2 + kind] = math.log10(_upper_median(curve))
        out[at + 4 + kind] = math.log10(rms)
        out[at + 6 + kind] = third / rms**3
        out[at + 8 + kind] = math.asinh(cubes / (squares + 1e-3) ** 1.5)
    return at + 10


@compiled
def _upper_median(x):
    """The lowest of the upper half of a few numbers."""
    for k in range(len(x)):
        below = 0
        for m in range(len(x)):
            below += x[m] < x[k] or (x[m] == x[k] and m < k)
        if below == len(x) // 2:
            return x[k]
    return np.float32(np.nan)  # only if there are such among them


@compiled
def _fast_period(seen, i, fast, out, at):
    """The same above 128 cycles per window; significance of the power in octaves from there on."""
    out[at] = seen.log_duration[i] - math.log10(fast.frequency[i])
    out[at + 1] = math.log10(fast.power[i] + 1)
    for k in range(N_OCTAVES):
        sigma = 2 / math.sqrt(2.0**k)
        out[at + 2 + k] = math.asinh((fast.octaves[i, k] - 2) / sigma)
    return at + 2 + N_OCTAVES
