"""The measurements behind ``stingray-align benchmark``: populations in, printed results out.

Everything is measured on sources simulated here, from a seed that neither the autodecoder nor the
aligner has seen, with the functions of `stingray_align.evaluate`. Each function returns results by
name; the first is the one to quote. `real` and `thinning` measure what can be measured without a
truth, on event files.
"""

import re
import time
import warnings

import numpy as np
from astropy.table import QTable
from tqdm.auto import tqdm

import stingray_align as sa

from .errors import DomainShiftWarning, EventDataWarning
from .evaluate._report import Report
from .photons import Photons

__all__ = ["DESCRIPTIONS", "FIGURES", "ON_CATALOGUE", "ON_SENTENCES", "ON_SIMULATED", "Options",
           "RealSources", "real", "thinning", "thinning_figures"]

_TARGETS = {  # of the truth table, and whether the logarithm is meant
    "hardness": False, "photon_index": False, "n_h": True, "kT": True, "flux": True,
    "count_rate": True, "fractional_variability": True, "period": True, "timescale": True,
}


def reconstruction(model, catalogue, options):
    """Fraction of the oracle gain, beside the rivals."""
    models = {"autodecoder": model, "first pass": model.first_pass_rates}
    return {"reconstruction": sa.evaluate.reconstruction(
        models, options.population("bright"), rivals=options.rivals)}


def calibration(model, catalogue, options):
    """Coverage and sharpness of the posteriors of rates, spectrum, and parameters."""
    population = options.population("csc")
    results = dict(sa.evaluate.autodecoder_calibration(population, model))
    results["double thinning, simulated"] = sa.evaluate.double_thinning(
        {"autodecoder": model}, population.photons, n_splits=2, n_draws=60)
    if options.real is not None:
        results["double thinning, real"] = sa.evaluate.double_thinning(
            {"autodecoder": model, "Cox process": _drawn_by_cox}, options.real.photons, n_groups=3)
    return results


def _drawn_by_cox(photons, n_draws, seed):
    drawn = sa.evaluate.rivals.log_gaussian_cox.drawn_band_rates(photons, n_draws, seed)
    return np.stack([np.asarray(draws).sum(axis=2) for draws in drawn])


def _calibration_figures(results):
    tested = {name: r for name, r in results.items() if hasattr(r, "coverage")}
    parameters = {name: r for name, r in tested.items() if "population" in r.rivals}
    others = {name: r for name, r in tested.items() if name not in parameters}
    figures = {"coverage": sa.evaluate.plot_coverage(others),
               "coverage-by-kind": sa.evaluate.plot_coverage(others, by="label"),
               "sharpness": sa.evaluate.plot_sharpness(others)}
    if parameters:
        figures["coverage-of-parameters"] = sa.evaluate.plot_coverage(parameters)
    return figures


def retrieval(model, catalogue, options):
    """Rank of the true partner, beside the measured ceiling and simpler methods."""
    from .alignment.training import training_pairs
    from .text import TextEncoder, text_vectors

    encoder = TextEncoder()
    # All methods but the first learn from the same pairs; the catalogue's aligner saw more.
    events, texts, groups, truth = training_pairs(
        options.n_pairs, model=model, encoder=encoder, work=options.work)
    methods = _retrieval_methods(model, catalogue.aligner, events, texts, groups, truth)
    reports = {}
    for counts in (options.counts,) if options.counts else ("csc", "bright"):
        kinds = {}
        for wording, label in (("training", "familiar"), ("held-out", "held-out")):
            population = options.population(counts, wording=wording)
            vectors = text_vectors(population.summaries, encoder)
            bare = vectors.copy()
            bare[:, encoder.dim:] = 0
            own = {"events": _event_vectors(population, model),
                   "truth": population.truth}
            for kind, words in (("with slots", vectors), ("prose alone", bare)):
                title = f"{label}, {kind}"
                kinds[title] = sa.evaluate.RetrievalComparison(title, {
                    name: sa.evaluate.retrieval(
                        *project(own, words), labels=population.truth["class"],
                        counts=_counts(population))
                    for name, project in methods.items()})
        shown = "as in the Chandra Source Catalog" if counts == "csc" else "log-uniform, 20 to 3000"
        reports[f"photons {shown}"] = sa.evaluate.RetrievalReport(
            f"Retrieval among {options.n_sources} held-out sources by the catalogue's aligner, and "
            f"by methods trained on {options.n_pairs} sources",
            kinds, ceiling="ceiling", beside="catalogue features", equal="aligner, same pairs")
    return reports


