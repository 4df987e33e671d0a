"""The vector that alignment consumes: amplitude, latent, and read-outs of the decoded rate.

The latent tells *when* things happen; classes of variability do not care when. So the vector also
holds descriptions of the light curve that do not change with a shift in the window (its levels,
its highest peak and deepest dip, its strongest period, how its colour follows its rate), the
decoded spectrum, and plain photon statistics, each under its name and with its unit.

A group of read-outs is a function of `_Seen` that is marked with the names and units of what it
returns.
"""

from __future__ import annotations

import math
from functools import cache, cached_property
from typing import NamedTuple

import torch

from ..photons import CHANNEL_EDGES, N_CHANNELS, N_TIME_BINS, to_channels
from .batch import COLOUR_BIN
from .descriptors import DESCRIPTORS
from .periods import N_PHASES, fast_search, folded, slow_search

__all__ = ["feature_names", "feature_units", "feature_vectors"]

BANDS = {"soft": slice(0, 6), "medium": slice(6, 10), "hard": slice(10, 19)}
RATIOS = (("hard", "soft"), ("hard", "medium"), ("medium", "soft"))
SCALES = (8, 32)  # time bins of the excess variance
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
OCTAVES = [2**k for k in range(11)]  # cycles per window
_CHANNELS_OF_AREA = to_channels([0.8, 1.6, 4.5])
_ENDS = torch.tensor([[1 / math.e], [0.5]])

_GROUPS = []


def _group(**units):
    """Mark a function that returns one tensor (n,) for each name, or one (n, k) for all."""
    def register(function):
        _GROUPS.append((function, units))
        return function
    return register


@cache
def feature_names(n_latent):
    """Names of the entries of `feature_vectors`."""
    return (*(name for _, units in _GROUPS for name in units),
            *(f"latent_{i}" for i in range(n_latent)), *DESCRIPTORS)


def feature_units(names):
    """Unit of each feature, as a string; decimal logarithms have that of their argument."""
    known = {name: unit for _, units in _GROUPS for name, unit in units.items()} | DESCRIPTORS
    return tuple(known.get(name, "") for name in names)


@torch.inference_mode()
def feature_vectors(inferred):
    """One vector for each source.

    Parameters
    ----------
    inferred : `~stingray_align.autodecoder.model.Inferred`

    Returns
    -------
    ndarray of float32, shape (n, n_features)
        Columns as in `feature_names`.
    """
    seen = _Seen(inferred)
    columns = []
    for function, _ in _GROUPS:
        values = function(seen)
        columns.append(torch.stack(values, dim=1) if isinstance(values, tuple) else values)
    return torch.cat([*columns, inferred.latent, inferred.descriptors], dim=1).numpy()


class _Seen:
    """What several groups need of a batch and its decoded rate."""

    def __init__(self, inferred):
        self.batch, self.shape = inferred.batch, inferred.shape
        batch = self.batch
        self.n = batch.n_photons
        self.weight = batch.exposed / batch.exposed.sum(dim=1, keepdim=True)
        #: Rate over mean rate, goes on in gaps.
        self.log_rate = self.shape.log_relative_rate(batch.exposed).clamp(max=math.log(1e4))
        self.rate = torch.exp(self.log_rate)
        self.deviation = self.rate - 1
        #: Counts of a constant source, and those above it.
        self.expected = self.n[:, None] * self.weight
        self.excess = batch.per_bin - self.expected
        #: On the coarser grid: share of the exposure, rate over mean rate, share of the photons.
        self.coarse_weight = _coarse(self.weight)
        self.coarse_share = _coarse(self.weight * self.rate)
        self.coarse_rate = self.coarse_share / self.coarse_weight.clamp(min=1e-12)
        self.energy = torch.exp(self.shape.log_energy)
        self.bin_length = 10 ** batch.log_duration / N_TIME_BINS

    @cached_property
    def levels(self):
        """Quantiles of the exposed part of the decoded rate, shape (n, 7)."""
        seen = self.coarse_weight > 0
        ordered = torch.where(seen, self.coarse_rate, torch.inf).sort(dim=1).values
        last = seen.sum(dim=1, keepdim=True) - 1
        place = (last * torch.tensor(QUANTILES)).round().long()
        return ordered.gather(1, place).clamp(1e-3, 1e3)

    @property
    def median(self):
        return self.levels[:, QUANTILES.index(0.5)]

    @cached_property
    def extremes(self):
        """The highest peak and the deepest dip."""
        curves = torch.stack([self.rate, -self.rate])
        level, at = curves.masked_fill(self.batch.exposed <= 0, -torch.inf).max(dim=2)
        median = torch.stack([self.median, -self.median])
        # A peak ends where its excess falls to 1/e, a dip half way up.
        end = median + (level - median) * _ENDS
        outside = curves < end[:, :, None]
        bins, at = torch.arange(N_TIME_BINS, dtype=torch.float32), at[:, :, None]
        before = torch.where(outside & (bins < at), bins, -1.0).amax(dim=2, keepdim=True)
        after = torch.where(outside & (bins > at), bins, float(N_TIME_BINS)).amin(
            dim=2, keepdim=True)
        return _Extremes(level[0], -level[1], *((at - before)[:, :, 0] * self.bin_length),
                         *((after - at)[:, :, 0] * self.bin_length),
                         (bins > before[0]) & (bins < after[0]))


