"""How well few photons can tell a light curve, and of which kind it is, at all.

Run ``python benchmarks/light_curve_limit.py``. Sources are simulated as everywhere, but all with
the same expected number of photons, seen by ACIS-S for 30 ks without a gap. Half of the photons are
compared with the light curves of many other simulated sources, those of 0.5 to 7 keV in the 512
time bins: each counts by its Poisson likelihood, times that of the photons' energies among the
sources of its class (importance sampling from the prior, as in approximate inference by look-up).
Their weighted mean is the best estimate of the rate, and the kind of variability with most weight
the best guess, for anyone who knows the population, as long as enough light curves share the
weight: *fitting* is how many, the median over sources. Where they are few, a better guess than this
*look-up* is possible.

The other half of the photons scores the rates: log-likelihood over that of a constant, nat per
source. The rows divide the sources by what the true rate is expected to gain.
"""

import argparse
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from stingray_align.autodecoder import PoissonAutodecoder, embed_vectors
from stingray_align.autodecoder.cox import cox_processes
from stingray_align.autodecoder.descriptors import TIME_SHAPES
from stingray_align.autodecoder.readouts import feature_names
from stingray_align.datasets import _simulate
from stingray_align.datasets.population import _pack
from stingray_align.evaluate._report import figures, joined_errors
from stingray_align.photons import BAND_OF_CHANNEL, N_TIME_BINS, Photons

INSTRUMENT, DURATION = "ACIS-S", 3e4
#: Gains, nat, that the true rate is expected to have over a constant.
GAINS = (2.5, 5, 10, 20, 50)
CLASSES = _simulate.class_names(None)
#: Light curves compared at once.
BLOCK = 8192


class Truth(NamedTuple):
    """What is true of each source.

    Rate of 0.5 to 7 keV over its mean (n, 512), photons expected from it, share of all photons in
    each channel (n, 20), and number of class and kind.
    """

    rate: np.ndarray
    photons: np.ndarray
    spectrum: np.ndarray
    source_class: np.ndarray
    kind: np.ndarray


