"""Who writes the summaries.

One call, `write_summary`, and three writers: a chat model on this machine (`LocalChat`), any
endpoint that speaks OpenAI's protocol (`OpenAIChat`), and `OfflineWriter`, which needs no model
and only phrases what was measured.  The provenance of every summary says which of them wrote it.

The rule for language models is *no literature, no summary*: without abstracts or facts they are
not asked, and an answer that breaks the schema, or cites what it was not given, is not accepted.
"""

import datetime
import hashlib
import importlib.metadata
import importlib.resources
import json
import math
import os
from string import Template

import numpy as np

from ..errors import MissingModelError
from ._models import choose_device, find_model, load, quiet, sha256, text_length_limit, weight_files
from .slots import CLASSES, FLAG_SLOTS, NUMBER_SLOTS, clean_slots
from .summary import Summary, check_summary

__all__ = ["write_summary", "LocalChat", "OpenAIChat", "OfflineWriter", "SummaryError"]

PROMPT_VERSION = "summary-v1"

# Units of facts with a dimension: those of truth tables and of slots.
_UNITS = {"exposure": "s", "duration": "s", "period": "s", "timescale": "s",
          "flux": "erg s-1 cm-2", "kT": "keV", "n_h": "1e22 cm-2", "ra": "deg", "dec": "deg"}


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


def write_summary(facts, *, abstracts=(), backend):
    """Write the summary of one source.

    Parameters
    ----------
    facts : mapping
        What is known or measured, under the column names of truth tables (``counts``,
        ``exposure``, ``hardness``, ``photon_index``, ``n_h``, ...), as plain numbers in those
        columns' units or as Quantities.  The standard error of ``x`` is given as ``x_err``.
        `None`, NaN and masked values are unknown.
    abstracts : sequence of mapping, optional
        Literature on the source, each with ``bibcode``, ``title`` and ``abstract``.
    backend : LocalChat, OpenAIChat or OfflineWriter
        Who writes.

    Returns
    -------
    Summary
        With provenance.

    Raises
    ------
    ValueError
        If there is nothing to write from.
    SummaryError
        If a language model's answers break the schema twice.

    Examples
    --------
    >>> from stingray_align.text import OfflineWriter, write_summary
    >>> facts = {"instrument": "ACIS-S", "exposure": 20e3, "counts": 150, "photon_index": 1.8}
    >>> summary = write_summary(facts, backend=OfflineWriter())
    >>> print(summary)
    150 counts were recorded with ACIS-S in an exposure of 20 ks. The photon index is 1.8.
    >>> summary.provenance["kind"], summary.slots
    ('deterministic', {'photon_index': 1.8})
    """
    facts = _plain_facts(facts)
    papers = []
    for paper in abstracts:
        missing = [key for key in ("bibcode", "title", "abstract") if key not in paper]
        if missing:
            raise ValueError(f"an abstract lacks {', '.join(missing)}")
        papers.append({key: str(paper[key] or "") for key in ("bibcode", "title", "abstract")})
    return backend.write(facts, papers)


def _plain_facts(facts):
    plain = {}
    for key in facts.keys():
        value = facts[key]
        if hasattr(value, "unit"):
            unit = _UNITS.get(key.removesuffix("_err"))
            value = value.to_value(unit) if unit else value.value
        if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
            value = value.item()
        if value is None or value is np.ma.masked or value == "":
            continue
        if isinstance(value, float) and math.isnan(value):
            continue
        if not isinstance(value, (bool, int, float, str)):
            raise ValueError(f"fact {key!r} is a {type(value).__name__}; facts are single numbers, "
                             "strings, or yes and no")
        plain[key] = value
    return plain


def _provenance(kind, model, *, prompt_hash=None, bibcodes=()):
    try:
        version = importlib.metadata.version("stingray-align")
    except importlib.metadata.PackageNotFoundError:  # used from a source tree
        version = "unknown"
    return {
        "kind": kind, "model": model,
        "prompt_version": PROMPT_VERSION if prompt_hash else None, "prompt_hash": prompt_hash,
        "bibcodes": list(bibcodes),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "package_version": version,
    }


