"""Has a source changed between two observations?

Four questions are asked of the photons, each with a p-value that is uniform (or, where counts are
few, larger than uniform) if the source has not changed and was seen through one instrument; through
two, whose areas are known approximately, p-values are somewhat too small:

- *brightness*: a binomial test of the photon numbers, given exposures, effective areas and known
  backgrounds (Przyborowski & Wilenski 1940);
- *spectrum*: given how many photons each observation has and which energies occur in the two
  together, does the observation that a photon belongs to depend on its energy? A score test of a
  logistic regression on three smooth functions of the energy (after Neyman 1937), with its
  distribution simulated; brightness does not enter;
- *variability*: the difference of the excess variances (Vaughan et al. 2003) against simulations
  in which both observations vary equally much;
- *form*: the distance of the two embeddings in units of their posteriors' width, against
  simulations of both from one decoded rate.

The four p-values are corrected for their number by the method of Holm (1979), which holds however
they depend on each other.

References
----------
Holm 1979, Scand. J. Statist. 6, 65; Neyman 1937, Skand. Aktuarietidskr. 20, 149; Przyborowski &
Wilenski 1940, Biometrika 31, 313; Vaughan et al. 2003, MNRAS 345, 1271.
"""

import html
import math
import re
import textwrap
from dataclasses import dataclass, field

import numpy as np
from astropy.table import QTable

from .._source_counts import source_counts
from ..photons import CHANNEL_EDGES, N_CHANNELS, N_TIME_BINS
from ._facts import measure

__all__ = ["Comparison", "compare", "find_changes"]

