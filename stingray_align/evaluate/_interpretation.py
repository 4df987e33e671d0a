"""Do the class probabilities and the parameter intervals of an interpretation hold what they say?

Reliability: among sources whose most probable class has a probability of 0.7, 70 % should be of
it. The expected calibration error (ECE) is the mean gap between the two over ten bins of equal
number, weighted by the bins' sizes (Guo et al. 2017, ICML).
"""

from dataclasses import dataclass

import numpy as np

from ._report import Report, bootstrap, figures

__all__ = ["InterpretationResult", "interpretation", "plot_reliability"]

_BINS = 10


def interpretation(catalogue, vectors, truth, *, seed=0, n_resamples=400):
    """Measure calibration of classes and parameters on sources with known truth.

    Parameters
    ----------
    catalogue : AlignedCatalog
    vectors : sequence of array_like, shape (n_draws, n_shared)
        Projected draws of each source.
    truth : astropy.table.Table
        With ``class``, ``counts`` and parameters.
    seed, n_resamples : int, optional
        Of the bootstrap.

    Returns
    -------
    InterpretationResult
    """
    from ..alignment.interpretation import read_parameters
    from ..alignment.intervals import PARAMETERS

    names, counts = np.array(catalogue.classes), np.asarray(truth["counts"], float)
    code = np.array([list(names).index(name) if name in names else -1 for name in truth["class"]])
    probability, readings = [], []
    for own, n in zip(vectors, counts, strict=True):
        probability.append(catalogue.class_probabilities(own))
        weights = catalogue.neighbour_weights(own)
        readings.append({row["parameter"]: (row["lower"], row["upper"])
                         for row in read_parameters(catalogue, weights, n)})
    probability = np.array(probability)
    inside = {}
    for name in PARAMETERS:
        if name in truth.colnames:
            values = np.asarray(getattr(truth[name], "value", truth[name]), float)
            inside[name] = np.array([
                np.nan if name not in given or not np.isfinite(value)
                else float(given[name][0] <= value <= given[name][1])
                for given, value in zip(readings, values)])
    best = probability.argmax(axis=1)
    right = best == code
    confidence = probability.max(axis=1)
    log_loss = -np.log(np.maximum(probability[np.arange(len(code)), code], 1e-12))
    ece, accuracy, loss, brier = bootstrap(
        lambda rows: np.array([_ece(confidence[rows], right[rows]), right[rows].mean(),
                               log_loss[rows].mean(),
                               _brier(probability[rows], code[rows])]),
        len(code), seed=seed, n_resamples=n_resamples)
    return InterpretationResult(confidence=confidence, right=right, inside=inside, counts=counts,
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
        Parameter to whether its 68 % interval holds the truth; nan where none is given.
    counts : ndarray, shape (n,)
        Photons.
    scores : dict of Estimate
        ``"ECE"``, ``"accuracy"``, ``"log loss"`` (nats), ``"Brier score"``.
    n_classes : int
    """

    confidence: np.ndarray
    right: np.ndarray
    inside: dict
    counts: np.ndarray
    scores: dict
    n_classes: int

    title = property(lambda self: f"Interpretations of {len(self.counts)} simulated sources")

    @property
    def notes(self):
        return (f"Errors: bootstrap over sources. Chance: log loss {np.log(self.n_classes):.2f}, "
                f"accuracy {1 / self.n_classes:.3f}. Shares: truths inside the 68 % interval, with "
                "binomial error, by photons.",)

    @property
    def primary(self):
        """Expected calibration error, an `Estimate`."""
        return self.scores["ECE"]

    def to_table(self):
        """Scores of the class probabilities."""
        return figures([(name, x.value, x.error) for name, x in self.scores.items()],
                       ["classes", "value", "error"])

    def tables(self):
        """The above, and the coverage of the intervals."""
        rows = []
        groups = {"all": self.counts >= 0, "< 50": self.counts < 50,
                  "50 to 300": (self.counts >= 50) & (self.counts < 300),
                  "> 300": self.counts >= 300}
        for name, inside in self.inside.items():
            row = [name]
            for some in groups.values():
                own = inside[some & np.isfinite(inside)]
                row.append(own.mean() if len(own) > 20 else np.nan)
            row.append(np.sqrt(0.68 * 0.32 / max(np.isfinite(inside).sum(), 1)))
            rows.append(row)
        return [self.to_table(), figures(rows, ["68 % interval of", *groups, "error (all)"],
                                         formats=dict.fromkeys(groups, ".2f"))]


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
