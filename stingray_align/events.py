"""Event lists: Stingray's, made to come out of any file in one agreed state.

`EventList` is `stingray.EventList` with a reader that picks one source out of a field, and with
``embed`` and ``spectrum``.  After `EventList.read`, whatever the mission: times are absolute
native float64 seconds in ascending order, energies are float64 keV, the good time intervals
(GTIs) are those of the detector on which the source lies, and every event lies inside them.

`prepare` is the gate every event list passes on its way to the model, stock or subclassed: it
returns clean arrays or says what is wrong with the list.
"""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path

import numpy as np
import stingray
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from stingray.gti import cross_two_gtis, merge_gtis

from ._event_files import (
    calibrate, epoch_of, guess_format, in_unit, one_name, read_fits, read_table,
)
from ._gti import as_floats, in_gti, length, tidy_gti, warn_dropped
from .errors import EventDataError, EventDataWarning
from .instruments import read_arf
from .photons import BACKGROUND_ATTRIBUTES, CHANNEL_EDGES

__all__ = ["EventList", "enable", "prepare", "instrument_of", "background_rates"]


class EventList(stingray.EventList):
    """Photons of one source, with `read`, `embed` and `spectrum`.

    A subclass of `stingray.EventList`: the constructor, the attributes and all methods are
    Stingray's.  Masking, slicing, sorting, joining and ECSV round trips keep the class.

    Attributes
    ----------
    background_soft, background_medium, background_hard, background_top : float or None
        Background expected in the source aperture (ct/s) in the bands 0.5-1.2, 1.2-2, 2-7 and
        7-8 keV; None where it is not known.
    arf_file : str or None
        Ancillary response file (ARF) of the observation. The effective area in there takes the
        place of the instrument's usual one, which the model would assume.

    Examples
    --------
    >>> import stingray_align as sa
    >>> events = sa.EventList([1.0, 2.0, 5.0], energy=[0.7, 1.5, 3.0], gti=[[0, 10]])
    >>> len(events), float(events.exposure)
    (3, 10.0)
    >>> type(events.apply_mask(events.energy > 1)).__module__
    'stingray_align.events'
    """

    background_soft = None
    background_medium = None
    background_hard = None
    background_top = None
    arf_file = None

    def __len__(self):
        # Stock lists without events claim a length of one.
        return self.n

    @classmethod
    def read(
        cls,
        filename,
        fmt=None,
        *,
        position=None,
        radius=None,
        region=None,
        background=None,
        rmf_file=None,
        arf_file=None,
        **kwargs,
    ):
        """Read an event list from any file that Stingray reads.

        Parameters
        ----------
        filename : str or `~pathlib.Path`
            A FITS event file (plain or gzipped), or a table written by ``write``. Units of time
            and energy, where given, are converted; what is masked counts as NaN.
        fmt : str, optional
            ``"hea"`` or ``"ogip"`` for FITS event files, else a format of `astropy.table.Table`
            (``"ascii.ecsv"``, ``"hdf5"``, ...).  Found from the contents by default.
        position : `~astropy.coordinates.SkyCoord` or str, optional
            Centre of the source; a string holds right ascension and declination, in degrees
            (``"148.959 69.680"``), sexagesimal (``"09:55:50.2 +69:40:47"``) or as in the name of
            a source (``"J095550.2+694047"``), ICRS.
        radius : `~astropy.units.Quantity`, optional
            Radius of the circular source aperture; a plain number is in arcsec.
        region : str, `~pathlib.Path` or `regions.Region`, optional
            Source aperture from a DS9 or CIAO region file, in place of position and radius.
        background : optional
            ``"auto"`` for an annulus around the aperture, ``(inner, outer)`` radii, or a region
            (as above).  Its count rate, scaled to the aperture, is stored in the four
            ``background_*`` attributes; the events stay.  See
            `stingray_align.regions.select_source`.
        rmf_file : str, optional
            Response matrix that converts PI channels to energies.
        arf_file : str or `~pathlib.Path`, optional
            Ancillary response file of the source, as ``specextract``, ``arfgen``, ``xrtmkarf`` or
            ``srctool`` make it. It is looked at here, and read again when the list is embedded,
            with an `EventDataWarning` if it is of another instrument.
        **kwargs
            Passed to `stingray.io.FITSTimeseriesReader`: ``gtistring``, ``gti_file``,
            ``force_hduname``, ``additional_columns``.

        Returns
        -------
        EventList
            Sorted times (s), energies (keV; None if the file holds neither energies nor PI
            channels that can be calibrated), GTIs (s).

        Raises
        ------
        EventDataError
            The file is no event file, is truncated, or has no GTIs named ``gtistring``; the
            aperture lies outside the field; or ``arf_file`` is no ARF.
        FileNotFoundError
            There is no such file.

        Warns
        -----
        EventDataWarning
            GTIs are missing (first to last event is used), or events outside them were dropped.

        Notes
        -----
        Where a file has GTIs for each CCD (Chandra ``GTI7``, XMM ``STDGTI05``, ``GTI00006``), the
        ones of the CCDs under the source are used: those with at least a tenth of its events.
        Several that apply are intersected. ``TIMEZERO``, ``MJDREF`` and units of a GTI extension
        or ``gti_file`` count where it states them, else those of the event table.

        Examples
        --------
        >>> from importlib.resources import files
        >>> import stingray_align as sa
        >>> path = files("stingray") / "tests" / "data" / "chandra_test.fits"
        >>> m82 = sa.EventList.read(path, position="09:55:50.2 +69:40:47", radius=3,
        ...                         background="auto")
        >>> len(m82), sa.events.instrument_of(m82)
        (1524, 'ACIS-S')
        """
        filename = os.fspath(filename)
        if arf_file is not None:
            read_arf(arf_file, CHANNEL_EDGES)
        picks = any(value is not None for value in (position, radius, region, background))
        if fmt is None:
            fmt = guess_format(filename)
        if fmt.lower() in ("hea", "ogip", "fits"):
            source = {"position": position, "radius": radius, "region": region,
                      "background": background} if picks else None
            events = read_fits(cls, filename, source, rmf_file, kwargs,
                               plain=fmt.lower() == "fits")
        elif picks:
            raise EventDataError(
                "position, radius, region and background need a FITS event file with sky "
                f"coordinates; {filename} is read as {fmt}"
            )
        else:
            events = read_table(cls, filename, fmt, rmf_file, kwargs)
        if arf_file is not None:
            events.arf_file = os.path.abspath(arf_file)
        return events

    @classmethod
    def from_eventlist(cls, events):
        """Make an `EventList` of a stock `stingray.EventList`.

        Parameters
        ----------
        events : `stingray.EventList`

        Returns
        -------
        EventList
            A copy with all attributes of ``events``, NaN where times, energies or channels are
            masked.

        Examples
        --------
        >>> import stingray, stingray_align as sa
        >>> sa.EventList.from_eventlist(stingray.EventList([1.0, 2.0], gti=[[0, 3]])).n
        2
        """
        if not isinstance(events, stingray.EventList):
            raise EventDataError(f"expected a stingray.EventList, not {type(events).__name__}")
        new = cls()
        new.__dict__.update(copy.deepcopy(events.__dict__))
        for name in ("time", "energy", "pi"):  # joining forgets masks
            if np.ma.is_masked(values := getattr(new, name)):
                setattr(new, name, values.astype(float).filled(np.nan))
        return new

    @classmethod
    def from_astropy_table(cls, ts):
        """As Stingray's, but units and masks count, and a table without rows keeps its metadata."""
        if len(ts) > 0:
            ts = Table(ts, copy=False)
            for name in ts.colnames:
                unit = {"time": "s", "energy": "keV"}.get(name.lower())
                if unit is not None:
                    ts[name] = in_unit(ts[name], name, unit)
                elif name.lower() == "pi" and np.ma.is_masked(ts[name]):
                    ts[name] = ts[name].astype(float).filled(np.nan)
            return super().from_astropy_table(ts)
        new = cls()
        for key, value in ts.meta.items():
            if not isinstance(getattr(cls, key.lower(), None), property) or key.lower() == "gti":
                setattr(new, key.lower(), value)
        return new

    def to_astropy_table(self, no_longdouble=False):
        """As Stingray's, also for a list without events."""
        if self.n > 0:
            return super().to_astropy_table(no_longdouble=no_longdouble)
        return Table({"time": np.empty(0)}, meta=self.get_meta_dict())

    def shift(self, time_shift, inplace=False):
        """As Stingray's, also for a list without events."""
        if self.time is not None:
            return super().shift(time_shift, inplace=inplace)
        new = self if inplace else copy.deepcopy(self)
        if new._gti is not None:
            new.gti = np.asarray(new._gti) + time_shift
        return new

    def write(self, filename, fmt=None):
        """Write the list to a file; ECSV keeps everything.

        Parameters
        ----------
        filename : str or `~pathlib.Path`
        fmt : str, optional
            As in Stingray; ``"ascii.ecsv"`` if the name ends so.
        """
        filename = os.fspath(filename)
        if fmt in ("ascii", "ascii.ecsv") or (fmt is None and filename.endswith(".ecsv")):
            # Stingray's writer probes the format with a file of a made-up name, which fails
            # for short names inside a directory.
            table = self.to_astropy_table(no_longdouble=True)
            part = Path(f"{filename}.part")
            table.write(part, format="ascii.ecsv", overwrite=True)
            part.replace(filename)
        else:
            super().write(filename, fmt=fmt)

    def join(self, other, strategy="infer"):
        """Join with other event lists, stock ones included.

        As Stingray's ``join``, with two additions: exposures without a photon keep their GTIs,
        and the background rates are averaged over the joined exposure (they add up where
        exposures overlap), or are unknown if one of them is. All is counted from the ``mjdref`` of
        the first list with photons. The ancillary response file stays only if it is the same for
        all.

        Parameters
        ----------
        other : `stingray.EventList` or list of them
        strategy : str
            How GTIs are merged, as in Stingray.

        Returns
        -------
        EventList
        """
        others = [other] if isinstance(other, stingray.EventList) else list(other)
        lists = [type(self).from_eventlist(ev) for ev in (self, *others)]
        # Before the GTIs are looked at. Stingray shifts only lists with events, and only where the
        # dates differ by more than half a day.
        mjdref = next((ev for ev in lists if ev.n > 0), lists[0]).mjdref
        lists = [ev if ev.mjdref == mjdref else ev.change_mjdref(mjdref) for ev in lists]
        rates = [background_rates(ev) for ev in lists]
        gtis = [ev._gti for ev in lists]
        arf_files = {ev.arf_file for ev in lists}
        for ev in lists:
            ev.arf_file = None
            for name in BACKGROUND_ATTRIBUTES:
                setattr(ev, name, None)
        full = [ev for ev in lists if ev.n > 0]
        if not full:
            joined = lists[0]
        elif len(full) == 1:
            joined = full[0]
        else:
            joined = super(EventList, full[0]).join(full[1:], strategy=strategy)
        if len(arf_files) == 1:
            joined.arf_file = arf_files.pop()
        elif any(arf_files):
            warnings.warn("the joined lists have different effective areas, of which none is kept; "
                          "set arf_file to the one that is to count", EventDataWarning,
                          stacklevel=2)
        known = [gti for gti in gtis if gti is not None]
        if len(known) == len(lists) and len(known) > 1 and strategy != "none":
            joined.gti = merge_gtis(known, strategy=strategy)
        if all(rate is not None for rate in rates) and len(known) == len(lists):
            total = np.zeros(len(BACKGROUND_ATTRIBUTES))
            for rate, gti in zip(rates, known):
                total += rate * length(cross_two_gtis(gti, joined.gti))
            for name, value in zip(BACKGROUND_ATTRIBUTES, total / length(joined.gti)):
                setattr(joined, name, float(value))
        return joined

    def embed(self, model=None):
        """Embed the photons: the same as ``stingray_align.embed(self, model)``.

        Parameters
        ----------
        model : `~stingray_align.PoissonAutodecoder`, optional
            The bundled model by default.

        Returns
        -------
        `~stingray_align.autodecoder.Embedding`
        """
        return _embed(self, model)

    def spectrum(self, energy_edges=None):
        """Counts spectrum of the photons inside the GTIs.

        Neither background-subtracted nor corrected for the effective area.

        Parameters
        ----------
        energy_edges : array_like or `~astropy.units.Quantity`, shape (n + 1,), optional
            Edges of the bins, in keV if plain numbers; the model's 20 channels from 0.5 to 8 keV
            by default.

        Returns
        -------
        `specutils.Spectrum`
            ct/keV on bin edges in keV, with the Poisson variance (the number of counts) as
            uncertainty.

        Examples
        --------
        >>> import stingray_align as sa
        >>> events = sa.EventList([1.0, 2.0, 5.0], energy=[0.7, 1.5, 1.6], gti=[[0, 10]])
        >>> print(events.spectrum([0.5, 1.0, 2.0]).flux)
        [2. 2.] ct / keV
        """
        from astropy.nddata import VarianceUncertainty
        from specutils import Spectrum

        edges = CHANNEL_EDGES if energy_edges is None else energy_edges
        edges = u.Quantity(edges, u.keV).to_value(u.keV).astype(float)
        if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
            raise ValueError("energy_edges must be at least two increasing energies")
        _, energies, gti = prepare(self)
        counts = np.histogram(energies, edges)[0]
        width = np.diff(edges)
        return Spectrum(
            flux=counts / width * u.ct / u.keV,
            spectral_axis=edges * u.keV,
            bin_specification="edges",
            uncertainty=VarianceUncertainty(counts / width**2 * u.ct**2 / u.keV**2),
            meta={"exposure": length(gti) * u.s},
        )


