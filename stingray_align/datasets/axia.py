"""The Axia corpus: photons and catalogue values of 51,450 detections of the Chandra Source Catalog.

One gzipped file with one JSON object in each line, 305 MB, on the model hub
(``astromindinc/axia-csc-corpus``, CC-BY-4.0). Each object holds catalogue columns and two lists of
``[time, energy]`` pairs, in s and eV: ``original_event_list``, the whole observation in Chandra's
mission times, and ``event_list``, a window of 8 h with a time zero of its own.

`sources` reads it line by line, so that memory holds one source at a time; `write` turns it into a
folder of event files with a table.

The corpus has neither good time intervals nor backgrounds. The exposure is taken from the first to
the last photon, which is a little too short and knows no gaps. Where that matters, fetch the same
detections with `stingray_align.datasets.csc`: the columns obsid, obi and region_id name them.
"""

import gzip
import hashlib
import json
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from tqdm.auto import tqdm

from .._files import atomic_file
from ..errors import ArchiveError, EventDataError, MissingModelError
from ..events import EventList

__all__ = ["REPOSITORY", "UNITS", "Written", "download", "sources", "to_table", "write"]

#: Where the corpus is on the model hub.
REPOSITORY = "astromindinc/axia-csc-corpus"
_CORPUS, _MANIFEST = "data/corpus.jsonl.gz", "manifest.json"
_LISTS = ("original_event_list", "event_list")
# Vectors of other models, which say nothing of the source.
_LEFT_OUT = (*_LISTS, "pca_64d", "umap_2d", "_id")
_LONGEST_LINE = 512 << 20

_FLUX, _NH = "erg / (s cm2)", "1e20 / cm2"
#: Units of the catalogue columns; all others have none.
UNITS = {
    "ra": "deg", "dec": "deg", "theta": "arcmin", "gti_mjd_obs": "d", "src_cnts_aper_b": "ct",
    "flux_aper_b": _FLUX, "flux_bb_aper_b": _FLUX,
    "powlaw_nh": _NH, "bb_nh": _NH, "apec_nh": _NH,
    "bb_kt": "keV", "brems_kt": "keV", "apec_kt": "keV",
}


def download(folder=None, *, repository=REPOSITORY, token=None, endpoint=None, progress=True):
    """Bring the corpus from the model hub, and compare it with its checksum.

    Parameters
    ----------
    folder : str or `~pathlib.Path`, optional
        Where it goes; the hub's cache by default. What is there already is not fetched again, and
        a transfer that was cut off goes on where it stopped.
    repository : str, optional
        Another data set of the same format.
    token : str, optional
        For private data sets; by default the one that ``hf auth login`` keeps.
    endpoint : str, optional
        Address of the hub or of a mirror.
    progress : bool, optional
        Show a bar while the checksum is computed, on a terminal.

    Returns
    -------
    `~pathlib.Path`
        The file ``corpus.jsonl.gz``.

    Raises
    ------
    ArchiveError
        The hub cannot be reached, has no such data set, or the checksum does not fit.
    """
    corpus, manifest = (_from_hub(name, folder, repository, token, endpoint)
                        for name in (_CORPUS, _MANIFEST))
    try:
        expected = json.loads(manifest.read_text())["files"]["corpus"]["sha256_uncompressed"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"the manifest of {repository} has no checksum of the corpus; read "
                           f"{corpus} if you trust it") from error
    digest = hashlib.sha256()
    with _opened(corpus) as file, tqdm(unit="B", unit_scale=True, desc="checksum",
                                       disable=None if progress else True) as bar:
        try:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                bar.update(len(chunk))
        except (EOFError, OSError, zlib.error) as error:
            raise ArchiveError(f"{corpus} is damaged ({error}); delete it and fetch it again"
                               ) from error
    if digest.hexdigest() != expected:
        raise ArchiveError(f"{corpus} does not have the checksum of its manifest; delete it and "
                           "fetch it again")
    return corpus


def _from_hub(name, folder, repository, token, endpoint):
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingModelError("the corpus is fetched through the huggingface_hub package: "
                                "pip install huggingface_hub") from None
    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset", local_dir=folder,
                                    token=token, endpoint=endpoint))
    except Exception as error:  # of the HTTP library, which differs between versions of the hub's
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArchiveError(f"{name} of {repository} could not be fetched from the hub: {first}"
                           ) from error


