"""Folders of event files of any mission: which files hold events, and what each of them says.

Files are found by what is in them, not by their names, and are read one at a time, so that a
folder of any size fits in memory and one bad file does not stop the others.
"""

import os
import warnings
from pathlib import Path

from astropy.io import fits

from .._event_files import guess_format
from ..errors import EventDataError
from ..events import EventList

__all__ = ["event_files", "read_event_file", "read_event_files"]

# Named like a FITS file: if nothing can be read from it, that should be reported and not passed
# over in silence.
_SUFFIXES = {".fits", ".fit", ".fts", ".evt"}


def event_files(folder):
    """Files in a folder, and in the folders below it, that hold events.

    FITS files (plain or gzipped) and ECSV tables with a column named time, and HDF5 files. Images,
    spectra, region files and other tables are left out, and so is what is hidden. Files that are
    damaged, or are named like FITS and hold something else, are listed, so that reading them tells
    what is wrong.

    Parameters
    ----------
    folder : str or `~pathlib.Path`

    Returns
    -------
    list of `~pathlib.Path`
        Sorted.

    Raises
    ------
    NotADirectoryError
        There is no such folder.

    Examples
    --------
    >>> from pathlib import Path
    >>> import stingray_align as sa
    >>> _ = Path("notes.txt").write_text("nothing")
    >>> sa.EventList([1.0, 2.0], energy=[1.0, 3.0], gti=[[0, 5]]).write("source.ecsv")
    >>> [path.name for path in sa.datasets.event_files(".")]
    ['source.ecsv']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    found = []
    for here, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        paths = (Path(here, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file() and _may_hold_events(path)]
    return sorted(found)


def _may_hold_events(path):
    named_so = not _SUFFIXES.isdisjoint(suffix.lower() for suffix in path.suffixes)
    try:
        kind = guess_format(os.fspath(path))
        if kind == "hea":
            return _has_times(path)
        return kind == "hdf5" or _names_times(path)
    except (EventDataError, OSError):
        return named_so


def _has_times(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path) as hdus:
                return any("time" in map(str.lower, hdu.columns.names) for hdu in hdus
                           if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)))
    except Exception:  # astropy raises anything on damaged files
        return True


def _names_times(path):
    """Whether the header of an ECSV table names a column time."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("#"):
                return False
            if line.startswith("# - {name: time,"):
                return True
    return False


def read_event_file(path, **kwargs):
    """Read a file of one source, or of its surroundings if the file tells which photons are its.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        An event file of the Chandra Source Catalog is read by `~stingray_align.datasets.csc.read`,
        with its source region, any other by `stingray_align.EventList.read`.
    **kwargs
        Passed to these.

    Returns
    -------
    `~stingray_align.EventList`
    """
    from . import csc

    read = csc.read if csc.is_event_file(path) else EventList.read
    return read(path, **kwargs)


def read_event_files(paths, *, read=read_event_file):
    """Read event files one after the other, and say what is wrong with those that are bad.

    Parameters
    ----------
    paths : iterable of str or `~pathlib.Path`
        For example from `event_files`.
    read : callable, optional
        Makes an `~stingray_align.EventList` of a path.

    Yields
    ------
    path : `~pathlib.Path`
    events : `~stingray_align.EventList` or None
        None if the file cannot be used.
    reason : str or None
        Why not, in one line.

    Examples
    --------
    >>> from pathlib import Path
    >>> import stingray_align as sa
    >>> _ = Path("source.evt").write_bytes(b"SIMPLE  =                    T")
    >>> for path, events, reason in sa.datasets.read_event_files(["source.evt"]):
    ...     print(path, events, reason)
    source.evt None source.evt ...
    """
    for path in map(Path, paths):
        try:
            yield path, read(path), None
        except (OSError, ValueError) as error:
            yield path, None, " ".join(str(error).split()) or type(error).__name__
