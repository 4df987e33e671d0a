"""Who writes the summary of a source.

One call, `write_summary`, and two kinds of writer: a chat model (`stingray_align.text.chat`), which
reads abstracts and facts, and `OfflineWriter`, which needs no model and only phrases what was
measured.  The provenance of every summary says which of them wrote it.
"""

import math
import warnings

import numpy as np
from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning

from .asking import Conversation, ask_all
from .chat import Chat
from .slots import FLAG_SLOTS, NUMBER_SLOTS, clean_slots
from .summary import Summary, check_summary, make_provenance

__all__ = ["write_summary", "OfflineWriter"]

# Units of facts with a dimension: those of truth tables and of slots.
_UNITS = {"exposure": "s", "duration": "s", "period": "s", "timescale": "s",
          "flux": "erg s-1 cm-2", "kT": "keV", "n_h": "1e22 cm-2", "ra": "deg", "dec": "deg"}
# Facts that are phrased as numbers, as are their errors.
_NUMBERS = (*NUMBER_SLOTS, "counts", "exposure", "background_counts", "hardness",
            "fractional_variability")


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
        Literature on the source, each with ``bibcode``, ``title`` and ``abstract``, the most
        relevant first: what does not fit into the model is cut from the end, with a warning.
    backend : LocalChat, OpenAIChat or OfflineWriter
        Who writes: a `Chat`, or any object with ``write(facts, papers)``.

    Returns
    -------
    Summary
        With provenance.

    Raises
    ------
    ValueError
        If there is nothing to write from.
    SummaryError
        If a language model's answers break the schema twice, or it refuses.
    ChatError
        If it gives no answer.

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
    facts, papers = plain_facts(facts), plain_papers(abstracts)
    if not isinstance(backend, Chat):
        return backend.write(facts, papers)
    conversation = Conversation(with_units(facts), papers, backend)
    warn_left_out([conversation.n_left_out], backend)
    (_, outcome), = ask_all(backend, [conversation])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def warn_left_out(numbers, backend):
    """One warning for all abstracts that did not fit into a chat model, so many of each source."""
    n_short = sum(number > 0 for number in numbers)
    if n_short:
        warnings.warn(
            f"{sum(numbers)} abstracts of {n_short} source{'s' if n_short > 1 else ''} are "
            f"left out, the least relevant ones: a conversation with {backend.name} has at most "
            f"{backend.max_input_tokens} tokens. bibcodes_given in the provenance says which "
            "were read", AstropyUserWarning, stacklevel=3)


def plain_papers(abstracts):
    """Bibcode, title and abstract of each paper, as strings."""
    papers = []
    for paper in abstracts:
        missing = [key for key in ("bibcode", "title", "abstract") if key not in paper]
        if missing:
            raise ValueError(f"an abstract lacks {', '.join(missing)}")
        papers.append({key: str(paper[key] or "") for key in ("bibcode", "title", "abstract")})
    return papers


def with_units(facts):
    """Plain facts as a chat model reads them: a number that has a unit states it."""
    shown = {}
    for key, value in facts.items():
        unit = _UNITS.get(key.removesuffix("_err"))
        if unit and not isinstance(value, str):
            value, unit = (value * 1e22, "cm-2") if unit == "1e22 cm-2" else (value, unit)
            value = f"{value:.10g} {unit}"
        shown[key] = value
    return shown


def plain_facts(facts):
    """What is known of a source, as plain numbers, strings, and yes or no."""
    plain = {}
    for key in facts.keys():
        value = facts[key]
        if value is None or np.any(getattr(value, "mask", False)):
            continue
        if hasattr(value, "unit"):
            unit = _UNITS.get(key.removesuffix("_err"))
            if unit:
                value = value.to_value(unit)
            elif value.unit not in (u.one, u.ct) and np.isfinite(value):
                # A language model is told the unit.
                value = f"{value.value:.10g} {value.unit}"
            else:
                value = value.value
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


class OfflineWriter:
    """Summaries without a language model: phrases measured quantities, and nothing else.

    The provenance says ``kind="deterministic"``; the same facts give the same words. There is no
    paraphrase and no literature behind them.
    """

    name = "OfflineWriter"

    def __repr__(self):
        return "<OfflineWriter>"

    def write(self, facts, papers):
        if papers:
            raise ValueError("OfflineWriter only phrases facts and cannot read abstracts; leave "
                             "them out or use a language model")
        for name, value in facts.items():
            if name.removesuffix("_err") in _NUMBERS and (
                    isinstance(value, (bool, str)) or not math.isfinite(value)):
                raise ValueError(f"fact {name!r} is {value!r}, which is no finite number")
        sentences = [s for s in (phrase(facts) for phrase in _PHRASES) if s]
        if not sentences:
            raise ValueError("none of the facts is a known quantity: nothing measured, no summary")
        slots = clean_slots(facts, ignore_other=True)
        return check_summary(Summary(" ".join(sentences), slots,
                                     make_provenance("deterministic", self.name)), words=None)


def significant(value, digits=3):
    """A number as people write it."""
    if 0 < abs(value) < 1e-3 or 1e5 <= abs(value) < math.inf:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


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
