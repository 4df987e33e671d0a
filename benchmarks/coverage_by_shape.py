"""Do intervals of the rate hold the truth for every kind of variability, rare kinds included?

Run ``python benchmarks/coverage_by_shape.py`` (``--counts bright`` for 20 to 3,000 photons).
`stingray-align benchmark calibration` tests a population as it comes, with a few hundred sources of
a rare kind, whose coverage is uncertain by a hundredth. Here the same population goes on being
simulated until there are as many sources of each kind as asked for.
"""

import argparse

import numpy as np
from tqdm import tqdm

from stingray_align.autodecoder import PoissonAutodecoder
from stingray_align.autodecoder.descriptors import TIME_SHAPES
from stingray_align.datasets import simulate_population
from stingray_align.evaluate import calibration
from stingray_align.evaluate._autodecoder_calibration import _exposed_times
from stingray_align.evaluate._report import joined_errors

LEVELS = (0.68, 0.95)
N_TIMES = 16        # in each source, as in the benchmark of the calibration
BLOCK = 8192


def simulated(n, seed, counts):
    """Photons, true rates (m, 16) in 1/s, their time bins and kinds, ``n`` sources of each kind."""
    missing, blocks = dict.fromkeys(TIME_SHAPES, n), []
    with tqdm(desc="simulating", total=n * len(missing), unit="source") as bar:
        while any(missing.values()):
            block = len(blocks)
            population = simulate_population(BLOCK, [seed, block], counts=counts, summaries=0)
            shapes, rows = np.asarray(population.truth["time_shape"]), []
            for shape in missing:
                rows.extend(np.flatnonzero(shapes == shape)[:missing[shape]])
                missing[shape] = max(missing[shape] - np.sum(shapes == shape), 0)
            photons = population.photons[np.array(rows, dtype=int)]
            times, bins = _exposed_times(photons, N_TIMES, np.random.default_rng([seed, block]))
            true = [population.true_rate(row, t).sum(axis=1) for row, t in zip(rows, times)]
            blocks.append((photons, np.reshape(true, (-1, N_TIMES)), bins, shapes[rows]))
            bar.update(len(rows))
    return blocks


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=1500, help="of each kind of variability")
    parser.add_argument("--counts", default="csc", help="csc or bright")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    model = PoissonAutodecoder.pretrained()
    tails = np.array([[(1 - level) / 2, (1 + level) / 2] for level in LEVELS]).ravel()
    truth, ends, counts, kinds = [], [], [], []
    for photons, true, bins, shapes in tqdm(simulated(args.sources, args.seed, args.counts),
                                            desc="intervals", unit="block"):
        for start in range(0, len(photons), 500):
            rows = slice(start, start + 500)
            found = model.quantiles(photons[rows], tails)["rate"]
            ends.append(np.take_along_axis(found, bins[rows, :, None], axis=1))
        truth.append(true)
        counts.append(photons.n_photons)
        kinds.append(shapes)
    truth, ends, counts = np.concatenate(truth), np.concatenate(ends), np.concatenate(counts)
    lower, upper = (np.moveaxis(ends[..., k::2], -1, 0) for k in (0, 1))
    result = calibration(truth, lower, upper, counts, levels=LEVELS, labels=np.concatenate(kinds))
    print(f"Coverage of the rate at random times, photon counts: {args.counts}\n")
    table = joined_errors(result.to_table("label"))
    table.remove_columns([result.score_name])
    print("\n".join(table[:-1].pformat(max_lines=-1, max_width=-1)))    # "all" is no population
    print("\nErrors: bootstrap over sources.")


if __name__ == "__main__":
    main()
