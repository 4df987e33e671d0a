"""Drawing of a decoded rate over the photons it was inferred from."""

from __future__ import annotations

import numpy as np

from ..photons import exposure_in_bins

__all__ = ["plot_rate"]


def plot_rate(embedding, ax=None, n_bins=None):
    """Draw data and decoded rate of one embedding; see `Embedding.plot`."""
    import matplotlib.pyplot as plt
    from astropy.stats import poisson_conf_interval

    ax = plt.gca() if ax is None else ax
    photons = embedding.photons
    if n_bins is None:
        n_bins = int(np.clip(embedding.n_photons / 20, 8, 128))
    edges = np.linspace(embedding.start, embedding.stop, n_bins + 1)
    time = photons.phase.astype(float) * photons.duration[0]
    counts = np.histogram(time, edges - embedding.start)[0]
    exposure = exposure_in_bins(embedding.gti, edges)
    # A sliver of exposure gives a huge, meaningless rate: leave such bins out.
    seen = exposure > 0.1 * np.diff(edges)
    low, high = poisson_conf_interval(counts[seen], interval="frequentist-confidence")

    unit = 1e3 if photons.duration[0] > 2e3 else 1.0
    middle = ((edges[1:] + edges[:-1]) / 2 - embedding.start)[seen] / unit
    rate = counts[seen] / exposure[seen]
    ax.errorbar(middle, rate, yerr=np.abs([rate - low / exposure[seen],
                                           high / exposure[seen] - rate]),
                fmt="o", ms=3, lw=0.8, color="0.35", label="data", zorder=2)

    times = np.linspace(embedding.start, embedding.stop, 1024)
    low, high = embedding.rate_interval(times)
    x = (times - embedding.start) / unit
    ax.fill_between(x, low.value, high.value, color="C0", alpha=0.3, lw=0, label="68 % interval")
    ax.plot(x, embedding.rate(times).value, color="C0", label="decoded rate", zorder=3)
    for stop, start in zip(embedding.gti[:-1, 1], embedding.gti[1:, 0]):
        ax.axvspan((stop - embedding.start) / unit, (start - embedding.start) / unit,
                   color="0.9", lw=0, zorder=0)
    ax.set(xlabel=f"time since {embedding.start:.10g} s ({'ks' if unit > 1 else 's'})",
           ylabel="0.5-8 keV rate (ct/s)", xlim=(0, (embedding.stop - embedding.start) / unit),
           ylim=(0, None))
    ax.legend(frameon=False, fontsize="small")
    return ax
