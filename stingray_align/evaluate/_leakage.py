"""How much of what texts seem to know is only written in them?

A summary that states a number makes the regression of that number from text circular, and one that
names the class or the source lets a text be found without any physics. Here numbers, class names
and source names are masked in the prose and removed from the slots, one kind at a time and all
together, and retrieval and regression are measured again on the same sources.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from ._regression import regression
from ._report import Report, bootstrap, figures, joined_errors
from ._retrieval import DIRECTIONS, PERCENTS, retrieval
from ._splits import source_index

__all__ = ["MASKS", "LeakageResult", "leakage", "masked"]

MASKS = ("numbers", "class names", "source names")
"""What can be masked."""

_NUMBER = r"\d+(?:[.,]\d+)*(?:\s*[x×*]\s*10\s*\^?\s*[-−+]?\d+|e[-+]?\d+|\^[-+]?\d+)?"
_WORD = (r"(?:half an?|an?|a few(?: times)?|a couple of|several|one|two|three|four|five|six|seven|"
         r"eight|nine|ten|twelve|twenty|thirty|tens of|hundreds? of|thousands? of|a fraction of a)")
_UNIT = (r"(?:(?:tens of )?(?:milli|kilo)?seconds?|(?:tens of )?minutes?|hours?|days?|weeks?|"
         r"months?|years?|min|ms|ks|[sdh]|million (?:kelvin|degrees)|kelvin|[km]?eV|per cent|%|"
         r"erg\S*(?:\s(?:s|cm)\S*)*|cgs units|per square centimetre|cm\S*)(?![\w^])")
_NUMBERS = re.compile(
    rf"(?<![A-Za-z\d^.−-])[-+±−]?{_NUMBER}(?:\s*(?:±|\+/-|–|-|to)\s*{_NUMBER})*(?:[\s-]*{_UNIT})?"
    rf"|\b{_WORD}(?:\s+times)?[\s-]+(?:{_NUMBER}(?:[\s-]*{_UNIT})?|{_UNIT})", re.IGNORECASE)
# Designations: a position (4U 1636-536, CXO J1234.5+6789) or a number in a list (NGC 1313 X-1).
_DESIGNATION = re.compile(
    r"\b(?:\d?[A-Z]{1,6}[\w-]*\s?)?[JB]?\d{4,}(?:\.\d+)?[+−-]\d{2,}(?:\.\d+)?\w*"
    r"|\b(?:NGC|IC|Messier|M|Mrk|Mkn|Abell|UGC|ESO|Arp|PSR|SGR|HD|HR|Cyg|Cen|Sco|Her|Cas|Vela)"
    r"[\s-]?(?:X-)?\d+(?:[\s-]X-\d+)?\b")


def masked(summary, masks=MASKS, *, name=None):
    """A summary without what would give the answer away.

    Parameters
    ----------
    summary : Summary
    masks : sequence of str, optional
        Some of `MASKS`: ``"numbers"`` (with their units; the number slots go too), ``"class
        names"`` (of any class, with the synonyms and the kinds of objects in the glossary; the
        class slot goes too), ``"source names"`` (designations).
    name : str, optional
        Name of the source, masked with the source names.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        If a mask is unknown.

    Examples
    --------
    >>> from stingray_align.evaluate import masked
    >>> from stingray_align.text import Summary
    >>> summary = Summary("NGC 300 X-1 is an HMXB with a period of 33 h.", {"period": 118800.0})
    >>> masked(summary).text, masked(summary).slots
    ('the source is an object with a period of some.', {})
    """
    from ..text.glossary import class_terms
    from ..text.slots import NUMBER_SLOTS

    if unknown := set(masks) - set(MASKS):
        raise ValueError(f"unknown masks {sorted(unknown)}; there are {', '.join(MASKS)}")
    text, slots = summary.text, dict(summary.slots)
    if "source names" in masks:  # first: they hold numbers
        if name:
            text = re.sub(re.escape(name), "the source", text, flags=re.IGNORECASE)
        text = _DESIGNATION.sub("the source", text)
    if "class names" in masks:
        text = class_terms().sub("object", text)
        slots.pop("class", None)
    if "numbers" in masks:
        text = _NUMBERS.sub("some", text)
        slots = {key: value for key, value in slots.items() if key not in NUMBER_SLOTS}
    return replace(summary, text=text, slots=slots)


def leakage(summaries, event_vectors, targets, *, aligner, encoder, labels=None, names=None,
            groups=None, seed=0, n_resamples=400, progress=True):
    """Measure how retrieval and regression fall when texts are masked.

    Parameters
    ----------
    summaries : sequence of Summary
        One for each row.
    event_vectors : array_like, shape (n, n_features)
        Vectors of the same sources before alignment.
    targets : dict of array_like, shape (n,)
        True values to be read from the texts, by name; nan where unknown. Logarithms beforehand
        where they are meant.
    aligner : Aligner
        Projects both sides. It was trained on texts without masks.
    encoder : TextEncoder
        The aligner's.
    labels : array_like, shape (n,), optional
        Class of each row, for the rank within the class.
    names : sequence of str, optional
        Names of the sources, masked with the source names.
    groups : array_like, shape (n,), optional
        Source of each row; by default every row is its own.
    seed : int, optional
        Seed of folds and bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.
    progress : bool, optional
        Whether to show progress bars.

    Returns
    -------
    LeakageResult
    """
    from ..text import slot_vector

    n = len(summaries)
    names = [None] * n if names is None else [str(name) for name in names]
    if not n == len(event_vectors) == len(names):
        raise ValueError("summaries, event_vectors and names must have one entry per source")
    kinds = {"nothing": (), **{mask: (mask,) for mask in MASKS}, "all": MASKS}
    texts = {kind: [masked(summary, masks, name=name)
                    for summary, name in zip(summaries, names, strict=True)]
             for kind, masks in kinds.items()}
    # most masks leave some texts as they are: each is encoded once
    prose = list(dict.fromkeys(text.text for own in texts.values() for text in own))
    encoded = dict(zip(prose, encoder.encode(prose), strict=True))
    vectors = {kind: np.array([np.concatenate([encoded[text.text], slot_vector(text.slots)])
                               for text in own]) for kind, own in texts.items()}
    changed = {kind: float(np.mean([a != b for a, b in zip(own, summaries, strict=True)]))
               for kind, own in texts.items()}
    events = aligner.transform_events(event_vectors)
    ranks = {kind: retrieval(events, aligner.transform_texts(own), labels=labels, groups=groups,
                             seed=seed, n_resamples=2) for kind, own in vectors.items()}
    read = regression(vectors, targets, groups=groups, experts=("ridge",), seed=seed, n_resamples=2,
                      progress=progress)
    columns = _columns(ranks, read, list(kinds), labels is not None)
    figure_names = list(columns)

    def statistic(rows):
        values = np.stack([columns[name](rows) for name in figure_names])  # figures x kinds
        return np.concatenate([values.ravel(), (values[:, :1] - values).ravel()])

    found = bootstrap(statistic, n, groups=source_index(groups, n), seed=seed,
                      n_resamples=n_resamples)
    keys = [(name, kind) for name in figure_names for kind in kinds]
    chance = next(iter(ranks.values())).chance
    return LeakageResult(
        estimates=dict(zip(keys, found[:len(keys)], strict=True)),
        falls=dict(zip(keys, found[len(keys):], strict=True)),
        chance={name: chance.get(name, 0.0) for name in figure_names},
        changed=changed, n_sources=n)


def _columns(ranks, read, kinds, in_class):
    """For each figure a function of rows that gives its value under each mask."""
    first = ranks[kinds[0]]
    columns = {}
    for percent in PERCENTS[:2]:
        cut = np.maximum(np.floor(percent * first.candidates / 100), 1)
        hits = np.stack([ranks[kind].ranks[DIRECTIONS[0]] <= cut for kind in kinds]).astype(float)
        columns[f"Recall@{percent} %"] = lambda rows, hits=hits: hits[:, rows].mean(axis=1)
    if in_class:
        within = np.stack([ranks[kind].within_class[DIRECTIONS[0]] for kind in kinds])
        columns["median rank in class"] = (
            lambda rows: np.nanmedian(within[:, rows], axis=1))
    for target, truth in read.truth.items():
        error = np.full((len(kinds), len(truth)), np.nan)
        known = np.isfinite(truth)
        for i, kind in enumerate(kinds):
            error[i, known] = (truth[known] - read.predicted[target][kind, "ridge"]) ** 2
        columns[f"R2 {target}"] = lambda rows, e=error, y=truth: _r_squared(e[:, rows], y[rows])
    return columns


def _r_squared(squared_error, truth):
    known = np.isfinite(truth)
    y = truth[known]
    spread = ((y - y.mean()) ** 2).sum() if len(y) else 0.0
    if not spread:
        return np.full(len(squared_error), np.nan)
    return 1 - squared_error[:, known].sum(axis=1) / spread


@dataclass(frozen=True, eq=False)
class LeakageResult(Report):
    """Retrieval and regression with and without what gives the answer away.

    Attributes
    ----------
    estimates : dict of Estimate
        By (figure, mask); the mask "nothing" is the text as it is, "all" every mask at once.
        Figures: ``"Recall@1 %"`` and ``"Recall@5 %"`` (events to texts), with labels ``"median
        rank in class"``, and ``"R2 ..."`` of each target, read from the text vectors by ridge
        regression on unseen sources.
    falls : dict of Estimate
        What each mask takes away, on the same resampled sources.
    chance : dict of float
        By figure.
    changed : dict of float
        Share of summaries that a mask changes.
    n_sources : int
    """

    estimates: dict
    falls: dict
    chance: dict
    changed: dict
    n_sources: int

    title = property(lambda self: f"Leakage, {self.n_sources} sources")
    notes = ("Errors: bootstrap over sources. fall: value without a mask minus value with it, on "
             "the same sources. changed: share of summaries that the mask alters.",)

    @property
    def primary(self):
        """What all masks together take from Recall@1 %, an `Estimate`."""
        return self.falls["Recall@1 %", "all"]

    def to_table(self):
        """Figures as a `~astropy.table.QTable`, a row for each figure and mask."""
        rows = []
        for (name, kind), value in self.estimates.items():
            fall = self.falls[name, kind]
            rows.append((name, kind, self.changed[kind], value.value, value.error, fall.value,
                         fall.error, self.chance[name]))
        return figures(rows, ["figure", "masked", "changed", "value", "value error", "fall",
                              "fall error", "chance"])

    def tables(self):
        return [joined_errors(self.to_table())]
