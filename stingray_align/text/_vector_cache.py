"""Vectors of texts on disk, so that no text is encoded twice.

One SQLite file holds a half-precision vector for each text, keyed by a hash of the text and of
everything that shapes its vector (model and revision, pooling, prompt, length). Vectors are added
batch by batch, each batch whole or not at all, so an interrupted run loses no more than a batch,
and several processes may share the file.
"""

import contextlib
import hashlib
import sqlite3
from pathlib import Path

import numpy as np

from ..errors import ModelFileError

__all__ = ["VectorCache"]

_ASKED = 500  # keys in one question to the database


class VectorCache:
    """Vectors by key.

    Parameters
    ----------
    path : str or Path
        The file; made when first written to.
    settings : str
        What, besides the text, shapes a vector.
    dim : int
        Length of a vector.
    """

    def __init__(self, path, settings, dim):
        self.path, self.settings, self.dim = Path(path), settings, dim

    def key(self, text):
        """Hash of a text under the settings."""
        return hashlib.sha256(f"{self.settings}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def get(self, keys):
        """Vectors of those keys that are stored.

        Parameters
        ----------
        keys : sequence of bytes

        Returns
        -------
        dict of ndarray, shape (dim,), float16
        """
        if not self.path.is_file():
            return {}
        found, keys = {}, list(keys)
        with self._open() as database:
            for start in range(0, len(keys), _ASKED):
                some = keys[start:start + _ASKED]
                marks = ",".join("?" * len(some))
                found.update(database.execute(
                    f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some))
        if any(len(blob) != 2 * self.dim for blob in found.values()):
            raise ModelFileError(f"{self.path} holds vectors of another length: delete it")
        return {key: np.frombuffer(blob, "<f2") for key, blob in found.items()}

    def put(self, keys, vectors):
        """Store vectors, all of them or none."""
        rows = [(key, vector.astype("<f2").tobytes())
                for key, vector in zip(keys, vectors, strict=True)]
        with self._open() as database, database:  # the second: a transaction
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    @contextlib.contextmanager
    def _open(self):
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as database:
                database.execute("CREATE TABLE IF NOT EXISTS vectors"
                                 " (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
                yield database
        except sqlite3.DatabaseError as error:
            raise ModelFileError(f"the vector cache {self.path} cannot be used ({error}): delete "
                                 "it, or name another file") from error
