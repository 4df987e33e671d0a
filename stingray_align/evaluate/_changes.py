"""Does `stingray_align.compare` keep its promise, and what does it find?

Two observations of the same simulated source in the same state give the false alarms: p-values have
to be uniform, or larger. The second observation is then changed, by thinning its photons to a half
or by putting gas in front of the source, and what is found is counted.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._report import Report, figures

__all__ = ["ChangesResult", "changes"]

_TESTS = ("brightness", "spectrum", "variability", "form")
_LEVELS = (0.01, 0.05, 0.2)


def changes(first, second, model, *, n_h=1.0, level=0.01, seed=0, progress=True):
    """Measure false alarms and power of the comparison of two observations.

    Parameters
    ----------
    first, second : Photons or sequence of stingray.EventList
        Independent observations of the same sources in the same state, such as those of
        `stingray_align.datasets.simulate_through`.
    model : PoissonAutodecoder
    n_h : float, optional
        Column (1e22 cm-2) put in front of the second observation.
    level : float, optional
        Corrected p-value below which a change counts as found.
    seed : int, optional
        Of thinning and simulations.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    ChangesResult
    """
    from ..alignment import compare
    from ..autodecoder import embed

    first, second = (embed(list(lists), model) for lists in (first, second))
    rng = np.random.default_rng(seed)
    rows = {"nothing changed": [], "half as bright": [], f"{n_h:g}e22 cm-2 of gas": []}
    for a, b in tqdm(list(zip(first, second, strict=True)), "comparing", disable=not progress):
        half = b.photons.thin(0.5, rng)[0]
        halved = _of_photons(b, half.replace(background=b.photons.background))
        variants = (b, halved, b.edit(n_h=n_h, seed=int(rng.integers(2**31))))
        for kind, other in zip(rows, variants):
            table = compare(a, other, seed=int(rng.integers(2**31)), model=model).tests
            rows[kind].append((list(table["p_value"]), list(table["corrected"] < level)))
    return ChangesResult(
        p_values={kind: np.array([p for p, _ in own]) for kind, own in rows.items()},
        found={kind: np.array([f for _, f in own]) for kind, own in rows.items()},
        counts=np.array([min(a.n_photons, b.n_photons) for a, b in zip(first, second)]),
        level=level)


def _of_photons(embedding, photons):
    """The embedding of other photons of the same observation."""
    from ..autodecoder.embedding import Embedding, embed_vectors

    return Embedding(embedding.model, photons, embedding.gti,
                     embed_vectors(photons, embedding.model)[0])


@dataclass(frozen=True, eq=False)
class ChangesResult(Report):
    """False alarms and power of a comparison.

    Attributes
    ----------
    p_values : dict of ndarray, shape (n, 4)
        What was done to the second observation, to the p-values of brightness, spectrum,
        variability and form before correction; nan where too few photons.
    found : dict of ndarray of bool, shape (n, 4)
        Whether the corrected p-value is below ``level``.
    counts : ndarray, shape (n,)
        Photons of the fainter observation.
    level : float
    """

    p_values: dict
    found: dict
    counts: np.ndarray
    level: float

    @property
    def title(self):
        return f"Changes between two observations of {len(self.counts)} sources"

    @property
    def notes(self):
        return ("p<x: share of the p-values below x, before correction, with binomial error, where "
                "nothing changed: at most x, if they are valid. KS: p-value of a "
                "Kolmogorov-Smirnov test for p-values that are too small. found: share of all "
                f"sources with a corrected p-value below {self.level:g}.",)

    @property
    def primary(self):
        """Largest share of p-values below 0.05 where nothing changed, over the tests."""
        own = self.p_values["nothing changed"]
        return float(np.nanmax([np.mean(p[np.isfinite(p)] < 0.05) for p in own.T]))

    def to_table(self):
        """False alarms, a row per test."""
        from scipy.stats import kstest

        rows = []
        for number, test in enumerate(_TESTS):
            p = self.p_values["nothing changed"][:, number]
            p = p[np.isfinite(p)]
            row = [test, len(p)]
            for level in _LEVELS:
                row += [np.mean(p < level), np.sqrt(level * (1 - level) / max(len(p), 1))]
            # Few photons make p-values too large, which is no fault: one-sided.
            row.append(kstest(p, "uniform", alternative="greater").pvalue)
            rows.append(row)
        return figures(rows, ["test", "pairs", *(name for level in _LEVELS for name in
                                                 (f"p<{level:g}", f"+-{level:g}")), "KS"])

    def tables(self):
        """False alarms, and what is found of changes, by photon counts."""
        rows = []
        for kind, found in self.found.items():
            for low, high in ((0, 50), (50, 200), (200, np.inf)):
                some = (self.counts >= low) & (self.counts < high)
                if some.any():
                    rows.append((kind, f"{low} to {high:g}" if np.isfinite(high) else f"> {low}",
                                 int(some.sum()), *found[some].mean(axis=0),
                                 found[some].any(axis=1).mean()))
        return [self.to_table(), figures(rows, ["second observation", "photons", "pairs",
                                                *(f"{t} found" for t in _TESTS), "any found"])]
