"""Simulated sources with known truth: what every simulated population offers."""

from __future__ import annotations

import numpy as np

from ..photons import (BACKGROUND_ATTRIBUTES, BAND_EDGES, BAND_OF_CHANNEL, N_TIME_BINS, Photons,
                       to_channels)
from . import _simulate
from ._shapes import N_CELLS

__all__ = ["SimulatedSources"]

_UNITS = {"exposure": "s", "duration": "s", "source_counts": "ct", "background_counts": "ct",
          "counts": "ct", "flux": "erg / (s cm2)", "kT": "keV", "n_h": "1e22 / cm2",
          "period": "s", "timescale": "s", "ra": "deg", "dec": "deg"}

#: Columns of truth tables.
COLUMNS = {
    "name": "simulated source; its number is its place in the population",
    "class": "physical class",
    "instrument": "instrument whose approximate area and response were used",
    "exposure": "sum of the good time intervals",
    "duration": "from the first interval's start to the last one's stop",
    "counts": "photons of 0.5-8 keV that were drawn",
    "source_counts": "photons of 0.5-8 keV expected from the source",
    "background_counts": "photons of 0.5-8 keV expected from the background",
    "flux": "mean absorbed flux of 0.5-7 keV in the exposed time",
    "photon_index": "photon index of the power law, where there is one",
    "kT": "temperature of the (first) thermal component, where there is one",
    "n_h": "column of neutral gas in front of the source",
    "hardness": "(H - S) / (H + S) of expected source counts, S = 0.5-2 keV, H = 2-7 keV",
    "fractional_variability": "rms over mean of the true source rate in the exposed time",
    "period": "period or mean recurrence; may be too short or too long to show",
    "timescale": "typical decay time of flares and bursts (of each, 0.7 to 1.4 times that), length "
                 "of eclipses and dips, e-folding time of trends",
    "time_shape": "what the true light curve shows in this window",
    "periodic": "at least two periods fit into the window",
    "eclipsing": "an eclipse and time outside it lie in the exposed time",
    "flaring": "an event at least doubles the quiet rate in the exposed time, and is not all "
               "there is to see of the source (fractional variability above 0.1)",
    "soft": "hardness below -0.75",
    "absorbed": "column of at least 1e22 cm-2",
    "variable": "fractional variability above 0.1",
    "pileup": "more than 0.1 photons per frame in the mean: real data would be piled up",
    "ra": "right ascension, drawn at random", "dec": "declination, drawn at random",
}


