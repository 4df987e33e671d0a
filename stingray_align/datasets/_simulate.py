"""One chunk of simulated observations: parameters, spectra, light curves, photons.

A source's photon rate is ``sum_k f_k(t) S_k(E)`` over two components, so that the spectrum can
change with time, plus a steady background. For modulations the components are the soft and the
hard half of one spectrum, for flares and bursts the steady and the event spectrum, for dips the
bare and the covered one. Everything is drawn for a chunk of sources at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from ..instruments import INSTRUMENTS
from ..photons import BAND_EDGES, N_TIME_BINS, exposure_in_bins
from . import _shapes, _spectra
from ._classes import CLASSES
from ._shapes import N_CELLS

CHUNK = 512
_NAMES = _spectra.NAMES
_BACKGROUND_RATE = np.array([INSTRUMENTS[name].background_rate for name in _NAMES])
_MAXIMUM_RATE = np.array([INSTRUMENTS[name].maximum_rate for name in _NAMES])
_FRAME_TIME = np.array([INSTRUMENTS[name].frame_time for name in _NAMES])
DEFAULT_INSTRUMENTS = {"ACIS-I": 0.3, "ACIS-S": 0.3, "EPIC-pn": 0.13, "EPIC-MOS": 0.09,
                       "NICER": 0.09, "XRT": 0.09}
_BAND_OF_BIN = np.stack([_spectra.in_range(a, b)
                         for a, b in zip(BAND_EDGES[:-1], BAND_EDGES[1:])], axis=1)
_ENERGY_05_7 = _spectra.in_range(0.5, 7.0) * _spectra.ENERGY * _spectra.ERG_PER_KEV
_EVENT_KINDS = ("flares", "bursts", "eruptions", "transient")
PERIODIC_KINDS = ("sinusoid", "pulsations", "eclipses", "dips", "heartbeat", "eruptions")

# Every (class, shape) pair is one row of the table of ranges below.
_ROWS = [(entry, shape) for entry in CLASSES.values() for shape in entry.shapes]
_ROWS_OF_CLASS = {name: np.array([i for i, (entry, _) in enumerate(_ROWS) if entry.name == name])
                  for name in CLASSES}
_WEIGHT = np.array([shape.weight for _, shape in _ROWS])
_KIND = np.array([shape.kind for _, shape in _ROWS])
_CLASS_PARAMETERS = ("n_h", "photon_index", "cutoff", "kt", "abundance", "mix", "scattered",
                     "iron_line", "event_kt", "dip_n_h")
_SHAPE_PARAMETERS = ("period", "amplitude", "width", "rise", "decay", "colour", "noise")


def _range_table():
    table = {name: [getattr(entry, name) or (np.nan, np.nan) for entry, _ in _ROWS]
             for name in _CLASS_PARAMETERS}
    table |= {name: [getattr(shape, name) or (np.nan, np.nan) for _, shape in _ROWS]
              for name in _SHAPE_PARAMETERS}
    return {name: np.array(values, dtype=float) for name, values in table.items()}


_RANGES = _range_table()


# ---- what is asked for ------------------------------------------------------------------------
def draw_counts(rng, counts, size):
    """Expected total counts of 0.5-8 keV for each source.

    Parameters
    ----------
    rng : numpy.random.Generator
    counts : {"csc", "bright", "training"} or (low, high)
    size : int

    Returns
    -------
    ndarray, shape (size,)
    """
    if not isinstance(counts, str):
        try:
            low, high = (float(c) for c in counts)
        except (TypeError, ValueError):
            raise ValueError(f"counts={counts!r} is neither a name nor (low, high)") from None
        if not 0 < low <= high:
            raise ValueError(f"counts=({low:g}, {high:g}) must satisfy 0 < low <= high")
        return low * (high / low) ** rng.random(size)
    if counts == "csc":
        return _catalogue_counts(rng.random(size))
    if counts == "bright":
        return draw_counts(rng, (20.0, 3000.0), size)
    if counts == "training":
        which = rng.random(size)
        return np.select([which < 0.40, which < 0.85],
                         [draw_counts(rng, "csc", size), draw_counts(rng, (10.0, 3e3), size)],
                         draw_counts(rng, (1.0, 1e5), size))
    raise ValueError(f"counts={counts!r} is not known: use 'csc', 'bright', 'training' or "
                     "(low, high)")


def _catalogue_counts(u):
    """Quantile function with 5/50/95 % at 13/41/297, a Pareto tail above and an end at 1e5."""
    z = ndtri(np.clip(u, 1e-9, 1 - 1e-9))
    edge = ndtri(0.95)
    body = 41.0 * np.exp(z * np.where(z < 0, np.log(41 / 13), np.log(297 / 41)) / edge)
    slope = 1.1
    remaining = np.clip((1.0 - u) / 0.05, 0.0, 1.0)
    end = (1e5 / 297.0) ** -slope
    tail = 297.0 * (end + remaining * (1.0 - end)) ** (-1.0 / slope)
    return np.where(u < 0.95, body, tail)


def instrument_weights(instruments):
    """Probability of each instrument of `_spectra.NAMES`."""
    if instruments is None:
        instruments = DEFAULT_INSTRUMENTS
    elif isinstance(instruments, str):
        instruments = {instruments: 1.0}
    elif not isinstance(instruments, dict):
        instruments = dict.fromkeys(instruments, 1.0)
    unknown = set(instruments) - set(_NAMES)
    if unknown or not instruments:
        raise ValueError(f"unknown instruments {sorted(unknown)}: use {', '.join(_NAMES)}")
    weights = np.array([float(instruments.get(name, 0.0)) for name in _NAMES])
    return weights / weights.sum()


def class_names(classes):
    """The chosen classes as a list, after a check."""
    if classes is None:
        return list(CLASSES)
    chosen = [classes] if isinstance(classes, str) else list(classes)
    unknown = [name for name in chosen if name not in CLASSES]
    if unknown or not chosen:
        raise ValueError(f"unknown classes {unknown}: see datasets.CLASSES for the 28 names")
    return chosen


# ---- result -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Chunk:
    """Simulated observations of some sources; times are in s since each window's start.

    Parameters
    ----------
    truth : dict of ndarray
        Columns of the truth table.
    start : ndarray
        Absolute start of each window.
    gti : list of ndarray, shape (m, 2)
        Good time intervals of each source.
    exposure : ndarray, shape (n, N_CELLS)
        Exposed seconds of each cell.
    level : ndarray, shape (2, n, N_CELLS)
        ``f_k(t)``, of mean count rate scale one.
    spectrum : ndarray, shape (3, n, N_BINS)
        Counts per s and bin of the two components at ``f_k = 1``, and of the background.
    background : ndarray, shape (n, 4)
        Estimated background counts per band of `BAND_EDGES`, zero where none is given.
    owner, time, energy : ndarray
        The photons, sorted by source and time; energies in keV.
    """

    truth: dict
    start: np.ndarray
    gti: list
    exposure: np.ndarray
    level: np.ndarray
    spectrum: np.ndarray
    background: np.ndarray
    owner: np.ndarray
    time: np.ndarray
    energy: np.ndarray

    def band_rates(self):
        """Count rate of the components and the background in the four bands, shape (3, n, 4)."""
        return self.spectrum @ _BAND_OF_BIN

    def rate(self):
        """True rate including background, shape (n, N_CELLS, 3) in ct/s."""
        bands = self.band_rates()[:, :, :3]
        rate = np.einsum("knt,knb->ntb", self.level, bands[:2], optimize=True)
        return rate + bands[2][:, None]

    def exposed(self):
        """Exposed fraction of each time bin of `Photons`, shape (n, 512)."""
        width = self.truth["duration"] / N_TIME_BINS
        seconds = self.exposure.reshape(len(width), N_TIME_BINS, -1).sum(axis=2)
        return np.minimum(seconds / width[:, None], 1.0).astype(np.float32)


def simulate(rng, size, counts, classes, weights, *, photons=True):
    """Simulate ``size`` sources.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
    counts : str or tuple
        See `draw_counts`.
    classes : list of str
    weights : ndarray
        Probability of each instrument.
    photons : bool
        False leaves the photons out, for when only the true rates are wanted again.

    Returns
    -------
    Chunk
    """
    row = _draw_rows(rng, size, classes)
    par = {name: _draw_range(rng, bounds[row]) for name, bounds in _RANGES.items()}
    par["amplitude"] = np.minimum(par["amplitude"], _amplitude_limit(row))
    instrument = rng.choice(len(_NAMES), size, p=weights)
    total = draw_counts(rng, counts, size)
    only_background = np.array([not entry.spectrum for entry, _ in _ROWS])[row]
    ceiling = np.where(only_background, 50.0 * _BACKGROUND_RATE[instrument],
                       _MAXIMUM_RATE[instrument])
    gti = _good_times(rng, instrument, total / ceiling)
    duration = np.array([g[-1, 1] for g in gti])
    exposure = _cell_exposure(gti, duration)
    exposed = np.array([np.sum(g[:, 1] - g[:, 0]) for g in gti])
    # Nowhere does a source aperture hold 10,000 photons of mere background.
    total[only_background] = np.minimum(total, 2.0 * ceiling * exposed)[only_background]

    light = _LightCurves(rng, row, par, duration, exposure)
    steady, second = _photon_spectra(row, par, light.split, light.covered, light.event)
    spectrum = np.stack([_spectra.fold(steady, instrument), _spectra.fold(second, instrument),
                         _background(instrument)])
    spectrum[0, only_background] = spectrum[2, only_background]
    spectrum[1, only_background] = 0.0

    # Brightness is scaled so that source and background make up the expected counts.
    seen = np.stack([np.einsum("nt,nt->n", f, exposure) for f in light.level])
    in_band = spectrum[:, :, _spectra.IN_BAND].sum(axis=2)
    scatter = rng.lognormal(0.0, 0.7, size)
    background = np.minimum(_BACKGROUND_RATE[instrument] * scatter * exposed,
                            total * rng.uniform(0.1, 0.8, size))
    background[only_background] = 0.0
    scale = (total - background) / (seen * in_band[:2]).sum(axis=0)
    spectrum[:2] *= scale[:, None]
    spectrum[2] *= (background / exposed)[:, None]

    truth = _truth(row, par, light, instrument, duration, exposed, seen, spectrum,
                   (steady, second), scale, only_background, total - background, background,
                   exposure)
    expected = np.einsum("kn,knb->nb", np.stack([np.where(only_background, s, 0.0)
                                                 for s in seen] + [exposed]),
                         spectrum @ _BAND_OF_BIN)
    estimate = _annulus(rng, expected)
    start = rng.uniform(1e8, 8e8, size)
    truth["ra"] = rng.uniform(0.0, 360.0, size)
    truth["dec"] = np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, size)))
    if photons:
        owner, time, energy = _draw_photons(rng, light.level, exposure, exposed, spectrum, gti,
                                            duration)
    else:
        owner, time, energy = np.empty(0, int), np.empty(0), np.empty(0, np.float32)
    truth["counts"] = np.bincount(owner[(energy >= 0.5) & (energy < 8.0)], minlength=size)
    return Chunk(truth, start, gti, exposure, light.level, spectrum, estimate, owner, time, energy)


def _draw_rows(rng, size, classes):
    chosen = rng.integers(len(classes), size=size)
    row = np.empty(size, dtype=int)
    for number, name in enumerate(classes):
        mine = np.flatnonzero(chosen == number)
        options = _ROWS_OF_CLASS[name]
        share = _WEIGHT[options] / _WEIGHT[options].sum()
        row[mine] = rng.choice(options, len(mine), p=share)
    return row


def _draw_range(rng, bounds):
    low, high = bounds.T
    u = rng.random(len(bounds))
    positive = low > 0
    with np.errstate(invalid="ignore"):
        ratio = np.where(positive, high / np.where(positive, low, 1.0), 1.0)
    return np.where(positive, low * ratio**u, low + (high - low) * u)


def _amplitude_limit(row):
    """No light curve may reach zero: even in an eclipse some scattered light is left."""
    bounded = np.isin(_KIND[row], ("sinusoid", "pulsations", "eclipses", "dips"))
    return np.where(bounded, 0.995, np.inf)


# ---- exposure ---------------------------------------------------------------------------------
def _good_times(rng, instrument, least):
    """Good time intervals of each source, the first from 0, of about ``least`` s or more."""
    n = len(instrument)
    which = rng.random(n)
    # Mostly 1-200 ks with a median of 30 ks, and a tail at either end.
    duration = np.select([which < 0.07, which < 0.93],
                         [100.0 * 10.0 ** rng.random(n), 1e3 * 200.0 ** (rng.random(n) ** 0.6)],
                         2e5 * 2.5 ** rng.random(n))
    orbits = np.isin(instrument, [_NAMES.index("NICER"), _NAMES.index("XRT")])
    share = np.where(orbits, rng.uniform(0.12, 0.45, n), 0.9)
    # Bright sources are watched long enough (or elsewhere) for the camera to cope.
    duration = np.clip(np.maximum(duration, least / share), 100.0, 5e5)
    xmm = np.isin(instrument, [_NAMES.index("EPIC-pn"), _NAMES.index("EPIC-MOS")])
    screened = xmm & (rng.random(n) < 0.4)
    split = ~xmm & ~orbits & (rng.random(n) < 0.08)
    intervals = []
    for i in range(n):
        if orbits[i]:
            intervals.append(_orbit_intervals(rng, duration[i], share[i]))
        elif screened[i] or split[i]:
            intervals.append(_screened_intervals(rng, duration[i],
                                                 1 if split[i] else 1 + rng.poisson(3.0)))
        else:
            intervals.append(np.array([[0.0, duration[i]]]))
    return intervals


def _orbit_intervals(rng, duration, share, orbit=5700.0):
    """One visit per revolution of a low orbit, of varying length, some left out."""
    if duration < share * orbit:
        return np.array([[0.0, duration]])
    begin = orbit * np.arange(max(1, int(duration // orbit)))
    keep = rng.random(len(begin)) < rng.uniform(0.5, 1.0)
    keep[[0, -1]] = True
    begin = begin[keep]
    length = share * orbit * rng.uniform(0.5, 1.0, len(begin))
    begin = begin + np.where(begin > 0, rng.uniform(0.0, 300.0, len(begin)), 0.0)
    return np.column_stack([begin, begin + length])


def _screened_intervals(rng, duration, gaps):
    """A window with some gaps, as left by the screening of background flares."""
    lost = rng.uniform(0.05, 0.5)
    good = rng.dirichlet(np.ones(gaps + 1)) * (1.0 - lost)
    bad = rng.dirichlet(np.ones(gaps)) * lost
    pieces = np.empty(2 * gaps + 1)
    pieces[0::2], pieces[1::2] = good, bad
    ends = np.concatenate([[0.0], np.cumsum(pieces)]) * duration
    return np.column_stack([ends[0::2], ends[1::2]])


def _cell_exposure(gti, duration):
    exposure = np.repeat((duration / N_CELLS).astype(np.float32)[:, None], N_CELLS, axis=1)
    for i, intervals in enumerate(gti):
        if len(intervals) > 1:
            exposure[i] = exposure_in_bins(intervals,
                                           np.linspace(0.0, duration[i], N_CELLS + 1))
    return exposure


# ---- light curves -----------------------------------------------------------------------------
class _LightCurves:
    """Both components' light curves, and what was seen to happen during the exposed time.

    ``level[0]`` and ``level[1]`` multiply the first and second spectrum. ``split`` marks sources
    whose components are the soft and hard half of one spectrum, ``covered`` those with dips,
    ``event`` those with events of another spectrum; ``happened`` tells whether an event, eclipse
    or dip lies in the exposed time, and whether a modulation is slower than two cells and moves
    the rate by at least 3 % rms.
    """

    def __init__(self, rng, row, par, duration, exposure):
        self.rng, self.par, self.duration = rng, par, duration
        self.row, self.exposed = row, exposure > 0
        self.kind = _KIND[row]
        n = len(row)
        self.level = np.zeros((2, n, N_CELLS), dtype=np.float32)
        self.level[0] = 1.0
        self.split = np.zeros(n, dtype=bool)
        self.covered = self.kind == "dips"
        self.event = np.zeros(n, dtype=bool)
        self.happened = np.zeros(n, dtype=bool)
        self.timescale = np.full(n, np.nan)
        for kind in np.unique(self.kind):
            rows = np.flatnonzero(self.kind == kind)
            own = {name: values[rows] for name, values in par.items()}
            method = getattr(self, "_" + kind.replace(" ", "_"))
            method(rows, own, duration[rows])
        self._noise_and_colour()

    def _noise_and_colour(self):
        """Aperiodic noise on everything, then the soft and the hard half of modulations."""
        slope = self.rng.uniform(1.0, 2.0, len(self.row))
        noisy = np.flatnonzero(np.isfinite(self.par["noise"]))
        # Red noise has less power on short windows.
        rms = self.par["noise"] * np.clip(self.duration / 5e4, 1e-3, 4.0) ** np.maximum(
            0.5 * (slope - 1.0), 0.2)
        self.rms = np.nan_to_num(rms)
        noise = _shapes.red_noise(self.rng, slope[noisy], rms[noisy])
        self.level[0, noisy] *= noise
        two = (self.level[1, noisy, :1] != 0)[:, 0] | self.event[noisy] | self.covered[noisy]
        self.level[1, noisy[two]] *= noise[two]
        colour = self.par["colour"]
        coloured = np.flatnonzero((np.abs(colour) > 0.02) & ~self.event & ~self.covered)
        self.split[coloured] = True
        curve = self.level[0, coloured]
        swing = (curve - curve.mean(axis=1, keepdims=True)) * colour[coloured, None].astype("f4")
        self.level[0, coloured] = np.maximum(curve - swing, 0.002)
        self.level[1, coloured] = np.maximum(curve + swing, 0.002)

    def _seen(self, rows, condition):
        self.happened[rows] = (condition & self.exposed[rows]).any(axis=1)

    def _modulate(self, rows, curve):
        self.level[0, rows] = curve
        resolved = ~(self.par["period"][rows] < 2 * self.duration[rows] / N_CELLS)
        self.happened[rows] = resolved & (curve.std(axis=1) > 0.03 * curve.mean(axis=1))

    def _phases(self, rows):
        return self.rng.random(len(rows))

    def _phases_with_event(self, rows):
        """Phases that put the middle of a cycle into most windows, if only just.

        Such windows are over-represented on purpose: eclipses, dips and eruptions are what their
        classes are known for.
        """
        reach = np.minimum(self.duration[rows] / self.par["period"][rows], 1.0)
        chosen = 0.5 - self.rng.random(len(rows)) * reach
        return np.where(self.rng.random(len(rows)) < 0.8, chosen, self.rng.random(len(rows)))

    def _clock_noise(self, rows, size):
        return (self.rng.uniform(0.3, 1.0, len(rows)) * size, self.rng.uniform(3, 9, len(rows)),
                self.rng.random(len(rows)))

    def _constant(self, rows, par, duration):
        pass

    def _red_noise(self, rows, par, duration):
        pass            # the noise itself is put on in _noise_and_colour

    def _sinusoid(self, rows, par, duration):
        self._modulate(rows, _shapes.folded(_shapes.sine_profile(par["amplitude"]), par["period"],
                                            duration, self._phases(rows)))

    def _pulse(self, rows, amplitude):
        profile = _shapes.pulse_profile(self.rng, amplitude)
        spot = np.array([_ROWS[r][1].spot for r in self.row[rows]], dtype=bool)
        profile[spot] = _shapes.accretion_spot_profile(self.rng, amplitude[spot])
        return profile, spot

    def _pulsations(self, rows, par, duration):
        profile, _ = self._pulse(rows, par["amplitude"])
        self._modulate(rows, _shapes.folded(profile, par["period"], duration,
                                            self._phases(rows)))

    def _eclipses(self, rows, par, duration):
        rng, n = self.rng, len(rows)
        eclipse = _shapes.eclipse_profile(par["width"], par["amplitude"],
                                          par["width"] * rng.uniform(0.03, 0.3, n))
        underlying, spot = self._pulse(rows, rng.uniform(0.2, 0.9, n))
        underlying[~spot] = 1.0
        phase = self._phases_with_event(rows)
        curve = _shapes.folded(eclipse, par["period"], duration, phase)
        self.level[0, rows] = _shapes.folded(eclipse * underlying, par["period"], duration, phase)
        self.timescale[rows] = par["width"] * par["period"]
        inside = (curve < 0.5) & self.exposed[rows]
        outside = (curve > 0.8) & self.exposed[rows]
        self.happened[rows] = inside.any(axis=1) & outside.any(axis=1)

    def _dips(self, rows, par, duration):
        profile = _shapes.dip_profile(self.rng, par["width"], par["amplitude"])
        covered = np.clip(_shapes.folded(profile, par["period"], duration,
                                         self._phases_with_event(rows),
                                         self._clock_noise(rows, 0.03)), 0.0, 1.0)
        self.level[0, rows] = 1.0 - covered
        self.level[1, rows] = covered
        self.timescale[rows] = par["width"] * par["period"]
        self._seen(rows, covered > 0.3)

    def _heartbeat(self, rows, par, duration):
        profile = _shapes.heartbeat_profile(self.rng, par["amplitude"])
        self._modulate(rows, _shapes.folded(profile, par["period"], duration, self._phases(rows),
                                            self._clock_noise(rows, 0.25)))

    def _eruptions(self, rows, par, duration):
        profile = _shapes.eruption_profile(par["width"])
        curve = _shapes.folded(profile, par["period"], duration, self._phases_with_event(rows),
                               self._clock_noise(rows, 0.1))
        self._add_events(rows, curve * par["amplitude"][:, None].astype(np.float32))
        self.timescale[rows] = par["width"] * par["period"]

    def _flares(self, rows, par, duration):
        mean = np.array([_ROWS[r][1].events for r in self.row[rows]])
        number = 1 + self.rng.poisson(mean * np.minimum(duration / 5e4, 3.0))
        self._event_train(rows, par, duration, number)
        self.timescale[rows] = par["decay"]

    def _bursts(self, rows, par, duration):
        number = np.minimum(self.rng.poisson(duration / par["period"]), 24)
        number = np.maximum(number, self.rng.random(len(rows)) < 0.85)
        self._event_train(rows, par, duration, number)
        self.timescale[rows] = par["decay"]

    def _event_train(self, rows, par, duration, number):
        rng = self.rng
        curve = np.zeros((len(rows), N_CELLS), dtype=np.float32)
        for k in range(int(number.max(initial=0))):
            more = np.flatnonzero(number > k)
            size = par["amplitude"][more] * (1.0 if k == 0 else rng.uniform(0.2, 1.0, len(more)))
            early = np.minimum(0.5 * par["decay"][more], 0.2 * duration[more])
            begin = rng.uniform(-early, 0.95 * duration[more])
            spread = rng.uniform(0.7, 1.4, (2, len(more)))
            curve[more] += size[:, None].astype(np.float32) * _shapes.flare(
                duration[more], begin, par["rise"][more] * spread[0],
                par["decay"][more] * spread[1])
        self._add_events(rows, curve)

    def _add_events(self, rows, curve):
        """Events go to the second component where the class gives them a spectrum of their own."""
        own = np.array([bool(_ROWS[r][0].event_spectrum) for r in self.row[rows]], dtype=bool)
        self.event[rows[own]] = True
        self.level[1, rows[own]] = curve[own]
        self.level[0, rows[~own]] += curve[~own]
        self._seen(rows, curve > 1.0)

    def _transient(self, rows, par, duration):
        begin = self.rng.uniform(0.0, 0.8, len(rows)) * duration
        slope = self.rng.uniform(1.2, 3.0, len(rows))
        curve = _shapes.plateau(duration, begin, par["decay"], slope)
        self._add_events(rows, curve * par["amplitude"][:, None].astype(np.float32))
        self.timescale[rows] = par["decay"]

    def _trend(self, rows, par, duration):
        sign = np.where(self.rng.random(len(rows)) < 0.3, 1.0, -1.0)
        self._modulate(rows, _shapes.trend(duration, par["decay"], sign))
        self.timescale[rows] = par["decay"]

    def _state_change(self, rows, par, duration):
        time = self.rng.uniform(0.1, 0.9, len(rows)) * duration
        self._modulate(rows, _shapes.state_change(duration, time, par["decay"],
                                                  par["amplitude"]))
        self.timescale[rows] = par["decay"]


# ---- spectra ----------------------------------------------------------------------------------
_EMISSION = {
    "power law": lambda par: _spectra.power_law(
        par["photon_index"], np.where(np.isfinite(par["cutoff"]), par["cutoff"], np.inf)),
    "blackbody": lambda par: _spectra.blackbody(par["kt"]),
    "disc": lambda par: _spectra.disc_blackbody(par["kt"]),
    "plasma": lambda par: _spectra.plasma(par["kt"], par["abundance"]),
}
_PARTS = [entry.spectrum.split(" + ") + [""] for entry, _ in _ROWS]
_FIRST = np.array([parts[0] for parts in _PARTS])
_SECOND = np.array([parts[1] for parts in _PARTS])
_EVENT = np.array([entry.event_spectrum for entry, _ in _ROWS])


def _emission(names, par):
    """Spectrum of one photon in 0.5-8 keV for each source's model; zero for no model."""
    photons = np.zeros((len(names), _spectra.N_BINS))
    for name in np.unique(names[names != ""]):
        rows = names == name
        photons[rows] = _EMISSION[name]({key: values[rows] for key, values in par.items()})
    return photons


