r"""Do intervals hold the truth as often as they say, and are they as narrow as they can be?

A 68 % interval should hold the true value for 68 % of the sources, at every brightness. The
coverage is counted by decile of photon counts, since an error at the faint end can hide behind a
good average, and by a label such as the kind of variability.

Coverage alone is easy: an interval that ignores the photons has it. Among calibrated posteriors
the sharper one is better, and a proper score weighs both. For quantiles :math:`q_p` that is the
continuous ranked probability score,

.. math:: \mathrm{CRPS} = 2 \int_0^1 (y - q_p) \, (p - [y < q_p]) \, dp ,

and for intervals :math:`[l, u]` of content :math:`1 - \alpha` the weighted interval score, the
mean over levels of

.. math:: \frac{\alpha}{2} (u - l) + \max(l - y, 0) + \max(y - u, 0) .

Both are in the unit of the truth; smaller is better.

References
----------
Gneiting & Raftery 2007, JASA 102, 359 (proper scores); Bracher et al. 2021, PLoS Comput. Biol. 17,
e1008618 (weighted interval score); Czado, Gneiting & Held 2009, Biometrics 65, 1254 (coverage
where the posterior has an atom).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from ._report import Report, bootstrap, figures, joined_errors

__all__ = ["CalibrationResult", "calibration", "crps", "quantile_calibration"]


def calibration(truth, lower, upper, counts, *, levels=(0.68, 0.95), labels=None, what="intervals",
                rivals=None, n_groups=10, seed=0, n_resamples=400):
    """Measure the coverage and the weighted interval score of intervals.

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
    rivals : dict of (lower, upper), optional
        Other intervals for the same truth, by name.
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
    truth, counts, labels = _checked(truth, counts, labels)
    known = np.isfinite(truth)
    alpha = 1 - np.asarray(levels, dtype=float)[:, None, None]
    held, width, score = {}, {}, {}
    for name, ends in ({"ours": (lower, upper)} | (rivals or {})).items():
        low, high = (_ends(end, where, levels, truth, known)
                     for end, where in zip(ends, ("lower", "upper"), strict=True))
        if (low > high)[:, known].any():
            raise ValueError(f"An interval ({name}) has its lower end above the upper one.")
        held[name] = ((low <= truth) & (truth <= high)).astype(float)
        width[name] = (high - low)[0]
        score[name] = (alpha / 2 * (high - low) + np.maximum(low - truth, 0)
                       + np.maximum(truth - high, 0)).mean(axis=0)
    return _result(what, levels, held, width, score, "interval score", known, counts, labels,
                   n_groups, seed, n_resamples)


def quantile_calibration(truth, quantiles, probabilities, counts, *, levels=(0.68, 0.95),
                         labels=None, what="quantiles", rivals=None, n_groups=10, seed=0,
                         n_resamples=400):
    """Measure the coverage of central intervals and the CRPS of posteriors given as quantiles.

    Parameters
    ----------
    truth, counts, levels, labels, what, n_groups, seed, n_resamples
        As in `calibration`.
    quantiles : array_like, shape (n, n_probabilities) or (n, m, n_probabilities)
        Quantiles of the posterior of each true value, not falling.
    probabilities : array_like, shape (n_probabilities,)
        Their probabilities, rising; quantiles between them are interpolated, those beyond the
        first and last are taken to be equal to these.
    rivals : dict of array_like, optional
        Quantiles of other posteriors for the same truth, by name.

    Returns
    -------
    CalibrationResult

    Notes
    -----
    A posterior may give one value a probability of its own, such as a variability of zero. Any
    interval then holds more than it says. A truth at such a value counts as held by the share of
    the value's probability that lies between the interval's two tail probabilities, which is the
    mean of the randomised probability integral transform: an exact posterior covers as it says.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.stats import norm
    >>> from stingray_align.evaluate import quantile_calibration
    >>> p = np.linspace(0.01, 0.99, 33)
    >>> measured = np.random.default_rng(1).normal(size=2000)
    >>> quantiles = measured[:, None] + norm.ppf(p)
    >>> wide = {"twice as wide": measured[:, None] + 2 * norm.ppf(p)}
    >>> result = quantile_calibration(np.zeros(2000), quantiles, p, np.arange(2000), rivals=wide)
    >>> round(result.score_ratio("twice as wide").value, 2)
    0.86
    """
    truth, counts, labels = _checked(truth, counts, labels)
    known = np.isfinite(truth)
    probabilities = np.asarray(probabilities, dtype=float)
    tails = (1 - np.asarray(levels, dtype=float)) / 2
    if not (np.diff(probabilities) > 0).all() or not 0 < probabilities[0] < probabilities[-1] < 1:
        raise ValueError("probabilities must rise between 0 and 1.")
    held, width, score = {}, {}, {}
    for name, given in ({"ours": quantiles} | (rivals or {})).items():
        given = np.asarray(given, dtype=float)
        if given.size != truth.size * len(probabilities) or given.shape[0] != len(truth):
            raise ValueError(f"quantiles ({name}) have shape {given.shape}, expected one value for "
                             f"each of {truth.shape[0]} x {truth.shape[1]} true values and "
                             f"{len(probabilities)} probabilities.")
        given = given.reshape(*truth.shape, -1)
        if np.isnan(given)[known].any():
            raise ValueError(f"A quantile ({name}) is nan although the true value is known.")
        if (np.diff(given, axis=-1)[known] < 0).any():
            raise ValueError(f"Quantiles ({name}) must not fall with probability.")
        below, above = _cumulative(truth, given, probabilities)
        held[name] = np.stack([_share_inside(below, above, tail) for tail in tails])
        low, high = (_quantile_at(given, probabilities, p) for p in (tails[0], 1 - tails[0]))
        width[name] = high - low
        score[name] = crps(truth, given, probabilities)
    return _result(what, levels, held, width, score, "CRPS", known, counts, labels, n_groups, seed,
                   n_resamples)


