"""The Chandra Source Catalog, release 2.1: sources, their properties and their photons.

`search` asks the catalogue (TAP service of the Chandra X-ray Center) and gives one row for each
detection: a source in one of its observations, with properties of both. `fetch` brings the event
file of each detection, its region file and its ancillary response file; `read` makes one an event
list: the photons inside the source region, with the rate of the background around it and the
effective area of the observation.

The archive's event file of a detection (``regevt3``) holds all photons of a rectangle around the
source, background included; which of them belong to the source, the region file (``reg3``) says.

References
----------
Evans et al. 2024, ApJS 274, 22; https://cxc.cfa.harvard.edu/csc/
"""

import re
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable, vstack
from tqdm.auto import tqdm

from .._files import atomic_file
from .._network import session as _session
from ..errors import ArchiveError, EventDataError, EventDataWarning, MissingModelError
from ._unpack import CutOffError, check_area, check_events, check_region, members

__all__ = ["COLUMNS", "Fetched", "URL", "fetch", "is_event_file", "read", "search"]

#: Address of the archive: the catalogue is at ``csc21tap``, the files at ``csccli/retrieve``.
URL = "https://cda.cfa.harvard.edu"

_FLUX = "erg / (s cm2)"
_NH = "1e20 / cm2"
#: What `search` asks for, under the catalogue's names, with units: columns of the source (``m.``)
#: and of its detection in one observation (``o.``). Limits (``_lolim``, ``_hilim``) are at 68 %.
#: Bands: b 0.5-7, h 2-7, m 1.2-2, s 0.5-1.2 keV.
COLUMNS = {
    "m.name": None, "m.ra": "deg", "m.dec": "deg", "m.err_ellipse_r0": "arcsec",
    "m.significance": "", "m.likelihood_class": None, "m.nh_gal": _NH,
    "m.extent_flag": None, "m.conf_flag": None, "m.pileup_flag": None, "m.sat_src_flag": None,
    "m.var_flag": None, "m.var_inter_index_b": "", "m.var_inter_prob_b": "",
    "o.obsid": None, "o.obi": None, "o.region_id": None, "o.instrument": None,
    "o.theta": "arcmin", "o.livetime": "s", "o.gti_mjd_obs": "d",
    "o.src_cnts_aper_b": "ct", "o.flux_significance_b": "",
    "o.flux_aper_b": _FLUX, "o.flux_aper_lolim_b": _FLUX, "o.flux_aper_hilim_b": _FLUX,
    "o.hard_hs": "", "o.hard_hs_lolim": "", "o.hard_hs_hilim": "",
    "o.hard_hm": "", "o.hard_hm_lolim": "", "o.hard_hm_hilim": "",
    "o.hard_ms": "", "o.hard_ms_lolim": "", "o.hard_ms_hilim": "",
    "o.var_index_b": "", "o.var_prob_b": "",
    "o.powlaw_gamma": "", "o.powlaw_gamma_lolim": "", "o.powlaw_gamma_hilim": "",
    "o.powlaw_nh": _NH, "o.powlaw_nh_lolim": _NH, "o.powlaw_nh_hilim": _NH, "o.powlaw_stat": "",
    "o.bb_kt": "keV", "o.bb_nh": _NH, "o.bb_stat": "",
    "o.brems_kt": "keV", "o.brems_nh": _NH, "o.brems_stat": "",
    "o.apec_kt": "keV", "o.apec_nh": _NH, "o.apec_stat": "",
}

_TABLES = """csc21.master_source m, csc21.master_stack_assoc a, csc21.stack_source s,
csc21.stack_observation_assoc b, csc21.observation_source o"""
# From the source over its detections in stacks of observations to those in each observation. Only
# unambiguous matches ("u"): a detection that several sources share says nothing of each. Only the
# CCDs: the HRC measures no energies.
_JOINED = """m.name = a.name AND a.match_type = 'u'
AND s.detect_stack_id = a.detect_stack_id AND s.region_id = a.region_id
AND s.detect_stack_id = b.detect_stack_id AND s.region_id = b.region_id
AND o.obsid = b.obsid AND o.obi = b.obi AND o.region_id = b.region_id
AND o.instrument = 'ACIS'"""