def simulated(n, seed, counts, photons):
    """Truth of simulated sources, and their photons if wanted."""
    found, truths = [], []
    for number in tqdm(range(-(-n // _simulate.CHUNK)), f"simulation, {counts:g} ct"):
        chunk = _simulate.simulate(
            np.random.default_rng([seed, number]), _simulate.CHUNK, (counts, counts), CLASSES,
            _simulate.instrument_weights(INSTRUMENT), duration=(DURATION, DURATION),
            photons=photons)
        whole = np.flatnonzero([len(gti) == 1 for gti in chunk.gti])
        rate = chunk.rate().sum(axis=2).reshape(len(chunk.gti), N_TIME_BINS, -1).mean(axis=2)
        mean = rate.mean(axis=1)
        spectrum = chunk.in_channels().sum(axis=0)
        truth = Truth((rate / mean[:, None]).astype(np.float16), mean * DURATION,
                      spectrum / spectrum.sum(axis=1, keepdims=True),
                      np.array([CLASSES.index(name) for name in chunk.truth["class"]]),
                      np.searchsorted(TIME_SHAPES, chunk.truth["time_shape"]))
        truths.append(Truth(*(part[whole] for part in truth)))
        if photons:
            found.append(_pack(chunk)[whole])
    truth = Truth(*map(np.concatenate, zip(*truths)))
    return truth, (Photons.concatenate(found) if photons else None)


def counted(photons):
    """Photons of 0.5 to 7 keV in each time bin (n, 512), and all in each channel (n, 20)."""
    counts = photons.counts()
    return counts[:, :, BAND_OF_CHANNEL < 3].sum(axis=2), counts.sum(axis=1)


def look_up(in_bins, in_channels, prior):
    """Mean rate (n, 512), probability of each kind (n, 13), and how many fit (n,)."""
    n, members = len(in_bins), np.bincount(prior.source_class, minlength=len(CLASSES))
    of_class = np.zeros((n, len(CLASSES)))
    largest = (in_channels * np.log(np.maximum(in_channels, 1)
                                    / in_channels.sum(axis=1, keepdims=True))).sum(axis=1)
    blocks = [Truth(*(part[low:low + BLOCK] for part in prior))
              for low in range(0, len(prior.kind), BLOCK)]
    for block in blocks:
        fits = np.exp(in_channels @ np.log(block.spectrum.T + 1e-12) - largest[:, None])
        of_class += fits @ np.eye(len(CLASSES))[block.source_class]
    log_class = np.log(of_class / members + 1e-300)

    rate, kinds = np.zeros((n, N_TIME_BINS)), np.zeros((n, len(TIME_SHAPES)))
    highest, weights, squares = np.full(n, -np.inf), np.zeros(n), np.zeros(n)
    for block in tqdm(blocks, "look-up"):
        curves = block.rate.astype(np.float32)
        fits = (in_bins @ np.log(np.maximum(curves.T, 1e-4)) + log_class[:, block.source_class]
                + in_bins.sum(axis=1)[:, None] * np.log(block.photons) - block.photons)
        before, highest = highest, np.maximum(highest, fits.max(axis=1))
        weight, old = np.exp(fits - highest[:, None]), np.exp(before - highest)
        weights = weights * old + weight.sum(axis=1)
        squares = squares * old**2 + (weight**2).sum(axis=1)
        rate = rate * old[:, None] + weight @ curves
        kinds = kinds * old[:, None] + weight @ np.eye(len(TIME_SHAPES))[block.kind]
    return rate / weights[:, None], kinds / weights[:, None], weights**2 / squares


def in_time(rates):
    """Rates (n, cells) or (n, cells, bands) over their mean, in the time bins."""
    rates = rates.reshape(len(rates), N_TIME_BINS, -1).sum(axis=2)
    return rates / rates.mean(axis=1, keepdims=True)


def compared(model, counts, n, n_prior, seed):
    """Rows of the table for one expected number of photons in each half."""
    truth, photons = simulated(n, seed, 2 * counts, True)
    prior, _ = simulated(n_prior, seed + 1, 2 * counts, False)
    prior = prior._replace(photons=prior.photons / 2)
    seen, other = photons.thin(0.5, np.random.default_rng(seed))
    looked_up, kinds, fitting = look_up(*counted(seen), prior)

    names = feature_names(model.n_latent)
    columns = [names.index(f"log_probability_{kind.replace(' ', '_')}") for kind in TIME_SHAPES]
    right = {"embedding": embed_vectors(seen, model)[:, columns].argmax(axis=1) == truth.kind,
             "look-up": kinds.argmax(axis=1) == truth.kind}
    cox = np.array([fit.shape for fit in tqdm(cox_processes(seen), "Cox process", len(seen))])
    rate = truth.rate.astype(float)
    left, _ = counted(other)
    score = {name: (left * np.log(np.maximum(curve, 1e-6))).sum(axis=1) for name, curve in {
        "true": rate, "embedding": in_time(model.band_rates(seen)), "Cox process": in_time(cox),
        "look-up": looked_up}.items()}

    variable = truth.kind != TIME_SHAPES.index("constant")
    gain = truth.photons / 2 * (rate * np.log(np.maximum(rate, 1e-6))).mean(axis=1)
    by = np.digitize(gain, GAINS)
    chosen = {f"below {GAINS[0]:g}": variable & (by == 0)}
    chosen |= {f"{low:g} to {high:g}": variable & (by == k + 1)
               for k, (low, high) in enumerate(zip(GAINS[:-1], GAINS[1:]))}
    chosen |= {f"above {GAINS[-1]:g}": variable & (by == len(GAINS)), "constant": ~variable,
               "all": np.full(len(variable), True)}
    for what, some in chosen.items():
        row = [f"{counts:g}", what, int(some.sum()), round(float(np.median(fitting[some])))]
        for hit in (right["embedding"], right["look-up"]):
            row += mean(hit[some])
        row += [each[some].mean() for each in score.values()]
        yield (*row, *mean((score["look-up"] - score["embedding"])[some]))


def mean(x):
    """Mean and its error."""
    return float(np.mean(x)), float(np.std(x) / np.sqrt(len(x)))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photons", type=float, nargs="+", default=[25, 75, 250],
                        help="expected in each half")
    parser.add_argument("--light-curves", type=int, default=400_000, help="to compare with")
    parser.add_argument("--sources", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    model = PoissonAutodecoder.pretrained()
    rows = [row for counts in args.photons
            for row in compared(model, counts, args.sources, args.light_curves, args.seed)]
    print(f"Kind of variability recognised, one of 13, and gain over a constant of photons not "
          f"seen, nat per source;\n{INSTRUMENT}, {DURATION / 1e3:g} ks, {args.light_curves} light "
          "curves to look up in\n")
    joined_errors(figures(rows, [
        "photons", "gain, nat", "sources", "fitting", "right", "right error", "right, look-up",
        "right, look-up error", "true rate", "embedding", "Cox process", "look-up",
        "look-up - embedding", "look-up - embedding error"])).pprint_all()


if __name__ == "__main__":
    main()
