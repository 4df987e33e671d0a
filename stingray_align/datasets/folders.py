"""Folders of event files of any mission: which files hold events, and what each of them says.

Files are found by what they begin with, not by their names, and are read one at a time, so that a
folder of any size fits in memory and one bad file does not stop the others.
"""

import os
from pathlib import Path

from .._event_files import guess_format
from ..errors import EventDataError
from ..events import EventList

__all__ = ["event_files", "read_event_files"]

# Named like a FITS file, whatever it begins with: a failed download should be reported, not passed
# over in silence.
_SUFFIXES = {".fits", ".fit", ".fts", ".evt"}


def event_files(folder):
    """Files in a folder, and in the folders below it, that may hold events.

    Those that begin as FITS (plain or gzipped), ECSV or HDF5 do, and those that are named like
    FITS. Hidden files and folders are left out.

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
    >>> from stingray_align.datasets import event_files
    >>> _ = Path("notes.txt").write_text("nothing")
    >>> _ = Path("source.evt").write_bytes(b"SIMPLE  =                    T")
    >>> [path.name for path in event_files(".")]
    ['source.evt']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    found = []
    for here, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = (Path(here, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file() and _may_hold_events(path)]
    return sorted(found)


def _may_hold_events(path):
    if _SUFFIXES & {suffix.lower() for suffix in path.suffixes}:
        return True
    try:
        guess_format(os.fspath(path))
    except (EventDataError, OSError):
        return False
    return True


def read_event_files(paths, *, read=EventList.read):
    """Read event files one after the other, and say what is wrong with those that are bad.

    Parameters
    ----------
    paths : iterable of str or `~pathlib.Path`
        For example from `event_files`.
    read : callable, optional
        Makes an `EventList` of a path.

    Yields
    ------
    path : `~pathlib.Path`
    events : EventList or None
        None if the file cannot be used.
    reason : str or None
        Why not, in one line.

    Examples
    --------
    >>> from pathlib import Path
    >>> from stingray_align.datasets import read_event_files
    >>> _ = Path("source.evt").write_bytes(b"SIMPLE  =                    T")
    >>> for path, events, reason in read_event_files(["source.evt"]):
    ...     print(path, events, reason)
    source.evt None source.evt ...
    """
    for path in map(Path, paths):
        try:
            yield path, read(path), None
        except (OSError, ValueError) as error:
            yield path, None, " ".join(str(error).split()) or type(error).__name__
