"""Free-prose summaries of simulated sources, put together from a stock of phrases.

What is written about a source in the literature is neither complete nor uniform nor always right.
`write_prose` imitates that for a row of a truth table: it picks a random subset of the facts,
states them exactly, vaguely or (rarely) wrongly, in wording drawn from a stock in which every
class has many names and circumlocutions, and mixes in remarks that tell nothing about the source.
The slots beside the prose hold what the prose says, right or wrong, and nothing else.

The stock lies beside this module in ``phrases/*.json``: a file of shared phrases and one per
family of classes.  Descriptions in plain words are those of the glossary that queries are
understood with (`stingray_align.text.understand`).  Every list has two parts, ``training`` and
``held_out``, so that wording never trained on can be tested.  Phrases may begin with conditions
and contain choices and placeholders:

- ``?flaring``, ``?!flaring``: fits only if the flag is set (not set), and *states* it;
- ``&periodic``, ``&!periodic``, ``&period<100``, ``&shape=red_noise``: fits only if that holds,
  and states nothing;
- ``[old|evolved]``: one of the alternatives;
- ``{period}``, ``{n_h}``...: a number in words or digits; ``{src}``: a way to name the source;
  ``{np}``: a noun phrase from another list.
"""

import functools
import hashlib
import importlib.metadata
import importlib.resources
import json
import math
import re

import numpy as np

from ..text.glossary import plain_descriptions
from ..text.slots import CLASSES, FLAG_SLOTS, NUMBER_SLOTS
from ..text.summary import WORDS, Summary

__all__ = ["WORDINGS", "class_descriptions", "write_prose"]

WORDINGS = ("training", "held-out", "all")
"""Parts of the phrase stock that can be asked for."""

STOCK_VERSION = "phrases-2"

KEV_IN_MEGAKELVIN = 11.6045
_NAMED = 0.68            # share of summaries that say of what class the source is
_WRONG_CLASS = 0.035     # of those
_WRONG_NUMBER = 0.04     # of the numbers
_WRONG_FLAG = 0.04       # of the summaries: one flag is turned around
_PLAIN_STYLE = 0.2       # share of summaries that put what the source is in plain words only,
_PLAIN_SENTENCES = 3     # so many of them
_PLAIN_FRAMES = ("[In plain words|Put simply|Described without jargon|To a layman|"
                 "In everyday language|Picture this]")
_SECTIONS = ("spectrum", "timing", "environment", "open")
_LONGEST_SUBJECT = 3     # words

# Where a sentence of each kind stands, before the order is shaken.
_PLACE = {"exposure": 0.5, "context": 3.5, "identity": 1.0, "plain": 2.0, "rejected": 4.5,
          "spectrum": 3.0, "timing": 4.0, "environment": 5.0, "open": 6.5}

_RANGES = {  # low, high, decimals
    "count": (3, 90, 0), "arcmin": (1.0, 14.0, 1), "asec": (0.2, 2.5, 2), "mag": (6.0, 14.0, 1),
    "mag2": (21.0, 26.5, 1), "factor": (2, 9, 0), "prob": (0.1, 8.0, 1), "red": (0.02, 0.9, 2),
    "like": (6, 60, 0), "hours": (2, 40, 0), "year": (2005, 2017, 0), "year2": (2018, 2025, 0),
    "oldyear": (1921, 1978, 0),
}
# Words that may lose their capital after an opening such as "In addition,".
_PLAIN_FIRST_WORDS = frozenset(
    "The A An This There No Its It Most Nothing Soft Hard Neither Some Many Such Each Every One "
    "Only Little Absorption Strong Weak Two Both Between Outside During Irregular Thin".split())
_OF_THE_SOURCE = ("{Src}", "It ", "Its ")  # after such a beginning "it" is understood