def _photon_spectra(row, par, split, covered, event):
    """Absorbed photon spectra of the two components, shape (n, N_BINS) each."""
    gas = _spectra.transmission(np.nan_to_num(par["n_h"]))
    bare = _emission(_FIRST[row], par)
    mixed = np.flatnonzero(_SECOND[row] != "")
    other = _emission(_SECOND[row[mixed]], {key: values[mixed] for key, values in par.items()})
    bare[mixed] += par["mix"][mixed, None] * other
    steady = bare * gas
    leak = np.flatnonzero(np.isfinite(par["scattered"]))
    # Light that reaches us around the gas sees only a thin Galactic column.
    steady[leak] += (par["scattered"][leak, None] * bare[leak]
                     * _spectra.transmission(np.full(len(leak), 0.03)))
    line = np.flatnonzero(np.isfinite(par["iron_line"]))
    at_line = np.searchsorted(_spectra.EDGES, 6.4) - 1
    density = steady[line, at_line] / _spectra.WIDTH[at_line]
    steady[line] += (par["iron_line"][line] * density)[:, None] * _spectra.iron_line()

    second = np.zeros_like(steady)
    rows = np.flatnonzero(event)
    hot = {key: values[rows] for key, values in par.items()}
    hot["kt"] = hot["event_kt"]
    second[rows] = _emission(_EVENT[row[rows]], hot) * gas[rows]
    rows = np.flatnonzero(covered)
    second[rows] = steady[rows] * (_spectra.transmission(par["dip_n_h"][rows]) + 0.01)
    hard = 1.0 / (1.0 + (2.0 / _spectra.ENERGY) ** 3)
    rows = np.flatnonzero(split)
    second[rows] = steady[rows] * hard
    steady[rows] *= 1.0 - hard
    return steady, second


