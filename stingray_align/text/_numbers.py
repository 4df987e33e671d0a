"""Which numbers of a text occur in what it was written from.

A language model that invents a number invents a measurement, so every number of a summary has to
be found in its inputs. Found means: the same after rounding to the digits written; the same time,
energy, frequency or column density in another unit; off by a power of ten that a prefix (ks), a
per cent, or a power written out in either text ("in units of 10^-13") explains. Signs are not
compared, since a hyphen may be a range. Words that count ("two peaks") are not checked.
"""

import html
import math
import re
from dataclasses import dataclass, replace

__all__ = ["strange_numbers"]

_YEAR = 365.25 * 86400
_UNITS = {  # unit: (kind, factor to s, keV, Hz, cm-2)
    "ms": ("time", 1e-3), "ks": ("time", 1e3), "ksec": ("time", 1e3), "Ms": ("time", 1e6),
    "yr": ("time", _YEAR), "yrs": ("time", _YEAR), "Hz": ("frequency", 1.0),
    "mHz": ("frequency", 1e-3), "kHz": ("frequency", 1e3), "eV": ("energy", 1e-3),
    "keV": ("energy", 1.0), "MeV": ("energy", 1e3), "GeV": ("energy", 1e6),
    "K": ("energy", 8.617333e-8), "MK": ("energy", 8.617333e-2), "percmsq": ("column", 1.0),
}
for _names, _factor in (
        ("s sec secs second seconds", 1.0), ("min mins minute minutes", 60.0),
        ("kilosecond kiloseconds", 1e3), ("h hr hrs hour hours", 3600.0),
        ("d day days", 86400.0), ("week weeks", 604800.0), ("month months", _YEAR / 12),
        ("year years", _YEAR)):
    _UNITS.update(dict.fromkeys(_names.split(), ("time", _factor)))
_SLOT_UNITS = {"kT": "keV", "n_h": "percmsq", "period": "s", "timescale": "s"}
_PREFIXES = (0, 3, -3, 6, -6)
_WORDS = {word: str(i) for i, word in enumerate(
    "one two three four five six seven eight nine ten eleven twelve".split(), 1)}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER = r"10\s*(?:\^|\*\*)\s*\(?\s*(?P<{0}>[-+]?\d+(?:\.\d+)?)\)?"
_NUMBER = re.compile(
    _POWER.format("alone")
    + r"|(?P<mantissa>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<e>[-+]?\d+)(?![\d.]))?"
    r"(?:\s*[x×*·]\s*10\s*(?:\^|\*\*)?\s*\(?(?P<power>[-+]?\d+)\)?)?")
_LOG = re.compile(r"\blog[^.;\d]{0,40}$")
_UNIT = re.compile(r"[\s-]*(%|per\s?cent|[A-Za-z]+\d?)")


@dataclass(frozen=True)
class _Number:
    """A number as written.

    ``half`` is half of its last digit, ``spread`` the factor within which it is meant. A power of
    ten alone tells an order of magnitude. ``exponent`` is what follows the word log, if that is a
    number, with its sign.
    """

    text: str
    value: float
    half: float
    kind: str | None = None
    factor: float = 1.0
    percent: bool = False
    spread: float = 1.0
    exponent: float | None = None

    def implied(self):
        """Numbers that are said with it: the power of a logarithm, the period of a frequency."""
        if self.exponent is not None:
            yield _Number(self.text, _power(self.exponent), 0.0, spread=10.0 ** (1.2 * self.half))
        if self.kind == "frequency" and self.value:
            yield _Number(self.text, 1 / (self.value * self.factor), 0.0, "time")


def strange_numbers(said, slots, given):
    """Numbers that occur in no input.

    Parameters
    ----------
    said : str
        What was written.
    slots : mapping
        Its number slots, in the units of slots.
    given : str
        All that it was written from.

    Returns
    -------
    list of str
        As written, each once.

    Examples
    --------
    >>> from stingray_align.text._numbers import strange_numbers
    >>> given = "In 48.6 ks the period of 2.31 h is seen at 30%; flux 1.24 x 10^-13 erg/s/cm2."
    >>> strange_numbers("A fraction of 0.3 in 49 ks; 1.2e-13; in 1999 it had 2.35 h.",
    ...                 {"period": 8316.0, "kT": 0.7}, given)
    ['1999', '2.35 h', 'kT 0.7']
    """
    said, given = _plain(said), _plain(given, words=True)
    # an order of magnitude that was given is no ground for a number with digits
    known = [n for number in _numbers(given)
             for n in (replace(number, spread=1.0), *number.implied())]
    # powers of ten that stand apart from the number they belong to: (1.2 +/- 0.3) x 10^-13
    powers = {int(n) for text in (said, given) for n in re.findall(
        r"(?<!\d)10\s*(?:(?:\^|\*\*)\s*\(?\s*|(?=[-+]))([-+]?\d+)(?![\d.])", text)}
    wanted = [*_numbers(re.sub(r"\d+(?:st|[nr]d|th)\b", " ", said)), *_slot_numbers(slots)]
    strange = [number.text for number in wanted
               if not any(_same(n, other, powers)
                          for n in (number, *number.implied()) for other in known)]
    return list(dict.fromkeys(strange))


