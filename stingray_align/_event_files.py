"""From files to event lists: Stingray's FITS reader with its gaps filled, and tables.

Stingray knows where each mission keeps times, channels and detectors.  Added here: file handles
are closed, GTIs are those of the CCDs under the source, rows are picked before they are converted,
harmless warnings are kept back, and what is no event file is named as such.
"""

from __future__ import annotations

import gzip
import re
import warnings
from collections import Counter
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import stingray
from astropy import units as u
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.table import Table
from astropy.wcs import FITSFixedWarning
from stingray.io import FITSTimeseriesReader, high_precision_keyword_read
from stingray.mission_support import get_rough_conversion_function

from ._gti import as_floats, in_gti, intersect, length, tidy_gti, warn_dropped
from .errors import EventDataError, EventDataWarning
from .instruments import canonical_mission
from .photons import BACKGROUND_ATTRIBUTES, BAND_EDGES

__all__ = ["guess_format", "in_unit", "read_fits", "read_table", "calibrate", "epoch_of",
           "one_name"]

# A CCD takes part in the choice of GTIs when it holds at least this share of the events: a few
# photons that dither across a chip edge must not cost the source its exposure.
_CCD_SHARE = 0.1
# Reference dates that differ by less (s) are the same one, written with fewer digits.
_ROUNDING = 1e-3

#: Widths of PI channels in eV that Stingray's table lacks, by mission and start of the instrument.
#: Suzaku data reduction guide, 4.3 (XIS); ASCA Guest Observer Facility (SIS); ROSAT status report
#: 78 (PSPC); XRISM and Hitomi data reduction guides; AstroSat SXT handbook; eSASS products
#: (eROSITA).
_CHANNELS = {("swift", "XRT"): 10, ("suzaku", "XIS"): 3.65, ("asca", "SIS"): 3.65,
             ("rosat", "PSPC"): 10, ("xrism", "XTEND"): 6, ("xrism", "RESOLVE"): 0.5,
             ("hitomi", "SXI"): 6, ("hitomi", "SXS"): 0.5, ("astrosat", "SXT"): 10,
             ("srg", "TM"): 1, ("srg", "MERGED"): 1, ("erosita", ""): 1}

#: Instruments without energies, beside others of their mission whose channels Stingray converts.
_NO_ENERGIES = {"chandra": "HRC", "xmm": "OM"}


def guess_format(filename):
    """Format of a file from its first bytes, or from its name where it is remote."""
    if "://" in filename:
        return "hea"
    with open(filename, "rb") as stream:
        start = stream.read(16)
    if not start:
        raise EventDataError(f"{filename} is empty; fetch or make the file again")
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(filename, "rb") as stream:
                start = stream.read(16)
        except (OSError, EOFError) as error:
            raise EventDataError(f"{filename} is a damaged gzip file; fetch it again") from error
    if start.startswith(b"SIMPLE  ="):
        return "hea"
    if start.startswith(b"# %ECSV"):
        return "ascii.ecsv"
    if start.startswith(b"\x89HDF"):
        return "hdf5"
    raise EventDataError(
        f"{filename} is neither a FITS event file nor an ECSV or HDF5 table; if it is a table "
        "that astropy reads, name its format with fmt="
    )


def read_table(cls, filename, fmt, rmf_file, kwargs):
    if kwargs:
        raise TypeError(f"{', '.join(kwargs)}: only for FITS event files (fmt='hea')")
    try:
        # Past Stingray's FITS reader, to the reader of tables.
        stock = super(stingray.EventList, cls).read(filename, fmt=fmt)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise EventDataError(f"{filename} could not be read as {fmt}: {error}") from error
    events = cls.from_eventlist(stock)
    if events.time is None and events._gti is None:
        raise EventDataError(
            f"{filename} holds neither events (a column named time) nor good time intervals"
        )
    if rmf_file is not None:
        events.convert_pi_to_energy(rmf_file)
    return _settle(events, filename)


