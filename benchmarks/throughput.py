"""How fast whole catalogues are written, read, embedded and searched, and in how much memory.

Run ``python benchmarks/throughput.py``. Sources are simulated with photon counts as in the Chandra
Source Catalog, placed all over the sky, written as a HATS catalogue, read back, embedded and
projected with the bundled models, and queried. Every stage runs in a process of its own, so that
its peak memory is its own, and on one core. Seconds are those of the processor, which other work
on the machine hardly changes. A time per source, and a peak memory, that do not grow with the
number of sources are what to look for. The estimates at the end are proportions, not measurements.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table
from tqdm.auto import tqdm

PART = 2000  # sources simulated at a time
STAGES = ("simulate", "write", "read", "embed", "query")
QUESTION = "a soft source that flares about once an hour"


class Clock:
    """Seconds of the processor spent inside ``with`` blocks."""

    seconds = 0.0

    def __enter__(self):
        self.begin = time.process_time()

    def __exit__(self, *error):
        self.seconds += time.process_time() - self.begin


def simulated(n, seed, clock):
    """Parts of a catalogue: event lists, and a table of names and positions."""
    import stingray_align as sa

    for first in range(0, n, PART):
        size = min(PART, n - first)
        with clock:
            population = sa.datasets.simulate_population(size, seed + first, summaries=0)
            events = list(population.event_lists)
            table = population.truth["class", "flux"]
            rng = np.random.default_rng(seed + first)
            table["name"] = [f"simulated {first + i}" for i in range(size)]
            table["ra"] = rng.uniform(0, 360, size) * u.deg
            table["dec"] = np.degrees(np.arcsin(rng.uniform(-1, 1, size))) * u.deg
        yield events, table


def stage(name, folder, n, seed):
    """Run one stage; what it cost."""
    from stingray_align import scale

    with tempfile.TemporaryDirectory() as small:  # imports and first calls are not measured
        _warm_up(Path(small), scale)
    sources, embedded = folder / "sources", folder / "embedded"
    clock, simulation, found = Clock(), Clock(), {}
    if name == "write":
        with clock:
            scale.write_catalog(simulated(n, seed, simulation), sources)
        found["simulate"] = simulation.seconds
    elif name == "read":
        found["photons"] = 0
        for events, _ in _timed(scale.read_catalog(sources), clock):
            found["photons"] += sum(one.n for one in events)
    elif name == "embed":
        with clock:
            scale.embed_catalog(sources, embedded)
    elif name == "query":
        with clock:
            scale.query(embedded, QUESTION)
    found["seconds"] = clock.seconds - simulation.seconds
    found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def _warm_up(folder, scale):
    scale.write_catalog(simulated(20, 0, Clock()), folder / "sources")
    scale.embed_catalog(folder / "sources", folder / "embedded")
    scale.query(folder / "embedded", QUESTION)


def _timed(iterator, clock):
    while True:
        with clock:
            value = next(iterator, None)
        if value is None:
            return
        yield value


def measure(n, seed, folder):
    """All stages for one number of sources, each in a process of its own."""
    rows, photons = {}, 0
    with tempfile.TemporaryDirectory(dir=folder) as work:
        for name in STAGES[1:]:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", __file__, "--stage", name, "--folder", work,
                 "--seed", str(seed), "--sizes", str(n)],
                check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            found = json.loads(done.stdout)
            photons += found.pop("photons", 0)
            if "simulate" in found:
                rows["simulate"] = {"seconds": found.pop("simulate"), "peak MB": found["peak MB"]}
            rows[name] = found
        rows["disk MB"] = sum(path.stat().st_size for path in Path(work).rglob("*")
                              if path.is_file()) / 1e6
    return rows, photons


def table_of(results):
    """Times and memory of all sizes, as ratios to the smallest one too."""
    table = Table(names=("sources", "stage", "s", "ms per source", "ratio", "sources per s",
                         "against reading", "peak MB"),
                  dtype=(int, "U8", float, float, float, int, float, int))
    first = next(iter(results))
    for n, (rows, _) in results.items():
        for name in STAGES:
            seconds = rows[name]["seconds"]
            table.add_row((n, name, round(seconds, 2), round(1e3 * seconds / n, 4),
                           round(seconds / n / (results[first][0][name]["seconds"] / first), 2),
                           round(n / seconds), round(seconds / rows["read"]["seconds"], 2),
                           round(rows[name]["peak MB"])))
    return table


def estimates(results):
    """What the largest run means for more photons and more machines."""
    n, (rows, photons) = list(results.items())[-1]
    per_source = {name: rows[name]["seconds"] / n for name in STAGES}
    photons_each = photons / n
    billion = 1e9 / photons_each
    core_hours = billion * per_source["embed"] / 3600
    return [
        f"{photons_each:.0f} photons to a source, {rows['disk MB'] * 1e3 / n:.1f} kB on disk",
        f"estimate: 10^9 photons are {billion:.3g} such sources; embedding them takes "
        f"{core_hours:.1f} core hours, {core_hours / 2:.1f} h on two cores",
        f"estimate: 100 nodes of 32 cores embed {3200 / per_source['embed']:.3g} sources per "
        "second if storage keeps up, "
        f"{1e7 * per_source['embed'] / 3200:.0f} s for ten million",
        f"estimate: two cores embed {2 * 8 * 3600 / per_source['embed']:.3g} sources in a night "
        "of 8 h",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where there is room; default: the system's")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(stage(options.stage, options.folder, options.sizes[0], options.seed)))
        return
    results = {n: measure(n, options.seed, options.folder)
               for n in tqdm(options.sizes, "sizes", disable=None)}
    table_of(results).pprint(max_lines=-1, max_width=-1)
    print("\n" + "\n".join(estimates(results)))


if __name__ == "__main__":
    main()