def _background(instrument):
    table = np.stack([_spectra.background_spectrum(name) for name in _NAMES])
    return table[instrument]


# ---- truth ------------------------------------------------------------------------------------
_SOFT = _spectra.in_range(0.5, 2.0)
_HARD = _spectra.in_range(2.0, 7.0)


def _truth(row, par, light, instrument, duration, exposed, seen, spectrum, photons, scale,
           only_background, source, background, exposure):
    kind = light.kind.copy()
    counts = np.einsum("kn,knb->nb", seen, spectrum[:2])
    soft, hard = counts @ _SOFT, counts @ _HARD
    energy = sum(s * (p @ _ENERGY_05_7) for s, p in zip(seen, photons))
    variability = _fractional_variability(light.level, spectrum, exposure, exposed)
    has_power_law = (_FIRST[row] == "power law") | (_SECOND[row] == "power law")
    period = np.where(np.isin(kind, PERIODIC_KINDS), par["period"], np.nan)
    hardness = np.where(only_background, np.nan, (hard - soft) / (hard + soft))

    # The label says what the light curve shows in this window, not what the class could do.
    missed = ~np.isin(kind, ("constant", "red noise")) & ~light.happened
    # What an event just outside the window leaves inside it keeps the event's name.
    kind[missed & (light.rms > 0.03)] = "red noise"
    kind[variability < 0.03] = "constant"
    return {
        "class": np.array([entry.name for entry, _ in _ROWS])[row],
        "instrument": np.array(_NAMES)[instrument],
        "exposure": exposed, "duration": duration,
        "source_counts": np.where(only_background, 0.0, source),
        "background_counts": np.where(only_background, source, background),
        "flux": np.where(only_background, np.nan, scale * energy / exposed),
        "photon_index": np.where(has_power_law, par["photon_index"], np.nan),
        "kT": par["kt"], "n_h": par["n_h"], "hardness": hardness,
        "fractional_variability": variability, "period": period,
        "timescale": np.where(missed, np.nan, light.timescale), "time_shape": kind,
        "periodic": np.nan_to_num(period, nan=np.inf) <= duration / 2,
        "eclipsing": (kind == "eclipses") & light.happened,
        "flaring": np.isin(kind, _EVENT_KINDS) & light.happened & (variability > 0.1),
        "soft": np.nan_to_num(hardness, nan=0.0) < -0.75,
        "absorbed": np.nan_to_num(par["n_h"]) >= 1.0,
        "variable": variability > 0.1,
    }


