"""What the model sees of an observation: photons in a window, exposure, channels, background.

An observation is reduced to the photons of 0.5-8 keV inside its good time intervals (GTIs), each
as a position in the window (0 at the first GTI's start, 1 at the last one's stop) and an energy
channel. The exposed fraction of each of 512 time bins carries gaps, so a gap is never mistaken for
a faint source. Many observations are held together in flat ("ragged") arrays, since catalogues
have many sources with few photons each.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import pdtr

from .errors import EventDataError, EventDataWarning
from .instruments import mean_area, read_arf

__all__ = ["N_TIME_BINS", "N_FINE_BINS", "CHANNEL_EDGES", "N_CHANNELS", "BAND_EDGES",
           "BAND_OF_CHANNEL", "Photons", "exposure_in_bins", "reduce_events", "spread_frames",
           "to_channels"]

N_TIME_BINS = 512
#: Cells of the finest grid on which rates are given, eight to a time bin.
N_FINE_BINS = 4096

#: Edges of the 20 energy channels in keV; 1.2, 2 and 7 keV are edges, so the CSC bands are exact.
CHANNEL_EDGES = np.concatenate([
    np.geomspace(0.5, 1.2, 7)[:-1], np.geomspace(1.2, 2.0, 5)[:-1],
    np.geomspace(2.0, 7.0, 10), [8.0]])
N_CHANNELS = len(CHANNEL_EDGES) - 1
_EDGES = tuple(CHANNEL_EDGES)

#: CSC soft, medium and hard bands, and the rest up to 8 keV, in keV.
BAND_EDGES = (0.5, 1.2, 2.0, 7.0, 8.0)
BAND_OF_CHANNEL = np.searchsorted(BAND_EDGES, CHANNEL_EDGES[:-1] + 1e-6) - 1

#: Least effective area that counts, in units of its mean: less than any camera of the training has.
_LEAST_AREA = 0.01

#: Attributes of an event list that hold the background rate in the aperture (ct/s), band by band.
BACKGROUND_ATTRIBUTES = ("background_soft", "background_medium", "background_hard",
                         "background_top")


def to_channels(energies):
    """Channel number of each energy.

    Parameters
    ----------
    energies : array_like
        Photon energies in keV.

    Returns
    -------
    ndarray of int
        0 to 19, or -1 outside 0.5-8 keV.
    """
    channel = np.searchsorted(CHANNEL_EDGES, energies, side="right") - 1
    return np.where((channel < 0) | (channel >= N_CHANNELS), -1, channel)


def exposure_in_bins(gti, edges):
    """Exposed seconds in each time bin.

    Parameters
    ----------
    gti : array_like, shape (m, 2)
        Good time intervals in s, sorted and without overlap.
    edges : array_like, shape (n_bins + 1,)
        Bin edges in s, on the same zero.

    Returns
    -------
    ndarray, shape (n_bins,)

    Examples
    --------
    >>> from stingray_align.photons import exposure_in_bins
    >>> exposure_in_bins([[0, 3], [5, 8]], [0, 4, 8]).tolist()
    [3.0, 3.0]
    """
    gti = np.asarray(gti, dtype=float).reshape(-1, 2)
    length = gti[:, 1] - gti[:, 0]
    # The exposure gathered until time t is piecewise linear with its knots at the GTI borders.
    total = np.concatenate([[0.0], np.cumsum(length)])
    knots = gti.ravel()
    values = np.column_stack([total[:-1], total[1:]]).ravel()
    return np.diff(np.interp(edges, knots, values))


@dataclass(frozen=True, eq=False)
class Photons:
    """Observations of ``n`` sources as the model sees them.

    Parameters
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Source ``i`` owns photons ``offsets[i]:offsets[i + 1]``.
    phase : ndarray of float32, shape (n_photons,)
        Position of each photon in its window, 0 to 1.
    channel : ndarray of uint8, shape (n_photons,)
        Energy channel, see `CHANNEL_EDGES`.
    start, duration : ndarray of float64, shape (n,)
        Begin (absolute) and length of the window in s.
    exposed : ndarray of float32, shape (n, 512)
        Exposed fraction of each time bin.
    background : ndarray of float32, shape (n, 4)
        Counts expected from the background in the aperture over the whole exposure, in the bands
        of `BAND_EDGES`; zero where it is not known.
    instrument : ndarray of str, shape (n,)
        Canonical instrument (a key of `stingray_align.instruments.INSTRUMENTS`) or "".
    arf : ndarray of float32, shape (n, 20), optional
        Mean effective area in each channel (cm2) from an ancillary response file or, of ACIS, at
        the date of the observation; nan where the usual area of the instrument is taken.
    """

    ARRAYS = ("offsets", "phase", "channel", "start", "duration", "exposed", "background")

    offsets: np.ndarray
    phase: np.ndarray
    channel: np.ndarray
    start: np.ndarray
    duration: np.ndarray
    exposed: np.ndarray
    background: np.ndarray
    instrument: np.ndarray
    arf: np.ndarray = None

    def __post_init__(self):
        if self.arf is None:
            object.__setattr__(self, "arf", np.full((len(self), N_CHANNELS), np.nan, np.float32))

    def __len__(self):
        return len(self.duration)

    @property
    def n_photons(self):
        """Photons of each source, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def exposure(self):
        """Exposure of each source in s, shape (n,)."""
        return self.exposed.mean(axis=1, dtype=float) * self.duration

    @property
    def has_arf(self):
        """Which sources have an effective area of their own, shape (n,)."""
        return np.isfinite(self.arf).all(axis=1)

    @property
    def area(self):
        """Mean effective area of each source in each channel in cm2, shape (n, 20).

        Where it has none of its own, the approximate one of the instrument.
        """
        area, own = np.array([mean_area(name, _EDGES) for name in self.instrument]), self.has_arf
        if own.any():
            arf = self.arf[own]
            area[own] = np.maximum(arf, _LEAST_AREA * arf.mean(axis=1, keepdims=True))
        return area

    @property
    def source_index(self):
        """Index of the source each photon belongs to, shape (n_photons,)."""
        return np.repeat(np.arange(len(self)), self.n_photons)

    @property
    def time_bin(self):
        """Time bin of each photon, shape (n_photons,)."""
        return np.minimum((self.phase * N_TIME_BINS).astype(np.int64), N_TIME_BINS - 1)

    def __getitem__(self, index):
        """Some of the sources: an integer (kept as a set of one), a slice, a mask or indices."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        count = self.n_photons[rows]
        offsets = np.concatenate([[0], np.cumsum(count)])
        take = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], count)
        return Photons(offsets, self.phase[take], self.channel[take], self.start[rows],
                       self.duration[rows], self.exposed[rows], self.background[rows],
                       self.instrument[rows], self.arf[rows])

    def select(self, keep):
        """The same sources with only some photons.

        Parameters
        ----------
        keep : ndarray of bool, shape (n_photons,)

        Returns
        -------
        Photons
            Exposure and background stay as they are.
        """
        inside = np.concatenate([[0], np.cumsum(keep)])
        return self.replace(offsets=inside[self.offsets], phase=self.phase[keep],
                            channel=self.channel[keep])

    def thin(self, fraction, rng):
        """Split the photons at random into two independent Poisson processes.

        Parameters
        ----------
        fraction : float or ndarray, shape (n,)
            Probability with which a photon goes to the first part.
        rng : numpy.random.Generator

        Returns
        -------
        first, second : Photons
            The expected background is shared out in the same proportion.
        """
        fraction = np.broadcast_to(np.asarray(fraction, dtype=np.float32), len(self))
        limit = np.repeat(fraction, self.n_photons)
        chosen = rng.random(len(self.phase), dtype=np.float32) < limit
        first, second = self.select(chosen), self.select(~chosen)
        share = fraction[:, None]
        return (first.replace(background=self.background * share),
                second.replace(background=self.background * (1 - share)))

    def replace(self, **changes):
        """The same photons with some arrays exchanged."""
        return Photons(**({f.name: getattr(self, f.name) for f in fields(self)} | changes))

    def rebinned(self, n_bins):
        """Light curves on a coarser grid.

        Parameters
        ----------
        n_bins : int
            A divisor of 512.

        Returns
        -------
        counts : ndarray of int, shape (n, n_bins)
        exposed : ndarray of float64, shape (n, n_bins)
            Exposed fraction of each bin.

        Raises
        ------
        ValueError
            If 512 bins cannot be shared out evenly.
        """
        if n_bins < 1 or N_TIME_BINS % n_bins:
            raise ValueError(f"n_bins must divide {N_TIME_BINS}, which {n_bins} does not")
        cell = self.source_index * n_bins + self.time_bin // (N_TIME_BINS // n_bins)
        counts = np.bincount(cell, minlength=len(self) * n_bins)
        exposed = self.exposed.reshape(len(self), n_bins, -1).mean(axis=2, dtype=float)
        return counts.reshape(len(self), n_bins), exposed

    def counts(self):
        """Photons per time bin and channel.

        Returns
        -------
        ndarray of float32, shape (n, 512, 20)
        """
        cell = (self.source_index * N_TIME_BINS + self.time_bin) * N_CHANNELS + self.channel
        flat = np.bincount(cell, minlength=len(self) * N_TIME_BINS * N_CHANNELS)
        return flat.astype(np.float32).reshape(len(self), N_TIME_BINS, N_CHANNELS)

    @classmethod
    def concatenate(cls, parts):
        """Join several sets of sources into one."""
        parts = list(parts)
        if not parts:
            raise EventDataError("there is nothing to join: give at least one set of photons")
        if len(parts) == 1:
            return parts[0]
        joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts])
                  for f in fields(cls) if f.name != "offsets"}
        counts = np.concatenate([p.n_photons for p in parts])
        return cls(offsets=np.concatenate([[0], np.cumsum(counts)]), **joined)

    @classmethod
    def from_events(cls, events):
        """Reduce one event list, or a sequence of them, to what the model sees.

        Parameters
        ----------
        events : stingray.EventList or sequence of them
            With GTIs, and energies in keV. A background in the aperture is taken from the
            attributes ``background_soft``, ``background_medium``, ``background_hard`` and
            ``background_top`` (ct/s), where present.

        Returns
        -------
        Photons

        Raises
        ------
        stingray_align.errors.EventDataError
            If a list has no energies, no exposure, or nothing but invalid events.
        """
        from stingray import EventList

        if isinstance(events, EventList):
            events = [events]
        return cls.concatenate(reduce_events(ev)[0] for ev in events)


#: Frames that may lie between the closest of a few photons, how many of their steps are looked at
#: first, and how far they may lie off the comb, in frames.
_FRAMES_APART, _FIRST_STEPS, _OFF_COMB = 400, 20, 0.02


def spread_frames(times, bin_length):
    """Move photons to random places inside the CCD frame they were read out with.

    All photons of a frame carry one time. Where frames are not much shorter than the bins, that is
    a comb which no source made.

    Parameters
    ----------
    times : ndarray of float64, shape (n,)
        Ascending, in s.
    bin_length : float
        Length of a time bin in s.

    Returns
    -------
    ndarray of float64, shape (n,)
        The same times, if they lie on no comb, if its step is below a quarter of a bin, or if
        there are fewer than seven photons, which cannot show one.
    """
    steps = np.diff(times)
    steps = steps[steps > 0]
    if len(steps) < 6:
        return times
    # Not the very shortest step: photons at a GTI's border may lie off the comb. Of few photons no
    # two need be neighbours on it.
    tenth = (len(steps) - 1) // 10
    shortest = np.partition(steps, tenth)[tenth]
    most = int(min(4 * shortest / bin_length, _FRAMES_APART))
    if most == 0:
        return times
    steps, frames = np.sort(steps), shortest / np.arange(1, most + 1)
    possible = _on_comb(steps[:_FIRST_STEPS] / frames[:, None]).mean(axis=1) >= 0.9
    for frame in frames[possible]:
        found = _comb(steps, frame)
        if found is not None:
            inside = np.random.default_rng(0).uniform(-0.5, 0.5, len(times))  # as in every run
            return times + found * inside
    return times


def _on_comb(in_frames):
    return np.abs(in_frames - np.round(in_frames)) < _OFF_COMB


def _comb(steps, frame):
    """The frame near this one of which nearly all ascending steps are multiples, or None."""
    for reach in (8.5, 60, _FRAMES_APART):  # over many, an error of the estimate adds up
        some = steps[:np.searchsorted(steps, reach * frame)]
        if len(some) == 0:
            continue
        fits = _on_comb(some / frame)
        if fits.mean() < 0.9:
            return None
        some = some[fits]
        number = np.round(some / frame)
        frame = (some @ number) / (number @ number)
    return frame if len(some) >= 6 else None


#: Counts of a background that is known to be zero: zeros say that it is not known.
_KNOWN = 1e-6
#: Probability of no more counts than there are, below which a background cannot be right.
_TOO_FEW = 1e-6


def reduce_events(events):
    """One event list as `Photons`, and the good time intervals that were used.

    Parameters
    ----------
    events : stingray.EventList

    Returns
    -------
    photons : Photons
        A set of one source.
    gti : ndarray of float64, shape (m, 2)
        Absolute seconds.
    """
    from .events import background_rates, instrument_of, prepare

    time, energy, gti = prepare(events)
    start, stop = gti[0, 0], gti[-1, 1]
    duration = stop - start
    # On the finest grid a comb of frames would pass for a pulsation.
    time = np.clip(spread_frames(time, duration / N_FINE_BINS), start, stop)
    channel = to_channels(energy)
    in_band = channel >= 0
    phase = ((time[in_band] - start) / duration).astype(np.float32)
    exposed = exposure_in_bins(gti - start, np.linspace(0, duration, N_TIME_BINS + 1))
    exposure = exposed.sum()
    if len(energy) and not in_band.any():
        warnings.warn(f"none of the {len(energy)} events lies in 0.5-8 keV; the source counts as "
                      f"one without photons. Their energies are {energy.min():.4g} to "
                      f"{energy.max():.4g} keV: check the unit", EventDataWarning, stacklevel=3)
    rates = background_rates(events)
    background = np.zeros(len(BACKGROUND_ATTRIBUTES)) if rates is None else rates * exposure
    if pdtr(in_band.sum(), background.sum()) < _TOO_FEW:
        warnings.warn(f"{background.sum():.0f} background counts are expected, but there are only "
                      f"{in_band.sum()} photons in 0.5-8 keV: check background_soft, ..., which "
                      "are rates in counts per second", EventDataWarning, stacklevel=3)
    if rates is not None and not background.any():
        background[:] = _KNOWN
    instrument = instrument_of(events) or ""
    photons = Photons(
        offsets=np.array([0, in_band.sum()]), phase=phase,
        channel=channel[in_band].astype(np.uint8), start=np.array([start], dtype=float),
        duration=np.array([duration], dtype=float),
        exposed=(exposed * (N_TIME_BINS / duration)).astype(np.float32)[None],
        background=background.astype(np.float32)[None],
        instrument=np.array([instrument]), arf=_own_area(events, instrument, start))
    return photons, gti


def _own_area(events, instrument, start):
    """Effective area of this observation, shape (1, 20), or None for that of the instrument."""
    from ._event_files import epoch_of, one_name

    filename = getattr(events, "arf_file", None)
    if filename is not None:
        try:
            area = read_arf(filename, CHANNEL_EDGES, mission=one_name(events.mission),
                            instrument=instrument)
        except FileNotFoundError:
            raise EventDataError(f"there is no ancillary response file {filename}; give another "
                                 "one in events.arf_file, or None") from None
        return area.astype(np.float32)[None]
    year = 2000 + (epoch_of(events, start) - 51544) / 365.25
    # Lists without a reference date seem to be of the nineteenth century.
    if instrument.startswith("ACIS") and 1999 < year < 2100:
        return mean_area(instrument, _EDGES, round(year, 1)).astype(np.float32)[None]
    return None