def _retrieval_methods(model, aligner, events, texts, groups, truth):
    """Name to a function of a test set's vectors and texts that brings both into one space."""
    def features(vectors):
        return _feature_sets(vectors, model)["catalogue features"]

    def physics(known):
        return sa.evaluate.truth_vectors(known, with_class=False)

    def projected(by, vectors_of):
        return lambda tested, words: (by.transform_events(vectors_of(tested)),
                                      by.transform_texts(words))

    def trained_on(vectors, vectors_of):
        own = sa.Aligner(**aligner.get_params() | {"progress": True}).fit(vectors, texts, groups)
        return projected(own, vectors_of)

    def whole(own):
        return own["events"]

    methods = {
        "aligner": projected(aligner, whole),
        "aligner, same pairs": trained_on(events, whole),
        "catalogue features": trained_on(features(events), lambda own: features(own["events"])),
        "ceiling": trained_on(sa.evaluate.truth_vectors(truth)[groups],
                              lambda own: sa.evaluate.truth_vectors(own["truth"])),
        "true parameters without class": trained_on(physics(truth)[groups],
                                                    lambda own: physics(own["truth"]))}
    first = slice(0, len(truth))  # one row of each source: all photons, the first text
    for label, vectors_of in (("", np.asarray), (" on features", features)):
        maps = sa.evaluate.linear_maps(vectors_of(events[first]), texts[first])
        for name, project in maps.items():
            methods[f"{name}{label}"] = lambda own, words, project=project, of=vectors_of: project(
                of(own["events"]), words)
    return methods


def regression(model, catalogue, options):
    """Physical parameters from events, text, and the shared space, before and after alignment."""
    population = options.population("csc")
    results = {
        "regression": sa.evaluate.regression(
            *_known_by(population, model, catalogue), counts=_counts(population), n_splits=4,
            choices={"one modality": ("events", "text"),
                     "aligned": ("events", "text", "shared", "shared, events only"),
                     "aligned, no text": ("events", "shared, events only")},
            gains=(("aligned", "one modality"), ("shared", "one modality"),
                   ("both", "one modality"), ("aligned, no text", "events"),
                   ("shared, events only", "events")))}
    n_labelled = round(_LABELLED * options.n_sources)
    if n_labelled >= _FEWEST_FOR_LABELS:
        labelled = sa.datasets.simulate_population(n_labelled, options.seed + 1,
                                                   counts=options.counts or "csc")
        results["number of labels"] = sa.evaluate.label_curve(
            *_known_by(labelled, model, catalogue))
    return results


#: Sources for the curve by number of labels over those of the regression: of 2,000 too few are
#: left to learn from 5,000.
_LABELLED = 4.5
_FEWEST_FOR_LABELS = 180  # three quarters are learned from, and not every parameter is known


def _known_by(population, model, catalogue):
    """Feature sets of a population, and the parameters to predict."""
    from .text import TextEncoder, text_vectors

    vectors = _event_vectors(population, model)
    texts = text_vectors(population.summaries, TextEncoder())
    shared = [catalogue.aligner.transform_events(vectors), catalogue.aligner.transform_texts(texts)]
    return {
        "events": vectors,
        "catalogue features": _feature_sets(vectors, model)["catalogue features"],
        "text": texts, "both": np.hstack([vectors, texts]), "shared": np.hstack(shared),
        "shared, events only": shared[0]}, _targets(population)


def _targets(population):
    truth = population.truth["source_counts", *(name for name in _TARGETS if name != "count_rate")]
    truth["count_rate"] = truth["source_counts"] / population.truth["exposure"]
    # Light that varies by less than one per cent cannot be told from constant light.
    truth["fractional_variability"] = np.maximum(truth["fractional_variability"], 0.01)
    return sa.evaluate.table_targets(truth, _TARGETS)


def _regression_figures(results):
    result = results["regression"]
    figures = {"predicted": sa.evaluate.plot_regression(result),
               "scores": sa.evaluate.plot_scores(result)}
    if "number of labels" in results:
        figures["labels"] = sa.evaluate.plot_labels(results["number of labels"])
    return figures


