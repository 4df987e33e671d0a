"""Figures of results: reconstruction, retrieval, regression, classification, queries, novelty."""

import numpy as np

from ._figures import _COLOURS, _FONT, _LINES, _MARKERS, _plain_ticks

__all__ = ["plot_confusion", "plot_labels", "plot_novelty", "plot_queries", "plot_reconstruction",
           "plot_regression", "plot_class_reliability", "plot_retrieval", "plot_scores"]

_ONE, _TWO = 3.5, 7.1  # inches: one and two columns of a page


def _figure(size, n_rows=1, n_columns=1, **options):
    from matplotlib import pyplot as plt

    return plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", **options)


def _in_style(draw):
    """Run a drawing function with the fonts of a paper."""
    from functools import wraps

    @wraps(draw)
    def styled(*args, **options):
        from matplotlib import pyplot as plt

        with plt.rc_context(_FONT):
            return draw(*args, **options)

    return styled


def _style(k, *, line=True):
    return {"fmt": _MARKERS[k % len(_MARKERS)], "color": _COLOURS[k % len(_COLOURS)], "ms": 3.5,
            "lw": 0.9, "elinewidth": 0.8, "ls": _LINES[k % len(_LINES)] if line else "none"}


def _legend(figure, ax, **options):
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", frameon=False, **options)


def _errors_of(table, name):
    return table[name], table[f"{name} error"]


@_in_style
def plot_reconstruction(result):
    """Draw the fraction of the oracle gain by photons and by kind of light curve.

    Parameters
    ----------
    result : ReconstructionResult

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of a page wide.
    """
    shapes, photons = result.to_table("time_shape"), result.to_table("counts")
    everyone = [*result.names, *result.rivals][:len(_COLOURS)]
    figure, axes = _figure((_TWO, max(3.2, 1.1 + 0.21 * len(shapes))), 1, 2,
                           width_ratios=(1, 1.15))
    where = [np.median(result.counts[mask]) for _, mask in result._deciles()]
    for k, name in enumerate(everyone):
        axes[0].errorbar(np.array(where) * 1.02 ** (k - len(everyone) / 2),
                         *_errors_of(photons, name), **_style(k), label=name)
    axes[0].set(xscale="log", xlabel="photons (median of the decile)",
                ylabel="fraction of the oracle gain")
    _plain_ticks(axes[0])
    axes[0].set_ylim(max(axes[0].get_ylim()[0], -0.5), 1.05)
    # What is not variable has nothing to gain: its fraction has no meaning.
    able = np.flatnonzero(shapes["oracle nats"] > 0.5)
    order = able[np.argsort(shapes[result.names[0]][able])]
    height = 0.8 / min(3, len(everyone))
    for k, name in enumerate(everyone[:1] + _closest(result, everyone[1:], 2)):
        index = everyone.index(name)
        value, error = (column[order] for column in _errors_of(shapes, name))
        axes[1].barh(np.arange(len(order)) + (1 - k) * height, value, height * 0.92, xerr=error,
                     color=_COLOURS[index], error_kw={"lw": 0.7, "ecolor": "0.25"})
    axes[1].set_yticks(np.arange(len(order)), [
        f"{shapes['time_shape'][i]} ({shapes['sources'][i]})" for i in order])
    axes[1].set(xlabel="fraction of the oracle gain",
                xlim=(max(-0.5, min(-0.02, axes[1].get_xlim()[0])), 1.05))
    for ax, set_line in zip(axes, ("axhline", "axvline")):
        getattr(ax, set_line)(0, color="0.45", lw=0.7)
        getattr(ax, set_line)(1, color="0.45", lw=0.7)
    _legend(figure, axes[0], ncols=3,
            title=f"{len(result.counts)} simulated sources (0: constant rate, 1: true rate)")
    return figure


def _closest(result, names, n):
    """The best so many of the others, a first pass of the same model not counted."""
    rivals = [name for name in names if name in result.rivals] or names
    return sorted(rivals, key=lambda name: -result.gain[name].sum())[:n]