def crps(truth, quantiles, probabilities):
    """Continuous ranked probability score of posteriors given as quantiles.

    Parameters
    ----------
    truth : array_like, shape (...)
    quantiles : array_like, shape (..., n_probabilities)
    probabilities : array_like, shape (n_probabilities,)
        Rising. Sorted draws are quantiles too, at ``(arange(n) + 0.5) / n``.

    Returns
    -------
    ndarray, shape (...)
        In the unit of the truth.

    References
    ----------
    Gneiting & Raftery 2007, JASA 102, 359.

    Examples
    --------
    >>> from stingray_align.evaluate import crps
    >>> crps(3.0, [1.0], [0.5]).item()  # all probability at one value: the distance from it
    2.0
    """
    # Beyond the ends the quantiles stay as they are, where the loss is linear in p.
    p = np.concatenate([[0.0], probabilities, [1.0]])
    q = np.asarray(quantiles, dtype=float)
    q = np.concatenate([q[..., :1], q, q[..., -1:]], axis=-1)
    miss = np.asarray(truth, dtype=float)[..., None] - q
    return 2 * np.trapezoid(miss * (p - (miss < 0)), p, axis=-1)


def _checked(truth, counts, labels):
    counts = np.asarray(counts)
    n = len(counts)
    truth = np.asarray(truth, dtype=float)
    if truth.shape[:1] != (n,) or truth.ndim > 2:
        raise ValueError(f"truth has shape {truth.shape}, expected ({n},) or ({n}, m).")
    if labels is not None:
        labels = np.asarray(labels).astype(str)
        if labels.shape != (n,):
            raise ValueError(f"labels has shape {labels.shape}, expected ({n},).")
    return truth.reshape(n, -1), counts, labels


def _ends(end, where, levels, truth, known):
    end = np.asarray(end, dtype=float)
    if end.size != len(levels) * truth.size or end.shape[0] != len(levels):
        raise ValueError(f"{where} has shape {end.shape}, expected one value for each of "
                         f"{len(levels)} levels and {truth.shape[0]} x {truth.shape[1]} "
                         "true values.")
    end = end.reshape(len(levels), *truth.shape)
    if np.isnan(end[:, known]).any():
        raise ValueError("An interval is nan although the true value is known.")
    return end


def _cumulative(truth, quantiles, probabilities):
    """Posterior probability of a value below the truth, and of one not above it."""
    n = len(probabilities)
    less = (quantiles < truth[..., None]).sum(axis=-1)
    not_more = (quantiles <= truth[..., None]).sum(axis=-1)
    right = np.clip(less, 1, n - 1)
    q0, q1 = (np.take_along_axis(quantiles, (right - k)[..., None], -1)[..., 0] for k in (1, 0))
    step = np.where(q1 > q0, q1 - q0, 1)
    between = probabilities[right - 1] + (truth - q0) / step * np.diff(probabilities)[right - 1]
    between = np.where(less == 0, 0.0, np.where(less == n, 1.0, between))
    tied = not_more > less
    below = np.where(less == 0, 0.0, probabilities[np.minimum(less, n - 1)])
    above = np.where(not_more == n, 1.0, probabilities[np.maximum(not_more - 1, 0)])
    return np.where(tied, below, between), np.where(tied, above, between)