def _prompt():
    """The instructions to a chat model, and their hash."""
    file = importlib.resources.files(__package__) / "prompts" / f"{PROMPT_VERSION}.txt"
    classes = ", ".join(f'"{name}"' for name in CLASSES)
    text = Template(file.read_text(encoding="utf-8")).substitute(classes=classes)
    return text, hashlib.sha256(text.encode()).hexdigest()[:16]


class _ChatWriter:
    """A writer that asks a chat model: `complete` takes messages, returns (answer, model)."""

    def write(self, facts, papers):
        if not facts and not papers:
            raise ValueError("neither facts nor abstracts: no literature, no summary")
        prompt, prompt_hash = _prompt()
        messages = [
            {"role": "system", "content": prompt},
            {"role": "user", "content": json.dumps({"facts": facts, "papers": papers}, indent=1,
                                                   ensure_ascii=False)},
        ]
        problem = None
        for _ in range(2):
            answer, model = self.complete(messages)
            try:
                text, slots, bibcodes = _parse(answer)
                provenance = _provenance("llm", model, prompt_hash=prompt_hash, bibcodes=bibcodes)
                return check_summary(Summary(text, slots, provenance),
                                     bibcodes=[paper["bibcode"] for paper in papers])
            except ValueError as error:
                problem = str(error)
            messages = messages[:2] + [
                {"role": "assistant", "content": answer},
                {"role": "user", "content": f"That answer is not acceptable: {problem}. "
                                            "Answer again with one correct JSON object."},
            ]
        raise SummaryError(f"{model} gave no acceptable summary in two attempts; the last fails "
                           f"because {problem}. The answer began: {answer[:200]!r}", answer)


def _parse(answer):
    """Text, slots and bibcodes of a chat model's answer; ValueError says what is wrong."""
    answer = answer.rpartition("</think>")[2]  # what a reasoning model says to itself
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        raise ValueError("it holds no JSON object")
    try:
        content = json.loads(answer[start:end + 1])
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error})") from None
    problems = [f"it lacks {key!r}" for key in ("summary", "slots", "bibcodes")
                if key not in content]
    if problems:
        raise ValueError("; ".join(problems))
    text, slots, bibcodes = content["summary"], content["slots"], content["bibcodes"]
    if not isinstance(text, str):
        raise ValueError("'summary' is no string")
    if not isinstance(slots, dict):
        raise ValueError("'slots' is no object")
    if not isinstance(bibcodes, list) or not all(isinstance(code, str) for code in bibcodes):
        raise ValueError("'bibcodes' is no list of strings")
    names = (*NUMBER_SLOTS, "class", *FLAG_SLOTS)
    if missing := [name for name in names if name not in slots]:
        raise ValueError(f"slots {', '.join(missing)} are neither filled nor null")
    slots = {name: None if value == "unknown" else value for name, value in slots.items()}
    return " ".join(text.split()), clean_slots(slots), bibcodes