class _Clock(NamedTuple):
    """How a table counts time: in units of ``second`` s, from ``zero`` s after ``mjdref`` (MJD)."""

    second: float = 1.0
    zero: float = 0.0
    mjdref: float | None = None
    middle: float = 0.0  # of the bins of the events, after their times (s)

    def seconds(self, times):
        return np.asarray(times, dtype=float) * self.second + self.zero + self.middle


def _clock(hdu, column, usual):
    """The clock of a column, which counts from the date of ``usual`` and is as that by default."""
    header_unit = _second(hdu.header.get("TIMEUNIT"))
    second = _second(hdu.columns[column].unit) or header_unit or usual.second
    zero = high_precision_keyword_read(hdu.header, "TIMEZERO")
    zero = usual.zero if zero is None else float(zero) * (header_unit or 1)
    mjdref = high_precision_keyword_read(hdu.header, "MJDREF")
    mjdref = usual.mjdref if mjdref is None else float(mjdref)
    if usual.mjdref is not None:
        later = (mjdref - usual.mjdref) * 86400
        if abs(later) > _ROUNDING:
            zero += later
        mjdref = usual.mjdref
    return _Clock(second, zero, mjdref, usual.middle)


def _second(unit):
    """Length in s of a unit of time, as headers write it; None for no such unit."""
    name = str(unit or "").strip()
    if re.fullmatch("s|secs?|seconds?", name, re.IGNORECASE):
        return 1.0
    if re.fullmatch("d(ays?)?", name, re.IGNORECASE):
        return 86400.0
    unit = u.Unit(name, parse_strict="silent")
    if unit.is_equivalent("s"):
        return unit.to("s")
    if name:
        warnings.warn(f"times are in {name!r}, which is no unit of time and is ignored",
                      EventDataWarning)
    return None


def in_unit(values, name, unit):
    """Times or energies as float64 in this unit, NaN where masked."""
    own = getattr(values, "unit", None)
    if own is not None and not own.is_equivalent(unit):
        raise EventDataError(
            f"{name} is in {str(own)!r}, which cannot be converted to {unit}; correct the unit, in "
            f"a FITS file for example with astropy.io.fits.setval(file, 'TUNIT2', value='{unit}', "
            "ext='EVENTS'), 2 being the number of the column"
        )
    return as_floats(values, unit)


class _Reader(FITSTimeseriesReader):
    """Stingray's reader with its GTI search left out: it is done once the source is known."""

    def _initialize_header_events(self, fname, force_hduname=None):
        self.data_hdus = None
        try:
            super()._initialize_header_events(fname, force_hduname=force_hduname)
            hdu = self.data_hdus[self.hduname]
            if self.t_start is None:
                # Stingray needs it for the epoch of the calibration, although TSTART is optional.
                times = hdu.data[self.time_column]
                self.t_start = float(times[0]) if len(times) else 0.0
            if self.energy_column is not None and hdu.columns[self.energy_column].unit:
                unit = u.Unit(hdu.columns[self.energy_column].unit, parse_strict="silent")
                in_unit(u.Quantity(1, unit), self.energy_column, "keV")
            # Stingray takes all times for seconds; they go through it as they stand. The middle of
            # the bins is a part of its zero time.
            header_unit = _second(hdu.header.get("TIMEUNIT")) or 1.0
            middle = float(self.timezero) - float(hdu.header.get("TIMEZERO", 0))
            self.clock = _clock(hdu, self.time_column, _Clock(middle=middle * header_unit))
            self.dt, self.timezero = float(self.dt) * header_unit, 0.0
        except BaseException:
            if self.data_hdus is not None:
                self.data_hdus.close()
            raise

    def _read_gtis(self, gti_file=None, det_numbers=None):
        self._add_meta_attr("gti", None)


