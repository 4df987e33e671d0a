"""Do class probabilities mean what they say?

Of all sources whose likeliest class is given 70 %, seven in ten should be of that class. The
*expected calibration error* (ECE) is the mean distance between probability and share over parts of
equally many sources. It is above zero by chance, too: what perfect probabilities would give on as
many sources stands beside it.
"""

from dataclasses import dataclass

import numpy as np

from ._report import Report, bootstrap, figures, joined_errors
from ._splits import source_index

__all__ = ["ClassProbabilitiesResult", "class_probabilities"]

_PARTS = 10
_DRAWS = 200  # of labels from the probabilities, for the ECE that perfect ones would give
_LEAST = 1e-12


def class_probabilities(probabilities, labels, classes, *, groups=None, seed=0, n_resamples=400):
    """Measure the calibration and sharpness of class probabilities.

    Parameters
    ----------
    probabilities : array_like, shape (n, n_classes)
        One row per source, summing to 1.
    labels : array_like of str, shape (n,)
        True classes.
    classes : sequence of str
        Class of each column.
    groups : array_like, shape (n,), optional
        Source of each row.
    seed : int, optional
        Of the bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.

    Returns
    -------
    ClassProbabilitiesResult

    Raises
    ------
    ValueError
        If shapes do not fit, rows do not sum to one, or a label has no column.

    References
    ----------
    Guo, Pleiss, Sun & Weinberger 2017, ICML, 1321 (ECE).

    Examples
    --------
    >>> from stingray_align.evaluate import class_probabilities
    >>> sure = class_probabilities([[0.9, 0.1]] * 10, ["a"] * 9 + ["b"], ["a", "b"])
    >>> sure.scores["accuracy"].value
    0.9
    """
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels).astype(str)
    classes = tuple(classes)
    if probabilities.shape != (len(labels), len(classes)):
        raise ValueError(f"probabilities of shape {probabilities.shape} do not fit {len(labels)} "
                         f"labels and {len(classes)} classes.")
    if not (probabilities >= 0).all() or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-4):
        raise ValueError("Every row of probabilities must sum to 1.")
    if unknown := set(labels) - set(classes):
        raise ValueError(f"There is no column of probabilities for {sorted(unknown)}.")
    code = {name: i for i, name in enumerate(classes)}
    true = np.array([code[label] for label in labels])
    share = np.bincount(true, minlength=len(classes)) / len(true)
    scores = bootstrap(lambda rows: _figures(probabilities[rows], true[rows]), len(true),
                       groups=source_index(groups, len(true)), seed=seed, n_resamples=n_resamples)
    rng = np.random.default_rng(seed)
    above = probabilities.cumsum(axis=1)
    perfect = [_figures(probabilities, (rng.random((len(true), 1)) > above).sum(axis=1)
                        .clip(max=len(classes) - 1))[-1] for _ in range(_DRAWS)]
    chance = _figures(np.tile(share, (len(true), 1)), true)
    return ClassProbabilitiesResult(
        probabilities=probabilities, true=true, classes=classes,
        scores=dict(zip(_SCORES, scores, strict=True)),
        chance=dict(zip(_SCORES, (*chance[:-1], float(np.mean(perfect))), strict=True)),
        seed=seed, n_resamples=n_resamples)


_SCORES = ("accuracy", "among first 3", "log loss", "Brier score", "ECE")


def _figures(probabilities, true):
    rows = np.arange(len(true))
    own = probabilities[rows, true]
    ahead = (probabilities > own[:, None]).sum(axis=1)
    # Classes of equal probability share the places among them.
    level = (probabilities == own[:, None]).sum(axis=1)
    first, third = (np.clip((places - ahead) / level, 0, 1).mean() for places in (1, 3))
    brier = (probabilities**2).sum(axis=1) - 2 * own + 1
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    order = np.argsort(sure, kind="stable")
    ece = sum(len(part) * abs(sure[part].mean() - right[part].mean())
              for part in np.array_split(order, _PARTS) if len(part)) / len(true)
    return np.array([first, third, -np.log(np.maximum(own, _LEAST)).mean(), brier.mean(), ece])


@dataclass(frozen=True, eq=False)
class ClassProbabilitiesResult(Report):
    """Class probabilities and what became of them.

    Attributes
    ----------
    probabilities : ndarray, shape (n, n_classes)
    true : ndarray of int, shape (n,)
        Column of the true class.
    classes : tuple of str
    scores : dict of Estimate
        ``"accuracy"`` of the likeliest class, ``"among first 3"``, ``"log loss"`` (nats), ``"Brier
        score"`` and ``"ECE"``.
    chance : dict of float
        The same of probabilities that are the shares of the classes; for ``"ECE"`` what perfect
        probabilities would give on as many sources.
    """

    probabilities: np.ndarray
    true: np.ndarray
    classes: tuple
    scores: dict
    chance: dict
    seed: int
    n_resamples: int

    primary_is = "calibration error of class probabilities"
    title = property(lambda self: f"Class probabilities of {len(self.true)} sources, "
                                  f"{len(self.classes)} classes")
    notes = ("Errors: bootstrap over sources. Chance: the shares of the classes as probabilities; "
             "for the ECE what perfect probabilities would give.",)

    @property
    def primary(self):
        """Expected calibration error, an `Estimate`."""
        return self.scores["ECE"]

    def to_table(self):
        """A row for each score."""
        return figures([(name, score.value, score.error, self.chance[name])
                        for name, score in self.scores.items()],
                       ["score", "value", "value error", "chance"])

    def reliability(self, n_parts=_PARTS):
        """Share of right classes by probability: a row for each part of equally many sources.

        Parameters
        ----------
        n_parts : int, optional

        Returns
        -------
        `~astropy.table.QTable`
        """
        sure = self.probabilities.max(axis=1)
        right = self.probabilities.argmax(axis=1) == self.true
        rows = []
        for part in np.array_split(np.argsort(sure, kind="stable"), n_parts):
            if len(part):
                found = bootstrap(lambda i, own=right[part]: own[i].mean(), len(part),
                                  seed=self.seed, n_resamples=self.n_resamples)
                rows.append((len(part), sure[part].mean(), found.value, found.error))
        return figures(rows, ["sources", "probability", "right", "right error"])

    def tables(self):
        """Scores, and the numbers behind the reliability diagram."""
        return [joined_errors(self.to_table()), joined_errors(self.reliability())]
