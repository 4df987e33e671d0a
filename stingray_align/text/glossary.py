"""Plain words to catalogue language, with or without a language model.

An astronomer asks for "a dead star that flashes every few seconds"; the catalogue speaks of
magnetars, bursts and periods.  `understand` rewrites the one into the other:

1. numbers with units, yes/no properties and named classes are read with regular expressions,
   minding negation ("without pulsations");
2. what remains is compared with the descriptions of a bundled glossary of the 28 classes, by
   shared words and, if an encoder is given, by a classifier of sentence vectors;
3. the result is text in the catalogue's wording plus slots, and says what was understood.

It is a glossary, not a mind: always show the user what it understood.  A language model, if one is
given, does the same through the same call and understands more
(`stingray_align.text.rewriting`); if it fails, the glossary answers.
"""

import functools
import hashlib
import importlib.resources
import json
import math
import re
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .._files import read_tensors, write_tensors
from .rewriting import rewrite
from .slots import CLASSES, FLAG_SLOTS, NUMBER_SLOTS, clean_slots
from .summary import Summary
from .writers import phrase_slots, significant

__all__ = ["Understood", "understand"]

_VECTORS = Path(__file__).with_name("glossary.safetensors")
_KIND, _VERSION = "glossary", 1

# Below this probability the class is a guess: it shapes the text, but fills no slot.
_SURE = 0.5


@dataclass(frozen=True)
class Understood:
    """A query as it was understood.

    Parameters
    ----------
    query : str
        What was asked.
    text : str
        The query in the catalogue's wording.
    prose : str
        What is encoded of it: all that a language model wrote, but of the glossary's text nothing
        where there are facts, since a question is worded unlike any summary.
    slots : dict
        Facts read from the query and implied by it, see `stingray_align.text.slots`.
    classes : dict
        The likeliest classes and their probability, best first; empty if the query fits none.
    notes : tuple of str
        How numbers, bounds and negations were read.
    """

    query: str
    text: str
    prose: str
    slots: dict = field(default_factory=dict)
    classes: dict = field(default_factory=dict)
    notes: tuple = ()

    @property
    def summary(self):
        """What to search with: prose and facts as a `Summary`."""
        return Summary(self.prose, self.slots)

    @property
    def note(self):
        """One line for the user: what was understood."""
        parts = []
        if self.classes:
            parts.append(" or ".join(f"{name} ({probability:.0%})"
                                     for name, probability in self.classes.items()))
        parts += self.notes
        return "; ".join(parts) if parts else "taken word for word"

    def __str__(self):
        return f"{self.query!r} understood as: {self.note}"


def understand(query, *, encoder=None, llm=None):
    """Rewrite a plain-words query into catalogue language.

    Parameters
    ----------
    query : str
        Any words, jargon or not.
    encoder : TextEncoder or None, optional
        Compares the meaning of sentences besides the words they share; better with than without.
    llm : LocalChat, OpenAIChat or alike, optional
        Rewrites the query instead of the glossary.  Its answer is checked; if there is none that
        holds, the glossary is used and a note says so.

    Returns
    -------
    Understood
        Its ``summary`` is what to search with, its ``note`` what to show.

    Raises
    ------
    ValueError
        If the query is empty.

    Examples
    --------
    >>> from stingray_align.text import understand
    >>> found = understand("a magnetar with a period of 7 s, N_H > 1e22, not soft")
    >>> found.slots["class"], found.slots["period"], found.slots["soft"]
    ('magnetar with bursts', 7.0, False)
    >>> print(understand("photon index 1.7, constant"))
    'photon index 1.7, constant' understood as: photon index 1.7; not variable
    """
    if not isinstance(query, str):
        raise TypeError(f"a query is a string, not {type(query).__name__}")
    query = " ".join(query.split())
    if not query:
        raise ValueError("the query is empty")
    glossary = _glossary()
    if llm is None:
        return _by_glossary(query, glossary, encoder)
    try:
        return _by_language_model(query, glossary, llm)
    except Exception as error:  # whatever a backend may raise: the search must go on
        reason = " ".join(str(error).split()) or type(error).__name__
        found = _by_glossary(query, glossary, encoder)
        note = f"read with the glossary, since the language model failed ({reason})"
        return replace(found, notes=(*found.notes, note))


