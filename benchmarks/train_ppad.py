"""Train the PPAD configuration on simulated sources and measure it on fresh ones.

Takes about a quarter of an hour on one core, and as long again for 100 test sources, since each
needs 400 steps of its own. Goes on where it was stopped::

    python benchmarks/train_ppad.py ppad.safetensors [NUMBER_OF_TEST_SOURCES]

The loss counts photons, so the brightest sources decide what the network learns. It is therefore
trained on 10 to 3000 photons per source, the range that it is measured on.
"""

import sys
import time
from pathlib import Path

import torch

from stingray_align import PoissonAutodecoder
from stingray_align.datasets import simulate_photons, simulate_population
from stingray_align.evaluate import reconstruction
from stingray_align.evaluate.rivals import kde
from stingray_align.evaluate.rivals.ppad import Ppad


def trained(path, n_sources=1500, seed=20):
    """The model in the file, or a new one, which is then written there."""
    if not path.exists():
        photons = simulate_photons(n_sources, seed, counts=(10, 3000))
        model = Ppad().fit(photons, checkpoint=path.with_suffix(".checkpoint.safetensors"),
                           curve_file=path.with_suffix(".curve.ecsv"))
        model.save(path)
    return Ppad.load(path)


def measure(model, n_sources, seed=21):
    """Print the fraction of the oracle gain, beside ours and a kernel estimate."""
    models = {"ours": PoissonAutodecoder.pretrained(), "PPAD": model,
              "PPAD as decoded": model.decoded_rates}
    for counts in ("bright", "csc"):
        population = simulate_population(n_sources, seed, counts=counts, summaries=0)
        begin = time.monotonic()
        model.band_rates(population.photons[:20])
        print(f"{counts}: {(time.monotonic() - begin) / 20 * 1e3:.0f} ms per source")
        result = reconstruction(models, population, rivals={"KDE": kde}, progress=False)
        for name in (*models, "KDE"):
            fraction = result.fraction(name)
            print(f"  {name:16s} {fraction.value:6.3f} +- {fraction.error:.3f} of the oracle gain, "
                  f"{result.gain[name].mean():7.2f} nat per source", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure(trained(Path(sys.argv[1])), int(sys.argv[2]) if sys.argv[2:] else 100)
