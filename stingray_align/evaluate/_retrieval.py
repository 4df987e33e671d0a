"""Does an event list find its own description among all others, and the other way round?

Every row is a pair. The rank of the true partner is taken among all rows (ties count half, so a
space in which everything coincides scores as chance), in both directions.
"""

from dataclasses import dataclass

import numpy as np

from ._report import Comparison, Report, bootstrap, figures, joined_errors

__all__ = ["RetrievalComparison", "RetrievalReport", "RetrievalResult", "fraction_of_ceiling",
           "lead_over", "linear_maps", "retrieval", "retrieval_baselines"]

PERCENTS = (1, 5, 10)
DIRECTIONS = ("events to texts", "texts to events")
_TIE = 1e-9  # cosines closer than this differ by rounding only
_CHUNK = 512  # rows compared with all others at a time


def retrieval(event_vectors, text_vectors, *, labels=None, counts=None, groups=None, seed=0,
              n_resamples=400):
    """Measure cross-modal retrieval on pairs.

    Parameters
    ----------
    event_vectors, text_vectors : array_like, shape (n, d)
        Vectors in the shared space; rows are pairs. They are scaled to unit length here.
    labels : array_like, shape (n,), optional
        Class of each row; then the rank among rows of the same class is measured too, which tells
        a class score from a finer match.
    counts : array_like, shape (n,), optional
        Photons of each row, for `RetrievalResult.by_counts`.
    groups : array_like, shape (n,), optional
        Source of each row. Other rows of the same source are right answers as well, so they do
        not count as competitors, and the bootstrap resamples sources.
    seed : int, optional
        Seed of the bootstrap.
    n_resamples : int, optional
        Bootstrap samples.

    Returns
    -------
    RetrievalResult

    Examples
    --------
    >>> import numpy as np
    >>> from stingray_align.evaluate import retrieval
    >>> vectors = np.eye(50)
    >>> result = retrieval(vectors, vectors)
    >>> result.primary.value
    1.0
    """
    events, texts = _unit(event_vectors, "event_vectors"), _unit(text_vectors, "text_vectors")
    if events.shape != texts.shape:
        raise ValueError(f"Rows must be pairs in one space: shapes {events.shape} and "
                         f"{texts.shape} differ.")
    n = len(events)
    groups = np.arange(n) if groups is None else _column(groups, n, "groups")
    labels = None if labels is None else _column(labels, n, "labels")
    counts = None if counts is None else _column(counts, n, "counts")
    ranks, within = {}, {}
    for direction, (asked, found) in zip(DIRECTIONS, [(events, texts), (texts, events)],
                                         strict=True):
        ranks[direction], within[direction] = _ranks(asked, found, groups, labels)
    _, inverse, size = np.unique(groups, return_inverse=True, return_counts=True)
    candidates = n - (size[inverse] - 1)
    estimates = {
        direction: _estimates(ranks[direction], candidates, within[direction], groups, seed,
                              n_resamples)
        for direction in DIRECTIONS
    }
    return RetrievalResult(ranks=ranks, candidates=candidates, within_class=within,
                           estimates=estimates, chance=_chance(candidates, labels is not None),
                           groups=groups, labels=labels, counts=counts, seed=seed)


def retrieval_baselines(train_events, train_texts, test_events, test_texts, *, labels=None,
                        counts=None, groups=None, n_components=64, seed=0):
    """Measure what linear maps reach where the aligner is used, and what chance looks like.

    Parameters
    ----------
    train_events, test_events : array_like, shape (n, n_event_features)
        Event vectors before alignment.
    train_texts, test_texts : array_like, shape (n, n_text_features)
        Text vectors before alignment.
    labels, counts, groups : array_like, shape (n_test,), optional
        As in `retrieval`.
    n_components : int, optional
        Principal components kept on each side before the canonical correlation.
    seed : int, optional
        Seed of the shuffling and of the bootstrap.

    Returns
    -------
    RetrievalComparison
        By name: ``ridge`` (events predict the text vector; leave-one-out choice of the penalty),
        ``CCA`` (canonical variates weighted by their correlation), and ``shuffled pairs`` (the
        ridge regression trained on wrong partners: must be chance, or the evaluation leaks).

    References
    ----------
    Hotelling 1936, Biometrika 28, 321 (canonical correlation).
    """
    maps = linear_maps(train_events, train_texts, n_components=n_components, seed=seed)
    return RetrievalComparison("Retrieval by linear maps", {
        name: retrieval(*project(test_events, test_texts), labels=labels, counts=counts,
                        groups=groups, seed=seed)
        for name, project in maps.items()})