def read_fits(cls, filename, source, rmf_file, options, plain=False):
    if options.get("additional_columns") is not None:
        options = options | {"additional_columns": list(options["additional_columns"])}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem = None
        try:
            read = _read_events if _has_mission(filename) and not plain else _read_plain
            events = read(cls, filename, source, rmf_file, **options)
        except FileNotFoundError:
            raise
        except (OSError, EOFError, TypeError, ValueError, KeyError, IndexError) as error:
            problem = error
    said = " ".join(str(w.message) for w in caught)
    truncated = "truncated" in said
    if isinstance(problem, EventDataError) and not truncated:
        raise problem
    # So astropy calls a file that ends inside the header of an extension, or has bytes after the
    # last one, which do no harm.
    if "file is corrupted" in said:
        truncated = truncated or problem is not None or events._gti is None
    if truncated or problem is not None:
        why = "is truncated" if truncated else f"could not be read as an event file: {problem}"
        raise EventDataError(f"{filename} {why}; fetch or make the file again") from problem
    for warning in caught:
        _pass_on(warning, filename)
    return _settle(events, filename)


_HARMLESS = (VerifyWarning, u.UnitsWarning, FITSFixedWarning, ResourceWarning)


def _pass_on(warning, filename):
    """Show a warning caught while reading, unless it says nothing about the events."""
    if issubclass(warning.category, EventDataWarning):
        warnings.warn(warning.message, stacklevel=4)
    elif not (issubclass(warning.category, _HARMLESS)
              or "Trying first extension" in str(warning.message)):
        warnings.warn(f"{filename}: {warning.message}", EventDataWarning, stacklevel=4)


def _has_mission(filename):
    """Make sure a FITS file has events; return whether it names a mission."""
    with fits.open(filename) as hdus:
        if not any(map(_time_column, hdus)):
            what = ("no table with a TIME column" if any(hasattr(hdu, "columns") for hdu in hdus)
                    else "no table, or is cut off before it")
            raise EventDataError(
                f"{filename} is a FITS file with {what}; give the event file of the observation")
        return any("TELESCOP" in hdu.header or "MISSION" in hdu.header for hdu in hdus)


def _time_column(hdu):
    """Name of the column of times; None of an extension that has none."""
    names = hdu.columns.names if hasattr(hdu, "columns") else []
    return next((name for name in names if name.lower() == "time"), None)


def _read_plain(cls, filename, source, rmf_file, gti_file=None, gtistring=None, force_hduname=None,
                additional_columns=None):
    """Events of a plain FITS table, which may name no mission; all its columns are read."""
    if source is not None:
        raise EventDataError(f"no source can be picked from {filename}, which is read with "
                             "fmt='fits' or names no mission (TELESCOP)")
    with fits.open(filename) as hdus:
        hdu = (next(hdu for hdu in hdus if _time_column(hdu)) if force_hduname is None
               else hdus[force_hduname])
        table, name = Table.read(hdu), _time_column(hdu)
        clock = _clock(hdu, name, _Clock())
        table[name].unit = None
        table[name] = clock.seconds(in_unit(table[name], name, "s"))
        # Stingray warns of keywords such as EXPOSURE, which it works out itself.
        table.meta = {key: value for key, value in table.meta.items()
                      if not isinstance(getattr(cls, key.lower(), None), property)}
        events = cls.from_astropy_table(table)
        if clock.mjdref is not None:
            events.mjdref = clock.mjdref
        gti = _good_times(hdus, filename, gti_file, hdu.header, gtistring or "GTI",
                          gtistring is not None, None, clock)
    if gti is not None:
        events.gti = gti
    if rmf_file is not None:
        events.convert_pi_to_energy(rmf_file)
    return events


def _read_events(cls, filename, source, rmf_file, gti_file=None, **options):
    exact = options.get("gtistring") is not None
    reader = _Reader(filename, output_class=stingray.EventList, **options)
    try:
        cameras = _cameras(reader)
        data, header = reader.data_hdu.data, reader.data_hdu.header
        if header.get("THINNED"):
            warnings.warn(
                f"{filename} is thinned: its header says that only a part of the photons was kept "
                "(THINNED). Such a list is no Poisson process, and its rate, flares and pulsations "
                "are not those of the source", EventDataWarning)
        ccds = _ccds(reader)
        selection = None
        if source is not None:
            from .regions import select_source

            selection = select_source(data, header, ccds=ccds, filename=filename, **source)
        aperture = slice(None) if selection is None else selection.source
        events = _convert(cls, reader, data[aperture], rmf_file)
        own = None if ccds is None else ccds[aperture]
        if own is not None and len(own) == 0 and selection is not None:
            own = np.array(selection.ccds)  # an aperture without a photon still has its CCD
        if own is not None and events.n > 0:
            events.detector_id = own
        detectors = own if cameras is None else cameras
        gti = _good_times(reader.data_hdus, filename, gti_file, header, reader.gtistring, exact,
                          detectors, reader.clock)
        if gti is not None:
            events.gti = gti
        if selection is not None and selection.background is not None:
            outside = _convert(cls, reader, data[selection.background], rmf_file)
            outside.gti = events._gti
            _set_background(events, outside, selection.area_ratio)
    finally:
        reader.data_hdus.close()
    return events


