"""Does an event list find its own description among all others, and the other way round?

Every row is a pair. The rank of the true partner is taken among all rows (ties count half, so a
space in which everything coincides scores as chance), in both directions.
"""

from dataclasses import dataclass

import numpy as np

from ._report import Comparison, Report, bootstrap, figures

__all__ = ["RetrievalResult", "retrieval", "retrieval_baselines"]

PERCENTS = (1, 5, 10)
DIRECTIONS = ("events to texts", "texts to events")
_TIE = 1e-9  # cosines closer than this differ by rounding only
_CHUNK = 512  # rows compared with all others at a time


def retrieval(event_vectors, text_vectors, *, labels=None, groups=None, seed=0, n_resamples=400):
    """Measure cross-modal retrieval on pairs.

    Parameters
    ----------
    event_vectors, text_vectors : array_like, shape (n, d)
        Vectors in the shared space; rows are pairs. They are scaled to unit length here.
    labels : array_like, shape (n,), optional
        Class of each row; then the rank among rows of the same class is measured too, which tells
        a class score from a finer match.
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
                           estimates=estimates, chance=_chance(candidates, labels is not None))


def retrieval_baselines(train_events, train_texts, test_events, test_texts, *, labels=None,
                        groups=None, n_components=64, seed=0):
    """Measure what linear maps reach where the aligner is used, and what chance looks like.

    Parameters
    ----------
    train_events, test_events : array_like, shape (n, n_event_features)
        Event vectors before alignment.
    train_texts, test_texts : array_like, shape (n, n_text_features)
        Text vectors before alignment.
    labels, groups : array_like, shape (n_test,), optional
        As in `retrieval`.
    n_components : int, optional
        Principal components kept on each side before the canonical correlation.
    seed : int, optional
        Seed of the shuffling and of the bootstrap.

    Returns
    -------
    Comparison of RetrievalResult
        By name: ``ridge`` (events predict the text vector; leave-one-out choice of the penalty),
        ``CCA`` (canonical variates weighted by their correlation), and ``shuffled pairs`` (the
        ridge regression trained on wrong partners: must be chance, or the evaluation leaks).

    References
    ----------
    Hotelling 1936, Biometrika 28, 321 (canonical correlation).
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_events, test_events = np.asarray(train_events, float), np.asarray(test_events, float)
    mean = np.mean(train_texts, axis=0)
    train_texts, test_texts = np.asarray(train_texts) - mean, np.asarray(test_texts) - mean
    rng = np.random.default_rng(seed)

    def ridge(texts):
        fit = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 7)))
        return fit.fit(train_events, texts).predict(test_events)

    spaces = {
        "ridge": (ridge(train_texts), test_texts),
        "CCA": _canonical(train_events, train_texts, test_events, test_texts, n_components),
        "shuffled pairs": (ridge(rng.permutation(train_texts)), test_texts),
    }
    return Comparison("Retrieval by linear maps", {
        name: retrieval(*pair, labels=labels, groups=groups, seed=seed)
        for name, pair in spaces.items()})


def _canonical(train_events, train_texts, test_events, test_texts, n_components):
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
    return (events.transform(test_events) @ left * correlation,
            texts.transform(test_texts) @ right.T * correlation)


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
    """

    primary_is = "Recall@1 % of texts from events (chance 0.01)"

    ranks: dict
    candidates: np.ndarray
    within_class: dict
    estimates: dict
    chance: dict

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