def leakage(model, catalogue, options):
    """What masking numbers, class names and source names takes from retrieval and regression."""
    from .text import TextEncoder

    population = options.population("csc")
    return {"leakage": sa.evaluate.leakage(
        population.summaries, _event_vectors(population, model), _targets(population),
        aligner=catalogue.aligner, encoder=TextEncoder(), labels=population.truth["class"],
        names=population.truth["name"])}


def time_shape(model, catalogue, options):
    """What the light curve does, told from features of the events."""
    population = options.population("bright", summaries=0)
    features = _feature_sets(_event_vectors(population, model), model)
    return {"time shape": sa.evaluate.time_shape(features, population.truth["time_shape"],
                                                 _counts(population))}


def classification(model, catalogue, options):
    """Classes by neighbours in the shared space, from descriptions, and as probabilities."""
    from .autodecoder import draw_vectors
    from .datasets.prose import class_descriptions
    from .text import TextEncoder, text_vectors

    population, texts = options.population("csc"), class_descriptions()
    labels, project = population.truth["class"], catalogue.aligner.transform_events
    described = catalogue.aligner.transform_texts(text_vectors(list(texts.values()), TextEncoder()))
    results = {"classification": sa.evaluate.classification(
        project(_event_vectors(population, model)), labels,
        class_vectors=dict(zip(texts, described, strict=True)))}
    known = np.isin(np.asarray(labels).astype(str), catalogue.classes)
    if known.any():
        # As in AlignedCatalog.interpret: averages over draws from the posterior.
        draws = draw_vectors(population.photons[known], _DRAWS, model, seed=options.seed)
        results["class probabilities"] = sa.evaluate.class_probabilities(
            [catalogue.class_probabilities(project(own)) for own in draws], labels[known],
            catalogue.classes)
    return results


_DRAWS = 16  # of a source's posterior, whose class probabilities are averaged


def _classification_figures(results):
    told = results["classification"]
    figures = {"confusion" if k == 0 else "confusion-zero-shot": sa.evaluate.plot_confusion(
        told.confusion[name], told.classes, title=f"{name}, {len(told.labels)} simulated sources")
        for k, name in enumerate(told.confusion)}
    if "class probabilities" in results:
        figures["reliability"] = sa.evaluate.plot_class_reliability(
            results["class probabilities"])
    return figures


def queries(model, catalogue, options):
    """Sources found by questions in plain words: as asked, and rewritten."""
    from .text import TextEncoder, text_vectors, understand

    encoder, asked = TextEncoder(), sa.evaluate.plain_queries()
    asked = [query for query in asked if query["class"] in catalogue.classes]
    words = [query["query"] for query in asked]
    ways, remarks = {"as asked": words}, []
    for way, llm in (("glossary", None), ("language model", options.llm)):
        if way == "glossary" or llm is not None:
            found = [understand(text, encoder=encoder, llm=llm)
                     for text in tqdm(words, way, unit="query", disable=None)]
            ways[way] = [one.summary for one in found]
    if options.llm is not None:
        n_failed = sum(any(note.startswith("read with the glossary") for note in one.notes)
                       for one in found)
        remarks = [f"The language model failed on {n_failed} of them, which the glossary read."]
    project = catalogue.aligner.transform_texts
    return {"queries": sa.evaluate.queries(
        {way: project(text_vectors(texts, encoder)) for way, texts in ways.items()},
        [query["class"] for query in asked], catalogue.source_vectors, catalogue.table["class"],
        parts=[query["split"] for query in asked], remarks=remarks)}


def novelty(model, catalogue, options):
    """Members of a class found that is missing from the reference sources."""
    from .autodecoder import draw_vectors

    population = options.population("csc")
    project = catalogue.aligner.transform_events
    draws = draw_vectors(population.photons, 16, model, seed=options.seed)
    return {"novelty": sa.evaluate.novelty(
        project(_event_vectors(population, model)), population.truth["class"],
        draws=project(draws.reshape(-1, draws.shape[-1])).reshape(*draws.shape[:2], -1),
        counts=_counts(population), concentration=1 / catalogue.temperature)}


def artefacts(model, catalogue, options):
    """Artefacts of the instrument that were put into simulated photons, and false alarms."""
    return {"artefacts": sa.evaluate.artefacts(options.population("bright", summaries=0),
                                               seed=options.seed)}


