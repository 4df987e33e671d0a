"""``stingray-align benchmark all``: every benchmark, its tables and figures, and one page of them.

Benchmarks run two at a time, and each leaves ``NAME.txt`` (what it prints), ``NAME/`` (tables and
figures) and ``NAME.json`` (how it was run, and what it found in a line). What is there already from
the same command and the same models is not done again, so that an interrupted run goes on where it
stopped.
"""

import hashlib
import html
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path

from ._files import BUNDLED, atomic_file

__all__ = ["RUNS", "run_all"]

#: What is run: name to arguments of ``stingray-align benchmark``, and the sources for ``--quick``.
RUNS = {
    "reconstruction-bright": (["reconstruction"], 60),
    # Few photons say little each: more sources, for errors as small as those of bright ones.
    "reconstruction-csc": (["reconstruction", "--counts", "csc", "--sources", "10000"], 60),
    "calibration-bright": (["calibration", "--counts", "bright", "--sources", "8000"], 60),
    "calibration-csc": (["calibration", "--sources", "8000"], 60),
    "challenge-bright": (["reconstruction", "--challenge", "--sources", "1000"], 40),
    "challenge-csc": (["reconstruction", "--challenge", "--counts", "csc", "--sources", "1000"],
                      40),
    "retrieval": (["retrieval"], 200),
    "regression": (["regression"], 200),
    "leakage": (["leakage", "--sources", "500"], 100),
    "domain-sense": (["domain-sense"], None),
    "classification": (["classification"], 300),
    "queries": (["queries"], None),
    "novelty": (["novelty"], 300),
    "ngc3621": (["ngc3621"], 2),
    "changes": (["changes", "--sources", "150"], 6),
    "interpretation": (["interpretation"], 200),
    "artefacts": (["artefacts", "--sources", "500"], 40),
    "time-shape": (["time-shape", "--sources", "6000"], 200),
    "instruments": (["instruments"], 40),
}

#: The longest are begun first, in this order, so that two processes end at about the same time.
_LONG = ("retrieval", "calibration-bright", "calibration-csc", "regression", "ngc3621",
         "reconstruction-csc", "changes")

_QUICK_PAIRS = "500"  # that the aligners to compare with learn from

#: Timing is done last and alone: what runs beside it would be measured, too.
_ALONE = {"cost": (["cost"], 100)}


def run_all(folder, *, quick=False, seed=None, files=(), only=None, n_processes=2, catalogue=None,
            model=None, work=None):
    """Run the benchmarks and write the page ``index.html``.

    Parameters
    ----------
    folder : Path
        Where everything goes; made if needed.
    quick : bool, optional
        Few sources and fast rivals: shows that everything works, in minutes; the figures are
        rough.
    seed : int or None, optional
        Of the simulated sources; by default that of the benchmarks.
    files : sequence of Path, optional
        Event files of one source each, for what is measured on real photons.
    only : sequence of str or None, optional
        Names out of `RUNS`.
    n_processes : int, optional
        How many run at a time.
    catalogue, model : Path or None, optional
        Other models than the bundled ones.
    work : Path or None, optional
        Folder of an alignment, whose vectors `retrieval` then needs not make again.

    Returns
    -------
    dict of str to str
        Benchmarks that failed, with the reason.
    """
    from tqdm.auto import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    runs = _arguments(quick, seed, files, catalogue, model, work)
    if only:
        if unknown := set(only) - set(runs):
            raise ValueError(f"no benchmark is called {', '.join(sorted(unknown))}; there are "
                             f"{', '.join(runs)}")
        runs = {name: arguments for name, arguments in runs.items() if name in only}
    models = _identity(catalogue, model)
    open_ = {name: arguments for name, arguments in runs.items()
             if not _done(folder, name, arguments, models)}
    failed = {}
    with tqdm(total=len(runs), initial=len(runs) - len(open_), unit="benchmark",
              disable=None) as bar:
        for chosen, workers in (([n for n in open_ if n not in _ALONE], n_processes),
                                ([n for n in open_ if n in _ALONE], 1)):
            # Fresh processes, as a forked one would inherit threads that do not run in it.
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"),
                                     initializer=_share_cores,
                                     initargs=(workers,)) as pool:
                jobs = {pool.submit(_run, folder, name, open_[name], models): name
                        for name in sorted(chosen, key=_turn)}
                for job in as_completed(jobs):
                    if reason := job.result():
                        failed[jobs[job]] = reason
                    bar.update()
                    _write_page(folder, runs, failed, quick)
    _write_page(folder, runs, failed, quick)
    return failed


