"""Do intervals hold the truth as often as they say?

A 68 % interval should hold the true value for 68 % of the sources, at every brightness. The
coverage is counted by decile of photon counts, since an error at the faint end can hide behind a
good average, and by a label such as the kind of variability.
"""

from dataclasses import dataclass

import numpy as np

from ._report import Report, bootstrap, figures

__all__ = ["CalibrationResult", "calibration"]


def calibration(truth, lower, upper, counts, *, levels=(0.68, 0.95), labels=None, what="intervals",
                n_groups=10, seed=0, n_resamples=400):
    """Measure the coverage of intervals.

    Parameters
    ----------
    truth : array_like, shape (n,) or (n, m)
        True values, one or ``m`` for each source; nan where there is none.
    lower, upper : array_like, shape (n_levels, n) or (n_levels, n, m)
        Ends of the intervals, in the order of ``levels``.
    counts : array_like, shape (n,)
        Photons of each source.
    levels : sequence of float, optional
        Nominal probability contents.
    labels : array_like, shape (n,), optional
        Kind of each source, for coverage by kind.
    what : str, optional
        Name of the quantity, for the title.
    n_groups : int, optional
        Number of quantiles of ``counts``.
    seed : int, optional
        Seed of the bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.

    Returns
    -------
    CalibrationResult

    Examples
    --------
    >>> import numpy as np
    >>> from stingray_align.evaluate import calibration
    >>> measured = np.random.default_rng(1).normal(size=2000)  # of a true value of 0, error 1
    >>> half = np.array([[0.994], [1.960]])
    >>> result = calibration(np.zeros(2000), measured - half, measured + half, np.arange(2000))
    >>> [round(result.coverage[level].value, 1) for level in (0.68, 0.95)]
    [0.7, 0.9]
    """
    counts = np.asarray(counts)
    n = len(counts)
    truth = np.asarray(truth, dtype=float)
    if truth.shape[:1] != (n,) or truth.ndim > 2:
        raise ValueError(f"truth has shape {truth.shape}, expected ({n},) or ({n}, m).")
    truth = truth.reshape(n, -1)
    ends = []
    for name, end in (("lower", lower), ("upper", upper)):
        end = np.asarray(end, dtype=float)
        if end.size != len(levels) * truth.size or end.shape[0] != len(levels):
            raise ValueError(f"{name} has shape {end.shape}, expected one value for each of "
                             f"{len(levels)} levels and {truth.shape[0]} x {truth.shape[1]} "
                             "true values.")
        ends.append(end.reshape(len(levels), *truth.shape))
    known = np.isfinite(truth)
    if np.isnan(ends)[..., known].any():
        raise ValueError("An interval is nan although the true value is known.")
    n_known = known.sum(axis=1)
    held = ((ends[0] <= truth) & (truth <= ends[1]) & known).sum(axis=2)
    if labels is not None:
        labels = np.asarray(labels).astype(str)
        if labels.shape != (n,):
            raise ValueError(f"labels has shape {labels.shape}, expected ({n},).")
    return CalibrationResult(what=what, levels=tuple(levels), held=held, known=n_known,
                             counts=counts, labels=labels, n_groups=n_groups, seed=seed,
                             n_resamples=n_resamples)


@dataclass(frozen=True, eq=False)
class CalibrationResult(Report):
    """How often intervals held the truth.

    Attributes
    ----------
    what : str
        The quantity.
    levels : tuple of float
        Nominal contents.
    held : ndarray of int, shape (n_levels, n)
        How many of a source's true values its intervals held.
    known : ndarray of int, shape (n,)
        How many true values each source has.
    counts : ndarray, shape (n,)
        Photons of each source.
    labels : ndarray of str, shape (n,), or None
        Kind of each source.
    """

    what: str
    levels: tuple
    held: np.ndarray
    known: np.ndarray
    counts: np.ndarray
    labels: np.ndarray | None
    n_groups: int
    seed: int
    n_resamples: int

    title = property(lambda self: f"Coverage of {self.what}: {len(self.counts)} sources")
    notes = ("Errors: bootstrap over sources.",)

    @property
    def coverage(self):
        """Overall coverage: level to `Estimate`."""
        return dict(zip(self.levels, self._estimates(self.known > 0), strict=True))

    @property
    def primary(self):
        """Coverage at the first level, an `Estimate`."""
        return self.coverage[self.levels[0]]

    def _estimates(self, where):
        held, known = self.held[:, where], self.known[where]
        return bootstrap(lambda i: held[:, i].sum(axis=1) / known[i].sum(), len(known),
                         seed=self.seed, n_resamples=self.n_resamples)

    def to_table(self, by="counts"):
        """Coverage by quantile of photon counts, or by label.

        Parameters
        ----------
        by : {"counts", "label"}, optional

        Returns
        -------
        `~astropy.table.QTable`
        """
        usable = np.flatnonzero(self.known > 0)
        if by == "label":
            if self.labels is None:
                raise ValueError("No labels were given to calibration().")
            parts = [(name, usable[self.labels[usable] == name])
                     for name in np.unique(self.labels[usable])]
        else:
            order = usable[np.argsort(self.counts[usable], kind="stable")]
            parts = [(f"{self.counts[part].min()}-{self.counts[part].max()}", part)
                     for part in np.array_split(order, min(self.n_groups, len(order)))]
        rows = []
        for name, part in [*parts, ("all", usable)]:
            row = [name, len(part)]
            for estimate in self._estimates(part):
                row += [estimate.value, estimate.error]
            rows.append(row)
        columns = [c for level in self.levels for c in (f"{level:.0%}", f"{level:.0%} error")]
        return figures(rows, ["photons" if by == "counts" else "kind", "sources", *columns])

    def tables(self):
        """Coverage by photon counts and, if there are labels, by label."""
        return [self.to_table(by) for by in ("counts", "label")[: 1 + (self.labels is not None)]]
