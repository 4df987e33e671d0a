"""Does a space of texts tell meaning from wording?

A bundled set of sentences holds, for each of the 28 classes, some in the jargon of the field,
paraphrases in plain words that share no technical term with them, and *hard negatives*, which
share the jargon and mean something else. No model of this package was trained on them, and the
glossary was fixed before they were written. Two questions are asked of vectors of the sentences:

- Is the jargon sentence nearest to a paraphrase of the paraphrase's class? Once with the jargon
  sentences as the only candidates, once among everything that is not a paraphrase of the same
  class, where sentences that are merely alike in style compete.
- Is a jargon sentence nearer to a paraphrase of its class than to a hard negative?
"""

import importlib.resources
import json
from dataclasses import dataclass

import numpy as np

from ._report import Report, bootstrap, figures, joined_errors

__all__ = ["DomainSenseResult", "domain_sense", "domain_sentences"]

KINDS = ("jargon", "paraphrase", "hard negative")
MEASURES = ("class of the nearest jargon sentence", "the same among all sentences",
            "paraphrase nearer than hard negative")


def domain_sentences():
    """The bundled sentences.

    Returns
    -------
    list of dict
        Each with ``class``, ``kind`` ("jargon", "paraphrase" or "hard negative": of a hard
        negative the class is the one whose jargon it shares, not what it is about) and ``text``.

    Examples
    --------
    >>> from stingray_align.evaluate import domain_sentences
    >>> len(domain_sentences())
    336
    """
    file = importlib.resources.files(__package__) / "data" / "domain_sense.json"
    return json.loads(file.read_text(encoding="utf-8"))


def domain_sense(vectors, sentences=None, *, seed=0, n_resamples=1000):
    """Measure how well vectors of sentences tell meaning from wording.

    Parameters
    ----------
    vectors : dict of array_like, shape (n, d)
        Vectors of the sentences, in their order, by the name of what made them. The others are
        compared with the first. They are scaled to unit length here.
    sentences : list of dict, optional
        As `domain_sentences`, the default; every class needs all three kinds.
    seed : int, optional
        Seed of the bootstrap over classes.
    n_resamples : int, optional
        Bootstrap samples.

    Returns
    -------
    DomainSenseResult

    Raises
    ------
    ValueError
        If there is not one finite vector for each sentence, or a class lacks a kind.

    Examples
    --------
    >>> import numpy as np
    >>> from stingray_align.evaluate import domain_sense, domain_sentences
    >>> classes = [sentence["class"] for sentence in domain_sentences()]
    >>> perfect = np.unique(classes, return_inverse=True)[1][:, None] == np.arange(28)
    >>> domain_sense({"classes": perfect}).primary.value
    1.0
    """
    sentences = domain_sentences() if sentences is None else sentences
    classes, label = np.unique([s["class"] for s in sentences], return_inverse=True)
    kind = np.array([s["kind"] for s in sentences])
    for i, name in enumerate(classes):
        if missing := set(KINDS) - set(kind[label == i]):
            raise ValueError(f"class {str(name)!r} has no sentence of kind "
                             f"{', '.join(sorted(missing))}")
    if not vectors:
        raise ValueError("no vectors were given")
    by_class = np.array([_by_class(_unit(v, name, len(sentences)), label, kind, len(classes))
                         for name, v in vectors.items()])

    def statistic(rows):
        mean = by_class[:, :, rows].mean(axis=2)
        first = np.where(mean[0] > 0, mean[0], np.nan)  # nothing is a multiple of zero
        return np.concatenate([mean.ravel(), (mean / first).ravel()])

    found = bootstrap(statistic, len(classes), seed=seed, n_resamples=n_resamples)
    values, ratios = np.split(np.arange(len(found)), 2)
    names = [(name, measure) for name in vectors for measure in MEASURES]
    return DomainSenseResult(
        estimates={key: found[i] for key, i in zip(names, values, strict=True)},
        ratios={key: found[i] for key, i in zip(names, ratios, strict=True)},
        by_class={name: dict(zip(classes.tolist(), per[0].tolist(), strict=True))
                  for name, per in zip(vectors, by_class, strict=True)},
        chance=dict(zip(MEASURES, _chance(label, kind), strict=True)),
        n_sentences={name: int((kind == name).sum()) for name in KINDS})