def _by_language_model(query, glossary, llm):
    catalogue = {name: entry["catalogue"] for name, entry in glossary.classes.items()}
    text, slots, classes, model = rewrite(query, llm, catalogue)
    notes = [_SHOWN[name].format(significant(slots[name])) for name in NUMBER_SLOTS
             if name in slots]
    notes += [name if slots[name] else f"not {name}" for name in FLAG_SLOTS if name in slots]
    if classes and max(classes.values()) >= _SURE:
        slots["class"] = max(classes, key=classes.get)
    return Understood(query, text, text, slots, classes, (*notes, f"rewritten by {model}"))


def _by_glossary(query, glossary, encoder):
    kept, denied = _split_negations(query)
    numbers, bounds, notes, rest = _numbers(kept)
    flags = _flags(query, glossary)
    if "period" in numbers:
        flags.setdefault("periodic", True)
    notes += [name if value else f"not {name}" for name, value in flags.items()]
    probabilities = _class_probabilities(rest, kept, denied, flags, numbers.get("period"),
                                         glossary, encoder)

    classes = {}
    for i in np.argsort(probabilities)[::-1][:3]:
        if probabilities[i] >= 0.2:
            classes[CLASSES[i]] = float(probabilities[i])
    said = {**numbers, **flags}
    slots, sentences = dict(said), [kept.rstrip(" .") + "."] if kept else []
    if classes:
        best = next(iter(classes))
        sure = classes[best] >= _SURE
        if sure:
            slots = {**glossary.classes[best]["slots"], **slots, "class": best}
        sentences += [glossary.classes[name]["catalogue"]
                      for name in ([best] if sure else classes)]
    # a bound stands in the query itself; the number it was turned into would say too much
    sentences.append(phrase_slots({k: v for k, v in said.items() if k not in bounds}))
    if not said and not classes:  # nothing understood: word for word, what is denied included
        sentences = [query.rstrip(" .") + "."]
        if _denials(query):
            notes.append("taken word for word: a denial alone excludes nothing")
    text, slots = " ".join(s for s in sentences if s), clean_slots(slots)
    return Understood(query, text, "" if slots else text, slots, classes, tuple(notes))


# --- the glossary -------------------------------------------------------------------------------

class _Glossary:
    """The bundled data, with what is computed from it once."""

    def __init__(self, data):
        self.classes = {name: data["classes"][name] for name in CLASSES}
        self.objects = data["objects"]
        self.object_names = _any_of(self.objects)
        self.names = {name: _any_of(entry["names"]) for name, entry in self.classes.items()}
        self.flags = {name: {answer: _any_of(patterns) for answer, patterns in entry.items()}
                      for name, entry in data["flags"].items()}
        self.owner, self.descriptions = [], []
        for i, entry in enumerate(self.classes.values()):
            for text in (entry["catalogue"], *entry["descriptions"], *entry["plain"]):
                self.owner.append(i)
                self.descriptions.append(text)
        self.owner = np.array(self.owner)
        words = [set(_stems(" ".join(text for i, text in zip(self.owner, self.descriptions)
                                     if i == own))) for own in range(len(CLASSES))]
        vocabulary = sorted(set().union(*words))
        self.word_index = {word: i for i, word in enumerate(vocabulary)}
        self.has_word = np.array([[word in own for word in vocabulary] for own in words], float)
        # a word that describes few classes tells more than one that describes many
        self.weight = np.log((len(CLASSES) + 1) / self.has_word.sum(0))
        self._readers = weakref.WeakKeyDictionary()

    def reader(self, encoder):
        """Vectors of the descriptions, and a logistic regression of the class on them."""
        if encoder not in self._readers:
            from sklearn.linear_model import LogisticRegression

            vectors = self._bundled_vectors(encoder)
            if vectors is None:
                vectors = encoder.encode(self.descriptions)
            fit = LogisticRegression(C=20, class_weight="balanced", max_iter=1000)
            self._readers[encoder] = vectors, fit.fit(vectors, self.owner)
        return self._readers[encoder]

    def _bundled_vectors(self, encoder):
        """Vectors by the default encoder come with the package: a query need not wait for them."""
        if not _VECTORS.is_file():
            return None
        tensors, about = read_tensors(_VECTORS, kind=_KIND, version=_VERSION)
        made_of = {"encoder": getattr(encoder, "name", None), "descriptions": self.identity()}
        return tensors["vectors"].astype(np.float32) if about == made_of else None

    def identity(self):
        """Checksum of the descriptions."""
        return hashlib.sha256("\n".join(self.descriptions).encode()).hexdigest()