_KEY = ("obsid", "obi", "region_id")


def search(name=None, *, cone=None, where=None, adql=None, url=URL, session=None):
    """Find sources in the Chandra Source Catalog, one row for each of their observations.

    Parameters
    ----------
    name : str, optional
        A name of the catalogue (``"2CXO J095550.1+694046"``), or any that Sesame resolves; then
        sources within 5 arcsec are found.
    cone : tuple of `~astropy.coordinates.SkyCoord` and `~astropy.units.Quantity`, optional
        Centre and radius.
    where : str, optional
        A further condition in ADQL, on columns of the source (``m.``) and of the detection
        (``o.``): ``"m.significance > 10 AND o.theta < 5"``.
    adql : str, optional
        A whole query of your own, in place of all others. For `fetch` it has to give the columns
        obsid, obi and region_id.
    url : str, optional
        Address of the archive.
    session : `requests.Session`, optional
        One that retries by default.

    Returns
    -------
    `~astropy.table.QTable`
        The columns of `COLUMNS` without their prefix, or those of ``adql``, with units; NaN where
        the catalogue has no value. Sorted by name and observation.

    Raises
    ------
    ArchiveError
        The service cannot be reached or refuses the query.
    ValueError
        Nothing to search for, or a name that cannot be resolved.
    MissingModelError
        If ``pyvo`` is not installed.

    Warns
    -----
    EventDataWarning
        The service has cut the answer.

    Notes
    -----
    The service knows no geometry: it is asked for a box around the cone, whose corners are cut off
    here.
    """
    if adql is not None and (name, cone, where) != (None, None, None):
        raise ValueError("adql is a whole query; give nothing beside it")
    if (name, cone, where, adql) == (None, None, None, None):
        raise ValueError("nothing to search for: give a name, a cone, a condition or a query")
    if name is not None and not name.upper().startswith("2CXO"):
        if cone is not None:
            raise ValueError("give a name or a cone, not both")
        name, cone = None, (_resolve(name), 5 * u.arcsec)
    if adql is None:
        conditions = [_JOINED]
        if name is not None:
            conditions.append("m.name = '" + name.replace("'", "''") + "'")
        if cone is not None:
            conditions.append(_box(*cone))
        if where is not None:
            conditions.append(f"({where})")
        adql = (f"SELECT DISTINCT {', '.join(COLUMNS)} FROM {_TABLES} WHERE "
                + " AND ".join(conditions))
    table = _ask(" ".join(adql.split()), f"{url}/csc21tap", session or _session())
    if cone is not None and len(table):
        table = table[SkyCoord(table["ra"], table["dec"]).separation(cone[0]) <= cone[1]]
    keys = [key for key in ("name", *_KEY) if key in table.colnames]
    if keys and len(table):
        table.sort(keys)
    return table


def _resolve(name):
    from astropy.coordinates.name_resolve import NameResolveError

    try:
        return SkyCoord.from_name(name)
    except NameResolveError as error:
        raise ValueError(f"the name {name!r} could not be resolved ({error}); give a cone or a "
                         "name of the catalogue, which starts with 2CXO") from error


def _box(centre, radius):
    """Condition for the smallest box in right ascension and declination around a cone."""
    centre, radius = centre.icrs, u.Quantity(radius, u.arcsec).to_value(u.deg)
    ra, dec = centre.ra.deg, centre.dec.deg
    condition = f"m.dec BETWEEN {dec - radius:.8f} AND {dec + radius:.8f}"
    if abs(dec) + radius >= 90:
        return condition
    width = np.degrees(np.arcsin(np.sin(np.radians(radius)) / np.cos(np.radians(dec))))
    low, high = ra - width, ra + width
    if low < 0 or high > 360:
        return f"{condition} AND (m.ra >= {low % 360:.8f} OR m.ra <= {high % 360:.8f})"
    return f"{condition} AND m.ra BETWEEN {low:.8f} AND {high:.8f}"


