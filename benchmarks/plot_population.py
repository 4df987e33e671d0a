"""Draw random sources of the simulated populations, and the population's distributions.

Run ``python benchmarks/plot_population.py OUTPUT_FOLDER``; it writes ``sources.png`` (one source
of each class: binned photons, true rate and spectrum), ``distributions.png`` (counts, hardness,
variability by class) and ``challenge.png`` (one source of each time shape of the challenge).
"""

import argparse
from pathlib import Path

import numpy as np

from stingray_align.datasets import CLASSES, simulate_challenge, simulate_population
from stingray_align.instruments import INSTRUMENTS, effective_area
from stingray_align.photons import CHANNEL_EDGES


def draw_light_curve(axis, sources, i, *, n_bins=128):
    """Binned photons of 0.5-7 keV and the true rate of one source."""
    photons = sources.photons[i]
    duration, start = photons.duration[0], photons.start[0]
    time = (np.arange(4096) + 0.5) / 4096 * duration
    rate = sources.true_rate(i, start + time).sum(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    counts = np.histogram(photons.phase[photons.channel < 19], edges)[0]
    exposure = photons.rebinned(n_bins)[1][0] * duration / n_bins
    # A sliver of exposure measures no rate.
    exposure[exposure < 0.1 * duration / n_bins] = np.nan
    binned = counts / exposure
    error = np.sqrt(np.maximum(counts, 1)) / exposure
    centre = 0.5 * (edges[1:] + edges[:-1]) * duration / 1e3
    axis.errorbar(centre, binned, error, fmt=".", color="0.55", ms=3, lw=0.7, label="photons")
    axis.plot(time / 1e3, rate, "C0", lw=0.9, label="true rate")
    axis.set_ylim(0, 1.15 * max(np.nanmax(binned), np.percentile(rate, 99.5)))
    axis.set_xlim(0, duration / 1e3)
    axis.set_xlabel("time (ks)")
    axis.set_ylabel("rate (ct/s)")


def plot_sources(path, seed):
    """One random source per class: light curve with the true rate, and spectrum."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(14, 4, figsize=(20, 34), width_ratios=(3, 1, 3, 1))
    for number, name in enumerate(CLASSES):
        population = simulate_population(1, seed + number, counts=(300, 3000), classes=name)
        row, photons = population.truth[0], population.photons
        light, spectrum = axes.flat[2 * number], axes.flat[2 * number + 1]
        draw_light_curve(light, population, 0)
        title = f"{name} · {row['time_shape']} · {row['instrument']} · {row['counts'].value:.0f} ct"
        if np.isfinite(row["period"]):
            title += f" · P = {row['period'].value:.3g} s"
        light.set_title(title, fontsize=9)
        per_kev = np.bincount(photons.channel, minlength=20) / np.diff(CHANNEL_EDGES)
        spectrum.stairs(per_kev, CHANNEL_EDGES, color="C0")
        area = effective_area(row["instrument"], np.sqrt(CHANNEL_EDGES[1:] * CHANNEL_EDGES[:-1]))
        spectrum.stairs(per_kev / area * area.max(), CHANNEL_EDGES, color="C1", lw=0.6)
        spectrum.set(xscale="log", yscale="log")
        spectrum.set_xticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
        spectrum.minorticks_off()
        spectrum.set_ylim(bottom=max(per_kev.max() * 1e-4, 0.5))
        spectrum.set_title(f"kT {row['kT'].value:.2g}  Γ {row['photon_index']:.2g}  "
                           f"N$_H$ {row['n_h'].value:.2g}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=55)


def plot_challenge(path, seed):
    """For each time shape of the challenge, a bright source that varies as much as half of them."""
    import matplotlib.pyplot as plt

    challenge = simulate_challenge(200, seed, counts=(600, 3000))
    truth = challenge.truth
    shapes = np.asarray(truth["time_shape"])
    figure, axes = plt.subplots(5, 2, figsize=(7.1, 9.2))
    for axis, shape in zip(axes.flat, np.unique(shapes)):
        # Flares of the background hide what the other shapes are.
        plain = (truth["background"] != "flaring") | (shape == "flaring background")
        rows = np.flatnonzero((shapes == shape) & plain)
        i = rows[np.argsort(truth["fractional_variability"][rows])[len(rows) // 2]]
        draw_light_curve(axis, challenge, i)
        row = truth[i]
        axis.set_title(f"{shape} · gaps: {row['gaps']} · {row['instrument']}", fontsize=8)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle("Simulated sources of the challenge, 0.5-7 keV", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def plot_distributions(path, seed, size):
    """Counts, hardness and variability by class, and what the windows look like."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(20, 16))
    population = simulate_population(size, seed)
    truth = population.truth
    for counts in ("csc", "bright", "training"):
        drawn = truth["counts"] if counts == "csc" else simulate_population(
            size, seed, counts=counts).truth["counts"]
        axes[0, 0].hist(np.log10(np.maximum(drawn.value, 0.3)), 60, histtype="step", label=counts)
    axes[0, 0].set(xlabel="log10 counts (0.5-8 keV)", yscale="log")
    axes[0, 0].legend()
    share = truth["background_counts"] / (truth["source_counts"] + truth["background_counts"])
    axes[0, 1].scatter(truth["counts"].value, share.value, 4,
                       c=[list(INSTRUMENTS).index(i) for i in truth["instrument"]], cmap="tab10")
    axes[0, 1].set(xscale="log", xlabel="counts", ylabel="background share")
    axes[0, 2].hist(np.log10(truth["duration"].value), 60, histtype="step", label="duration")
    axes[0, 2].hist(np.log10(truth["exposure"].value), 60, histtype="step", label="exposure")
    flux = truth["flux"].value
    axes[0, 2].hist(np.log10(flux[flux > 0]) + 16, 60, histtype="step", label="flux × 1e16")
    axes[0, 2].legend()
    axes[0, 2].set(xlabel="log10 (s)", yscale="log")
    names = list(CLASSES)
    for panel, column, limits in ((axes[1, 0], "hardness", (-1, 1)),
                                  (axes[1, 1], "fractional_variability", (0, 3)),
                                  (axes[1, 2], "kT", (0, 10))):
        values = [np.asarray(getattr(truth[column], "value", truth[column]))
                  [truth["class"] == name] for name in names]
        values = [v[np.isfinite(v)] for v in values]
        panel.boxplot(values, orientation="horizontal", tick_labels=names, whis=(5, 95),
                      showfliers=False)
        panel.set(xlabel=column, xlim=limits)
    figure.tight_layout()
    figure.savefig(path, dpi=55)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=3000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    plot_sources(options.folder / "sources.png", options.seed)
    plot_challenge(options.folder / "challenge.png", options.seed)
    plot_distributions(options.folder / "distributions.png", options.seed, options.size)


if __name__ == "__main__":
    main()