def changes(model, catalogue, options):
    """False alarms and power of the comparison of two observations of one source."""
    counts = options.counts or (10, 1000)
    results = {}
    for pair in (("ACIS-S", "ACIS-S"), ("ACIS-S", "EPIC-pn")):
        seen = sa.datasets.simulate_through(options.n_sources, options.seed, pair, counts=counts)
        first, second = (one.event_lists for one in seen.values())
        results[" and ".join(pair)] = sa.evaluate.changes(first, second, model, seed=options.seed)
    return results


def interpretation(model, catalogue, options):
    """Class probabilities and parameter intervals of an interpretation, against the truth."""
    from .autodecoder import draw_vectors

    results = {}
    for counts in (("csc", "bright") if options.counts is None else (options.counts,)):
        population = options.population(counts, summaries=0)
        draws = draw_vectors(population.photons, 16, model, seed=options.seed)
        projected = [catalogue.aligner.transform_events(own) for own in draws]
        inferred = model.quantiles(population.photons, [0.5]) if model.encoder else {}
        results[f"{counts} counts"] = sa.evaluate.interpretation(
            catalogue, projected, population.truth, seed=options.seed,
            inferred={name: found[:, 0] for name, found in inferred.items() if found.ndim == 2})
    return results


def instruments(model, catalogue, options):
    """Read-outs of the same sources through several instruments, the reference twice."""
    from .instruments import INSTRUMENTS

    reference = "ACIS-S"
    seen = sa.datasets.simulate_through(options.n_sources, options.seed, (reference, *INSTRUMENTS),
                                        counts=options.counts or "bright")
    training = sa.datasets.simulate_population(
        4 * options.n_sources, options.seed + 1, counts="training", instruments=reference,
        summaries=0)
    return {"instruments": sa.evaluate.instruments(seen, model, training=training)}


def ngc3621(model, catalogue, options):
    """What the photons of six simulated sources of NGC 3621 support, over many galaxies."""
    return {"NGC 3621": sa.evaluate.case_study(
        options.n_sources, model=model, aligner=catalogue.aligner, seed=options.seed)}


def cost(model, catalogue, options):
    """Milliseconds per source on one thread, and memory."""
    return {"cost": sa.evaluate.cost(model, n_sources=options.n_sources, seed=options.seed)}


def domain_sense(catalogue):
    """Meaning told from wording: paraphrases without jargon, and jargon of another meaning.

    Measured on bundled sentences that no model was trained on.
    """
    from .text import TextEncoder, text_vectors, understand

    encoder, project = TextEncoder(), catalogue.aligner.transform_texts
    texts = [sentence["text"] for sentence in sa.evaluate.domain_sentences()]
    found = [understand(text, encoder=encoder) for text in texts]
    bare = text_vectors(texts, encoder)
    return {"domain sense": sa.evaluate.domain_sense({
        "encoder": bare[:, :encoder.dim],
        "encoder, rewritten": encoder.encode([one.text for one in found]),
        "aligned": project(bare),
        "aligned, facts": project(text_vectors([one.summary for one in found], encoder))})}


#: Name on the command line to function.
ON_SIMULATED = {f.__name__.replace("_", "-"): f for f in (
    reconstruction, calibration, retrieval, regression, time_shape, classification, novelty,
    artefacts, interpretation, changes, ngc3621, instruments, leakage, cost)}

#: Benchmarks on bundled sentences, which need no photons.
ON_SENTENCES = {"domain-sense": domain_sense}

#: Benchmarks of what a catalogue answers, which need no sources.
ON_CATALOGUE = {"queries": queries}


def _retrieval_figures(results):
    figures = {}
    for name, report in results.items():
        # A report holds the same methods on several kinds of text.
        for kind, methods in getattr(report, "comparisons", {}).items():
            label = re.sub("[^a-z0-9]+", "-", f"{name} {kind}".lower())
            figures[label] = sa.evaluate.plot_retrieval(methods, title=f"{name}; {kind}")
    return figures or {"retrieval": sa.evaluate.plot_retrieval(results)}


def _time_shape_figures(results):
    result = results["time shape"]
    figures = {}
    for label, selection in zip(("confusion", "confusion-bright"), result.selections, strict=False):
        table = result.confusion(selection=selection)
        figures[label] = sa.evaluate.plot_confusion(
            np.array([list(row)[1:] for row in table]), result.kinds,
            title=f"{sum(result.selections[selection])} simulated sources{selection}")
    return figures


