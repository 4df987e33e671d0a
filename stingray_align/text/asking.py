"""How a chat model is asked for summaries, and what of its answers is accepted.

The prompt is a file with a version. The rule is *no literature, no summary*: without abstracts or
measured facts nobody is asked. An answer that breaks the schema, cites what it was not given,
states a number that occurs in no input, or marks an empty field as known is refused; the model is
told why and asked once more.
"""

import hashlib
import importlib.resources
import json
import re
from functools import cache
from string import Template

from .chat import ChatError
from .slots import CLASSES, FLAG_SLOTS, NUMBER_SLOTS, clean_slots
from .summary import Summary, check_summary, make_provenance

__all__ = ["Conversation", "PROMPT_VERSION", "SummaryError", "ask_all", "prompt"]

PROMPT_VERSION = "summary-v2"

_REPEATED = 4000  # letters of a refused answer that the model is reminded of
_CONFIDENCE = ("low", "medium", "high")
# Facts that say which source was looked at and nothing about it: no ground for a summary.
_IDENTITY = {"name", "ra", "dec", "ra_err", "dec_err", "obsid", "instrument", "exposure",
             "duration"}
# What a paraphrase in plain words does without.
_JARGON = re.compile(
    r"\b(?:[A-Z]{3,}s?|keV|erg|photon index|column densit\w+|power[ -]law|black ?body|accret\w+|"
    r"hardness ratio|luminosit\w+|spectr\w+|flux\w*|N_?H|kT)\b")
# Bands and units of the facts and slots, which a summary may repeat.
_ALWAYS = "0.5-2 keV, 2-7 keV, 0.5-7 keV, 0.5-8 keV"


class SummaryError(ValueError):
    """A language model gave no acceptable answer.

    Attributes
    ----------
    raw : str
        Its last answer, as it came.
    """

    def __init__(self, message, raw):
        super().__init__(message)
        self.raw = raw


@cache
def prompt():
    """The instructions to a chat model, and their hash."""
    file = importlib.resources.files(__package__) / "prompts" / f"{PROMPT_VERSION}.txt"
    classes = ", ".join(f'"{name}"' for name in CLASSES)
    text = Template(file.read_text(encoding="utf-8")).substitute(classes=classes)
    return text, hashlib.sha256(text.encode()).hexdigest()[:16]


class Conversation:
    """What a chat model is asked about one source.

    Papers that do not fit into the model are left out, the last ones first.

    Parameters
    ----------
    facts : dict
        Plain facts, with their units.
    papers : list of dict
        With ``bibcode``, ``title`` and ``abstract``, the most relevant first.
    chat : Chat
        Who is asked.

    Attributes
    ----------
    messages : list of dict
        For `Chat.complete`.
    papers : list of dict
        Those that fit.
    n_left_out : int
        How many do not.

    Raises
    ------
    ValueError
        If there is nothing to write from, or not even the facts fit.
    """

    def __init__(self, facts, papers, chat):
        if not papers and not set(facts) - _IDENTITY:
            raise ValueError("neither measured facts nor abstracts: no literature, no summary")
        self.facts, self.papers, self.n_left_out, self._chat = facts, papers, 0, chat
        self._fit(())

    def _fit(self, history):
        while True:
            user = json.dumps({"facts": self.facts, "papers": self.papers}, indent=1,
                              ensure_ascii=False)
            self.messages = [{"role": "system", "content": prompt()[0]},
                             {"role": "user", "content": user}, *history]
            n_tokens = self._chat.count_tokens(self.messages)
            if n_tokens <= self._chat.max_input_tokens:
                return
            if not self.papers:
                raise ValueError(f"prompt and facts have {n_tokens} tokens, {self._chat.name} is "
                                 f"given {self._chat.max_input_tokens} at most: give fewer facts, "
                                 "or a larger max_input_tokens if the model can read more")
            self.papers, self.n_left_out = self.papers[:-1], self.n_left_out + 1
            if not self.papers and not set(self.facts) - _IDENTITY:
                raise ValueError(f"not one abstract fits into the {self._chat.max_input_tokens} "
                                 f"tokens that {self._chat.name} is given: no literature, no "
                                 "summary")

    def object(self, answer, problem):
        """Ask again, with the reason why an answer was refused."""
        self._fit([
            {"role": "assistant", "content": answer[:_REPEATED]},
            {"role": "user", "content": f"That answer is not acceptable: {problem}. "
                                        "Answer again with one correct JSON object."}])

    def judge(self, answer, model):
        """The Summary that an answer holds; ValueError says why it is refused."""
        text, paraphrase, slots, confidence, bibcodes = _parse(answer)
        model, _, revision = model.partition("@")
        given = [paper["bibcode"] for paper in self.papers]
        provenance = make_provenance(
            "llm", model, revision=revision or None, prompt_version=PROMPT_VERSION,
            prompt_hash=prompt()[1], decoding=self._chat.decoding, bibcodes_given=given,
            bibcodes=bibcodes, confidence=confidence)
        inputs = [_ALWAYS, *(f"{key}: {value}" for key, value in self.facts.items()),
                  *(f"{paper['title']}. {paper['abstract']}" for paper in self.papers)]
        return check_summary(Summary(text, slots, provenance, paraphrase), bibcodes=given,
                             given="\n".join(inputs))