class LocalChat(_ChatWriter):
    """Summaries by a chat model that runs on this machine, with greedy decoding.

    Parameters
    ----------
    model : str or Path
        A folder with a chat model saved by transformers, or a name on the Hugging Face hub.
    device : str, torch.device or None, optional
        Where to compute; `None` takes a GPU if there is one.
    max_new_tokens : int, optional
        Longest answer.

    Raises
    ------
    MissingModelError
        If the model is not on this machine and cannot be fetched.
    ValueError
        If it has no chat template.
    """

    def __init__(self, model, *, device=None, max_new_tokens=1024):
        from transformers import AutoModelForCausalLM

        folder = find_model(model)
        self.max_new_tokens = int(max_new_tokens)
        self._device = choose_device(device)
        self._tokenizer, self._model = load(AutoModelForCausalLM, folder, self._device)
        if not self._tokenizer.chat_template:
            raise ValueError(f"{model} has no chat template: it is no chat model")
        self.name = f"{folder.name if os.path.isdir(model) else model}" \
                    f"@sha256:{sha256(weight_files(folder))[:16]}"

    def __repr__(self):
        return f"<LocalChat {self.name}>"

    def complete(self, messages):
        """Answer a conversation.

        Parameters
        ----------
        messages : list of dict
            Each with ``role`` (system, user, assistant) and ``content``.

        Returns
        -------
        (str, str)
            The answer, and the model that gave it.
        """
        import torch
        from transformers import GenerationConfig

        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        n_tokens = inputs["input_ids"].shape[1]
        limit = text_length_limit(self._tokenizer, self._model.config)
        if n_tokens + self.max_new_tokens > limit:
            raise ValueError(f"prompt and answer need {n_tokens + self.max_new_tokens} tokens, "
                             f"{self.name} reads {limit}: give fewer abstracts or a smaller "
                             "max_new_tokens")
        own = self._model.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        pad = self._tokenizer.pad_token_id
        config = GenerationConfig(
            do_sample=False, max_new_tokens=self.max_new_tokens, eos_token_id=ends,
            pad_token_id=pad if pad is not None else self._tokenizer.eos_token_id)
        with quiet(), torch.no_grad():
            output = self._model.generate(
                input_ids=inputs["input_ids"].to(self._device),
                attention_mask=inputs["attention_mask"].to(self._device),
                generation_config=config)
        return self._tokenizer.decode(output[0, n_tokens:], skip_special_tokens=True), self.name


class OpenAIChat(_ChatWriter):
    """Summaries by any endpoint that speaks OpenAI's chat protocol (vLLM, Ollama, hosted).

    Parameters
    ----------
    base_url : str or None, optional
        Address of the endpoint; `None` takes ``OPENAI_BASE_URL``, else OpenAI's own.
    model : str
        Name of the model there.
    api_key : str or None, optional
        `None` takes ``OPENAI_API_KEY``.  An endpoint given by address may need none.
    temperature : float or None, optional
        Zero for the most reproducible answers; `None` leaves it to endpoints that refuse it.
    timeout : float, optional
        Seconds to wait for an answer.
    max_retries : int, optional
        Further attempts, with growing pauses, when the endpoint is busy (429), fails (5xx) or
        cannot be reached.

    Raises
    ------
    MissingModelError
        If the ``openai`` package is not installed.
    ValueError
        If there is neither a key nor an address.
    """

    def __init__(self, base_url=None, *, model, api_key=None, temperature=0.0, timeout=120.0,
                 max_retries=5):
        try:
            import openai  # noqa: F401
        except ImportError:
            raise MissingModelError("writing through an OpenAI-compatible endpoint needs the "
                                    "openai package: pip install stingray-align[remote]") from None
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self.model = model
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY") or None
        if self._api_key is None:
            if self.base_url is None:
                raise ValueError("set OPENAI_API_KEY or give api_key; or give the base_url of an "
                                 "endpoint that needs no key")
            self._api_key = "none"  # the client insists on one
        self.temperature = temperature
        self.timeout = timeout
        self.max_retries = max_retries

    def __repr__(self):  # never shows the key
        return f"<OpenAIChat {self.model} at {self.base_url or 'api.openai.com'}>"

    def complete(self, messages):
        """Answer a conversation.

        Parameters
        ----------
        messages : list of dict
            Each with ``role`` (system, user, assistant) and ``content``.

        Returns
        -------
        (str, str)
            The answer, and the model that gave it.
        """
        import openai

        options = {} if self.temperature is None else {"temperature": self.temperature}
        with openai.OpenAI(base_url=self.base_url, api_key=self._api_key, timeout=self.timeout,
                           max_retries=self.max_retries) as client:
            response = client.chat.completions.create(model=self.model, messages=messages,
                                                      **options)
        answer = response.choices[0].message.content if response.choices else None
        return answer or "", response.model or self.model