def _share_inside(below, above, tail):
    """Share of the probabilities from ``below`` to ``above`` that is in neither tail."""
    mass = above - below
    inside = np.minimum(above, 1 - tail) - np.maximum(below, tail)
    whole = (tail <= below) & (above <= 1 - tail)
    return np.where(mass > 0, np.clip(inside, 0, None) / np.where(mass > 0, mass, 1), whole)


def _quantile_at(quantiles, probabilities, p):
    right = np.clip(np.searchsorted(probabilities, p), 1, len(probabilities) - 1)
    share = np.clip((p - probabilities[right - 1])
                    / (probabilities[right] - probabilities[right - 1]), 0, 1)
    return (1 - share) * quantiles[..., right - 1] + share * quantiles[..., right]


def _result(what, levels, held, width, score, score_name, known, counts, labels, n_groups, seed,
            n_resamples):
    def per_source(values):
        return {name: np.where(known, value, 0).sum(axis=-1) for name, value in values.items()}

    return CalibrationResult(
        what=what, levels=tuple(levels), held=per_source(held), width=per_source(width),
        score=per_source(score), score_name=score_name, known=known.sum(axis=1), counts=counts,
        labels=labels, n_groups=n_groups, seed=seed, n_resamples=n_resamples)


@dataclass(frozen=True, eq=False)
class CalibrationResult(Report):
    """How often intervals held the truth, and how sharp they are.

    Attributes
    ----------
    what : str
        The quantity.
    levels : tuple of float
        Nominal contents.
    held : dict of ndarray, shape (n_levels, n)
        How many of a source's true values its intervals held, for ``"ours"`` and each rival.
    width : dict of ndarray, shape (n,)
        Widths of the intervals of the first level, summed over a source's true values.
    score : dict of ndarray, shape (n,)
        Scores, summed over a source's true values.
    score_name : str
        ``"CRPS"`` or ``"interval score"``.
    known : ndarray of int, shape (n,)
        How many true values each source has.
    counts : ndarray, shape (n,)
        Photons of each source.
    labels : ndarray of str, shape (n,), or None
        Kind of each source.
    """

    primary_is = "share of sources whose 68 % interval holds the truth"

    what: str
    levels: tuple
    held: dict
    width: dict
    score: dict
    score_name: str
    known: np.ndarray
    counts: np.ndarray
    labels: np.ndarray | None
    n_groups: int
    seed: int
    n_resamples: int

    title = property(lambda self: f"Coverage of {self.what}: {len(self.counts)} sources")

    @property
    def notes(self):
        """How to read the table."""
        about = (f"{self.score_name}: mean over true values, smaller is better; below 1 relative "
                 f"to a rival it is better than that; width: of the {self.levels[0]:.0%} interval.")
        tested = "; ".join(f"{level:.0%} {value:.1f} for {n} groups, p = {p:.2g}"
                           for level, (value, n, p) in self.chi_squared().items())
        tested = ("chi^2 of the coverage by photon counts, about one for each group if intervals "
                  f"hold what they say: {tested}.")
        return ("Errors: bootstrap over sources.", tested, about)[: 2 + bool(self.rivals)]

    @property
    def rivals(self):
        """Names of the rivals, a tuple."""
        return tuple(self.held)[1:]

    @property
    def coverage(self):
        """Overall coverage: level to `Estimate`."""
        return self.coverage_of("ours")

    def coverage_of(self, name, where=None):
        """Coverage of one method, as a dict of level to `Estimate`.

        Parameters
        ----------
        name : str
            ``"ours"`` or a rival.
        where : ndarray of int, optional
            Which sources; by default all whose truth is known.
        """
        where = np.flatnonzero(self.known) if where is None else where
        held, known = self.held[name][:, where], self.known[where]
        return dict(zip(self.levels, bootstrap(
            lambda i: held[:, i].sum(axis=1) / known[i].sum(), len(known), seed=self.seed,
            n_resamples=self.n_resamples), strict=True))

    def chi_squared(self, by="counts"):
        r"""Whether the coverage of all groups together is what it should be, but for chance.

        The sum over groups of :math:`(k - p n)^2 / (d\, p (1 - p) n)` for :math:`k` of :math:`n`
        true values held at level :math:`p`. The design effect :math:`d` is how much more :math:`k`
        scatters than if each true value were of a source of its own.

        Parameters
        ----------
        by : {"counts", "label"}, optional
            As in `groups`.

        Returns
        -------
        dict of (float, int, float)
            Level to chi squared, number of groups, and the probability of a larger one if the
            intervals are exact.

        References
        ----------
        Rao & Scott 1981, JASA 76, 221 (the design effect).
        """
        parts = [part for _, part in self.groups(by)]
        found = {}
        for level, held in zip(self.levels, self.held["ours"], strict=True):
            share = held.sum() / self.known.sum()
            scatter = ((held - share * self.known) ** 2).sum() / self.known.sum()
            design = scatter / (share * (1 - share)) if 0 < share < 1 else 1.0
            value = sum((held[part].sum() - level * self.known[part].sum()) ** 2
                        / self.known[part].sum() for part in parts)
            value /= design * level * (1 - level)
            found[level] = float(value), len(parts), float(chi2.sf(value, len(parts)))
        return found

    @property
    def primary(self):
        """Coverage at the first level, an `Estimate`."""
        return self.coverage[self.levels[0]]

    def score_ratio(self, rival, where=None):
        """Mean score relative to a rival's on the same sources, an `Estimate`."""
        return self._ratio(self.score, rival, where)

    def width_ratio(self, rival, where=None):
        """Mean width of the first level's intervals relative to a rival's, an `Estimate`."""
        return self._ratio(self.width, rival, where)

    def _ratio(self, values, rival, where):
        where = np.flatnonzero(self.known) if where is None else where
        ours, theirs = values["ours"][where], values[rival][where]
        with np.errstate(divide="ignore", invalid="ignore"):
            return bootstrap(lambda i: ours[i].sum() / theirs[i].sum(), len(ours), seed=self.seed,
                             n_resamples=self.n_resamples)

    def groups(self, by="counts"):
        """Sources by quantile of photon counts, or by label.

        Parameters
        ----------
        by : {"counts", "label"}, optional

        Returns
        -------
        list of (str, ndarray of int)
            Name and rows of each group; only sources whose truth is known.

        Raises
        ------
        ValueError
            If ``by`` is neither, or if there are no labels.
        """
        if by not in ("counts", "label"):
            raise ValueError(f'by={by!r}: give "counts" or "label"')
        usable = np.flatnonzero(self.known)
        if by == "label":
            if self.labels is None:
                raise ValueError("No labels were given to calibration().")
            return [(name, usable[self.labels[usable] == name])
                    for name in np.unique(self.labels[usable])]
        order = usable[np.argsort(self.counts[usable], kind="stable")]
        return [(f"{self.counts[part].min()}-{self.counts[part].max()}", part)
                for part in np.array_split(order, min(self.n_groups, len(order)))]

    def to_table(self, by="counts"):
        """Coverage, score and sharpness by quantile of photon counts, or by label.

        Parameters
        ----------
        by : {"counts", "label"}, optional

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = []
        for name, part in [*self.groups(by), ("all", np.flatnonzero(self.known))]:
            row = [name, len(part)]
            for estimate in self.coverage_of("ours", part).values():
                row += [estimate.value, estimate.error]
            row.append(self.score["ours"][part].sum() / self.known[part].sum())
            for rival in self.rivals:
                row += [estimate.value for estimate in self.coverage_of(rival, part).values()]
                row += [*self.score_ratio(rival, part)[:2], self.width_ratio(rival, part).value]
            rows.append(row)
        columns = [c for level in self.levels for c in (f"{level:.0%}", f"{level:.0%} error")]
        columns.append(self.score_name)
        for rival in self.rivals:
            relative = f"{self.score_name} / {rival}"
            columns += [f"{rival} {level:.0%}" for level in self.levels]
            columns += [relative, f"{relative} error", f"width / {rival}"]
        return figures(rows, ["photons" if by == "counts" else "kind", "sources", *columns])

    def tables(self):
        """Coverage by photon counts and, if there are labels, by label."""
        return [joined_errors(self.to_table(by))
                for by in ("counts", "label")[: 1 + (self.labels is not None)]]