# ---- the stock ---------------------------------------------------------------------------------
_CONDITION = re.compile(r"([?&])(!?)([a-z_A-Z]+)(?:([<>=])(\S+))? ")
_PART = re.compile(r"\[([^\]]*)\]|\{(\w+)\}")


class _Phrase:
    """One entry of the stock, taken apart once."""

    __slots__ = ("text", "states", "flags", "guards", "shape", "parts", "slots")

    def __init__(self, text):
        self.states, self.flags, self.guards, self.shape = {}, [], [], None
        while match := _CONDITION.match(text):
            mark, negated, name, sign, value = match.groups()
            if sign == "=":
                self.shape = value.replace("_", " ")
            elif sign:
                self.guards.append((name, 1.0 if sign == ">" else -1.0, float(value)))
            else:
                self.flags.append((name, not negated))
                if mark == "?":
                    self.states[name] = not negated
            text = text[match.end():]
        self.text = text
        self.parts, start = [], 0
        for match in _PART.finditer(text):
            if match.start() > start:
                self.parts.append(text[start:match.start()])
            self.parts.append(_Hole(match[2]) if match[2] else tuple(match[1].split("|")))
            start = match.end()
        if start < len(text):
            self.parts.append(text[start:])
        self.slots = tuple({_SLOT_OF.get(part.name) for part in self.parts
                            if isinstance(part, _Hole)} - {None})

    def fits(self, view, stated):
        """Whether the phrase is true of what is to be told and adds something to it."""
        for name, wanted in self.flags:
            if view.get(name) is not wanted:
                return False
        for name, sign, limit in self.guards:
            if not sign * view.get(name, math.nan) > sign * limit:
                return False
        if self.shape is not None and view["time_shape"] != self.shape:
            return False
        for name in self.slots:
            if name in stated or not math.isfinite(view[name]):
                return False
        if self.states and not self.slots:
            return any(name not in stated for name in self.states)
        return True


class _Hole:
    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name


_SLOT_OF = {"log_n_h": "n_h", "log_flux": "flux", "hardness": "hardness",
            "rms": "fractional_variability", **{name: name for name in NUMBER_SLOTS}}


def _read_files():
    folder = importlib.resources.files(__package__) / "phrases"
    files = sorted((path for path in folder.iterdir() if path.name.endswith(".json")),
                   key=lambda path: path.name)
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def _in_plain_words(descriptions):
    return [f"{_PLAIN_FRAMES}: {text}." for text in descriptions]


@functools.cache
def _raw_stock():
    """Shared phrases, classes, and the checksum of all files."""
    texts = _read_files()
    content = {name: json.loads(text) for name, text in texts.items()}
    shared = content.pop("shared.json")
    classes = {name: entry for part in content.values() for name, entry in part.items()}
    plain = plain_descriptions()
    for name, entry in classes.items():
        entry["plain"]["training"] = _in_plain_words(plain[name])
    whole = "".join([*texts.values(), json.dumps(plain)])
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return shared, classes, digest


def _compile(tree, part):
    """The same tree with lists of phrases where ``{"training": ..., "held_out": ...}`` stood."""
    if not isinstance(tree, dict):
        return tree
    if "training" not in tree:
        return {key: _compile(value, part) for key, value in tree.items()}
    keys = ("training", "held_out") if part == "all" else (part.replace("-", "_"),)
    return tuple(_Phrase(text) for key in keys for text in tree[key])


@functools.cache
def _stock(wording):
    if wording not in WORDINGS:
        raise ValueError(f"wording {wording!r} is none of {', '.join(WORDINGS)}")
    shared, classes, _ = _raw_stock()
    return _compile(shared, wording), _compile(classes, wording)


@functools.cache
def _provenance():
    try:
        version = importlib.metadata.version("stingray-align")
    except importlib.metadata.PackageNotFoundError:
        version = None
    # No date: the same row and random state must give the same summary on any day.
    return {"kind": "simulated", "model": "phrase stock", "prompt_version": STOCK_VERSION,
            "prompt_hash": _raw_stock()[2], "date": None, "package_version": version}