def _embed(events, model=None):
    from .autodecoder import embed

    return embed(events, model)


def enable():
    """Give the stock `stingray.EventList` the method ``embed``.

    Examples
    --------
    >>> import stingray, stingray_align as sa
    >>> sa.enable()
    >>> callable(stingray.EventList.embed)
    True
    """
    stingray.EventList.embed = _embed


def prepare(events):
    """Return the photons of an event list as the model needs them, or say what is wrong.

    Parameters
    ----------
    events : `stingray.EventList`
        Stock or subclassed; it is not changed.

    Returns
    -------
    times : `~numpy.ndarray`, shape (n,), float64
        Absolute times (s) inside the GTIs, ascending; equal times are kept.
    energies : `~numpy.ndarray`, shape (n,), float64
        Energies (keV) in the same order, of any value: the band is cut elsewhere.
    gti : `~numpy.ndarray`, shape (m, 2), float64
        Disjoint intervals (s), ascending, each longer than zero.

    Raises
    ------
    EventDataError
        Not an event list; no events and no GTIs; no energies and no PI channels that can be
        calibrated; no valid energy; all events at one instant without GTIs; GTIs that are
        malformed, hold no exposure or hold none of the events.

    Warns
    -----
    EventDataWarning
        Times were unsorted; GTIs were missing (first to last event is used); events outside the
        GTIs, or with NaN or negative energies or times that are not finite, were dropped. What is
        masked counts as NaN.

    Examples
    --------
    >>> from stingray_align import EventList
    >>> from stingray_align.events import prepare
    >>> times, energies, gti = prepare(EventList([3.0, 7.0], energy=[1.0, 2.0], gti=[[0, 10]]))
    >>> print(times, energies, gti)
    [3. 7.] [1. 2.] [[ 0. 10.]]

    An exposure without a photon is data:

    >>> len(prepare(EventList(gti=[[0, 1000]]))[0])
    0
    """
    if not isinstance(events, stingray.EventList):
        raise EventDataError(
            f"expected a stingray.EventList, not {type(events).__name__}; read a file with "
            "stingray_align.EventList.read"
        )
    times = np.empty(0) if events.time is None else in_unit(events.time, "time", "s")
    # The property gti fills in first to last event when none are set; the private attribute
    # alone tells whether any are.
    gti = events._gti
    if gti is not None:
        gti = tidy_gti(gti)
        if len(gti) == 0:
            raise EventDataError(
                "the good time intervals hold no exposure; set events.gti to [[start, stop], ...] "
                "in seconds"
            )
    if times.size == 0:
        if gti is None:
            raise EventDataError(
                "the event list has no events and no good time intervals; for an exposure "
                "without photons set events.gti"
            )
        return times, np.empty(0), gti

    energies = _energies(events, times.size)
    good = np.isfinite(times)
    if not good.any():
        raise EventDataError("no event has a finite time")
    if not good.all():
        warn_dropped(~good, "times that are not finite")
    bad_energy = good & ~(np.isfinite(energies) & (energies >= 0))
    if bad_energy.any():
        if bad_energy.sum() == good.sum():
            raise EventDataError(
                f"all {times.size} events have NaN or negative energies; check the energy column "
                "or convert PI channels with events.convert_pi_to_energy(rmf_file)"
            )
        warn_dropped(bad_energy, "NaN or negative energies")
    if not good.all() or bad_energy.any():
        times, energies = times[good & ~bad_energy], energies[good & ~bad_energy]
    if (times[1:] < times[:-1]).any():
        warnings.warn("the event times are not sorted; they were sorted", EventDataWarning,
                      stacklevel=2)
        order = np.argsort(times, kind="stable")
        times, energies = times[order], energies[order]

    if gti is None:
        if times[0] == times[-1]:
            raise EventDataError(
                "all events are at one instant and there are no good time intervals, so the "
                "exposure is unknown; set events.gti to [[start, stop], ...] in seconds"
            )
        warnings.warn(
            "the event list has no good time intervals; first to last event is used, which "
            "misses gaps and any empty time around; set events.gti",
            EventDataWarning,
            stacklevel=2,
        )
        return times, energies, np.array([[times[0], times[-1]]])

    inside = in_gti(times, gti)
    if not inside.any():
        raise EventDataError(
            f"none of the {times.size} events lies inside the good time intervals "
            f"({gti[0, 0]:.15g} to {gti[-1, 1]:.15g} s; events {times[0]:.15g} to "
            f"{times[-1]:.15g} s); check that both count from the same time zero"
        )
    if inside.all():
        return times, energies, gti
    warn_dropped(~inside, "times outside the good time intervals")
    return times[inside], energies[inside], gti


