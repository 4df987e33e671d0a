"""The seeded command that makes the aligner and the reference catalogue, start to end.

It simulates sources with summaries, embeds their photons in four views (all photons; a random part
of them, mostly seen through another effective area; and two draws from the posterior, so that a
faint source does not pretend to certainty, of some sources through another area, too), encodes the
summaries, trains the aligner, fills a catalogue with archetypes that the aligner has not seen, and
chooses the temperature of its vote on yet other sources. Embedded and encoded blocks are kept in a
work directory, so an interrupted run goes on where it stopped.
"""

import hashlib
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.base import clone

from .._files import atomic_file, check_directory
from .aligner import Aligner
from .catalog import _VECTORS, AlignedCatalog
from .fitting import sizes_for
from .interpretation import read_parameters

__all__ = ["align", "training_pairs"]

_BLOCK = 1000  # sources simulated, embedded and encoded at a time
_STAGES = ("pairs", "archetypes", "validation, catalogue counts", "validation, bright")
_DRAWS = 16  # from the posterior of each validation source
_ARCHETYPE_COUNTS = (10.0, 10_000.0)  # log-uniform: from barely a source to a clean one
_ARCHETYPE_COLUMNS = (
    "name", "class", "instrument", "exposure", "duration", "counts", "flux", "photon_index", "kT",
    "n_h", "hardness", "fractional_variability", "period", "timescale", "time_shape", "ra", "dec")


