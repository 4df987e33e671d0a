"""Is it the source or the instrument? Statistical tests that look at the photons themselves.

Each test has a p-value that is uniform, or larger, for a source seen through a camera that behaves;
which sources can be mistaken for an artefact is said with each test, and how often that happens to
simulated sources is measured by ``stingray-align benchmark artefacts``.

``frame time``
    All photons of a CCD frame carry one time, so times lie on a comb. Binned, the comb beats with
    the bins, a period that is not the source's (the package spreads photons inside frames, where
    it recognises them). If there is power at the camera's frame frequency (within 5 %), the power
    of the binned photons at the beat with the model's 4096 cells is compared with that at 40
    frequencies around it. The measure is how well the times follow the comb.
``pile-up``
    Photons that hit one place in one frame are counted as one of their summed energy. Too few
    pairs of photons share a frame: a one-sided Poisson test of their number against that expected
    from the counts in 512 time bins. The measure is the share of frames with a photon that hold
    two or more, from the rate in the brightest bins.
``background flare``
    While the rate is high, is the excess spectrum that of the background? A likelihood ratio
    between background and source, simulated for four sources: the quiet one, a hard power law
    (photon index 1), the same behind 1e23 cm-2, and a black body of 2.5 keV.
``hard background``
    More photons above 7 keV, where mirrors are poor, than the known background and a hard source
    give.
``good time intervals``
    At the borders of good time intervals, is there time without photons, or does the rate jump?
    If the rate is locally constant, the distances of the first photons from a border are those of
    a Poisson process: the first over the eleventh for empty time, the tenth over the thirtieth for
    steps, the smallest p-value of all borders corrected for their number. The measure is the share
    of the events outside the intervals.

References
----------
Davis 2001, ApJ 562, 575 (pile-up); Leahy et al. 1983, ApJ 266, 160 (power of a Poisson process).
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from astropy.table import QTable

from ._gti import in_gti, tidy_gti
from .errors import EventDataWarning
from .instruments import INSTRUMENTS, effective_area
from .photons import (BAND_OF_CHANNEL, CHANNEL_EDGES, N_CHANNELS, N_FINE_BINS, N_TIME_BINS,
                      exposure_in_bins, to_channels)

__all__ = ["FOUND", "find_artefacts"]

#: p-value below which an artefact is taken for real.
FOUND = 1e-3

_LONGEST_FFT = 2**22
_NEIGHBOURS = 20           # frequencies on each side of one that is tested
_HARD = CHANNEL_EDGES[-2]  # 7 keV
_N_DRAWS = 4000
_PILED = 0.1               # share of piled-up frames above which spectra are wrong
_CENTRES = np.sqrt(CHANNEL_EDGES[:-1] * CHANNEL_EDGES[1:])
_CHANNEL_SHARE = np.diff(CHANNEL_EDGES)
_NO_AREA = "the effective area of the camera is not known"


def find_artefacts(events, *, seed=0):
    """Test one observation for artefacts of the instrument.

    Parameters
    ----------
    events : stingray.EventList or Embedding
        An event list also tells of events outside the good time intervals; of an embedding only
        the photons inside them, in the channels of the model, are left.
    seed : int, optional
        Of the simulated distributions.

    Returns
    -------
    astropy.table.QTable
        One row per test: ``test``, ``p_value`` (nan where it cannot be made), ``measure`` and
        ``measured`` (a number and what it is), ``found`` (p below 0.001, or a measure that is bad
        by itself), and ``note`` in words.

    Examples
    --------
    >>> import numpy as np
    >>> import stingray_align as sa
    >>> from stingray_align.artefacts import find_artefacts
    >>> rng = np.random.default_rng(1)
    >>> times = np.sort(rng.uniform(0, 8000, 300))
    >>> events = sa.EventList(times, energy=rng.uniform(1, 4, 300), gti=[[0, 1e4]],
    ...                       mission="chandra", instr="ACIS-S")
    >>> table = find_artefacts(events)
    >>> list(map(str, table["test"][table["found"]]))
    ['good time intervals']
    """
    return _tested(_Seen.of(events), seed)


def _tested(seen, seed):
    rng = np.random.default_rng(seed)
    rows = [test(seen, rng) for test in (_frame_time, _pile_up, _background_flare,
                                         _hard_background, _good_times)]
    table = QTable(rows=rows, names=("test", "p_value", "measure", "measured", "found", "note"))
    table["p_value"].info.format = ".2g"
    table["measure"].info.format = ".3g"
    return table


@dataclass(frozen=True)
class _Seen:
    """Photons inside the good time intervals, times in s since their start."""

    time: np.ndarray
    channel: np.ndarray
    gti: np.ndarray
    background: np.ndarray  # counts in each channel; zero where not known
    instrument: str
    outside: int            # events that were not in the intervals
    phase: np.ndarray       # of the same photons in the window, as the model sees them

    @classmethod
    def of(cls, events):
        from .photons import reduce_events

        if hasattr(events, "vector"):
            photons = events.photons
            start, duration = float(photons.start[0]), float(photons.duration[0])
            gti = np.asarray(getattr(events, "gti", [[start, start + duration]]), float) - start
            time, channel, outside = photons.phase.astype(float) * duration, photons.channel, 0
        else:
            from .events import prepare

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", EventDataWarning)  # said when it is embedded
                time, energy, gti = prepare(events)
                photons, _ = reduce_events(events)
            outside = 0
            if events._gti is not None and events.time is not None:
                raw = np.asarray(events.time, float)
                outside = int((~in_gti(raw[np.isfinite(raw)], tidy_gti(events._gti))).sum())
            channel = to_channels(energy)
            time, channel = time[channel >= 0] - gti[0, 0], channel[channel >= 0]
            gti = gti - gti[0, 0]
        from .autodecoder.batch import CHANNEL_SHARE

        background = np.maximum(photons.background[0], 0)[BAND_OF_CHANNEL] * CHANNEL_SHARE
        return cls(time, np.asarray(channel, int), gti, background, str(photons.instrument[0]),
                   outside, photons.phase.astype(float))

    @property
    def frame(self):
        return INSTRUMENTS[self.instrument].frame_time if self.instrument else 0.0

    def binned(self, n_bins):
        """Counts and exposed seconds in equal bins of the window."""
        edges = np.linspace(0, self.gti[-1, 1], n_bins + 1)
        return np.histogram(self.time, edges)[0], exposure_in_bins(self.gti, edges)


# ---- the camera's clock -------------------------------------------------------------------------
def _frame_time(seen, rng):
    name, what = "frame time", "share of the photons on the comb"
    if not seen.frame:
        return (name, math.nan, math.nan, what, False,
                "the camera is not known or times photons one by one")
    if len(seen.time) < 10:
        return name, math.nan, math.nan, what, False, "fewer than 10 photons"
    cell = seen.frame / 8
    length = min(seen.gti[-1, 1], _LONGEST_FFT * cell)
    time = seen.time[seen.time < length]
    if len(time) < 10:
        return name, math.nan, math.nan, what, False, "fewer than 10 photons"
    n_cells = int(2 ** math.ceil(math.log2(length / cell)))
    wave = np.fft.rfft(np.bincount((time / cell).astype(int), minlength=n_cells)[:n_cells])
    frequency = np.fft.rfftfreq(n_cells, cell)
    near = np.abs(frequency * seen.frame - 1) < 0.05
    power = np.abs(wave[near]) ** 2 / len(time)  # exponential of mean one, were there no comb
    best = int(np.argmax(power))
    share = math.sqrt(max(power[best] - 1, 0) / len(time))
    if power[best] < math.log(near.sum() / FOUND):
        return name, 1.0, share, what, False, "no comb of read-out frames in the arrival times"
    comb = float(frequency[near][best])
    grid = N_FINE_BINS / seen.gti[-1, 1]
    beat = abs(comb - round(comb / grid) * grid)
    p_value = _power_above_neighbours(seen, beat)
    found = p_value < FOUND
    note = f"arrival times lie on frames of {1 / comb:.4g} s, which the model does not see"
    if found:
        note = (f"arrival times lie on frames of {1 / comb:.4g} s, whose beat with the time bins, "
                f"{1 / beat:.4g} s, shows in the photons: that period is the camera's")
    return name, p_value, min(share, 1.0), what, found, note


def _power_above_neighbours(seen, frequency):
    """p-value of the power of the binned photons at a frequency, given that around it."""
    duration = seen.gti[-1, 1]
    steps = np.concatenate([np.arange(-_NEIGHBOURS - 2, -2), [0], np.arange(3, _NEIGHBOURS + 3)])
    cycles = np.abs(frequency * duration + steps)
    cycles = cycles[(cycles >= 4) | (steps[:len(cycles)] == 0)]
    if cycles.min() < 4:
        return 1.0  # slower than any period that the model tells from a trend
    place = (np.floor(seen.phase * N_FINE_BINS) + 0.5) / N_FINE_BINS
    fine = exposure_in_bins(seen.gti, np.linspace(0, duration, N_FINE_BINS + 1))
    middle = (np.arange(N_FINE_BINS) + 0.5) / N_FINE_BINS
    power = np.array([abs(np.exp(2j * np.pi * c * place).sum()
                          - len(place) * np.exp(2j * np.pi * c * middle) @ fine / fine.sum()) ** 2
                      for c in cycles])
    at = int(np.argmin(np.abs(cycles - frequency * duration)))
    around = np.delete(power, at)
    # An exponential variable over the sum of n others: (1 + x) ** -n.
    return float((1 + power[at] / around.sum()) ** -len(around))


def _pile_up(seen, rng):
    from scipy.stats import poisson

    name, what = "pile-up", "share of frames with a photon that hold more"
    if not seen.frame:
        return (name, math.nan, math.nan, what, False,
                "the camera is not known or times photons one by one")
    counts, exposed = seen.binned(N_TIME_BINS)
    good = (exposed > 0) & (counts > 0)
    counts, exposed = counts[good], exposed[good]
    frames = np.maximum(exposed / seen.frame, 1)
    expected = float((counts * (counts - 1) / 2 / frames).sum())
    time = np.sort(seen.time)
    half = np.searchsorted(time, time + seen.frame / 2 * (1 - 1e-6))
    pairs = int((half - np.arange(len(time)) - 1).clip(min=0).sum())
    p_value = float(poisson.cdf(pairs, expected))
    # Where the rate is high, from the photons weighted by themselves: what a photon meets.
    per_frame = float((counts**2 / frames).sum() / max(counts.sum(), 1)) if len(counts) else 0.0
    per_frame = max(per_frame - seen.frame * float((counts / exposed).sum() /
                                                   max(counts.sum(), 1)), 0.0)
    lost = min(per_frame, 0.99)
    if p_value < FOUND:  # a photon a frame at most: the rate before that was higher
        per_frame = -math.log1p(-lost)
    piled = 1 - per_frame / math.expm1(per_frame) if per_frame > 1e-9 else 0.0
    found = bool(p_value < FOUND or piled > _PILED)
    note = "photons are too rare to meet in a frame" if not found else (
        f"{pairs} pairs of photons share a frame where {expected:.0f} are expected; rate and "
        "spectrum are distorted, the spectrum to be too hard" if p_value < FOUND else
        f"in {100 * piled:.0f} % of the frames with a photon there are more: at one place of the "
        "detector they would be counted as one, too hard")
    return name, p_value, piled, what, found, note


# ---- background ---------------------------------------------------------------------------------
def _background_flare(seen, rng):
    from scipy.stats import poisson

    name, what = "background flare", "share of the photons in the flare"
    n = len(seen.time)
    if not seen.instrument:
        return name, math.nan, math.nan, what, False, _NO_AREA
    if n < 20:
        return name, math.nan, math.nan, what, False, "fewer than 20 photons"
    n_bins = int(np.clip(2 ** int(math.log2(n / 5)), 8, 64))
    counts, exposed = seen.binned(n_bins)
    good = exposed > 0.1 * exposed.max()
    quiet_rate = _quiet_rate(counts[good], exposed[good])
    high = good & (poisson.sf(counts - 1, quiet_rate * exposed) < 1e-3)
    in_high = high[np.minimum((seen.time / seen.gti[-1, 1] * n_bins).astype(int), n_bins - 1)]
    n_flare, n_quiet = int(in_high.sum()), int((~in_high).sum())
    if n_flare < 5 or n_quiet < 5:
        return name, 1.0, 0.0, what, False, "the rate is nowhere high enough"
    excess = 1 - float(quiet_rate * exposed[high].sum()) / n_flare
    background = _background_template(seen)
    quiet = _smooth(np.bincount(seen.channel[~in_high], minlength=N_CHANNELS))
    own = np.bincount(seen.channel[in_high], minlength=N_CHANNELS)
    flaring = (1 - excess) * quiet + excess * background
    p_value = 0.0
    for source in (quiet, *_hard_sources(seen.instrument)):
        null = (1 - excess) * quiet + excess * source
        gain = np.log(flaring / null)
        drawn = rng.multinomial(n_flare, null / null.sum(), size=_N_DRAWS) @ gain
        p_value = max(p_value, (1 + (drawn >= own @ gain).sum()) / (_N_DRAWS + 1))
    found = bool(p_value < FOUND)
    note = ("the rate rises with the spectrum of the background and of no source: cut these times"
            if found else "where the rate is high, the spectrum can be a source's")
    return name, float(p_value), excess * n_flare / n, what, found, note


def _quiet_rate(counts, exposed):
    """Median rate of bins, of which one that is exposed twice as long counts twice."""
    rate = counts / exposed
    order = np.argsort(rate)
    passed = np.cumsum(exposed[order])
    half = order[: 1 + np.searchsorted(passed, 0.6 * passed[-1])]
    # The mean of the fainter 60 %, which Poisson noise makes a little too low.
    rate = counts[half].sum() / exposed[half].sum()
    typical = rate * np.median(exposed)
    return rate + 0.6 * math.sqrt(max(typical, 1.0)) / np.median(exposed)


def _smooth(counts):
    """Spectrum of few photons: each shared with its neighbours, and half a photon flat."""
    wide = np.convolve(np.pad(counts.astype(float), 2, mode="edge"), [0.1, 0.2, 0.4, 0.2, 0.1],
                       mode="valid") + 0.5 * np.diff(CHANNEL_EDGES) / 7.5
    return wide / wide.sum()


def _background_template(seen):
    if seen.background.sum() > 0:
        return _normalised(seen.background + 1e-3 * _CHANNEL_SHARE)
    return _normalised(_CHANNEL_SHARE)  # particles: nearly flat


def _hard_sources(instrument):
    from .datasets._spectra import transmission, ENERGY

    area = effective_area(instrument, _CENTRES)
    yield (power_law := _normalised(area * np.diff(CHANNEL_EDGES) / _CENTRES))
    through = np.interp(_CENTRES, ENERGY, transmission(np.array([10.0]))[0])
    yield _normalised(power_law * through + 1e-5)
    yield _normalised(area * np.diff(CHANNEL_EDGES) * _CENTRES**2 / np.expm1(_CENTRES / 2.5))


def _normalised(spectrum):
    return spectrum / spectrum.sum()


def _hard_background(seen, rng):
    from scipy.stats import poisson

    name, what = "hard background", "share of the photons above 7 keV"
    n = len(seen.time)
    hard = int((seen.channel == N_CHANNELS - 1).sum())
    share = hard / n if n else math.nan
    if not seen.instrument:
        return name, math.nan, share, what, False, _NO_AREA
    if n < 5:
        return name, math.nan, share, what, False, "fewer than 5 photons"
    # The photons of 4 to 7 keV, as the hardest of sources has them, say how many to expect above.
    middle = (CHANNEL_EDGES[:-1] >= 3.9) & (CHANNEL_EDGES[1:] <= 7.01)
    seen_middle = int(((seen.channel >= 0) & middle[seen.channel]).sum())
    hardest = max(source[-1] / source[middle].sum() for source in _hard_sources(seen.instrument))
    source = max(seen_middle - seen.background[middle].sum(), 0.0) + math.sqrt(seen_middle + 1)
    expected = seen.background[-1] + hardest * source
    p_value = float(poisson.sf(hard - 1, expected))
    found = p_value < FOUND
    note = (f"{hard} photons above {_HARD:g} keV where background and a hard source give "
            f"{expected:.1f}: more background than known" if found else
            "as many hard photons as expected at most")
    return name, p_value, share, what, found, note


# ---- good time intervals ------------------------------------------------------------------------
def _good_times(seen, rng):
    name, what = "good time intervals", "share of the events outside"
    outside = seen.outside / max(seen.outside + len(seen.time), 1)
    length = seen.gti[:, 1] - seen.gti[:, 0]
    before = np.concatenate([[0.0], np.cumsum(length)])
    place = np.searchsorted(seen.gti[:, 0], seen.time, side="right") - 1
    inside = seen.time - seen.gti[place, 0]
    inside = inside + seen.frame * rng.uniform(-0.5, 0.5, len(inside))  # anywhere in its frame
    # In exposed time, where gaps have no length.
    time = np.sort(before[place] + np.clip(inside, 0, length[place]))
    p_values, borders = [], []
    for border in np.unique(before):
        for way in (1, -1):
            away = np.sort(way * (time - border))
            away = away[away > 0] if way == 1 else away[away >= 0]
            p, kind = _border(away)
            if p is not None:
                p_values.append(p)
                borders.append((border, kind))
    if not p_values:
        return name, math.nan, outside, what, outside > 0.01, "too few photons at any border"
    worst = int(np.argmin(p_values))
    p_value = float(-math.expm1(len(p_values) * math.log1p(-min(p_values[worst], 1 - 1e-16))))
    found = bool(p_value < FOUND or outside > 0.01)
    note = "photons fill the intervals evenly up to their borders"
    if p_value < FOUND:
        note = (f"{borders[worst][1]} at a border of the good time intervals: the detector may "
                "have been off or the background high")
    elif found:
        note = f"{100 * outside:.0f} % of the events lie outside; they were left out"
    return name, p_value, outside, what, found, note


def _border(away):
    """p-value of the photons nearest to a border, by their distances, and what is unusual."""
    from scipy.stats import beta

    if len(away) < 4:
        return None, ""
    m = min(10, len(away) - 1)
    empty = (1 - away[0] / away[m]) ** m if away[m] > 0 else 1.0
    if len(away) < 30:
        return empty, "time without photons"
    share = away[9] / away[29] if away[29] > 0 else 1 / 3  # what no step gives
    step = 2 * min(beta.cdf(share, 10, 20), beta.sf(share, 10, 20))
    if empty < step:
        return min(1.0, 2 * empty), "time without photons"
    return min(1.0, 2 * step), "a step of the rate"
