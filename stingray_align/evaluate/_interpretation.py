"""Do the class probabilities and the parameter intervals of an interpretation hold what they say?

Reliability: among sources whose most probable class has a probability of 0.7, 70 % should be of
it. The expected calibration error (ECE) is the mean gap between the two over ten bins of equal
number, weighted by the bins' sizes (Guo et al. 2017, ICML).

The parameters of the neighbours are also compared with those that the photons say by themselves.
"""

from dataclasses import dataclass

import numpy as np

from ._report import Report, bootstrap, figures

__all__ = ["InterpretationResult", "interpretation", "plot_reliability"]

_BINS = 10


def interpretation(catalogue, vectors, truth, *, inferred=None, seed=0, n_resamples=400):
    """Measure calibration of classes and parameters on sources with known truth.

    Parameters
    ----------
    catalogue : AlignedCatalog
    vectors : sequence of array_like, shape (n_draws, n_shared)
        Projected draws of each source.
    truth : astropy.table.Table
        With ``class``, ``counts`` and parameters.
    inferred : mapping of str to array_like, shape (n,), optional
        Parameter to what the photons say of it by themselves.
    seed, n_resamples : int, optional
        Of the bootstrap.

    Returns
    -------
    InterpretationResult
    """
    from ..alignment.interpretation import read_parameters
    from ..alignment.intervals import LOGARITHMIC, PARAMETERS

    names, counts = np.array(catalogue.classes), np.asarray(truth["counts"], float)
    code = np.array([list(names).index(name) if name in names else -1 for name in truth["class"]])
    probability, readings = [], []
    for own, n in zip(vectors, counts, strict=True):
        probability.append(catalogue.class_probabilities(own))
        weights = catalogue.neighbour_weights(own)
        readings.append({row["parameter"]: (row["lower"], row["value"], row["upper"])
                         for row in read_parameters(catalogue, weights, n)})
    probability = np.array(probability)
    inside, miss = {}, {}
    for name in PARAMETERS:
        if name not in truth.colnames:
            continue
        values = np.asarray(getattr(truth[name], "value", truth[name]), float)
        lower, middle, upper = np.array([given.get(name, (np.nan,) * 3) for given in readings]).T
        known = np.isfinite(values) & np.isfinite(middle)
        inside[name] = np.where(known, (lower <= values) & (values <= upper), np.nan)
        if name in (inferred or {}):
            each = np.where(known, [middle, inferred[name], values], np.nan)
            if name in LOGARITHMIC:
                each = np.log10(np.maximum(each, 1e-3))
            miss[name] = np.abs(each[:2] - each[2])
    best = probability.argmax(axis=1)
    right = best == code
    confidence = probability.max(axis=1)
    log_loss = -np.log(np.maximum(probability[np.arange(len(code)), code], 1e-12))
    ece, accuracy, loss, brier = bootstrap(
        lambda rows: np.array([_ece(confidence[rows], right[rows]), right[rows].mean(),
                               log_loss[rows].mean(),
                               _brier(probability[rows], code[rows])]),
        len(code), seed=seed, n_resamples=n_resamples)
    return InterpretationResult(confidence=confidence, right=right, inside=inside, miss=miss,
                                counts=counts, seed=seed, n_resamples=n_resamples,
                                scores={"ECE": ece, "accuracy": accuracy, "log loss": loss,
                                        "Brier score": brier}, n_classes=len(names))


def _bins(confidence):
    return np.array_split(np.argsort(confidence, kind="stable"), _BINS)


def _ece(confidence, right):
    return sum(len(rows) * abs(confidence[rows].mean() - right[rows].mean())
               for rows in _bins(confidence) if len(rows)) / len(right)


def _brier(probability, code):
    target = np.zeros_like(probability)
    target[np.arange(len(code)), code] = 1
    return ((probability - target) ** 2).sum(axis=1).mean()


