"""How many labelled sources does a regression need?

Regressors learn from few sources and more, and predict the same sources that are in none of these
samples. Where labels are few, features that already tell kinds of sources apart should need fewer.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._nested import checked_features
from ._regression import EXPERTS
from ._report import Report, bootstrap, figures, joined_errors
from ._splits import group_folds, source_index

__all__ = ["LabelCurveResult", "label_curve"]


def label_curve(features, targets, *, sizes=(100, 300, 1000, 5000), groups=None,
                experts=("k-NN (3)", "ridge"), n_repeats=4, seed=0, n_resamples=400,
                progress=True):
    """Measure regression as a function of the number of labelled sources.

    Parameters
    ----------
    features : dict of array_like, shape (n, d)
        Feature sets by name.
    targets : dict of array_like, shape (n,)
        True values by name; nan where unknown.
    sizes : sequence of int, optional
        Labelled sources to learn from. A target is left out of the sizes that it has not enough
        known values for.
    groups : array_like, shape (n,), optional
        Source of each row.
    experts : sequence of str, optional
        Some of ``"k-NN (3)"``, ``"ridge"``, ``"boosting"``.
    n_repeats : int, optional
        Random samples of a size whose errors are averaged, as far as there are so many without
        much overlap.
    seed : int, optional
        Of the samples and the bootstrap.
    n_resamples : int, optional
        Bootstrap samples over the sources that are predicted, a quarter of all.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    LabelCurveResult

    Raises
    ------
    ValueError
        If there are too few sources for the smallest size.
    """
    n = len(next(iter(targets.values())))
    features = checked_features(features, n, experts, EXPERTS)
    sources = source_index(groups, n)
    rng = np.random.default_rng(seed)
    test = group_folds(sources, 4, rng) == 0
    order = rng.permutation(sources.max() + 1)[sources]  # of the sources, to take the first few
    pairs = [(f, e) for e in experts for f in features]
    errors, scale = {}, {}
    with tqdm(total=len(targets) * len(sizes), desc="labels", unit="size",
              disable=not progress) as bar:
        for target, values in targets.items():
            values = np.asarray(values, dtype=float)
            pool = np.flatnonzero(np.isfinite(values) & ~test)
            known = np.isfinite(values) & test
            n_pool = len(np.unique(sources[pool]))
            scale[target] = np.where(known, np.abs(values - values[pool].mean()), np.nan)[test]
            for size in sizes:
                bar.update()
                if size > n_pool or not known.any():
                    continue
                n_here = int(np.clip(n_pool // size, 1, n_repeats))
                found = {pair: np.full(n, np.nan) for pair in pairs}
                for pair in pairs:
                    found[pair][known] = 0
                for repeat in range(n_here):
                    rank = np.roll(np.unique(order[pool]), -repeat * size)[:size]
                    learn = pool[np.isin(order[pool], rank)]
                    for f, e in pairs:
                        fit = EXPERTS[e]().fit(features[f][learn], values[learn])
                        found[f, e][known] += np.abs(
                            fit.predict(features[f][known]) - values[known]) / n_here
                errors[target, size] = {pair: error[test] for pair, error in found.items()}
    if 2 * sum(size == min(sizes) for _, size in errors) < len(targets):
        raise ValueError("Too few sources: most targets have fewer known values than the smallest "
                         f"number to learn from, {min(sizes)}.")
    return LabelCurveResult(errors=errors, scale=scale, sources=sources[test],
                            features=tuple(features), experts=tuple(experts), seed=seed,
                            n_resamples=n_resamples)


@dataclass(frozen=True, eq=False)
class LabelCurveResult(Report):
    """Errors of regression by number of labelled sources.

    Attributes
    ----------
    errors : dict of dict of ndarray, shape (n_test,)
        (target, labelled sources) to (features, expert) to absolute errors; nan where the truth is
        not known.
    scale : dict of ndarray, shape (n_test,)
        Target to the absolute error that the mean of the labelled sources makes.
    sources : ndarray of int, shape (n_test,)
        Source of each row.
    features, experts : tuple of str
    """

    errors: dict
    scale: dict
    sources: np.ndarray
    features: tuple
    experts: tuple
    seed: int
    n_resamples: int

    title = property(lambda self: "Regression by number of labelled sources, "
                                  f"{len(self.sources)} others predicted")

    @property
    def notes(self):
        """How to read the table."""
        return (f"Mean absolute error over that of predicting the mean, averaged over "
                f"{', '.join(self.targets)}; errors: bootstrap over sources.",)

    @property
    def sizes(self):
        """Numbers of labels that at least half of the targets have, ascending."""
        n_targets = {size: sum(s == size for _, s in self.errors) for _, size in self.errors}
        return sorted(size for size, n in n_targets.items() if 2 * n >= len(self.scale))

    @property
    def targets(self):
        """Targets that have all of these numbers of labels: means are taken of the same ones."""
        return [t for t in self.scale if all((t, size) in self.errors for size in self.sizes)]

    def relative_error(self, size, features, expert, target=None):
        """Mean absolute error over that of predicting the mean.

        Parameters
        ----------
        size : int
            Labelled sources.
        features, expert : str
        target : str, optional
            By default the mean over `targets`.

        Returns
        -------
        Estimate
        """
        targets = self.targets if target is None else [target]
        error = np.stack([self.errors[t, size][features, expert] for t in targets])
        scale = np.stack([self.scale[t] for t in targets])
        return bootstrap(
            lambda rows: np.mean(np.nansum(error[:, rows], axis=1)
                                 / np.nansum(scale[:, rows], axis=1)),
            len(self.sources), groups=self.sources, seed=self.seed, n_resamples=self.n_resamples)

    def to_table(self):
        """A row for each target, number of labels, features and expert.

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = [(target, size, features, expert, float(np.nanmean(error)),
                 *self.relative_error(size, features, expert, target)[:2])
                for (target, size), found in self.errors.items()
                for (features, expert), error in found.items()]
        return figures(rows, ["target", "labels", "features", "expert", "MAE", "relative MAE",
                              "relative MAE error"])

    def summary(self):
        """Mean over targets: a row for each regressor and number of labels.

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = []
        for expert in self.experts:
            for size in self.sizes:
                found = [self.relative_error(size, name, expert) for name in self.features]
                rows.append((expert, size, *(x for one in found for x in one[:2])))
        return figures(rows, ["expert", "labels",
                              *(c for x in self.features for c in (x, f"{x} error"))])

    def tables(self):
        """The means; `to_table` has every target."""
        return [joined_errors(self.summary())]
