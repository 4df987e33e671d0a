"""How well can physical parameters be read from vectors?

Every prediction is made for a source that the regression has not seen (folds by source). Which
features and which regressor serve a target best is chosen inside the training folds only, so the
row ``best`` carries no selection bias.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._report import Report, bootstrap, figures
from ._splits import group_folds, source_index

__all__ = ["RegressionResult", "regression"]


def _k_nn():
    from sklearn.neighbors import KNeighborsRegressor

    return _scaled(KNeighborsRegressor(n_neighbors=3))


def _ridge():
    from sklearn.linear_model import RidgeCV

    return _scaled(RidgeCV(np.logspace(-2, 5, 8)))


def _boosting():
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=150, max_features=0.3, early_stopping=False,
                                         random_state=0)


def _scaled(model):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


EXPERTS = {"k-NN (3)": _k_nn, "ridge": _ridge, "boosting": _boosting}


def regression(features, targets, *, groups=None, experts=tuple(EXPERTS), n_splits=5, seed=0,
               n_resamples=400, progress=True):
    """Measure regression of parameters from features, cross-validated by source.

    Parameters
    ----------
    features : dict of array_like, shape (n, d)
        Feature sets by name, for example ``{"events": ..., "text": ..., "shared": ...}``.
    targets : dict of array_like, shape (n,)
        True values by name; nan where unknown (such rows are left out for that target). Take
        logarithms beforehand where they are meant.
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
    features = {name: _matrix(x, name) for name, x in features.items()}
    lengths = {len(x) for x in features.values()} | {np.shape(y)[0] for y in targets.values()}
    if len(lengths) != 1:
        raise ValueError(f"features and targets have different numbers of rows: {lengths}.")
    unknown = set(experts) - set(EXPERTS)
    if unknown:
        raise ValueError(f"No expert is called {sorted(unknown)}; choose from {list(EXPERTS)}.")
    n = lengths.pop()
    sources = source_index(groups, n)
    pairs = [(f, e) for f in features for e in experts]
    truth, predicted = {}, {}
    bar = tqdm(total=len(targets) * n_splits * len(pairs), desc="regression", unit="fit",
               disable=not progress)
    with bar:
        for target, values in targets.items():
            values = np.asarray(values, dtype=float)
            rows = np.flatnonzero(np.isfinite(values))
            truth[target] = np.where(np.isfinite(values), values, np.nan)
            predicted[target] = _cross_predict(
                {f: x[rows] for f, x in features.items()}, values[rows], sources[rows], pairs,
                n_splits, np.random.default_rng(seed), bar)
    return RegressionResult(
        truth=truth, predicted=predicted, sources=sources,
        scores={target: _scores(truth[target], predicted[target], sources, seed, n_resamples)
                for target in targets})


def _matrix(x, name):
    x = np.asarray(x, dtype=float)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"Features {name!r} must be a finite (n, d) array.")
    return x


def _cross_predict(features, y, sources, pairs, n_splits, rng, bar):
    """Out-of-fold predictions of every pair, of the mean, and of the pair picked in training."""
    fold = group_folds(sources, n_splits, rng)
    out = {pair: np.empty(len(y)) for pair in pairs}
    out["best", "nested choice"], out["none", "mean"] = np.empty(len(y)), np.empty(len(y))
    for k in range(n_splits):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inner = group_folds(sources[train], 4, rng)
        learn, check = train[inner > 0], train[inner == 0]
        loss = {}
        for pair in pairs:
            x, make = features[pair[0]], EXPERTS[pair[1]]
            trial = make().fit(x[learn], y[learn]).predict(x[check])
            loss[pair] = np.mean((trial - y[check]) ** 2)
            out[pair][test] = make().fit(x[train], y[train]).predict(x[test])
            bar.update()
        out["best", "nested choice"][test] = out[min(loss, key=loss.get)][test]
        out["none", "mean"][test] = y[train].mean()
    return out


def _scores(truth, predicted, sources, seed, n_resamples):
    known = np.isfinite(truth)
    y = truth[known]
    error = np.stack([y - p for p in predicted.values()])

    def statistic(rows):
        spread = ((y[rows] - y[rows].mean()) ** 2).sum()
        r2 = 1 - (error[:, rows] ** 2).sum(axis=1) / spread
        return np.concatenate([r2, np.abs(error[:, rows]).mean(axis=1)])

    values = bootstrap(statistic, len(y), groups=sources[known], seed=seed,
                       n_resamples=n_resamples)
    return {pair: {"R2": values[i], "MAE": values[i + len(predicted)]}
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
        Target to (features, expert) to ``"R2"`` and ``"MAE"``.
    """

    truth: dict
    predicted: dict
    sources: np.ndarray
    scores: dict

    title = property(lambda self: f"Regression of {', '.join(self.truth)}, folds by source")
    notes = ("Errors and 95 % intervals: bootstrap over sources. The row none/mean predicts the "
             "mean of the training folds.",)

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
                r2, mae = score["R2"], score["MAE"]
                rows.append((target, features, expert, n, r2.value, r2.lower, r2.upper, mae.value,
                             mae.lower, mae.upper))
        return figures(rows, ["target", "features", "expert", "rows", "R2", "R2 low", "R2 high",
                              "MAE", "MAE low", "MAE high"])