class _Extremes(NamedTuple):
    """Levels, times in s from each extreme to where it begins and ends, and what is in the peak."""

    peak: torch.Tensor
    bottom: torch.Tensor
    peak_rise: torch.Tensor
    dip_fall: torch.Tensor
    peak_decay: torch.Tensor
    dip_rise: torch.Tensor
    in_peak: torch.Tensor


def _coarse(x):
    return x.reshape(len(x), -1, COLOUR_BIN).sum(dim=2)


@cache
@torch.inference_mode(False)
def _in_bands():
    """Which channels make up each band, shape (20, 3)."""
    member = torch.zeros(N_CHANNELS, len(BANDS))
    for k, band in enumerate(BANDS.values()):
        member[band, k] = 1
    return member


@cache
@torch.inference_mode(False)
def _hard():
    """Which channels lie in 2-8 keV, shape (20,)."""
    return torch.as_tensor(CHANNEL_EDGES[:-1] > 1.99).float()


def _contrast(a, b):
    return (a - b) / (a + b)


# ---- brightness and colour ----------------------------------------------------------------------
@_group(log_counts="dex(ct)", log_duration="dex(s)", log_exposure="dex(s)",
        log_rate="dex(ct / s)", background_fraction="")
def _brightness(seen):
    log_counts, log_exposure = torch.log10(seen.n + 0.5), torch.log10(seen.batch.exposure)
    return (log_counts, seen.batch.log_duration, log_exposure, log_counts - log_exposure,
            seen.batch.background_fraction)


@_group(soft_area="dex", hard_area="dex")
def _area(seen):
    """Effective area near 0.8 and 4.5 keV over that near 1.6 keV."""
    area = seen.batch.log_area[:, _CHANNELS_OF_AREA] / math.log(10)
    return area[:, ::2] - area[:, 1:2]


@_group(**{f"decoded_spectrum_{low:.2f}-{high:.2f}keV": ""
           for low, high in zip(CHANNEL_EDGES[:-1], CHANNEL_EDGES[1:])},
        **{f"{kind}_hardness_{a}_{b}": "" for kind in ("decoded", "counts") for a, b in RATIOS})
def _spectrum(seen):
    """Photons before the mirror: natural logarithm of each channel's share.

    Hardness ratios (a - b) / (a + b) are of counts, as catalogues give them.
    """
    batch = seen.batch
    spectrum = (seen.coarse_share[:, None, :] @ seen.energy)[:, 0]
    source = torch.log(spectrum + 1e-6) - batch.log_area
    background = seen.n[:, None] * batch.background_fraction[:, None] * batch.background
    net = (batch.colours.sum(dim=1) - background).clamp(min=0)
    bands = torch.stack([spectrum, net], dim=1) @ _in_bands()
    bands[:, 1] += 0.5
    first, second = ([list(BANDS).index(pair[k]) for pair in RATIOS] for k in (0, 1))
    return torch.cat([source - torch.logsumexp(source, dim=1, keepdim=True),
                      _contrast(bands[:, :, first], bands[:, :, second]).flatten(1)], dim=1)


@_group(decoded_hardness_rms="dex", decoded_hardness_rate_correlation="",
        decoded_hardness_change="", hardness_change_significance="")
