"""What the shared space says about one source, as a report, a table and a page of figures."""

import html
import math
import textwrap
import warnings
from dataclasses import dataclass, field

import numpy as np
from astropy.table import QTable

from ..errors import DomainShiftWarning, EventDataWarning
from ._facts import FEWEST_FOR_VARIABILITY, Measured, measure

__all__ = ["Interpretation"]

#: Columns read off the neighbours: label and format of the value.
PARAMETERS = {
    "photon_index": ("photon index", "{:.2f}"),
    "kT": ("temperature kT", "{:.2g}"),
    "n_h": ("column density", "{:.2g}"),
    "flux": ("flux, 0.5-7 keV", "{:.1e}"),
    "hardness": ("source hardness", "{:+.2f}"),
    "fractional_variability": ("fractional rms", "{:.2f}"),
    "period": ("period", "{:.2g}"),
    "timescale": ("time scale", "{:.2g}"),
}
_FEWEST_WITH = 0.2  # share of the neighbours' weight that must have a parameter
_N_DRAWS = 64
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
    parameters : astropy.table.QTable
        ``parameter``, ``value``, ``lower``, ``upper`` (68 %), ``unit``, and ``share``: the part
        of the neighbours' weight that has this parameter at all.
    novelty : float
        Share of catalogue sources with similar counts that are at least as far from their
        neighbours (a p-value: small is unusual).
    novelty_text : str
        The same in words.
    caveats : tuple of str
        What cannot be told from these data.
    warnings : tuple of str
        What the package warned of on the way.
    paragraph : str or None
        A language model's reading of the above, if one was asked, and which one it was.

    References
    ----------
    Vaughan et al. 2003, MNRAS 345, 1271 (excess variance).
    """

    name: str
    measured: Measured
    texts: QTable
    sources: QTable
    classes: QTable
    parameters: QTable
    novelty: float
    novelty_text: str
    caveats: tuple
    warnings: tuple
    paragraph: str | None
    _embedding: object = field(repr=False)
    _catalogue: object = field(repr=False)
    _vectors: np.ndarray = field(repr=False)  # its own projection, then the posterior's draws

    # -- as a table ---------------------------------------------------------------------------

    def to_table(self):
        """The numbers as one row, so that the tables of many sources can be stacked.

        Returns
        -------
        astropy.table.QTable
        """
        from astropy import units as u

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
        given = {entry["parameter"]: entry for entry in self.parameters}
        for key in PARAMETERS:
            if key in self._catalogue.table.colnames:
                unit = self._catalogue.table[key].unit
                for suffix, column in (("", "value"), ("_lower", "lower"), ("_upper", "upper")):
                    value = given[key][column] if key in given else nan
                    row[f"neighbours_{key}{suffix}"] = value if unit is None else value * unit
        row["novelty_p"] = self.novelty
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
            lines.append(("variability", "too few photons to measure it"))
        yield "Measured from the photons (68 % intervals)", lines
        yield "Best-matching summaries", [
            (f"{row['rank']}  {row['similarity']:.2f}", _label(row) + row["text"])
            for row in self.texts] or ["the catalogue holds no texts"]
        yield "Nearest sources", [
            (f"{row['rank']}  {row['similarity']:.2f}", _source_line(row)) for row in self.sources]
        yield "Class probabilities", [
            (f"{row['probability']:.2f}", f"{row['class']}") for row in self.classes[:6]
        ] or ["the catalogue knows no classes"]
        lines = [(PARAMETERS[row["parameter"]][0], _parameter_line(row))
                 for row in self.parameters]
        yield "Parameters of its neighbours (68 % intervals)", lines or ["none in the catalogue"]
        yield "Novelty", [self.novelty_text]
        yield "What cannot be told", [("-", caveat) for caveat in self.caveats]
        if self.warnings:
            yield "Warnings", [("-", warning) for warning in self.warnings]
        if self.paragraph:
            yield "In words", [self.paragraph]

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
    p_value, distance, n_peers = catalogue.novelty(own, measured.counts)
    messages = tuple(dict.fromkeys(str(w.message) for w in ours))
    reading = dict(
        name="this observation" if name is None else str(name), measured=measured,
        texts=catalogue._nearest(own, k, "texts"), sources=catalogue._nearest(own, k, "sources"),
        classes=classes, parameters=read_parameters(catalogue.table, weights), novelty=p_value,
        novelty_text=_novelty_text(p_value, n_peers, measured, messages),
        caveats=tuple(_caveats(measured, catalogue)), warnings=messages,
        _embedding=embedding, _catalogue=catalogue, _vectors=np.concatenate([own, draws]),
    )
    paragraph = None if llm is None else _paragraph(llm, measured, reading["texts"])
    return Interpretation(paragraph=paragraph, **reading)


def read_parameters(table, weights):
    """Median and 68 % interval of each parameter over weighted rows of a catalogue's table."""
    rows = []
    for name in PARAMETERS:
        if name not in table.colnames:
            continue
        column = table[name]
        values = np.ma.filled(np.ma.asarray(getattr(column, "value", column), dtype=float), np.nan)
        known = np.isfinite(values) & (weights > 0)
        share = float(weights[known].sum())
        if share < _FEWEST_WITH:
            continue
        low, middle, high = _weighted_quantiles(values[known], weights[known], (0.16, 0.5, 0.84))
        rows.append((name, middle, low, high, _unit_text(column.unit), share))
    return QTable(rows=rows or None,
                  names=("parameter", "value", "lower", "upper", "unit", "share"),
                  dtype=(str, float, float, float, str, float))


