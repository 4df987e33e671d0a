"""Can the kind of variability be told from a vector: flares, eclipses, a period, or nothing?

Kinds of light curve do not care when something happens, so this measures whether vectors hold
more than the place of events. Every prediction is made for a source that the classifier has not
seen (folds by source); features and classifier are chosen inside the training folds.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._nested import checked_features, cross_predict, scaled, selected
from ._report import Report, bootstrap, figures
from ._splits import source_index

__all__ = ["TimeShapeResult", "time_shape"]


def _logistic():
    from sklearn.linear_model import LogisticRegression

    return scaled(LogisticRegression(C=0.3, max_iter=300, tol=1e-3))


def _boosting():
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=100, learning_rate=0.08, max_leaf_nodes=15,
                                          max_features=0.2, l2_regularization=1.0,
                                          early_stopping=False, random_state=0)


CLASSIFIERS = {"logistic": _logistic, "boosting": _boosting}


def time_shape(features, shapes, counts=None, *, bright=300, groups=None,
               classifiers=tuple(CLASSIFIERS), n_splits=5, seed=0, n_resamples=400,
               progress=True):
    """Measure classification of the time behaviour, cross-validated by source.

    Parameters
    ----------
    features : dict of array_like, shape (n, d)
        Feature sets by name, for example those of `feature_sets`.
    shapes : array_like of str, shape (n,)
        True kinds, column ``time_shape`` of a simulated population's truth.
    counts : array_like, shape (n,), optional
        Photons of each row: scores are then also given for those with more than ``bright``.
    bright : int, optional
        See ``counts``.
    groups : array_like, shape (n,), optional
        Source of each row; rows of one source stay together.
    classifiers : sequence of str, optional
        Some of ``"logistic"`` and ``"boosting"``.
    n_splits : int, optional
        Folds.
    seed : int, optional
        Seed of folds and bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    TimeShapeResult
    """
    kinds, true = np.unique(np.asarray(shapes).astype(str), return_inverse=True)
    features = checked_features(features, len(true), classifiers, CLASSIFIERS)
    sources = source_index(groups, len(true))
    selections = selected(counts, bright, len(true))
    with tqdm(total=n_splits * len(features) * len(classifiers), desc="time shape", unit="fit",
              disable=not progress) as bar:
        predicted = cross_predict(
            features, true, sources, {name: CLASSIFIERS[name] for name in classifiers}, _missed,
            ("largest class", _most_frequent), n_splits, np.random.default_rng(seed),
            bar).values
    guesses = np.stack(list(predicted.values()))

    def statistic(rows):
        found = []
        for selection in selections.values():
            some = rows[selection[rows]]
            hit = guesses[:, some] == true[some]
            members = np.bincount(true[some], minlength=len(kinds))
            found += [hit.mean(axis=1) if len(some) else np.full(len(hit), np.nan)]
            # Sum over kinds of the share of hits in each: each source weighs 1 / members.
            weight = 1 / members[true[some]] / max((members > 0).sum(), 1)
            found += [hit @ weight if len(some) else np.full(len(hit), np.nan)]
        return np.concatenate(found)

    values = bootstrap(statistic, len(true), groups=sources, seed=seed, n_resamples=n_resamples)
    names = [f"{score}{selection}" for selection in selections
             for score in ("accuracy", "balanced accuracy")]
    n_pairs = len(predicted)
    return TimeShapeResult(
        kinds=tuple(kinds.tolist()), shapes=kinds[true],
        predicted={pair: kinds[guess] for pair, guess in predicted.items()},
        selections=selections,
        scores={pair: {name: values[i + j * n_pairs] for j, name in enumerate(names)}
                for i, pair in enumerate(predicted)})


def _missed(truth, predicted):
    return np.mean(truth != predicted)


def _most_frequent(truth):
    return np.bincount(truth).argmax()


@dataclass(frozen=True, eq=False)
class TimeShapeResult(Report):
    """Out-of-fold predictions of the kind of time behaviour, and their scores.

    Attributes
    ----------
    kinds : tuple of str
        Rows and columns of `confusion`.
    shapes : ndarray of str, shape (n,)
        True kinds.
    predicted : dict of ndarray of str, shape (n,)
        (features, classifier) to predictions. Besides the classifiers: ``("best", "nested
        choice")`` and ``("none", "largest class")``, the most frequent kind of the training folds.
    selections : dict of ndarray of bool, shape (n,)
        Which rows enter which score: all (``""``), and those with many photons.
    scores : dict of dict of Estimate
        (features, classifier) to ``"accuracy"`` and ``"balanced accuracy"`` (mean over kinds of
        the share recognised); if counts were given also to, for example, ``"accuracy > 300 ct"``.
    """

    primary_is = "accuracy of the kind of light curve"

    kinds: tuple
    shapes: np.ndarray
    predicted: dict
    selections: dict
    scores: dict

    title = property(lambda self: f"Time shape of {len(self.shapes)} sources, one of "
                                  f"{len(self.kinds)} kinds, folds by source")
    notes = ("Errors: bootstrap over sources. The row none/largest class always says the most "
             "frequent kind.",)

    @property
    def primary(self):
        """Accuracy of the nested choice, an `Estimate`."""
        return self.scores["best", "nested choice"]["accuracy"]

    def to_table(self):
        """Scores as a `~astropy.table.QTable`, a row for each pair of features and classifier."""
        rows = [(*pair, *(x for estimate in score.values()
                          for x in (estimate.value, estimate.error)))
                for pair, score in self.scores.items()]
        names = next(iter(self.scores.values()))
        return figures(rows, ["features", "classifier",
                              *(c for name in names for c in (name, f"{name} error"))])

    def confusion(self, pair=("best", "nested choice"), selection=""):
        """Confusion table of one pair: a row for each true kind, a column for each predicted one.

        Parameters
        ----------
        pair : tuple of str, optional
            A key of ``predicted``.
        selection : str, optional
            A key of ``selections``.

        Returns
        -------
        `~astropy.table.QTable`
        """
        some = self.selections[selection]
        true, said = self.shapes[some], self.predicted[pair][some]
        rows = [(kind, *(int(((true == kind) & (said == other)).sum()) for other in self.kinds))
                for kind in self.kinds]
        return figures(rows, ["true kind", *self.kinds])