def linear_maps(train_events, train_texts, *, n_components=64, seed=0):
    """Fit the maps of `retrieval_baselines`, to be used on several test sets.

    Parameters
    ----------
    train_events : array_like, shape (n, n_event_features)
    train_texts : array_like, shape (n, n_text_features)
    n_components, seed : int, optional
        As in `retrieval_baselines`.

    Returns
    -------
    dict of callable
        Name to a function of event and text vectors that returns both in one space.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_events, mean = np.asarray(train_events, float), np.mean(train_texts, axis=0)
    train_texts = np.asarray(train_texts) - mean
    rng = np.random.default_rng(seed)

    def ridge(texts):
        fit = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 7)))
        fit.fit(train_events, texts)
        return lambda events, own: (fit.predict(np.asarray(events, float)), np.asarray(own) - mean)

    return {"ridge": ridge(train_texts),
            "CCA": _canonical(train_events, train_texts, mean, n_components),
            "shuffled pairs": ridge(rng.permutation(train_texts))}


def _canonical(train_events, train_texts, mean, n_components):
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # After whitening, the canonical directions are the singular vectors of the cross-covariance;
    # leaving out small components first keeps them from fitting noise.
    def whitener(x):
        return make_pipeline(StandardScaler(), PCA(min(n_components, *x.shape), whiten=True,
                                                   svd_solver="full")).fit(x)

    events, texts = whitener(train_events), whitener(train_texts)
    cross = events.transform(train_events).T @ texts.transform(train_texts) / len(train_events)
    left, correlation, right = np.linalg.svd(cross, full_matrices=False)
    return lambda own, words: (
        events.transform(np.asarray(own, float)) @ left * correlation,
        texts.transform(np.asarray(words) - mean) @ right.T * correlation)


def _unit(vectors, name):
    vectors = np.asarray(vectors, dtype=float)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"{name} has shape {vectors.shape}, expected (n, d) with n > 1.")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name} holds values that are not finite.")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _column(values, n, name):
    values = np.asarray(values)
    if values.shape != (n,):
        raise ValueError(f"{name} has shape {values.shape}, expected ({n},).")
    return values


def _ranks(asked, found, groups, labels):
    n = len(asked)
    ranks, within = np.empty(n), np.full(n, np.nan)
    for start in range(0, n, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, n))
        similarity = asked[rows] @ found.T
        ahead = similarity - similarity[np.arange(len(rows)), rows][:, None]
        points = np.where(ahead > _TIE, 1.0, np.where(ahead < -_TIE, 0.0, 0.5))
        rival = groups[rows][:, None] != groups
        ranks[rows] = 1 + (points * rival).sum(axis=1)
        if labels is not None:
            rival &= labels[rows][:, None] == labels
            n_rivals = rival.sum(axis=1)
            place = (points * rival).sum(axis=1) + 0.5
            within[rows] = np.where(n_rivals > 0, place / (n_rivals + 1), np.nan)
    return ranks, within


def _cut(percent, candidates):
    # of fewer than 100 candidates, one per cent is still the first one
    return np.maximum(np.floor(percent * candidates / 100), 1)


def _estimates(ranks, candidates, within, groups, seed, n_resamples):
    hits = np.array([ranks <= _cut(p, candidates) for p in PERCENTS], dtype=float)
    relative, reciprocal = ranks / candidates, 1 / ranks
    in_class = np.isfinite(within).any()

    def statistic(rows):
        out = [*hits[:, rows].mean(axis=1), np.median(relative[rows]), reciprocal[rows].mean()]
        if in_class:
            own = within[rows]
            own = own[np.isfinite(own)]
            out.append(np.median(own) if own.size else np.nan)
        return np.array(out)

    values = bootstrap(statistic, len(ranks), groups=groups, seed=seed, n_resamples=n_resamples)
    return dict(zip(_names(in_class), values, strict=True))


def _names(in_class):
    names = [f"Recall@{p} %" for p in PERCENTS] + ["median rank / N", "mean reciprocal rank"]
    return names + ["median rank in class"] * bool(in_class)


def _chance(candidates, in_class):
    harmonic = np.cumsum(1 / np.arange(1, candidates.max() + 1))
    values = [float(np.mean(_cut(p, candidates) / candidates)) for p in PERCENTS]
    values.append(float(np.mean((candidates + 1) / (2 * candidates))))
    values.append(float(np.mean(harmonic[candidates - 1] / candidates)))
    return dict(zip(_names(in_class), values + [0.5] * in_class, strict=True))


@dataclass(frozen=True, eq=False)
class RetrievalResult(Report):
    """Ranks of true partners, and figures made of them.

    Attributes
    ----------
    ranks : dict of ndarray, shape (n,)
        For ``"events to texts"`` and ``"texts to events"``: rank of the true partner, from 1; ties
        count half.
    candidates : ndarray, shape (n,)
        How many rows the rank is among (other rows of the same source left out).
    within_class : dict of ndarray, shape (n,)
        Place among rows of the same class, 0 to 1; nan without labels or alone in a class.
    estimates : dict of dict of Estimate
        Direction to figure to value: ``"Recall@1 %"``, ``"Recall@5 %"``, ``"Recall@10 %"``,
        ``"median rank / N"``, ``"mean reciprocal rank"``, with labels ``"median rank in class"``.
    chance : dict of float
        What random ranks would give.
    groups, labels, counts : ndarray or None, shape (n,)
        Source, class and photons of each row, if given.
    seed : int
        Of the bootstrap.
    """

    primary_is = "Recall@1 % of texts from events (chance 0.01)"

    ranks: dict
    candidates: np.ndarray
    within_class: dict
    estimates: dict
    chance: dict
    groups: np.ndarray
    labels: np.ndarray | None = None
    counts: np.ndarray | None = None
    seed: int = 0

    title = property(lambda self: f"Retrieval among {len(self.candidates)} pairs")
    notes = ("Errors: bootstrap over sources. lift: events to texts over chance.",)

    @property
    def primary(self):
        """Recall@1 % of texts from events, an `Estimate`."""
        return self.estimates[DIRECTIONS[0]]["Recall@1 %"]

    def to_table(self):
        """Figures as a `~astropy.table.QTable`, one row each."""
        rows = []
        for name, chance in self.chance.items():
            if name not in self.estimates[DIRECTIONS[0]]:
                continue
            forth, back = (self.estimates[d][name] for d in DIRECTIONS)
            rows.append((name, forth.value, forth.error, back.value, back.error, chance,
                         forth.value / chance))
        return figures(rows, ["figure", DIRECTIONS[0], "error", DIRECTIONS[1], "error 2",
                              "chance", "lift"], formats={"lift": ".1f", "chance": ".4f"})

    def hits(self, percent=5):
        """Whether the partner is among the first so many per cent.

        Parameters
        ----------
        percent : float, optional

        Returns
        -------
        ndarray of bool, shape (2, n)
            Events to texts, and texts to events.
        """
        return np.array([self.ranks[d] <= _cut(percent, self.candidates) for d in DIRECTIONS])

    def recall(self, percent=5):
        """Recall@percent, mean of both directions.

        Parameters
        ----------
        percent : float, optional

        Returns
        -------
        Estimate
        """
        hits = self.hits(percent).mean(axis=0)
        return bootstrap(lambda rows: hits[rows].mean(), len(hits), groups=self.groups,
                         seed=self.seed)

    def by_counts(self, n_bins=10):
        """Recall@5 % of sources of similar photon counts, found among all sources.

        Parameters
        ----------
        n_bins : int, optional
            Bins of equally many sources.

        Returns
        -------
        astropy.table.QTable
            One row each; with labels also the median place within the class.

        Raises
        ------
        ValueError
            If no counts were given.
        """
        if self.counts is None:
            raise ValueError("No photon counts were given: retrieval(..., counts=...).")
        edges = np.quantile(self.counts, np.linspace(0, 1, n_bins + 1)[1:-1])
        bins = np.searchsorted(edges, self.counts, side="right")
        parts = [(f"{self.counts[bins == b].min():.0f} to {self.counts[bins == b].max():.0f}",
                  np.flatnonzero(bins == b)) for b in np.unique(bins)]
        return self._parts("photons", parts)

    def by_class(self):
        """Recall@5 % of the sources of each class, found among all sources.

        Returns
        -------
        astropy.table.QTable
            One row each, the best class first, with the median place within the class.

        Raises
        ------
        ValueError
            If no labels were given.
        """
        if self.labels is None:
            raise ValueError("No labels were given: retrieval(..., labels=...).")
        table = self._parts("class", [(str(name), np.flatnonzero(self.labels == name))
                                      for name in np.unique(self.labels)])
        return table[np.argsort(-(table[DIRECTIONS[0]] + table[DIRECTIONS[1]]), kind="stable")]

    def _parts(self, name, parts):
        hits = self.hits().astype(float)
        places = [self.within_class[d] for d in DIRECTIONS]
        in_class = self.labels is not None
        rows = []
        for label, members in parts:
            def statistic(chosen, members=members):
                own = members[chosen]
                out = list(hits[:, own].mean(axis=1))
                return out + [np.nanmedian(np.concatenate([p[own] for p in places]))
                              if in_class and any(np.isfinite(p[own]).any() for p in places)
                              else np.nan]
            forth, back, place = bootstrap(statistic, len(members), groups=self.groups[members],
                                           seed=self.seed, n_resamples=200)
            rows.append((label, len(members), forth.value, forth.error, back.value, back.error)
                        + (place.value, place.error) * in_class)
        return figures(rows, [name, "n"] + [f"{d}{e}" for d in DIRECTIONS for e in ("", " error")]
                       + ["rank in class", "rank in class error"] * in_class)


def fraction_of_ceiling(result, ceiling, *, percent=5, direction=None, n_resamples=400):
    """Share of what could be had: recall over that of a ceiling, both without chance.

    Parameters
    ----------
    result, ceiling : RetrievalResult
        Of the same pairs, in the same order.
    percent : float, optional
        Of Recall@percent.
    direction : {"events to texts", "texts to events"}, optional
        By default the mean of both.
    n_resamples : int, optional
        Bootstrap samples, of the same sources in both.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> import numpy as np
    >>> from stingray_align.evaluate import fraction_of_ceiling, retrieval
    >>> perfect = retrieval(np.eye(50), np.eye(50))
    >>> fraction_of_ceiling(perfect, perfect).value
    1.0
    """
    chance = np.mean(_cut(percent, result.candidates) / result.candidates)

    def share(ours, best):
        return (ours - chance) / (best - chance) if best > chance else np.nan

    return _paired(share, result, ceiling, percent, direction, n_resamples)


def lead_over(result, other, *, percent=5, direction=None, n_resamples=400):
    """How much more is found than by another method, on the same pairs.

    Parameters
    ----------
    result, other : RetrievalResult
        Of the same pairs, in the same order.
    percent, direction, n_resamples
        As in `fraction_of_ceiling`.

    Returns
    -------
    Estimate
        Difference in recall. Its error is that of the difference: value over error says how many
        sigma one is ahead.
    """
    return _paired(lambda ours, theirs: ours - theirs, result, other, percent, direction,
                   n_resamples)


def _paired(compare, result, other, percent, direction, n_resamples):
    if len(result.candidates) != len(other.candidates):
        raise ValueError(f"These are not the same pairs: {len(result.candidates)} and "
                         f"{len(other.candidates)}.")
    chosen = DIRECTIONS if direction is None else (direction,)
    where = [DIRECTIONS.index(d) for d in chosen]
    ours, theirs = (r.hits(percent)[where].mean(axis=0) for r in (result, other))
    return bootstrap(lambda rows: compare(ours[rows].mean(), theirs[rows].mean()), len(ours),
                     groups=result.groups, seed=result.seed, n_resamples=n_resamples)


class RetrievalComparison(Comparison):
    """Several methods on the same pairs, in one table.

    Parameters
    ----------
    title : str
        What is compared.
    results : dict of RetrievalResult
        By method.
    """

    def to_table(self):
        """A row for each method and direction; the last row is chance."""
        rows, names = [], None
        for name, result in self.items():
            names = list(result.chance)
            for direction in DIRECTIONS:
                own = result.estimates[direction]
                rows.append((name, direction) + sum(((own[n].value, own[n].error) for n in names),
                                                    ()))
        chance = next(iter(self.values())).chance
        rows.append(("chance", "") + sum(((chance[n], 0.0) for n in names), ()))
        short = [n.replace("mean reciprocal rank", "MRR").replace("median rank in class",
                                                                  "rank in class") for n in names]
        return figures(rows, ["method", "direction"] + [f"{n}{e}" for n in short
                                                        for e in ("", " error")])

    def tables(self):
        """The table as it is printed, errors beside their values."""
        return [joined_errors(self.to_table())]

    __str__ = Report.__str__


class RetrievalReport(Report):
    """The same methods on several kinds of text, with the share of the ceiling.

    Parameters
    ----------
    title : str
        Which sources.
    comparisons : dict of RetrievalComparison
        By kind of text, each of the same methods. The first method is the one that is judged, the
        first kind of text the one that is shown in detail.
    ceiling, beside : str
        The method that knows the truth, and the one that ours has to lead.
    equal : str, optional
        Our method trained on as much as those two, if the first was trained on more: the lead is
        its own, and its share of the ceiling is given besides.
    """

    primary_is = "share of the ceiling's Recall@5 %"

    def __init__(self, title, comparisons, *, ceiling, beside, equal=None):
        self.title, self.comparisons = title, dict(comparisons)
        self.ceiling, self.beside, self.equal = ceiling, beside, equal
        self.notes = (
            "Errors: bootstrap over sources. First table: Recall@5 %, mean of both directions; "
            "share: that over the",
            "ceiling's, both without chance; lead: by a bootstrap of the same sources. Ranks are "
            "among all sources;",
            "rank in class: place among those of the same class, from 0 to 1.")

    @property
    def detailed(self):
        """The comparison on the first kind of text."""
        return next(iter(self.comparisons.values()))

    @property
    def primary(self):
        """Share of the ceiling on the first kind of text, an `Estimate`."""
        ours = next(iter(self.detailed.values()))
        return fraction_of_ceiling(ours, self.detailed[self.ceiling])

    def to_table(self):
        """Recall@5 % of all methods, shares of the ceiling and lead, a column for each kind."""
        columns = {}
        for kind, comparison in self.comparisons.items():
            ours, best = next(iter(comparison.values())), comparison[self.ceiling]
            rows = {name: result.recall() for name, result in comparison.items()}
            rows["share of the ceiling"] = fraction_of_ceiling(ours, best)
            for direction in DIRECTIONS:
                rows[f"share, {direction}"] = fraction_of_ceiling(ours, best, direction=direction)
            if self.equal is not None:
                ours = comparison[self.equal]
                rows[f"share, {self.equal}"] = fraction_of_ceiling(ours, best)
            ahead = rows[f"lead over {self.beside}"] = lead_over(ours, comparison[self.beside])
            # in units of its own error, whose error therefore is one
            sigma = ahead.value / ahead.error if ahead.error > 0 else np.nan
            rows["lead in sigma"] = ahead._replace(value=sigma, error=1.0)
            columns[kind] = rows
        names = list(next(iter(columns.values())))
        return figures([[name] + sum(([rows[name].value, rows[name].error]
                                      for rows in columns.values()), []) for name in names],
                       ["method"] + [f"{kind}{e}" for kind in columns for e in ("", " error")])

    def tables(self):
        """What is printed: kinds of text, methods, photon counts, classes."""
        ours = next(iter(self.detailed.values()))
        more = [] if ours.counts is None else [ours.by_counts()]
        more += [] if ours.labels is None else [ours.by_class()]
        return [joined_errors(table) for table in
                [self.to_table(), self.detailed.to_table(), *more]]

    def __str__(self):
        first = next(iter(self.comparisons))
        own = next(iter(self.detailed))
        heads = ["Recall@5 % by kind of text", f"All methods: {first}",
                 f"{own} by photon counts: {first}", f"{own} by class: {first}"]
        parts = [f"{head}\n{'-' * len(head)}\n" + "\n".join(
            table.pformat(show_unit=False, max_lines=-1, max_width=-1))
            for head, table in zip(heads, self.tables())]
        return "\n\n".join([self.title, *parts, "\n".join(self.notes)])
