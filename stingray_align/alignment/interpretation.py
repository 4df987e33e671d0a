"""What the shared space says about one source, as a report, a table and a page of figures."""

import html
import math
import textwrap
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from astropy import units as u
from astropy.table import QTable

from ..errors import DomainShiftWarning, EventDataWarning
from ..artefacts import find_artefacts
from ..text.writers import significant
from ._facts import FEWEST_FOR_VARIABILITY, Measured, measure
from ._search import top_k
from .intervals import PARAMETERS, percentiles, stretch_of, stretched

__all__ = ["Interpretation"]

_N_DRAWS = 64
_NOVELTY_DRAWS = 16  # as many as the catalogue was calibrated with
_ATTRIBUTED = 3      # texts whose sentences are weighed
_WIDTH = 96
_RARE = 0.01  # p-value below which a source is called unlike the catalogue


@dataclass(frozen=True, eq=False)
class Interpretation:
    """The reading of one observation by a catalogue.

    Made by `AlignedCatalog.interpret`; ``print`` shows the report.

    Attributes
    ----------
    name : str
        What the observation is called.
    measured : Measured
        Counts, brightness, hardness and variability, straight from the photons.
    texts, sources : astropy.table.QTable
        Best-matching summaries and nearest sources, as from `AlignedCatalog.query`.
    classes : astropy.table.QTable
        ``class`` and ``probability``, most probable first, averaged over the latent's posterior.
    inferred : astropy.table.QTable
        What the photons say by themselves: `Embedding.parameters` with 68 % intervals.
    parameters : astropy.table.QTable
        What the neighbours are like: ``parameter``, ``value``, ``lower``, ``upper`` (68 %),
        ``unit``, and ``share``: the part of their weight that has this parameter at all.
    novelty : float
        Share of known sources with similar counts that are at least as lonely in the shared space
        (a p-value: small is unusual).
    novelty_text : str
        The same in words, with the likeliest reason: rare physics, an artefact of the instrument,
        data unlike those of the training, or too few photons.
    artefacts : astropy.table.QTable
        Tests of the photons for artefacts, as from `stingray_align.artefacts.find_artefacts`.
    caveats : tuple of str
        What cannot be told from these data.
    warnings : tuple of str
        What the package warned of on the way.
    paragraph : str or None
        A language model's reading of the above, if one was asked, and which one it was; every
        sentence cites, and was checked against, the measurement [0] or the matched texts [1], ...
    paragraph_note : str or None
        Why there is no paragraph although one was asked for.

    Notes
    -----
    ``sentences`` and ``drivers`` are worked out when first asked for, by printing for example.

    References
    ----------
    Vaughan et al. 2003, MNRAS 345, 1271 (excess variance).
    """

    name: str
    measured: Measured
    texts: QTable
    sources: QTable
    classes: QTable
    inferred: QTable
    parameters: QTable
    novelty: float
    novelty_text: str
    artefacts: QTable
    caveats: tuple
    warnings: tuple
    paragraph: str | None
    paragraph_note: str | None
    _embedding: object = field(repr=False)
    _catalogue: object = field(repr=False)
    _vectors: np.ndarray = field(repr=False)  # its own projection, then the posterior's draws
    _matched: tuple = field(repr=False)       # Summary and projection of each of the best texts

    # -- why ----------------------------------------------------------------------------------

    @cached_property
    def sentences(self):
        """Sentences of the three best-matching texts by how much they add to the similarity.

        A `~astropy.table.QTable` with ``text`` (rank), ``part`` and ``change``; see
        `stingray_align.alignment.attribution.sentence_attribution`.
        """
        from .attribution import sentence_attribution

        return sentence_attribution(
            self._catalogue, self._vectors[:1],
            [(rank, text) for rank, (text, _) in enumerate(self._matched, 1)])

    @cached_property
    def drivers(self):
        """Stretches of time and energy by how much they add to the match with the best texts.

        A `~astropy.table.QTable` with ``kind``, ``start`` and ``stop`` (absolute s, or keV),
        ``photons``, ``change`` and ``scatter`` of the similarity, and ``drives``; None where there
        are no texts or no decoder. See `stingray_align.alignment.attribution.drivers`.
        """
        from .attribution import drivers

        if not self._matched or not hasattr(self._embedding, "model"):
            return None
        target = np.mean([vector for _, vector in self._matched], axis=0, dtype=float)
        return drivers(self._catalogue, self._embedding, target / np.linalg.norm(target))

    # -- as a table ---------------------------------------------------------------------------

    def to_table(self):
        """The numbers as one row, so that the tables of many sources can be stacked.

        Returns
        -------
        astropy.table.QTable
        """
        facts = self.measured
        nan = math.nan
        row = {
            "name": self.name, "instrument": facts.instrument, "counts": facts.counts,
            "background_counts": nan if facts.background is None else facts.background,
            "exposure": facts.exposure * u.s, "duration": facts.duration * u.s,
            "rate": facts.rate / u.s, "rate_lower": facts.rate_interval[0] / u.s,
            "rate_upper": facts.rate_interval[1] / u.s,
            "hardness": facts.hardness, "hardness_lower": facts.hardness_interval[0],
            "hardness_upper": facts.hardness_interval[1],
            "excess_variance": facts.excess_variance,
            "excess_variance_error": facts.excess_variance_error,
        }
        for i in range(3):
            known = i < len(self.classes)
            row[f"class_{i + 1}"] = self.classes["class"][i] if known else ""
            row[f"probability_{i + 1}"] = self.classes["probability"][i] if known else nan
        for entry in self.inferred:
            row |= _columns(f"inferred_{entry['parameter']}", entry, entry["unit"] or None)
        given = {entry["parameter"]: entry for entry in self.parameters}
        for key in PARAMETERS:
            if key in self._catalogue.table.colnames:
                row |= _columns(f"neighbours_{key}", given.get(key),
                                self._catalogue.table[key].unit)
        row["novelty_p"] = self.novelty
        row["artefacts"] = ", ".join(self.artefacts["test"][self.artefacts["found"]])
        row["caveats"] = " ".join(self.caveats)
        row["warnings"] = " ".join(self.warnings)
        return QTable([row])

    # -- as text ------------------------------------------------------------------------------

    def _sections(self):
        """(title, lines) of the report; a line is a string or a (label, text) pair."""
        facts = self.measured
        yield "Source and exposure", [
            ("observation", self.name),
            ("instrument", facts.instrument or "not one the model was trained on"),
            ("exposure", f"{_seconds(facts.exposure)} in a window of {_seconds(facts.duration)}"),
        ]
        counts = f"{facts.counts} photons in 0.5-8 keV"
        if facts.background is None:
            counts += "; the background among them is not known"
        else:
            counts += f", of which {facts.background:.1f} are expected from the background"
        lines = [("counts", counts),
                 ("rate", f"{_value(facts.rate, facts.rate_interval, '{:.3g}')} ct/s")]
        if math.isfinite(facts.hardness):
            lines.append(("hardness", _value(facts.hardness, facts.hardness_interval, "{:+.2f}")
                          + "  (H - S)/(H + S), 2-7 against 0.5-2 keV"))
        else:
            lines.append(("hardness", "no photons to measure it"))
        if facts.n_bins:
            sigma = facts.excess_variance / facts.excess_variance_error
            lines.append(("variability", f"excess variance {facts.excess_variance:.3f} +/- "
                          f"{facts.excess_variance_error:.3f} ({sigma:.1f} sigma, "
                          f"{facts.n_bins} bins)"))
        else:
            lines.append(("variability", "too few photons or exposed bins to measure it"))
        yield "Measured from the photons (68 % intervals)", lines
        yield "Inferred from the photons (68 % intervals)", list(self._inferred_lines())
        yield "Best-matching summaries", [
            (f"{row['rank']}  {row['similarity']:.2f}", _label(row) + row["text"])
            for row in self.texts] or ["the catalogue holds no texts"]
        if lines := list(self._sentence_lines()):
            yield "Sentences that carry the match", lines
        if lines := self._driver_lines():
            yield "Photons that carry the match", lines
        yield "Nearest sources", [
            (f"{row['rank']}  {row['similarity']:.2f}", _source_line(row)) for row in self.sources]
        yield "Class probabilities", [
            (f"{row['probability']:.2f}", f"{row['class']}") for row in self.classes[:6]
        ] or ["the catalogue knows no classes"]
        lines = [_parameter_line(row, row["share"]) for row in self.parameters]
        yield "Parameters of its neighbours (68 % intervals)", lines or ["none in the catalogue"]
        yield "Novelty", [self.novelty_text]
        yield "Artefacts of the instrument", [
            (row["test"], row["note"] if not math.isfinite(row["p_value"]) else
             f"p = {row['p_value']:.2g}: {row['note']}") for row in self.artefacts]
        yield "What cannot be told", [("-", caveat) for caveat in self.caveats]
        if self.warnings:
            yield "Warnings", [("-", warning) for warning in self.warnings]
        if self.paragraph or self.paragraph_note:
            yield "In words", [self.paragraph or self.paragraph_note]

    def _inferred_lines(self):
        """Parameters that hardly any neighbour has are left out."""
        shares = {row["parameter"]: row["share"] for row in self.parameters}
        for row in self.inferred:
            if (name := row["parameter"]) in shares or name not in self._catalogue.table.colnames:
                yield _parameter_line(row, shares.get(name, 1.0))

    def _sentence_lines(self):
        for rank in range(1, len(self._matched) + 1):
            own = self.sentences[self.sentences["text"] == rank]
            # What supports the match most, and what speaks against it most.
            shown = [row for row in own[:2] if row["change"] > 0.005]
            shown += [row for row in own[2:][-1:] if row["change"] < -0.005]
            for row in shown:
                yield f"[{rank}]  {row['change']:+.2f}", row["part"]

    def _driver_lines(self):
        from .attribution import strongest

        table = self.drivers
        if table is None or not len(table):
            return []
        lines = []
        for kind, form in (("time", "{:.10g} to {:.10g} s"), ("energy", "{:.2f} to {:.2f} keV")):
            own = strongest(table, kind)
            lines += [(f"{row['change']:+.2f}", form.format(row["start"], row["stop"])
                       + f", {row['photons']} photons (as many at random: scatter of "
                       f"{row['scatter']:.2f})") for row in own]
            if not len(own):
                lines.append(("-", "no interval of time alone" if kind == "time" else
                              "no range of energies alone"))
        return lines

    def __str__(self):
        out = [f"Interpretation of {self.name}", "=" * min(_WIDTH, 18 + len(self.name))]
        for title, lines in self._sections():
            out += ["", title, "-" * len(title)]
            width = max((len(line[0]) for line in lines if isinstance(line, tuple)), default=0)
            for line in lines:
                label, text = line if isinstance(line, tuple) else ("", line)
                lead = f"{label:<{width}}  " if label else ""
                out += textwrap.wrap(text, _WIDTH, initial_indent=lead,
                                     subsequent_indent=" " * len(lead)) or [lead]
        return "\n".join(out)

    def _repr_html_(self):
        parts = [f"<h3>Interpretation of {html.escape(self.name)}</h3>"]
        for title, lines in self._sections():
            parts.append(f"<h4>{html.escape(title)}</h4><table>")
            for line in lines:
                label, text = line if isinstance(line, tuple) else ("", line)
                parts.append(f'<tr><th style="text-align:left">{html.escape(label)}</th>'
                             f'<td style="text-align:left">{html.escape(text)}</td></tr>')
            parts.append("</table>")
        return "\n".join(parts)

    # -- as a figure --------------------------------------------------------------------------

    def plot(self):
        """One page: light curve, spectrum, and the place among the catalogue's sources.

        Returns
        -------
        matplotlib.figure.Figure
            Made through pyplot; close it (``pyplot.close(figure)``) when making many.
        """
        from ._figure import draw

        return draw(self, self._embedding, self._catalogue, self._vectors)


