"""How well can the class of a source be told in the shared space?

Two ways: from the classes of the nearest sources (k-NN, folds by source), and *zero-shot*, from
the nearest class description, for which no labelled source is needed.
"""

from dataclasses import dataclass

import numpy as np

from ._report import Report, bootstrap, figures
from ._splits import group_folds, source_index

__all__ = ["ClassificationResult", "classification"]


def classification(vectors, labels, *, class_vectors=None, groups=None, n_neighbors=10,
                   n_splits=5, seed=0, n_resamples=400):
    """Measure classification by neighbours, and by class descriptions.

    Parameters
    ----------
    vectors : array_like, shape (n, d)
        Sources in the shared space (or any features, scaled as distances should weigh them).
    labels : array_like, shape (n,)
        True classes.
    class_vectors : dict of array_like, shape (d,) or (m, d), optional
        Class to the projected vector(s) of its description(s), for the zero-shot score. Several
        are averaged.
    groups : array_like, shape (n,), optional
        Source of each row.
    n_neighbors : int, optional
        Neighbours that vote, weighted by inverse distance.
    n_splits : int, optional
        Folds.
    seed : int, optional
        Seed of folds and bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.

    Returns
    -------
    ClassificationResult
    """
    from sklearn.neighbors import KNeighborsClassifier

    vectors = np.asarray(vectors, dtype=float)
    labels = np.asarray(labels).astype(str)
    if vectors.ndim != 2 or labels.shape != vectors.shape[:1]:
        raise ValueError(f"vectors {vectors.shape} and labels {labels.shape} do not fit: expected "
                         "(n, d) and (n,).")
    sources = source_index(groups, len(labels))
    fold = group_folds(sources, n_splits, np.random.default_rng(seed))
    voted = np.empty_like(labels)
    for k in range(n_splits):
        train, test = fold != k, fold == k
        model = KNeighborsClassifier(min(n_neighbors, int(train.sum())), weights="distance")
        voted[test] = model.fit(vectors[train], labels[train]).predict(vectors[test])
    predicted = {f"k-NN ({n_neighbors})": voted}
    if class_vectors is not None:
        missing = set(labels) - set(class_vectors)
        if missing:
            raise ValueError(f"class_vectors has no description of {sorted(missing)}.")
        predicted["zero-shot"] = _nearest_description(vectors, class_vectors)
    classes = tuple(sorted(set(labels) | {p for c in predicted.values() for p in c}))
    code = {name: i for i, name in enumerate(classes)}
    true = np.array([code[c] for c in labels])
    confusion, scores = {}, {}
    for name, guess in predicted.items():
        cell = true * len(classes) + np.array([code[c] for c in guess])
        confusion[name] = _confusion(cell, len(classes))
        scores[name] = dict(zip(_SCORES, bootstrap(
            lambda rows, cell=cell: _summary(_confusion(cell[rows], len(classes))), len(true),
            groups=sources, seed=seed, n_resamples=n_resamples), strict=True))
    # a guess drawn from the class frequencies; for accuracy the largest class is the better guess
    share = np.bincount(true, minlength=len(classes)) / len(true)
    n_true = int((share > 0).sum())
    chance = dict(zip(_SCORES, (1 / n_true, 1 / n_true, share.max()), strict=True))
    return ClassificationResult(classes=classes, labels=labels, predicted=predicted,
                                confusion=confusion, scores=scores, chance=chance)


_SCORES = ("balanced accuracy", "macro F1", "accuracy")


def _nearest_description(vectors, class_vectors):
    names = np.array(list(class_vectors))
    centres = np.stack([np.atleast_2d(v).mean(axis=0) for v in class_vectors.values()])
    centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    return names[np.argmax(vectors @ centres.T, axis=1)]


def _confusion(cell, n_classes):
    return np.bincount(cell, minlength=n_classes**2).reshape(n_classes, n_classes)


def _summary(confusion):
    hit, true, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall = hit[true > 0] / true[true > 0]
    seen = true + said > 0
    return recall.mean(), (2 * hit[seen] / (true + said)[seen]).mean(), hit.sum() / true.sum()


@dataclass(frozen=True, eq=False)
class ClassificationResult(Report):
    """Predicted classes and their scores.

    Attributes
    ----------
    classes : tuple of str
        Rows and columns of the confusion matrices.
    labels : ndarray of str, shape (n,)
        True classes.
    predicted : dict of ndarray of str, shape (n,)
        Method to predictions.
    confusion : dict of ndarray of int, shape (n_classes, n_classes)
        Method to counts; rows are the true classes.
    scores : dict of dict of Estimate
        Method to ``"balanced accuracy"``, ``"macro F1"`` and ``"accuracy"``.
    chance : dict of float
        Guessing by class frequency; for ``"accuracy"`` always saying the largest class.
    """

    primary_is = "balanced accuracy of the neighbours' vote"

    classes: tuple
    labels: np.ndarray
    predicted: dict
    confusion: dict
    scores: dict
    chance: dict

    title = property(lambda self: f"Classification of {len(self.labels)} sources into "
                                  f"{len(self.classes)} classes")
    notes = ("Errors: bootstrap over sources; the k-NN never sees the source it classifies.",)

    @property
    def primary(self):
        """Balanced accuracy of the k-NN, an `Estimate`."""
        return next(iter(self.scores.values()))["balanced accuracy"]

    def to_table(self, method=None):
        """Scores, or the confusion matrix of one method.

        Parameters
        ----------
        method : str, optional
            A key of ``confusion``; by default the scores of all methods are given.

        Returns
        -------
        `~astropy.table.QTable`
        """
        if method is not None:
            rows = [(name, *map(int, row))
                    for name, row in zip(self.classes, self.confusion[method], strict=True)]
            return figures(rows, ["true class", *self.classes])
        rows = []
        for name, score in self.scores.items():
            row = [name]
            for estimate in score.values():
                row += [estimate.value, estimate.error]
            rows.append(row)
        rows.append(["chance"] + [x for s in _SCORES for x in (self.chance[s], 0.0)])
        return figures(rows, ["method", *(c for s in _SCORES for c in (s, f"{s} error"))])
