"""Would a kind of source that nobody has described be noticed?

One class at a time is left out. Detectors learn from half of the sources of all other classes and
then rank the other half together with the members of the left-out class, which should come first.
This is *novelty* detection (is a new source unlike the reference?), not outlier detection within
one sample. For a full test the class must also have been absent when the vectors' own models were
trained.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._report import Report, bootstrap, figures
from ._splits import group_folds, source_index

__all__ = ["NoveltyResult", "novelty"]


def novelty(vectors, labels, *, classes=None, groups=None, n_neighbors=5, seed=0, n_resamples=200,
            progress=True):
    """Measure how well members of a left-out class are found.

    Parameters
    ----------
    vectors : array_like, shape (n, d)
        Sources in the shared space (or any features, scaled as distances should weigh them).
    labels : array_like, shape (n,)
        Class of each row.
    classes : sequence of str, optional
        Classes to leave out in turn; all by default.
    groups : array_like, shape (n,), optional
        Source of each row.
    n_neighbors : int, optional
        The distance score is the mean distance to this many nearest reference sources.
    seed : int, optional
        Seed of the splits, of the forest and of the bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    NoveltyResult

    References
    ----------
    Liu, Ting & Zhou 2008, ICDM, 413 (isolation forest).
    """
    vectors = np.asarray(vectors, dtype=float)
    labels = np.asarray(labels).astype(str)
    if vectors.ndim != 2 or labels.shape != vectors.shape[:1]:
        raise ValueError(f"vectors {vectors.shape} and labels {labels.shape} do not fit: expected "
                         "(n, d) and (n,).")
    classes = tuple(np.unique(labels)) if classes is None else tuple(classes)
    unknown = set(classes) - set(labels)
    if unknown:
        raise ValueError(f"No row is labelled {sorted(unknown)}.")
    sources = source_index(groups, len(labels))
    scores, chance = {}, {}
    for name in tqdm(classes, desc="novelty", unit="class", disable=not progress):
        member = labels == name
        rng = np.random.default_rng(seed)
        known = np.flatnonzero(~member)
        half = group_folds(sources[known], 2, rng)
        test = np.concatenate([known[half == 1], np.flatnonzero(member)])
        scores[name] = {
            method: dict(zip(_FIGURES, _judge(score, member[test], sources[test], seed,
                                              n_resamples), strict=True))
            for method, score in _detect(vectors[known[half == 0]], vectors[test], n_neighbors,
                                         seed).items()
        }
        chance[name] = {"average precision": float(member[test].mean()), "ROC AUC": 0.5}
    return NoveltyResult(scores=scores, chance=chance,
                         n_members={name: int((labels == name).sum()) for name in classes})


_FIGURES = ("average precision", "ROC AUC")


def _detect(reference, test, n_neighbors, seed):
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import NearestNeighbors

    forest = IsolationForest(n_estimators=200, random_state=seed).fit(reference)
    near = NearestNeighbors(n_neighbors=min(n_neighbors, len(reference))).fit(reference)
    return {"isolation forest": -forest.score_samples(test),
            f"k-NN distance ({n_neighbors})": near.kneighbors(test)[0].mean(axis=1)}


def _judge(score, member, sources, seed, n_resamples):
    from sklearn.metrics import average_precision_score, roc_auc_score

    def statistic(rows):
        if member[rows].all() or not member[rows].any():
            return np.array([np.nan, np.nan])
        return np.array([average_precision_score(member[rows], score[rows]),
                         roc_auc_score(member[rows], score[rows])])

    return bootstrap(statistic, len(score), groups=sources, seed=seed, n_resamples=n_resamples)


@dataclass(frozen=True, eq=False)
class NoveltyResult(Report):
    """How well each left-out class was found.

    Attributes
    ----------
    scores : dict of dict of dict of Estimate
        Left-out class to method to ``"average precision"`` and ``"ROC AUC"``.
    chance : dict of dict of float
        Left-out class to figure: the share of members among the ranked sources, and 0.5.
    n_members : dict of int
        Rows of each left-out class.
    """

    primary_is = "mean ROC AUC over left-out classes"

    scores: dict
    chance: dict
    n_members: dict

    title = property(lambda self: f"Novelty: {len(self.scores)} classes left out in turn")
    notes = ("Errors: bootstrap over sources; chance: share of the class among the ranked sources "
             "(average precision), 0.5 (AUC).",)

    @property
    def primary(self):
        """Mean ROC AUC of the k-NN distance over the left-out classes (a float)."""
        return float(np.mean([list(s.values())[-1]["ROC AUC"].value
                              for s in self.scores.values()]))

    def to_table(self):
        """Scores as a `~astropy.table.QTable`, one row per class and method, and their means."""
        rows, methods = [], list(next(iter(self.scores.values())))
        for name, by_method in self.scores.items():
            for method in methods:
                precision, area = (by_method[method][f] for f in _FIGURES)
                rows.append((name, self.n_members[name], method, precision.value, precision.error,
                             self.chance[name]["average precision"], area.value, area.error))
        for method in methods:
            own = [row for row in rows if row[2] == method]
            mean = [float(np.mean([row[i] for row in own])) for i in range(3, 8)]
            # classes share most of their sources, so an error of the mean would pretend too much
            mean[1] = mean[4] = np.nan
            rows.append(("mean of classes", sum(self.n_members.values()), method, *mean))
        return figures(rows, ["left out", "members", "method", "average precision", "AP error",
                              "AP chance", "ROC AUC", "AUC error"])