#: Relative error allowed for the ratio of two approximate effective areas.
AREA_ERROR = 0.1
_N_DRAWS = 20_000  # of the simulated distributions of brightness, spectrum and variability
_N_EMBEDDED = 400  # simulated pairs that are embedded
_FEWEST = 5        # photons of each observation below which only brightness can be compared
_TESTS = ("brightness", "spectrum", "variability", "form")
_CENTRES = np.sqrt(CHANNEL_EDGES[:-1] * CHANNEL_EDGES[1:])
# A test gives its p-value, whether that is at the limit of the simulations, and what to say if
# there is a change, and if there is none.
_UNTESTED = (math.nan, False, "", "too few photons to compare it")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed between two observations; made by `compare`, ``print`` shows the report.

    Attributes
    ----------
    names : tuple of str
        What the two observations are called.
    measured : tuple of Measured
        Counts, rates, hardness and variability of each.
    tests : astropy.table.QTable
        ``test``, ``p_value``, ``corrected`` (Holm), ``sigma`` (two-sided Gaussian equivalent of
        the corrected p-value), ``limit`` (True where the p-value is no smaller only because the
        simulations end: sigma is then a lower limit), ``changed`` and ``result`` in words.
        p-values are nan where a question cannot be asked.
    ratio, ratio_interval : float, (float, float)
        Second over first source count rate, in equal effective areas, with its 68 % interval;
        with no photons in one observation an end of the interval is 0 or infinite.
    ratio_limits : (float, float)
        95 % upper and lower limits of the ratio: (lower, upper), each one-sided.
    level : float
        Corrected p-value below which a change is stated.

    References
    ----------
    See `stingray_align.alignment.comparison`.
    """

    names: tuple
    measured: tuple
    tests: QTable
    ratio: float
    ratio_interval: tuple
    ratio_limits: tuple
    level: float
    caveats: tuple
    _embeddings: tuple = field(repr=False)

    @property
    def text(self):
        """The significant changes in one or two sentences."""
        row = {r["test"]: r for r in self.tests}
        changed = [name for name in _TESTS if row[name]["changed"]]
        tested = [name for name in _TESTS if math.isfinite(row[name]["p_value"])]
        if not changed:
            text = f"No change is significant at a level of {self.level:g}"
        else:
            parts = [_with_note(str(row[name]["result"]), _sigma(row[name])) for name in changed]
            text = _join(parts)
            text = text[0].upper() + text[1:]
            same = [_SAME[name] for name in tested if name not in changed]
            if same:
                text += f"; {_join(same, 'or')}, no change is significant"
        missing = [name for name in _TESTS if name not in tested]
        return text + ("." if not missing else
                       f". Too few photons to compare the {_join(missing, 'or the')}.")

    def to_table(self):
        """The numbers as one row, so that the tables of many pairs can be stacked.

        Returns
        -------
        astropy.table.QTable
        """
        from astropy import units as u

        row = {}
        for number, (name, facts) in enumerate(zip(self.names, self.measured), 1):
            row |= {f"name_{number}": name, f"instrument_{number}": facts.instrument,
                    f"counts_{number}": facts.counts, f"exposure_{number}": facts.exposure * u.s,
                    f"hardness_{number}": facts.hardness,
                    f"excess_variance_{number}": facts.excess_variance}
        row |= {"ratio": self.ratio, "ratio_lower": self.ratio_interval[0],
                "ratio_upper": self.ratio_interval[1]}
        for test in self.tests:
            for column in ("p_value", "corrected", "sigma"):
                row[f"{test['test']}_{column}"] = test[column]
        return QTable([row | {"summary": self.text}])

    def _sections(self):
        yield "Observations", [
            (name, f"{facts.counts} photons in {facts.exposure:.4g} s of "
             f"{facts.instrument or 'unknown instrument'}; {facts.rate:.3g} "
             f"({facts.rate_interval[0]:.2g} to {facts.rate_interval[1]:.2g}) ct/s, "
             + (f"hardness {facts.hardness:+.2f} ({facts.hardness_interval[0]:+.2f} to "
                f"{facts.hardness_interval[1]:+.2f})" if facts.counts else "no hardness"))
            for name, facts in zip(self.names, self.measured)]
        yield "What changed", [("", self.text)]
        yield f"Tests (p-values corrected by the method of Holm, level {self.level:g})", [
            (row["test"], row["result"] if not math.isfinite(row["p_value"]) else
             f"p = {_p(row)}, corrected {row['corrected']:.2g} ({_sigma(row)}): {row['result']}")
            for row in self.tests]
        if self.caveats:
            yield "What cannot be told", [("-", text) for text in self.caveats]

    def __str__(self):
        out = [f"{self.names[1]} compared with {self.names[0]}"]
        out.append("=" * len(out[0]))
        for title, lines in self._sections():
            out += ["", title, "-" * len(title)]
            width = max(len(label) for label, _ in lines)
            for label, text in lines:
                lead = f"{label:<{width}}  " if width else ""
                out += textwrap.wrap(text, 96, initial_indent=lead,
                                     subsequent_indent=" " * len(lead))
        return "\n".join(out)

    def _repr_html_(self):
        parts = [f"<h3>{html.escape(self.names[1])} compared with "
                 f"{html.escape(self.names[0])}</h3>"]
        for title, lines in self._sections():
            rows = "".join(
                f'<tr><th style="text-align:left">{html.escape(label)}</th>'
                f'<td style="text-align:left">{html.escape(text)}</td></tr>'
                for label, text in lines)
            parts.append(f"<h4>{html.escape(title)}</h4><table>{rows}</table>")
        return "\n".join(parts)

    def plot(self):
        """Light curves, spectra and their ratio, and the significance of each change.

        Returns
        -------
        matplotlib.figure.Figure
            Made through pyplot; close it (``pyplot.close(figure)``) when making many.
        """
        from ._comparison_figure import draw

        return draw(self, self._embeddings)


_SAME = {"brightness": "in brightness", "spectrum": "in the spectrum",
         "variability": "in the amount of variability", "form": "in the overall form"}


def compare(first, second, *, level=0.01, names=("first", "second"), model=None, seed=0):
    """Has this source changed between two observations, how surely, and in which words?

    Parameters
    ----------
    first, second : stingray.EventList or Embedding
        The two observations of one source, through any instruments.
    level : float, optional
        Corrected p-value below which a change is stated.
    names : (str, str), optional
        What the observations are called.
    model : PoissonAutodecoder, optional
        Embeds event lists; the bundled one by default.
    seed : int, optional
        Of the simulations.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If ``level`` is not between 0 and 1, or there are no two names.
    stingray_align.errors.EventDataError
        If an event list cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> import stingray_align as sa
    >>> rng = np.random.default_rng(1)
    >>> faint, bright = (sa.EventList(np.sort(rng.uniform(0, 2e4, n)), energy=rng.uniform(1, 3, n),
    ...                               gti=[[0, 2e4]], mission="chandra", instr="ACIS-S")
    ...                  for n in (60, 180))
    >>> print(sa.compare(faint, bright).text)
    It became brighter, by a factor of 3.0 (2.6 to 3.5; 7.7 sigma); in the spectrum, ...
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    if len(names) != 2:
        raise ValueError("names must hold one name for each of the two observations")
    from ..autodecoder import embed

    pair = tuple(what if hasattr(what, "vector") else embed(what, model)
                 for what in (first, second))
    sets = [one.photons for one in pair]
    facts = tuple(measure(photons) for photons in sets)
    rng = np.random.default_rng(seed)
    area = np.concatenate([photons.area for photons in sets])
    counts = np.stack([np.bincount(p.channel, minlength=N_CHANNELS) for p in sets])
    equal_camera = (bool(facts[0].instrument) and facts[0].instrument == facts[1].instrument
                    and (pair[0].arf_file is None) == (pair[1].arf_file is None))
    background = _backgrounds(sets, equal_camera)
    contaminated = equal_camera and _contaminated(pair, area)

    exposure = np.array([fact.exposure for fact in facts])
    brightness = _Brightness(counts, background, exposure, area,
                             AREA_ERROR if contaminated or not equal_camera else 0.0)
    results = {"brightness": (brightness.p_value, False, *brightness.words())}
    for name, test in (("spectrum", lambda: _spectrum(counts, background, area * exposure[:, None],
                                                      facts, rng)),
                       ("variability", lambda: _variability(pair, rng)),
                       ("form", lambda: _form(pair, seed))):
        few = min(fact.counts for fact in facts) < _FEWEST
        results[name] = _UNTESTED if few else test()
    corrected = holm([results[name][0] for name in _TESTS])
    tests = QTable({
        "test": list(_TESTS), "p_value": [results[name][0] for name in _TESTS],
        "corrected": corrected, "sigma": [sigma(p) for p in corrected],
        "limit": [results[name][1] for name in _TESTS], "changed": corrected < level,
        "result": [results[name][2 if p < level else 3]
                   for name, p in zip(_TESTS, corrected, strict=True)]})
    for name in ("p_value", "corrected"):
        tests[name].info.format = ".2g"
    tests["sigma"].info.format = ".1f"
    return Comparison(
        names=tuple(map(str, names)), measured=facts, tests=tests, ratio=brightness.ratio,
        ratio_interval=brightness.interval(0.68), ratio_limits=brightness.interval(0.90),
        level=level, caveats=tuple(_caveats(facts, equal_camera, contaminated)),
        _embeddings=pair)


