"""Whole catalogues on disk: written, embedded and searched a partition at a time, with LSDB.

A catalogue is a folder in the HATS format (Hierarchical Adaptive Tiling Scheme): Parquet files,
each the sources of one patch of the sky, which `LSDB <https://docs.lsdb.io>`_ opens, cuts out and
cross-matches without reading it whole. Event lists and their good time intervals (GTIs) are nested
columns: each source carries its own small table of ``time`` (s) and ``energy`` (keV) in the column
``events``, and of ``start`` and ``stop`` (s) in ``gti``.

Whatever takes long goes partition by partition, in this process or on a Dask cluster, and never
holds more than a partition in memory. A partition is written whole or not at all; the same call
goes on where an earlier one was stopped, by whatever means.
"""

import contextlib
import errno
import hashlib
import json
import shutil
import threading
import warnings
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable, vstack
from tqdm.auto import tqdm

from . import _hats
from ._files import BUNDLED
from .errors import EventDataError, EventDataWarning, MissingModelError, PartitionError

__all__ = ["embed_catalog", "is_catalog", "open_catalog", "query", "read_catalog", "write_catalog"]

_PARTS = "parts"
_SHOWN = 10  # failed partitions that an error spells out
_AUTODECODER, _ALIGNER = "autodecoder.safetensors", "aligner.safetensors"
_BUNDLED = {_AUTODECODER: BUNDLED / _AUTODECODER, _ALIGNER: BUNDLED / "catalogue" / _ALIGNER}
_loading = threading.Lock()


# -- event lists in and out -----------------------------------------------------------------------


def write_catalog(parts, output, *, n_rows=5000):
    """Write event lists and facts about their sources as a HATS catalogue.

    Parameters
    ----------
    parts : iterable of (event_lists, table)
        Any number of sources at a time, in any order on the sky; one part is in memory at a time.
        Each part holds an iterable of `stingray.EventList`, and an `~astropy.table.Table` with a
        row for each and the columns ``ra`` and ``dec`` (ICRS degrees). None in place of an event
        list leaves the source out. Tables may have any other columns of numbers and text; their
        units become those of the first part.
    output : str or `~pathlib.Path`
        A new folder, or one that an earlier call did not finish: then the parts that it holds are
        passed over, and if their event lists are a generator, it is not run.
    n_rows : int
        Most sources in a partition.

    Returns
    -------
    lsdb.catalog.Catalog

    Raises
    ------
    EventDataError
        If an event list has no energies, or none at all was given.
    ValueError
        If a part lacks a position, or its columns differ from those of the first one, or have
        units that cannot be converted to those.
    FileExistsError
        If the folder holds something else.

    Notes
    -----
    Times, energies and GTIs are kept to the last bit, with mission, instrument, ``mjdref``, the
    background rates and the path of the ancillary response file. Everything else that an event
    list may carry is left out.

    Examples
    --------
    >>> import stingray_align as sa
    >>> from stingray_align import scale
    >>> population = sa.datasets.simulate_population(20, seed=1)
    >>> scale.write_catalog([(population.event_lists, population.truth)],
    ...                     "simulated")  # doctest: +SKIP
    """
    output = Path(output)
    if is_catalog(output):
        raise FileExistsError(f"{output} is a finished catalogue; choose another folder")
    _hats.start(output, {"rows per partition": n_rows})
    folder = output / _PARTS
    folder.mkdir(exist_ok=True)
    index, units = [], None
    for number, (event_lists, table) in enumerate(tqdm(parts, "reading", unit="part", delay=2)):
        path = folder / f"{number:06d}.arrow"
        table, units = _hats.in_units(table, units, number + 1)
        if not path.exists():
            _hats.write_part(path, event_lists, table)
        index.append((path, _hats.read_index(path, table)))
    pixels = _hats.split(np.sort(np.concatenate([part for _, part in index] or [[]])), n_rows)
    if not pixels:
        raise EventDataError("there is no source to write")
    for pixel in tqdm(pixels, "writing", unit="partition", delay=2):
        path = _hats.partition_path(output, pixel)
        if not _hats.is_whole(path):
            _hats.write_partition(path, _hats.gather(index, pixel))
    units = {name: str(unit) for name, unit in units.items() if unit is not None}
    _hats.finish(output, {"stingray_align_units": json.dumps(units)})
    shutil.rmtree(folder)
    return open_catalog(output)


