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
    text, slots = " ".join(s for s in sentences if s), clean_slots(slots)
    return Understood(query, text, "" if slots else text, slots, classes, tuple(notes))


# --- the glossary -------------------------------------------------------------------------------

class _Glossary:
    """The bundled data, with what is computed from it once."""

    def __init__(self, data):
        self.classes = {name: data["classes"][name] for name in CLASSES}
        self.objects = data["objects"]
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
_VAGUE = ("component day days emission energy energies hard hour hours law light low high min "
          "minute minutes photons period power sec second seconds spectral spectrum time times "
          "timescale variability week weeks year years")


def _stems(text):
    """Words without their endings: crude, but 'pulses', 'pulsing' and 'pulse' become one."""
    stems = []
    for word in re.findall(r"[a-z]+", text.lower()):
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

_NEGATION = re.compile(
    r"\b(?:not?(?! only\b| longer than\b| more than\b| less than\b)|never|without|lack(?:s|ing)?"
    r"(?: of)?|absence of|free (?:of|from)|neither|nor|hardly(?: any)?|rather than|instead of|"
    r"(?:do|does|is)n'?t|(?:does|did|do|is|are|was) not|non)\b[- ]?", re.IGNORECASE)
# a denial reaches to the end of its clause
_CLAUSE_END = re.compile(r"[.;:,()]|\b(?:but|however|although|though|yet|with|while|whose|which|"
                         r"that|then|and (?:a|an|the|with|is|has)|in|at|from)\b", re.IGNORECASE)


def _denials(query):
    """Spans (negation start, denied start, end) of what a query denies."""
    spans, position = [], 0
    while match := _NEGATION.search(query, position):
        end = _CLAUSE_END.search(query, match.end())
        stop = end.start() if end else len(query)
        spans.append((match.start(), match.end(), stop))
        position = max(stop, match.end())
    return spans


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
    denied = [(inner, stop) for _, inner, stop in _denials(query)]
    found = {}
    for name, answers in glossary.flags.items():
        hits = [(match.start(), answer == "yes")
                for answer, pattern in answers.items() for match in pattern.finditer(query)]
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
    "twenty": 20, "thirty": 30, "hundred": 100,
}
_DIGITS = (r"\d+(?:\.\d+)?(?:\s*(?:x|×|\*)\s*10\s*(?:\^|\*\*)?\s*[-+]?\d+|e[-+]?\d+"
           r"|\s*(?:\^|\*\*)\s*[-+]?\d+)?")
_NUM = (r"(?P<num>" + _DIGITS + r"|(?:half an?|a few|a couple of|a hundred|"
        + "|".join(_NUMBER_WORDS) + r")\b)")
_RANGE = r"(?:(?:between\s+|from\s+)?(?P<low>" + _DIGITS + r")\s*(?:-|–|to|and)\s*)?"
_RELATION = (r"(?P<relation>>=?|<=?|≥|≤|(?:more|greater|larger|higher|longer) than|above|over|"
             r"exceeding|at least|(?:less|smaller|lower|shorter) than|below|under|at most)?")
_FILL = r"\s*(?:of|at|is|=|~|≈|about|around|roughly|near|close to|some|approximately|:|\s)*"
_VALUE = _FILL + _RELATION + _FILL + _RANGE + _NUM
_TIME_UNITS = {"ms": 1e-3, "millisecond": 1e-3, "ks": 1e3, "kilosecond": 1e3, "second": 1,
               "sec": 1, "s": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "h": 3600,
               "day": 86400, "d": 86400, "week": 604800, "month": 2.63e6, "year": 3.156e7}
_TIME = r"\s*-?\s*(?P<unit>" + "|".join(_TIME_UNITS) + r")s?\b"
_PERIODIC = (r"(?:period(?:icity|ic|s)?|pulsations?|pulses?|pulsed|pulsing|pulsates?|spins?|"
             r"spinning|rotates|rotating|rotation|modulated|modulation|orbit(?:al)?|"
             r"recur(?:s|rence|ring)?|repeat(?:s|ing)?|beats?|oscillat\w+|cycles?|dips?|eclipses?|"
             r"every)")
_LASTING = (r"(?:time-?scales?|lasting|lasts?|durations?|during|within|over|decay\w*|"
            r"rise|takes?)")
_LINK = r"(?:\s+(?:every|of|at|with|in|on|for|a|an|the|period|time|is|its|once|per))*"

