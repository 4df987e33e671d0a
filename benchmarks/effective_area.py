"""What it costs to take the effective area of an observation for another one's.

Run ``python benchmarks/effective_area.py``. Simulated sources are seen through ACIS-S with the
contamination of some years (`stingray_align.instruments.contamination`), of which the layer here is
a quarter thicker than the package takes it to be: each photon is kept with the probability that it
gets through. They are embedded as if there were no layer, with the area that an observation of that
year is taken to have, and with its own area, which real observations have in their ancillary
response files. With ``--arf FILE ...`` they are also seen through the effective areas of such
files, up to a factor.

The first table has the bias and the mean absolute error of the parameters' medians, and the share
of sources whose 68 % interval holds the truth, the second for how many the likeliest class of an
interpretation is right; with bootstrap errors. Simulated.
"""

import argparse
from pathlib import Path

import numpy as np

import stingray_align as sa
from stingray_align.autodecoder.areas import seen_through
from stingray_align.evaluate._report import bootstrap, figures, joined_errors
from stingray_align.instruments import contamination, read_arf
from stingray_align.photons import CHANNEL_EDGES

YEARS = (2000, 2005, 2010, 2015, 2020)
#: Optical depth of the layer over that of `contamination`.
THICKER = 1.25
#: Parameters, and whether they are compared in dex.
PARAMETERS = {"n_h": True, "kT": True, "photon_index": False}


def rows_of(name, photons, truth, model):
    """Bias, error and coverage of each parameter."""
    found = model.quantiles(photons, [0.16, 0.5, 0.84])
    for parameter, in_dex in PARAMETERS.items():
        estimate, true = found[parameter], np.asarray(truth[parameter], float)
        if in_dex:
            estimate, true = np.log10(estimate), np.log10(true)
        use = np.isfinite(true) & (photons.n_photons >= 20)
        (low, middle, high), true = estimate[use].T, true[use]
        off, held = middle - true, (low <= true) & (true <= high)
        measured = bootstrap(
            lambda i: np.array([off[i].mean(), np.abs(off[i]).mean(), held[i].mean()]), len(true))
        yield (*name, f"log {parameter}" if in_dex else parameter, len(true),
               *(x for value, error, *_ in measured for x in (value, error)))


def right_class(photons, truth, model, catalogue):
    """Share of the sources whose likeliest class is theirs, and its error."""
    use = photons.n_photons >= 20
    projected = catalogue.aligner.transform_events(sa.autodecoder.embed_vectors(photons, model))
    best = [catalogue.class_probabilities(own[None]).argmax() for own in projected[use]]
    right = np.array(catalogue.classes)[best] == np.asarray(truth["class"])[use]
    return bootstrap(lambda i: right[i].mean(), len(right))[:2]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=4000)
    parser.add_argument("--arf", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--seed", type=int, default=4321)
    args = parser.parse_args()

    model = sa.PoissonAutodecoder.pretrained()
    population = sa.datasets.simulate_population(args.sources, args.seed, counts="bright",
                                                 instruments="ACIS-S", summaries=0)
    photons, truth = population.photons, population.truth
    centre = np.sqrt(CHANNEL_EDGES[1:] * CHANNEL_EDGES[:-1])
    layers = {}
    for year in YEARS:
        assumed = contamination(centre, year)
        layers[str(year)] = assumed**THICKER, {"first years": 1.0, "by date": assumed}
    for path in args.arf:
        ratio = read_arf(path, CHANNEL_EDGES) / photons.area[0]
        layers[path.name] = ratio / ratio.max(), {"first years": 1.0}
    catalogue = sa.AlignedCatalog.pretrained()
    rows, classes, rng = [], [], np.random.default_rng(args.seed)
    for name, (transmission, assumptions) in layers.items():
        seen = seen_through(photons, np.tile(transmission, (len(photons), 1)), rng)
        for how, assumed in (assumptions | {"its own": transmission}).items():
            one = seen.replace(arf=(photons.area * assumed).astype(np.float32))
            rows += rows_of((name, how), one, truth, model)
            classes.append((name, how, *right_class(one, truth, model, catalogue)))
    columns = [c for name in ("bias", "MAE", "68 % coverage") for c in (name, f"{name} error")]
    print(f"{args.sources} simulated sources behind a layer, those left with 20 photons or more; "
          f"contamination of ACIS\nby year, {THICKER:g} times as thick as 'by date' takes it to be"
          "\n")
    joined_errors(figures(rows, ["layer", "area assumed", "parameter", "sources", *columns])
                  ).pprint_all()
    print()
    joined_errors(figures(classes, ["layer", "area assumed", "right class", "right class error"])
                  ).pprint_all()


if __name__ == "__main__":
    main()