def read_catalog(catalog):
    """Event lists of a catalogue, a partition at a time.

    Parameters
    ----------
    catalog : str, `~pathlib.Path` or lsdb.catalog.Catalog
        As `write_catalog` wrote it, or any part of it that LSDB cut out.

    Yields
    ------
    event_lists : list of EventList
    table : `~astropy.table.QTable`
        A row for each, with units.

    Raises
    ------
    PartitionError
        If a partition cannot be read.
    """
    catalog = open_catalog(catalog)
    units = _hats.units(catalog)
    for _, table in _each(catalog, _hats.as_table, "reading"):
        if len(table):
            yield _hats.event_lists(table), _hats.facts(table, units)


def open_catalog(path):
    """Open a HATS catalogue, to be cut out and cross-matched with LSDB.

    Parameters
    ----------
    path : str, `~pathlib.Path` or lsdb.catalog.Catalog
        A catalogue that is open already is returned as it is.

    Returns
    -------
    lsdb.catalog.Catalog
        Pages of its files are compared with their checksums when they are read.

    Raises
    ------
    FileNotFoundError
        If there is no catalogue, or an unfinished one.
    MissingModelError
        If LSDB is not installed.
    """
    if not isinstance(path, str | Path):
        return path
    lsdb = _hats.require_lsdb()
    if not is_catalog(path):
        unfinished = " (an unfinished one: call again what started it)" \
            if (Path(path) / _hats.STARTED).exists() else ""
        raise FileNotFoundError(f"there is no HATS catalogue at {path}{unfinished}")
    return lsdb.open_catalog(path, page_checksum_verification=True)


def is_catalog(path):
    """Whether a folder holds a finished HATS catalogue.

    Parameters
    ----------
    path : str or `~pathlib.Path`

    Returns
    -------
    bool
    """
    return (Path(path) / "hats.properties").is_file()


# -- embedding ------------------------------------------------------------------------------------


def embed_catalog(catalog, output, *, model=None, aligner=None, client=None):
    """Embed and project all sources of a catalogue, and write the result as a catalogue.

    The new catalogue has the columns of the old one without its photons; ``counts``, ``exposure``,
    ``duration`` and ``instrument`` as measured, unless the old one has a column of that name,
    which is kept; ``vector``, the feature vector (`Embedding.vector <stingray_align.Embedding>`);
    and ``shared``, its projection.

    Parameters
    ----------
    catalog : str, `~pathlib.Path` or lsdb.catalog.Catalog
        From `write_catalog`, or any part of it that LSDB cut out or cross-matched.
    output : str or `~pathlib.Path`
        A new folder, or one that an earlier call with the same catalogue and models did not
        finish. Partitions found there are verified by their checksums and kept.
    model : PoissonAutodecoder or path-like, optional
        The bundled model by default.
    aligner : Aligner or path-like, optional
        The bundled aligner by default. Both are copied into the new catalogue.
    client : dask.distributed.Client, str or int, optional
        Where to work: a Dask client, of threads or processes, the address of an existing cluster
        (which must see both folders), or a number of processes on this machine. Without it
        partitions are embedded one after the other in this process.

    Returns
    -------
    lsdb.catalog.Catalog

    Raises
    ------
    PartitionError
        If partitions could not be read, embedded or written. All others are finished; the same
        call does the rest.
    FileExistsError
        If the folder holds something else, or the work of other models.

    Warns
    -----
    EventDataWarning
        If sources were left out because their event lists cannot be used. ``left_out.json`` in
        the new catalogue names them, with reasons.

    Notes
    -----
    Each worker loads the models once. The properties of the new catalogue hold the version of
    this package and the SHA-256 sums of both models.

    Examples
    --------
    >>> from stingray_align import scale
    >>> embedded = scale.embed_catalog("mine", "mine-embedded", client=2)  # doctest: +SKIP
    >>> found = scale.query(embedded, "a soft source that flares")  # doctest: +SKIP
    """
    catalog, output = open_catalog(catalog), Path(output)
    if missing := [name for name in _hats.NESTED if name not in catalog.columns]:
        raise EventDataError(f"the catalogue has no nested column {missing}: it holds no event "
                             "lists; write one with stingray_align.scale.write_catalog")
    pixels = _hats.pixels(catalog)
    about = {"stingray_align_version": version("stingray-align")}
    files = {_AUTODECODER: model, _ALIGNER: aligner}
    contents = {name: _model_bytes(name, given) for name, given in files.items()}
    for name, content in contents.items():
        about[f"stingray_align_{Path(name).stem}"] = hashlib.sha256(content).hexdigest()
    _hats.start(output, about | {
        "catalogue": catalog.name, "partitions": [[int(p.order), int(p.pixel)] for p in pixels]})
    for name, content in contents.items():
        _hats.write_bytes(output / name, content)
    units = _hats.units(catalog) | {name: "s" for name in ("exposure", "duration")
                                    if name not in catalog.columns}
    wanted = [pixel for pixel in pixels
              if not _hats.is_whole(_hats.partition_path(output, pixel))]
    unwritten = {}
    if wanted:
        (output / "hats.properties").unlink(missing_ok=True)
        unwritten = dict(_each(catalog, _embed_partition, "embedding", output.resolve(),
                               tuple(about.values()), pixels=wanted, client=client))
    _hats.finish(output, about | {"stingray_align_units": json.dumps(units)},
                 [entry for pixel in wanted for entry in unwritten[pixel]])
    _report_left_out(output)
    return open_catalog(output)