def bundle_vectors(encoder):
    """Write the vectors of the glossary's descriptions into the package.

    To be called with the default encoder whenever the glossary has changed
    (``benchmarks/glossary_vectors.py``); until then they are encoded at the first query.

    Parameters
    ----------
    encoder : TextEncoder
    """
    glossary = _glossary()
    write_tensors(_VECTORS, {"vectors": encoder.encode(glossary.descriptions).astype(np.float16)},
                  kind=_KIND, version=_VERSION,
                  about={"encoder": encoder.name, "descriptions": glossary.identity()})


def plain_descriptions():
    """Descriptions of each class that avoid technical terms.

    Returns
    -------
    dict of list of str
        By class, in the order of `stingray_align.text.slots.CLASSES`; noun phrases and sentences
        without the full stop.
    """
    return {name: list(entry["plain"]) for name, entry in _glossary().classes.items()}


@functools.cache
def class_terms():
    """What names a class or a kind of object in a text.

    Returns
    -------
    re.Pattern
        Matches names of the 28 classes, their synonyms, and the kinds of objects behind them
        ("white dwarf"), with the article's noun in singular or plural.
    """
    glossary = _glossary()
    patterns = [re.escape(name) for name in CLASSES]
    patterns += [p for entry in glossary.classes.values() for p in entry["names"]]
    patterns += glossary.objects
    # the longest alternative first: "intermediate polar" before "polar"
    patterns = sorted(dict.fromkeys(patterns), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(patterns)})(?:e?s)?\b", re.IGNORECASE)


@functools.cache
def _glossary():
    file = importlib.resources.files(__package__) / "glossary.json"
    return _Glossary(json.loads(file.read_text(encoding="utf-8")))


def _any_of(patterns):
    return re.compile("|".join(rf"\b(?:{p})" for p in patterns) or r"(?!)", re.IGNORECASE)


_STOP = set("a an and are as at be but by every for from has have in into is it its like of off on "
            "one only or our out over so some than that the their them then there this those to up "
            "very was we which while who whose with without x ray rays xray source object kev "
            "s not no also if when where nor yet both each any all most more less much many few "
            "just nothing something must here how what does do can would should been being".split())
# words that alone point to no class
_VAGUE = ("component day days emission energy energies hard hour hours law light log low high "
          "min minute minutes non-thermal photons period power sec second seconds spectral "
          "spectrum time times timescale variability week weeks year years")


def _stems(text):
    """Words without their endings: crude, but 'pulses', 'pulsing' and 'pulse' become one."""
    stems = []
    for word in re.findall(r"(?:\bnon-)?[a-z]+", text.lower()):
        if word in _STOP or len(word) < 2:
            continue
        for ending in ("ations", "ation", "ingly", "ings", "ions", "ing", "ion", "ies", "ed", "es",
                       "ly", "s", "e", "y"):
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word[:-len(ending)]
                break
        stems.append(word)
    return stems


@functools.cache
def _vague_stems():
    return set(_stems(_VAGUE))