def _ask(adql, url, session):
    try:
        import pyvo
    except ImportError:
        raise MissingModelError("the catalogue is asked through the pyvo package: "
                                "pip install stingray-align[remote]") from None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answer = pyvo.dal.TAPService(url, session=session).run_sync(adql)
            table = answer.to_table()
    except (pyvo.dal.DALServiceError, pyvo.dal.DALQueryError, pyvo.dal.DALFormatError) as error:
        raise ArchiveError(f"{url} did not answer the query: {error}") from error
    if any(issubclass(w.category, pyvo.dal.DALOverflowWarning) for w in caught):
        warnings.warn(f"{url} cut its answer after {len(table)} rows; ask for less at a time",
                      EventDataWarning, stacklevel=3)
    units = {column.split(".")[-1]: unit for column, unit in COLUMNS.items()}
    return QTable({name: _column(table[name], units.get(name, table[name].unit))
                   for name in table.colnames})


def _column(column, unit):
    """A column without masks: NaN, False or an empty string where there is no value."""
    kind = column.dtype.kind
    hidden = np.ma.getmaskarray(np.ma.asarray(column))
    if kind == "f" or kind in "iu" and hidden.any():
        values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
        known = unit is not None and not isinstance(unit, u.UnrecognizedUnit)
        return values * u.Unit(unit) if known else values
    if kind in "biu":
        return np.ma.filled(np.ma.asarray(column), 0)
    return np.array(["" if no_value else str(value).strip()
                     for value, no_value in zip(column, hidden)], dtype=str)


# -- files ----------------------------------------------------------------------------------------

# Types of file as the archive calls them in requests, and how the names of the files end. The
# band is part of every request, also for files that have none.
_KINDS = {"regevt3": "regevt3", "reg3": "srcreg", "arf3": "arf"}
_CHECKS = {"regevt3": check_events, "reg3": check_region, "arf3": check_area}
_CALLED = {"regevt3": "event file", "reg3": "region file", "arf3": "ancillary response file"}
#: Without these a detection cannot be read.
_NEEDED = ("regevt3", "reg3")
# Such as acisf14031_000N028_r0016_regevt3.fits: observation, its interval, version of the file,
# exposure of interleaved observations (e1, e2), region.
_NAME = re.compile(r"(?:acis|hrc)f(\d{5})_(\d{3})N\d{3}(?:_[a-z]\d)?_r(\d{4,5})_"
                   r"(regevt3|reg3|arf3)\.fits(?:\.gz)?")
_TRIES = 3
_TIMEOUT = (30, 120)


@dataclass
class Fetched:
    """What `fetch` brought.

    Attributes
    ----------
    folder : `~pathlib.Path`
    table : `~astropy.table.QTable`
        The rows asked for with a column ``file``: the event file relative to ``folder``, empty
        where it could not be had.
    failed : dict
        What is missing, and why, by detection (``"OBSID.OBI.REGION"``). One that lacks only its
        ancillary response file can be read; its effective area is not known then.
    n_before : int
        Detections that were there from an earlier call.
    """

    folder: Path
    table: QTable
    failed: dict = field(default_factory=dict)
    n_before: int = 0

    def __str__(self):
        n = len(self.table) - int(np.sum(self.table["file"] == ""))
        lines = [f"{n} of {len(self.table)} event files in {self.folder} "
                 f"({self.n_before} from before)"]
        kept = {".".join(str(row[name]) for name in _KEY) for row in self.table if row["file"]}
        return "\n".join(lines + [
            f"{'without effective area' if key in kept else 'left out'}: {key}: {why}"
            for key, why in self.failed.items()])