def find_changes(comparisons, query):
    """Find the comparisons that show what a sentence says of a change.

    Each part of the sentence ("the spectrum changed but not the flux") asks for a change, or for
    none, of brightness, spectrum or variability; comparisons are ranked by how well their
    corrected p-values agree with all of it.

    Parameters
    ----------
    comparisons : sequence of Comparison
    query : str
        One sentence.

    Returns
    -------
    astropy.table.QTable
        ``rank``, ``row`` (which of the comparisons), ``score`` (a probability-like number, 1 for
        a perfect match) and ``text`` (what changed); ``meta["understood"]`` says how the sentence
        was read.

    Raises
    ------
    ValueError
        If the sentence speaks of none of the three.

    Examples
    --------
    >>> import numpy as np
    >>> import stingray_align as sa
    >>> from stingray_align.alignment import find_changes
    >>> rng = np.random.default_rng(1)
    >>> first, second = (sa.EventList(np.sort(rng.uniform(0, 2e4, n)), energy=rng.uniform(1, 3, n),
    ...                               gti=[[0, 2e4]], mission="chandra", instr="ACIS-S")
    ...                  for n in (60, 180))
    >>> pairs = [sa.compare(first, first), sa.compare(first, second)]
    >>> found = find_changes(pairs, "it became brighter with the same spectrum")
    >>> int(found["row"][0]), found.meta["understood"]
    (1, 'brightness changed; spectrum did not change')
    """
    wanted = {}
    for clause in _CLAUSES.split(query):
        for test, pattern in _ABOUT.items():
            if pattern.search(clause):
                wanted.setdefault(test, not _UNCHANGED.search(clause))
    if not wanted:
        raise ValueError(f"{query!r} says nothing about brightness, spectrum or variability")
    scores = []
    for comparison in comparisons:
        p = dict(zip(comparison.tests["test"], comparison.tests["corrected"]))
        # What could not be tested may have changed or not: one half.
        chances = [0.5 if math.isnan(p[test]) else 1 - p[test] if change else p[test]
                   for test, change in wanted.items()]
        scores.append(float(np.prod(chances)))
    order = np.argsort(-np.array(scores), kind="stable")
    table = QTable({"rank": np.arange(1, len(order) + 1), "row": order,
                    "score": np.array(scores)[order],
                    "text": [comparisons[i].text for i in order]})
    table["score"].info.format = ".3f"
    table.meta["understood"] = "; ".join(
        f"{test} {'changed' if change else 'did not change'}" for test, change in wanted.items())
    return table