class Plan:
    """Which random stream makes which sources: chunks of fixed size with spawned seeds.

    Parameters
    ----------
    n, seed : int
    simulate : callable
        Makes a chunk: ``simulate(rng, size, photons=...)``.
    """

    def __init__(self, n, seed, simulate):
        if int(n) != n or n < 1:
            raise ValueError(f"n={n!r}: give the number of sources, at least 1")
        self.n, self._make = int(n), simulate
        self.n_chunks = -(-self.n // _simulate.CHUNK)
        self.seeds = np.random.SeedSequence(seed).spawn(self.n_chunks)

    def chunk(self, number, *, photons=True):
        """One chunk; with ``photons=False`` only what is needed for the true rates."""
        size = min(_simulate.CHUNK, self.n - number * _simulate.CHUNK)
        # A fresh generator from the same seed: chunks can be made again in any order.
        rng = np.random.Generator(np.random.PCG64(self.seeds[number]))
        return self._make(rng, size, photons=photons)


def _pack(chunk):
    """A chunk as the model sees it."""
    duration = chunk.truth["duration"]
    channel = to_channels(chunk.energy)
    keep = channel >= 0
    owner = chunk.owner[keep]
    number = np.bincount(owner, minlength=len(duration))
    return Photons(
        offsets=np.concatenate([[0], np.cumsum(number)]),
        phase=(chunk.time[keep] / duration[owner]).astype(np.float32),
        channel=channel[keep].astype(np.uint8), start=chunk.start, duration=duration,
        exposed=chunk.exposed(), background=chunk.background,
        instrument=chunk.truth["instrument"])


class SimulatedSources:
    """Simulated observations of sources whose truth is known.

    Made by the functions of `stingray_align.datasets`. The rates are made again from the seed when
    they are asked for, 512 sources at a time: ask for sources in order.

    Parameters
    ----------
    plan : Plan
        How to make the sources.
    names : str
        Begin of all sources' names.
    columns : dict of str
        Columns of the truth table, with their descriptions.

    Attributes
    ----------
    truth : astropy.table.QTable
        One row per source; the column descriptions define each quantity.
    photons : Photons
        What the model sees of all sources.
    band_edges : tuple
        Edges (keV) of the three bands of `true_rate`.
    """

    band_edges = BAND_EDGES[:4]

    def __init__(self, plan, names, columns):
        from astropy.table import QTable

        self._plan, self._rates, self._event_lists = plan, {}, None
        chunks = [plan.chunk(number) for number in range(plan.n_chunks)]
        self.photons = Photons.concatenate(_pack(chunk) for chunk in chunks)
        self._gti = [gti for chunk in chunks for gti in chunk.gti]
        self._time = np.concatenate([chunk.time for chunk in chunks])
        self._energy = np.concatenate([chunk.energy for chunk in chunks])
        number = np.concatenate([np.bincount(chunk.owner, minlength=len(chunk.start))
                                 for chunk in chunks])
        self._offsets = np.concatenate([[0], np.cumsum(number)])

        values = {name: np.concatenate([chunk.truth[name] for chunk in chunks])
                  for name in chunks[0].truth}
        values["name"] = np.array([f"{names}-{i}" for i in range(len(self))])
        frame = _simulate.FRAME_TIME[[_simulate.NAMES.index(i) for i in values["instrument"]]]
        values["pileup"] = values["counts"] / values["exposure"] * frame > 0.1
        self.truth = QTable({name: values[name] for name in columns}, descriptions=columns,
                            units={name: _UNITS[name] for name in columns if name in _UNITS})
        self.truth.meta["origin"] = "simulated by stingray-align; positions are random"

    def __len__(self):
        return self._plan.n

    def __repr__(self):
        return (f"<{type(self).__name__}: {len(self)} simulated sources, "
                f"{len(self.photons.phase)} photons>")

    @property
    def event_lists(self):
        """List of `stingray_align.EventList` (0.3-10 keV), made when first asked for.

        Times are absolute seconds, rounded to the camera's frames. Where a background estimate
        exists it is in the attributes ``background_soft`` … ``background_top`` (ct/s).
        """
        if self._event_lists is None:
            self._event_lists = [self._event_list(i) for i in range(len(self))]
        return self._event_lists

    def _event_list(self, i):
        from ..events import EventList
        from ..instruments import INSTRUMENTS

        mine = slice(self._offsets[i], self._offsets[i + 1])
        name = str(self.truth["instrument"][i])
        instrument = INSTRUMENTS[name]
        start = self.photons.start[i]
        time = _to_frames(self._time[mine], instrument.frame_time, self._gti[i])
        events = EventList(time=start + time, energy=self._energy[mine].astype(float),
                           gti=start + self._gti[i], mission=instrument.mission, instr=name,
                           notes="simulated")
        if self.photons.background[i].any():
            rates = self.photons.background[i] / self.truth["exposure"][i].value
            for attribute, rate in zip(BACKGROUND_ATTRIBUTES, rates):
                setattr(events, attribute, float(rate))
        return events

    # ---- the true rate ----------------------------------------------------------------------
    def _rate_grid(self, number):
        """Rates of one chunk, shape (size, N_CELLS, 3), and its cell exposure; made again."""
        if number not in self._rates:
            if len(self._rates) >= 4:       # 4 chunks, or 2,048 sources, are 130 MB
                self._rates.pop(next(iter(self._rates)))
            chunk = self._plan.chunk(number, photons=False)
            self._rates[number] = (chunk.rate().astype(np.float32), chunk.exposure)
        return self._rates[number]

    def true_rate(self, i, times):
        """True count rate of a source with its background.

        Parameters
        ----------
        i : int
            Source.
        times : array_like, shape (n_times,)
            Absolute times in s, as in the event list.

        Returns
        -------
        ndarray, shape (n_times, 3)
            Rate in ct/s in 0.5-1.2, 1.2-2 and 2-7 keV; zero outside the window. It is the mean
            over 1/4096 of the window, and goes on during gaps.
        """
        grid = self._rate_grid(i // _simulate.CHUNK)[0][i % _simulate.CHUNK]
        position = (np.asarray(times, dtype=float) - self.photons.start[i])
        position = np.floor(position / self.photons.duration[i] * N_CELLS)
        inside = (position >= 0) & (position <= N_CELLS)
        cell = np.clip(position, 0, N_CELLS - 1).astype(int)
        return np.where(inside[..., None], grid[cell], 0.0)

    def true_spectra(self):
        """Expected counts of source and background in the 20 channels of `Photons`.

        Returns
        -------
        ndarray of float64, shape (n, 20)
            Over the exposure.
        """
        chunks = (self._plan.chunk(number, photons=False) for number in range(self._plan.n_chunks))
        return np.concatenate([chunk.in_channels().sum(axis=0) for chunk in chunks])

    def true_log_rates(self, photons=None):
        """Log of the true rate at each photon's time in its own band.

        Parameters
        ----------
        photons : Photons or None
            Photons of all sources in order, for example one part of a random split of
            ``photons``; by default all of them.

        Returns
        -------
        ndarray of float32, shape (n_photons,)
            In log ct/s; NaN for photons above 7 keV, which are in no evaluation band.
        """
        photons = self.photons if photons is None else photons
        if len(photons) != len(self):
            raise ValueError(f"photons of {len(photons)} sources given for a population of "
                             f"{len(self)}")
        band = BAND_OF_CHANNEL[photons.channel]
        result = np.full(len(band), np.nan, dtype=np.float32)
        owner = photons.source_index
        cell = np.minimum((photons.phase * N_CELLS).astype(int), N_CELLS - 1)
        for number in range(self._plan.n_chunks):
            first = number * _simulate.CHUNK
            last = min(first + _simulate.CHUNK, len(self))
            mine = np.arange(photons.offsets[first], photons.offsets[last])
            mine = mine[band[mine] < 3]
            grid = self._rate_grid(number)[0]
            result[mine] = np.log(grid[owner[mine] - first, cell[mine], band[mine]])
        return result

    def true_counts_grid(self, indices=None):
        """Expected counts in each time bin of `Photons` and each evaluation band.

        Parameters
        ----------
        indices : array_like of int or None
            Sources; by default all.

        Returns
        -------
        ndarray of float32, shape (n, 512, 3)
            Source and background, over the exposed time.
        """
        indices = np.arange(len(self)) if indices is None else np.atleast_1d(indices)
        counts = np.empty((len(indices), N_TIME_BINS, 3), dtype=np.float32)
        for number in np.unique(indices // _simulate.CHUNK):
            rows = np.flatnonzero(indices // _simulate.CHUNK == number)
            grid, exposure = self._rate_grid(number)
            own = indices[rows] - number * _simulate.CHUNK
            cells = grid[own] * exposure[own][:, :, None]
            counts[rows] = cells.reshape(len(rows), N_TIME_BINS, -1, 3).sum(axis=2)
        return counts


def _to_frames(time, frame, gti):
    """Times rounded to the middle of read-out frames that start with each interval."""
    if frame == 0 or not len(time):
        return time
    which = np.clip(np.searchsorted(gti[:, 0], time, side="right") - 1, 0, len(gti) - 1)
    begin, stop = gti[which].T
    middle = begin + (np.floor((time - begin) / frame) + 0.5) * frame
    # The last frame of an interval may be cut short by its end.
    return np.where(middle < stop, middle, 0.5 * (middle - 0.5 * frame + stop))
