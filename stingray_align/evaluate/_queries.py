"""Do plain words find the right kind of source?

Every question describes a class in everyday words, without the phrases that summaries are made of.
It is asked as it is, and rewritten into the terms of a catalogue
(`stingray_align.text.understand`); the answers are a catalogue's sources.
"""

import importlib.resources
import json
from dataclasses import dataclass

import numpy as np

from ._report import Report, bootstrap, figures, joined_errors

__all__ = ["QueriesResult", "plain_queries", "queries"]

_PLACES = (1, 5, 10)
_CHUNK = 64


def plain_queries():
    """The bundled questions in plain words.

    Returns
    -------
    list of dict
        ``query``, ``class``, and ``split``: ``"development"`` for those that the glossary was
        made with, ``"held-out"`` for those that nothing was made with.

    Examples
    --------
    >>> from stingray_align.evaluate import plain_queries
    >>> plain_queries()[3]["class"]
    'tidal disruption event'
    """
    file = importlib.resources.files(__package__) / "data" / "plain_queries.json"
    return json.loads(file.read_text(encoding="utf-8"))


def queries(asked, expected, source_vectors, source_classes, *, parts=None, remarks=(), seed=0,
            n_resamples=400):
    """Measure which classes the sources found by questions belong to.

    Parameters
    ----------
    asked : dict of array_like, shape (n_queries, d)
        Way of asking to the projected questions.
    expected : array_like of str, shape (n_queries,)
        The class that each question means.
    source_vectors : array_like, shape (n, d)
        Sources in the shared space.
    source_classes : array_like of str, shape (n,)
        Their classes.
    parts : array_like of str, shape (n_queries,), optional
        Part of each question; the parts are scored apart.
    remarks : sequence of str, optional
        Further notes to print.
    seed : int, optional
        Of the bootstrap.
    n_resamples : int, optional
        Bootstrap samples over classes: several questions on a class are alike.

    Returns
    -------
    QueriesResult

    Raises
    ------
    ValueError
        If shapes do not fit, or no source is of a class that was asked for.
    """
    expected, source_classes = (np.asarray(x).astype(str) for x in (expected, source_classes))
    parts = np.full(len(expected), "all") if parts is None else np.asarray(parts).astype(str)
    if absent := set(expected) - set(source_classes):
        raise ValueError(f"No source is of the class {sorted(absent)}.")
    sources = _unit(source_vectors, len(source_classes), "source_vectors")
    n_places = min(max(_PLACES), len(sources))
    found = {}
    for way, vectors in asked.items():
        vectors = _unit(vectors, len(expected), f"asked[{way!r}]")
        places = [np.argsort(-(vectors[i:i + _CHUNK] @ sources.T), axis=1,
                             kind="stable")[:, :n_places] for i in range(0, len(vectors), _CHUNK)]
        found[way] = source_classes[np.concatenate(places)]
    share = np.array([(source_classes == name).mean() for name in expected])
    return QueriesResult(expected=expected, parts=parts, found=found, share=share,
                         remarks=tuple(remarks), seed=seed, n_resamples=n_resamples)


def _unit(vectors, n, name):
    vectors = np.asarray(vectors, dtype=float)
    if vectors.ndim != 2 or len(vectors) != n:
        raise ValueError(f"{name} has shape {vectors.shape}, expected ({n}, d).")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class QueriesResult(Report):
    """Classes of the sources found.

    Attributes
    ----------
    expected, parts : ndarray of str, shape (n_queries,)
        Class that was meant, and part of the question.
    found : dict of ndarray of str, shape (n_queries, 10)
        Way of asking to the classes of the first sources, best first.
    share : ndarray, shape (n_queries,)
        Share of the sources that are of the right class.
    """

    expected: np.ndarray
    parts: np.ndarray
    found: dict
    share: np.ndarray
    remarks: tuple
    seed: int
    n_resamples: int

    title = property(lambda self: f"{len(self.expected)} questions in plain words on "
                                  f"{len(set(self.expected))} classes")

    @property
    def notes(self):
        """How to read the table."""
        return ("Recall@k: share of the questions with a source of the right class among the first "
                "k; right of 10: share of the first ten sources.",
                "Errors: bootstrap over classes. Chance: sources drawn at random.", *self.remarks)

    @property
    def primary_is(self):
        """What the primary figure is."""
        return (f"first source of the right class, {self.parts[-1]} questions, "
                f"{list(self.found)[-1]}")

    @property
    def primary(self):
        """Recall@1 of the last way of asking on the last part, an `Estimate`."""
        return self.scores(list(self.found)[-1], self.parts[-1])["Recall@1"]

    def scores(self, way, part):
        """Scores of one way of asking.

        Parameters
        ----------
        way : str
            A key of ``found``.
        part : str
            Which questions.

        Returns
        -------
        dict of Estimate
        """
        own = self.parts == part
        right = self.found[way][own] == self.expected[own][:, None]
        each = np.stack([*(right[:, :k].any(axis=1) for k in _PLACES), right.mean(axis=1)])
        values = bootstrap(lambda rows: each[:, rows].mean(axis=1), each.shape[1],
                           groups=self.expected[own], seed=self.seed,
                           n_resamples=self.n_resamples)
        return dict(zip(_SCORES, values, strict=True))

    def to_table(self):
        """A row for each part and way of asking, and one of chance."""
        rows = []
        for part in dict.fromkeys(self.parts):
            own = self.parts == part
            for way in self.found:
                rows.append((part, int(own.sum()), way,
                             *(x for score in self.scores(way, part).values() for x in score[:2])))
            chance = [*(np.mean(1 - (1 - self.share[own]) ** k) for k in _PLACES),
                      self.share[own].mean()]
            rows.append((part, int(own.sum()), "chance", *(x for c in chance for x in (c, 0.0))))
        return figures(rows, ["part", "questions", "asked",
                              *(c for name in _SCORES for c in (name, f"{name} error"))])

    def tables(self):
        """Scores with their errors."""
        return [joined_errors(self.to_table())]


_SCORES = (*(f"Recall@{k}" for k in _PLACES), "right of 10")