_CLAUSES = re.compile(r"\b(?:but|while|and|with|although|though|whereas)\b|[,;.]")
_UNCHANGED = re.compile(r"\b(?:not?|never|without|constant|unchanged|same|equal|stable)\b|n't\b",
                        re.IGNORECASE)
_ABOUT = {
    "brightness": re.compile(r"flux|bright|luminos|fad(?:e|ing)|faint|dimm|appear|vanish",
                             re.IGNORECASE),
    "spectrum": re.compile(r"spectr|colou?r|hard|soft|absor", re.IGNORECASE),
    "variability": re.compile(
        r"variab|pulsa|pulse|pulsing|heartbeat|flar|eclips|flicker|stead|modulat", re.IGNORECASE),
}


def holm(p_values):
    """p-values corrected for their number (nan: not tested), by the step-down method of Holm.

    Parameters
    ----------
    p_values : array_like, shape (n,)

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> from stingray_align.alignment.comparison import holm
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)) if len(order) else []
    corrected[order] = np.minimum(scaled, 1.0)
    return corrected


def sigma(p_value):
    """Two-sided Gaussian equivalent of a p-value; 0 for p = 1."""
    from scipy.stats import norm

    return float(norm.isf(max(p_value, 1e-300) / 2)) if p_value == p_value else math.nan


# ---- brightness
class _Brightness:
    """Ratio of two source rates in equal areas, from photon numbers and known backgrounds."""

    def __init__(self, counts, background, exposure, area, area_error):
        self.n, self.b = counts.sum(axis=1), background.sum(axis=1)
        # Photons per cm2 of the two together say how the areas weigh; one prior photon, flat.
        together = (counts - background).clip(min=0).sum(axis=0) + 1 / N_CHANNELS
        emitted = together / (area * exposure[:, None]).sum(axis=0)
        self.seen = (area * emitted).sum(axis=1) / (area[0] * emitted).sum() * exposure
        self.error = area_error
        self.p_value = self._p_value()
        source = np.maximum(self.n - self.b, 0)
        first, second = source / self.seen
        self.ratio = second / first if first > 0 else (math.inf if second > 0 else math.nan)

    def _share(self, ratio):
        """Expected share of the first observation if the second is brighter by ``ratio``."""
        seen = np.array([self.seen[0], ratio * self.seen[1]])
        scale = max(self.n.sum() - self.b.sum(), 0.0) / seen.sum()
        expected = scale * seen + self.b
        return expected[0] / expected.sum() if expected.sum() > 0 else seen[0] / seen.sum()

    def _p_value(self):
        from scipy.stats import binomtest

        first, total = int(self.n[0]), int(self.n.sum())
        if total == 0:
            return 1.0
        # Areas are known to a factor: if any ratio allowed explains the numbers, nothing changed.
        shares = sorted(self._share(1 + e) for e in (-self.error, self.error))
        if shares[0] < first / total < shares[1]:
            return 1.0
        return max(binomtest(first, total, share).pvalue for share in shares)

    def interval(self, level):
        """Limits of the ratio under Jeffreys' prior; none on the side of a source not seen."""
        rng = np.random.default_rng(0)
        first, second = (source_counts(int(n), float(b), _N_DRAWS, rng) / seen
                         for n, b, seen in zip(self.n, self.b, self.seen))
        low, high = np.quantile(second / first, [(1 - level) / 2, (1 + level) / 2])
        unseen = self.n <= self.b
        return (0.0 if unseen[1] else low * (1 - self.error),
                math.inf if unseen[0] else high * (1 + self.error))

    def words(self):
        if self.n.sum() == 0:
            return "", "no photons in either observation"
        if math.isnan(self.ratio):
            return ("the backgrounds do not explain how the photons share out, though neither "
                    "observation shows the source",
                    "neither observation shows the source above its background")
        least, most = self.interval(0.90)
        if self.ratio == 0:
            same = f"the second is less than {most:.2g} times as bright as the first (95 % limit)"
            return f"it became fainter, to less than {most:.2g} of what it was (95 % limit)", same
        if not math.isfinite(self.ratio):
            same = f"the second is more than {least:.2g} times as bright as the first (95 % limit)"
            return f"it became brighter, by a factor of more than {least:.2g} (95 % limit)", same
        factor, (low, high) = self.ratio, self.interval(0.68)
        same = f"the second is {factor:.2f} ({low:.2f} to {high:.2f}) times as bright as the first"
        if factor >= 1:
            way = "brighter"
        else:
            way, factor, low, high = ("fainter", 1 / factor, 1 / high,
                                      1 / low if low > 0 else math.inf)
        return f"it became {way}, by a factor of {factor:.1f} ({low:.1f} to {high:.1f})", same