def background_rates(events):
    """Background rates of an event list in the four bands.

    Parameters
    ----------
    events : `stingray.EventList`

    Returns
    -------
    `~numpy.ndarray` or None
        Shape (4,), ct/s in the source aperture in the bands 0.5-1.2, 1.2-2, 2-7, 7-8 keV; None
        unless all four are known.

    Raises
    ------
    EventDataError
        If a rate is negative or infinite.
    TypeError
        If a rate is no number, nor a Quantity in 1/s or ct/s.

    Examples
    --------
    >>> from stingray_align import EventList
    >>> from stingray_align.events import background_rates
    >>> background_rates(EventList(gti=[[0, 1000]])) is None
    True
    """
    rates = np.array([_rate(name, getattr(events, name, None)) for name in BACKGROUND_ATTRIBUTES])
    if (rates < 0).any() or np.isinf(rates).any():
        raise EventDataError(f"the background rates {rates.tolist()} must not be negative or "
                             "infinite; set those that are not known to None")
    return None if np.isnan(rates).any() else rates


def _rate(name, value):
    """A background rate in ct/s, NaN if it is not known."""
    # Joining stock lists leaves tuples, which tell nothing about the joined list.
    if value is None or np.ndim(value):
        return np.nan
    unit = getattr(value, "unit", None)
    per = next((per for per in ("ct/s", "1/s") if unit is None or unit.is_equivalent(per)), None)
    if per is None or np.asarray(value).dtype.kind not in "fiu":
        raise TypeError(f"{name} must be a number in counts per second, or a Quantity in 1/s or "
                        f"ct/s, not {value!r}")
    return float(as_floats(value, per))


