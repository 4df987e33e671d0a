"""Drawing of an estimated rate over the photons it was inferred from."""

from __future__ import annotations

import numpy as np

from ._gti import pieces, runs

__all__ = ["plot_rate"]

_DATA, _MODEL, _GAP = "black", "#0072B2", "0.92"


def plot_rate(estimate, ax=None, n_bins=None):
    """Draw data and rate of one source; see `stingray_align.rates.RateEstimate.plot`."""
    from astropy.stats import poisson_conf_interval
    from matplotlib import pyplot as plt

    ax = plt.gca() if ax is None else ax
    photons = estimate.photons
    start, duration = float(photons.start[0]), float(photons.duration[0])
    scale, unit = (1000.0, "ks") if duration >= 3000 else (1.0, "s")
    share = float(photons.exposed[0].mean())
    if n_bins is None:  # what is not exposed takes bins, too
        most = min(64 * 2 ** int(np.log2(1 / share)), photons.exposed.shape[1])
        n_bins = int(np.clip(2 ** int(np.log2(photons.n_photons[0] / 8 / share + 1)), 8, most))

    counts, exposed = (x[0] for x in photons.rebinned(n_bins))
    good = exposed > 0.05  # a sliver of exposure gives a huge, meaningless rate
    seconds = exposed[good] * duration / n_bins
    borders = np.linspace(start, start + duration, n_bins + 1)
    first, centre, last = (_exposed_part(estimate.gti, borders)[:, good] - start) / scale
    low, high = poisson_conf_interval(counts[good], interval="frequentist-confidence")
    ax.errorbar(centre, counts[good] / seconds, xerr=(centre - first, last - centre),
                yerr=((counts[good] - low) / seconds, (high - counts[good]) / seconds), fmt="o",
                color=_DATA, ms=3, lw=1, zorder=3, label="photons, binned")

    edges = estimate.bin_edges
    grid = (edges[1:] + edges[:-1]) / 2
    curves = np.stack([x.to_value("1/s") for x in (
        estimate.rate(grid), *estimate.rate_interval(grid, level=0.68))])
    # No finer than the photons: what is drawn in a pixel is the mean of the curve there.
    n_time_bins = photons.exposed.shape[1]
    finest = 2 ** int(np.ceil(np.log2(photons.n_photons[0] + 1)))
    n_shown = int(np.clip(finest, min(n_time_bins // 4, len(grid)), len(grid)))
    rate, lower, upper = curves.reshape(3, n_shown, -1).mean(axis=2)
    shown = (np.arange(n_shown) + 0.5) / n_shown * duration / scale
    well_exposed = np.repeat(photons.exposed[0] > 0.05, max(1, n_shown // n_time_bins))
    well_exposed = well_exposed.reshape(n_shown, -1).any(axis=1)
    for i, part in enumerate(runs(well_exposed)):
        ax.fill_between(shown[part], lower[part], upper[part], color=_MODEL, alpha=0.25, lw=0,
                        label="68 % band" if i == 0 else None)
        ax.plot(shown[part], rate[part], color=_MODEL, lw=1.5,
                label=estimate.name if i == 0 else None)
    gaps = list(runs(photons.exposed[0] <= 0))
    for part in gaps:
        borders = np.array([part.start, part.stop]) / photons.exposed.shape[1] * duration / scale
        ax.axvspan(*borders, color=_GAP, lw=0, zorder=0)
    if gaps:  # an edge, or the legend could not be told from a gap
        ax.add_patch(plt.Rectangle((0, 0), 0, 0, fc=_GAP, ec="0.5", lw=0.5, label="not exposed"))
    ax.set(xlabel=f"time ({unit}) since {start:.10g} s", ylabel="rate (ct/s, 0.5-8 keV)",
           xlim=(0, duration / scale))
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend above the data
    ax.legend(loc="upper center", frameon=False, ncols=2)
    return ax


def _exposed_part(gti, edges):
    """Begin, mean and end of the exposed time of each bin, nan where there is none: (3, n_bins)."""
    low, high = pieces(gti, edges)
    out = np.full((3, len(edges) - 1), np.nan)
    of_bin = np.searchsorted(edges, (low + high) / 2, side="right") - 1
    for k in np.unique(of_bin):
        own = of_bin == k
        middle = np.average((low + high)[own] / 2, weights=(high - low)[own])
        out[:, k] = low[own][0], middle, high[own][-1]
    return out