def _class_probabilities(rest, kept, denied, flags, period, glossary, encoder):
    """How likely each class is; all zero when nothing in the query speaks of a class."""
    named, excluded = _named(kept, glossary), _named(denied, glossary)
    telling = rest  # "soft" or "absorbed" alone is no class
    for answers in glossary.flags.values():
        for pattern in answers.values():
            telling = pattern.sub(" ", telling)
    telling = set(_stems(telling)) - _vague_stems()
    if encoder is None:
        telling &= set(glossary.word_index)
    if not telling and not named.any():
        return np.zeros(len(CLASSES))
    index = [glossary.word_index[word] for word in set(_stems(rest)) & set(glossary.word_index)]
    weight = glossary.weight[index]
    lexical = glossary.has_word[:, index] @ weight / max(weight.sum(), 3.0)
    # Weights were set by leaving descriptions of the glossary out in turn.
    if encoder is None:
        score = 8.0 * lexical
    else:
        vectors, fit = glossary.reader(encoder)
        vector = encoder.encode([rest])
        if not index and (vectors @ vector[0]).max() < 0.3:  # about nothing in the glossary
            return np.zeros(len(CLASSES))
        score = 4.0 * lexical + fit.predict_log_proba(vector)[0]
    score += 4.0 * named - 20.0 * (excluded & ~named)
    for i, entry in enumerate(glossary.classes.values()):
        implied = entry["slots"]
        for name, value in flags.items():
            if name in implied:
                score[i] += 0.5 if implied[name] == value else -1.0
        if period is not None and not named[i]:  # a class that is named may surprise us
            usual = any(low <= period <= high for low, high in entry["periods"])
            score[i] += 1.0 if usual else -2.0
    share = np.exp(score - score.max())
    return share / share.sum()


def _named(text, glossary):
    """Which classes a text names; of nested ones ('eclipsing ULX', 'ULX') the longest counts."""
    spans = {i: match.span() for i, name in enumerate(CLASSES)
             if (match := glossary.names[name].search(text))}
    named = np.zeros(len(CLASSES), bool)
    for i, (start, end) in spans.items():
        named[i] = not any(s <= start and end <= e and e - s > end - start
                           for s, e in spans.values())
    return named


# --- yes and no ---------------------------------------------------------------------------------

_AUXILIARY = (r"(?:do|does|did|is|are|was|were|ha(?:s|ve|d)|can|could|will|would|should|must|may|"
              r"might)")
_NOT = rf"(?:{_AUXILIARY}(?: not|n['’]?t)|can(?:not|['’]?t)|won['’]?t|not?|never)"
# comparisons with a number; "no longer than" denies nothing, but is the other bound
_MORE = (r"(?:>=?|≥|(?:(?:more|greater|larger|higher|longer) than|above|over|exceed(?:s|ing)?|"
         r"at least)\b)")
_LESS = r"(?:<=?|≤|(?:(?:less|smaller|lower|shorter) than|below|under|at most)\b)"
# a denial reaches to the end of its clause; a point or comma within a number ends none
_CONNECTIVE = r"(?:but|however|although|though|yet|with|while|whose|which|that|then|in|at|from)\b"
_CLAUSE_END = re.compile(rf"(?<!\d)[.,]|[.,](?!\d)|[;:()]|\b(?:{_CONNECTIVE}|"
                         r"and (?:a|an|the|with|is|has)\b)", re.IGNORECASE)
# Commas of a list continue it: "no jet, disc or wind", and of nouns "no flares, dips and bursts",
# but not "not soft, variable and periodic".
_WORD, _NOUN = rf"(?!and\b|{_CONNECTIVE})[a-z][\w-]*", r"[a-z]\w{2,}(?:s|ion|ity)"
_LIST = re.compile(rf"(?:{_WORD} ){{0,3}}(?:{_WORD}(?:, {_WORD})*,? n?or |"
                   rf"{_NOUN}(?:, {_NOUN})+,? and (?={_NOUN}\b))", re.IGNORECASE)
_ATTACHED = re.compile(r"[\w-]*")  # to "non-"
_BE = r"(?:(?:is|are|was|were|has|have|had|can|could|be|been) )"
# A denial may also follow: "flares were never seen", "variability is absent".
_DENIED = (
    rf"(?:{_BE}?{_NOT} (?:(?:be|been|yet|\w+ly) )*(?:detected|seen|found|observed|present|visible|"
    r"evident|apparent|significant|needed|required)|"
    rf"{_BE}+(?:\w+ly )?(?:absent|undetected|excluded|ruled out|negligible|insignificant|minimal|"
    r"lacking|missing|unlikely)|(?:absent|undetected|excluded|ruled out)(?=[.,;:)]|$))\b")


