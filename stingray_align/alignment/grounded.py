"""A paragraph by a language model that says nothing but what the matched texts and the data say.

The model is given the measured facts as [0] and the matched summaries as [1], [2], ... and has to
cite. What it answers is checked, sentence by sentence: each cites; what it cites was given; every
number occurs in what is cited; names, classes and other marked words (capitals, digits) occur there
too. An answer that fails is sent back once with the reasons, and then left out.
"""

import re

from ..text.slots import CLASSES, FLAG_SLOTS
from .attribution import sentences_of

__all__ = ["check_claims", "grounded_paragraph"]

_SYSTEM = """\
You explain to an astronomer what an unknown X-ray source may be. You are given what was measured, \
[0], and summaries of other sources that look alike, [1], [2], and so on. They are not this source.
Write three to six plain sentences. Every sentence ends with the numbers of the sources it rests \
on, such as [1] or [0][2]. State nothing that they do not state: no number, name, class or \
mechanism of your own. Copy numbers as they are written. Say what remains uncertain. Answer with \
the paragraph alone."""
_CITATION = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_USUAL = {"the", "a", "an", "this", "it", "its", "these", "such", "other", "x-ray", "with", "both",
          "no", "in", "as", "there", "one", "two", "three", "several", "if", "whether", "all"}


def grounded_paragraph(llm, facts, texts):
    """Ask for the paragraph, check it, ask once more, or leave it out.

    Parameters
    ----------
    llm : object
        With ``complete(messages) -> (answer, model)``, such as `stingray_align.text.LocalChat`.
    facts : str
        What was measured, in words.
    texts : sequence of str
        The matched summaries.

    Returns
    -------
    paragraph : str or None
        With its writer; None if both answers failed.
    note : str or None
        Why there is none.
    """
    sources = [facts, *texts]
    given = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(sources))
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": given}]
    for _ in range(2):
        answer, model = llm.complete(messages)
        text = " ".join(answer.rpartition("</think>")[2].split())
        problems = check_claims(text, sources)
        if not problems:
            return f"{text} [written by {model}]", None
        messages = messages[:2] + [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "That cannot stand: " + "; ".join(problems[:6])
             + ". Write the paragraph again."}]
    return None, (f"The paragraph by {model} was left out, since it says what no given text says: "
                  f"{'; '.join(problems[:3])}.")


def check_claims(text, sources):
    """What a paragraph claims that the sources it cites do not.

    Parameters
    ----------
    text : str
        With citations [0], [1], ...: numbers of ``sources``.
    sources : sequence of str

    Returns
    -------
    list of str
        Empty if every sentence is grounded.

    Examples
    --------
    >>> from stingray_align.alignment.grounded import check_claims
    >>> check_claims("The index is 1.7 [1].", ["hardness 0.1", "A photon index of 1.7."])
    []
    >>> check_claims("The period is 12 s [1].", ["hardness 0.1", "A photon index of 1.7."])
    ["'12' is in none of the texts cited with it"]
    """
    if not text:
        return ["it is empty"]
    problems = []
    # A citation after the full stop belongs to the sentence before it.
    text = re.sub(r"([.!?])\s*((?:\[[\d,\s]+\]\s*)+)", r" \2\1 ", text)
    for sentence in sentences_of(text):
        cited = [int(number) for group in _CITATION.findall(sentence)
                 for number in group.split(",")]
        bare = _CITATION.sub(" ", sentence).strip()
        if not re.search(r"\w", bare):
            continue
        if not cited:
            problems.append(f"the sentence {_short(bare)!r} cites nothing")
            continue
        if strange := sorted({number for number in cited if number >= len(sources)}):
            problems.append(f"[{strange[0]}] was not given")
        said = " ".join(sources[number] for number in cited if number < len(sources))
        numbers = _values(said)
        for number in _NUMBER.findall(bare):
            if not any(_equal(_value(number), other) for other in numbers):
                problems.append(f"{number!r} is in none of the texts cited with it")
        lower = f" {said.lower()} "
        for name in (*CLASSES, *FLAG_SLOTS):
            if re.search(rf"\b{re.escape(name.lower())}\b", bare.lower()) \
                    and name.lower() not in lower:
                problems.append(f"{name!r} is in none of the texts cited with it")
        for word in re.findall(r"(?<!^)\b[A-Z][\w-]*\w", bare):
            if word.lower() not in lower and word.lower() not in _USUAL:
                problems.append(f"{word!r} is in none of the texts cited with it")
    return list(dict.fromkeys(problems))


def _values(text):
    return [_value(number) for number in _NUMBER.findall(_CITATION.sub(" ", text))]


def _value(number):
    return abs(float(number.replace(",", "")))


def _equal(a, b):
    return abs(a - b) <= 1e-9 * max(a, b)


def _short(text):
    return text if len(text) < 60 else f"{text[:57]}..."