def training_pairs(n, *, model, encoder, seed=0, work=None, progress=True):
    """The pairs that `align` trains on, with their truth, for aligners to compare with.

    Parameters
    ----------
    n : int
        Sources; each has four rows.
    model : PoissonAutodecoder
    encoder : TextEncoder
    seed : int, optional
        As of `align`.
    work : str or Path, optional
        As of `align`, whose arrays are used if they are there; by default nothing is kept.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    events, texts : ndarray
        Vectors, row by row.
    groups : ndarray of int
        Source of each row.
    truth : astropy.table.QTable, n rows
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch if work is None else work)
        folder.mkdir(parents=True, exist_ok=True)
        maker = _Maker(folder, model, encoder, seed, progress)
        events, texts, groups, kept = maker.pairs(n, keep=("truth",))
    return events, texts, groups, kept["truth"]


def align(path_out, *, n_pairs=400_000, n_archetypes=5_600, n_validation=2_000, seed=0, model=None,
          encoder=None, aligner=None, start=None, work=None, progress=True):
    """Make an aligner and a reference catalogue from simulated sources.

    Parameters
    ----------
    path_out : str or Path
        Directory of the catalogue (`AlignedCatalog.load`); the aligner is inside it. An older
        catalogue there is replaced.
    n_pairs : int, optional
        Sources to train on, each with two summaries and four views of its photons. They take some
        3 GB of memory per 100,000.
    n_archetypes : int, optional
        Sources of the catalogue, each with one summary.
    n_validation : int, optional
        Sources for the temperature and the figures printed: this many at the photon counts of a
        catalogue, and this many bright ones.
    seed : int, optional
        Same seed and models, same catalogue.
    model : PoissonAutodecoder, optional
        Default: the bundled one.
    encoder : TextEncoder, optional
        Default: the package's default.
    aligner : Aligner, optional
        Unfitted, with parameters of your own.
    start : Aligner, optional
        A fitted one, such as the bundled one, to be fitted to the vectors of another autodecoder.
        First its head of the events alone goes on from where it is, on the facts of the summaries,
        then both heads on 15 % as many further sources with all of their texts. Most texts need
        not be encoded then, which is what takes longest.
    work : str or Path, optional
        Directory for intermediate arrays. Default: beside ``path_out``, removed at the end.
    progress : bool, optional
        Show progress bars and print figures.

    Returns
    -------
    AlignedCatalog
        As saved.

    Raises
    ------
    FileExistsError
        If ``path_out`` is a file or a directory with other contents.
    """
    from astropy.table import vstack

    from ..autodecoder import PoissonAutodecoder
    from ..autodecoder.readouts import feature_names
    from ..text import TextEncoder

    path_out = Path(path_out)
    check_directory(path_out, marker=_VECTORS)  # better known before the work than after it
    model = PoissonAutodecoder.pretrained() if model is None else model
    encoder = TextEncoder() if encoder is None else encoder
    aligner = Aligner(seed=seed, progress=progress) if aligner is None else aligner
    folder = path_out.with_name(path_out.name + ".work") if work is None else Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    maker = _Maker(folder, model, encoder, seed, progress)
    names = feature_names(model.n_latent)
    say = print if progress else (lambda *_: None)

    if start is None:
        events, texts, groups, _ = maker.pairs(n_pairs)
        aligner.fit(events, texts, groups, feature_names=names, text_model=encoder.name,
                    checkpoint=folder / "aligner.checkpoint.safetensors")
    else:
        aligner = _adapted(start, aligner, maker, n_pairs, names)
    score = aligner.history_[-1][1] if start else min(score for _, score in aligner.history_)
    say(f"aligner: {n_pairs} sources, {'loss' if start else 'mean log rank'} {score:.3f}, logit "
        f"scale {aligner.logit_scale_:.1f}")

    archetypes = maker.stage("archetypes", n_archetypes, counts=_ARCHETYPE_COUNTS,
                             keep=("truth", "summaries"))
    catalogue = AlignedCatalog(
        aligner=aligner, table=archetypes["truth"],
        source_vectors=aligner.transform_events(archetypes["full"]),
        texts=archetypes["summaries"],
        text_vectors=aligner.transform_texts(archetypes["texts"][:, 0]),
        text_sources=np.arange(n_archetypes), model=model, encoder=encoder,
        autodecoder=model.fingerprint)

    held_out = {
        stage: maker.stage(stage, n_validation, counts=counts, keep=("truth", "summaries"),
                           draws=_DRAWS)
        for stage, counts in zip(_STAGES[2:], ("csc", "bright"))}
    draws = np.concatenate([part["draws"] for part in held_out.values()])
    flat = aligner.transform_events(draws.reshape(-1, draws.shape[-1]))
    loss = catalogue.calibrate(
        flat.reshape(*draws.shape[:2], -1),
        np.concatenate([np.asarray(part["truth"]["class"]) for part in held_out.values()]),
        table=vstack([part["truth"] for part in held_out.values()],
                     metadata_conflicts="silent"))
    say(f"vote: temperature {catalogue.temperature:.3f}, log loss {loss:.3f} "
        f"(no knowledge: {np.log(len(catalogue.classes)):.3f})")
    catalogue.save(path_out)
    if progress:
        for stage, part in held_out.items():
            _print_figures(stage, catalogue, part)
        size = sum(file.stat().st_size for file in path_out.iterdir())
        print(f"saved {catalogue!r} at {path_out}: {size / 1e6:.1f} MB")
    if work is None:
        shutil.rmtree(folder)
    return catalogue


def _adapted(start, aligner, maker, n_pairs, names):
    """An aligner that was fitted before, fitted to the vectors of another autodecoder."""
    further = 3 * n_pairs // 20
    for skip, n, prose in ((0, n_pairs, False), (n_pairs, further, True)):
        events, texts, groups, _ = maker.pairs(n, skip=skip, prose=prose)
        own = clone(aligner).set_params(
            n_steps=aligner.n_steps or -(-2 * len(events) // sizes_for(n).batch_size),
            learning_rate=aligner.learning_rate / 2)
        # With so few steps ranks get better at their end alone: too late to stop early by them.
        start = own.fit(events, texts, groups, start=start, keep_texts=not prose,
                        validation_fraction=0, feature_names=names,
                        text_model=maker.encoder.name,
                        checkpoint=maker.folder / f"aligner-{n}.checkpoint")
    return start.set_params(**aligner.get_params())  # those that suit a training from the start


class _Maker:
    """Simulates, embeds and encodes block by block, or takes a block from the work directory."""

    def __init__(self, folder, model, encoder, seed, progress):
        self.folder, self.model, self.encoder = folder, model, encoder
        self.seed, self.progress = seed, progress

    def pairs(self, n, *, skip=0, prose=True, keep=()):
        """Event vectors, text vectors, groups, and what else is kept of the training sources."""
        parts = self.stage("pairs", n, counts="training", summaries=2, thinned=True, draws=2,
                           skip=skip, prose=prose, keep=keep)
        # A row is a view with one of the texts; the aligner mixes views and texts of a group.
        events = np.concatenate([parts["full"], parts["thinned"], parts["draws"][:, 0],
                                 parts["draws"][:, 1]])
        texts = np.concatenate([parts["texts"][:, i] for i in (0, 1, 0, 1)])
        return events, texts, np.tile(np.arange(n), 4), {name: parts[name] for name in keep}

    def stage(self, stage, n, *, counts, summaries=1, thinned=False, keep=(), draws=0, skip=0,
              prose=True):
        """Arrays of ``n`` sources behind the first ``skip``.

        On request also their "truth" and "summaries".
        """
        from astropy.table import vstack
        from tqdm import tqdm

        blocks = []
        with tqdm(total=n, desc=stage, unit="source", disable=not self.progress) as bar:
            for first in range(0, n, _BLOCK):
                size = min(_BLOCK, n - first)
                number = -(-skip // _BLOCK) + first // _BLOCK
                blocks.append(self._block(stage, number, size, counts, summaries, thinned, keep,
                                          draws, prose))
                bar.update(size)
        arrays = {name: np.concatenate([block[name] for block in blocks])
                  for name in blocks[0] if name not in ("truth", "summaries")}
        if "truth" in keep:
            arrays["truth"] = vstack([block["truth"] for block in blocks],
                                     metadata_conflicts="silent")
        if "summaries" in keep:
            arrays["summaries"] = [text for block in blocks for text in block["summaries"]]
        return arrays

    def _block(self, stage, number, size, counts, summaries, thinned, keep, draws, prose):
        from ..datasets import simulate_population
        from ..datasets.prose import stock_identity

        seed = ((self.seed + 1) * 100 + _STAGES.index(stage)) * 1000 + number

        @cache
        def population():
            return simulate_population(size, seed, counts=counts, summaries=summaries)

        name = f"{stage.replace(', ', '-').replace(' ', '-')}-{number}"
        source = f"{seed} {size} {counts} {summaries}"
        # Kept apart, so that another autodecoder need not wait for the texts again.
        if prose:
            block = self._kept(f"{name}-texts", f"{source} {self.encoder.name} {stock_identity()}",
                               lambda: self._encode(population(), size))
        else:
            block = self._kept(f"{name}-facts", f"{source} {self.encoder.dim} {stock_identity()}",
                               lambda: self._encode(population(), size, prose=False))
        block |= self._kept(f"{name}-events",
                            f"{source} {thinned} {draws} {self.model.fingerprint}",
                            lambda: self._embed(population(), seed, size, thinned, draws))
        if "truth" in keep:
            block["truth"] = _archetype_table(population().truth)
        if "summaries" in keep:
            block["summaries"] = population().summaries
        return block

    def _kept(self, name, key, make):
        """The arrays that ``make`` gives, from the work directory if they are there."""
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        path = self.folder / f"{name}-{digest}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        arrays = make()
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        return arrays

    def _encode(self, population, size, prose=True):
        from ..text import text_vectors

        flat = []
        for own in population.summaries:
            flat += own if isinstance(own, (list, tuple)) else [own]
        if not prose:
            flat = [replace(summary, text="") for summary in flat]
        return {"texts": text_vectors(flat, self.encoder).reshape(size, len(flat) // size, -1)}

    def _embed(self, population, seed, size, thinned, draws):
        from ..autodecoder import draw_vectors, embed_vectors
        from ..autodecoder.areas import other_transmissions, seen_through

        photons = population.photons
        arrays = {"full": embed_vectors(photons, self.model)}
        if thinned:
            # As another camera would have seen the source, of which the texts say nothing.
            rng = np.random.default_rng([seed, 1])
            transmission = other_transmissions(size, rng)
            part = seen_through(photons, transmission, rng)
            part, _ = part.thin(rng.uniform(0.1, 0.9, size), rng)
            arrays["thinned"] = embed_vectors(part, self.model)
            # With all of these, too, fewer partners are found with the usual cameras.
            transmission[rng.random(size) < 0.5] = 1
            photons = seen_through(photons, transmission, rng)
        if draws:
            arrays["draws"] = draw_vectors(photons, draws, self.model, seed=seed)
        return arrays


def _archetype_table(truth):
    """The columns a catalogue shows, rounded to what they are worth (and to a small file)."""
    table = truth[list(_ARCHETYPE_COLUMNS)]
    for name in table.colnames:
        column = table[name]
        unit = column.unit
        values = np.asarray(getattr(column, "value", column))
        if values.dtype.kind == "f":
            digits = 7 if name in ("ra", "dec") else 4
            values = np.array([float(f"{v:.{digits}g}") for v in values])
            table[name] = values if unit is None else values * unit
    table.meta = {"origin": "simulated by stingray-align: no source in this table exists"}
    return table


def _print_figures(stage, catalogue, part):
    from ..evaluate import retrieval

    project = catalogue.aligner.transform_events
    truth, classes = part["truth"], np.asarray(part["truth"]["class"])
    print(f"\n{stage}: {len(truth)} held-out sources")
    print(retrieval(project(part["full"]),
                    catalogue.aligner.transform_texts(part["texts"][:, 0]), labels=classes))
    draws = [project(own) for own in part["draws"]]
    best = np.array([catalogue.classes[catalogue.class_probabilities(own).argmax()]
                     for own in draws])
    recalls = [np.mean(best[classes == name] == name) for name in np.unique(classes)]
    print(f"class of highest probability: {np.mean(best == classes):.3f} right, balanced "
          f"{np.mean(recalls):.3f}, chance {1 / len(catalogue.classes):.3f}")
    readings = [{row["parameter"]: (row["lower"], row["upper"])
                 for row in read_parameters(catalogue, catalogue.neighbour_weights(own), counts)}
                for own, counts in zip(draws, truth["counts"].value)]
    print("68 % intervals hold the truth:", end="")
    for name in ("photon_index", "kT", "n_h", "flux", "hardness", "fractional_variability"):
        values = np.asarray(getattr(truth[name], "value", truth[name]), float)
        inside = [given[name][0] <= value <= given[name][1]
                  for given, value in zip(readings, values)
                  if name in given and np.isfinite(value)]
        if inside:
            print(f" {name} {np.mean(inside):.2f}", end="")
    print()