@functools.cache
def _negations():
    """Patterns of denials that follow and that precede; of the latter, ``word`` denies but one."""
    names = class_terms().pattern
    flags = "|".join(pattern.pattern for answers in _glossary().flags.values()
                     for pattern in answers.values())
    subject = (rf"(?:{names}|(?:(?:{flags})[- ])?"  # "an intermediate polar", "soft emission"
               rf"(?!(?:n?or|without|who|it|not?)\b){_WORD})")
    following = rf"\b(?:{_NOUN}(?:, {_NOUN})*,? (?:or|and) )?{subject} {_DENIED}"
    preceding = (
        rf"\b(?!{_NOT} (?:only\b|{_MORE}|{_LESS}))(?:{_NOT}|without|lack(?:s|ing)?(?: of)?|"
        r"absence of|free (?:of|from)|neither|nor|non-?detections?(?: of)?|"
        r"(?:hardly|barely|scarcely)(?: any)?|(?<!non[- ])negligible|insignificant|minimal|"
        # neither "a little absorption" nor "a star and its little companion"
        r"(?<!\ba )little(?= (?:or no |[\w-]+ )?\w+(?:ion|ity|ence)\b)|rather than|instead of|"
        # "steady except for flares" has flares: such words exclude classes only
        rf"exclud(?:e|es|ing)|(?:other than|apart from|except(?: for)?|anything but)"
        rf"(?= (?:an? |the |any )?{names})|"
        # "non-thermal" and "non-magnetic CV" say what a source is
        rf"(?P<word>(?!{names})non(?=[- ](?:{flags}|{names}))))\b[- ]?")
    return re.compile(following, re.IGNORECASE), re.compile(preceding, re.IGNORECASE)


def _denials(query):
    """Spans (start, denied start, end) of what a query denies."""
    spans, position = [], 0
    following, preceding = _negations()
    while matches := [match for pattern in (following, preceding)
                      if (match := pattern.search(query, position))]:
        match = min(matches, key=re.Match.start)
        if match.re is following:
            inner, stop = match.span()
        else:
            inner, stop = match.end(), _reach(query, match.end(), match["word"])
        spans.append((match.start(), inner, stop))
        position = max(stop, match.end())
    return spans


def _reach(query, start, one_word):
    """Where a denial of what begins at `start` ends."""
    if one_word:
        return _ATTACHED.match(query, start).end()
    items = _LIST.match(query, start)
    end = _CLAUSE_END.search(query, items.end() if items else start)
    return end.start() if end else len(query)


def _split_negations(query):
    """What a query says, and what it denies."""
    kept, denied, position = [], [], 0
    for start, inner, stop in _denials(query):
        kept.append(query[position:start])
        denied.append(query[inner:stop])
        position = stop
    kept.append(query[position:])
    kept = re.sub(r"\s+([,.;:])", r"\1", " ".join(" ".join(kept).split()))
    kept = re.sub(r"([,;:]\s*)+(?=[.,;:]|$)", "", kept).strip(" ,;:")
    return re.sub(r"^(?:but|and|or|with)\b\s*", "", kept), " ; ".join(denied)


def _flags(query, glossary):
    """Yes/no properties a query states; the first statement on each counts."""
    query = re.sub(r"\bnon(?=[a-z])", "non-", query, flags=re.IGNORECASE)  # "nonvariable"
    kinds = [match.span() for match in glossary.object_names.finditer(query)]
    denied = [(inner, stop) for _, inner, stop in _denials(query)]
    found = {}
    for name, answers in glossary.flags.items():
        hits = [(match.start(), answer == "yes")
                for answer, pattern in answers.items() for match in pattern.finditer(query)
                # a "cataclysmic variable" is a kind of object
                if not any(start < match.start() < stop for start, stop in kinds)]
        for start, value in sorted(hits)[:1]:
            if any(inner <= start < stop for inner, stop in denied):
                value = not value
            found[name] = value
    if any(found.get(name) for name in ("flaring", "eclipsing")):
        found.setdefault("variable", True)
    return {name: found[name] for name in FLAG_SLOTS if name in found}


# --- numbers ------------------------------------------------------------------------------------