def interpret(catalogue, what, *, k, llm, name):
    """Do the work of `AlignedCatalog.interpret`."""
    from stingray import EventList

    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        embedding = catalogue.embedding(what)
    ours = [w for w in caught if issubclass(w.category, (DomainShiftWarning, EventDataWarning))]
    for other in caught:
        if other not in ours:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    measured = measure(embedding.photons)
    names = embedding.feature_names
    own = catalogue.aligner.transform_events(np.asarray(embedding.vector)[None],
                                             feature_names=names)
    draws = catalogue.aligner.transform_events(embedding.draws(_N_DRAWS, seed=0),
                                               feature_names=names)
    probability = catalogue.class_probabilities(draws)
    order = np.argsort(-probability, kind="stable")
    classes = QTable({"class": np.array(catalogue.classes, dtype=str)[order],
                      "probability": probability[order]})
    weights = catalogue.neighbour_weights(draws)
    p_value, _, n_peers = catalogue.novelty(draws[:_NOVELTY_DRAWS], measured.counts)
    texts, matched = catalogue._nearest(own, k, "texts"), []
    if len(catalogue.texts):
        _, rows = top_k(own, catalogue.text_vectors, min(k, _ATTRIBUTED))
        matched = [(catalogue.texts[i], catalogue.text_vectors[i]) for i in rows[0]]
    # An event list tells more than what is left of it in an embedding.
    artefacts = find_artefacts(what if isinstance(what, EventList) else embedding)
    messages = tuple(dict.fromkeys(str(w.message) for w in ours))
    reading = dict(
        name="this observation" if name is None else str(name), measured=measured,
        texts=texts, sources=catalogue._nearest(own, k, "sources"),
        classes=classes, inferred=embedding.parameters(),
        parameters=read_parameters(catalogue, weights, measured.counts), novelty=p_value,
        novelty_text=_novelty_text(p_value, n_peers, measured, messages, artefacts),
        artefacts=artefacts, _matched=tuple(matched),
        caveats=tuple(_caveats(measured, catalogue)), warnings=messages,
        _embedding=embedding, _catalogue=catalogue, _vectors=np.concatenate([own, draws]),
    )
    paragraph, note = None, None
    if llm is not None:
        from .grounded import grounded_paragraph

        try:
            paragraph, note = grounded_paragraph(llm, _facts_in_words(measured),
                                                 list(texts["text"]))
        except Exception as error:  # whatever a backend may raise: the rest does not need it
            note = f"There is no paragraph, since the language model failed: {error}"
    return Interpretation(paragraph=paragraph, paragraph_note=note, **reading)


