"""How the time to train the aligner grows with the number of sources.

Run ``python benchmarks/alignment.py``. The vectors are random numbers of the size of the real ones,
with four rows for each source as in the training of the bundled aligner. The table has the seconds
on the clock and of processor time, and the ratio of the former to a budget of five minutes, which
should be below one at 20,000 sources on two free cores. Early stopping is off: it can only be
faster.
"""

import argparse
import time

import numpy as np
from astropy.table import Table

import stingray_align as sa
from stingray_align.text.slots import N_SLOTS

SOURCES = (500, 2_000, 20_000, 100_000)
VIEWS, EVENT_FEATURES, PROSE = 4, 217, 384
BUDGET = 300.0  # seconds


def seconds(n_sources, seed):
    """Time on the clock and of the processor for so many sources, and the sizes chosen."""
    rng = np.random.default_rng(seed)
    events = rng.standard_normal((VIEWS * n_sources, EVENT_FEATURES), dtype=np.float32)
    texts = rng.standard_normal((VIEWS * n_sources, PROSE + N_SLOTS), dtype=np.float32)
    groups = np.tile(np.arange(n_sources), VIEWS)
    begin, begin_processor = time.perf_counter(), time.process_time()
    aligner = sa.Aligner(seed=seed).fit(events, texts, groups, validation_fraction=0)
    return time.perf_counter() - begin, time.process_time() - begin_processor, aligner.sizes_


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sources", type=int, nargs="+", default=SOURCES)
    options = parser.parse_args()
    rows = []
    for n in options.sources:
        taken, processor, sizes = seconds(n, options.seed)
        rows.append((n, *sizes, round(taken, 1), round(processor, 1), round(taken / BUDGET, 3)))
    Table(rows=rows, names=["sources", "width", "dropout", "batch", "steps", "seconds",
                            "of processor", "times the budget"]).pprint(max_width=-1)


if __name__ == "__main__":
    main()