def _background(photons):
    """Counts expected from the background in each channel."""
    from ..autodecoder.batch import CHANNEL_SHARE
    from ..photons import BAND_OF_CHANNEL

    return np.maximum(photons.background[0], 0)[BAND_OF_CHANNEL] * CHANNEL_SHARE


def _backgrounds(sets, equal_camera):
    """Counts expected from the background in each observation and channel, shape (2, 20)."""
    counts = np.stack([_background(photons) for photons in sets])
    known = counts.sum(axis=1) > 0
    if equal_camera and known.sum() == 1:
        # The same camera had, near enough, the same background: better than none in one of them.
        have, lack = (0, 1) if known[0] else (1, 0)
        counts[lack] = counts[have] * float(sets[lack].exposure[0] / sets[have].exposure[0])
    return counts


# ---- spectrum
def _spectrum(counts, background, sensitivity, facts, rng):
    total = counts.sum(axis=0)
    seen = total > 0
    statistic, slope = _score(counts[1][None, seen].astype(float), total[seen],
                              background[:, seen], sensitivity[:, seen], _CENTRES[seen])
    if not math.isfinite(statistic[0]):
        return 1.0, False, "", "all photons are of one energy"
    share = _shares(_fitted_ratio(counts[1][None, seen].sum(axis=1), total[seen],
                                  background[:, seen], sensitivity[:, seen]),
                    total[seen], background[:, seen], sensitivity[:, seen])[0]
    drawn = _drawn_given_total(rng, total[seen], share, int(counts[1].sum()))
    simulated, _ = _score(drawn, total[seen], background[:, seen], sensitivity[:, seen],
                          _CENTRES[seen])
    p_value, limit = _rank(statistic[0], simulated)
    way = "harder" if slope[0] > 0 else "softer"
    old, new = (fact.hardness for fact in facts)
    numbers = f"hardness {old:+.2f} to {new:+.2f}"
    return p_value, limit, f"its spectrum became {way} on the whole ({numbers})", numbers


