"""What a match rests on: sentences of the texts, and stretches of time and energy of the photons.

Both by leaving something out and looking at how the similarity changes. A sentence is left out of
its summary, which is encoded and projected again. A stretch of time is taken for a gap, a range of
energies for one in which nothing was seen, and the remaining photons are embedded again. Since
fewer photons alone change a vector, the change is compared with that from leaving out as many
photons at random.
"""

import re

import numpy as np
from astropy.table import QTable

from ..photons import CHANNEL_EDGES, N_TIME_BINS, Photons

__all__ = ["drivers", "sentence_attribution", "sentences_of", "strongest"]

N_INTERVALS = 16
#: Borders of the ranges of energies, as numbers of `CHANNEL_EDGES`: 0.5, 0.77, 1.2, ... 8 keV.
_BANDS = (0, 3, 6, 8, 10, 13, 16, 19, 20)
_N_RANDOM = 24
_DRIVING = 2.0  # times the scatter from leaving out photons at random


def sentences_of(text):
    """Sentences of a text.

    Examples
    --------
    >>> from stingray_align.alignment.attribution import sentences_of
    >>> sentences_of("The index is 1.7. A flare of 2 ks was seen!")
    ['The index is 1.7.', 'A flare of 2 ks was seen!']
    """
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])", " ".join(text.split()))
    return [part for part in parts if part]


def sentence_attribution(catalogue, own, texts):
    """How much less similar each text is without each of its sentences, and without its facts.

    Parameters
    ----------
    catalogue : AlignedCatalog
        With a text encoder.
    own : ndarray, shape (1, n_shared)
        Projection of the source.
    texts : sequence of (int, Summary)
        Rank and text.

    Returns
    -------
    astropy.table.QTable
        ``text`` (its rank), ``part`` (a sentence, or "facts: ..." for the slots beside the prose),
        ``change`` of the similarity by its presence: positive where it carries the match.
    """
    from ..text.encoder import text_vectors
    from ..text.summary import Summary
    from ..text.writers import significant

    parts, shortened = [], []
    for rank, text in texts:
        sentences = sentences_of(text.text)
        parts.append((rank, None))
        shortened.append(text)
        if len(sentences) > 1:
            for i, sentence in enumerate(sentences):
                rest = " ".join(sentences[:i] + sentences[i + 1:])
                parts.append((rank, sentence))
                shortened.append(Summary(rest, text.slots, text.provenance))
        if text.slots:
            parts.append((rank, "facts: " + ", ".join(
                key if value is True else f"not {key}" if value is False else
                f"{key} {significant(value)}" if isinstance(value, float) else f"{key} {value}"
                for key, value in text.slots.items() if value is not None)))
            shortened.append(Summary(text.text, {}, text.provenance))
    rows = []
    if shortened:
        similarity = catalogue.aligner.transform_texts(
            text_vectors(shortened, catalogue.encoder)) @ own[0]
        whole = {rank: value for (rank, part), value in zip(parts, similarity) if part is None}
        rows = [(rank, part, float(whole[rank] - value))
                for (rank, part), value in zip(parts, similarity) if part is not None]
        rows.sort(key=lambda row: (row[0], -row[2]))
    table = QTable(rows=rows or None, names=("text", "part", "change"), dtype=(int, str, float))
    table["change"].info.format = "+.3f"
    return table