def stock_identity():
    """What tells one stock of phrases, and the way it is used, from another.

    Returns
    -------
    str
        Version and checksum.
    """
    return f"{STOCK_VERSION} {_raw_stock()[2]}"


def class_descriptions():
    """One neutral description of each physical class, in 40 to 80 words.

    Returns
    -------
    dict of str to str
        By class, in the order of `stingray_align.text.slots.CLASSES`; for zero-shot
        classification.

    Examples
    --------
    >>> from stingray_align.datasets.prose import class_descriptions
    >>> print(class_descriptions()["coronal star"][:64])
    A nearby late-type star whose magnetic corona emits soft thermal
    """
    classes = _raw_stock()[1]
    return {name: classes[name]["description"] for name in CLASSES}


# ---- numbers in words --------------------------------------------------------------------------
def _digits(value, significant):
    """``value`` to so many significant digits, without exponent."""
    decimals = significant - 1 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(decimals, 0)}f}"
    return text if decimals >= 0 else str(int(round(value, decimals)))


def _photon_index(value, u):
    style = u()
    if style < 0.15:
        half = round(2 * value) / 2
        return f"{_pick(('about', 'roughly', 'some', 'around'), u)} {half:g}", half
    if style < 0.55:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2f}"
    if style > 0.8:
        error = 0.05 + 0.35 * u() ** 2
        sign = "±" if u() < 0.5 else "+/-"
        return f"{text} {sign} {error:.{len(text.split('.')[1])}f}", float(text)
    return text, float(text)


def _temperature(value, u):
    style = u()
    about = _pick(("about ", "roughly ", "around ", "some "), u) if u() < 0.3 else ""
    if style < 0.15:
        text = _digits(value * KEV_IN_MEGAKELVIN, 2)
        return f"{about}{text} million kelvin", float(text) / KEV_IN_MEGAKELVIN
    digits = 1 if style < 0.3 else 2 if style < 0.8 else 3
    if value < 0.35 and style > 0.5:
        text = _digits(value * 1e3, min(digits, 2))
        return f"{about}{text} eV", float(text) / 1e3
    text = _digits(value, digits)
    error = ""
    if style > 0.7 and not about:
        decimals = len(text.split(".")[1]) if "." in text else 0
        size = max(value * (0.03 + 0.2 * u()), 10.0 ** -decimals)
        error = f" {'±' if u() < 0.5 else '+/-'} {size:.{decimals}f}"
    return f"{about}{text}{error} keV", float(text)


def _power_of_ten(value, u):
    """Text such as "3.1 x 10^22" or "a few times 10^22" and the number it states."""
    exponent = math.floor(math.log10(value))
    mantissa = value / 10.0 ** exponent
    style = u()
    if style < 0.3 and 2.0 <= mantissa <= 5.0:
        return f"a few times 10^{exponent}", 3.0 * 10.0 ** exponent
    if style < 0.3 and (mantissa < 1.5 or mantissa > 7.0):
        nearest = exponent + (mantissa > 7.0)
        return f"{_pick(('about', 'around'), u)} 10^{nearest}", 10.0 ** nearest
    decimals = 1 if style < 0.75 else 0 if style < 0.9 else 2
    text = f"{mantissa:.{decimals}f}"
    if text.startswith("10"):  # rounded up to the next power
        text, exponent = f"{1:.{decimals}f}", exponent + 1
    number = float(f"{text}e{exponent}")
    if u() < 0.25:
        return f"{text}e{exponent}", number
    return f"{text} {'x' if u() < 0.5 else '×'} 10^{exponent}", number


def _column(value, u):
    text, number = _power_of_ten(value * 1e22, u)
    unit = _pick(("cm^-2", "cm^-2", "cm-2", "per square centimetre"), u)
    return f"{text} {unit}", number / 1e22