def _plain(text, *, words=False):
    """One way to write numbers: no markup, no TeX, no typographic minus, no powers of units."""
    text = html.unescape(text).replace("\u2212", "-").replace("\u2013", "-")
    text = re.sub("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = re.sub(r"\blog_?\{?10\}?", "log ", text)
    text = re.sub(r"<sup>", "^", text, flags=re.IGNORECASE)
    text = re.sub(r"</?[A-Za-z][^<>]*>", " ", text)
    text = re.sub(r"\\(?:times|cdot)(?![A-Za-z])", " x ", text)
    text = re.sub(r"\\[,;:! ]|[${}]|\\[A-Za-z]+", " ", text).replace("^ ", "^")
    text = re.sub(r"\bcm\s?(?:\^|\*\*)?\s?\(?-\s?2\)?(?!\d)", "percmsq", text)
    text = re.sub(r"\b(cm|s|sec|erg|arcsec|yr)(?:\s?(?:\^|\*\*)?\s?\(?-\s?[1-4]\)?|(?:\^|\*\*)?"
                  r"[23])(?![\d.])", r"\1 ", text)
    if words:
        text = re.sub(r"\b(an?|half an?)[ -](?=second|minute|hour|day|week|month|year)",
                      lambda m: "0.5 " if m[1].startswith("half") else "1 ", text)
        text = re.sub(rf"\b({'|'.join(_WORDS)})\b", lambda m: _WORDS[m[1].lower()], text,
                      flags=re.IGNORECASE)
    return text


def _numbers(text):
    for match in _NUMBER.finditer(text):
        value, half, spread, exponent = _power(float(match["alone"] or 0)), 0.0, 10 ** 0.5, None
        if not match["alone"]:
            digits = match["mantissa"].replace(",", "")
            scale = _power(int(match["e"] or 0) + int(match["power"] or 0))
            value, half, spread = float(digits) * scale, _half(digits) * scale, 1.0
            if _LOG.search(text, max(0, match.start() - 50), match.start()):
                exponent = -value if text[match.start() - 1] == "-" else value
        if not math.isfinite(value):
            continue
        unit = _UNIT.match(text, match.end())
        unit = unit[1] if unit else ""
        kind, factor = _UNITS.get(unit, (None, 1.0))
        if unit == "percmsq" and match["mantissa"] and value < 1e10:
            kind = None  # the power of ten stands elsewhere
        shown = f"{match[0].strip()} {unit}" if kind and unit != "percmsq" else match[0].strip()
        percent = unit == "%" or unit.startswith(("per ", "percent"))
        yield _Number(shown, value, half, kind, factor, percent, spread, exponent)


def _power(exponent):
    return 10.0 ** exponent if abs(exponent) < 300 else math.inf


def _half(digits):
    """Half a unit of the last digit; zeros at the end of a whole number may be rounding."""
    if "." in digits:
        return 0.5 * 10.0 ** -len(digits.partition(".")[2])
    zeros = len(digits) - len(digits.rstrip("0"))
    return max(0.5, min(0.5 * 10.0 ** zeros, 0.05 * float(digits))) if zeros else 0.5


def _slot_numbers(slots):
    for name, value in slots.items():
        kind, factor = _UNITS.get(_SLOT_UNITS.get(name, ""), (None, 1.0))
        scale = 1e22 if name == "n_h" else 1.0
        for number in _numbers(repr(float(value)).removesuffix(".0")):
            yield _Number(f"{name} {value:g}", number.value * scale, number.half * scale, kind,
                          factor)


def _same(number, other, powers):
    """Whether a number of the text is this one of the inputs."""
    spread = max(number.spread, other.spread)
    slack = 0.0
    if number.kind and number.kind == other.kind:
        scales = [other.factor / number.factor]
        slack = 0.01 if scales != [1.0] else 0.0  # what changes its unit is rounded twice
    elif number.kind and other.kind:
        return False
    else:
        exponents = {*_PREFIXES, *powers, *(-power for power in powers)}
        if number.percent or other.percent:
            exponents |= {2, -2}
        scales = map(_power, exponents)
    for scale in scales:
        value = other.value * scale
        if abs(number.value - value) <= number.half * (1 + 1e-9) + (slack + 1e-9) * value:
            return True
        if value / spread <= number.value <= value * spread and spread > 1:
            return True
    return False