def _convert(cls, reader, data, rmf_file):
    """Rows of an event table as an `EventList`, without GTIs."""
    events = cls(
        mjdref=float(np.nan_to_num(np.float64(reader.mjdref))),
        dt=float(reader.dt),
        mission=reader.mission,
        instr=reader.instr,
        header=reader.header,
        ephem=reader.ephem,
        timeref=reader.timeref,
        timesys=reader.timesys,
    )
    for name in ("mode", "obsid"):
        if getattr(reader, name, None) is not None:
            setattr(events, name, getattr(reader, name))
    if len(data) == 0:
        return events
    stock = reader.transform_slice(data)
    events.time = reader.clock.seconds(stock.time)
    names = {name.lower(): name for name in data.dtype.names}
    pi_name = names.get(str(reader.pi_column).lower(), names.get("pi"))
    unit = u.Unit(pi_name and data.columns[pi_name].unit or "", parse_strict="silent")
    if stock.pi is None and pi_name is not None and pi_name != reader.energy_column:
        stock.pi = data[pi_name]
    extra = [name.replace(".", "_").lower() for name in reader.additional_columns or []]
    # Energies that Stingray makes of channels are left to `calibrate`, which knows more cameras.
    for name in ("pi", *extra, *(["energy"] if reader.energy_column else [])):
        value = getattr(stock, name, None)
        if value is not None:
            setattr(events, name, _native(value))
    if rmf_file is not None:
        events.convert_pi_to_energy(rmf_file)
    elif events.energy is None and events.pi is not None and unit.is_equivalent("keV"):
        events.energy = u.Quantity(events.pi, unit).to_value("keV")
    elif events.energy is None:
        events.energy = calibrate(events.pi, events.mission, events.instr,
                                  epoch_of(events, np.min(events.time)))
    elif reader.energy_column and reader.data_hdu.columns[reader.energy_column].unit is None:
        if np.nanmedian(events.energy) > 100:
            warnings.warn(
                "the energy column has no unit and values like eV; it was divided by 1000",
                EventDataWarning,
                stacklevel=2,
            )
            events.energy = events.energy / 1000
    return events


def _native(values):
    """A copy in native byte order, floats as float64."""
    values = np.array(values)
    if values.dtype.kind == "f":
        return values.astype(float)
    return values.astype(values.dtype.newbyteorder("="))


def _ccds(reader):
    """CCD of each event (n,), or None if the table does not say."""
    column = {name.lower(): name for name in reader.data_hdu.columns.names}
    # Stingray knows the column only where MISSION, and not just TELESCOP, is as it expects.
    for name in (str(reader.detector_key).lower(), "ccd_id", "ccdnr"):
        if name in column:
            return np.array(reader.data_hdu.data[column[name]]).astype(int)
    return None


def _cameras(reader):
    """Telescope of each event of eROSITA (n,), of which all look at the source; otherwise None.

    Every pixel of a pattern has a row there, those beside the main one with a negative energy; what
    is left of the table are photons.
    """
    hdu = reader.data_hdu
    if not {"TM_NR", "PI"} <= set(hdu.columns.names):
        return None
    hdu.data = hdu.data[hdu.data["PI"] > 0]
    return np.array(hdu.data["TM_NR"]).astype(int)