_SUPERSCRIPT = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")
_NUMBER_WORDS = {
    "half": 0.5, "a": 1, "an": 1, "one": 1, "two": 2, "couple": 2, "three": 3, "few": 3, "four": 4,
    "five": 5, "several": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12,
    "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "ninety": 90,
    "hundred": 100,
}
_PLAIN = r"\d*\.?\d+"
_DIGITS = (r"(?:(?<=[\s=<>~≈:])-)?(?<![\d.])" + _PLAIN
           + r"(?:\s*(?:x|×|\*)\s*10\s*(?:\^|\*\*)?\s*[-+]?\d+|e[-+]?\d+"
           r"|\s*(?:\^|\*\*)\s*[-+]?\d+(?:\.\d+)?)?")
_NUMBER = (_DIGITS + r"|(?:half an?|a few|a couple of|a hundred|"
           + "|".join(_NUMBER_WORDS) + r")\b")
_NUM = f"(?P<num>{_NUMBER})"
_RELATION = rf"(?:(?P<no>{_NOT} )?(?P<relation>{_MORE}|{_LESS}))?"
_FILL = r"\s*(?:of|at|is|=|~|≈|about|around|roughly|near|close to|some|approximately|:|\s)*"
_TIME_UNITS = {"ms": 1e-3, "millisecond": 1e-3, "ks": 1e3, "kilosecond": 1e3, "megasecond": 1e6,
               "second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600,
               "h": 3600, "day": 86400, "d": 86400, "week": 604800, "month": 2.63e6,
               "year": 3.156e7}
_UNIT = rf"(?:{'|'.join(_TIME_UNITS)})s?(?![a-z])"
_TIME = rf"\s*-?\s*(?P<unit>{_UNIT})"
_PERIODIC = (r"(?:period(?:icity|ic|s)?|pulsations?|pulses?|pulsed|pulsing|pulsates?|spins?|"
             r"spinning|rotates|rotating|rotation|modulated|modulation|orbit(?:al)?|"
             r"recur(?:s|rence|ring)?|repeat(?:s|ing)?|beats?|oscillat\w+|cycles?|dips?|eclipses?|"
             r"every)")
_LASTING = (r"(?:time-?scales?|lasting|lasts?|durations?|during|within|over|decay\w*|"
            r"rise|takes?)")
_LINK = r"(?:\s+(?:every|of|at|with|in|on|for|a|an|the|period|time|is|its|once|per))*"

# the (?!\S) keeps the minus of "cm-2" from being that of a range
_UNIT_N_H = r"(?:\s*(?:atoms?\s*)?(?:/\s*cm|per\s+cm|cm)\S*(?!\S))?"
_UNIT_KT = r"\s*-?\s*(?P<unit>keV|eV|K\b|MK|million[- ](?:degrees?|kelvin|K))"
_UNIT_FLUX = r"\s*(?P<unit>erg\s*/?\s*(?:s|cm)\S*(?:\s*(?:cm|s)\S*)?(?!\S)|cgs)"


def _amount(unit):
    """A number with a unit, or a range with one or two."""
    low_unit = unit.replace("<unit>", "<low_unit>")
    return (rf"(?:(?:from\s+)?(?P<low>{_DIGITS})(?:\s*(?:-|–|to|and)|{low_unit}\s*(?:-|–|to))\s*)?"
            + _NUM + unit)


def _stated(name, unit=""):
    """A name or its logarithm, perhaps a relation, and an amount; a logarithm needs no unit."""
    given = "(?(log)|(?(unit)|(?!)))" if "<unit>" in unit else ""  # (?!) fails
    return (rf"(?P<log>\blog(?:_?10)?\s*\(?\s*)?{name}(?(log)\s*\)?)" + _FILL + _RELATION + _FILL
            + _amount(f"(?:{unit})?") + given)


_N_H = (r"(?:(?:\b|(?<=log))n_?h\b(?:\s*[/\[]\s*cm[^\s=<>~≈:]*)?|column(?: density)?|"
        r"absorb\w+|absorption)")
_KT = r"(?:\bkT\b|temperature|plasma|black-?body|thermal|gas)(?:\s+emission)?"
_AMOUNT_FIRST = _RELATION + r"\s*" + _amount(_TIME)