@dataclass(frozen=True, eq=False)
class InterpretationResult(Report):
    """Calibration of classes and parameters.

    Attributes
    ----------
    confidence, right : ndarray, shape (n,)
        Probability of the most probable class, and whether it is the true one.
    inside : dict of ndarray, shape (n,)
        Parameter to whether the neighbours' 68 % interval holds the truth; nan where there is none.
    miss : dict of ndarray, shape (2, n)
        Parameter to how far the neighbours' value and the inferred one are off, in dex for
        temperature, column density and time scale; nan likewise.
    counts : ndarray, shape (n,)
        Photons.
    scores : dict of Estimate
        ``"ECE"``, ``"accuracy"``, ``"log loss"`` (nats), ``"Brier score"``.
    n_classes : int
    """

    confidence: np.ndarray
    right: np.ndarray
    inside: dict
    miss: dict
    counts: np.ndarray
    scores: dict
    n_classes: int
    seed: int
    n_resamples: int

    title = property(lambda self: f"Interpretations of {len(self.counts)} simulated sources")

    @property
    def notes(self):
        return (f"Errors: bootstrap over sources. Chance: log loss {np.log(self.n_classes):.2f}, "
                f"accuracy {1 / self.n_classes:.3f}. Shares: truths inside the neighbours' 68 % "
                "interval, with binomial error, by photons.",
                "Off: mean distance of the value from the truth (dex of kT, n_h and timescale); "
                "the ratio by photons, too.")[:1 + bool(self.miss)]

    @property
    def primary(self):
        """Expected calibration error, an `Estimate`."""
        return self.scores["ECE"]

    def to_table(self):
        """Scores of the class probabilities."""
        return figures([(name, x.value, x.error) for name, x in self.scores.items()],
                       ["classes", "value", "error"])

    def tables(self):
        """The above, the coverage of the intervals, and what the photons say by themselves."""
        groups = {"all": self.counts >= 0, "< 50": self.counts < 50,
                  "50 to 300": (self.counts >= 50) & (self.counts < 300),
                  "> 300": self.counts >= 300}
        held, off = [], []
        for name, inside in self.inside.items():
            known = [np.flatnonzero(some & np.isfinite(inside)) for some in groups.values()]
            held.append([name, *(inside[rows].mean() if len(rows) > 20 else np.nan
                                 for rows in known),
                         np.sqrt(0.68 * 0.32 / max(len(known[0]), 1))])
            if name in self.miss and len(known[0]) > 20:
                miss = self.miss[name][:, known[0]]
                ratio = bootstrap(lambda rows: miss[1, rows].mean() / miss[0, rows].mean(),
                                  len(known[0]), seed=self.seed, n_resamples=self.n_resamples)
                off.append([name, *miss.mean(axis=1), ratio.value, ratio.error, *(
                    self.miss[name][1, rows].mean() / self.miss[name][0, rows].mean()
                    if len(rows) > 20 else np.nan for rows in known[1:])])
        tables = [self.to_table(), figures(held, ["68 % interval of", *groups, "error (all)"],
                                           formats=dict.fromkeys(groups, ".2f"))]
        if off:
            tables.append(figures(
                off, ["off", "neighbours", "inferred", "ratio", "ratio error", *list(groups)[1:]],
                formats=dict.fromkeys(list(groups)[1:], ".2f")))
        return tables


def plot_reliability(results):
    """Share of right classes against the probability given.

    Parameters
    ----------
    results : dict of InterpretationResult

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(4.2, 4.0), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
    for (name, result), colour, marker in zip(results.items(), ("#0072B2", "#D55E00", "#009E73"),
                                              "osD"):
        x, y, error = [], [], []
        for rows in _bins(result.confidence):
            share = result.right[rows].mean()
            x.append(result.confidence[rows].mean())
            y.append(share)
            error.append(np.sqrt(max(share * (1 - share), 0.25 / len(rows)) / len(rows)))
        ece = result.scores["ECE"]
        ax.errorbar(x, y, error, color=colour, marker=marker, ms=4, lw=1, ls="none",
                    label=f"{name}: ECE {ece.value:.3f} ± {ece.error:.3f}")
    ax.set(xlabel="probability of the most probable class", ylabel="share that is of this class",
           xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.legend(loc="lower right", frameon=False, fontsize=8)
    return figure