def _weighted_quantiles(values, weights, levels):
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    position = (np.cumsum(weights) - 0.5 * weights) / weights.sum()
    return [float(x) for x in np.interp(levels, position, values)]


def _novelty_text(p_value, n_peers, measured, messages):
    text = (f"p = {p_value:.3f}: that share of {n_peers} catalogue sources with similar photon "
            "counts lies as far from its neighbours or further.")
    if p_value >= _RARE:
        return text + " Nothing unusual."
    if measured.counts < 20:
        return text + (" Unlike its peers, but with so few photons this is no evidence of rare "
                       "physics.")
    if messages or not measured.instrument:
        return text + (" Unlike the catalogue, but the data differ from what the model was trained "
                       "on (see the warnings), which is the likelier reason.")
    return text + (" Unlike the catalogue: rare physics, a blend of sources or an instrument "
                   "artefact. Look at the photons (position, pile-up, background flares) before "
                   "believing the class.")


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
               f"scales of {_seconds(measured.duration / 64)} and more would not have shown.")
    elif 0 < counts:
        yield (f"Below {FEWEST_FOR_VARIABILITY} photons in well exposed bins no excess variance "
               "is measured; a steady source and a variable one look alike.")
    yield (f"Nothing faster than {_seconds(measured.duration / 512)} (512 bins of the window) is "
           "seen: pulsations need a periodogram of the events.")
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


def _paragraph(llm, measured, texts):
    from ..text.writers import write_summary

    facts = {"instrument": measured.instrument or None, "exposure": measured.exposure,
             "duration": measured.duration, "counts": measured.counts,
             "hardness": measured.hardness}
    # The matched summaries stand where a source's literature would: the writer may use nothing
    # else, and is told that they describe look-alikes.
    papers = [{"bibcode": f"match-{row['rank']}",
               "title": f"A similar source (similarity {row['similarity']:.2f}), not this one",
               "abstract": row["text"]} for row in texts]
    summary = write_summary(facts, abstracts=papers, backend=llm)
    writer = summary.provenance.get("model") or summary.provenance.get("kind")
    return f"{summary.text} [written by {writer}]"


def _value(value, interval, form):
    return f"{form.format(value)} ({form.format(interval[0])} to {form.format(interval[1])})"


def _unit_text(unit):
    return "" if unit is None else unit.to_string(fraction=False).replace("1e+", "1e")


def _seconds(value):
    return f"{value / 1000:.3g} ks" if value >= 1000 else f"{value:.3g} s"


def _label(row):
    return f"[{row['class']}] " if "class" in row.colnames else ""


def _source_line(row):
    parts = [str(row[name]) for name in ("name", "class") if name in row.colnames]
    counts = getattr(row["counts"], "value", row["counts"])
    return ", ".join([*parts, f"{counts:.0f} photons"])


def _parameter_line(row):
    form = PARAMETERS[row["parameter"]][1]
    text = _value(row["value"], (row["lower"], row["upper"]), form)
    if row["unit"]:
        text += f" {row['unit']}"
    if row["share"] < 0.95:
        text += f"  [where it applies: {100 * row['share']:.0f} % of the neighbours]"
    return text