def fetch(table, folder, *, url=URL, batch=50, session=None, progress=True):
    """Bring the event files of detections, with regions and effective areas, into a folder.

    Call it again to go on where an earlier call stopped: what is there is whole and is not fetched
    again. ``folder/sources.ecsv`` lists all detections that were ever asked for.

    Parameters
    ----------
    table : `~astropy.table.Table`
        From `search`; columns obsid, obi and region_id are needed.
    folder : str or `~pathlib.Path`
        One process at a time.
    url : str, optional
        Address of the archive.
    batch : int, optional
        Files to ask for in one request, at most 50.
    session : `requests.Session`, optional
        One that retries by default.
    progress : bool, optional
        Show a bar on a terminal.

    Returns
    -------
    Fetched
        ``print`` it to see what is missing and why.

    Raises
    ------
    ValueError
        The table lacks the three columns.
    OSError
        The folder cannot be written, for example because the disk is full. What was fetched before
        is whole.

    Notes
    -----
    Answers are unpacked while they arrive. Names in them never become paths; links, devices and
    names that lead out of the folder, and files that unpack to far more than they should, are
    refused with the rest of the answer. A file gets its name only after it was read as FITS, with
    events or a region in it and with checksums that fit, where it has them.

    The requests are those of the archive's command line interface
    (https://cxc.cfa.harvard.edu/csc/cli/).
    """
    missing = [name for name in _KEY if name not in table.colnames]
    if missing:
        raise ValueError(f"the table has no column {', '.join(missing)}; the archive needs "
                         "obsid, obi and region_id of each detection")
    if not 1 <= batch <= 50:
        raise ValueError(f"batch is {batch}, but the archive takes 1 to 50 files in one request")
    folder = Path(folder)
    folder.joinpath("events").mkdir(parents=True, exist_ok=True)
    keys = [tuple(int(row[name]) for name in _KEY) for row in table]
    here = _files_in(folder)
    wanted = [(key, kind) for key in dict.fromkeys(keys) for kind in _KINDS]
    todo = [item for item in wanted if item not in here]
    asked_for = {key for key, _ in todo}
    n_before = len(set(keys) - asked_for)
    scratch = folder / ".partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        failed = _fetch_all(todo, here, folder, scratch, f"{url}/csccli/retrieve", batch,
                            session or _session(),
                            tqdm(total=len(wanted), initial=len(wanted) - len(todo), unit="file",
                                 disable=None if progress else True))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    table = QTable(table, copy=True)
    table["file"] = [
        str(here[key, "regevt3"].relative_to(folder))
        if all((key, kind) in here for kind in _NEEDED) else "" for key in keys]
    result = Fetched(folder, table, failed, n_before)
    _write_sources(table, folder / "sources.ecsv")
    return result


def _files_in(folder):
    """Files of earlier calls by detection and kind."""
    found = {}
    for path in sorted(folder.joinpath("events").iterdir()):
        if match := _NAME.fullmatch(path.name):
            found.setdefault((tuple(map(int, match.groups()[:3])), match[4]), path)
    return found


class _Down(ArchiveError):
    """Nobody answers, after the retries of the session; no use in asking for more."""


def _fetch_all(todo, here, folder, scratch, url, batch, session, bar):
    """Fetch the files of ``todo`` into ``here``; say what is missing and why."""
    reasons = {}
    with bar:
        while todo:
            asked, todo = todo[:batch], todo[batch:]
            why = None
            for _ in range(_TRIES):
                left = [item for item in asked if item not in here and item not in reasons]
                if not left:
                    break
                try:
                    for item, path, wrong in _fetch_batch(left, folder, scratch, url, session):
                        if wrong is None:
                            here[item] = path
                            bar.update()
                        else:
                            reasons[item] = wrong
                    why = "the archive did not send it"
                except CutOffError as error:
                    why = str(error)
                    continue
                except _Down as error:
                    why = str(error)
                    asked, todo = asked + todo, []
                except ArchiveError as error:
                    why = str(error)
                break
            for item in asked:
                if item not in here:
                    reasons.setdefault(item, why)
    failed = {}
    for (key, kind), why in sorted(reasons.items(), key=lambda item: item[0][1] not in _NEEDED):
        failed.setdefault(".".join(map(str, key)), f"{_CALLED[kind]}: {why}")
    return failed


