r"""How well does a rate found from one half of the photons predict the other half?

On real observations the true rate is not known, but the halves of a random split are independent
Poisson processes of it. Every model sees one half; the other is scored by its likelihood in time
and three bands (see `stingray_align.evaluate.reconstruction`), as gain over a constant rate per
band and photon scored. A gain of 0 means that nothing but the constant was found, and below 0 the
model's structure is not that of the source.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ..photons import BAND_OF_CHANNEL
from . import rivals as _rivals
from ._reconstruction import N_BANDS, log_likelihood
from ._report import Estimate, Report, bootstrap, figures, joined_errors

__all__ = ["ThinningResult", "thinning"]


def thinning(models, photons, *, rivals=None, names=None, labels=None, n_splits=8, seed=0,
             n_resamples=400, progress=True):
    """Score models by the likelihood of the photons that they did not see.

    Parameters
    ----------
    models : object or dict
        A model, or several by name, as in `stingray_align.evaluate.reconstruction`.
    photons : Photons
        ``n`` sources, real or simulated. The photons must not be thinned to every k-th one: such
        a list is no Poisson process, and its halves are not independent.
    rivals : dict, optional
        Rivals by name; by default all of `stingray_align.evaluate.rivals`.
    names : sequence of str, optional
        Names of the sources for the table.
    labels : sequence of str, optional
        Kind of each source, such as ``"one source"`` or ``"field"``; sums are given for each.
    n_splits : int, optional
        Random splits of each source, at least two.
    seed : int, optional
        Seed of the splits and of the bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    ThinningResult
    """
    models = models if isinstance(models, dict) else {"model": models}
    rivals = _rivals.RIVALS if rivals is None else rivals
    predictors = {name: getattr(m, "band_rates", m) for name, m in (models | rivals).items()}
    constant_rates = _rivals.constant.band_rates
    if n_splits < 2:
        raise ValueError(f"n_splits={n_splits}: at least two splits are needed for an error.")
    n = len(photons)
    rng = np.random.default_rng(seed)
    gain = {name: np.empty((n_splits, n)) for name in predictors}
    scored_photons = np.empty((n_splits, n))
    for split in tqdm(range(n_splits), desc="thinning", unit="split", disable=not progress):
        seen, scored = photons.thin(0.5, rng)
        zero = log_likelihood(scored, constant_rates(seen))
        scored_photons[split] = _in_bands(scored)
        for name, predict in predictors.items():
            gain[name][split] = log_likelihood(scored, predict(seen)) - zero
    names = [f"source {i}" for i in range(n)] if names is None else list(names)
    labels = [""] * n if labels is None else list(labels)
    return ThinningResult(
        names=np.array(names, dtype=str), labels=np.array(labels, dtype=str),
        counts=photons.n_photons, models=tuple(predictors), gain=gain, scored=scored_photons,
        seed=seed, n_resamples=n_resamples)


def _in_bands(photons):
    scored = BAND_OF_CHANNEL[photons.channel] < N_BANDS
    return np.bincount(photons.source_index[scored], minlength=len(photons))


@dataclass(frozen=True, eq=False)
class ThinningResult(Report):
    """Gain over a per-band constant in the likelihood of unseen photons.

    Attributes
    ----------
    names, labels : ndarray of str, shape (n,)
        Name and kind of each source.
    counts : ndarray, shape (n,)
        Photons of each source (0.5-8 keV, both halves).
    models : tuple of str
        Models and rivals, the first to be compared with the others.
    gain : dict of ndarray, shape (n_splits, n)
        Gain in nats of each model.
    scored : ndarray, shape (n_splits, n)
        Photons scored.
    """

    primary_is = "nats gained per photon over a constant"

    names: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    models: tuple
    gain: dict
    scored: np.ndarray
    seed: int
    n_resamples: int

    @property
    def title(self):
        """What was measured."""
        return (f"Thinning score: {len(self.counts)} sources, {len(self.scored)} random halves; "
                "nats per photon above a constant rate per band, in thousandths")

    @property
    def notes(self):
        """How to read the table."""
        return ("Errors of a source: of the mean over splits; they say how much depends on the "
                "split, not how a second observation would differ.",
                "Sums: gain over photons of all sources, errors by bootstrap over sources; "
                f"ahead on: sources on which {self.models[0]} gains more than this one; sigma: "
                "significance of its mean gain per source above this one's.")

    @property
    def primary(self):
        """Gain per photon of the first model over all sources, an `Estimate` in nats."""
        return self.gain_per_photon(self.models[0])

    def gain_per_photon(self, name, where=None):
        """Gain of some sources together in nats per photon, with a bootstrap error over sources.

        Parameters
        ----------
        name : str
            Model or rival.
        where : ndarray of bool or int, optional
            Which sources; all by default.

        Returns
        -------
        Estimate
        """
        where = slice(None) if where is None else where
        gain, scored = (x.mean(axis=0)[where] for x in (self.gain[name], self.scored))
        with np.errstate(divide="ignore", invalid="ignore"):
            return bootstrap(lambda i: gain[i].sum() / scored[i].sum(), len(gain), seed=self.seed,
                             n_resamples=self.n_resamples)

    def lead(self, name, where=None):
        """Mean gain per source of the first model minus another's, an `Estimate` in nats."""
        where = slice(None) if where is None else where
        difference = (self.gain[self.models[0]] - self.gain[name]).mean(axis=0)[where]
        return bootstrap(lambda i: difference[i].mean(), len(difference), seed=self.seed,
                         n_resamples=self.n_resamples)

    def of_source(self, name, i):
        """Gain per photon of one source in nats, with the error of the mean over splits."""
        each = self.gain[name][:, i] / np.maximum(self.scored[:, i], 1)
        error = each.std(ddof=1) / np.sqrt(len(each))
        return Estimate(each.mean(), error, each.mean() - 1.96 * error, each.mean() + 1.96 * error)

    def to_table(self):
        """A row for each source, in thousandths of a nat per photon.

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = []
        for i in np.argsort(self.labels, kind="stable"):
            row = [self.names[i], self.labels[i], int(self.counts[i])]
            for name in self.models:
                row += [1000 * x for x in self.of_source(name, i)[:2]]
            rows.append(row)
        columns = [c for name in self.models for c in (name, f"{name} error")]
        return figures(rows, ["source", "kind", "photons", *columns],
                       formats=dict.fromkeys(columns, ".1f"))

    def summary(self):
        """A row for each model and kind of source: sums, and the lead of the first model.

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = []
        for kind in np.unique(self.labels):
            where = self.labels == kind
            for name in self.models:
                score, lead = self.gain_per_photon(name, where), self.lead(name, where)
                sigma = lead.value / lead.error if lead.error > 0 else np.nan
                better = self.gain[self.models[0]].mean(axis=0) > self.gain[name].mean(axis=0)
                rows.append([kind, int(where.sum()), name, 1000 * score.value, 1000 * score.error,
                             self.gain[name][:, where].mean(), int(better[where].sum()), sigma])
        return figures(
            rows, ["kind", "sources", "model", "gain", "gain error", "nats per source", "ahead on",
                   "sigma"],
            formats={"gain": ".2f", "gain error": ".2f", "nats per source": ".2f",
                     "sigma": ".1f"})

    def tables(self):
        """Sums first, then source by source."""
        return [joined_errors(self.summary()), joined_errors(self.to_table())]