def sources(path, *, events="original_event_list"):
    """Read the sources of the corpus one after the other.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file, gzipped or not.
    events : str, optional
        Which photons: ``"original_event_list"``, the whole observation, or ``"event_list"``, the
        window of 8 h.

    Yields
    ------
    row : dict
        The catalogue columns, as they are in the file, and ``line``, counted from 1.
    event_list : `~stingray_align.EventList` or None
        None if the line cannot be used.
    reason : str or None
        Why not, with the number of the line. A file that is cut off gives everything that is
        whole, and then one such reason.

    Raises
    ------
    FileNotFoundError
        There is no such file.

    Notes
    -----
    Pairs ``[[t, E], ...]`` are read, and ``{"time": [...], "energy": [...]}`` as well.

    Examples
    --------
    >>> from pathlib import Path
    >>> from stingray_align.datasets import axia
    >>> _ = Path("corpus.jsonl").write_text(
    ...     '{"obsid": 9, "original_event_list": [[100.0, 1500.0], [130.0, 800.0]]}')
    >>> for row, events, reason in axia.sources("corpus.jsonl"):
    ...     print(row, events.energy, reason)
    {'line': 1, 'obsid': 9} [1.5 0.8] None
    """
    if events not in _LISTS:
        raise ValueError(f"events is {events!r}; choose one of {', '.join(_LISTS)}")
    path = Path(path)
    with _opened(path) as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(_LONGEST_LINE)
            except (EOFError, OSError, zlib.error) as error:
                yield {"line": number}, None, (
                    f"{path.name} is cut off or damaged in line {number} ({error}); what came "
                    "before is whole, fetch the file again for the rest")
                return
            if not line:
                return
            if len(line) == _LONGEST_LINE:
                yield {"line": number}, None, f"line {number} is longer than any source could be"
                return
            if not line.strip():
                continue
            row = {"line": number}
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise EventDataError("it holds no JSON object")
                row |= {k: v for k, v in entry.items() if k not in _LEFT_OUT}
                found = _event_list(entry, events)
            except (ValueError, RecursionError) as error:
                yield row, None, f"line {number}: {error}"
            else:
                yield row, found, None


def _opened(path):
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _event_list(entry, which):
    photons = entry.get(which)
    if photons is None:
        raise EventDataError(f"it has no {which}")
    if isinstance(photons, dict):
        if not {"time", "energy"} <= set(photons):
            raise EventDataError(f"{which} has no lists named time and energy")
        photons = list(zip(photons["time"], photons["energy"], strict=True))
    no_pairs = EventDataError(f"{which} is no list of [time, energy] pairs of numbers")
    try:
        photons = np.array(photons, dtype=float)
    except (TypeError, ValueError):
        raise no_pairs from None
    if photons.size and (photons.ndim != 2 or photons.shape[1] != 2):
        raise no_pairs
    if len(photons) < 2:
        raise EventDataError(f"{which} has fewer than two photons, so that the exposure is unknown")
    if not np.isfinite(photons).all():
        raise EventDataError(f"{which} holds values that are not finite")
    if np.median(photons[:, 1]) < 20:
        raise EventDataError(f"the energies of {which} are not in eV (median "
                             f"{np.median(photons[:, 1]):.3g})")
    times, energies = photons[np.argsort(photons[:, 0], kind="stable")].T
    if times[0] == times[-1]:
        raise EventDataError(f"all photons of {which} are at one instant")
    return EventList(times, energy=energies / 1000, gti=[[times[0], times[-1]]],
                     mission="chandra", instr="ACIS", mjdref=50814.0)


def to_table(rows):
    """Catalogue columns of many sources as a table with units.

    Parameters
    ----------
    rows : list of dict
        From `sources`.

    Returns
    -------
    `~astropy.table.QTable`
        NaN, or an empty string, where a source has no value.

    Examples
    --------
    >>> from stingray_align.datasets import axia
    >>> print(axia.to_table([{"obsid": 9, "bb_kt": 0.3}, {"obsid": 10, "bb_kt": None}]))
    obsid bb_kt
           keV
    ----- -----
        9   0.3
       10   nan
    """
    table = QTable()
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        if all(isinstance(value, bool | int) for value in values):
            table[name] = values
        elif all(value is None or isinstance(value, bool | int | float) for value in values):
            column = np.array([np.nan if value is None else value for value in values], dtype=float)
            table[name] = column * u.Unit(UNITS[name]) if name in UNITS else column
        else:
            table[name] = [_words(value) for value in values]
    return table