def _shares(ratio, total, background, sensitivity):
    """Probability that a photon of each channel is of the second observation, (n, channels)."""
    seen = sensitivity[0] + ratio[:, None] * sensitivity[1]
    emitted = np.maximum(total - background.sum(axis=0), 0) / seen
    second = ratio[:, None] * sensitivity[1] * emitted + background[1]
    both = emitted * seen + background.sum(axis=0)
    return second / both


def _fitted_ratio(second, total, background, sensitivity):
    """Flux ratio with which the second observation has as many photons as it has, (n,)."""
    low, high = np.full(len(second), -12.0), np.full(len(second), 12.0)
    for _ in range(40):
        middle = (low + high) / 2
        expected = _shares(np.exp(middle), total, background, sensitivity) @ total
        above = expected > second
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.exp((low + high) / 2)


def _drawn_given_total(rng, total, share, second):
    """Photons of the second observation in each channel, given how many it has altogether.

    Without a background and with equal areas, that is the permutation of the photons.
    """
    odds = share / (1 - share)
    if np.allclose(odds, odds[0]):
        return rng.multivariate_hypergeometric(total, second, size=_N_DRAWS,
                                               method="marginals").astype(float)
    return rng.binomial(total, share, size=(_N_DRAWS, len(total))).astype(float)


def _score(second, total, background, sensitivity, energy):
    """Score statistic of three polynomials of log energy, and the sign of the first."""
    ratio = _fitted_ratio(second.sum(axis=1), total, background, sensitivity)
    share = _shares(ratio, total, background, sensitivity)
    weight = total * share * (1 - share)
    # Where the background rules, a change of the source moves the share less.
    source = np.maximum(total - background.sum(axis=0), 0) / total
    basis = np.polynomial.legendre.legvander(
        np.interp(np.log(energy), np.log(CHANNEL_EDGES[[0, -1]]), (-1, 1)), 3) * source[:, None]
    basis = basis[:, :1 + min(3, np.count_nonzero(total) - 1)]
    information = np.einsum("nc,ci,cj->nij", weight, basis, basis)
    residual = (second - total * share) @ basis
    # The ratio was fitted: what is left of the others is beside the first column.
    first = information[:, :1, 1:] / np.maximum(information[:, :1, :1], 1e-300)
    rest = information[:, 1:, 1:] - information[:, 1:, :1] * first
    score = residual[:, 1:] - residual[:, :1] * first[:, 0]
    if score.shape[1] == 0:
        return np.full(len(second), np.nan), np.zeros(len(second))
    solved = np.linalg.pinv(rest, rcond=1e-9, hermitian=True)
    return np.einsum("ni,nij,nj->n", score, solved, score), score[:, 0]