def _turn(name):
    """Sorts benchmarks by when they are begun."""
    return _LONG.index(name) if name in _LONG else len(_LONG)


def _share_cores(n_processes):
    """Threads for one of so many processes; more than there are cores would wait for each other."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_processes)))


def _arguments(quick, seed, files, catalogue, model, work):
    """Full arguments of every run."""
    runs = dict(RUNS)
    if files:
        names = [str(Path(file).resolve()) for file in files]
        arguments, n_quick = RUNS["calibration-csc"]
        runs["calibration-csc"] = ([*arguments, "--files", *names], n_quick)
        runs |= {"thinning": (["thinning", *names], None), "real": (["real", *names], None)}
    common = []
    for option, value in (("--seed", seed), ("--catalogue", catalogue), ("--model", model)):
        common += [option, str(value)] if value is not None else []
    complete = {}
    for name, (arguments, n_quick) in (runs | _ALONE).items():
        arguments = list(arguments)
        if quick and n_quick:
            if "--sources" in arguments:
                del arguments[arguments.index("--sources"):][:2]
            arguments += ["--sources", str(n_quick)]
        if arguments[0] == "retrieval":
            arguments += ["--pairs", _QUICK_PAIRS] if quick else []
            arguments += ["--work", str(work)] if work is not None else []
        if quick and arguments[0] in ("reconstruction", "thinning"):
            arguments += ["--rivals", "fast"]
        complete[name] = [*arguments, *common]
    return complete


def _identity(catalogue, model):
    """What the figures depend on besides the arguments: the models, and this release."""
    digest = hashlib.sha256()
    for root in (model or BUNDLED / "autodecoder.safetensors", catalogue or BUNDLED / "catalogue"):
        root = Path(root)
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file():
                digest.update(path.read_bytes())
    try:
        release = version("stingray-align")
    except PackageNotFoundError:  # used from a source tree
        release = "unknown"
    return {"models": digest.hexdigest()[:16], "release": release}


def _done(folder, name, arguments, models):
    try:
        state = json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return False
    return state["arguments"] == arguments and state["models"] == models["models"] \
        and (folder / f"{name}.txt").is_file()


def _run(folder, name, arguments, models):
    """Run one benchmark in this process; the reason if it fails."""
    from .cli import main

    os.environ.setdefault("MPLBACKEND", "Agg")
    begin, printed = time.monotonic(), StringIO()
    sys.stderr = open(folder / f"{name}.log", "w")  # progress bars of several runs do not mix
    with redirect_stdout(printed):
        status = main(["benchmark", *arguments, "-o", str(folder / name)])
    if status:
        sys.stderr.flush()
        lines = (folder / f"{name}.log").read_text().strip().splitlines()
        return lines[-1] if lines else f"exit status {status}"
    # The paths of written files depend on where this runs.
    lines = [line.rstrip() for line in printed.getvalue().strip().splitlines()
             if not line.startswith("Tables and figures: ")]
    for path, text in ((f"{name}.txt", "\n".join(lines) + "\n"),
                       (f"{name}.json", json.dumps(models | {
                           "arguments": arguments,
                           "seconds": round(time.monotonic() - begin)}))):
        with atomic_file(folder / path) as temporary:
            temporary.write_text(text)
    (folder / f"{name}.log").unlink()
    return None


# -- the page -------------------------------------------------------------------------------------

_TITLES = {
    "reconstruction": "Reconstruction of the photon rate", "calibration": "Honest intervals",
    "retrieval": "Photons find texts, texts find photons", "regression": "Physical parameters",
    "classification": "Classes",
    "queries": "Questions in plain words", "novelty": "Sources unlike any other",
    "artefacts": "Artefacts of the instrument", "changes": "Has a source changed?",
    "interpretation": "Class probabilities and parameters of an interpretation",
    "time-shape": "What the light curve does", "instruments": "Other instruments",
    "leakage": "What texts give away", "domain-sense": "Meaning and wording",
    "ngc3621": "A galaxy of six sources",
    "cost": "Time and memory", "thinning": "Photons of real sources not shown to the model",
    "real": "Real event files",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6778; --line: #d7dde6; --page: #fbfbfa;
  --card: #fff; --accent: #0072B2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #a3adbb; --line: #363e4b;
  --page: #14181f; --card: #1b212b; --accent: #56B4E9; } figure { background: #fff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
main, header { max-width: 68rem; margin: auto; padding: 1.5rem; }
header p, .about { color: var(--soft); max-width: 46rem; }
h1 { font-size: 2rem; margin: 1rem 0 .2rem; } h2 { margin: 0 0 .3rem; font-size: 1.35rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1.3rem 1.5rem; margin: 1.5rem 0; }
.found { list-style: none; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
.found a { display: block; height: 100%; color: inherit; text-decoration: none; padding: .8rem 1rem;
  border: 1px solid var(--line); border-left: .3rem solid var(--accent); border-radius: .4rem;
  background: var(--card); }
.found b { display: block; } .found span { color: var(--soft); }
figure { margin: 1rem 0; padding: .5rem; border-radius: .4rem; } figure img { max-width: 100%; }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.35; }
code { font-size: .85em; } summary { cursor: pointer; color: var(--accent); }
.failed { border-color: #D55E00; }
"""