@_in_style
def plot_retrieval(results, *, title=""):
    """Draw the share of partners found among the first, and by photons.

    Parameters
    ----------
    results : mapping of str to RetrievalResult
        Methods on the same pairs, the most important first.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of a page wide; one where no photon counts are known.
    """
    shown = dict(list(results.items())[:len(_COLOURS)])
    counted = {name: r for name, r in shown.items() if getattr(r, "counts", None) is not None}
    size = (_TWO, 3.1) if counted else (_ONE, 3.0 + 0.14 * len(shown))
    figure, axes = _figure(size, 1, 2 if counted else 1, squeeze=False)
    left = axes[0, 0]
    n = len(next(iter(shown.values())).candidates)
    share = np.geomspace(1 / n, 1, 200)
    for k, (name, result) in enumerate(shown.items()):
        place = np.sort(np.concatenate([r / result.candidates for r in result.ranks.values()]))
        left.plot(share, np.searchsorted(place, share * (1 + 1e-9), side="right") / len(place),
                  color=_COLOURS[k], ls=_LINES[k % len(_LINES)], lw=1.1, label=name)
    left.plot(share, share, color="0.5", lw=0.8, label="chance")
    left.set(xscale="log", xlabel="share of the sources looked at", ylabel="partner found",
             xlim=(1 / n, 1), ylim=(0, 1.02))
    left.axvline(0.05, color="0.8", lw=0.7, zorder=0)
    if counted:
        right = axes[0, 1]
        for k, (name, result) in enumerate(shown.items()):
            if name not in counted:
                continue
            order = np.array_split(np.argsort(result.counts, kind="stable"), 10)
            found = np.mean([r <= np.maximum(1, np.ceil(0.05 * result.candidates))
                             for r in result.ranks.values()], axis=0)
            value = [found[part].mean() for part in order]
            error = [found[part].std() / np.sqrt(len(part)) for part in order]
            right.errorbar([np.median(result.counts[part]) * 1.03 ** k for part in order], value,
                           error, **_style(k))
        right.axhline(0.05, color="0.5", lw=0.8)
        right.set(xscale="log", xlabel="photons (median of the decile)",
                  ylabel="partner among the first 5 %", ylim=(0, 1.02))
        _plain_ticks(right)
    heading = f"{n} simulated sources, both directions"
    _legend(figure, left, ncols=4 if counted else 1,
            title=f"{title}; {heading}" if title and counted else title or heading)
    return figure


@_in_style
def plot_regression(result, targets=None):
    """Draw predicted against true values with their 68 % intervals.

    Parameters
    ----------
    result : RegressionResult
    targets : sequence of str, optional
        At most nine; by default the first ones.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of a page wide.
    """
    targets = list(result.truth)[:9] if targets is None else list(targets)
    n_columns = min(3, len(targets))
    n_rows = -(-len(targets) // n_columns)
    figure, axes = _figure((_TWO, 2.3 * n_rows + 0.25), n_rows, n_columns, squeeze=False)
    rng = np.random.default_rng(0)
    for ax, target in zip(axes.flat, targets):
        known = np.isfinite(result.truth[target])
        truth, value = result.truth[target][known], result.predicted[target]["best",
                                                                             "nested choice"]
        lower, upper = result.intervals[target][:, 0]
        # Ends of the axes by the truth: a few wild predictions must not hide all others.
        ends = np.quantile(truth, [0.003, 0.997]) + np.array([-0.08, 0.08]) * np.ptp(truth)
        some = rng.permutation(len(truth))[:150]  # more bars would be a grey mass
        ax.vlines(truth[some], np.maximum(lower[some], ends[0]), np.minimum(upper[some], ends[1]),
                  color="0.82", lw=0.6, zorder=0, rasterized=True)
        ax.plot(truth, value.clip(*ends), ".", color=_COLOURS[0], ms=4, alpha=0.6, mew=0,
                rasterized=True)
        ax.plot(ends, ends, color="0.25", lw=0.8)
        score, held = result.scores[target]["best", "nested choice"]["R2"], result.coverage(target)
        ax.set_title(_named(target))
        ax.text(0.04, 0.96, f"$R^2$ = {score.value:.2f} ± {score.error:.2f}\nheld "
                f"{held[0.68].value:.0%}, {held[0.95].value:.0%}", va="top", fontsize=7,
                transform=ax.transAxes, bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1})
        ax.set(xlim=ends, ylim=ends)
    for ax in axes.flat[len(targets):]:
        ax.set_axis_off()
    figure.supxlabel("true value (simulated sources)", fontsize=8)
    figure.supylabel("predicted value (grey: 68 % interval; held: share in 68 and 95 % intervals)",
                     fontsize=8)
    return figure