def instrument_of(events):
    """Canonical name of the instrument that took the events.

    ACIS-I and ACIS-S are told apart by the CCD that holds most events (0-3 are ACIS-I), else by
    the CCDs that the header says were on.

    Parameters
    ----------
    events : `stingray.EventList`

    Returns
    -------
    str or None
        A key of `stingray_align.instruments.INSTRUMENTS`, or None for an instrument without one.

    Examples
    --------
    >>> from stingray_align import EventList
    >>> from stingray_align.events import instrument_of
    >>> instrument_of(EventList(gti=[[0, 1]], mission="xmm", instr="EMOS2"))
    'EPIC-MOS'
    >>> instrument_of(EventList(gti=[[0, 1]], mission="nustar", instr="FPMA")) is None
    True
    """
    from .instruments import canonical_instrument

    mission, instr = one_name(events.mission), one_name(events.instr)
    detector = None
    if instr is not None and instr.upper() == "ACIS":
        ccds = getattr(events, "detector_id", None)
        if ccds is not None and np.size(ccds) > 0:
            instr = "ACIS-S" if np.mean(np.asarray(ccds) > 3) > 0.5 else "ACIS-I"
        elif isinstance(events.header, str):
            detector = fits.Header.fromstring(events.header).get("DETNAM")
    return canonical_instrument(mission, instr, detector)


def _energies(events, n):
    """Energies in keV (n,) of a list, from PI channels where it has none."""
    energy = getattr(events, "energy", None)
    if energy is None or np.size(energy) == 0:
        pi = getattr(events, "pi", None)
        energy = calibrate(pi, events.mission, events.instr, epoch_of(events, np.min(events.time)))
        if energy is not None:
            energy = np.ma.array(energy, mask=np.ma.getmask(pi))
    if energy is None:
        raise EventDataError(
            "the event list has no energies, and no PI channels of a mission that can be "
            "calibrated; set events.energy in keV, or use events.convert_pi_to_energy(rmf_file)"
        )
    energy = in_unit(energy, "energy", "keV")
    if energy.shape != (n,):
        raise EventDataError(f"{n} times but energies of shape {energy.shape}")
    return energy
