"""How the time to embed one source grows with its photons and with its window.

Run ``python benchmarks/scaling.py``. Two tables are printed: one source of 10 to 10^6 photons in a
window of 100 ks, and one source of 1000 photons in windows of 100 s to 500 ks. Times are medians
on one thread; the columns named ``times`` are ratios within the run, which mean the same on every
machine. A growth slower than the number of photons is what to look for.
"""

import argparse
import time
import warnings

import numpy as np
from astropy.table import Table

import stingray_align as sa
from stingray_align.autodecoder import embed_vectors
from stingray_align.photons import Photons

PHOTONS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
DURATIONS = (100, 1e3, 1e4, 1e5, 5e5)


def median_ms(work, n_repeats):
    """Median time of a call in ms, the first call left out."""
    work()
    times = []
    for _ in range(n_repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1e3 * np.median(times)


def measure(counts, duration, seed, n_repeats):
    """Photons of one simulated source, and ms for photons, for the vector, and for both."""
    population = sa.datasets.simulate_population(
        1, seed, counts=(counts, counts), duration=(duration, duration), instruments="ACIS-S",
        classes="black-hole transient", summaries=0)
    events, photons = population.event_lists[0], population.photons
    return (int(photons.n_photons[0]),
            median_ms(lambda: Photons.from_events(events), n_repeats),
            median_ms(lambda: embed_vectors(photons), n_repeats),
            median_ms(lambda: sa.embed(events), n_repeats))


def table(first, values, rows, reference):
    """Times with their ratio to those of one row."""
    number, *columns = np.transpose(rows)
    result = Table({first: values, "photons": number.astype(int)})
    for name, ms in zip(("binning", "model", "embed()"), columns):
        result[f"{name} ms"] = np.round(ms, 2)
        result[f"{name} times"] = np.round(ms / ms[reference], 2)
    result["microseconds per photon"] = np.round(1e3 * columns[-1] / number, 2)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with warnings.catch_warnings():
        # Windows at the very ends are part of the table.
        warnings.simplefilter("ignore", sa.errors.DomainShiftWarning)
        rows = [measure(n, 1e5, options.seed, options.repeats) for n in PHOTONS]
        table("asked for", PHOTONS, rows, PHOTONS.index(1_000)).pprint(max_width=-1)
        print()
        rows = [measure(1_000, length, options.seed, options.repeats) for length in DURATIONS]
        table("window s", DURATIONS, rows, DURATIONS.index(1e5)).pprint(max_width=-1)


if __name__ == "__main__":
    main()
