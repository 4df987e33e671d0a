"""What the photons of NGC 3621 support: the case study, over many simulated galaxies.

One galaxy is an anecdote. Here the sources of `stingray_align.datasets.ngc3621` are simulated with
many seeds; counted is how often a query in plain words ranks its source first among the six, how
often `stingray_align.compare` finds the change between the epochs, and how often it finds one where
there is none: between two random halves of the photons of one epoch.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._report import Report, figures

__all__ = ["CHANGES", "CHANGE_QUERIES", "CaseStudyResult", "QUERIES", "case_study"]

#: What is asked of the photons, and the source that is meant.
QUERIES = {
    "an eclipsing ultraluminous source": "X3",
    "regular pulses of about an hour": "X4",
    "a heavily absorbed faint nucleus": "X1",
}

#: What is asked of the comparison of both epochs, and the source that is meant.
CHANGE_QUERIES = {"the spectrum changed but not the flux": "X2"}

#: The change of each source, and the test of `stingray_align.compare` that should find it.
CHANGES = {
    "X1": ("faded", "brightness"), "X2": ("another spectrum, same flux", "spectrum"),
    "X3": ("an eclipse", "variability"), "X4": ("heartbeats stopped", "variability"),
    "X5": ("faded", "brightness"), "X6": ("appeared", "brightness"),
}

_SIGMA = 3.0


def case_study(n_seeds, *, model=None, aligner=None, encoder=None, seed=0, progress=True):
    """Count what is found in simulated galaxies like NGC 3621.

    Parameters
    ----------
    n_seeds : int
        Galaxies, each with six sources in two epochs.
    model : PoissonAutodecoder, optional
        Default: the bundled one.
    aligner : Aligner, optional
        Default: the bundled one.
    encoder : TextEncoder, optional
        Default: the package's default.
    seed : int, optional
        Of the first galaxy, of the halves and of the simulations of the tests.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    CaseStudyResult
    """
    from ..alignment import AlignedCatalog, Aligner, compare, find_changes
    from ..autodecoder import PoissonAutodecoder, embed
    from ..datasets import ngc3621
    from ..text import TextEncoder

    model = PoissonAutodecoder.pretrained() if model is None else model
    aligner = Aligner.pretrained() if aligner is None else aligner
    encoder = TextEncoder() if encoder is None else encoder
    names = list(CHANGES)
    ranks = {query: [] for query in (*QUERIES, *CHANGE_QUERIES)}
    found, alarms, counts = [], [], []
    for number in tqdm(range(n_seeds), "galaxies", unit="galaxy", disable=not progress):
        galaxy = ngc3621(seed + number)
        rng = np.random.default_rng([seed, number])
        embeddings = embed(galaxy.event_lists, model)
        catalogue = AlignedCatalog.build(galaxy.photons, [None] * len(galaxy),
                                         table=galaxy.truth, model=model, aligner=aligner,
                                         encoder=encoder)
        for query, source in QUERIES.items():
            order = list(dict.fromkeys(catalogue.query(query, k=len(galaxy))["source"]))
            ranks[query].append(order.index(source) + 1)
        pairs = [(embeddings[i], embeddings[i + len(names)]) for i in range(len(names))]
        comparisons = [compare(*pair, seed=seed + number) for pair in pairs]
        for query, source in CHANGE_QUERIES.items():
            order = list(find_changes(comparisons, query)["row"])
            ranks[query].append(order.index(names.index(source)) + 1)
        found.append([comparison.tests["sigma"] for comparison in comparisons])
        # Each source in turn; in the fuller epoch, as no photons give no alarm.
        one = max(pairs[number % len(names)], key=lambda one: one.n_photons)
        alarms.append(compare(*_halves(one, rng), seed=seed + number).tests["sigma"])
        counts.append([[one.n_photons for one in pair] for pair in pairs])
    return CaseStudyResult(
        ranks={query: np.array(own) for query, own in ranks.items()},
        tests=tuple(map(str, comparisons[0].tests["test"])),
        found=np.array(found), alarms=np.array(alarms), counts=np.array(counts))


def _halves(embedding, rng):
    """Embeddings of two random halves of the photons: one state, seen twice at half the rate."""
    from ..autodecoder.embedding import Embedding, embed_vectors

    return [Embedding(embedding.model, part, embedding.gti,
                      embed_vectors(part, embedding.model)[0])
            for part in embedding.photons.thin(0.5, rng)]


@dataclass(frozen=True, eq=False)
class CaseStudyResult(Report):
    """How often queries and comparisons find what is there.

    Attributes
    ----------
    ranks : dict of ndarray of int, shape (n_seeds,)
        Query to the rank of the source that is meant, among six.
    tests : tuple of str
        Names of the tests of a comparison.
    found : ndarray, shape (n_seeds, 6, n_tests)
        Significance (sigma, corrected for the number of tests) of the change between the epochs.
    alarms : ndarray, shape (n_seeds, n_tests)
        The same between two halves of one epoch of one of the sources.
    counts : ndarray of int, shape (n_seeds, 6, 2)
        Photons in both epochs.
    """

    primary_is = "share of galaxies in which a query ranks its source first (mean of the queries)"

    ranks: dict
    tests: tuple
    found: np.ndarray
    alarms: np.ndarray
    counts: np.ndarray

    @property
    def title(self):
        return (f"Simulated sources of NGC 3621: what {len(self.counts)} galaxies of six sources "
                "in two epochs support")

    notes = (f"Errors are binomial. found: at {_SIGMA:g} sigma, corrected for the number of tests; "
             "the last row compares two random halves of one epoch, each source in turn. A source "
             "counts with the better matching one of its epochs.",)

    @property
    def primary(self):
        """Share of seeds with the right source first, averaged over the queries (a float)."""
        return float(np.mean([np.mean(own == 1) for own in self.ranks.values()]))

    def to_table(self):
        """How often each query ranks its source first."""
        rows = []
        for query, own in self.ranks.items():
            first = np.mean(own == 1)
            rows.append((query, (QUERIES | CHANGE_QUERIES)[query], first,
                         _binomial(first, len(own)), float(np.mean(own)), 1 / len(CHANGES)))
        return figures(rows, ["query", "means", "first", "first error", "mean rank", "chance"],
                       formats={"mean rank": ".1f"})

    def changes(self):
        """How often each source's change is found, and one where there is none."""
        rows = []
        for i, (source, (change, test)) in enumerate(CHANGES.items()):
            by_test = np.mean(self.found[:, i, self.tests.index(test)] >= _SIGMA)
            rows.append((source, change, "{:.0f}, {:.0f}".format(*self.counts[:, i].mean(axis=0)),
                         test, by_test, *self._any(self.found[:, i])))
        rows.append(("halves", "nothing", "", "", np.nan, *self._any(self.alarms)))
        return figures(rows, ["source", "change", "mean photons", "test", "found by it",
                              "found by any", "found by any error"])

    def _any(self, sigma):
        share = np.mean((sigma >= _SIGMA).any(axis=1))
        return share, _binomial(share, len(sigma))

    def tables(self):
        return [self.to_table(), self.changes()]


def _binomial(share, n):
    """Standard error of a share, not zero where all or none were found."""
    share = (share * n + 0.5) / (n + 1)
    return float(np.sqrt(share * (1 - share) / n))
