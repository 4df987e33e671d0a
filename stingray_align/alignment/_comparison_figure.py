"""The figure of a comparison of two observations."""

import numpy as np

from .._plotting import plot_rate
from ..photons import CHANNEL_EDGES, N_CHANNELS

__all__ = ["draw"]

_COLOURS = ("#0072B2", "#D55E00")
_MARKERS = ("o", "s")
_FONT = {"font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 8.5}
#: Channels drawn as one: borders as numbers of `CHANNEL_EDGES`.
_BANDS = np.array([0, 3, 6, 8, 10, 13, 16, 19, 20])


def draw(comparison, embeddings):
    """Light curves, spectra, and the significance of each change; returns a matplotlib Figure."""
    import textwrap

    from matplotlib import pyplot as plt

    with plt.rc_context(_FONT):
        figure = plt.figure(figsize=(8.3, 7.6), layout="constrained")
        axes = figure.subplot_mosaic([["first", "second"], ["spectrum", "tests"]])
        for key, name, embedding in zip(("first", "second"), comparison.names, embeddings):
            plot_rate(embedding, axes[key]).set_title(f"Light curve: {name}")
        top = max(axes[key].get_ylim()[1] for key in ("first", "second"))
        for key in ("first", "second"):
            axes[key].set_ylim(0, top)
            axes[key].legend(loc="upper center", frameon=False, ncols=1)
        _spectra(axes["spectrum"], comparison)
        _significances(axes["tests"], comparison)
        figure.suptitle("\n".join(textwrap.wrap(comparison.text, 88)), fontsize=11)
    return figure


def _spectra(ax, comparison):
    from astropy.stats import poisson_conf_interval

    centre = np.sqrt(CHANNEL_EDGES[_BANDS[:-1]] * CHANNEL_EDGES[_BANDS[1:]])
    width = np.diff(CHANNEL_EDGES[_BANDS])
    for number, (name, embedding) in enumerate(zip(comparison.names, comparison._embeddings)):
        per_channel = np.bincount(embedding.photons.channel, minlength=N_CHANNELS)
        counts = np.add.reduceat(per_channel, _BANDS[:-1])
        low, high = poisson_conf_interval(counts, interval="frequentist-confidence")
        scale = 1 / width / embedding.exposure
        seen, shift = counts > 0, 1 + 0.03 * (number - 0.5)
        ax.errorbar((centre * shift)[seen], (counts * scale)[seen],
                    yerr=(((counts - low) * scale)[seen], ((high - counts) * scale)[seen]),
                    fmt=_MARKERS[number], ms=4, lw=1, color=_COLOURS[number], label=name)
        if not seen.all():
            ax.scatter((centre * shift)[~seen], (high * scale)[~seen], marker="v", s=16,
                       facecolors="none", edgecolors=_COLOURS[number], lw=0.9,
                       label=f"{name}: 84 % limit")
    ax.set(xscale="log", yscale="log", xlabel="energy (keV)", xlim=(0.5, 8),
           ylabel="counts per s and keV", title="Spectra, background included")
    ax.set_xticks([0.5, 1, 2, 4, 8], labels=["0.5", "1", "2", "4", "8"])
    ax.minorticks_off()
    ax.legend(loc="best", frameon=False)


def _significances(ax, comparison):
    from .comparison import sigma

    tests = comparison.tests[::-1]
    place = np.arange(len(tests))
    known = np.isfinite(tests["sigma"])
    value = np.where(known, tests["sigma"], 0)
    ax.barh(place, value, height=0.55,
            color=[_COLOURS[1] if changed else "0.65" for changed in tests["changed"]])
    bar = sigma(comparison.level)
    right = 1.3 * max(value.max(), bar, 1.0)
    for y, row, x in zip(place, tests, value):
        text = "too few photons" if not np.isfinite(row["sigma"]) else (
            f"{'> ' if row['limit'] else ''}{row['sigma']:.1f} σ")
        ax.text(x + 0.015 * right, y, text, va="center", fontsize=9,  # in front of the line
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    ax.axvline(bar, color="black", lw=1, ls="--", label=f"p = {comparison.level:g} after Holm")
    ax.set_yticks(place, labels=list(tests["test"]))
    ax.set(xlabel="significance after correction (σ)", xlim=(0, right),
           ylim=(-0.6, len(tests) - 0.1), title="What changed")
    ax.legend(loc="upper right", frameon=False)