_NAMES = {
    "photon_index": "photon index", "log n_h": r"log $N_\mathrm{H}$ ($10^{22}$ cm$^{-2}$)",
    "log kT": "log kT (keV)", "log flux": r"log flux (erg s$^{-1}$ cm$^{-2}$)",
    "log fractional_variability": "log fractional variability", "log period": "log period (s)",
    "log timescale": "log time scale (s)", "log count_rate": "log count rate (ct/s)",
}


def _named(target):
    return _NAMES.get(target, target.replace("_", " "))


@_in_style
def plot_scores(result):
    """Draw R² by target and feature set, with bootstrap errors.

    Parameters
    ----------
    result : RegressionResult

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of a page wide.
    """
    table = result.score_table("R2")
    shown = [*result.features, "best"][:len(_COLOURS)]
    figure, ax = _figure((_TWO, 3.0))
    where = np.arange(len(table))
    for k, name in enumerate(shown):
        value, error = _errors_of(table, name)
        ax.errorbar(where + (k - (len(shown) - 1) / 2) * 0.7 / len(shown), value, error,
                    **_style(k, line=False), label=name)
    for edge in where[1:] - 0.5:
        ax.axvline(edge, color="0.9", lw=0.7, zorder=0)
    ax.axhline(0, color="0.45", lw=0.7)
    ax.set_xticks(where, [_named(target).split(" (")[0] for target in table["R2"]], rotation=25,
                  ha="right", rotation_mode="anchor")
    ax.set(ylabel="$R^2$", ylim=(max(-0.3, ax.get_ylim()[0]), 1.02),
           xlim=(-0.5, len(where) - 0.5))
    _legend(figure, ax, ncols=4, title=f"{len(result.sources)} simulated sources, "
                                       "regressor chosen in the training folds")
    return figure


@_in_style
def plot_labels(result):
    """Draw the error by number of labelled sources, a panel for each regressor.

    Parameters
    ----------
    result : LabelCurveResult

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of a page wide.
    """
    figure, axes = _figure((_TWO, 2.9), 1, len(result.experts), squeeze=False, sharey=True)
    for ax, expert in zip(axes.flat, result.experts):
        for k, name in enumerate(result.features):
            found = [result.relative_error(size, name, expert) for size in result.sizes]
            ax.errorbar(np.array(result.sizes) * 1.03 ** (k - len(result.features) / 2),
                        [f.value for f in found], [f.error for f in found], **_style(k),
                        label=name)
        ax.axhline(1, color="0.45", lw=0.7)
        ax.set_xscale("log")
        ax.set_xticks(result.sizes, [str(size) for size in result.sizes])
        ax.minorticks_off()
        ax.set(xlabel="labelled sources", title=expert,
               xlim=(result.sizes[0] / 1.3, result.sizes[-1] * 1.3))
    axes[0, 0].set_ylabel("mean absolute error\nover that of the mean")
    _legend(figure, axes[0, 0], ncols=4,
            title=f"mean of {len(result.targets)} targets, {len(result.sources)} simulated sources "
                  "predicted")
    return figure


@_in_style
def plot_confusion(confusion, classes, *, title="", share=True):
    """Draw a confusion matrix.

    Parameters
    ----------
    confusion : array_like, shape (n, n)
        Counts; rows are the true classes.
    classes : sequence of str
    title : str, optional
    share : bool, optional
        Whether to write per cents into the cells (of 10 % and more).

    Returns
    -------
    matplotlib.figure.Figure
        One column of a page wide, up to two for many classes.
    """
    confusion = np.asarray(confusion, dtype=float)
    rows = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(1.8 + 0.19 * len(classes), _ONE, _TWO))
    figure, ax = _figure((side, 0.93 * side))
    image = ax.imshow(rows, cmap="Blues", vmin=0, vmax=100)
    size = 5 if len(classes) > 18 else 6
    for i, j in np.argwhere(rows >= 10) if share else ():
        ax.text(j, i, f"{rows[i, j]:.0f}", ha="center", va="center", fontsize=size,
                color="white" if rows[i, j] > 55 else "0.15")
    ticks = np.arange(len(classes))
    ax.set_xticks(ticks, classes, rotation=90)
    ax.set_yticks(ticks, classes)
    ax.tick_params(length=0, labelsize=6.5 if len(classes) > 18 else 7)
    ax.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(image, ax=ax, shrink=0.6, label="% of the true class", pad=0.01)
    return figure


