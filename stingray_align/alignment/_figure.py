"""The one-page figure of an interpretation."""

import numpy as np

from ..photons import CHANNEL_EDGES, N_CHANNELS
from ._facts import binned_counts

__all__ = ["BROAD_CLASSES", "draw"]

#: Broad kinds of the map: members, and a colour that colour-blind readers can tell from the rest
#: (Okabe & Ito 2008); the marker differs, too.
BROAD_CLASSES = {
    "active galaxies, TDE": ("#0072B2", "o", (
        "unobscured AGN", "obscured AGN", "quasar with soft excess", "tidal disruption event",
        "quasi-periodic eruptions")),
    "X-ray binaries": ("#D55E00", "s", (
        "HMXB pulsar", "LMXB with type I bursts", "dipping LMXB", "black-hole transient")),
    "ULX": ("#CC79A7", "D", (
        "steady ULX", "eclipsing ULX", "pulsating ULX", "heartbeat ULX")),
    "white dwarfs": ("#56B4E9", "v", (
        "polar", "intermediate polar", "dwarf nova", "supersoft source")),
    "stars": ("#E69F00", "*", (
        "flaring young star", "coronal star", "massive star wind", "colliding-wind binary")),
    "neutron stars": ("#009E73", "P", (
        "thermally emitting neutron star", "magnetar with bursts", "gamma-ray pulsar")),
    "extended, background, other": ("#999999", "X", ()),
}
_DATA, _MODEL, _GAP = "black", "#0072B2", "0.92"
_FONT = {"font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 8.5}


def draw(reading, embedding, catalogue, vectors):
    """Light curve, spectrum and map; returns a matplotlib Figure."""
    from matplotlib import pyplot as plt

    with plt.rc_context(_FONT):
        figure = plt.figure(figsize=(8.3, 9.0), layout="constrained")
        axes = figure.subplot_mosaic([["curve", "curve"], ["spectrum", "map"]],
                                     height_ratios=(1, 1.35))
        _light_curve(axes["curve"], embedding)
        _spectrum(axes["spectrum"], embedding)
        _map(axes["map"], catalogue, vectors)
        title = f"{reading.name}: {reading.measured.counts} photons"
        if len(reading.classes):
            best = reading.classes[0]
            title += f"\nmost like: {best['class']} (probability {best['probability']:.2f})"
        figure.suptitle(title, fontsize=13)
    return figure


def _light_curve(ax, embedding):
    photons = embedding.photons
    start, duration = float(photons.start[0]), float(photons.duration[0])
    n = int(photons.n_photons[0])
    n_bins = int(np.clip(2 ** int(np.log2(max(n, 1) / 8 + 1)), 8, 64))
    counts, exposed = binned_counts(photons, n_bins)
    scale, unit = (1000.0, "ks") if duration >= 3000 else (1.0, "s")
    good = exposed > 0.05
    seconds = exposed[good] * duration / n_bins
    centre = (np.flatnonzero(good) + 0.5) / n_bins * duration / scale
    low, high = _poisson_errors(counts[good])
    ax.errorbar(centre, counts[good] / seconds, yerr=(low / seconds, high / seconds), fmt="o",
                color=_DATA, ms=3, lw=1, zorder=3, label="photons, binned")
    grid = start + (np.arange(512) + 0.5) / 512 * duration
    rate = np.asarray(embedding.rate(grid).to_value("1/s"))
    lower, upper = (np.asarray(x.to_value("1/s"))
                    for x in embedding.rate_interval(grid, level=0.68))
    shown = (grid - start) / scale
    open_ = photons.exposed[0] > 0.05
    for part in _runs(open_):
        label = part.start == np.flatnonzero(open_)[0]
        ax.fill_between(shown[part], lower[part], upper[part], color=_MODEL, alpha=0.25, lw=0,
                        label="68 % band" if label else None)
        ax.plot(shown[part], rate[part], color=_MODEL, lw=1.5,
                label="decoded rate" if label else None)
    for i, part in enumerate(_runs(photons.exposed[0] <= 0)):
        ax.axvspan(part.start / 512 * duration / scale, part.stop / 512 * duration / scale,
                   color=_GAP, lw=0, zorder=0, label="not exposed" if i == 0 else None)
    ax.set(xlabel=f"time since start of window ({unit})", ylabel="rate (ct/s, 0.5-8 keV)",
           xlim=(0, duration / scale), title="Light curve")
    ax.set_ylim(bottom=0)
    ax.legend(loc="best", frameon=False, ncols=2)


def _spectrum(ax, embedding):
    photons = embedding.photons
    counts = np.bincount(photons.channel, minlength=N_CHANNELS)
    width = np.diff(CHANNEL_EDGES)
    centre = np.sqrt(CHANNEL_EDGES[:-1] * CHANNEL_EDGES[1:])
    low, high = _poisson_errors(counts)
    seen = counts > 0
    xerr = np.array([centre - CHANNEL_EDGES[:-1], CHANNEL_EDGES[1:] - centre])
    ax.errorbar(centre[seen], (counts / width)[seen], xerr=xerr[:, seen],
                yerr=((low / width)[seen], (high / width)[seen]), fmt="o", color=_DATA, ms=3,
                lw=1, zorder=3, label="photons")
    if not seen.all():
        ax.scatter(centre[~seen], (high / width)[~seen], marker="v", s=14, facecolors="none",
                   edgecolors=_DATA, lw=0.8, zorder=3, label="no photons: 84 % limit")
    decoded = embedding.spectrum()
    flux = decoded.flux.to_value("ct/keV")
    spread = decoded.uncertainty.array ** 0.5
    ax.stairs(flux + spread, CHANNEL_EDGES, baseline=flux - spread, color=_MODEL, alpha=0.25,
              fill=True, lw=0)
    ax.stairs(flux, CHANNEL_EDGES, baseline=None, color=_MODEL, lw=1.5, label="decoded")
    top = max(float(flux.max()), float(((counts + high) / width).max()))
    least = np.concatenate([flux[flux > 0], (counts / width)[seen]]).min(initial=top)
    bottom = max(0.3 * float(least), 1e-4 * top)
    ax.set(xscale="log", yscale="log", xlabel="energy (keV)", ylabel="counts per keV",
           xlim=(0.5, 8), ylim=(bottom, 2 * top), title="Spectrum, not unfolded")
    ax.set_xticks([0.5, 1, 2, 4, 8], labels=["0.5", "1", "2", "4", "8"])
    ax.minorticks_off()
    ax.legend(loc="best", frameon=False)


def _map(ax, catalogue, vectors):
    places = catalogue.plane(catalogue.source_vectors)
    owner = {name: kind for kind, (_, _, names) in BROAD_CLASSES.items() for name in names}
    rest = list(BROAD_CLASSES)[-1]
    labels = np.array([rest] * len(catalogue), dtype=object)
    if catalogue.classes:
        labels = np.array([owner.get(name, rest) for name in catalogue.table["class"]],
                          dtype=object)
    for kind, (colour, marker, _) in BROAD_CLASSES.items():
        chosen = labels == kind
        if chosen.any():
            ax.scatter(*places[chosen].T, s=9, c=colour, marker=marker, alpha=0.4, lw=0,
                       label=kind, rasterized=True)
    own = catalogue.plane(vectors)
    ax.scatter(*own[1:].T, s=14, facecolors="none", edgecolors="black", lw=0.7, alpha=0.7,
               label="its posterior", zorder=4)
    ax.scatter(*own[:1].T, s=220, c="black", marker="*", edgecolors="white", lw=1.2,
               label="this source", zorder=5)
    ax.set(xlabel="first principal component", ylabel="second principal component",
           title="Among the catalogue's sources", xticks=[], yticks=[])
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False,
                       handletextpad=0.3, columnspacing=1.0)
    for handle in legend.legend_handles:
        handle.set(alpha=1, sizes=[32])
    legend.legend_handles[-1].set_sizes([90])


def _poisson_errors(counts):
    from astropy.stats import poisson_conf_interval

    low, high = poisson_conf_interval(counts, interval="frequentist-confidence")
    return counts - low, high - counts


def _runs(mask):
    """Slices of the stretches where ``mask`` is true."""
    steps = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return [slice(a, b) for a, b in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1))]