def _fetch_batch(items, folder, scratch, url, session):
    """Ask for files and put them in their places as they come.

    Yields
    ------
    item, path, wrong
        Where the file is, or None and what is wrong with what came.
    """
    wanted = set(items)

    def item_of(name):
        match = _NAME.fullmatch(name)
        return match and (tuple(map(int, match.groups()[:3])), match[4])

    packages = ",".join(f"{key[0]}.{key[1]}.{key[2]}/{_KINDS[kind]}/b" for key, kind in items)
    with _answer(session, url, {"version": "rel2.1", "packageset": packages}) as response:
        part = scratch / "member"
        for name in members(_Body(response), lambda name: item_of(name) in wanted, part):
            item = item_of(name)
            wanted.discard(item)  # one file of each, should the archive send more
            try:
                _CHECKS[item[1]](part, scratch / "unpacked")
            except ArchiveError as error:
                yield item, None, f"{name}: {error}"
                continue
            path = folder / "events" / name
            part.replace(path)
            yield item, path, None


def _answer(session, url, parameters):
    import requests

    try:
        response = session.get(url, params=parameters, stream=True, timeout=_TIMEOUT)
    except requests.RequestException as error:
        raise _Down(f"no connection to {url} ({type(error).__name__})") from error
    if response.status_code == 429 or response.status_code >= 500:
        raise _Down(f"{url} answers with status {response.status_code} (busy); try again later")
    if response.status_code != 200:
        raise ArchiveError(f"{url} answers with status {response.status_code} "
                           f"({response.reason})")
    return response


class _Body:
    """The body of a response as a file, for `tarfile`."""

    def __init__(self, response):
        self.raw = response.raw

    def read(self, size):
        from urllib3.exceptions import HTTPError

        try:
            return self.raw.read(size, decode_content=True)
        except (HTTPError, ConnectionError) as error:
            raise CutOffError(f"the connection was lost ({type(error).__name__})") from error


def _write_sources(table, path):
    """Write the table, with rows of earlier calls that are not in it."""
    if path.exists():
        before = QTable.read(path, format="ascii.ecsv")
        now = {tuple(row[name] for name in _KEY) for row in table}
        old = before[[tuple(row[name] for name in _KEY) not in now for row in before]]
        if len(old):
            table = vstack([old, table], metadata_conflicts="silent")
            table.sort([name for name in ("name", *_KEY) if name in table.colnames])
    with atomic_file(path) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)


# -- photons --------------------------------------------------------------------------------------


def is_event_file(path):
    """Whether a file is named as the catalogue names the event file of a detection.

    Parameters
    ----------
    path : str or `~pathlib.Path`

    Returns
    -------
    bool

    Examples
    --------
    >>> from stingray_align.datasets import csc
    >>> csc.is_event_file("acisf14031_000N028_r0016_regevt3.fits.gz")
    True
    """
    match = _NAME.fullmatch(Path(path).name)
    return match is not None and match[4] == "regevt3"


def _beside(path, kind):
    """The region file or ancillary response file that belongs to an event file, or None."""
    path = Path(path)
    if not is_event_file(path):
        return None
    key = _NAME.fullmatch(path.name).groups()[:3]
    # The files have versions of their own, so that their names may differ there.
    beside = path.parent.glob(f"*f{key[0]}_{key[1]}N*_r{key[2]}_{kind}.fits*")
    return next((other for other in sorted(beside) if _NAME.fullmatch(other.name)), None)


def read(path, **kwargs):
    """Read the photons of one detection.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        An event file that `fetch` brought.
    **kwargs
        Passed to `stingray_align.EventList.read`.

    Returns
    -------
    `~stingray_align.EventList`
        The photons inside the catalogue's source region. The ``background_*`` attributes hold the
        rate outside of it, scaled to its area: in the catalogue's background region where the file
        has one, else in an annulus around the source. ``arf_file`` is the ancillary response file,
        if it is there.

    Raises
    ------
    EventDataError
        There is no region file beside it, or it cannot be read.

    Notes
    -----
    The source region of a detection is the ellipse that holds 90 % of its counts (broad band).
    """
    from ..events import EventList

    region = _beside(path, "reg3")
    if region is None:
        raise EventDataError(f"there is no region file (..._reg3.fits) beside {path}; fetch it "
                             "again, or use EventList.read with a region of your own")
    kwargs.setdefault("arf_file", _beside(path, "arf3"))
    return EventList.read(path, region=region, background="auto", **kwargs)
