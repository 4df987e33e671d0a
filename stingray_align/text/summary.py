"""The summary: prose, slots and provenance of one source, and its table on disk."""

import datetime
import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path

from .._files import atomic_file
from ._numbers import strange_numbers
from .slots import clean_slots

__all__ = ["Summary", "KINDS", "LLM_KEYS", "PROVENANCE_KEYS", "WORDS", "check_summary",
           "make_provenance", "write_summaries", "read_summaries"]

KINDS = ("llm", "deterministic", "simulated")
"""Who wrote a summary: a language model, a rule, or the simulator's phrase stock."""

PROVENANCE_KEYS = ("kind", "model", "prompt_version", "prompt_hash", "bibcodes", "date",
                   "package_version")
"""What every provenance states (a value may be `None` or empty where it does not apply)."""

LLM_KEYS = ("revision", "decoding", "bibcodes_given", "confidence")
"""What the provenance of a language model's summary states besides: the revision of the model, how
its answer was decoded, the papers it was given (``bibcodes`` are those it used), and whether it is
sure of itself (low, medium or high)."""

WORDS = (60, 150)
"""Fewest and most words of a summary that a language model writes."""

_PARAPHRASE_WORDS = (10, 100)


@dataclass(frozen=True)
class Summary:
    """What is said of one source.

    Parameters
    ----------
    text : str
        The prose.
    slots : dict
        Facts beside the prose, see `stingray_align.text.slots`.
    provenance : dict
        Who wrote it, from what: see `PROVENANCE_KEYS` and `LLM_KEYS`.
    paraphrase : str
        The same in plain words, without jargon; empty where there is none.

    Examples
    --------
    >>> from stingray_align.text.summary import Summary
    >>> summary = Summary("A soft, steady source.", {"soft": True}, {"kind": "simulated"})
    >>> print(summary)
    A soft, steady source.
    """

    text: str
    slots: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)
    paraphrase: str = ""

    def __str__(self):
        return self.text

    def wordings(self):
        """The texts that a catalogue or a training uses: the prose, and the paraphrase if any.

        Returns
        -------
        list of Summary
            Each with the same slots and provenance, and no paraphrase of its own.

        Examples
        --------
        >>> from stingray_align.text import Summary
        >>> summary = Summary("A supersoft source.", {"soft": True}, {}, "Its light is gentle.")
        >>> [str(text) for text in summary.wordings()]
        ['A supersoft source.', 'Its light is gentle.']
        """
        return [Summary(text, self.slots, self.provenance)
                for text in (self.text, self.paraphrase) if text]