def ask_all(chat, conversations):
    """Ask for summaries, each at most twice.

    Parameters
    ----------
    chat : Chat
        Who is asked.
    conversations : list of Conversation
        One per source.

    Yields
    ------
    (int, Summary, SummaryError or ChatError)
        The number of a conversation and what came of it, in the order in which answers come.
        `ChatError` means that there was no answer at all.
    """
    turn = dict(enumerate(conversations))
    for last in (False, True):
        order, again = list(turn), {}
        for k, outcome in chat.complete_all([turn[i].messages for i in order]):
            i = order[k]
            if not isinstance(outcome, ChatError):
                outcome = _outcome(turn[i], outcome, again, i, last)
            elif outcome.raw is not None:
                outcome = SummaryError(str(outcome), outcome.raw)
            if outcome is not None:
                yield i, outcome
        turn = again


def _outcome(conversation, reply, again, i, last):
    """A summary, an error, or None where the conversation goes on."""
    answer, model = reply
    try:
        return conversation.judge(answer, model)
    except ValueError as error:
        problem = str(error)
    if not last:
        try:
            conversation.object(answer, problem)
            again[i] = conversation
            return None
        except ValueError:  # no room for a second attempt
            pass
    return SummaryError(f"{model} gave no acceptable summary in {2 if last else 1} "
                        f"attempt{'s' if last else ''}; the last fails because {problem}. The "
                        f"answer began: {answer[:200]!r}", answer)


def _parse(answer):
    """The fields of a chat model's answer; ValueError says what is wrong."""
    answer = answer.rpartition("</think>")[2]  # what a reasoning model says to itself
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0:
        raise ValueError("it holds no JSON object")
    if end < start:
        raise ValueError("its JSON object is cut off")
    try:
        content = json.loads(answer[start:end + 1])
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON ({error})") from None
    problems = [f"it lacks {key!r}"
                for key in ("summary", "paraphrase", "slots", "confidence", "bibcodes")
                if key not in content]
    if problems:
        raise ValueError("; ".join(problems))
    for key in ("summary", "paraphrase"):
        if not isinstance(content[key], str):
            raise ValueError(f"{key!r} is no string")
        if not content[key].strip():
            raise ValueError(f"{key!r} is empty")
    slots, confidence, bibcodes = (content[key] for key in ("slots", "confidence", "bibcodes"))
    if not isinstance(slots, dict):
        raise ValueError("'slots' is no object")
    if confidence not in _CONFIDENCE:
        raise ValueError(f"'confidence' is none of {', '.join(_CONFIDENCE)}")
    if not isinstance(bibcodes, list) or not all(isinstance(code, str) for code in bibcodes):
        raise ValueError("'bibcodes' is no list of strings")
    names = (*NUMBER_SLOTS, "class", *FLAG_SLOTS)
    if missing := [name for name in names if name not in slots]:
        raise ValueError(f"slots {', '.join(missing)} are neither filled nor null")
    slots = {name: None if value == "unknown" else value for name, value in slots.items()}
    if empty := [name for name, value in slots.items()
                 if isinstance(value, str | list | dict) and not (
                     value.strip() if isinstance(value, str) else value)]:
        raise ValueError(f"slots {', '.join(empty)} are empty and not null: what is unknown is "
                         "null")
    text, paraphrase = (_tidy(content[key]) for key in ("summary", "paraphrase"))
    if jargon := sorted(set(_JARGON.findall(paraphrase))):
        raise ValueError(f"the paraphrase is not in plain words: {', '.join(jargon)}")
    bibcodes = list(dict.fromkeys(map(_tidy, bibcodes)))
    return text, paraphrase, clean_slots(slots), confidence, bibcodes


def _tidy(text):
    """Single blanks, and nothing that UTF-8 cannot hold (JSON can: half of a surrogate pair)."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