@_in_style
def plot_class_reliability(result):
    """Draw how often the likeliest class is right against its probability.

    Parameters
    ----------
    result : ClassProbabilitiesResult

    Returns
    -------
    matplotlib.figure.Figure
        One column of a page wide.
    """
    table = result.reliability()
    figure, axes = _figure((_ONE, 3.9), 2, 1, height_ratios=(3.2, 1), sharex=True)
    axes[0].plot([0, 1], [0, 1], color="0.45", lw=0.8)
    axes[0].errorbar(table["probability"], *_errors_of(table, "right"), **_style(0))
    ece = result.scores["ECE"]
    axes[0].text(0.04, 0.96, f"ECE {ece.value:.3f} ± {ece.error:.3f}\n(perfect probabilities: "
                 f"{result.chance['ECE']:.3f})", transform=axes[0].transAxes, va="top", fontsize=7)
    axes[0].set(ylabel="likeliest class is right", ylim=(0, 1), xlim=(0, 1),
                title=f"{len(result.true)} simulated sources, {len(result.classes)} classes")
    axes[1].hist(result.probabilities.max(axis=1), np.linspace(0, 1, 26), color=_COLOURS[0])
    axes[1].set(xlabel="probability of the likeliest class", ylabel="sources")
    return figure


@_in_style
def plot_queries(result):
    """Draw how often questions in plain words find a source of the right class.

    Parameters
    ----------
    result : QueriesResult

    Returns
    -------
    matplotlib.figure.Figure
        One column of a page wide for each part of the questions.
    """
    parts = list(dict.fromkeys(result.parts))
    figure, axes = _figure((min(_TWO, _ONE * len(parts)), 2.7), 1, len(parts), squeeze=False,
                           sharey=True)
    table = result.to_table()
    names = [name for name in table.colnames if name.startswith("Recall@") and "error" not in name]
    for ax, part in zip(axes.flat, parts):
        rows = table[table["part"] == part]
        width = 0.84 / len(rows)
        for k, row in enumerate(rows):
            chance = row["asked"] == "chance"
            ax.bar(np.arange(len(names)) + (k - (len(rows) - 1) / 2) * width,
                   [row[name] for name in names], width * 0.94,
                   yerr=None if chance else [row[f"{name} error"] for name in names],
                   color="0.75" if chance else _COLOURS[k], label=row["asked"],
                   error_kw={"lw": 0.8, "ecolor": "0.2"})
        ax.set_xticks(np.arange(len(names)), [f"first {name[7:]}" if name != "Recall@1" else "first"
                                              for name in names])
        ax.set(title=f"{part}: {rows['questions'][0]} questions", ylim=(0, 1.02),
               xlabel="sources looked at")
    axes[0, 0].set_ylabel("a source of the right class found")
    _legend(figure, axes[0, 0], ncols=4 if len(parts) > 1 else 2)
    return figure


@_in_style
def plot_novelty(result):
    """Draw how well each left-out class is found.

    Parameters
    ----------
    result : NoveltyResult

    Returns
    -------
    matplotlib.figure.Figure
        One column of a page wide.
    """
    methods = list(next(iter(result.scores.values())))
    order = sorted(result.scores, key=lambda c: result.scores[c][methods[-1]]["ROC AUC"].value)
    figure, ax = _figure((_ONE, 1.0 + 0.15 * len(order)))
    for k, method in enumerate(methods):
        found = [result.scores[name][method]["ROC AUC"] for name in order]
        ax.errorbar([f.value for f in found], np.arange(len(order)) + 0.2 * (k - 0.5),
                    xerr=[f.error for f in found], **_style(k, line=False), label=method)
    ax.axvline(0.5, color="0.45", lw=0.8, label="chance")
    ax.set_yticks(np.arange(len(order)), order)
    ax.tick_params(axis="y", labelsize=6.5)
    ax.set(xlabel="ROC AUC, class left out", ylim=(-0.7, len(order) - 0.3))
    ax.set_xlim(min(0.4, ax.get_xlim()[0]), 1.01)
    ax.grid(axis="y", color="0.92", lw=0.6)
    ax.set_axisbelow(True)
    _legend(figure, ax, ncols=2, title="simulated sources")
    return figure