def _log_column(value, u):
    text = f"{math.log10(value) + 22:.{1 + (u() < 0.5)}f}"
    return text, 10.0 ** (float(text) - 22)


def _flux(value, u):
    text, number = _power_of_ten(value, u)
    unit = _pick(("erg/s/cm^2", "erg s^-1 cm^-2", "erg cm^-2 s^-1", "cgs units"), u)
    return f"{text} {unit}", number


def _log_flux(value, u):
    text = f"{math.log10(value):.{1 + (u() < 0.5)}f}"
    return text, 10.0 ** float(text)


_LOOSE_TIMES = (  # from, to, words, s
    (0.05, 0.6, "a fraction of a second", 0.3), (2, 5, "a few seconds", 3),
    (7, 14, "about ten seconds", 10), (20, 50, "a few tens of seconds", 30),
    (45, 80, "about a minute", 60), (120, 300, "a few minutes", 180),
    (450, 800, "about ten minutes", 600), (1500, 2200, "about half an hour", 1800),
    (2900, 4400, "about an hour", 3600), (5800, 8500, "a couple of hours", 7200),
    (9000, 1.9e4, "a few hours", 10800), (3.6e4, 5.2e4, "about half a day", 43200),
    (7e4, 1.1e5, "about a day", 86400), (1.9e5, 4.5e5, "a few days", 259200),
)
_TIME_UNITS = (  # up to (s), names with their length in s
    (0.5, (("ms", 1e-3), ("s", 1.0))),
    (150.0, (("s", 1.0), ("seconds", 1.0))),
    (7200.0, (("s", 1.0), ("min", 60.0), ("minutes", 60.0), ("ks", 1e3))),
    (2e5, (("h", 3600.0), ("hours", 3600.0), ("ks", 1e3), ("s", 1.0))),
    (math.inf, (("days", 86400.0), ("d", 86400.0), ("ks", 1e3), ("h", 3600.0))),
)


def _time(value, u, loose=0.3):
    if u() < loose:
        for low, high, words, seconds in _LOOSE_TIMES:
            if low <= value <= high:
                return words, float(seconds)
    unit, length = _pick(next(units for limit, units in _TIME_UNITS if value <= limit), u)
    text = _digits(value / length, 2 if u() < 0.5 else 3)
    about = _pick(("about ", "roughly ", "some "), u) if u() < 0.2 else ""
    return f"{about}{text} {unit}", float(text) * length


_WRITERS = {"photon_index": _photon_index, "kT": _temperature, "n_h": _column, "flux": _flux,
            "log_n_h": _log_column, "log_flux": _log_flux, "period": _time, "timescale": _time,
            "hardness": lambda value, u: (f"{round(value, 2) + 0.0:.2f}", value),
            "rms": lambda value, u: (f"{100 * value:.0f}", value)}


# ---- writing -----------------------------------------------------------------------------------
def _pick(options, u):
    return options[int(u() * len(options))]


class _Draws:
    """Uniform numbers one at a time, drawn in blocks because that is ten times faster."""

    def __init__(self, rng):
        self.rng, self.left = rng, []

    def __call__(self):
        if not self.left:
            self.left = self.rng.random(256).tolist()
        return self.left.pop()


def _plain_number(value):
    value = getattr(value, "value", value)
    if value is None or value is np.ma.masked:
        return math.nan
    return float(value)


