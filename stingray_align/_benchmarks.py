"""The measurements behind ``stingray-align benchmark``: populations in, printed results out.

Everything is measured on sources simulated here, from a seed that neither the autodecoder nor the
aligner has seen, with the functions of `stingray_align.evaluate`. Each function returns results by
name; the first is the one to quote.
"""

import re
import time
import warnings

import numpy as np
from astropy.table import QTable
from tqdm.auto import tqdm

import stingray_align as sa

from .errors import DomainShiftWarning, EventDataWarning

__all__ = ["ON_SIMULATED", "real"]

_TARGETS = {  # of the truth table, and whether the logarithm is meant
    "hardness": False, "photon_index": False, "n_h": True, "kT": True, "flux": True,
    "fractional_variability": True,
}


#: What a catalogue has of every source: brightness, hardness ratios, excess variance.
_CATALOGUE_FEATURES = ("log_", "counts_hardness", "excess_variance")


def reconstruction(model, catalogue, options):
    """Fraction of the oracle gain, beside the rivals."""
    population = options.population("bright")
    return {"reconstruction": sa.evaluate.reconstruction(model, population)}


def calibration(model, catalogue, options):
    """Coverage of the intervals of mean rate, rate at random times, hardness."""
    return sa.evaluate.autodecoder_calibration(options.population("csc"), model)


def retrieval(model, catalogue, options):
    """Rank of the true partner: familiar and held-out wording, with and without slots."""
    from .autodecoder.readouts import feature_names
    from .text import TextEncoder, text_vectors

    encoder, results = TextEncoder(), {}
    for wording in ("training", "held-out"):
        population = options.population("csc", wording=wording)
        events = _event_vectors(population, model)
        summaries = population.summaries
        for kind, texts in (("prose and slots", summaries), ("prose", [s.text for s in summaries])):
            vectors = text_vectors(texts, encoder)
            results[f"{wording} wording, {kind}"] = sa.evaluate.retrieval(
                catalogue.aligner.transform_events(events),
                catalogue.aligner.transform_texts(vectors), labels=population.truth["class"])
            if wording == "training" and kind == "prose and slots":
                test = events, vectors, population.truth["class"]
    # As many sources as the bundled aligner learned from, if 2,000 are tested.
    train = sa.datasets.simulate_population(16 * len(test[0]), options.seed + 1, counts="training")
    train_events, train_texts = _event_vectors(train, model), text_vectors(train.summaries, encoder)
    simple = [name.startswith(_CATALOGUE_FEATURES) for name in feature_names(model.n_latent)]
    for kind, chosen in (("", slice(None)), (" on catalogue features", simple)):
        baselines = sa.evaluate.retrieval_baselines(
            train_events[:, chosen], train_texts, test[0][:, chosen], test[1], labels=test[2])
        results |= {f"training wording, {name}{kind}": r for name, r in baselines.items()}
    return results


def regression(model, catalogue, options):
    """Physical parameters from events, text, and the shared space."""
    from .text import TextEncoder, text_vectors

    population = options.population("csc")
    events = _event_vectors(population, model)
    features = {"events": events, "text": text_vectors(population.summaries, TextEncoder()),
                "shared": catalogue.aligner.transform_events(events)}
    targets = {}
    for name, logarithmic in _TARGETS.items():
        values = np.asarray(getattr(population.truth[name], "value", population.truth[name]))
        with np.errstate(divide="ignore"):
            values = np.log10(values) if logarithmic else values
        targets[f"log {name}" if logarithmic else name] = np.where(np.isfinite(values), values,
                                                                   np.nan)
    return {"regression": sa.evaluate.regression(features, targets)}


def classification(model, catalogue, options):
    """Classes by neighbours in the shared space, and from a description of each class alone."""
    from .datasets.prose import class_descriptions
    from .text import TextEncoder, text_vectors

    population, texts = options.population("csc"), class_descriptions()
    described = catalogue.aligner.transform_texts(text_vectors(list(texts.values()), TextEncoder()))
    vectors = catalogue.aligner.transform_events(_event_vectors(population, model))
    return {"classification": sa.evaluate.classification(
        vectors, population.truth["class"],
        class_vectors=dict(zip(texts, described, strict=True)))}


def novelty(model, catalogue, options):
    """Members of a class found that is missing from the reference sources."""
    population = options.population("csc")
    vectors = catalogue.aligner.transform_events(_event_vectors(population, model))
    return {"novelty": sa.evaluate.novelty(vectors, population.truth["class"])}


def cost(model, catalogue, options):
    """Milliseconds per source on one thread, and memory."""
    return {"cost": sa.evaluate.cost(model, n_sources=options.n_sources, seed=options.seed)}


#: Name on the command line to function.
ON_SIMULATED = {f.__name__: f for f in (reconstruction, calibration, retrieval, regression,
                                        classification, novelty, cost)}


class Options:
    """How many fresh sources, from which seed, with how many photons.

    Parameters
    ----------
    n_sources, seed : int
    counts : str or None
        Distribution of photon counts; `None` leaves it to the benchmark.
    """

    def __init__(self, n_sources, seed, counts=None):
        self.n_sources, self.seed, self.counts = n_sources, seed, counts

    def population(self, counts, **options):
        return sa.datasets.simulate_population(self.n_sources, self.seed,
                                               counts=self.counts or counts, **options)


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
    table : astropy.table.QTable
        Milliseconds of each step, the most probable class, the p-value of novelty, and remarks:
        what was warned of, in short.
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
    table = QTable(rows=rows) if rows else QTable()
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            table[name].info.format = ".1f" if name.endswith(")") else ".2f"
    return table, bad


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


def _event_vectors(population, model):
    from .autodecoder import embed_vectors

    return embed_vectors(population.photons, model, progress=True)
