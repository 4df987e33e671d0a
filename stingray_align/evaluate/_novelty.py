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


def novelty(vectors, labels, *, draws=None, counts=None, concentration=30.0, classes=None,
            groups=None, n_neighbors=5, seed=0, n_resamples=200, progress=True):
    """Measure how well members of a left-out class are found.

    Parameters
    ----------
    vectors : array_like, shape (n, d)
        Sources in the shared space (or any features, scaled as distances should weigh them).
    labels : array_like, shape (n,)
        Class of each row.
    draws : array_like, shape (n, n_draws, d), optional
        Unit vectors drawn from the posterior of each row. With them, the density of von
        Mises-Fisher kernels around the reference sources is tested too, averaged over the draws.
    counts : array_like, shape (n,), optional
        Photons of each row: the density is then also compared with that of reference sources with
        similar counts (conformal p-value), and the p-values of known classes are tested for
        uniformity. Needs ``draws``.
    concentration : float, optional
        Of the kernels; the inverse of `AlignedCatalog.temperature`.
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

    Raises
    ------
    ValueError
        If shapes do not fit, a class is unknown, or fewer than four rows are left without it.

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
    scores, chance, known_p = {}, {}, {}
    if draws is not None:
        draws = np.asarray(draws, dtype=np.float32)
    for name in tqdm(classes, desc="novelty", unit="class", disable=not progress):
        member = labels == name
        rng = np.random.default_rng(seed)
        known = np.flatnonzero(~member)
        if len(known) < 4:
            raise ValueError(f"only {len(known)} sources are left without those labelled {name!r}: "
                             "give more")
        half = group_folds(sources[known], 2, rng)
        test = np.concatenate([known[half == 1], np.flatnonzero(member)])
        detected = _detect(vectors[known[half == 0]], vectors[test], n_neighbors, seed)
        if draws is not None:
            # Half of the known sources stand for the catalogue, the others are new ones.
            lonely = _loneliness(draws, vectors, known[half == 0], concentration)
            detected["density"] = lonely[test]
            if counts is not None:
                p = _conformal(lonely, np.asarray(counts, float), known[half == 0], test)
                detected["density, given counts"] = -p
                known_p[name] = p[~member[test]]
        scores[name] = {
            method: dict(zip(_FIGURES, _judge(score, member[test], sources[test], seed,
                                              n_resamples), strict=True))
            for method, score in detected.items()
        }
        chance[name] = {"average precision": float(member[test].mean()), "ROC AUC": 0.5}
    return NoveltyResult(scores=scores, chance=chance, known_p=known_p,
                         n_members={name: int((labels == name).sum()) for name in classes})


_FIGURES = ("average precision", "ROC AUC")


def _detect(reference, test, n_neighbors, seed):
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import NearestNeighbors

    forest = IsolationForest(n_estimators=200, random_state=seed).fit(reference)
    near = NearestNeighbors(n_neighbors=min(n_neighbors, len(reference))).fit(reference)
    return {"isolation forest": -forest.score_samples(test),
            f"k-NN distance ({n_neighbors})": near.kneighbors(test)[0].mean(axis=1)}


def _loneliness(draws, vectors, reference, concentration):
    """Minus the log density around each source, averaged over its draws, itself left out."""
    centres, out = vectors[reference].astype(np.float32), np.empty(len(draws))
    own = np.full(len(draws), -1)
    own[reference] = np.arange(len(reference))
    for row, few in enumerate(draws):
        score = concentration * (few @ centres.T)
        if own[row] >= 0:
            score = np.delete(score, own[row], axis=1)
        top = score.max()
        out[row] = -(top + np.log(np.exp(score - top).mean()))
    return out


def _conformal(lonely, counts, reference, test, n_peers=200):
    """Rank of each source's loneliness among reference sources with similar counts."""
    gap = np.abs(np.log(np.maximum(counts[test], 1))[:, None]
                 - np.log(np.maximum(counts[reference], 1)))
    n_peers = min(n_peers, len(reference))
    peers = np.argsort(gap, axis=1, kind="stable")[:, :n_peers]
    more = lonely[reference][peers] >= lonely[test][:, None]
    return (1 + more.sum(axis=1)) / (n_peers + 1)


def _judge(score, member, sources, seed, n_resamples):
    def statistic(rows):
        return _average_precision_and_auc(score[rows], member[rows])

    return bootstrap(statistic, len(score), groups=sources, seed=seed, n_resamples=n_resamples)


def _average_precision_and_auc(score, member):
    """As scikit-learn's, from ranks alone: thousands of resamples need not be checked each."""
    from scipy.stats import rankdata

    n = member.sum()
    if not 0 < n < len(member):
        return np.array([np.nan, np.nan])
    # A threshold at the score of a member takes all with the same score along.
    precision = rankdata(-score[member], "max") / rankdata(-score, "max")[member]
    auc = (rankdata(score)[member].mean() - (n + 1) / 2) / (len(member) - n)
    return np.array([precision.mean(), auc])


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
    known_p : dict of ndarray
        Left-out class to the conformal p-values of new sources of all other classes, which should
        be uniform; empty without draws and counts.
    """

    primary_is = "mean ROC AUC over left-out classes"

    scores: dict
    chance: dict
    n_members: dict
    known_p: dict

    title = property(lambda self: f"Novelty: {len(self.scores)} classes left out in turn")

    @property
    def notes(self):
        """What the figures mean, and how uniform the p-values are."""
        notes = ("Errors: bootstrap over sources; chance: share of the class among the ranked "
                 "sources (average precision), 0.5 (AUC).",)
        if not self.known_p:
            return notes
        from scipy.stats import kstest

        p = np.concatenate(list(self.known_p.values()))
        shares = ", ".join(f"{100 * np.mean(p <= x):.1f} % below {x:g}" for x in (0.01, 0.05, 0.2))
        # The same sources come back with every class: each run is a test of its own.
        ks = np.median([kstest(own, "uniform").pvalue for own in self.known_p.values()])
        return (*notes, f"p-values of new sources of known classes: {shares}; Kolmogorov-Smirnov "
                        f"test of uniformity, median over the classes: p = {ks:.2f}.")

    @property
    def primary(self):
        """Mean ROC AUC of the last method over the left-out classes (a float)."""
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
