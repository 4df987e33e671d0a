"""How well can physical parameters be read from vectors?

Every prediction is made for a source that the regression has not seen (folds by source). Which
features and which regressor serve a target best is chosen inside the training folds only, so the
row ``best`` carries no selection bias.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._nested import checked_features, cross_predict, scaled, selected
from ._report import Report, bootstrap, figures
from ._splits import source_index

__all__ = ["RegressionResult", "regression"]


def _k_nn():
    from sklearn.neighbors import KNeighborsRegressor

    return scaled(KNeighborsRegressor(n_neighbors=3))


def _ridge():
    from sklearn.linear_model import RidgeCV

    return scaled(RidgeCV(np.logspace(-2, 5, 8)))


def _boosting():
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=150, max_features=0.3, early_stopping=False,
                                         random_state=0)


EXPERTS = {"k-NN (3)": _k_nn, "ridge": _ridge, "boosting": _boosting}


def regression(features, targets, *, counts=None, bright=300, groups=None,
               experts=tuple(EXPERTS), n_splits=5, seed=0, n_resamples=400, progress=True):
    """Measure regression of parameters from features, cross-validated by source.

    Parameters
    ----------
    features : dict of array_like, shape (n, d)
        Feature sets by name, for example ``{"events": ..., "text": ..., "shared": ...}``.
    targets : dict of array_like, shape (n,)
        True values by name; nan where unknown (such rows are left out for that target). Take
        logarithms beforehand where they are meant.
    counts : array_like, shape (n,), optional
        Photons of each row: R² is then also given for those with more than ``bright``.
    bright : int, optional
        See ``counts``.
    groups : array_like, shape (n,), optional
        Source of each row; rows of one source stay together.
    experts : sequence of str, optional
        Some of ``"k-NN (3)"``, ``"ridge"``, ``"boosting"``.
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
    RegressionResult
    """
    lengths = {np.shape(y)[0] for y in targets.values()}
    if len(lengths) != 1:
        raise ValueError(f"targets have different numbers of rows: {sorted(lengths)}.")
    n = lengths.pop()
    features = checked_features(features, n, experts, EXPERTS)
    chosen = {name: EXPERTS[name] for name in experts}
    sources = source_index(groups, n)
    selections = selected(counts, bright, n)
    truth, predicted = {}, {}
    bar = tqdm(total=len(targets) * n_splits * len(features) * len(experts), desc="regression",
               unit="fit", disable=not progress)
    with bar:
        for target, values in targets.items():
            values = np.asarray(values, dtype=float)
            rows = np.flatnonzero(np.isfinite(values))
            truth[target] = np.where(np.isfinite(values), values, np.nan)
            predicted[target] = cross_predict(
                {f: x[rows] for f, x in features.items()}, values[rows], sources[rows], chosen,
                _squared_error, ("mean", np.mean), n_splits, np.random.default_rng(seed), bar)
    return RegressionResult(
        truth=truth, predicted=predicted, sources=sources,
        scores={target: _scores(truth[target], predicted[target], sources, selections, seed,
                                n_resamples)
                for target in targets})


def _squared_error(truth, predicted):
    return np.mean((truth - predicted) ** 2)


def _scores(truth, predicted, sources, selections, seed, n_resamples):
    known = np.isfinite(truth)
    y = truth[known]
    error = np.stack([y - p for p in predicted.values()])

    def statistic(rows):
        found = [np.abs(error[:, rows]).mean(axis=1)]
        for selection in selections.values():
            some = rows[selection[known][rows]]
            spread = ((y[some] - y[some].mean()) ** 2).sum() if len(some) else 0.0
            found.append(1 - (error[:, some] ** 2).sum(axis=1) / spread if spread
                         else np.full(len(error), np.nan))
        return np.concatenate(found)

    names = ["MAE", *(f"R2{name}" for name in selections)]
    values = bootstrap(statistic, len(y), groups=sources[known], seed=seed,
                       n_resamples=n_resamples)
    return {pair: {name: values[i + j * len(predicted)] for j, name in enumerate(names)}
            for i, pair in enumerate(predicted)}


@dataclass(frozen=True, eq=False)
class RegressionResult(Report):
    """Out-of-fold predictions and their scores.

    Attributes
    ----------
    truth : dict of ndarray, shape (n,)
        Target to true values.
    predicted : dict of dict of ndarray
        Target to (features, expert) to predictions, for the rows with known truth. Besides the
        experts: ``("best", "nested choice")`` and ``("none", "mean")``, the mean of the training
        folds.
    sources : ndarray of int, shape (n,)
        Source of each row.
    scores : dict of dict of dict of Estimate
        Target to (features, expert) to ``"R2"`` and ``"MAE"``; if counts were given also to, for
        example, ``"R2 > 300 ct"``.
    """

    truth: dict
    predicted: dict
    sources: np.ndarray
    scores: dict

    title = property(lambda self: f"Regression of {', '.join(self.truth)}, folds by source")
    notes = ("Errors and 95 % intervals: bootstrap over sources. The row none/mean predicts the "
             "mean of the training folds.",)

    @property
    def primary_is(self):
        return f"R2 of {next(iter(self.scores))}"

    @property
    def primary(self):
        """R² of the first target with the nested choice, an `Estimate`."""
        return next(iter(self.scores.values()))["best", "nested choice"]["R2"]

    def to_table(self):
        """Scores as a `~astropy.table.QTable`, a row for each target, features and expert."""
        rows = []
        for target, scores in self.scores.items():
            n = int(np.isfinite(self.truth[target]).sum())
            for (features, expert), score in scores.items():
                names = sorted(score, key=lambda name: (name == "MAE", name))  # R2 first
                limits = (x for name in names
                          for x in (score[name].value, score[name].lower, score[name].upper))
                rows.append((target, features, expert, n, *limits))
        return figures(rows, ["target", "features", "expert", "rows",
                              *(column for name in names
                                for column in (name, f"{name} low", f"{name} high"))])