def read_parameters(catalogue, weights, counts):
    """Median and calibrated 68 % interval of each parameter over weighted sources.

    Parameters
    ----------
    catalogue : AlignedCatalog
    weights : ndarray, shape (n,)
        As from `AlignedCatalog.neighbour_weights`.
    counts : float
        Photons of the source that is read.
    """
    rows, factors = [], catalogue.held_out["stretch"]
    for name in PARAMETERS:
        if name not in catalogue.table.colnames:
            continue
        found = percentiles(catalogue.table, name, weights)
        if found is None:
            continue
        low, middle, high = stretched(name, found[0], stretch_of(name, counts, factors))
        rows.append((name, middle, low, high, _unit_text(catalogue.table[name].unit), found[1]))
    return QTable(rows=rows or None,
                  names=("parameter", "value", "lower", "upper", "unit", "share"),
                  dtype=(str, float, float, float, str, float))


def _novelty_text(p_value, n_peers, measured, messages, artefacts):
    text = (f"p = {p_value:.3f}: that share of {n_peers} known sources with similar photon counts "
            "is as far from all others or further.")
    found = list(artefacts["test"][artefacts["found"]])
    if p_value >= _RARE:
        return text + " Nothing unusual" + (
            f", but see the artefacts: {', '.join(found)}." if found else ".")
    if measured.counts < 20:
        return text + (" Unlike its peers, but with so few photons this is no evidence of rare "
                       "physics.")
    if found:
        return text + (f" Unlike the catalogue, likely through an artefact of the instrument: "
                       f"{', '.join(found)} (below). Clean the data before believing the class.")
    if messages or not measured.instrument:
        return text + (" Unlike the catalogue, but the data differ from what the model was trained "
                       "on (see the warnings), which is the likelier reason.")
    return text + (" Unlike the catalogue, and no artefact of the instrument was found in the "
                   "photons: rare physics, a blend of sources, or an artefact for which there is "
                   "no test. Look at the image before believing the class.")


