"""How well the photons' energies can tell the parameters of a source at all.

Run ``python benchmarks/spectrum_limit.py``. Sources are simulated as everywhere, seen by one
instrument, and the photons of each in twenty channels are compared with the spectra of many others
of the same population: each counts by its Poisson likelihood (importance sampling from the prior,
as in approximate inference by look-up). The mean parameter of those that fit is the best that
anyone can say in the mean squared sense who knows the population, the background and the spectrum,
but not the times; *class known* compares only with sources of the same class. Beside them are the
descriptors of the embedding, which see times, too. *fitting* is how many simulated spectra share
the weight, the median over sources: of the brightest sources few fit, so that their limit is a
lower bound.
"""

import argparse

import numpy as np
from tqdm import tqdm

from stingray_align.autodecoder import PoissonAutodecoder, embed_vectors
from stingray_align.autodecoder.readouts import feature_names
from stingray_align.datasets import _simulate, stream
from stingray_align.datasets.population import _pack
from stingray_align.evaluate._report import bootstrap, figures, joined_errors
from stingray_align.photons import N_CHANNELS, Photons

#: Photons from which the figures hold, as in the benchmark of regression.
BRIGHT = 300
#: Parameters by name, with the name that the training knows them by.
PARAMETERS = {"hardness": "hardness", "photon_index": "photon_index", "log n_h": "n_h",
              "log kT": "kT"}


def simulated(n, seed, instrument):
    """Photons of simulated sources, and what is true of them.

    As arrays: the expected photons of source and background in each channel, shape (n, 2, 20), the
    parameters, shape (n, 4), and the classes, shape (n,).
    """
    photons, expected, targets, classes = [], [], [], []
    columns = [list(stream.TARGETS).index(name) for name in PARAMETERS.values()]
    for number in range(-(-n // _simulate.CHUNK)):
        rng = np.random.default_rng([seed, number])
        chunk = _simulate.simulate(rng, _simulate.CHUNK, "csc", _simulate.class_names(None),
                                   _simulate.instrument_weights(instrument))
        truth = stream._truth(chunk, rng)
        photons.append(_pack(chunk))
        expected.append(np.stack([truth.expected[:, :2].sum(axis=1), truth.expected[:, 2]], axis=1))
        targets.append(truth.targets[:, columns])
        classes.append(chunk.truth["class"])
    return (Photons.concatenate(photons), np.concatenate(expected).astype(float),
            np.concatenate(targets), np.concatenate(classes))


def posterior_means(counts, expected, spectra, parameters, allowed):
    """Means (m,) of the parameters (n, m) of spectra (n, 20), weighted by how they fit.

    And how many of them share the weight. ``allowed`` (n, m) says which count.
    """
    share = expected[1].sum() / expected.sum()
    background = expected[1] / max(expected[1].sum(), 1e-9)
    fits = np.log((1 - share) * spectra + share * background + 1e-12) @ counts
    means, numbers = np.full((2, parameters.shape[1]), np.nan)
    for k in np.flatnonzero(allowed.any(axis=0)):
        weight = np.exp(np.where(allowed[:, k], fits - fits[allowed[:, k]].max(), -np.inf))
        means[k] = weight @ np.where(allowed[:, k], parameters[:, k], 0) / weight.sum()
        numbers[k] = weight.sum() ** 2 / (weight**2).sum()
    return means, numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=100_000, help="to compare with")
    parser.add_argument("--sources", type=int, default=20_000,
                        help="of which those with more than 300 photons count")
    parser.add_argument("--instrument", default="ACIS-S")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    _, expected, parameters, classes = simulated(args.spectra, args.seed + 1, args.instrument)
    spectra = expected[:, 0] / expected[:, 0].sum(axis=1, keepdims=True)
    known = np.isfinite(parameters)
    photons, expected, truth, own = simulated(args.sources, args.seed, args.instrument)
    chosen = np.flatnonzero(photons.n_photons > BRIGHT)
    photons, expected, truth, own = (x[chosen] for x in (photons, expected, truth, own))
    model = PoissonAutodecoder.pretrained()
    names = feature_names(model.n_latent)
    columns = [names.index(f"estimated_{name.replace(' ', '_')}") for name in PARAMETERS]
    found = embed_vectors(photons, model)[:, columns]
    limits = {"spectrum alone": [], "class known": []}
    for i in tqdm(range(len(photons)), "sources"):
        counts = np.bincount(photons[i].channel, minlength=N_CHANNELS).astype(float)
        for name, allowed in (("spectrum alone", known),
                              ("class known", known & (classes == own[i])[:, None])):
            limits[name].append(posterior_means(counts, expected[i], spectra, parameters, allowed))

    rows = []
    for k, parameter in enumerate(PARAMETERS):
        use = np.flatnonzero(np.isfinite(truth[:, k]))
        row = [parameter, len(use)]
        for estimate in (*(np.array([mean for mean, _ in of])[:, k] for of in limits.values()),
                         found[:, k]):
            row += r_squared(truth[use, k], estimate[use])
        numbers = [np.median(np.array([number for _, number in of])[use, k])
                   for of in limits.values()]
        rows.append((*row, *(int(round(number)) for number in numbers)))
    columns = [c for name in (*limits, "embedding") for c in (name, f"{name} error")]
    print(f"R2 above {BRIGHT} photons, {args.instrument}, photons as in the Chandra Source "
          f"Catalog; {args.spectra} spectra\n")
    joined_errors(figures(rows, ["parameter", "sources", *columns, "fitting",
                                 "fitting, class known"])).pprint_all()


def r_squared(truth, estimate):
    """Share of the variance explained, and its error."""
    return bootstrap(lambda i: 1 - np.mean((truth[i] - estimate[i]) ** 2) / np.var(truth[i]),
                     len(truth))[:2]


if __name__ == "__main__":
    main()