def _embed_partition(frame, pixel, output, identity):
    """Runs on a worker: one partition read, embedded and written.

    Of a partition without any usable source there is no file, and every call looks at it again:
    its sources are returned, with reasons.
    """
    from .autodecoder import embed_vectors
    from .autodecoder.readouts import feature_names
    from .photons import Photons, reduce_events

    table = _hats.as_table(frame, pixel)
    model, aligner = _models(output, identity)
    photons, good, left_out = [], [], []
    for row, events in enumerate(_hats.event_lists(table)):
        try:
            photons.append(reduce_events(events)[0])
            good.append(row)
        except EventDataError as error:
            left_out.append([_hats.label(table, row), str(error)])
    if not photons:
        return left_out
    photons = Photons.concatenate(photons)
    vectors = embed_vectors(photons, model)
    shared = aligner.transform_events(vectors, feature_names=feature_names(model.n_latent))
    table = table.drop_columns([*_hats.NESTED, *_hats.present(table, _hats.ATTRIBUTES)]).take(good)
    measured = {"counts": photons.n_photons, "exposure": photons.exposure,
                "duration": photons.duration, "instrument": photons.instrument.tolist(),
                "vector": _hats.rows(vectors.astype(np.float32)),
                "shared": _hats.rows(shared.astype(np.float16))}
    for name, values in measured.items():
        if name not in table.column_names:
            table = table.append_column(name, _hats.array(values))
    _hats.write_partition(_hats.partition_path(output, pixel), table,
                          {"left_out": json.dumps(left_out)})
    return []


@lru_cache(maxsize=1)
def _read_models(folder, identity):
    from .alignment import Aligner
    from .autodecoder import PoissonAutodecoder

    return PoissonAutodecoder.load(folder / _AUTODECODER), Aligner.load(folder / _ALIGNER)


def _models(folder, identity):
    with _loading:  # the threads of a worker share one copy
        return _read_models(folder, identity)


