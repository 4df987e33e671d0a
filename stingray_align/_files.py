"""Writing and reading of the files of this package: whole or not at all, and never by pickle."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as _serialise

from .errors import ModelFileError

__all__ = ["BUNDLED", "atomic_directory", "atomic_file", "check_directory", "read_tensors",
           "write_tensors"]

#: The models and the reference catalogue that come with the package.
BUNDLED = Path(__file__).parent / "data"


def _default_mode():
    # mkdtemp and mkstemp make private files; a finished file should follow the user's umask.
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_file(path):
    """Give a temporary path beside ``path`` that takes its place if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_default_mode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_directory(path, *, marker):
    """Raise FileExistsError if `atomic_directory` would not replace what is there."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file, not a directory; choose another path")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).exists():
        raise FileExistsError(
            f"{path} holds other files (no {marker}); choose an empty or a new directory"
        )


@contextlib.contextmanager
def atomic_directory(path, *, marker):
    """Give a temporary directory beside ``path`` that takes its place if the block succeeds.

    An existing directory is replaced only when it holds a file named ``marker`` or nothing at
    all, so that a mistyped path cannot wipe somebody's data.
    """
    path = Path(path)
    check_directory(path, marker=marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    new, old = scratch / "new", scratch / "old"
    new.mkdir()
    try:
        yield new
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_tensors(path, tensors, *, kind, version, about):
    """Save named arrays as safetensors, with ``about`` (anything JSON can hold) in the header."""
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    header = {
        "format": f"stingray-align {kind}",
        "version": str(version),
        "about": json.dumps(about, sort_keys=True),
        "sha256": _checksum(arrays),
    }
    with atomic_file(path) as temporary:
        temporary.write_bytes(_serialise(arrays, metadata=header))


def _checksum(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def read_tensors(path, *, kind, version):
    """Arrays and header of a file from :func:`write_tensors`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is damaged, of another kind or of another version. In files that were written
        before there were checksums, single values that changed are not noticed.
    """
    path = Path(path)
    command = f"`stingray-align {'train' if kind in ('autodecoder', 'checkpoint') else 'align'}`"
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} file at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelFileError(
            f"{path} is not a readable safetensors file ({error}); "
            f"fetch or make it again ({command})"
        ) from error
    if header.get("format") != f"stingray-align {kind}":
        raise ModelFileError(
            f"{path} is not a stingray-align {kind} (its header says "
            f"{header.get('format', 'nothing')!r}); check the path"
        )
    if header.get("version") != str(version):
        raise ModelFileError(
            f"{path} has version {header.get('version')!r} of the {kind} format and this release "
            f"reads version {version}; make it again with {command}"
        )
    if header.get("sha256") not in (None, _checksum(tensors)):
        raise ModelFileError(f"{path} is damaged (its values do not have the checksum they were "
                             f"written with); fetch or make it again ({command})")
    try:
        about = json.loads(header["about"])
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"{path} has a damaged header; make it again") from error
    return tensors, about