def _fractional_variability(level, spectrum, exposure, exposed):
    in_band = spectrum[:2][:, :, _spectra.IN_BAND].sum(axis=2)
    rate = level[0] * in_band[0][:, None] + level[1] * in_band[1][:, None]
    mean = np.einsum("nt,nt->n", rate, exposure) / exposed
    rate /= mean[:, None].astype(np.float32)
    rate -= 1.0
    return np.sqrt(np.einsum("nt,nt,nt->n", rate, rate, exposure) / exposed)


def _annulus(rng, expected):
    """Background counts per band as estimated from a region 10 to 16 times larger.

    Three sources in ten have no estimate: real event lists often come without one.
    """
    larger = rng.uniform(10.0, 16.0, (len(expected), 1))
    estimate = rng.poisson(expected * larger) / larger
    return np.where(rng.random((len(expected), 1)) < 0.3, 0.0, estimate).astype(np.float32)


# ---- photons ----------------------------------------------------------------------------------
def _draw_photons(rng, level, exposure, exposed, spectrum, gti, duration):
    """Photons of 0.3-10 keV of every source, sorted by source and time."""
    total = spectrum.sum(axis=2, dtype=float)
    owner, time, energy = [], [], []
    for k in range(3):
        rows = np.flatnonzero(total[k] > 0)
        curves = level[k, rows] if k < 2 else np.ones((len(rows), 1), dtype=np.float32)
        steady = curves.max(axis=1) == curves.min(axis=1)
        gathered = np.cumsum(curves[~steady] * exposure[rows[~steady]], axis=1, dtype=float)
        mean = curves[:, 0] * exposed[rows]
        if len(gathered):
            mean[~steady] = gathered[:, -1]
        mean *= total[k, rows]
        number = rng.poisson(mean)
        curve = np.cumsum(~steady) - 1          # row of ``gathered``
        spectra = spectrum[k, rows].cumsum(axis=1, dtype=float)
        for j in np.flatnonzero(number):
            i = rows[j]
            u = np.sort(rng.random(number[j]))
            if steady[j]:
                time.append(_clock_time(u * exposed[i], gti[i]))
            else:
                time.append(_times(u, rng.random(number[j]), gathered[curve[j]], exposure[i],
                                   gti[i], duration[i]))
            energy.append(_energies(rng.random((2, number[j])), spectra[j]))
        owner.append(np.repeat(rows, number))
    if not time:
        return np.empty(0, dtype=int), np.empty(0), np.empty(0, dtype=np.float32)
    owner, time, energy = np.concatenate(owner), np.concatenate(time), np.concatenate(energy)
    order = np.argsort(owner + np.minimum(time / duration[owner], 1.0 - 1e-9), kind="stable")
    return owner[order], time[order], energy[order]


