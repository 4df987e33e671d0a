"""The one-page figure of an interpretation."""

import numpy as np

from ..photons import CHANNEL_EDGES, N_CHANNELS
from .attribution import strongest

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
_DATA, _MODEL, _DRIVER = "black", "#0072B2", "#E69F00"
_FONT = {"font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 8.5}


def draw(reading, embedding, catalogue, vectors):
    """Light curve, spectrum and map; returns a matplotlib Figure."""
    from matplotlib import pyplot as plt

    from .._plotting import plot_rate

    with plt.rc_context(_FONT):
        figure = plt.figure(figsize=(8.3, 9.0), layout="constrained")
        axes = figure.subplot_mosaic([["curve", "curve"], ["spectrum", "map"]],
                                     height_ratios=(1, 1.35))
        plot_rate(embedding, axes["curve"]).set_title("Light curve")
        _spectrum(axes["spectrum"], embedding)
        _mark_drivers(axes, reading.drivers, embedding)
        _map(axes["map"], catalogue, vectors)
        title = f"{reading.name}: {reading.measured.counts} photons"
        if len(reading.classes):
            best = reading.classes[0]
            title += f"\nmost like: {best['class']} (probability {best['probability']:.2f})"
        figure.suptitle(title, fontsize=13)
    return figure


def _mark_drivers(axes, drivers, embedding):
    """Bars under the stretches of time and energy that carry the match with the best texts."""
    if drivers is None:
        return
    photons = embedding.photons
    start, duration = float(photons.start[0]), float(photons.duration[0])
    scale = 1000.0 if duration >= 3000 else 1.0  # as the light curve's axis
    for name, kind in (("curve", "time"), ("spectrum", "energy")):
        label = "carries the match"
        for row in strongest(drivers, kind):
            low, high = row["start"], row["stop"]
            if kind == "time":
                low, high = (low - start) / scale, (high - start) / scale
            axes[name].axvspan(low, high, ymax=0.025, color=_DRIVER, lw=0, zorder=4, label=label)
            label = None
        if label is None:
            axes[name].legend(loc="upper center" if kind == "time" else "best", frameon=False,
                              ncols=2 if kind == "time" else 1)


def _spectrum(ax, embedding):
    photons = embedding.photons
    counts = np.bincount(photons.channel, minlength=N_CHANNELS)
    width = np.diff(CHANNEL_EDGES)
    centre = np.sqrt(CHANNEL_EDGES[:-1] * CHANNEL_EDGES[1:])
    low, high = _poisson_errors(counts)
    seen = counts > 0
    xerr = np.array([centre - CHANNEL_EDGES[:-1], CHANNEL_EDGES[1:] - centre])
    yerr = np.array([low, high]) / width
    # As lists: matplotlib takes an array of one entry for a number, of which old numpy warns.
    ax.errorbar(centre[seen], (counts / width)[seen], xerr=xerr[:, seen].tolist(),
                yerr=yerr[:, seen].tolist(), fmt="o", color=_DATA, ms=3, lw=1, zorder=3,
                label="photons")
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