def drivers(catalogue, embedding, target, *, seed=0):
    """Stretches of time and energy without which a source would match less.

    Parameters
    ----------
    catalogue : AlignedCatalog
    embedding : Embedding
    target : ndarray, shape (n_shared,)
        Unit vector to compare with, such as the mean of the matched texts'.
    seed : int, optional
        Of the random photons.

    Returns
    -------
    astropy.table.QTable
        ``kind`` ("time" or "energy"), ``start`` and ``stop`` (absolute s, or keV), ``photons``,
        ``change`` of the similarity by its presence, ``scatter`` (standard deviation of the change
        from as many random photons), and ``drives``: the change is more than twice that above the
        mean of the random ones.
    """
    from ..autodecoder import embed_vectors

    photons = embedding.photons
    n, rng = int(photons.n_photons[0]), np.random.default_rng(seed)
    cells = _occlusions(photons, float(photons.start[0]), float(photons.duration[0]))
    variants = [photons, *(variant for *_, variant in cells)]
    removed = np.array([number for *_, number, _ in cells])
    # Random removals at a few sizes; what lies between is interpolated.
    sizes = np.unique(np.quantile(removed, [0, 0.5, 0.8, 1]).astype(int)) if len(removed) else []
    for size in sizes:
        for _ in range(_N_RANDOM):
            keep = np.ones(n, dtype=bool)
            keep[rng.choice(n, size, replace=False)] = False
            variants.append(_dimmed(photons.select(keep), size / n))
    vectors = embed_vectors(Photons.concatenate(variants), embedding.model)
    similarity = catalogue.aligner.transform_events(
        vectors, feature_names=embedding.feature_names) @ target
    change = similarity[0] - similarity[1:]
    random = change[len(cells):].reshape(len(sizes), _N_RANDOM)
    rows = []
    for (kind, start, stop, number, _), value in zip(cells, change):
        mean = np.interp(number, sizes, random.mean(axis=1))
        scatter = max(np.interp(number, sizes, random.std(axis=1)), 1e-4)
        rows.append((kind, start, stop, number, float(value), float(scatter),
                     bool(value - mean > _DRIVING * scatter)))
    table = QTable(rows=rows or None,
                   names=("kind", "start", "stop", "photons", "change", "scatter", "drives"),
                   dtype=(str, float, float, int, float, float, bool))
    for name in ("change", "scatter"):
        table[name].info.format = "+.3f" if name == "change" else ".3f"
    return table


def strongest(table, kind, n=3):
    """The rows of `drivers` of one kind that carry the match most.

    Parameters
    ----------
    table : astropy.table.QTable
        From `drivers`.
    kind : {"time", "energy"}
    n : int, optional
        How many at most.

    Returns
    -------
    astropy.table.QTable
    """
    own = table[(table["kind"] == kind) & table["drives"]]
    return own[np.argsort(-own["change"])][:n]


def _occlusions(photons, begin, duration):
    """(kind, start, stop, photons left out, what remains) of each stretch that has photons."""
    n = int(photons.n_photons[0])
    found = []
    if n < 2:
        return found
    # Stretches of equal exposure.
    passed = np.cumsum(photons.exposed[0], dtype=float)
    borders = np.searchsorted(passed, passed[-1] * np.arange(1, N_INTERVALS) / N_INTERVALS) + 1
    borders = np.unique(np.concatenate([[0], borders, [N_TIME_BINS]]))
    for low, high in zip(borders[:-1], borders[1:]):
        inside = (photons.time_bin >= low) & (photons.time_bin < high)
        if 0 < inside.sum() < n:
            exposed = photons.exposed.copy()
            exposed[:, low:high] = 0
            share = 1 - exposed.sum() / photons.exposed.sum()
            rest = photons.select(~inside).replace(exposed=exposed)
            found.append(("time", begin + low / N_TIME_BINS * duration,
                          begin + high / N_TIME_BINS * duration, int(inside.sum()),
                          _dimmed(rest, share)))
    for low, high in zip(_BANDS[:-1], _BANDS[1:]):
        inside = (photons.channel >= low) & (photons.channel < high)
        if 0 < inside.sum() < n:
            found.append(("energy", float(CHANNEL_EDGES[low]), float(CHANNEL_EDGES[high]),
                          int(inside.sum()), photons.select(~inside)))
    return found


def _dimmed(photons, share):
    """With the background reduced by the share of what was left out."""
    return photons.replace(background=photons.background * np.float32(1 - share))
