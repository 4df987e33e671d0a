"""The summary: prose, slots and provenance of one source, and its table on disk."""

import json
from dataclasses import dataclass, field

from .._files import atomic_file
from .slots import clean_slots

__all__ = ["Summary", "KINDS", "PROVENANCE_KEYS", "WORDS", "check_summary", "write_summaries",
           "read_summaries"]

KINDS = ("llm", "deterministic", "simulated")
"""Who wrote a summary: a language model, a rule, or the simulator's phrase stock."""

PROVENANCE_KEYS = ("kind", "model", "prompt_version", "prompt_hash", "bibcodes", "date",
                   "package_version")
"""What every provenance states (a value may be `None` or empty where it does not apply)."""

WORDS = (60, 150)
"""Fewest and most words of a summary that a language model writes."""


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
        Who wrote it, from what: see `PROVENANCE_KEYS`.

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

    def __str__(self):
        return self.text


def check_summary(summary, *, words=WORDS, bibcodes=None):
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
    n_words = len(summary.text.split())
    low, high = words if words is not None else (1, None)
    if n_words < low or (high is not None and n_words > high):
        wanted = f"{low} to {high}" if high is not None else f"at least {low}"
        problems.append(f"the text has {n_words} words, {wanted} are asked for")
    slots = {}
    try:
        slots = clean_slots(summary.slots)
    except ValueError as error:
        problems.append(str(error))
    missing = [key for key in PROVENANCE_KEYS if key not in summary.provenance]
    if missing:
        problems.append(f"the provenance does not state {', '.join(missing)}")
    elif summary.provenance["kind"] not in KINDS:
        problems.append(f"provenance kind {summary.provenance['kind']!r} is none of {KINDS}")
    if bibcodes is not None:
        strange = sorted(set(summary.provenance.get("bibcodes") or ()) - set(bibcodes))
        if strange:
            problems.append(f"cites {', '.join(strange)}, which was not given")
    if problems:
        raise ValueError("; ".join(problems))
    return Summary(summary.text, slots, dict(summary.provenance))


def write_summaries(path, summaries):
    """Write summaries as an ECSV table with columns ``text``, ``slots``, ``provenance``.

    Slots and provenance are JSON inside their column.  The file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
        File to write; an existing one is replaced.
    summaries : sequence of Summary
        What to write, in this order.
    """
    from astropy.table import Table

    # JSON for the text too: it keeps line breaks and leading blanks, which ECSV does not promise
    table = Table({
        "text": [json.dumps(s.text, ensure_ascii=False) for s in summaries],
        "slots": [json.dumps(clean_slots(s.slots)) for s in summaries],
        "provenance": [json.dumps(s.provenance, ensure_ascii=False) for s in summaries],
    }, dtype=[str, str, str], meta={"content": "stingray-align summaries", "version": 1})
    with atomic_file(path) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)


def read_summaries(path):
    """Read what `write_summaries` wrote.

    Parameters
    ----------
    path : str or Path
        An ECSV table.

    Returns
    -------
    list of Summary

    Raises
    ------
    ValueError
        If the file is no table of summaries.
    """
    from astropy.table import Table

    table = Table.read(str(path), format="ascii.ecsv")
    missing = [name for name in ("text", "slots", "provenance") if name not in table.colnames]
    if missing:
        raise ValueError(f"{path} is no table of summaries: it lacks {', '.join(missing)}")
    try:
        return [Summary(json.loads(row["text"]), clean_slots(json.loads(row["slots"])),
                        json.loads(row["provenance"])) for row in table]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no table of summaries: {error}") from None