# ---- variability
def _variability(pair, rng):
    curves = [_curve(one) for one in pair]
    if any(curve is None for curve in curves):
        return _UNTESTED
    found = [_excess(counts[None], exposed)[0] for counts, exposed, _ in curves]
    noise = [_noise(counts.sum(), exposed) for counts, exposed, _ in curves]
    weight = 1 / np.square(noise)
    common = max(0.0, float(np.average(found, weights=weight)))
    drawn = []
    for counts, exposed, relative in curves:
        shape = _scaled(relative, exposed, common)
        expected = counts.sum() * shape * exposed / (shape * exposed).sum()
        drawn.append(_excess(rng.poisson(expected, size=(_N_DRAWS, len(expected))), exposed))
    difference, simulated = found[1] - found[0], drawn[1] - drawn[0]
    centre = np.median(simulated)
    p_value, limit = _rank(abs(difference - centre), np.abs(simulated - centre))
    way = "more" if difference > 0 else "less"
    rms = [math.sqrt(max(x, 0.0)) for x in found]
    numbers = f"fractional rms {rms[0]:.2f} to {rms[1]:.2f}"
    return p_value, limit, f"it became {way} variable ({numbers})", numbers


def _curve(one):
    """Counts, exposed fractions and decoded relative rate in bins of about five photons."""
    photons = one.photons
    n = int(photons.n_photons[0])
    if n < 20:
        return None
    n_bins = int(np.clip(2 ** int(math.log2(n / 5)), 4, 64))
    counts, exposed = (x[0] for x in photons.rebinned(n_bins))
    good = exposed > 0.5
    if good.sum() < 3 or counts[good].sum() < 20:
        return None
    rate = one._rates.sum(axis=1).reshape(n_bins, -1).mean(axis=1)[good]
    return counts[good], exposed[good], rate / np.average(rate, weights=exposed[good])


def _excess(counts, exposed):
    """Normalised excess variance of light curves, shape (n,)."""
    mean = counts.sum(axis=1, keepdims=True) / exposed.sum() * exposed
    square = np.maximum((mean**2).sum(axis=1), 1e-9)
    return (((counts - mean) ** 2).sum(axis=1) - mean.sum(axis=1)) / square


def _noise(n, exposed):
    return math.sqrt(2 * len(exposed)) / n


def _scaled(relative, exposed, variance):
    """A light curve of mean one with another variance; a sine where it is flat."""
    def moments(curve):
        mean = np.average(curve, weights=exposed)
        return curve / mean, math.sqrt(np.average((curve / mean - 1) ** 2, weights=exposed))

    curve, rms = moments(relative)
    if rms < 0.02:
        curve, rms = moments(1 + np.sin(2 * np.pi * np.arange(len(relative)) / len(relative)))
    target = math.sqrt(variance)
    factor = target / rms
    for _ in range(20):  # a rate below zero is cut, which costs variance
        scaled, reached = moments(np.maximum(1 + factor * (curve - 1), 1e-3))
        factor *= target / max(reached, 1e-9) if target else 0.0
    return scaled


def _rank(statistic, simulated):
    """Share of the simulations that are as extreme, and whether it is at its lower limit."""
    above = int((simulated >= statistic * (1 - 1e-9)).sum())
    return (above + 1) / (len(simulated) + 1), above == 0


# ---- form
def _form(pair, seed):
    from ..autodecoder import embed_vectors

    model = pair[0].model
    names = list(pair[0].feature_names)
    # What depends on when in the window something happens, or on the brightness, is no change.
    rows = [i for i, name in enumerate(names)
            if name.startswith(("decoded_spectrum", "decoded_hardness_hard", "estimated_"))
            and "period" not in name and "timescale" not in name]
    width = np.sqrt(sum(np.var(one.draws(64, seed)[:, rows], axis=0) for one in pair)) + 0.02
    best = max(pair, key=lambda one: one.n_photons)
    sets = [_resimulated(best, one, seed + number) for number, one in enumerate(pair)]
    drawn = [embed_vectors(photons, model)[:, rows] for photons in sets]
    distance = np.mean(((pair[1].vector - pair[0].vector)[rows] / width) ** 2)
    simulated = np.mean(((drawn[1] - drawn[0]) / width) ** 2, axis=1)
    p_value, limit = _rank(distance, simulated)
    excess = math.sqrt(distance / np.median(simulated))
    words = f"its embedding moved {excess:.1f} times as far as photon noise moves it"
    return p_value, limit, words, words