_PATTERNS = [  # slot, pattern, kind of unit; the first plausible match of each slot is taken
    ("photon_index",
     _stated(r"(?:photon[- ]index|power[- ]law(?:,? (?:with|of)?(?: an?)? ?(?:photon )?"
             r"(?:index|slope))?|\bgamma\b(?!-ray| ray)|Γ)"), None),
    ("n_h", _stated(_N_H, _UNIT_N_H), "column"),
    ("kT", _stated(_KT, _UNIT_KT), "energy"),
    ("kT", _NUM + _UNIT_KT + r"\s+(?:black-?body|plasma|gas|thermal|corona)", "energy"),
    ("flux", _stated("(?:flux|brightness)?", _UNIT_FLUX), "flux"),
    ("period", _stated(_PERIODIC + _LINK, _TIME), "time"),
    ("period", _AMOUNT_FIRST + r"\s+(?:\w+\s+)?(?:period|pulses?|pulsations?|spin|rotation|"
     r"modulation|orbit|cycle)", "time"),
    ("timescale", _stated(_LASTING + _LINK, _TIME), "time"),
    ("timescale", _AMOUNT_FIRST + r"\s*-?\s*(?:long|time-?scales?)", "time"),
]
_PATTERNS = [(name, re.compile(pattern, re.IGNORECASE), kind) for name, pattern, kind in _PATTERNS]
_SHOWN = {"photon_index": "photon index {}", "n_h": "N_H {} x 1e22 cm-2", "kT": "kT {} keV",
          "flux": "flux {} erg/s/cm2", "period": "period {} s", "timescale": "timescale {} s"}
# what can be, in the slot's unit
_PLAUSIBLE = {"column": (0, 1e3), "energy": (0, 1e5), "flux": (0, 1e-3), "time": (0, 1e30),
              None: (-1, 10)}

# what is not shown of a number that was read: signs, digits, lone letters and comparisons
_UNTOLD = re.compile(rf"\b(?:{_NOT} )?(?:{_MORE}|{_LESS})|[^A-Za-z\s]+|\b[a-zA-Z]\b",
                     re.IGNORECASE)
_TERM = rf"({_NUMBER})\s*-?\s*({_UNIT})"
_SUM = re.compile(rf"\b(?:{_TERM})(?:(?:\s*(?=\d)|\s+and\s+)(?:{_TERM}))+", re.IGNORECASE)
_AND_A_HALF = re.compile(rf"\b({_NUMBER})[\s-]+(?:({_UNIT})[\s-]+)?and[\s-]+a[\s-]+half\b",
                         re.IGNORECASE)
_FRACTION = re.compile(rf"(?:\b(\d+)[\s-]+)?\b(\d)/([1-9])(?=[\s-]*{_UNIT})", re.IGNORECASE)
_BETWEEN = re.compile(r"\bbetween\s+(-?[\d.]\S*(?:\s\S+){0,4}?)\s+and\s+(?=[-\d.])",
                      re.IGNORECASE)


def _numbers(text):
    """Number slots of a text, those that are bounds, notes on them, and the text without them."""
    text = _uniform(text)
    found, bounds, notes, cut = {}, set(), [], []
    for name, pattern, kind in _PATTERNS:
        if name in found:
            continue
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end, _ in cut):
                continue
            read = _read_value(name, kind, match.groupdict())
            if read is not None:
                found[name], shown, bound = read
                if bound:
                    bounds.add(name)
                notes.append(_SHOWN[name].format(shown))
                cut.append((*match.span(), kind))
                break
    rest, position = [], 0
    for start, end, kind in sorted(cut):
        rest.append(text[position:start])
        if kind in ("time", "energy"):  # the number goes, the word stays: a pulse is a pulse
            rest.append(_UNTOLD.sub(" ", text[start:end]))
        position = end
    rest.append(text[position:])
    return found, bounds, notes, " ".join(" ".join(rest).split())


def _uniform(text):
    """A text with its numbers in one way of writing, each with one unit."""
    text = re.sub(r"[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(_SUPERSCRIPT), text)
    text = text.replace("−", "-").replace("½", " 1/2")
    text = re.sub(r"\\(?:rm|mathrm)\b\s*|[{}$\\]", "", text.replace(r"\times", "x"))  # LaTeX
    text = re.sub(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)",
                  lambda m: m[0].replace(",", ""), text)
    text = re.sub(r"(?<![\d.,])(\d+),(\d+)(?![.,]?\d)", r"\1.\2", text)
    text = _BETWEEN.sub(r"from \1 to ", text)
    text = _AND_A_HALF.sub(lambda m: f"{_float(m[1]) + 0.5:.10g} {m[2] or ''}", text)
    text = _FRACTION.sub(lambda m: f"{int(m[1] or 0) + int(m[2]) / int(m[3]):.10g}", text)
    return _SUM.sub(_total, text)