def _model_bytes(name, given):
    if given is None or isinstance(given, str | Path):
        path = Path(given or _BUNDLED[name])
        if not path.is_file():
            raise FileNotFoundError(f"there is no model at {path}")
        return path.read_bytes()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        given.save(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _report_left_out(output):
    left_out = json.loads((output / _hats.LEFT_OUT).read_text())
    if left_out:
        name, reason = left_out[0]
        warnings.warn(f"{len(left_out)} sources have event lists that cannot be used and were left "
                      f"out, for example {name}: {reason}; all are in {output / _hats.LEFT_OUT}",
                      EventDataWarning, stacklevel=3)


# -- searching ------------------------------------------------------------------------------------


def query(catalog, what, k=10, *, cone=None, where=None, llm=None, encoder=None,
          client=None):
    """The sources of a catalogue that match words or photons best.

    As `AlignedCatalog.query <stingray_align.AlignedCatalog>`, for a catalogue that need not fit in
    memory: the best of each partition are found exactly, and merged.

    Parameters
    ----------
    catalog : str, `~pathlib.Path` or lsdb.catalog.Catalog
        From `embed_catalog`, or any part of it that LSDB cut out.
    what : str, Summary, stingray.EventList or Embedding
        A sentence is first rewritten into catalogue-style facts. Photons are embedded with the
        model that embedded the catalogue.
    k : int, optional
        Answers wanted.
    cone : (astropy.coordinates.SkyCoord, astropy.units.Quantity), optional
        Only sources within this radius of this position; partitions outside are not read.
    where : ndarray of bool or callable, optional
        Only these sources: a mask with an entry for each source in the order of the catalogue, or
        a callable that gets the table of a partition and returns its mask.
    llm : LocalChat, OpenAIChat or alike, optional
        Rewrites a sentence, in place of the bundled glossary.
    encoder : TextEncoder, optional
        The default one by default.
    client : optional
        As in `embed_catalog`.

    Returns
    -------
    astropy.table.QTable
        ``rank`` (from 1), ``similarity`` (cosine), and the columns of the catalogue.

    Raises
    ------
    ValueError
        For k below 1, an empty question, a mask of the wrong length, a cone that is none, or a
        catalogue that is not embedded.
    MissingModelError
        If the models that embedded the catalogue are neither in it nor those of the package.
    PartitionError
        If a partition cannot be read.
    """
    from .alignment import AlignedCatalog, Aligner
    from .alignment._selection import centre_and_radius
    from .autodecoder import PoissonAutodecoder

    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    catalog = open_catalog(catalog)
    if "shared" not in catalog.columns:
        raise ValueError("the catalogue is not embedded; see stingray_align.scale.embed_catalog")
    aligner = Aligner.load(_model_of(catalog, _ALIGNER))
    model = PoissonAutodecoder.load(_model_of(catalog, _AUTODECODER)) \
        if not isinstance(what, str) else None
    # A catalogue of one nameless source knows how to project whatever is asked.
    vector, meta = AlignedCatalog(
        aligner=aligner, table=QTable({"counts": [0]}), model=model, encoder=encoder,
        source_vectors=np.zeros((1, aligner.n_shared)), temperature=1
    )._project(what, llm)
    units = _hats.units(catalog)
    catalog = catalog[[name for name in catalog.columns if name != "vector"]]
    pixels = _hats.pixels(catalog)
    masks = None
    if where is not None and not callable(where):
        lengths = dict(_each(catalog[["ra"]], _n_rows, "counting"))
        masks = _shared_out(np.asarray(np.ma.filled(where, False)), lengths)
    if cone is not None:
        centre, radius = centre_and_radius(cone)
        near = catalog.cone_search(centre.ra.deg, centre.dec.deg, radius.to_value(u.arcsec),
                                   fine=False)
        pixels = _hats.pixels(near)
    answers = dict(_each(catalog, _best, "searching", vector, k, cone,
                         where if masks is None else masks, units, pixels=pixels, client=client))
    answers = [answers[pixel] for pixel in pixels if answers[pixel] is not None]
    if not answers:
        answers = [_nothing(catalog, units)]
    answer = vstack(answers, metadata_conflicts="silent")
    # Partitions, and rows in them, are in the order of the catalogue, which settles ties.
    answer = answer[np.argsort(-answer["similarity"], kind="stable")[:k]]
    answer.add_column(np.arange(1, len(answer) + 1), name="rank", index=0)
    answer["similarity"].info.format = ".3f"
    answer.meta.update({"target": "sources"} | meta)
    return answer


def _best(frame, pixel, vector, k, cone, where, units):
    """Runs on a worker: the k best rows of a partition, or None where there are none."""
    from .alignment._search import top_k
    from .alignment._selection import selection

    table = _hats.as_table(frame, pixel)
    if not len(table):
        return None
    facts = _hats.facts(table, units)
    mask = selection(facts, cone, where[pixel] if isinstance(where, dict) else where)
    similarity, index = top_k(vector, _hats.matrix(table["shared"]), k, mask=mask)
    answer = facts[index[0]]
    answer.add_column(similarity[0], name="similarity", index=0)
    return answer


def _nothing(catalog, units):
    answer = _hats.facts(_hats.as_table(catalog.meta, None), units)
    answer.add_column(np.empty(0, np.float32), name="similarity", index=0)
    return answer


def _n_rows(frame, pixel):
    return len(frame)


def _shared_out(mask, lengths):
    """The mask of each partition."""
    n = sum(lengths.values())
    if mask.shape != (n,) or mask.dtype != bool:
        raise ValueError(f"where must give one True or False per source ({n}), not an array of "
                         f"{mask.dtype} with shape {mask.shape}")
    return dict(zip(lengths, np.split(mask, np.cumsum(list(lengths.values()))[:-1])))


def _model_of(catalog, name):
    """The file of the model that embedded a catalogue: beside it, or the package's own."""
    key = f"stingray_align_{Path(name).stem}"
    wanted = getattr(catalog.hc_structure.catalog_info, key, None)
    for path in (Path(str(catalog.hc_structure.catalog_path)) / name, _BUNDLED[name]):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted:
            return path
    raise MissingModelError(f"{name} with the SHA-256 sum {wanted} is needed, which made this "
                            "catalogue; copy it from there into the folder of the catalogue")


# -- partition by partition -----------------------------------------------------------------------


def _each(catalog, work, doing, *args, pixels=None, client=None):
    """Call ``work(frame, pixel, *args)`` for each partition; yield pixel and result.

    In the order of the catalogue, or with a client as they finish. A partition that fails does not
    stop the others: `PartitionError` names all that failed when the rest is done, or at once when
    the disk is full.
    """
    pixels = _hats.pixels(catalog) if pixels is None else pixels
    bad = {}

    def outcome(pixel, get):
        try:
            return get()
        except Exception as error:  # whatever it is, the other partitions can still be done
            if _is_disk_full(error):
                raise PartitionError(
                    f"the disk is full ({error}); finished partitions are kept: free some space "
                    "and call again") from error
            bad[pixel] = error

    with _cluster(client) as cluster, tqdm(total=len(pixels), desc=doing, unit="partition",
                                           delay=2) as progress:
        for pixel, get in _started(catalog, pixels, work, args, cluster):
            result = outcome(pixel, get)
            progress.update()
            if pixel not in bad:
                yield pixel, result
    if bad:
        lines = [f"{_shown(catalog, pixel)}: {_hats.one_line(error)}"
                 for pixel, error in islice(bad.items(), _SHOWN)]
        lines += [f"and {len(bad) - _SHOWN} more"] * (len(bad) > _SHOWN)
        raise PartitionError(
            f"{doing} failed for {len(bad)} of {len(pixels)} partitions, the others are finished; "
            "remove the cause and call again:\n" + "\n".join(lines)
        ) from next(iter(bad.values()))


def _started(catalog, pixels, work, args, cluster):
    """Each pixel with a function that waits for its result."""
    import dask

    def delayed(pixel):
        frame, = catalog.partitions[[pixel]].to_delayed()
        return dask.delayed(work, pure=False)(frame, pixel, *args)

    if cluster is None:
        for pixel in pixels:
            yield pixel, lambda: delayed(pixel).compute(scheduler="synchronous")
        return
    from distributed import as_completed

    # A few for each worker at a time: the scheduler need not hold the whole catalogue.
    rest = iter(pixels)
    pixel_of = {}

    def submit(n):
        for pixel in islice(rest, n):
            future = cluster.compute(delayed(pixel))
            pixel_of[future] = pixel
            yield future

    running = as_completed(submit(4 * max(1, sum(cluster.nthreads().values()))))
    try:
        for future in running:
            running.update(submit(1))
            yield pixel_of.pop(future), future.result
    finally:
        cluster.cancel(list(pixel_of))


@contextlib.contextmanager
def _cluster(client):
    """A Dask client, or None for this process."""
    if client is None or not isinstance(client, str | int):
        yield client
        return
    from distributed import Client

    how = {"address": client} if isinstance(client, str) else {
        "n_workers": client, "threads_per_worker": 1, "dashboard_address": None}
    with Client(**how) as cluster:
        yield cluster


def _is_disk_full(error):
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _shown(catalog, pixel):
    """What to call a partition: its file, unless LSDB made it of several."""
    path = catalog.hc_structure.catalog_path
    return str(pixel if path is None else _hats.partition_path(path, pixel))
