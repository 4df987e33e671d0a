"""Figures of the evaluations: coverage, sharpness, and rates drawn over real photons."""

import numpy as np

from ..photons import BAND_OF_CHANNEL

__all__ = ["plot_coverage", "plot_fits", "plot_sharpness"]

_FONT = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
         "xtick.labelsize": 7, "ytick.labelsize": 7}
#: Colours that colour-blind readers can tell apart (Okabe & Ito 2008); marks and lines differ, too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
_MARKERS = "osD^vPX"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)))
_TOLERANCE = {0.68: 0.03, 0.95: 0.02}  # how far from the nominal content is good enough


def _plain_ticks(ax):
    """1, 2, 5, 10, ... as they are: powers of ten run into each other on a short axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())


def plot_coverage(comparison, *, by="counts"):
    """Draw coverage by photon counts or by kind of source, one panel for each quantity.

    Parameters
    ----------
    comparison : mapping of str to CalibrationResult
        As from `stingray_align.evaluate.autodecoder_calibration`.
    by : {"counts", "label"}, optional

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of a page wide.
    """
    from matplotlib import pyplot as plt

    results = {what: r for what, r in comparison.items() if by == "counts" or r.labels is not None}
    n_rows = -(-len(results) // 2)
    with plt.rc_context(_FONT):
        height = 2.4 if by == "counts" else 2.9
        figure, axes = plt.subplots(n_rows, 2, figsize=(7.1, height * n_rows + 0.35),
                                    layout="constrained", squeeze=False, sharey=True)
        for ax, (what, result) in zip(axes.flat, results.items()):
            _coverage_panel(ax, result, by)
            ax.set_title(what)
        for ax in axes.flat[len(results):]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("sources whose interval\nholds the truth")
        lowest = min(result.coverage_of(name, rows)[min(result.levels)].value
                     for result in results.values() for name in ("ours", *result.rivals)
                     for _, rows in result.groups(by))
        axes[0, 0].set_ylim(max(0, min(lowest - 0.15, 0.4)), 1.02)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False,
                      title=f"{len(result.counts)} simulated sources")
    return figure


def _coverage_panel(ax, result, by):
    groups = result.groups(by)
    if by == "counts":
        where = np.array([np.median(result.counts[rows]) for _, rows in groups])
        ax.set_xscale("log")
        _plain_ticks(ax)
        ax.set_xlabel("photons (median of the group)")
    else:
        where = np.arange(len(groups), dtype=float)
        ax.set_xticks(where, [name for name, _ in groups], rotation=50, ha="right",
                      rotation_mode="anchor")
    for k, level in enumerate(result.levels):
        ax.axhline(level, color="0.45", lw=0.8, zorder=0)
        if level in _TOLERANCE:
            ax.axhspan(level - _TOLERANCE[level], level + _TOLERANCE[level], color="0.88", lw=0,
                       zorder=-1)
        for j, name in enumerate(("ours", *result.rivals)):
            found = [result.coverage_of(name, rows)[level] for _, rows in groups]
            value, error = (np.array([f[i] for f in found]) for i in (0, 1))
            # Points of one group stand beside each other, so that no error bar hides another.
            shifted = where * 1.06 ** j if by == "counts" else where + 0.2 * j
            ax.errorbar(shifted, value, error, fmt=_MARKERS[k] if j == 0 else _MARKERS[k + 2],
                        color=_COLOURS[k] if j == 0 else "0.55", ms=3.5 if j == 0 else 3,
                        mfc=_COLOURS[k] if j == 0 else "white", lw=0.8,
                        label=f"{level:.0%}, " + ("autodecoder" if j == 0 else "without training"))
    if result.rivals:
        ax.annotate(f"grey: {', '.join(result.rivals)}", (0.02, 0.03), xycoords="axes fraction",
                    fontsize=7, color="0.35")


def plot_sharpness(comparison):
    """Draw the score relative to each quantity's rival by photon counts.

    Parameters
    ----------
    comparison : mapping of str to CalibrationResult
        As from `stingray_align.evaluate.autodecoder_calibration`, with rivals.

    Returns
    -------
    matplotlib.figure.Figure
        One column of a page wide.
    """
    from matplotlib import pyplot as plt

    with plt.rc_context(_FONT):
        figure, ax = plt.subplots(figsize=(3.5, 3.5), layout="constrained")
        ax.axhline(1, color="0.45", lw=0.8)
        drawn = [(what, rival, result) for what, result in comparison.items()
                 for rival in result.rivals]
        score = drawn[0][2].score_name if drawn else "score"
        for k, (what, rival, result) in enumerate(drawn):
            groups = result.groups()
            # The marks of one decile are spread over 10 % in photons around its median.
            where = [np.median(result.counts[rows]) * 1.1 ** (k / len(drawn) - 0.5)
                     for _, rows in groups]
            ratio = [result.score_ratio(rival, rows) for _, rows in groups]
            ax.errorbar(where, [r.value for r in ratio], [r.error for r in ratio],
                        fmt=_MARKERS[k] + "-", color=_COLOURS[k], ms=3.5, lw=0.8,
                        label=f"{what} / {rival}")
        ax.set(xscale="log", xlabel="photons (median of the decile)",
               ylabel=f"{score} of the autodecoder / other")
        _plain_ticks(ax)
        ax.set_ylim(min(0.7, ax.get_ylim()[0]), max(1.1, ax.get_ylim()[1]))
        figure.legend(loc="outside upper center", frameon=False,
                      title=f"{len(drawn[0][2].counts)} simulated sources" if drawn else None)
    return figure


def plot_fits(photons, rates, *, title=""):
    """Draw the binned photons of one source with rates that several methods find.

    Parameters
    ----------
    photons : Photons
        A set of one source.
    rates : dict of ndarray, shape (m, 3)
        Rate in ct/s in the three bands of 0.5-7 keV on ``m`` equal time bins, by name.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of a page wide. The time axis is exposed time, since long gaps would leave no
        room for anything else; a dotted line marks a gap.
    """
    from astropy.stats import poisson_conf_interval
    from matplotlib import pyplot as plt

    photons = photons.select(BAND_OF_CHANNEL[photons.channel] < 3)
    exposed = photons.exposed[0].astype(float)
    scale, unit = (1000.0, "ks") if photons.exposure[0] >= 3000 else (1.0, "s")
    borders = np.linspace(0, 1, len(exposed) + 1)
    clock = np.concatenate([[0], np.cumsum(exposed)]) * photons.duration[0] / len(exposed) / scale
    # The exposure is known per time bin: the data are shown in groups of these.
    n_groups = int(np.clip(photons.n_photons[0] // 12, 8, 100))
    group = np.minimum((clock[:-1] + clock[1:]) / 2 / clock[-1] * n_groups, n_groups - 1)
    found = np.unique(group[exposed > 0].astype(int))
    group = np.searchsorted(found, group.astype(int)).clip(max=len(found) - 1)
    counts = np.bincount(group[photons.time_bin], minlength=len(found))
    seconds = np.bincount(group, np.diff(clock) * scale, minlength=len(found))
    centre = np.bincount(group, np.diff(clock) * (clock[:-1] + clock[1:]) / 2) * scale / seconds
    low, high = poisson_conf_interval(counts, interval="frequentist-confidence")
    with plt.rc_context(_FONT):
        figure, ax = plt.subplots(figsize=(7.1, 2.8), layout="constrained")
        ax.errorbar(centre, counts / seconds,
                    ((counts - low) / seconds, (high - counts) / seconds), fmt="o", color="0.5",
                    ms=2.5, lw=0.7, zorder=1, label="photons, binned")
        top = (high / seconds).max()
        for k, (name, bands) in enumerate(rates.items()):
            total = np.asarray(bands, dtype=float).sum(axis=1)
            where = np.interp(np.linspace(0, 1, len(total) + 1), borders, clock)
            seen = np.diff(where) > 0
            ax.stairs(total[seen], np.append(where[:-1][seen], where[-1]), baseline=None,
                      color=_COLOURS[k], lw=1.4 if k == 0 else 0.9, ls=_LINES[k], zorder=9 - k,
                      label=name)
            top = max(top, 1.05 * np.quantile(total[seen], 0.995))
        for i, at in enumerate(clock[:-1][np.diff((exposed <= 0).astype(int), prepend=0) == 1]):
            ax.axvline(at, color="0.6", lw=0.7, ls=":", zorder=0, label="gap" if i == 0 else None)
        ax.set(xlabel=f"exposed time ({unit}) since {photons.start[0]:.10g} s",
               ylabel="rate (ct/s, 0.5-7 keV)", xlim=(0, clock[-1]), ylim=(0, 1.05 * top),
               title=title)
        figure.legend(loc="outside lower center", ncols=8, frameon=False)
    return figure