class OfflineWriter:
    """Summaries without a language model: phrases measured quantities, and nothing else.

    The provenance says ``kind="deterministic"``; the same facts give the same words.
    """

    name = "OfflineWriter"

    def __repr__(self):
        return "<OfflineWriter>"

    def write(self, facts, papers):
        if papers:
            raise ValueError("OfflineWriter only phrases facts and cannot read abstracts; leave "
                             "them out or use a language model")
        sentences = [s for s in (phrase(facts) for phrase in _PHRASES) if s]
        if not sentences:
            raise ValueError("none of the facts is a known quantity: nothing measured, no summary")
        slots = clean_slots(facts, ignore_other=True)
        return check_summary(Summary(" ".join(sentences), slots,
                                     _provenance("deterministic", self.name)), words=None)


def significant(value, digits=3):
    """A number as people write it."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def _seconds(value):
    if value >= 2 * 86400:
        return f"{significant(value / 86400)} d"
    return f"{significant(value / 1000)} ks" if value >= 1000 else f"{significant(value)} s"


def _with_error(facts, name, unit="", form=significant):
    error = facts.get(f"{name}_err")
    text = form(facts[name]) + (f" +/- {form(error)}" if error is not None else "")
    if not unit:
        return text
    return f"({text}) {unit}" if error is not None else f"{text} {unit}"


def _observation(facts):
    if "counts" not in facts:
        if "exposure" not in facts:
            return ""
        with_ = f" with {facts['instrument']}" if "instrument" in facts else ""
        return f"The source was observed{with_} for {_seconds(facts['exposure'])}."
    counts = facts["counts"]
    text = f"{counts:.0f} count{' was' if round(counts) == 1 else 's were'} recorded"
    if "instrument" in facts:
        text += f" with {facts['instrument']}"
    if "exposure" in facts:
        text += f" in an exposure of {_seconds(facts['exposure'])}"
    if "background_counts" in facts:
        text += (f", of which {significant(facts['background_counts'])} are expected from the "
                 "background")
    return text + "."


def _flux(facts):
    return (f"The observed 0.5-7 keV flux is {_with_error(facts, 'flux', 'erg/s/cm2')}."
            if "flux" in facts else "")


def _hardness(facts):
    return (f"The hardness ratio (H-S)/(H+S) of the 0.5-2 and 2-7 keV bands is "
            f"{_with_error(facts, 'hardness')}." if "hardness" in facts else "")


def _spectrum(facts):
    parts = []
    if "photon_index" in facts:
        parts.append(f"the photon index is {_with_error(facts, 'photon_index')}")
    if "kT" in facts:
        parts.append(f"the temperature is {_with_error(facts, 'kT', 'keV')}")
    if "n_h" in facts:
        parts.append(f"the absorbing column is {_with_error(facts, 'n_h', 'x 1e22 cm-2')}")
    return _sentence(parts)


def _timing(facts):
    parts = []
    if "fractional_variability" in facts:
        parts.append("the fractional variability is "
                     f"{_with_error(facts, 'fractional_variability')}")
    if "period" in facts:
        parts.append(f"the period is {_with_error(facts, 'period', form=significant)} s")
    if "timescale" in facts:
        parts.append(f"the timescale of the variability is {_seconds(facts['timescale'])}")
    return _sentence(parts)


def _flags(facts):
    yes = [name for name in FLAG_SLOTS if facts.get(name) is True]
    no = [name for name in FLAG_SLOTS if facts.get(name) is False]
    parts = [f"the source is {_join(yes)}"] if yes else []
    if no:
        parts.append(f"the source is not {_join(no, 'or')}" if not yes
                     else f"it is not {_join(no, 'or')}")
    return _sentence(parts)


def _class(facts):
    return f"Its class in the catalogue is: {facts['class']}." if "class" in facts else ""


_PHRASES = (_observation, _flux, _hardness, _spectrum, _timing, _flags, _class)


def phrase_slots(slots):
    """Number and flag slots as prose, in the wording of `OfflineWriter`."""
    return " ".join(s for s in (phrase(slots) for phrase in (_flux, _spectrum, _timing, _flags))
                    if s)


def _join(words, conjunction="and"):
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def _sentence(parts):
    if not parts:
        return ""
    text = _join(parts)
    return text[0].upper() + text[1:] + "."