def _view(row, u):
    """What the writer believes about the source: the truth, with an occasional mistake."""
    view = {name: _plain_number(row[name]) for name in
            (*NUMBER_SLOTS, "hardness", "fractional_variability", "counts", "exposure")}
    view.update((name, bool(row[name])) for name in FLAG_SLOTS)
    view["class"], view["instrument"] = str(row["class"]), str(row["instrument"])
    view["time_shape"] = str(row["time_shape"])
    for name in ("n_h", "flux", "kT", "period", "timescale"):
        if not view[name] > 0:
            view[name] = math.nan
    if not view["fractional_variability"] > 0.1:
        view["fractional_variability"] = math.nan
    if view["class"] == "background only":  # there is nothing that could be soft or absorbed
        view["soft"] = view["absorbed"] = None
    if u() < _WRONG_FLAG:
        _turn_a_flag(view, u)
    for name in NUMBER_SLOTS:
        if math.isfinite(view[name]) and u() < _WRONG_NUMBER:
            up = u() < 0.5
            if name == "photon_index":
                view[name] = max(view[name] + (0.8 if up else -0.8), 0.1)
            else:
                view[name] *= 2.5 + 5.0 * u() if up else 1.0 / (2.5 + 5.0 * u())
            if name == "n_h":
                view["absorbed"] = view["n_h"] >= 1.0
    return view


def _turn_a_flag(view, u):
    name = _pick(("periodic", "flaring", "soft", "variable"), u)
    if view[name] is None:
        return
    view[name] = not view[name]
    view["time_shape"] = ""  # and keep silent about everything that would contradict it
    if name == "soft":
        view["hardness"] = math.nan
    elif name == "periodic":
        view["period"] = math.nan
    elif name == "variable":
        view["timescale"] = view["fractional_variability"] = math.nan
        if not view["variable"]:
            view["flaring"] = view["eclipsing"] = view["periodic"] = None
    else:
        view["timescale"] = math.nan
        if view["flaring"]:
            view["variable"] = True


