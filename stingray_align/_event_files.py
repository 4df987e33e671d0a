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

import numpy as np
import stingray
from astropy import units as u
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.wcs import FITSFixedWarning
from stingray.io import FITSTimeseriesReader
from stingray.mission_support import get_rough_conversion_function

from ._gti import in_gti, intersect, length, tidy_gti, warn_dropped
from .errors import EventDataError, EventDataWarning
from .instruments import canonical_mission
from .photons import BACKGROUND_ATTRIBUTES, BAND_EDGES

__all__ = ["guess_format", "read_fits", "read_table", "calibrate", "epoch_of", "one_name"]

# A CCD takes part in the choice of GTIs when it holds at least this share of the events: a few
# photons that dither across a chip edge must not cost the source its exposure.
_CCD_SHARE = 0.1

#: Widths of PI channels in eV that Stingray's table lacks, by mission and start of the instrument.
#: Suzaku data reduction guide, 4.3 (XIS); ASCA Guest Observer Facility (SIS); ROSAT status report
#: 78 (PSPC); XRISM and Hitomi data reduction guides; AstroSat SXT handbook; eSASS products
#: (eROSITA).
_CHANNELS = {("swift", "XRT"): 10, ("suzaku", "XIS"): 3.65, ("asca", "SIS"): 3.65,
             ("rosat", "PSPC"): 10, ("xrism", "XTEND"): 6, ("xrism", "RESOLVE"): 0.5,
             ("hitomi", "SXI"): 6, ("hitomi", "SXS"): 0.5, ("astrosat", "SXT"): 10,
             ("srg", "TM"): 1, ("srg", "MERGED"): 1, ("erosita", ""): 1}


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


class _Reader(FITSTimeseriesReader):
    """Stingray's reader with its GTI search left out: it is done once the source is known."""

    def _initialize_header_events(self, fname, force_hduname=None):
        self.data_hdus = None
        try:
            super()._initialize_header_events(fname, force_hduname=force_hduname)
            if self.t_start is None:
                # Stingray needs it for the epoch of the calibration, although TSTART is optional.
                times = self.data_hdus[self.hduname].data[self.time_column]
                self.t_start = float(times[0]) if len(times) else 0.0
        except BaseException:
            if self.data_hdus is not None:
                self.data_hdus.close()
            raise

    def _read_gtis(self, gti_file=None, det_numbers=None):
        self._add_meta_attr("gti", None)


def read_fits(cls, filename, source, rmf_file, options):
    options = dict(options)
    if options.get("additional_columns") is not None:
        options["additional_columns"] = list(options["additional_columns"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem = None
        try:
            has_mission = _check_fits(filename)
            if has_mission:
                events = _read_events(cls, filename, source, rmf_file, options)
        except FileNotFoundError:
            raise
        except (OSError, EOFError, TypeError, ValueError, KeyError, IndexError) as error:
            problem = error
    truncated = any("truncated" in str(w.message) for w in caught)
    if isinstance(problem, EventDataError) and not truncated:
        raise problem
    if truncated or problem is not None:
        why = "is truncated" if truncated else f"could not be read as an event file: {problem}"
        raise EventDataError(f"{filename} {why}; fetch or make the file again") from problem
    for warning in caught:
        _pass_on(warning, filename)
    if not has_mission:
        if source is not None:
            raise EventDataError(
                f"{filename} names no mission (TELESCOP), so that no source can be picked from it"
            )
        return read_table(cls, filename, "fits", rmf_file, options)
    return _settle(events, filename)


_HARMLESS = (VerifyWarning, u.UnitsWarning, FITSFixedWarning, ResourceWarning)


def _pass_on(warning, filename):
    """Show a warning caught while reading, unless it says nothing about the events."""
    if issubclass(warning.category, EventDataWarning):
        warnings.warn(warning.message, stacklevel=4)
    elif not (issubclass(warning.category, _HARMLESS)
              or "Trying first extension" in str(warning.message)):
        warnings.warn(f"{filename}: {warning.message}", EventDataWarning, stacklevel=4)


def _check_fits(filename):
    """Make sure a FITS file has events; return whether it names a mission."""
    with fits.open(filename) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))]
        if not any("time" in [name.lower() for name in hdu.columns.names] for hdu in tables):
            what = "no table with a TIME column" if tables else "no table, or is cut off before it"
            raise EventDataError(
                f"{filename} is a FITS file with {what}; give the event file of the observation")
        return any("TELESCOP" in hdu.header or "MISSION" in hdu.header for hdu in hdus)


def _read_events(cls, filename, source, rmf_file, options):
    exact = options.get("gtistring") is not None
    gti_file = options.pop("gti_file", None)
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
        if gti_file is None:
            gti = _file_gti(reader.data_hdus, header, reader.gtistring, exact, detectors)
        else:
            with fits.open(gti_file) as hdus:
                gti = _file_gti(hdus, header, reader.gtistring, exact, detectors)
            if gti is None:
                raise EventDataError(f"{gti_file} holds no GTIs named {reader.gtistring}")
        if gti is not None:
            events.gti = gti + float(reader.timezero)
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
    events.time = _native(stock.time)
    names = {name.lower(): name for name in data.dtype.names}
    pi_name = names.get(str(reader.pi_column).lower(), names.get("pi"))
    unit = u.Unit(pi_name and data.columns[pi_name].unit or "", parse_strict="silent")
    if stock.pi is None and pi_name is not None and pi_name != reader.energy_column:
        stock.pi = data[pi_name]
    extra = [name.replace(".", "_").lower() for name in reader.additional_columns or []]
    for name in ("energy", "pi", *extra):
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


def _file_gti(hdus, event_header, gtistring, exact, ccds):
    """Good time intervals (m, 2) of a file for the CCDs under the source; None if it has none.

    Parameters
    ----------
    gtistring : str
        Comma-separated names of GTI extensions, as in Stingray's mission table.
    exact : bool
        Only these names, whatever the CCD: the user gave them.
    ccds : ndarray or None
        CCD of each event.
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
        gti = tidy_gti(np.column_stack([hdu.data[columns["start"]], hdu.data[columns["stop"]]])
                       if len(hdu.data) else [])
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
    events.time = np.array(events.time, dtype=float)
    if events.energy is not None:
        events.energy = np.array(events.energy, dtype=float)
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
    pi = np.asarray(pi)
    for (known, camera), width in _CHANNELS.items():
        if mission.lower() == known and (instr or "").upper().startswith(camera):
            return (pi + 0.5) * width / 1000
    mission = canonical_mission(mission).replace("chandra", "axaf")  # as Stingray calls it here
    try:
        convert = get_rough_conversion_function(mission, instrument=instr, epoch=epoch)
    except (ValueError, AttributeError):
        return None
    return np.asarray(convert(pi), dtype=float)
