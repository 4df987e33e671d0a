"""Summaries of many sources: what they will cost, and a run that can be interrupted.

Every verdict, a summary or a refused answer, is a small JSON file in a folder, named by the hash
of all that shaped it: the facts and papers of the source, the prompt, the model and how it
decodes. The same inputs therefore cost nothing the second time, and another model or prompt
starts anew.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .._files import atomic_file
from .asking import Conversation, SummaryError, ask_all, prompt
from .chat import Chat, ChatError
from .summary import Summary
from .writers import plain_facts, plain_papers, warn_left_out, with_units

__all__ = ["Cost", "Failure", "Written", "estimate_tokens", "summarize"]

_BLOCK = 128  # sources asked about, and then asked again where an answer was refused
_PATIENCE = 10  # questions in a row without any answer, after which a run ends
_ANSWER_TOKENS = 600  # of a summary with paraphrase and slots, as JSON


@dataclass(frozen=True)
class Cost:
    """What a run will ask for.

    Parameters
    ----------
    n_sources, n_cached, n_impossible : int
        All sources; those with a verdict on disk; those with nothing to write from.
    input_tokens, output_tokens : int
        Of the others, if every first answer is accepted. Refused answers are asked for once
        more, with the answer before: at worst three times the input and twice the output.
    """

    n_sources: int
    n_cached: int
    n_impossible: int
    input_tokens: int
    output_tokens: int

    @property
    def n_calls(self):
        """Questions to the model, if every first answer is accepted."""
        return self.n_sources - self.n_cached - self.n_impossible

    @property
    def tokens(self):
        """All tokens."""
        return self.input_tokens + self.output_tokens

    def __str__(self):
        return (f"{self.n_sources} sources: {self.n_calls} to write, {self.n_cached} known from "
                f"before, {self.n_impossible} with nothing to write from; about "
                f"{self.input_tokens} tokens in and {self.output_tokens} out")


@dataclass(frozen=True)
class Failure:
    """A source without a summary: its number, why, and the refused answer (None if none came)."""

    index: int
    reason: str
    raw: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Written:
    """What came of a run.

    Parameters
    ----------
    summaries : list of Summary or None
        One for each source, in order.
    failures : list of Failure
        The sources without.
    n_cached : int
        Summaries and failures known from an earlier run.
    """

    summaries: list = field(repr=False)
    failures: list
    n_cached: int = 0

    @property
    def kinds(self):
        """How many summaries each kind of writer wrote, `collections.Counter`."""
        return Counter(s.provenance["kind"] for s in self.summaries if s is not None)

    def __str__(self):
        n_good = len(self.summaries) - len(self.failures)
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.kinds.items())
        return (f"{n_good} of {len(self.summaries)} sources have a summary"
                f"{f' ({kinds})' if kinds else ''}; {self.n_cached} verdicts known from before, "
                f"{len(self.failures)} failures")


def estimate_tokens(facts, *, abstracts=None, backend, cache=None, retry_failed=False):
    """What `summarize` with the same arguments will ask for, without asking.

    Parameters
    ----------
    facts, abstracts, backend, cache, retry_failed
        As for `summarize`; the backend is a chat model.

    Returns
    -------
    Cost
    """
    n_cached = n_impossible = n_tokens = 0
    sources, kept = _sources(facts, abstracts), _Cache(cache, backend)
    for own, papers in sources:
        if kept.get(own, papers, retry_failed) is not None:
            n_cached += 1
            continue
        try:
            n_tokens += backend.count_tokens(_conversation(own, papers, backend).messages)
        except ValueError:
            n_impossible += 1
    n_calls = len(sources) - n_cached - n_impossible
    return Cost(len(sources), n_cached, n_impossible, n_tokens, n_calls * _ANSWER_TOKENS)


def summarize(facts, *, abstracts=None, backend, cache=None, retry_failed=False, progress=True):
    """Write summaries of many sources.

    A run that is interrupted loses only the questions under way; the same call goes on from there.

    Parameters
    ----------
    facts : sequence of mapping, or astropy.table.Table
        One for each source, see `write_summary`. Of a table, the columns are taken that hold one
        number or text per row.
    abstracts : sequence, optional
        For each source its papers, the most relevant first (see `write_summary`), for instance
        what `stingray_align.datasets.gather_literature` gives. `None` in place of papers says
        that nobody could be asked for them; then nothing is written.
    backend : LocalChat, OpenAIChat or OfflineWriter
        Who writes.
    cache : str or Path, optional
        Folder for the verdicts of a chat model. Without, nothing is kept and each run asks anew.
    retry_failed : bool, optional
        Ask again for sources whose answers were refused in an earlier run. Where no answer came
        at all nothing is kept, and the next run asks again in any case.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    Written

    Raises
    ------
    ChatError
        If the model cannot be reached or refuses everybody, or gives ten times in a row no
        answer. What was written until then is in the cache.
    ValueError
        If facts and abstracts do not have the same length, or cannot be read.

    Examples
    --------
    >>> from stingray_align.text import OfflineWriter, summarize
    >>> facts = [{"name": "A", "counts": 20}, {"name": "B"}]
    >>> written = summarize(facts, backend=OfflineWriter(), progress=False)
    >>> print(written)
    1 of 2 sources have a summary (1 deterministic); 0 verdicts known from before, 1 failures
    >>> written.failures[0].reason
    'none of the facts is a known quantity: nothing measured, no summary'
    """
    from tqdm.auto import tqdm

    sources = _sources(facts, abstracts)
    verdicts, n_cached = {}, 0
    kept = _Cache(cache, backend)
    with tqdm(total=len(sources), unit="source", disable=None if progress else True) as bar:
        if isinstance(backend, Chat):
            verdicts = {i: verdict for i, source in enumerate(sources)
                        if (verdict := kept.get(*source, retry_failed)) is not None}
            n_cached = len(verdicts)
            bar.update(n_cached)
            written = _ask(backend, sources, verdicts.keys(), kept)
        else:
            written = _phrase(backend, sources)
        for i, verdict in written:
            verdicts[i] = verdict
            bar.update()
    verdicts = [verdicts[i] for i in range(len(sources))]
    return Written([v if isinstance(v, Summary) else None for v in verdicts],
                   [dataclasses.replace(v, index=i) for i, v in enumerate(verdicts)
                    if isinstance(v, Failure)], n_cached)


def _ask(chat, sources, done, kept):
    """Verdicts of a chat model as they come, each on disk before it is shown."""
    todo = [i for i in range(len(sources)) if i not in done]
    left_out, silent = [], 0
    for start in range(0, len(todo), _BLOCK):
        block = todo[start:start + _BLOCK]
        conversations = {}
        for i in block:
            try:
                conversations[i] = _conversation(*sources[i], chat)
            except ValueError as error:  # costs nothing to find out again
                yield i, Failure(i, str(error))
        left_out += [conversation.n_left_out for conversation in conversations.values()]
        order = list(conversations)
        for k, outcome in ask_all(chat, list(conversations.values())):
            i = order[k]
            if isinstance(outcome, ChatError):
                silent += 1
                if outcome.hopeless or silent >= _PATIENCE:
                    raise outcome
                yield i, Failure(i, str(outcome))
                continue
            silent = 0
            if isinstance(outcome, SummaryError):
                outcome = Failure(i, str(outcome), outcome.raw)
            kept.put(*sources[i], outcome)
            yield i, outcome
    warn_left_out(left_out, chat)


def _phrase(writer, sources):
    for i, (facts, papers) in enumerate(sources):
        try:
            yield i, writer.write(facts, papers)
        except ValueError as error:
            yield i, Failure(i, str(error))


def _conversation(facts, papers, chat):
    if papers is None:
        raise ValueError("its literature could not be asked for")
    return Conversation(with_units(facts), papers, chat)


def _sources(facts, abstracts):
    """Plain facts and papers of each source."""
    if hasattr(facts, "colnames"):
        facts = _rows(facts)
    if abstracts is None:
        abstracts = [()] * len(facts)
    if len(abstracts) != len(facts):
        raise ValueError(f"there are {len(facts)} sources and abstracts for {len(abstracts)}")
    return [(plain_facts(own), None if papers is None else plain_papers(papers))
            for own, papers in zip(facts, abstracts)]


def _rows(table):
    from astropy.table import Column, QTable
    from astropy.units import Quantity

    table = QTable(table)  # so that a value knows its unit
    table.convert_bytestring_to_unicode()
    names = [name for name, column in table.columns.items()
             if isinstance(column, Column | Quantity) and column.ndim == 1
             and column.dtype.kind in "biufU"]
    return [{name: row[name] for name in names} for row in table]


class _Cache:
    """Verdicts on disk; without a folder, none."""

    def __init__(self, folder, chat):
        self.folder = None if folder is None else Path(folder)
        self.writer = None
        if isinstance(chat, Chat):
            self.writer = [prompt()[1], chat.name, chat.decoding, chat.max_input_tokens]

    def _path(self, facts, papers):
        key = hashlib.sha256(json.dumps([facts, papers, self.writer]).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"

    def get(self, facts, papers, retry_failed):
        """A Summary, a Failure, or None."""
        if self.folder is None:
            return None
        try:
            content = json.loads(self._path(facts, papers).read_text(encoding="utf-8"))
            if "summary" in content:
                return Summary(**content["summary"])
            return None if retry_failed else Failure(0, content["reason"], content["raw"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # absent or damaged
            return None

    def put(self, facts, papers, verdict):
        if self.folder is None:
            return
        content = ({"summary": dataclasses.asdict(verdict)} if isinstance(verdict, Summary)
                   else {"reason": verdict.reason, "raw": verdict.raw})
        with atomic_file(self._path(facts, papers)) as temporary:
            temporary.write_text(json.dumps({"name": facts.get("name"), **content}, indent=1),
                                 encoding="utf-8")
