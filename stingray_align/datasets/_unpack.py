"""Unpacking of what an archive sends, without trusting it.

A tar is read as a stream, member by member, so that nothing is held in memory and what came before
a lost connection is kept. No name in it ever becomes a path: a member is written under a temporary
name and is handed over only after it has been read as what it claims to be.
"""

import contextlib
import gzip
import re
import shutil
import tarfile
import warnings
import zlib
from pathlib import PurePosixPath

from astropy.io import fits

from ..errors import ArchiveError, EventDataError

__all__ = ["CutOffError", "check_area", "check_events", "check_region", "members"]

_CHUNK = 1 << 20
#: No file may be larger than this, packed or unpacked.
MAX_SIZE = 2 << 30
#: No file may grow more than this when unpacked, once it is larger than a few sky images.
MAX_RATIO, RATIO_FROM = 100, 64 << 20


class CutOffError(ArchiveError):
    """An answer ends before its end; worth another try."""


def members(stream, wanted, scratch):
    """Write the wanted members of a tar into a scratch file, one after the other.

    Parameters
    ----------
    stream : file-like
        An uncompressed tar, read once from its beginning to its end.
    wanted : callable
        Takes the last part of a member's name and tells whether it is wanted; what is not wanted
        is passed over.
    scratch : `~pathlib.Path`
        Where each member is written; the next one overwrites it.

    Yields
    ------
    str
        Last part of the name of the member that ``scratch`` holds.

    Raises
    ------
    CutOffError
        The stream ends inside a member.
    ArchiveError
        The stream is no tar, or has a member that must not be unpacked: an absolute name, one that
        leaves its folder, a link, a device, or too large a file.
    OSError
        ``scratch`` cannot be written.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.isdir():
                    _check_name(member)
                    continue
                _check(member)
                name = PurePosixPath(member.name).name
                if wanted(name):
                    with tar.extractfile(member) as packed, scratch.open("wb") as file:
                        shutil.copyfileobj(packed, file, _CHUNK)
                    yield name
    except tarfile.TarError as error:
        if "unexpected end" in str(error):
            raise CutOffError("the answer was cut off") from error
        raise ArchiveError(f"the answer is no whole tar file ({error})") from error


def _check_name(member):
    parts = PurePosixPath(member.name).parts
    if member.name.startswith(("/", "~")) or ".." in parts or "\\" in member.name:
        raise ArchiveError(f"refused: the name {member.name!r} leads out of the folder")


def _check(member):
    """Refuse what no archive of event files has a reason to send."""
    _check_name(member)
    if member.issym() or member.islnk():
        raise ArchiveError(f"refused: {member.name!r} is a link to {member.linkname!r}")
    if not member.isfile() or member.issparse():
        raise ArchiveError(f"refused: {member.name!r} is not a plain file")
    if member.size > MAX_SIZE:
        raise ArchiveError(f"refused: {member.name!r} is too large ({member.size / 1e9:.1f} GB)")


def check_events(path, scratch):
    """Make sure that a file, plain or gzipped, is a whole FITS file with a table of events.

    Parameters
    ----------
    path : `~pathlib.Path`
    scratch : `~pathlib.Path`
        Where it is unpacked for the check.

    Raises
    ------
    ArchiveError
        It is not, or its checksums do not fit its contents.
    """
    with _opened(path, scratch) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
        for hdu in tables:
            columns = {name.lower() for name in hdu.columns.names}
            if {"time", "energy"} <= columns or {"time", "pi"} <= columns:
                _ = hdu.data  # so that a table that is cut short is found
                break
        else:
            raise ArchiveError("it holds no table of events")


def check_region(path, scratch):
    """The same for a region file."""
    from ..regions import read_regions

    with _opened(path, scratch):
        pass
    try:
        read_regions(scratch)
    except EventDataError as error:
        raise ArchiveError("it holds no source region") from error


def check_area(path, scratch):
    """The same for an ancillary response file."""
    from ..instruments import read_arf
    from ..photons import CHANNEL_EDGES

    with _opened(path, scratch):
        pass
    try:
        read_arf(scratch, CHANNEL_EDGES)
    except EventDataError as error:
        raise ArchiveError("it holds no effective area") from error


@contextlib.contextmanager
def _opened(path, scratch):
    """The HDUs of a FITS file, with whatever is wrong with them turned into ArchiveError."""
    _gunzip(path, scratch)
    try:
        with scratch.open("rb") as file, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with fits.open(file, checksum=True, memmap=False) as hdus:
                len(hdus)  # reads all headers and compares all checksums
                yield hdus
            for warning in caught:
                if re.search("verification failed|truncated|non-ASCII", str(warning.message)):
                    raise ArchiveError("it is damaged: " + str(warning.message).strip())
    except ArchiveError:
        raise
    except (OSError, TypeError, ValueError, KeyError, IndexError) as error:
        raise ArchiveError(f"it is no whole FITS file ({error})") from error


def _gunzip(path, scratch):
    """Copy a file to ``scratch``, unpacked within the limits."""
    with path.open("rb") as packed, scratch.open("wb") as file:
        if packed.read(2) != b"\x1f\x8b":
            packed.seek(0)
            shutil.copyfileobj(packed, file, _CHUNK)
            return
        packed.seek(0)
        limit = min(MAX_SIZE, max(RATIO_FROM, MAX_RATIO * path.stat().st_size))
        size = 0
        with gzip.GzipFile(fileobj=packed) as unpacked:
            while chunk := _read(unpacked):
                size += len(chunk)
                if size > limit:
                    raise ArchiveError("refused: it unpacks to far more than it should")
                file.write(chunk)


def _read(unpacked):
    try:
        return unpacked.read(_CHUNK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ArchiveError(f"it is a damaged gzip file ({error})") from error
