"""How well can physical parameters be read from vectors?

Every prediction is made for a source that the regression has not seen (folds by source). Which
regressor serves a target best, and which features, is chosen inside the training folds only, so
that no choice carries a selection bias. Intervals are conformal (CV+): they hold the truth as often
as they say whatever the regressor, and this is checked on the folds that had no part in them.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._nested import checked_features, cross_predict, scaled, selected
from ._report import Report, bootstrap, figures, joined_errors
from ._splits import source_index

__all__ = ["CSC_TARGETS", "EXPERTS", "RegressionResult", "regression", "table_targets"]

#: Columns of the Chandra Source Catalog (2.1, tables of observations) that a benchmark on real
#: sources regresses, and whether their logarithm is meant.
CSC_TARGETS = {
    "flux_aper_b": True, "flux_bb_aper_b": True, "src_cnts_aper_b": True,
    "flux_significance_b": True,
    "hard_hs": False, "hard_hm": False, "hard_ms": False,
    "var_index_b": False, "var_prob_b": False,
    "powlaw_gamma": False, "powlaw_nh": True, "powlaw_ampl": True, "powlaw_stat": True,
    "bb_kt": True, "bb_nh": True, "bb_ampl": True,
    "brems_kt": True, "apec_kt": True, "apec_nh": True, "apec_norm": True,
}


def table_targets(table, columns=None):
    """Targets of `regression` out of a table.

    Parameters
    ----------
    table : astropy.table.Table
        One row per source or observation, for example of the Chandra Source Catalog.
    columns : dict of bool, optional
        Columns, and whether the logarithm is meant: values that are not positive are then
        unknown. By default those of ``CSC_TARGETS`` that the table has.

    Returns
    -------
    dict of ndarray, shape (n,)
        nan where masked, empty or unknown. Columns without two different known values are left
        out.

    Raises
    ------
    ValueError
        If the table lacks a column that was asked for, or has none of those.

    Notes
    -----
    The columns of the Chandra Source Catalog are: ``flux_aper_b``, ``flux_bb_aper_b``,
    ``src_cnts_aper_b``, ``flux_significance_b`` (logarithms); ``hard_hs``, ``hard_hm``,
    ``hard_ms``; ``var_index_b``, ``var_prob_b``; ``powlaw_gamma``, and the logarithms of
    ``powlaw_nh``, ``powlaw_ampl``, ``powlaw_stat``, ``bb_kt``, ``bb_nh``, ``bb_ampl``,
    ``brems_kt``, ``apec_kt``, ``apec_nh``, ``apec_norm``.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from stingray_align.evaluate import table_targets
    >>> table = Table({"hard_hs": [0.1, 0.3, -0.2], "powlaw_nh": [10.0, 0.0, 100.0]})
    >>> table_targets(table)
    {'hard_hs': array([ 0.1,  0.3, -0.2]), 'log powlaw_nh': array([ 1., nan,  2.])}
    """
    if columns is None:
        columns = {name: log for name, log in CSC_TARGETS.items() if name in table.colnames}
    if missing := [name for name in columns if name not in table.colnames]:
        raise ValueError(f"The table has no column {', '.join(missing)}.")
    targets = {}
    for name, logarithmic in columns.items():
        column = table[name].astype(float)
        column = column.filled(np.nan) if hasattr(column, "filled") else column
        values = np.asarray(getattr(column, "value", column))
        if logarithmic:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(values > 0, np.log10(values), np.nan)
        if len(np.unique(values[np.isfinite(values)])) > 1:
            targets[f"log {name}" if logarithmic else name] = values
    if not targets:
        raise ValueError("The table has no column to regress: name them in `columns`.")
    return targets


def _k_nn():
    from sklearn.neighbors import KNeighborsRegressor

    return scaled(KNeighborsRegressor(n_neighbors=3))


def _ridge():
    from sklearn.linear_model import RidgeCV

    return scaled(RidgeCV(np.logspace(-2, 5, 8)))


class _Boosting:
    """Gradient boosting on the columns that correlate most with the target.

    Trees take time for every column, and most entries of a text vector say nothing of a target.
    """

    n_columns = 48

    def fit(self, x, y):
        from sklearn.ensemble import HistGradientBoostingRegressor

        spread = x.std(axis=0)
        spread[spread == 0] = np.inf
        link = np.abs((x - x.mean(axis=0)).T @ (y - y.mean())) / spread
        self.columns = np.argsort(-link, kind="stable")[:self.n_columns]
        self.trees = HistGradientBoostingRegressor(max_iter=100, max_leaf_nodes=15,
                                                   early_stopping=False, random_state=0)
        self.trees.fit(x[:, self.columns], y)
        return self

    def predict(self, x):
        return self.trees.predict(x[:, self.columns])


EXPERTS = {"k-NN (3)": _k_nn, "ridge": _ridge, "boosting": _Boosting}

LEVELS = (0.68, 0.95)
_NESTED = "nested choice"
_FEWEST = 8  # rows that a share of their variance can be told of


def regression(features, targets, *, counts=None, bright=300, groups=None,
               experts=tuple(EXPERTS), choices=None, gains=(), n_splits=5, seed=0,
               n_resamples=400, progress=True):
    """Measure regression of parameters from features, cross-validated by source.

    Parameters
    ----------
    features : dict of array_like, shape (n, d)
        Feature sets by name, for example ``{"events": ..., "text": ..., "shared": ...}``.
    targets : dict of array_like, shape (n,)
        True values by name; nan where unknown (such rows are left out for that target). Take
        logarithms beforehand where they are meant.
    counts : array_like, shape (n,), optional
        Photons of each row: R² is then also given for those with more than ``bright``, and the
        intervals know that errors depend on the photons.
    bright : int, optional
        See ``counts``.
    groups : array_like, shape (n,), optional
        Source of each row; rows of one source stay together.
    experts : sequence of str, optional
        Some of ``"k-NN (3)"``, ``"ridge"``, ``"boosting"``.
    choices : dict of sequence of str, optional
        Name to feature sets among which, besides, the best pair of features and regressor is
        chosen in the training folds. There is always such a choice for each feature set alone
        (by its name), and ``"best"`` of all.
    gains : sequence of tuple of str, optional
        Pairs (after, before) of choices whose mean absolute errors are compared.
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

    References
    ----------
    Barber, Candès, Ramdas & Tibshirani 2021, Ann. Stat. 49, 486 (CV+).
    """
    lengths = {np.shape(y)[0] for y in targets.values()}
    if len(lengths) != 1:
        raise ValueError(f"targets have different numbers of rows: {sorted(lengths)}.")
    n = lengths.pop()
    features = checked_features(features, n, experts, EXPERTS)
    choices = {name: (name,) for name in features} | (choices or {}) | {"best": tuple(features)}
    for name in {name for sets in choices.values() for name in sets} - set(features):
        raise ValueError(f"No features are called {name!r}; there are {', '.join(features)}.")
    for name in {name for pair in gains for name in pair} - set(choices):
        raise ValueError(f"No choice is called {name!r}; there are {', '.join(choices)}.")
    chosen = {name: EXPERTS[name] for name in experts}
    sources = source_index(groups, n)
    selections = selected(counts, bright, n)
    counts = None if counts is None else np.asarray(getattr(counts, "value", counts))
    truth, predicted, taken, intervals = {}, {}, {}, {}
    bar = tqdm(total=len(targets) * n_splits * len(features) * len(experts), desc="regression",
               unit="fit", disable=not progress)
    with bar:
        for target, values in targets.items():
            values = np.asarray(values, dtype=float)
            rows = np.flatnonzero(np.isfinite(values))
            truth[target] = np.where(np.isfinite(values), values, np.nan)
            found = cross_predict(
                {f: x[rows] for f, x in features.items()}, values[rows], sources[rows], chosen,
                _squared_error, ("mean", np.mean), n_splits, np.random.default_rng(seed), bar,
                choices=choices, levels=LEVELS, with_intervals=("best",),
                bins=None if counts is None else _parts(counts[rows]))
            predicted[target], taken[target] = found.values, found.chosen
            intervals[target] = found.intervals["best"]
    return RegressionResult(
        truth=truth, predicted=predicted, sources=sources, chosen=taken, intervals=intervals,
        counts=counts, features=tuple(features), gains=tuple(gains), seed=seed,
        n_resamples=n_resamples,
        scores={target: _scores(truth[target], predicted[target], sources, selections, seed,
                                n_resamples)
                for target in targets})


def _squared_error(truth, predicted):
    return np.mean((truth - predicted) ** 2)


def _parts(counts):
    """Up to five parts by photons, each large enough for an interval of 95 %."""
    n_parts = int(np.clip(len(counts) // 60, 1, 5))
    edges = np.quantile(counts, np.linspace(0, 1, n_parts + 1)[1:-1])
    return np.searchsorted(edges, counts, side="right")


def _scores(truth, predicted, sources, selections, seed, n_resamples):
    known = np.isfinite(truth)
    y = truth[known]
    error = np.stack([y - p for p in predicted.values()])

    def statistic(rows):
        found = [np.abs(error[:, rows]).mean(axis=1)]
        for selection in selections.values():
            some = rows[selection[known][rows]]
            enough = len(np.unique(some)) >= _FEWEST
            spread = ((y[some] - y[some].mean()) ** 2).sum() if enough else 0.0
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
        experts: ``(choice, "nested choice")``, above all ``("best", "nested choice")``, and
        ``("none", "mean")``, the mean of the training folds.
    sources : ndarray of int, shape (n,)
        Source of each row.
    chosen : dict of dict of list
        Target to choice to the (features, expert) it took in each fold.
    intervals : dict of ndarray, shape (2, 2, n_known)
        Target to lower and upper limits at 68 and 95 % of the best choice, for the rows with known
        truth; infinite where there were too few sources to tell.
    counts : ndarray or None, shape (n,)
        Photons of each row.
    features : tuple of str
        Names of the feature sets.
    gains : tuple of tuple of str
        Pairs of choices that `gain_table` compares.
    scores : dict of dict of dict of Estimate
        Target to (features, expert) to ``"R2"`` and ``"MAE"``; if counts were given also to, for
        example, ``"R2 > 300 ct"``.
    """

    truth: dict
    predicted: dict
    sources: np.ndarray
    chosen: dict
    intervals: dict
    counts: np.ndarray | None
    features: tuple
    gains: tuple
    scores: dict
    seed: int
    n_resamples: int

    title = property(lambda self: f"Regression of {', '.join(self.truth)}, folds by source")

    @property
    def notes(self):
        """How to read the tables."""
        return ("Errors: bootstrap over sources. Column of a feature set: with the regressor that "
                "did best inside the training folds; "
                "best: features and regressor chosen there; mean: the mean of the training folds.",
                *(("gain: share of the mean absolute error (MAE) that goes away; above zero is in "
                   "favour of the first name.",) if self.gains else ()),
                "Intervals: CV+ of the best choice; width: median half-width at 68 % over the "
                "standard deviation of the target.")

    @property
    def primary_is(self):
        """What the primary figure is."""
        if self.gains:
            after, before = self.gains[0]
            return f"mean gain in MAE, {after} over {before}"
        return f"R2 of {next(iter(self.scores))}"

    @property
    def primary(self):
        """Mean of the first gain; without gains R² of the first target. An `Estimate`."""
        if self.gains:
            return self.gain(*self.gains[0])
        return next(iter(self.scores.values()))["best", _NESTED]["R2"]

    def gain(self, after, before, target=None):
        """Share of the mean absolute error of one choice that another one saves.

        Parameters
        ----------
        after, before : str
            Choices: a feature set, ``"best"``, or one that was named.
        target : str, optional
            By default the mean over all targets.

        Returns
        -------
        Estimate
        """
        targets = list(self.truth) if target is None else [target]
        errors = np.zeros((2, len(targets), len(self.sources)))
        for t, name in enumerate(targets):
            known = np.isfinite(self.truth[name])
            for c, choice in enumerate((after, before)):
                errors[c, t, known] = np.abs(
                    self.truth[name][known] - self.predicted[name][choice, _NESTED])

        def statistic(rows):
            after, before = errors @ np.bincount(rows, minlength=len(self.sources))
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.mean(1 - after / before)

        return bootstrap(statistic, len(self.sources), groups=self.sources, seed=self.seed,
                         n_resamples=self.n_resamples)

    def coverage(self, target, where=None):
        """How often the intervals of the best choice hold the truth.

        Parameters
        ----------
        target : str
        where : ndarray of bool, shape (n_known,), optional
            Which of the rows with known truth; all by default.

        Returns
        -------
        dict of Estimate
            0.68 and 0.95 to the share of rows.
        """
        known = np.isfinite(self.truth[target])
        where = np.ones(known.sum(), dtype=bool) if where is None else where
        lower, upper = self.intervals[target][:, :, where]
        truth = self.truth[target][known][where]
        held = (lower <= truth) & (truth <= upper)
        found = bootstrap(lambda rows: held[:, rows].mean(axis=1), held.shape[1],
                          groups=self.sources[known][where], seed=self.seed,
                          n_resamples=self.n_resamples)
        return dict(zip(LEVELS, found, strict=True))

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

    def score_table(self, score="R2"):
        """One score by feature set: a row for each target.

        Parameters
        ----------
        score : str, optional
            A key of ``scores``, such as ``"MAE"``.

        Returns
        -------
        `~astropy.table.QTable`
        """
        shown = [*((name, _NESTED) for name in (*self.features, "best")), ("none", "mean")]
        rows = [(target, int(np.isfinite(self.truth[target]).sum()),
                 *(x for pair in shown for x in scores[pair][score][:2]))
                for target, scores in self.scores.items()]
        labels = [*self.features, "best", "mean"]
        return figures(rows, [score, "rows", *(c for x in labels for c in (x, f"{x} error"))])

    def gain_table(self):
        """Gains in mean absolute error: a row for each target, and their mean.

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = []
        for target in [*self.truth, None]:
            each = [self.gain(*pair, target) for pair in self.gains]
            rows.append(("mean of targets" if target is None else target,
                         *(x for gain in each for x in gain[:2])))
        labels = [f"{after} / {before}" for after, before in self.gains]
        return figures(rows, ["gain in MAE", *(c for x in labels for c in (x, f"{x} error"))])

    def coverage_table(self):
        """Coverage of the intervals: all sources, and the faintest and brightest fifth.

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows, names = [], []
        for target, truth in self.truth.items():
            known = np.isfinite(truth)
            parts = {"": np.ones(known.sum(), dtype=bool)}
            if self.counts is not None:
                counts = self.counts[known]
                parts |= {" faint": counts <= np.quantile(counts, 0.2),
                          " bright": counts >= np.quantile(counts, 0.8)}
            row, names = [target], ["intervals"]
            for part, where in parts.items():
                for level, found in self.coverage(target, where).items():
                    row += found[:2]
                    names += [f"{level:.0%}{part}", f"{level:.0%}{part} error"]
            half = (self.intervals[target][1, 0] - self.intervals[target][0, 0]) / 2
            rows.append((*row, np.median(half) / truth[known].std()))
        return figures(rows, [*names, "width"])

    def tables(self):
        """Compact tables: R² by feature set, gains, coverage. `to_table` has everything."""
        scores = [name for name in next(iter(self.scores.values()))["best", _NESTED]
                  if name.startswith("R2")]
        return [joined_errors(table) for table in
                [*(self.score_table(name) for name in scores),
                 *([self.gain_table()] if self.gains else []), self.coverage_table()]]