def _colour_changes(seen):
    """How the share of photons above 2 keV varies, and how it follows the rate.

    Changes are from below to above the mean rate; that of the counts in units of its error.
    """
    share, hard = seen.coarse_share, seen.energy @ _hard()
    hard = hard - (share * hard).sum(dim=1, keepdim=True)
    deviation = seen.coarse_rate - 1
    bright = (deviation > 0).float()
    of_bright = share * bright
    in_bright, change, variance, spread, product = torch.stack(
        [of_bright, of_bright * hard, share * hard**2, share * deviation**2,
         share * hard * deviation]).sum(dim=2)
    counts = torch.stack([seen.batch.colours.sum(dim=2), seen.batch.colours @ _hard()], dim=2)
    total, high = counts.sum(dim=1), (bright[:, None, :] @ counts)[:, 0]
    high_all, high_hard, low_all, low_hard = torch.cat([high, total - high], dim=1).unbind(dim=1)
    parts = torch.stack([high_hard, low_all - low_hard, high_all - high_hard, low_hard]) + 0.5
    ratio = torch.log(parts[0] * parts[1] / (parts[2] * parts[3]))
    return (torch.log10(torch.sqrt(variance) + 1e-3),
            product / torch.sqrt(variance * spread + 1e-6),
            # the share of the bright part is above the mean by what that of the faint is below
            change / (in_bright * (1 - in_bright) + 1e-3),
            torch.asinh(ratio / torch.sqrt((1 / parts).sum(dim=0))))


# ---- levels -------------------------------------------------------------------------------------
@_group(**{f"decoded_level_{round(100 * q):02d}": "dex" for q in QUANTILES})
def _levels(seen):
    return torch.log10(seen.levels)


@_group(decoded_rms="dex", decoded_maximum="dex", decoded_minimum="dex", decoded_skewness="",
        decoded_high_fraction="")
def _moments(seen):
    """The last is the share of the exposure in which the rate is above twice its mean."""
    weighted = seen.weight * seen.deviation**2
    variance = weighted.sum(dim=1)
    skewness = (weighted * seen.deviation).sum(dim=1) / (variance + 1e-3) ** 1.5
    extremes = torch.stack([seen.extremes.peak, seen.extremes.bottom]).clamp(min=1e-3)
    return (torch.log10(torch.sqrt(variance) + 0.01), *torch.log10(extremes),
            torch.asinh(skewness), (seen.weight * (seen.deviation > 1)).sum(dim=1))


@_group(**{f"excess_variance_{n}": "" for n in SCALES}, kuiper_statistic="")
def _variability_tests(seen):
    excess = []
    for scale in SCALES:
        counts = seen.batch.per_bin.reshape(len(seen.n), scale, -1).sum(dim=2)
        mean = seen.expected.reshape(len(seen.n), scale, -1).sum(dim=2)
        excess.append(((counts - mean) ** 2 - mean).sum(dim=1)
                      / (mean**2).sum(dim=1).clamp(min=1e-6) * 3)
    drift = torch.cumsum(seen.excess, dim=1) / torch.sqrt(seen.n + 1)[:, None]
    kuiper = drift.max(dim=1).values - drift.min(dim=1).values
    return torch.asinh(torch.stack([*excess, kuiper], dim=1))


# ---- events, dips, trends -----------------------------------------------------------------------
@_group(flare_rise_time="dex(s)", flare_decay_time="dex(s)", flare_fraction="",
        flare_significance="", second_peak="dex", excursions="")
def _flare(seen):
    """Around the highest peak: times in which the excess falls to 1/e, photons in between.

    ``second_peak`` is the highest level elsewhere over the peak, ``excursions`` the binary
    logarithm of one plus the times that the rate exceeds twice its median.
    """
    peak = seen.extremes
    counts = (seen.batch.per_bin * peak.in_peak).sum(dim=1)
    quiet = seen.median * (seen.expected * peak.in_peak).sum(dim=1)
    second = (seen.rate * (seen.batch.exposed > 0)).masked_fill(peak.in_peak, 1e-3).amax(dim=1)
    return (torch.log10(peak.peak_rise), torch.log10(peak.peak_decay),
            counts / seen.n.clamp(min=1), torch.asinh((counts - quiet) / torch.sqrt(quiet + 1)),
            torch.log10((second / peak.peak).clamp(min=1e-4)),
            _times_entered(seen.rate > 2 * seen.median[:, None]))