class _Writer:
    """One summary in the making."""

    def __init__(self, view, u, shared, classes):
        self.view, self.u, self.shared, self.classes = view, u, shared, classes
        self.own = classes[view["class"]]
        self.group = self.own["group"]
        self.subjects = shared["subjects"].get(self.group, shared["subjects"]["any"])
        self.stated = {}   # slot or fact -> what the prose says of it
        self.used = set()
        self.sentences = []  # (section, phrase, text)
        self.low = self.high = 0  # words so far, with the shortest and longest subjects

    def choose(self, phrases):
        """A phrase that fits and was not used, or None."""
        # Not every phrase is tried: else the few without conditions would be used all the time.
        for _ in range(math.ceil(0.6 * len(phrases))):
            phrase = _pick(phrases, self.u)
            if phrase.text not in self.used and phrase.fits(self.view, self.stated):
                return phrase
        return None

    def fill(self, phrase, noun_phrase=""):
        """The text of a phrase and the slots it states."""
        out, stated, u = [], dict(phrase.states), self.u
        for part in phrase.parts:
            if isinstance(part, str):
                out.append(part)
            elif isinstance(part, tuple):
                out.append(_pick(part, u))
            else:
                name = part.name
                if name in ("src", "Src"):
                    out.append("\0" if name == "Src" else _pick(self.subjects, u))
                elif name == "np":
                    out.append(noun_phrase)
                elif name in _WRITERS:
                    slot = _SLOT_OF[name]
                    text, stated[slot] = _WRITERS[name](self.view[slot], u)
                    out.append(text)
                else:
                    out.append(self.filler(name))
        return "".join(out), stated

    def filler(self, name):
        u, view = self.u, self.view
        if name == "instrument":
            return view["instrument"]
        if name in ("counts", "Counts"):
            return f"{view['counts']:,.0f}"
        if name == "exposure":
            return _time(view["exposure"], u, loose=0.0)[0]
        name = name.lower()
        if name in self.shared["fillers"]:
            return _pick(self.shared["fillers"][name], u)
        low, high, decimals = _RANGES[name]
        value = low + (high - low) * u()
        return f"{value:.{decimals}f}"

    def add(self, section, phrases, noun_phrase=""):
        """Add one sentence from a list, if one fits and there is room."""
        phrase = self.choose(phrases)
        if phrase is None:
            return
        text, stated = self.fill(phrase, noun_phrase)
        length = len(text.split())
        longest = length + _LONGEST_SUBJECT - 1
        if self.high + longest > WORDS[1]:
            return
        self.used.add(phrase.text)
        self.low += length
        self.high += longest
        self.stated.update(stated)
        self.sentences.append((section, phrase, text))

    def noun_phrase(self, phrases):
        return self.fill(_pick(phrases, self.u))[0]

    def identify(self):
        """Say what the source is: exactly, loosely, in plain words, wrongly, or not at all.

        Returns False if the rest must not speak of the class in technical terms: it was said
        wrongly, or as someone would who knows none.
        """
        u, shared, view = self.u, self.shared, self.view
        # the held-out part has too few such sentences
        if len(self.own["plain"]) > _PLAIN_SENTENCES and u() < _PLAIN_STYLE:
            self.stated["class"] = view["class"]
            for _ in range(_PLAIN_SENTENCES):
                self.add("plain", self.own["plain"])
            return False
        style = u()
        if style < _NAMED:
            wrong = u() < _WRONG_CLASS
            name = _pick(self.own["neighbours"], u) if wrong else view["class"]
            self.stated["class"] = name
            if wrong or style < 0.56:
                frames = shared["hedged_frames" if wrong or u() < 0.15 else "identity_frames"]
                self.add("identity", frames, self.noun_phrase(self.classes[name]["identity"]))
            if wrong:
                return False
            if style > 0.56 or u() < 0.2:
                self.add("plain", self.own["plain"])
        elif style < 0.82:
            self.add("identity", shared["identity_frames"],
                     self.noun_phrase(shared["group"][self.group]))
        elif style < 0.92:
            self.add("identity", shared["unclassified"])
        if u() < 0.12:
            others = self.own["neighbours"] if u() < 0.6 else tuple(self.classes)
            other = _pick(others, u)
            if other != view["class"]:
                self.add("rejected", shared["rejected_frames"],
                         self.noun_phrase(self.classes[other]["identity"]))
        return True

    def plan(self, own_class):
        """Everything that could be said, as (section, phrases), in random order."""
        u, shared, view = self.u, self.shared, self.view
        plan = []

        def maybe(probability, section, phrases):
            if u() < probability:
                plan.append((section, phrases))

        if own_class:
            for section, probability in (("spectrum", 0.8), ("spectrum", 0.35), ("timing", 0.8),
                                         ("timing", 0.35), ("environment", 0.6), ("open", 0.65)):
                maybe(probability, section, self.own[section])
        for name in ("photon_index", "kT", "n_h", "flux"):
            maybe(0.45, "spectrum", shared[name])
        maybe(0.5, "timing", shared["period_seen" if view["periodic"] else "period_known"])
        maybe(0.5, "timing", shared["shape"].get(view["time_shape"], ()))
        for name in FLAG_SLOTS:
            if view[name] is not None:
                section = "spectrum" if name in ("soft", "absorbed") else "timing"
                maybe(0.28, section, self.flag(name))
        maybe(0.2, "spectrum", shared["hardness"])
        maybe(0.25, "timing", shared["amplitude"])
        if view["counts"] > 1 and view["instrument"] and view["exposure"] > 0:
            maybe(0.35, "exposure", shared["exposure"])
        maybe(0.65, "context", shared["context"])
        maybe(0.3, "context", shared["context"])
        return [plan[i] for _, i in sorted((u(), i) for i in range(len(plan)))]

    def flag(self, name):
        return self.shared["flag"][name]["yes" if self.view[name] else "no"]

    def write(self):
        own_class = self.identify()
        target = 70 + 65 * self.u()
        for section, phrases in self.plan(own_class):
            if self.low >= target:
                break
            self.add(section, phrases)
        # What was drawn may not suffice: go on until it does.
        while self.low < WORDS[0]:
            if own_class and self.u() < 0.5:
                section = _pick(_SECTIONS, self.u)
                self.add(section, self.own[section])
            else:
                self.add("context", self.shared["context"])
        return self.assemble()

    def assemble(self):
        """The sentences in an order that is loosely that of a digest, with their subjects."""
        u = self.u
        key = [(_PLACE[section] + 2.2 * (u() + u() - 1.0)
                + (6.0 if section == "identity" and u() < 0.15 else 0.0), i)
               for i, (section, _, _) in enumerate(self.sentences)]
        out, about_source = [], False
        for _, i in sorted(key):
            section, phrase, text = self.sentences[i]
            subject = _pick(self.subjects, u)
            if text.startswith("\0"):
                text = ("it" if about_source and u() < 0.5 else subject) + text[1:]
                text = text[0].upper() + text[1:]
            elif not about_source and text.startswith("It "):
                text = subject[0].upper() + subject[1:] + text[2:]
            elif not about_source and text.startswith("Its "):
                text = f"{subject[0].upper()}{subject[1:]}'s" + text[3:]
            about_source = (section in ("identity", "spectrum", "timing", "environment")
                            and phrase.text.startswith(_OF_THE_SOURCE))
            out.append(self.open_sentence(section, text) if out else text)
        return " ".join(out)

    def open_sentence(self, section, text):
        """Now and then, join a sentence to the one before."""
        first = text.split(" ", 1)[0]
        if (section in ("spectrum", "timing") and first in _PLAIN_FIRST_WORDS
                and self.u() < 0.12):
            opening = self.noun_phrase(self.shared["connectors"])
            length = len(opening.split())
            if opening not in self.used and self.high + length <= WORDS[1]:
                self.used.add(opening)
                self.high += length
                return f"{opening} {text[0].lower()}{text[1:]}"
        return text