def _caveats(measured, catalogue):
    counts = measured.counts
    if counts == 0:
        yield ("There are no photons: only an upper limit on the rate holds; everything else "
               "repeats the catalogue at large.")
    elif counts < 5:
        yield (f"{counts} photon(s) fix the rate within a factor of a few and nothing else: class, "
               "spectrum and variability are the catalogue's average.")
    elif counts < 20:
        yield (f"{counts} photons tell soft from hard, but not absorption from a flat spectrum, "
               "and show only the most violent variability.")
    elif counts < 100:
        yield (f"With {counts} photons column density and slope (or temperature) cannot be "
               "separated, and emission lines do not show.")
    elif counts > 100_000:
        yield (f"{counts} photons are more than the model was trained on; it cannot use all they "
               "hold. Fit the spectrum itself.")
    if math.isfinite(measured.detectable_rms):
        yield (f"Variability below a fractional rms of about {measured.detectable_rms:.2f} on "
               f"scales of {_seconds(measured.exposure / 64)} and more would not have shown.")
    elif 0 < counts:
        yield (f"Below {FEWEST_FOR_VARIABILITY} photons in four exposed bins no excess variance is "
               "measured; a steady source and a variable one look alike.")
    yield (f"No period below {_seconds(measured.duration / 1600)} (1600 cycles per window) is "
           "seen: faster pulsations need a periodogram of the events.")
    if measured.background is None:
        yield ("The background is not known, so a faint source may in part be background; give an "
               "annulus to measure it.")
    elif counts and measured.background > 0.3 * counts:
        yield (f"About {100 * min(1, measured.background / counts):.0f} % of the photons are "
               "background; rate and hardness above include it.")
    if not measured.instrument:
        yield ("Fluxes, hardness and spectral parameters assume an instrument like those of the "
               "catalogue and are not to be trusted for this one.")
    kinds = {text.provenance.get("kind") for text in catalogue.texts}
    simulated = kinds == {"simulated"}
    yield ("Class probabilities refer to the catalogue"
           + (" of simulated archetypes" if simulated else "")
           + ", with its shares of classes, and not to how common such sources are on the sky"
           + (". Names and summaries of archetypes belong to no real object." if simulated
              else "."))


