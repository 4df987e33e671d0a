"""Answers of services, kept on disk: no question is asked twice.

One small JSON file per question. A file that was damaged, or that holds another question, counts
as absent; an empty answer is an answer.
"""

import hashlib
import json
import time
from pathlib import Path

from .._files import atomic_file

__all__ = ["Answers"]


class Answers:
    """A folder of answers.

    Parameters
    ----------
    folder : str, Path or None
        `None` takes ``stingray-align/literature`` in Astropy's cache.
    max_age : float or None
        Days after which an answer is asked for again; `None` never.
    """

    def __init__(self, folder=None, *, max_age=None):
        if folder is None:
            from astropy.config import get_cache_dir_path

            folder = get_cache_dir_path() / "stingray-align" / "literature"
        self.folder = Path(folder)
        self.max_age = max_age

    def _file(self, question):
        name = hashlib.sha256(question.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"  # a flat folder of 50,000 files is slow

    def get(self, question):
        """The answer, or `None` if there is none that can be used."""
        try:
            entry = json.loads(self._file(question).read_text(encoding="utf-8"))
            usable = entry["question"] == question and entry["check"] == _check(entry["answer"])
            age = (time.time() - entry["time"]) / 86400
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not usable or (self.max_age is not None and age >= self.max_age):
            return None
        return entry["answer"]

    def put(self, question, answer):
        """Keep an answer (anything JSON can hold)."""
        entry = {"question": question, "time": time.time(), "check": _check(answer),
                 "answer": answer}
        with atomic_file(self._file(question)) as temporary:
            temporary.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")


def _check(answer):
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:16]