def write_prose(truth_row, rng, *, wording="training"):
    """Write a summary of one simulated source.

    Parameters
    ----------
    truth_row : mapping
        A row of a truth table of `simulate_population` or a dictionary with its columns, as plain
        numbers in the table's units (keV, s, 1e22 cm-2, erg/s/cm2); NaN is unknown.
    rng : numpy.random.Generator
        Source of all choices.
    wording : {"training", "held-out", "all"}, optional
        Part of the phrase stock to write with.

    Returns
    -------
    Summary
        Text of 60 to 150 words; slots with what the text states, as it states it (a few per cent
        of the statements are wrong, and so are their slots); provenance of kind "simulated".

    Raises
    ------
    ValueError
        If ``wording`` is unknown or the class is not in the stock.

    Examples
    --------
    >>> import numpy as np
    >>> from stingray_align.datasets.prose import write_prose
    >>> nan = float("nan")
    >>> row = {"class": "polar", "instrument": "ACIS-S", "exposure": 3e4, "counts": 120,
    ...        "flux": 2e-13, "photon_index": nan, "kT": 12.0, "n_h": 0.03, "hardness": -0.2,
    ...        "fractional_variability": 0.6, "period": 6800.0, "timescale": nan,
    ...        "time_shape": "pulsations", "periodic": True, "eclipsing": False,
    ...        "flaring": False, "soft": False, "absorbed": False, "variable": True}
    >>> summary = write_prose(row, np.random.default_rng(1))
    >>> 60 <= len(summary.text.split()) <= 150
    True
    """
    shared, classes = _stock(wording)
    if truth_row["class"] not in classes:
        raise ValueError(f"no phrases for class {truth_row['class']!r}; the stock has "
                         f"{', '.join(classes)}")
    u = _Draws(rng)
    writer = _Writer(_view(truth_row, u), u, shared, classes)
    text = writer.write()
    slots = {name: value for name, value in writer.stated.items()
             if name == "class" or name in NUMBER_SLOTS or name in FLAG_SLOTS}
    return Summary(text, slots, {**_provenance(), "bibcodes": []})