#: Benchmarks that can draw their results: name to function of the results.
FIGURES = {
    "calibration": _calibration_figures,
    "reconstruction": lambda results: {
        "reconstruction": sa.evaluate.plot_reconstruction(results["reconstruction"])},
    "retrieval": _retrieval_figures,
    "regression": _regression_figures,
    "classification": _classification_figures,
    "queries": lambda results: {"queries": sa.evaluate.plot_queries(results["queries"])},
    "novelty": lambda results: {"novelty": sa.evaluate.plot_novelty(results["novelty"])},
    "interpretation": lambda results: {"reliability": sa.evaluate.plot_reliability(results)},
    "time-shape": _time_shape_figures,
}

_FAST = ("Bayesian blocks", "cross-validated KDE")


class Options:
    """How many fresh sources, from which seed, with how many photons.

    Parameters
    ----------
    n_sources, seed : int
    counts : str or None
        Distribution of photon counts; `None` leaves it to the benchmark.
    challenge : bool
        Whether to take the population that is unlike any of the training.
    rivals : {"fast", "all"}
        Which rivals to show.
    real : RealSources or None
        Event files for the parts of a benchmark that need no truth.
    n_pairs : int
        Sources that all methods of retrieval besides the catalogue's aligner learn from.
    work : Path or None
        Folder with what `stingray_align.alignment.align` made of those sources.
    llm : LocalChat, OpenAIChat or None
        Rewrites questions, besides the glossary.
    """

    def __init__(self, n_sources, seed, counts=None, *, challenge=False, rivals="all", real=None,
                 n_pairs=16_000, work=None, llm=None):
        self.n_sources, self.seed, self.counts = n_sources, seed, counts
        self.n_pairs, self.work = n_pairs, work
        self.challenge, self.real, self.llm = challenge, real, llm
        self.rivals = {name: rival for name, rival in sa.evaluate.rivals.RIVALS.items()
                       if rivals == "all" or name in _FAST}

    def population(self, counts, **options):
        simulate = (sa.datasets.simulate_challenge if self.challenge
                    else sa.datasets.simulate_population)
        return simulate(self.n_sources, self.seed, counts=self.counts or counts, **options)


class RealSources:
    """Event files that a thinning test can use.

    Parameters
    ----------
    paths : sequence of Path
    read : callable
        Path to event list.

    Attributes
    ----------
    photons : Photons
    names, kinds : list of str
        File name, and "one source" or "field".
    bad : dict of str to str
        Files that could not be used, and why. Lists of which only every k-th photon was kept are
        among them: the halves of such a list are not independent.
    """

    def __init__(self, paths, read):
        self.names, self.kinds, self.bad, parts = [], [], {}, []
        for path in tqdm(paths, "files", unit="file", disable=None):
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    part = Photons.from_events(read(path))
                if any("(THINNED)" in str(w.message) for w in caught):
                    raise ValueError("thinned: only every k-th photon was kept")
                if part.n_photons[0] < 10:
                    raise ValueError(f"only {part.n_photons[0]} photons of 0.5-8 keV")
            except (OSError, ValueError) as error:
                self.bad[str(path)] = " ".join(str(error).split())
                continue
            parts.append(part)
            self.names.append(path.name)
            self.kinds.append("field" if _is_wide(path) else "one source")
        self.photons = Photons.concatenate(parts) if parts else None


def _is_wide(path):
    """Whether a file has sky positions, and they spread further than those of a point source."""
    from astropy.io import fits

    from .regions import event_wcs

    try:
        with warnings.catch_warnings(), fits.open(path) as hdus:
            warnings.simplefilter("ignore")  # said when the events were read
            table = next(hdu for hdu in hdus[1:] if isinstance(hdu, fits.BinTableHDU)
                         and "time" in [name.lower() for name in hdu.columns.names])
            wcs, x, y = event_wcs(table.header, table.columns.names)
            offsets = [np.asarray(table.data[name], dtype=float) for name in (x, y)]
    except (OSError, ValueError, StopIteration):  # no FITS file, or without sky positions
        return False
    distance = np.hypot(*(o - np.median(o) for o in offsets)) * abs(wcs.wcs.cdelt[0]) * 3600
    return bool(np.quantile(distance, 0.9) > _POINT_SOURCE)


_POINT_SOURCE = 60  # arcsec; NuSTAR, the least sharp of the imagers, has 90 % within


def thinning(model, real, options):
    """Likelihood of the photons of real sources that the models did not see.

    Parameters
    ----------
    model : PoissonAutodecoder
    real : RealSources
    options : Options

    Returns
    -------
    dict of ThinningResult
    """
    return {"thinning": sa.evaluate.thinning(
        {"autodecoder": model}, real.photons, rivals=options.rivals, names=real.names,
        labels=real.kinds, seed=options.seed)}