def _total(match):
    """The sum of '2 h 30 min', in its last unit; what does not descend by units stays."""
    terms = [(_float(number), _scale("time", unit))
             for number, unit in re.findall(_TERM, match[0], re.IGNORECASE)]
    scales = [scale for _, scale in terms]
    if not all(small < large <= 100 * small for large, small in zip(scales, scales[1:])):
        return match[0]
    total = sum(value * scale for value, scale in terms)
    return f"{total / scales[-1]:.10g} {match[match.re.groups]}"


def _read_value(name, kind, groups):
    """Value in the slot's unit, how to show it, and whether it is a bound; None if implausible."""
    value, scale = _float(groups["num"]), _scale(kind, groups.get("unit"))
    low = _float(groups["low"]) if groups.get("low") else None
    low_scale = _scale(kind, groups["low_unit"]) if groups.get("low_unit") else scale
    shared = not (groups.get("low_unit") or re.fullmatch(_PLAIN, groups["num"]))
    if groups.get("log"):
        value, low = (_power(10.0, x) if x is not None else None for x in (value, low))
    elif low is not None and low < 1e3 < value < math.inf and shared:  # "1 to 5e22"
        low *= 10 ** math.floor(math.log10(value))
    if kind == "column":  # written in cm-2, or in the customary 1e22 cm-2
        scale = low_scale = 1e-22 if value > 1e10 else 1.0
    value *= scale
    least, most = _PLAUSIBLE[kind]
    if not least <= value <= most or value == 0 and kind in ("energy", "flux", "time"):
        return None
    if low is not None:
        low *= low_scale
        if not least <= low <= most:
            return None
        shown = f"{significant(low)} to {significant(value)}"
        return math.sqrt(low * value) if 0 < low else (low + value) / 2, shown, False
    if groups.get("relation"):
        return (*_inside(name, value, groups["relation"], groups["no"]), True)
    return value, significant(value), False


def _inside(name, value, relation, denied):
    """A value typical of a bound: half a decade (0.3 of a photon index) inside it."""
    up = bool(re.match(_MORE, relation, re.IGNORECASE)) != bool(denied)
    shown = f"{'>' if up else '<'} {significant(value)}"
    if NUMBER_SLOTS[name][1]:
        return value * 10 ** (0.5 if up else -0.5), shown
    return value + (0.3 if up else -0.3), shown


def _scale(kind, unit):
    if unit is None:
        return 1.0
    if kind == "time":
        if unit == "Ms":  # the one unit of which the case matters
            return 1e6
        unit = unit.lower()
        return _TIME_UNITS.get(unit) or _TIME_UNITS[unit.removesuffix("s")]
    if kind == "energy":
        unit = unit.lower()
        boltzmann = 8.617e-8  # keV / K
        if unit.startswith("million") or unit == "mk":
            return 1e6 * boltzmann
        return {"kev": 1.0, "ev": 1e-3, "k": boltzmann}[unit]
    return 1.0


def _float(text):
    text = text.lower().strip()
    for phrase, value in (("half a", 0.5), ("a few", 3), ("a couple", 2), ("a hundred", 100)):
        if text.startswith(phrase):
            return float(value)
    if text in _NUMBER_WORDS:
        return float(_NUMBER_WORDS[text])
    if text.startswith("-"):
        return -_float(text[1:])
    if power := re.fullmatch(rf"({_PLAIN})\s*(?:\^|\*\*)\s*([-+]?{_PLAIN})", text):
        return _power(float(power[1]), float(power[2]))
    if power := re.fullmatch(rf"({_PLAIN})\s*(?:x|×|\*)\s*10\s*(?:\^|\*\*)?\s*([-+]?\d+)", text):
        return float(f"{power[1]}e{power[2]}")
    return float(text)


def _power(base, exponent):
    try:
        return base ** exponent
    except ArithmeticError:  # beyond what a float holds
        return math.inf