def make_provenance(kind, model, **stated):
    """A provenance with today's date and this package's version.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    model : str
        Who wrote.
    **stated
        Other values of `PROVENANCE_KEYS` and `LLM_KEYS`.

    Returns
    -------
    dict
    """
    try:
        version = importlib.metadata.version("stingray-align")
    except importlib.metadata.PackageNotFoundError:  # used from a source tree
        version = "unknown"
    return {"kind": kind, "model": model, "prompt_version": None, "prompt_hash": None,
            "bibcodes": [], "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "package_version": version, **stated}


def check_summary(summary, *, words=WORDS, bibcodes=None, given=None):
    """Check that a summary keeps to the schema.

    Parameters
    ----------
    summary : Summary
        What to check.
    words : (int, int) or None, optional
        Fewest and most words allowed; `None` for any number but zero.
    bibcodes : collection of str or None, optional
        The literature that was given; a bibcode in the provenance that is not among it is an
        error.  `None` checks nothing.
    given : str or None, optional
        All that the writer was given. A number in prose, paraphrase or slots that is not in it
        (rounded, in another unit, as a percentage) is an error.  `None` checks nothing.

    Returns
    -------
    Summary
        The summary with plain slots (unknown ones left out).

    Raises
    ------
    ValueError
        Naming everything that is wrong.
    """
    problems = []
    for name, text, (low, high) in (
            ("text", summary.text, words if words is not None else (1, None)),
            ("paraphrase", summary.paraphrase, _PARAPHRASE_WORDS)):
        n_words = len(text.split())
        if name == "paraphrase" and not text:
            continue
        if n_words < low or (high is not None and n_words > high):
            wanted = f"{low} to {high}" if high is not None else f"at least {low}"
            problems.append(f"the {name} has {n_words} words, {wanted} are asked for")
    slots = {}
    try:
        slots = clean_slots(summary.slots)
    except ValueError as error:
        problems.append(str(error))
    problems += _provenance_problems(summary.provenance)
    if bibcodes is not None:
        strange = sorted(set(summary.provenance.get("bibcodes") or ()) - set(bibcodes))
        if strange:
            problems.append(f"cites {', '.join(strange)}, which was not given")
    if given is not None:
        numbers = {name: value for name, value in slots.items() if isinstance(value, float)}
        if strange := strange_numbers(f"{summary.text} {summary.paraphrase}", numbers, given):
            problems.append(f"states numbers that were not given: {', '.join(strange)}")
    if problems:
        raise ValueError("; ".join(problems))
    return Summary(summary.text, slots, dict(summary.provenance), summary.paraphrase)


def _provenance_problems(provenance):
    missing = [key for key in PROVENANCE_KEYS if key not in provenance]
    if provenance.get("kind") == "llm":
        missing += [key for key in LLM_KEYS if key not in provenance]
    if missing:
        return [f"the provenance does not state {', '.join(missing)}"]
    if provenance["kind"] not in KINDS:
        return [f"provenance kind {provenance['kind']!r} is none of {KINDS}"]
    return []


def write_summaries(path, summaries, *, names=None):
    """Write summaries as a table, one row for each source.

    The columns ``text``, ``paraphrase``, ``slots`` and ``provenance`` hold JSON.  The file appears
    whole or not at all.

    Parameters
    ----------
    path : str or Path
        File to write, Parquet if it ends in ``.parquet`` and ECSV otherwise; an existing one is
        replaced.
    summaries : sequence of Summary or None
        What to write, in this order; `None` is a source without a summary.
    names : sequence of str, optional
        Names of the sources, for a first column ``name``.
    """
    from astropy.table import Table

    rows = [Summary(None, {}, {}, "") if s is None else s for s in summaries]
    columns = {
        "text": [s.text for s in rows], "paraphrase": [s.paraphrase for s in rows],
        "slots": [clean_slots(s.slots) for s in rows],
        "provenance": [s.provenance for s in rows]}
    # JSON for the text too: it keeps line breaks and leading blanks, which ECSV does not promise
    columns = {name: [json.dumps(value, ensure_ascii=False) for value in values]
               for name, values in columns.items()}
    if names is not None:
        columns = {"name": [str(name) for name in names], **columns}
    table = Table(columns, dtype=[str] * len(columns),
                  meta={"content": "stingray-align summaries", "version": 2})
    with atomic_file(path) as temporary:
        table.write(temporary, format=_format(path), overwrite=True)


def read_summaries(path):
    """Read what `write_summaries` wrote.

    Parameters
    ----------
    path : str or Path
        An ECSV or Parquet table.

    Returns
    -------
    list of Summary
        In the order of the table, with `None` for a source that has no summary.

    Raises
    ------
    ValueError
        If the file is no table of summaries.
    """
    from astropy.table import Table

    table = Table.read(str(path), format=_format(path))
    table.convert_bytestring_to_unicode()
    missing = [name for name in ("text", "slots", "provenance") if name not in table.colnames]
    if missing:
        raise ValueError(f"{path} is no table of summaries: it lacks {', '.join(missing)}")
    try:
        return [_summary({name: json.loads(row[name]) for name in
                          ("text", "paraphrase", "slots", "provenance") if name in table.colnames})
                for row in table]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no table of summaries: {error}") from None


def _summary(values):
    if values["text"] is None:
        return None
    return Summary(**values | {"slots": clean_slots(values["slots"])})


def _format(path):
    return "parquet" if Path(path).suffix == ".parquet" else "ascii.ecsv"