def _good_times(hdus, filename, gti_file, header, gtistring, exact, ccds, clock):
    """Good time intervals of the event file or of another one; None if the event file has none."""
    with nullcontext(hdus) if gti_file is None else fits.open(gti_file) as hdus:
        gti = _file_gti(hdus, header, gtistring, exact, ccds, clock)
        if gti is None and (exact or gti_file is not None):
            raise EventDataError(
                f"{gti_file or filename} holds no good time intervals named {gtistring}; its "
                f"extensions are {', '.join(hdu.name or '(no name)' for hdu in hdus[1:]) or 'none'}"
            )
    return gti


def _file_gti(hdus, event_header, gtistring, exact, ccds, clock):
    """Good time intervals (m, 2) of a file for the CCDs under the source; None if it has none.

    Parameters
    ----------
    gtistring : str
        Comma-separated names of GTI extensions, as in Stingray's mission table.
    exact : bool
        Only these names, whatever the CCD: the user gave them.
    ccds : ndarray or None
        CCD of each event.
    clock : _Clock
        That of the events, which holds where the extensions say nothing else.
    """
    names = [name.strip() for name in str(gtistring).split(",") if name.strip()]
    digits = "" if exact else r"(\d*)"
    if not exact:
        names += ["STDGTI", "GTI"]
    pattern = re.compile(f"^(?:{'|'.join(names)}){digits}$", re.IGNORECASE)
    wanted = None
    if ccds is not None and len(ccds) > 0 and not exact:
        share = Counter(ccds.tolist())
        wanted = {ccd for ccd, n in share.items() if n >= _CCD_SHARE * len(ccds)}
    of_ccd = _gti_of_ccd(event_header)
    tables = [hdu for hdu in hdus
              if pattern.match(hdu.name) and isinstance(hdu, fits.BinTableHDU)]
    versions = {hdu.ver for hdu in tables}
    by_version = bool(wanted) and len(versions) == len(tables) > 1 and wanted <= versions
    general, numbered = [], []
    for hdu in tables:
        columns = {name.lower(): name for name in hdu.columns.names}
        if not {"start", "stop"} <= set(columns):
            continue
        own = _clock(hdu, columns["start"], clock)
        gti = tidy_gti(np.column_stack([own.seconds(hdu.data[columns[edge]])
                                        for edge in ("start", "stop")]))
        ccd = None if exact else _ccd_of(hdu, of_ccd, by_version)
        if ccd is None:
            general.append(gti)
        else:
            numbered.append((ccd, gti))
    if wanted is not None and any(ccd in wanted for ccd, _ in numbered):
        numbered = [(ccd, gti) for ccd, gti in numbered if ccd in wanted]
    chosen = general + [gti for _, gti in numbered]
    return intersect(chosen) if chosen else None


def _gti_of_ccd(header):
    """Names of GTI extensions by CCD, from the data subspace keywords of an event header.

    The first component is DSTYPi, DSVALi, DSREFi, the others are 2DSVALi, 2DSREFi, ...
    """
    types = {key[5:]: str(header[key]).strip().lower() for key in header if key[:5] == "DSTYP"}
    ccd_index = next((i for i, kind in types.items() if kind in ("ccd_id", "ccdnr")), None)
    time_index = next((i for i, kind in types.items() if kind == "time"), None)
    if ccd_index is None or time_index is None:
        return {}
    names = {}
    for component in ["", *map(str, range(2, 100))]:
        value = header.get(f"{component}DSVAL{ccd_index}")
        reference = header.get(f"{component}DSREF{time_index}")
        if value is None or reference is None:
            continue
        match = re.match(r"\s*(\d+)(?::\1)?\s*$", str(value))
        if match:
            names[str(reference).strip().lstrip(":").upper()] = int(match[1])
    return names


def _ccd_of(hdu, of_ccd, by_version):
    """CCD of a GTI extension; None for one that holds for all."""
    for key in ("CCD_ID", "CCDNR"):
        if key in hdu.header:
            return int(hdu.header[key])
    for name in (hdu.name, f"{hdu.name}{hdu.ver}", f"{hdu.name}{hdu.ver:02d}"):
        if name.upper() in of_ccd:
            return of_ccd[name.upper()]
    match = re.match(r"^[A-Z]+(\d{1,2})$", hdu.name, re.IGNORECASE)
    if match:
        return int(match[1])
    # Longer numbers (GTI00006) count filters, not CCDs; the CCD is unknown without keywords.
    return hdu.ver if by_version else None


