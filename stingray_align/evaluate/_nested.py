"""Out-of-fold predictions, with the choice of features and model made inside the training folds."""

import numpy as np

from ._splits import group_folds

__all__ = ["checked_features", "cross_predict", "scaled", "selected"]


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


def cross_predict(features, y, sources, experts, loss, no_features, n_splits, rng, bar):
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

    Returns
    -------
    dict of ndarray, shape (n,)
        (features, expert) to predictions; besides ``("best", "nested choice")`` and ``("none",
        name)``.
    """
    pairs = [(f, e) for f in features for e in experts]
    fold = group_folds(sources, n_splits, rng)
    name, constant = no_features
    out = {pair: np.empty_like(y) for pair in [*pairs, ("best", "nested choice"), ("none", name)]}
    for k in range(n_splits):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inner = group_folds(sources[train], 4, rng)
        learn, check = train[inner > 0], train[inner == 0]
        losses = {}
        for pair in pairs:
            x, make = features[pair[0]], experts[pair[1]]
            trial = make().fit(x[learn], y[learn]).predict(x[check])
            losses[pair] = loss(y[check], trial)
            out[pair][test] = make().fit(x[train], y[train]).predict(x[test])
            bar.update()
        out["best", "nested choice"][test] = out[min(losses, key=losses.get)][test]
        out["none", name][test] = constant(y[train])
    return out