_UNIT_N_H = r"(?:\s*(?:atoms?\s*)?(?:/\s*cm|per\s+cm|cm)\S*)?"
_UNIT_KT = r"\s*-?\s*(?P<unit>keV|eV|K\b|MK|million[- ](?:degrees?|kelvin|K))"
_UNIT_FLUX = r"\s*(?P<unit>erg\s*/?\s*(?:s|cm)\S*(?:\s*(?:cm|s)\S*)?|cgs)"

_PATTERNS = [  # slot, pattern, kind of unit; the first plausible match of each slot is taken
    ("photon_index", r"(?:photon[- ]index|power[- ]law(?:,? (?:with|of)?(?: an?)? ?(?:photon )?"
                     r"(?:index|slope))?|\bgamma\b(?!-ray| ray)|Γ)" + _VALUE, None),
    ("n_h", r"(?:\bn_?\{?h\}?\b|column(?: density)?|absorb\w+|absorption)" + _VALUE + _UNIT_N_H,
     "column"),
    ("kT", r"(?:\bkT\b|temperature|plasma|black-?body|thermal|gas)(?:\s+emission)?" + _VALUE
     + _UNIT_KT, "energy"),
    ("kT", _NUM + _UNIT_KT + r"\s+(?:black-?body|plasma|gas|thermal|corona)", "energy"),
    ("flux", r"(?:flux|brightness)?" + _VALUE + _UNIT_FLUX, "flux"),
    ("period", _PERIODIC + _LINK + _VALUE + _TIME, "time"),
    ("period", _RANGE + _NUM + _TIME + r"\s+(?:\w+\s+)?(?:period|pulses?|pulsations?|spin|rotation|"
     r"modulation|orbit|cycle)", "time"),
    ("timescale", _LASTING + _LINK + _VALUE + _TIME, "time"),
    ("timescale", _RANGE + _NUM + _TIME + r"\s*-?\s*(?:long|time-?scales?)", "time"),
]
_PATTERNS = [(name, re.compile(pattern, re.IGNORECASE), kind) for name, pattern, kind in _PATTERNS]
_SHOWN = {"photon_index": "photon index {}", "n_h": "N_H {} x 1e22 cm-2", "kT": "kT {} keV",
          "flux": "flux {} erg/s/cm2", "period": "period {} s", "timescale": "timescale {} s"}


def _numbers(text):
    """Number slots of a text, those that are bounds, notes on them, and the text without them."""
    text = re.sub(r"([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: "^" + m[0].translate(_SUPERSCRIPT), text)
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
            rest.append(re.sub(r"[^A-Za-z\s]+|\b[a-zA-Z]\b", " ", text[start:end]))
        position = end
    rest.append(text[position:])
    return found, bounds, notes, " ".join(" ".join(rest).split())


def _read_value(name, kind, groups):
    """Value in the slot's unit, how to show it, and whether it is a bound; None if implausible."""
    value, scale = _float(groups["num"]), _scale(kind, groups.get("unit"))
    low = _float(groups["low"]) if groups.get("low") else None
    if low is not None and low < 1e3 < value:  # "1 to 5e22"
        low *= 10 ** math.floor(math.log10(value))
    if kind == "column":  # written in cm-2, or in the customary 1e22 cm-2
        scale = 1e-22 if value > 1e10 else 1.0
    value *= scale
    if not {"column": 0 <= value < 1e3, None: -1 <= value <= 10,
            "flux": 0 < value < 1e-3}.get(kind, value > 0):
        return None
    if low is not None:
        low *= scale
        shown = f"{significant(low)} to {significant(value)}"
        return math.sqrt(low * value) if 0 < low else value, shown, False
    if groups.get("relation"):
        return (*_inside(name, value, groups["relation"]), True)
    return value, significant(value), False


def _inside(name, value, relation):
    """A value typical of a bound: half a decade (0.3 of a photon index) inside it."""
    up = relation[0] in ">≥" or relation.lower().startswith(
        ("more", "greater", "larger", "higher", "longer", "above", "over", "exceeding", "at least"))
    shown = f"{'>' if up else '<'} {significant(value)}"
    if NUMBER_SLOTS[name][1]:
        return value * 10 ** (0.5 if up else -0.5), shown
    return value + (0.3 if up else -0.3), shown


def _scale(kind, unit):
    if kind == "time":
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
    if power := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:\^|\*\*)\s*([-+]?\d+)", text):
        return float(power[1]) ** int(power[2])
    if power := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:x|×|\*)\s*10\s*(?:\^|\*\*)?\s*([-+]?\d+)",
                             text):
        return float(power[1]) * 10.0 ** int(power[2])
    return float(text)