def _resimulated(source, one, seed):
    """Photons of one observation if it had the decoded shape of a source, many times."""
    from ..autodecoder.batch import CHANNEL_SHARE
    from ..photons import BAND_OF_CHANNEL

    rng = np.random.default_rng([seed, 7])
    photons = one.photons
    shape = source._rates.reshape(N_TIME_BINS, -1, N_CHANNELS).mean(axis=1)
    own = np.maximum(source.photons.background[0], 0)[BAND_OF_CHANNEL] * CHANNEL_SHARE
    shape = np.maximum(shape - own / source.exposure, 1e-3 * shape)  # the source alone
    shape = shape * photons.area[0] / source.photons.area[0]
    expected = shape * photons.exposed[0][:, None]
    back = _background(photons)
    n = max(float(photons.n_photons[0] - back.sum()), 0.5)
    expected = expected / expected.sum() * n
    expected = (expected + back * (photons.exposed[0] / photons.exposed[0].sum())[:, None]).ravel()
    # Its photon number, like the brightness, is given.
    number = np.full(_N_EMBEDDED, int(photons.n_photons[0]))
    cell = np.searchsorted(np.cumsum(expected), rng.random(number.sum()) * expected.sum())
    time, channel = np.divmod(np.minimum(cell, expected.size - 1), N_CHANNELS)
    owner = np.repeat(np.arange(_N_EMBEDDED), number)
    phase = (time + rng.random(len(time))) / N_TIME_BINS
    order = np.lexsort((phase, owner))
    return photons[np.zeros(_N_EMBEDDED, int)].replace(
        offsets=np.concatenate([[0], np.cumsum(number)]),
        phase=phase[order].astype(np.float32), channel=channel[order].astype(np.uint8))


# ---- words
def _contaminated(pair, area):
    """Whether the contamination of ACIS grew between two observations without response files."""
    return (all(one.photons.instrument[0].startswith("ACIS") and one.arf_file is None
                for one in pair)
            and not np.allclose(*area, rtol=0.02))


def _caveats(facts, equal_camera, contaminated):
    if min(fact.counts for fact in facts) < _FEWEST:
        yield (f"With fewer than {_FEWEST} photons in one observation only the brightness can be "
               "compared.")
    if not equal_camera:
        yield ("The instruments differ or are not known: rates and spectra are compared through "
               f"approximate effective areas, whose ratio may be wrong by {100 * AREA_ERROR:.0f} "
               "%; for the spectrum no such error is allowed for. p-values between instruments are "
               "somewhat too small.")
    if contaminated:
        yield ("The contamination of ACIS grew between the two observations. It is allowed for as "
               "it is near the aim points, within about a fifth of its optical depth; ancillary "
               "response files (arf_file) know it better. What is amiss looks like a change below "
               "1 keV.")
    unknown = [fact.background is None for fact in facts]
    if all(unknown) or any(unknown) and not equal_camera:
        yield "Where no background is given, a change of the background looks like the source's."
    elif any(unknown):
        yield ("The background is given for one observation only; the other's is taken to be the "
               "same.")
    durations = [fact.duration for fact in facts]
    if max(durations) > 2 * min(durations):
        yield ("The windows differ in length: red noise shows more variability in the longer one "
               "without any change of the source.")


def _with_note(text, note):
    """A note in brackets, inside those that are there already."""
    return f"{text[:-1]}; {note})" if text.endswith(")") else f"{text} ({note})"


def _p(row):
    return f"{'<' if row['limit'] else ''}{row['p_value']:.2g}"


def _sigma(row):
    return f"{'more than ' if row['limit'] else ''}{row['sigma']:.1f} sigma"


def _join(words, conjunction="and"):
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