def _times(u, inside, gathered, exposure, gti, duration):
    """Times from the cumulative light curve, uniform in the exposed part of a cell."""
    cell = np.minimum(np.searchsorted(gathered, u * gathered[-1], side="right"), N_CELLS - 1)
    if len(gti) == 1:
        return (cell + inside) * (duration / N_CELLS)
    good = np.concatenate([[0.0], np.cumsum(exposure, dtype=float)])
    good *= np.sum(gti[:, 1] - gti[:, 0]) / good[-1]
    return _clock_time(good[cell] + inside * (good[cell + 1] - good[cell]), gti)


def _clock_time(good, gti):
    """Time at which a given exposed time has passed, always inside an interval."""
    if len(gti) == 1:
        return good
    length = gti[:, 1] - gti[:, 0]
    ends = np.cumsum(length)
    which = np.minimum(np.searchsorted(ends, good, side="right"), len(ends) - 1)
    into = np.clip(good - (ends[which] - length[which]), 0.0, length[which])
    return np.clip(gti[which, 0] + into, gti[which, 0], gti[which, 1])


def _energies(u, cumulative):
    """Energies (keV) by inverting a cumulative spectrum, uniform inside its narrow bins."""
    position = np.searchsorted(cumulative, u[0] * cumulative[-1], side="right")
    position = np.minimum(position, _spectra.N_BINS - 1)
    energy = _spectra.EDGES[position] + u[1] * _spectra.WIDTH[position]
    return np.minimum(energy, 9.9999).astype(np.float32)