@_group(dip_duration="dex(s)", low_excursions="")
def _dip(seen):
    """How long the rate stays below the middle of its median and its lowest level."""
    return (torch.log10(seen.extremes.dip_fall + seen.extremes.dip_rise),
            _times_entered(seen.rate < 0.5 * seen.median[:, None]))


def _times_entered(inside):
    entered = (inside[:, 1:] > inside[:, :-1]).sum(dim=1) + inside[:, 0]
    return torch.log2(1.0 + entered)


@_group(steepest_rise="", steepest_fall="", trend_slope="", trend_correlation="", trend_share="")
def _changes(seen):
    """Largest change of the log-rate within 1/128 of the window; its trend over the window.

    ``trend_share`` is the change from begin to end over the path between.
    """
    log_rate = seen.log_rate
    step = log_rate[:, COLOUR_BIN:] - log_rate[:, :-COLOUR_BIN]
    when = (torch.arange(N_TIME_BINS) + 0.5) / N_TIME_BINS
    lever = seen.weight * (when - (seen.weight * when).sum(dim=1, keepdim=True))
    length = (lever * when).sum(dim=1).clamp(min=1e-6)
    variance = (seen.weight * seen.deviation**2).sum(dim=1)
    path = (log_rate[:, 1:] - log_rate[:, :-1]).abs().sum(dim=1)
    return (step.amax(dim=1), -step.amin(dim=1), (lever * log_rate).sum(dim=1) / length,
            (lever * seen.rate).sum(dim=1) / torch.sqrt(length * variance + 1e-6),
            (log_rate[:, -1] - log_rate[:, 0]) / (path + 0.05))


# ---- periods ------------------------------------------------------------------------------------
@_group(decoded_strongest_frequency="dex", decoded_strongest_share="")
def _decoded_period(seen):
    """Strongest Fourier frequency of the decoded rate (cycles per window), share of its power."""
    wave = torch.fft.rfft(seen.weight * seen.deviation, dim=1)[:, 1:]
    power = wave.real**2 + wave.imag**2
    highest, at = power.max(dim=1)
    return torch.log10(at + 1.0), highest / (power.sum(dim=1) + 1e-6)


_FOLDED = {"maximum": "dex", "median": "dex", "rms": "dex", "skewness": "",
           "asymmetry": ""}


@_group(period="dex(s)", period_cycles="dex", period_strength="dex", period_rival="dex",
        **{f"{kind}_{name}": unit for name, unit in _FOLDED.items()
           for kind in ("folded", "decoded_folded")})
def _period(seen):
    """The strongest period of the photons (H statistic), and what is folded with it.

    ``period_rival`` compares the next strongest period. Folded photons and folded decoded rate
    tell sinusoids, pulses, eclipses and heartbeats apart: maximum and median over the mean, rms,
    skewness of the levels, and of the slopes (slow rise and fast fall).
    """
    slow = slow_search(seen.excess, seen.n)
    curve = folded([seen.batch.per_bin, seen.expected * seen.rate], seen.expected, slow.frequency)
    ordered = curve.sort(dim=2).values
    deviation = curve - curve.mean(dim=2, keepdim=True)
    rms = torch.sqrt((deviation**2).mean(dim=2)) + 0.02
    slope = curve.roll(-1, dims=2) - curve
    asymmetry = (slope**3).mean(dim=2) / ((slope**2).mean(dim=2) + 1e-3) ** 1.5
    cycles = torch.log10(slow.frequency)
    strength = torch.log10(slow.strength + 1)
    return (seen.batch.log_duration - cycles, cycles, strength,
            torch.log10(slow.other + 1) - strength,
            *torch.log10(ordered[:, :, -1]), *torch.log10(ordered[:, :, N_PHASES // 2]),
            *torch.log10(rms),
            *((deviation**3).mean(dim=2) / rms**3), *torch.asinh(asymmetry))


@_group(fast_period="dex(s)", fast_period_power="dex",
        **{f"power_{first}": "" for first in OCTAVES})
def _fast_period(seen):
    """The same above 128 cycles per window; significance of the power in octaves from there on."""
    fast = fast_search(seen.batch.photons, seen.expected)
    period = seen.batch.log_duration - torch.log10(fast.frequency)
    sigma = 2 / torch.sqrt(torch.tensor(OCTAVES, dtype=torch.float32))
    return torch.cat([period[:, None], torch.log10(fast.power + 1)[:, None],
                      torch.asinh((fast.octaves - 2) / sigma)], dim=1)