def _set_background(events, outside, area_ratio):
    """Store the background rates (ct/s) in the aperture, from events of the background region."""
    counts = np.zeros(len(BAND_EDGES) - 1)
    gti = events._gti
    if gti is None:
        raise EventDataError("a background rate needs the exposure, but the file has no GTIs")
    if outside.n > 0:
        if outside.energy is None:
            raise EventDataError("a background rate needs energies; give rmf_file")
        counts = np.histogram(outside.energy[in_gti(outside.time, gti)], BAND_EDGES)[0]
    for name, rate in zip(BACKGROUND_ATTRIBUTES, counts * area_ratio / length(gti)):
        setattr(events, name, float(rate))


def _settle(events, filename):
    """Bring a list that was just read into the agreed state, in place."""
    if events._gti is not None:
        gti = tidy_gti(events._gti)
        if len(gti) == 0:
            raise EventDataError(
                f"the good time intervals of {filename} hold no exposure; give others with "
                "gti_file= or gtistring="
            )
        events.gti = gti
    if events.time is None:
        if events._gti is None:
            raise EventDataError(f"{filename} holds no events and no good time intervals")
        return events
    events.time = as_floats(events.time, "s")
    if events.energy is not None:
        events.energy = as_floats(events.energy, "keV")
    finite = np.isfinite(events.time)
    if not finite.any():
        raise EventDataError(f"no event of {filename} has a finite time")
    if not finite.all():
        warn_dropped(~finite, "times that are not finite", stacklevel=5)
        events.apply_mask(finite, inplace=True)
    if np.any(np.diff(events.time) < 0):
        events.apply_mask(np.argsort(events.time, kind="stable"), inplace=True)
    if events._gti is None:
        if events.time[0] == events.time[-1]:
            raise EventDataError(
                f"{filename} has no good time intervals and all its events are at one instant; "
                "give the intervals with gti_file="
            )
        warnings.warn(
            f"{filename} has no good time intervals; first to last event is used",
            EventDataWarning,
            stacklevel=4,
        )
        events.gti = np.array([[events.time[0], events.time[-1]]])
        return events
    inside = in_gti(events.time, events._gti)
    if not inside.any():
        raise EventDataError(
            f"none of the {inside.size} events of {filename} lies inside its good time intervals; "
            "give others with gti_file= or gtistring="
        )
    if not inside.all():
        warn_dropped(~inside, "times outside the good time intervals", stacklevel=5)
        events.apply_mask(inside, inplace=True)
    return events


# Energies


def one_name(value):
    # Joining lists of two instruments makes "EMOS1,EMOS2" or a tuple.
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    return None if value is None else str(value).split(",")[0].strip()


def epoch_of(events, time):
    """Epoch (MJD) of a time of the list in s, which selects the calibration of some missions."""
    return float(time) / 86400 + float(np.nan_to_num(float(events.mjdref)))


def calibrate(pi, mission, instr, epoch):
    """Energies (keV) of PI channels by the mission's rough calibration; None if there is none."""
    mission, instr = one_name(mission), one_name(instr)
    if pi is None or np.size(pi) == 0 or not mission:
        return None
    pi, canonical, camera = np.asarray(pi), canonical_mission(mission), (instr or "").upper()
    if canonical in _NO_ENERGIES and camera.startswith(_NO_ENERGIES[canonical]):
        return None
    for (known, start), width in _CHANNELS.items():
        if mission.lower() == known and camera.startswith(start):
            return (pi + 0.5) * width / 1000
    mission = canonical.replace("chandra", "axaf")  # as Stingray calls it here
    try:
        convert = get_rough_conversion_function(mission, instrument=instr, epoch=epoch)
    except (ValueError, AttributeError):
        return None
    return np.asarray(convert(pi), dtype=float)
