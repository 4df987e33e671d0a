"""Bootstrap errors over sources and printed tables, shared by all evaluators.

Every evaluator resamples *sources* (or groups of observations of one source), never single
photons or single predictions: two observations of one star are not two independent trials.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from astropy.table import QTable, vstack

__all__ = ["Comparison", "Estimate", "Report", "bootstrap", "figures", "joined_errors"]


class Estimate(NamedTuple):
    """A number with its bootstrap uncertainty."""

    value: float
    error: float
    lower: float
    upper: float

    def __str__(self):
        return f"{self.value:.4g} ± {self.error:.2g}"


def bootstrap(statistic, n, *, groups=None, n_resamples=400, seed=0, level=0.95):
    """Estimate statistics and their errors by resampling sources with replacement.

    Parameters
    ----------
    statistic : callable
        Maps an index array (which rows, repeats allowed) to a float or a 1-d array of floats.
    n : int
        Number of rows.
    groups : array_like, shape (n,), optional
        Rows of one group are resampled together. By default every row is its own source.
    n_resamples : int, optional
        Number of bootstrap samples.
    seed : int, optional
        Seed of the resampling.
    level : float, optional
        Probability content of the percentile interval.

    Returns
    -------
    Estimate or list of Estimate
        One for each statistic, in the order that ``statistic`` gives them.

    References
    ----------
    Efron & Tibshirani, *An Introduction to the Bootstrap* (1993).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(1).normal(size=400)
    >>> mean = bootstrap(lambda rows: x[rows].mean(), 400)
    >>> bool(0.04 < mean.error < 0.06)
    True
    """
    if n == 0:
        raise ValueError("There is nothing to resample: no rows were given.")
    rng = np.random.default_rng(seed)
    everything = np.arange(n)
    if groups is None:
        def draw():
            return rng.integers(n, size=n)
    else:
        groups = np.asarray(groups)
        if groups.shape != (n,):
            raise ValueError(f"groups has shape {groups.shape}, expected ({n},).")
        order = np.argsort(groups, kind="stable")
        members = np.split(order, np.unique(groups[order], return_index=True)[1][1:])

        def draw():
            return np.concatenate([members[i] for i in rng.integers(len(members),
                                                                    size=len(members))])

    value = np.asarray(statistic(everything), dtype=float)
    samples = np.array([statistic(draw()) for _ in range(n_resamples)], dtype=float)
    samples, flat = samples.reshape(n_resamples, -1), value.reshape(-1)
    edges = [50 - 50 * level, 50 + 50 * level]
    out = []
    for i, one in enumerate(flat):
        # a resample may lack a class altogether: such undefined samples carry no information
        good = samples[np.isfinite(samples[:, i]), i]
        if good.size < 2:
            out.append(Estimate(float(one), np.nan, np.nan, np.nan))
            continue
        lower, upper = np.percentile(good, edges)
        out.append(Estimate(float(one), float(good.std(ddof=1)), float(lower), float(upper)))
    return out if value.ndim else out[0]


class Report:
    """Base of all results: something with a title, tables and notes.

    A subclass gives ``title``, ``notes`` and ``to_table``; printing shows them all. Where one
    figure stands for the whole, ``primary`` is it and ``primary_is`` says what it is.
    """

    title = ""
    notes = ()
    primary_is = ""

    def to_table(self):
        """Return the main figures as a `~astropy.table.QTable`."""
        raise TypeError(f"{type(self).__name__} does not define its table.")

    def tables(self):
        """All tables that printing shows, the main one first."""
        return [self.to_table()]

    def headline(self):
        """The primary figure in a line; empty where there is none."""
        if not self.primary_is:
            return ""
        figure = self.primary
        return f"{self.primary_is}: {f'{figure:.3g}' if isinstance(figure, float) else figure}"

    def __str__(self):
        parts = ["\n".join(table.pformat(show_unit=False, max_lines=-1, max_width=-1))
                 for table in self.tables()]
        return "\n\n".join([self.title, *parts, *self.notes])


class Comparison(Report, Mapping):
    """Several results of one kind, by name, with one table.

    Parameters
    ----------
    title : str
        What is compared.
    results : dict of Report
        Results of one kind.
    """

    def __init__(self, title, results):
        self.title, self._results = title, dict(results)

    def __getitem__(self, name):
        return self._results[name]

    def __iter__(self):
        return iter(self._results)

    def __len__(self):
        return len(self._results)

    def to_table(self):
        """The results' tables below each other, with a first column ``what``."""
        tables = []
        for name, result in self.items():
            table = result.to_table()
            table.add_column([name] * len(table), name="what", index=0)
            tables.append(table)
        return vstack(tables)

    def __str__(self):
        return "\n\n".join([self.title, *(f"{name}\n{'-' * len(name)}\n{result}"
                                          for name, result in self.items())])


def figures(rows, names, *, formats=None):
    """Make a table of rows whose floats print with three decimals unless told otherwise."""
    table = QTable(rows=[tuple(row) for row in rows], names=names)
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            table[name].info.format = (formats or {}).get(name, ".3f")
    return table


def joined_errors(table):
    """A table for printing: a column that has its errors beside it reads ``value ±error``."""
    shown = table.copy()
    for name in table.colnames:
        error = f"{name} error"
        if error in table.colnames:
            kind = table[name].info.format or ".3f"
            shown[name] = [f"{x:{kind}} ±{e:{kind}}" for x, e in zip(table[name], table[error],
                                                                     strict=True)]
            shown[name].info.format = None
            shown.remove_column(error)
    return shown