def _write_page(folder, runs, failed, quick):
    """One page of everything that is there so far."""
    from ._benchmarks import DESCRIPTIONS

    cards, sections = [], []
    for name, arguments in runs.items():
        kind = arguments[0]
        title = html.escape(_titled(name, kind))
        if name in failed:
            sections.append(f'<section class="failed" id="{name}"><h2>{title}</h2><p>Failed: '
                            f"{html.escape(failed[name])}</p></section>")
            continue
        try:
            text = (folder / f"{name}.txt").read_text()
            state = json.loads((folder / f"{name}.json").read_text())
        except OSError:
            continue  # not there yet
        headline = folder / name / "headline.txt"
        found = html.escape(headline.read_text().strip()) if headline.is_file() else ""
        if found:
            cards.append(f'<li><a href="#{name}"><b>{title}</b><span>{found}</span></a></li>')
        shown = [argument for argument in arguments if not argument.startswith("/")]
        figures = "".join(
            f'<figure><a href="{name}/{path.stem}.pdf"><img loading="lazy" alt="{path.stem}" '
            f'src="{name}/{path.name}"></a></figure>'
            for path in sorted((folder / name).glob("*.png"))[:_MOST_FIGURES])
        sections.append(
            f'<section id="{name}"><h2>{title}</h2>'
            f'<p class="about">{html.escape(DESCRIPTIONS[kind])} '
            f"<code>stingray-align benchmark {html.escape(' '.join(shown))}</code>, "
            f"{state['seconds'] / 60:.1f} min.</p>{figures}"
            f"<details><summary>All figures in numbers</summary><pre>{html.escape(text)}</pre>"
            "</details></section>")
    rough = ("<p><b>A quick run</b> with few sources: it shows that everything works. The numbers "
             "are rough; see their errors.</p>" if quick else "")
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>stingray-align: what it reaches</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><header><h1>What stingray-align reaches</h1>
<p>Measured on simulated sources that no training has seen, unless a section says otherwise. Errors
are from a bootstrap over sources; chance and simple methods stand beside the models, also where
they win.</p>{rough}<ul class="found">{''.join(cards)}</ul></header>
<main>{''.join(sections)}</main></body></html>
"""
    with atomic_file(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


_MOST_FIGURES = 12  # of one benchmark on the page; the others are in its folder


def _titled(name, kind):
    title = _TITLES.get(kind, kind.replace("-", " ").capitalize())
    kinds = {"bright": "20 to 3,000 photons", "csc": "as many photons as in the CSC"}
    other = [kinds[word] for word in name.split("-") if word in kinds]
    if name.startswith("challenge"):
        title += " of sources unlike the training's"
    return ": ".join([title, *other])