def _words(value):
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


@dataclass
class Written:
    """What `write` made of the corpus.

    Attributes
    ----------
    folder : `~pathlib.Path`
    table : `~astropy.table.QTable`
        One row for each source with its catalogue columns and ``file``, relative to ``folder``.
    failed : list of str
        Which lines could not be used, and why.
    n_before : int
        Event files that were there from an earlier call.
    """

    folder: Path
    table: QTable
    failed: list = field(default_factory=list)
    n_before: int = 0

    def __str__(self):
        lines = [f"{len(self.table)} event files in {self.folder} ({self.n_before} from before)"]
        return "\n".join(lines + [f"left out: {why}" for why in self.failed])


def write(path, folder, *, events="original_event_list", limit=None, progress=True):
    """Turn the corpus into a folder of event files and a table of catalogue columns.

    Call it again to go on where an earlier call stopped: files that are there are whole.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The corpus.
    folder : str or `~pathlib.Path`
        Gets ``events/*.fits`` and ``sources.ecsv``.
    events : str, optional
        Which photons, as in `sources`.
    limit : int, optional
        Stop after so many sources.
    progress : bool, optional
        Show a bar on a terminal.

    Returns
    -------
    Written

    Raises
    ------
    FileNotFoundError
        There is no such file.
    EventDataError
        No source in it can be used, since it is no corpus for example. Nothing is written then.
    OSError
        The folder cannot be written, for example because the disk is full. What was written before
        is whole.
    """
    folder = Path(folder)
    rows, failed, names, n_before = [], [], set(), 0
    for row, found, reason in tqdm(sources(path, events=events), unit="source",
                                   disable=None if progress else True):
        if limit is not None and len(rows) == limit:
            break
        name = _file_name(row)
        if reason is None and name in names:
            reason = f"line {row['line']}: the same detection as in an earlier line"
        if reason is not None:
            failed.append(reason)
            continue
        names.add(name)
        target = folder / "events" / name
        if target.exists():
            n_before += 1
        else:
            with atomic_file(target) as temporary:
                _write_fits(temporary, found, row)
        rows.append(row | {"file": f"events/{name}"})
    if not rows:
        raise EventDataError(f"{path} holds no source of the corpus"
                             + "".join(f": {reason}" for reason in failed[:1]))
    table = to_table(rows)
    with atomic_file(folder / "sources.ecsv") as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
    return Written(folder, table, failed, n_before)


def _file_name(row):
    """A name made of what identifies a detection; nothing in the corpus can lead elsewhere."""
    parts = [f"{prefix}{row[key]}" for prefix, key in
             (("", "obsid"), ("", "obi"), ("r", "region_id"), ("", "source_name"))
             if row.get(key) is not None]
    name = re.sub(r"[^A-Za-z0-9+.-]+", "_", "_".join(parts)).lstrip(".")[:100]
    return f"axia_{name or row['line']}.fits"


def _write_fits(path, events, row):
    table = fits.BinTableHDU.from_columns([
        fits.Column("TIME", "D", unit="s", array=events.time),
        fits.Column("ENERGY", "D", unit="eV", array=events.energy * 1000),
    ], name="EVENTS")
    gti = fits.BinTableHDU.from_columns([
        fits.Column("START", "D", unit="s", array=events.gti[:, 0]),
        fits.Column("STOP", "D", unit="s", array=events.gti[:, 1]),
    ], name="GTI")
    for hdu in (table, gti):
        hdu.header.update(TELESCOP="CHANDRA", INSTRUME="ACIS", MJDREF=50814.0, TIMESYS="TT",
                          TIMEUNIT="s", TIMEZERO=0.0, TSTART=events.gti[0, 0],
                          TSTOP=events.gti[-1, 1],
                          GTIAPPRX=(True, "first to last photon, true GTIs unknown"))
        for key, name in (("OBJECT", "source_name"), ("OBS_ID", "obsid")):
            text = str(row.get(name) or "")
            if text and text.isascii() and text.isprintable():
                hdu.header[key] = text[:60]
    fits.HDUList([fits.PrimaryHDU(), table, gti]).writeto(path, overwrite=True)