def thinning_figures(model, real):
    """Yield a name and a figure for each source, with the rates of three methods."""
    rivals = sa.evaluate.rivals
    methods = {"autodecoder": model, "Bayesian blocks": rivals.bayesian_blocks,
               "Cox process": rivals.log_gaussian_cox}
    for i, (name, kind) in enumerate(zip(real.names, real.kinds, strict=True)):
        own = real.photons[i]
        rates = {label: method.band_rates(own)[0] for label, method in methods.items()}
        title = f"{name}: {own.n_photons[0]} photons" + (", field of many sources"
                                                         if kind == "field" else "")
        yield name.split(".")[0], sa.evaluate.plot_fits(own, rates, title=title)


def real(paths, read, catalogue):
    """Read, embed and interpret files, one row each.

    Parameters
    ----------
    paths : sequence of Path
    read : callable
        Path to event list.
    catalogue : AlignedCatalog

    Returns
    -------
    results : dict of Report
        Milliseconds of each step, the most probable class, the p-value of novelty, and remarks:
        what was warned of, in short. Empty if no file could be used.
    bad : dict of str to str
        Files that could not be used, and why.
    """
    rows, bad = [], {}
    _warm_up(catalogue)
    for path in tqdm(paths, "files", unit="file", disable=None):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                rows.append(_real_row(path, read, catalogue))
            remarks = [_in_short(str(w.message), path) for w in caught
                       if issubclass(w.category, (DomainShiftWarning, EventDataWarning))]
            rows[-1]["remarks"] = "; ".join(dict.fromkeys([*rows[-1]["remarks"], *remarks]))
        except (OSError, ValueError) as error:
            bad[str(path)] = " ".join(str(error).split())
    return ({"real": _RealFiles(rows)} if rows else {}), bad


class _RealFiles(Report):
    title = "Real event files"
    primary_is = "files read, embedded and interpreted"

    def __init__(self, rows):
        self.rows, self.primary = rows, len(rows)

    def to_table(self):
        table = QTable(rows=self.rows)
        for name in table.colnames:
            if table[name].dtype.kind == "f":
                table[name].info.format = ".1f" if name.endswith(")") else ".2f"
        return table


def _warm_up(catalogue):
    """Import and load what the first file would otherwise be charged for."""
    photons = sa.datasets.simulate_population(1, 0, counts=(50, 60), instruments="ACIS-S")
    catalogue.interpret(photons.event_lists[0])


def _in_short(message, path):
    """A warning without its file name, prefix and advice."""
    message = message.replace(f"{path} ", "").removeprefix("domain shift: ")
    return re.split("[:;]", message)[0]


def _real_row(path, read, catalogue):
    begin = time.perf_counter()
    events = read(path)
    after_read = time.perf_counter()
    embedding = catalogue.embedding(events)
    after_embed = time.perf_counter()
    reading = catalogue.interpret(embedding)
    after = time.perf_counter()
    row = {"file": path.name, "mission": str(events.mission or ""),
           "photons": embedding.n_photons, "exposure (ks)": embedding.exposure / 1000,
           "read (ms)": 1e3 * (after_read - begin),
           "embed (ms)": 1e3 * (after_embed - after_read),
           "interpret (ms)": 1e3 * (after - after_embed),
           "class": "", "probability": np.nan, "novelty p": reading.novelty}
    if len(reading.classes):
        row |= {"class": str(reading.classes["class"][0]),
                "probability": float(reading.classes["probability"][0])}
    row["remarks"] = ["unlike the catalogue"] if reading.novelty < 0.01 else []
    return row


def _counts(population):
    return np.asarray(population.truth["counts"].value).astype(int)


def _feature_sets(vectors, model):
    from .autodecoder.readouts import feature_names

    return sa.evaluate.feature_sets(vectors, feature_names(model.n_latent))


def _event_vectors(population, model):
    from .autodecoder import embed_vectors

    return embed_vectors(population.photons, model, progress=True)


#: What each benchmark measures, in a line.
DESCRIPTIONS = {name: function.__doc__.strip().splitlines()[0] for name, function in
                (ON_SIMULATED | ON_SENTENCES | ON_CATALOGUE
                 | {"thinning": thinning, "real": real}).items()}