def _unit(vectors, name, n):
    vectors = np.asarray(vectors, dtype=float)
    if vectors.ndim != 2 or len(vectors) != n or not np.isfinite(vectors).all():
        raise ValueError(f"{name!r} needs one finite vector for each of the {n} sentences, not an "
                         f"array of shape {vectors.shape}")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _by_class(vectors, label, kind, n_classes):
    """Each measure for each class, shape (3, n_classes)."""
    similarity = vectors @ vectors.T
    jargon, plain, negative = (np.flatnonzero(kind == name) for name in KINDS)
    out = np.empty((len(MEASURES), n_classes))
    for i in range(n_classes):
        asked, right = plain[label[plain] == i], jargon[label[jargon] == i]
        others = np.setdiff1d(np.arange(len(label)), np.concatenate([asked, right]))
        own = similarity[np.ix_(asked, right)].max(axis=1)
        for row, rivals in enumerate([np.intersect1d(others, jargon), others]):
            best = similarity[np.ix_(asked, rivals)].max(axis=1, initial=-1)
            out[row, i] = _ahead(own, best).mean()
        own = similarity[np.ix_(right, asked)][:, :, None]
        wrong = similarity[np.ix_(right, negative[label[negative] == i])][:, None]
        out[2, i] = _ahead(own, wrong).mean()
    return out


def _ahead(own, other):
    # ties count half: a space in which everything coincides must not look perfect
    return np.where(np.isclose(own, other, rtol=0, atol=1e-9), 0.5, own > other)


def _chance(label, kind):
    """What random similarities would give, the class of a paraphrase drawn at random."""
    share = []
    for asked in np.flatnonzero(kind == "paraphrase"):
        right = (kind == "jargon") & (label == label[asked])
        excluded = (kind == "paraphrase") & (label == label[asked])
        share.append((right.sum() / (kind == "jargon").sum(), right.sum() / (~excluded).sum()))
    return (*np.mean(share, axis=0).tolist(), 0.5)


@dataclass(frozen=True, eq=False)
class DomainSenseResult(Report):
    """How well spaces of texts tell meaning from wording.

    Attributes
    ----------
    estimates : dict of Estimate
        By (name of the vectors, measure).
    ratios : dict of Estimate
        The same over the value of the first vectors, resampled together.
    by_class : dict of dict of float
        The first measure by name of the vectors and class.
    chance : dict of float
        By measure: what random similarities would give.
    n_sentences : dict of int
        By kind.
    """

    estimates: dict
    ratios: dict
    by_class: dict
    chance: dict
    n_sentences: dict

    notes = ("Errors: bootstrap over classes. over first: in units of the first row of the "
             "measure, nan where that is zero.",)

    @property
    def title(self):
        counts = ", ".join(f"{n} of kind {name}" for name, n in self.n_sentences.items())
        return f"Meaning and wording of sentences: {counts}"

    @property
    def primary(self):
        """Class of the jargon sentence nearest to a paraphrase, by the last vectors."""
        return self.estimates[list(self.by_class)[-1], MEASURES[0]]

    def to_table(self):
        """Figures as a `~astropy.table.QTable`, a row for each measure and kind of vectors."""
        rows = []
        for measure in MEASURES:
            for name in self.by_class:
                value, ratio = self.estimates[name, measure], self.ratios[name, measure]
                rows.append((measure, name, value.value, value.error, self.chance[measure],
                             ratio.value, ratio.error))
        return figures(rows, ["measure", "vectors", "accuracy", "accuracy error", "chance",
                              "over first", "over first error"],
                       formats={"over first": ".2f", "over first error": ".2f"})

    def tables(self):
        return [joined_errors(self.to_table())]
