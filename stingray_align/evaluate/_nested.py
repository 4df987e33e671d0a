"""Out-of-fold predictions, with the choice of features and model made inside the training folds."""

from dataclasses import dataclass

import numpy as np

from ._splits import group_folds

__all__ = ["CrossPrediction", "checked_features", "cross_predict", "scaled", "selected"]


def scaled(model):
    """A scikit-learn model on standardised features."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def checked_features(features, n, experts, known):
    """Feature sets as finite matrices of n rows; experts must be among the known."""
    unknown = set(experts) - set(known)
    if unknown:
        raise ValueError(f"No expert is called {sorted(unknown)}; choose from {list(known)}.")
    out = {}
    for name, x in features.items():
        x = np.asarray(x, dtype=float)
        x = x[:, None] if x.ndim == 1 else x
        if x.ndim != 2 or not np.isfinite(x).all():
            raise ValueError(f"Features {name!r} must be a finite (n, d) array.")
        if len(x) != n:
            raise ValueError(f"Features {name!r} and the truth have different numbers of rows: "
                             f"{len(x)} and {n}.")
        out[name] = x
    return out


def selected(counts, bright, n):
    """Which rows enter which score: all, and (if counts are known) those of bright sources."""
    everything = {"": np.ones(n, dtype=bool)}
    if counts is None:
        return everything
    counts = np.asarray(getattr(counts, "value", counts))
    if counts.shape != (n,):
        raise ValueError(f"counts has shape {counts.shape}, expected ({n},).")
    return everything | {f" > {bright} ct": counts > bright}


@dataclass(frozen=True)
class CrossPrediction:
    """What `cross_predict` found.

    Attributes
    ----------
    values : dict of ndarray, shape (n,)
        (features, expert) to predictions; besides (choice, ``"nested choice"``) and ``("none",
        name)``.
    chosen : dict of list of tuple
        Choice to the (features, expert) it took in each fold.
    intervals : dict of ndarray, shape (2, n_levels, n)
        Choice to lower and upper limits.
    """

    values: dict
    chosen: dict
    intervals: dict


def cross_predict(features, y, sources, experts, loss, no_features, n_splits, rng, bar, *,
                  choices=None, levels=(), with_intervals=(), bins=None):
    """Predict every row from folds that do not hold its source.

    Parameters
    ----------
    features : dict of ndarray, shape (n, d)
    y : ndarray, shape (n,)
        Truth.
    sources : ndarray of int, shape (n,)
    experts : dict of callable
        Name to a function that makes an estimator.
    loss : callable
        Of truth and prediction of a check fold; the pair with the least is the nested choice.
    no_features : tuple
        Name of a prediction that needs no features, and the function of the training truth that
        makes it.
    n_splits : int
    rng : numpy.random.Generator
    bar : tqdm
        Updated once for each pair and fold.
    choices : dict of sequence of str, optional
        Name to the feature sets that a choice is made among; by default ``"best"`` of all.
    levels : sequence of float, optional
        Probability contents of the intervals of the choices named in ``with_intervals``.
    with_intervals : sequence of str, optional
        Choices that get intervals.
    bins : ndarray of int, shape (n,), optional
        Kind of each row: errors are only expected to be alike within one.

    Returns
    -------
    CrossPrediction
    """
    pairs = [(f, e) for f in features for e in experts]
    choices = {"best": tuple(features)} if choices is None else choices
    fold = group_folds(sources, n_splits, rng)
    bins = np.zeros(len(y), dtype=int) if bins is None else bins
    name, constant = no_features
    out = {pair: np.empty_like(y) for pair in
           [*pairs, *((choice, "nested choice") for choice in choices), ("none", name)]}
    chosen = {choice: [] for choice in choices}
    intervals = {choice: np.empty((2, len(levels), len(y))) for choice in with_intervals}
    for k in range(n_splits):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inner = group_folds(sources[train], _INNER, rng)
        learn, check = train[inner > 0], train[inner == 0]
        losses = {}
        for pair in pairs:
            x, make = features[pair[0]], experts[pair[1]]
            trial = make().fit(x[learn], y[learn]).predict(x[check])
            losses[pair] = loss(y[check], trial)
            out[pair][test] = make().fit(x[train], y[train]).predict(x[test])
            bar.update()
        for choice, sets in choices.items():
            best = min((pair for pair in pairs if pair[0] in sets), key=losses.get)
            chosen[choice].append(best)
            out[choice, "nested choice"][test] = out[best][test]
            if choice in intervals:
                intervals[choice][:, :, test] = _cv_plus(
                    features[best[0]], y, train, test, inner, experts[best[1]], levels, bins)
        out["none", name][test] = constant(y[train])
    return CrossPrediction(out, chosen, intervals)


_INNER = 4  # folds inside the training folds


def _cv_plus(x, y, train, test, inner, make, levels, bins):
    """Intervals of the rows of a test fold by CV+, errors taken from rows of the same bin.

    Each training row has the error of the model that did not see it, and each model its own
    prediction of the test row: Barber, Candès, Ramdas & Tibshirani 2021, Ann. Stat. 49, 486.
    """
    predicted = np.empty((_INNER, len(test)))
    error = np.empty(len(train))
    for k in range(_INNER):
        model = make().fit(x[train[inner != k]], y[train[inner != k]])
        predicted[k] = model.predict(x[test])
        own = inner == k
        error[own] = np.abs(y[train[own]] - model.predict(x[train[own]]))
    limits = np.empty((2, len(levels), len(test)))
    for b in np.unique(bins[test]):
        there, alike = np.flatnonzero(bins[test] == b), np.flatnonzero(bins[train] == b)
        centre = predicted[inner[alike]][:, there]
        n = len(alike)
        lower = np.sort(centre - error[alike, None], axis=0)
        upper = np.sort(centre + error[alike, None], axis=0)
        for i, level in enumerate(levels):
            rank = int(np.ceil(level * (n + 1)))
            beyond = rank > n  # too few errors for such a level: no limit can be given
            limits[0, i, there] = -np.inf if beyond else lower[n - rank]
            limits[1, i, there] = np.inf if beyond else upper[rank - 1]
    return limits