def _facts_in_words(measured):
    """What the language model may cite as [0]."""
    text = (f"{measured.counts} photons were seen with {measured.instrument or 'an instrument'} in "
            f"{_seconds(measured.exposure)}.")
    if math.isfinite(measured.hardness):
        text += f" The hardness ratio is {measured.hardness:.2f}."
    if measured.n_bins:
        text += (f" The excess variance is {measured.excess_variance:.3f} +/- "
                 f"{measured.excess_variance_error:.3f}.")
    return text


def _number(value, form):
    """As people write it: 4200 where the format gives 4.2e+03."""
    text = form.format(value)
    return significant(float(text)) if "e+" in text else text


def _value(value, interval, form):
    low, high = (_number(limit, form) for limit in interval)
    return f"{_number(value, form)} ({low} to {high})"


def _columns(name, entry, unit):
    """Value and interval of a parameter as columns of a table; nan where there is no entry."""
    out = {}
    for suffix, column in (("", "value"), ("_lower", "lower"), ("_upper", "upper")):
        value = math.nan if entry is None else entry[column]
        out[name + suffix] = value if unit is None else value * u.Unit(unit)
    return out


def _unit_text(unit):
    return "" if unit is None else unit.to_string(fraction=False).replace("1e+", "1e")


def _seconds(value):
    return f"{significant(value / 1000)} ks" if value >= 1000 else f"{significant(value)} s"


def _label(row):
    return f"[{row['class']}] " if "class" in row.colnames else ""


def _source_line(row):
    parts = [str(row[name]) for name in ("name", "class") if name in row.colnames]
    counts = getattr(row["counts"], "value", row["counts"])
    return ", ".join([*parts, f"{counts:.0f} photons"])


def _parameter_line(row, share):
    label, form = PARAMETERS[row["parameter"]]
    text = _value(row["value"], (row["lower"], row["upper"]), form)
    if row["unit"]:
        text += f" {row['unit']}"
    if share < 0.95:
        text += f"  [where it applies: {100 * share:.0f} % of the neighbours]"
    return label, text
