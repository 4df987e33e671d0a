r"""How much of what can be known about a source's rate does a model find?

Each source's photons are split at random into halves A and B. The model sees A and predicts the
rate; B is scored under the Poisson-process likelihood in time and three bands,

.. math:: \log L = \sum_{k \in B} \log\lambda_{b(k)}(t_k) - \sum_b \int_\mathrm{GTI} \lambda_b\,dt

The figure of merit is the *fraction of the oracle gain*: with a per-band constant as zero and the
true rate as one,

.. math:: F = \frac{\sum_\mathrm{sources} (\log L_\mathrm{model} - \log L_\mathrm{const})}
                   {\sum_\mathrm{sources} (\log L_\mathrm{oracle} - \log L_\mathrm{const})} .

Two independent halves of a Poisson process have no common noise, so nothing is gained by
over-fitting, and a likelihood needs no binning to compare.

:math:`F` depends on the mix of light curves. Across populations, compare *gaps*, what is missing to
the oracle: the *gap ratio* is that of the first model over a rival's on the same sources.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ..photons import BAND_OF_CHANNEL, N_TIME_BINS
from . import rivals as _rivals
from ._report import Report, bootstrap, figures, joined_errors

__all__ = ["ReconstructionResult", "log_likelihood", "reconstruction"]

#: A model counts as ahead of a rival on any population if its gap is smaller by this share.
CLEAR_LEAD = 0.2

N_BANDS = 3  # 0.5-1.2, 1.2-2 and 2-7 keV; photons above 7 keV are seen by models, not scored


def log_likelihood(photons, rates):
    """Poisson-process log-likelihood of photons under a rate that is constant in time bins.

    Parameters
    ----------
    photons : Photons
        ``n`` sources.
    rates : ndarray, shape (n, m, 3)
        Rate in ct/s in the three evaluation bands on ``m`` equal time bins, ``m`` a multiple of
        512; above zero wherever a photon may fall.

    Returns
    -------
    ndarray, shape (n,)

    Notes
    -----
    Where the exposure lies inside a time bin that is exposed in part is not known. Finer rates are
    averaged there: else one that follows the border of a good time interval would seem to know
    something of the source.
    """
    rates = _even_where_exposed_in_part(_checked(rates, len(photons)), photons)
    n_bins = rates.shape[1]
    band = BAND_OF_CHANNEL[photons.channel]
    scored = band < N_BANDS
    time_bin = np.minimum((photons.phase[scored] * n_bins).astype(np.int64), n_bins - 1)
    at_photons = rates[photons.source_index[scored], time_bin, band[scored]]
    if not at_photons.all():
        raise ValueError("A rate of zero gives a photon that does come no chance: let rates keep "
                         "a small pedestal.")
    return _total(np.log(at_photons), scored, photons) - _expected_counts(rates, photons)


def _even_where_exposed_in_part(rates, photons):
    inside = rates.shape[1] // N_TIME_BINS
    if inside == 1:
        return rates
    rates = rates.reshape(len(photons), N_TIME_BINS, inside, N_BANDS)
    part = (photons.exposed < 0.999)[:, :, None, None]
    return np.where(part, rates.mean(axis=2, keepdims=True), rates).reshape(len(photons), -1, 3)


def _total(at_photons, scored, photons):
    return np.bincount(photons.source_index[scored], at_photons, minlength=len(photons))


def _expected_counts(rates, photons):
    # The exposed fraction is known per time bin of the photons, and even inside of it.
    total = rates.sum(axis=2).reshape(len(photons), N_TIME_BINS, -1).mean(axis=2)
    return (total * photons.exposed).sum(axis=1) * photons.duration / N_TIME_BINS


def reconstruction(models, population, *, rivals=None, fraction=0.5, seed=0, batch_size=200,
                   n_resamples=400, progress=True):
    """Measure the fraction of the oracle gain that models of the rate reach.

    Parameters
    ----------
    models : object or dict
        A model, or several by name. A model either has a method ``band_rates(photons)`` or is a
        callable ``predict(photons)``; both return the rate in ct/s, shape (n, m, 3): any multiple
        of 512 time bins and the bands 0.5-1.2, 1.2-2, 2-7 keV. The first is compared with all the
        others.
    population : Population
        Sources with known truth, as from `stingray_align.datasets.simulate_population`: its
        ``photons``, ``true_log_rates``, ``true_counts_grid`` and ``truth["time_shape"]`` are used.
    rivals : dict, optional
        Rivals by name, as ``models``; by default all of `stingray_align.evaluate.rivals`. An empty
        dict leaves them out.
    fraction : float, optional
        Share of the photons that the models see; the rest is scored.
    seed : int, optional
        Seed of the split and of the bootstrap.
    batch_size : int, optional
        Sources worked on at a time.
    n_resamples : int, optional
        Bootstrap samples over sources.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    ReconstructionResult

    Notes
    -----
    The zero of the scale is the mean rate of each band in half A, ``(n + 1/2) / T`` with n the
    photons and T the exposure: the Jeffreys estimate, since a plain mean of no photons would make
    the likelihood of any later photon zero. It is the same for all models.

    The oracle is taken at the exact photon times. The row ``truth in 512 bins`` is the best that
    any curve on these bins could reach.
    """
    models = models if isinstance(models, dict) else {"model": models}
    rivals = _rivals.RIVALS if rivals is None else rivals
    predictors = {name: getattr(m, "band_rates", m) for name, m in (models | rivals).items()}
    constant_rates = _rivals.constant.band_rates
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, not {fraction}.")
    photons = population.photons
    n = len(photons)
    first, second = photons.thin(fraction, np.random.default_rng(seed))
    share = (1 - fraction) / fraction  # the rate of B in units of the rate of A
    true_sum = _true_sum(population, second, 1 - fraction)
    gain = {name: np.empty(n) for name in (*predictors, "truth in 512 bins", "oracle")}
    for start in tqdm(range(0, n, batch_size), desc="reconstruction", unit="batch",
                      disable=not progress):
        rows = np.arange(start, min(start + batch_size, n))
        seen, scored = first[rows], second[rows]
        constant = log_likelihood(scored, share * constant_rates(seen))
        for name, predict in predictors.items():
            gain[name][rows] = log_likelihood(scored, share * predict(seen)) - constant
        expected = (1 - fraction) * population.true_counts_grid(rows).astype(float)
        gain["oracle"][rows] = true_sum[rows] - expected.sum(axis=(1, 2)) - constant
        gain["truth in 512 bins"][rows] = (
            log_likelihood(scored, _as_rates(expected, scored)) - constant)
    return ReconstructionResult(
        names=tuple(models), rivals=tuple(rivals), gain=gain, counts=photons.n_photons,
        time_shape=np.asarray(population.truth["time_shape"]).astype(str), fraction_seen=fraction,
        seed=seed, n_resamples=n_resamples)


@dataclass(frozen=True, eq=False)
class ReconstructionResult(Report):
    """Gain in log-likelihood over a per-band constant, source by source.

    Attributes
    ----------
    names, rivals : tuple of str
        Models and rivals.
    gain : dict of ndarray, shape (n,)
        Gain of each model, of each rival, of ``truth in 512 bins`` and of ``oracle``, in nats.
    counts : ndarray, shape (n,)
        Photons of each source (0.5-8 keV, both halves).
    time_shape : ndarray of str, shape (n,)
        Kind of variability.
    """

    primary_is = "fraction of the oracle gain"

    names: tuple
    rivals: tuple
    gain: dict
    counts: np.ndarray
    time_shape: np.ndarray
    fraction_seen: float
    seed: int
    n_resamples: int

    @property
    def title(self):
        """What was measured."""
        return (f"Fraction of the oracle gain: {len(self.counts)} sources, "
                f"{self.counts.min()} to {self.counts.max()} photons, "
                f"{self.gain['oracle'].mean():.2f} nats to be gained per source")

    @property
    def notes(self):
        """How to read the table."""
        return ("0: constant rate per band, (n + 1/2)/T; 1: the true rate. Errors: bootstrap over "
                "sources.",
                f"sigma of lead: significance of the lead of {self.names[0]} over this one, on the "
                "same sources.",
                f"gap ratio: gap to the oracle of {self.names[0]} over this one's; sigma "
                f"{CLEAR_LEAD:.0%}: significance of a gap smaller by at least {CLEAR_LEAD:.0%}.")

    @property
    def primary(self):
        """Fraction of the oracle gain of the first model, an `Estimate`."""
        return self.fraction(self.names[0])

    def fraction(self, name, *, where=None):
        """Fraction of the oracle gain of one model.

        Parameters
        ----------
        name : str
            Model or rival.
        where : ndarray of bool, shape (n,), optional
            Which sources; all by default.

        Returns
        -------
        Estimate
        """
        return self._estimates([name], where)[0]

    def lead(self, name, *, over, where=None):
        """Difference of two fractions on the same sources, an `Estimate`."""
        where = np.ones(len(self.counts), bool) if where is None else np.asarray(where)
        difference = (self.gain[name] - self.gain[over])[where]
        oracle = self.gain["oracle"][where]
        return bootstrap(lambda i: difference[i].sum() / oracle[i].sum(), len(oracle),
                         seed=self.seed, n_resamples=self.n_resamples)

    def gap_ratio(self, name, *, over, where=None):
        """Gap to the oracle of one model over that of another on the same sources.

        Parameters
        ----------
        name, over : str
            Models or rivals.
        where : ndarray of bool, shape (n,), optional
            Which sources; all by default.

        Returns
        -------
        ratio : Estimate
        margin : Estimate
            By how much the gap is smaller than 80 % of the other one, in units of the oracle gain.
        """
        where = np.ones(len(self.counts), bool) if where is None else np.asarray(where)
        oracle = self.gain["oracle"][where]
        own, other = (oracle - self.gain[n][where] for n in (name, over))
        spare = (1 - CLEAR_LEAD) * other - own
        with np.errstate(divide="ignore", invalid="ignore"):
            return tuple(bootstrap(
                lambda i: np.array([own[i].sum() / other[i].sum(),
                                    spare[i].sum() / oracle[i].sum()]),
                len(oracle), seed=self.seed, n_resamples=self.n_resamples))

    def _estimates(self, names, where=None):
        where = np.ones(len(self.counts), bool) if where is None else np.asarray(where)
        gain = np.stack([self.gain[name][where] for name in names])
        oracle = self.gain["oracle"][where]
        return bootstrap(lambda i: gain[:, i].sum(axis=1) / oracle[i].sum(), len(oracle),
                         seed=self.seed, n_resamples=self.n_resamples)

    def to_table(self, by=None):
        """Fractions as a table.

        Parameters
        ----------
        by : {None, "counts", "time_shape"}, optional
            Overall (a row for each model), by decile of photon counts, or by kind of variability.

        Returns
        -------
        `~astropy.table.QTable`
        """
        everyone = [*self.names, *self.rivals]
        if by is None:
            shown = [*everyone, "truth in 512 bins"]
            rows = []
            for name, f in zip(shown, self._estimates(shown), strict=True):
                lead = self.lead(self.names[0], over=name)
                ratio, margin = self.gap_ratio(self.names[0], over=name)
                rows.append((name, f.value, f.error, 1 - f.value, _sigma(lead), ratio.value,
                             ratio.error, _sigma(margin), self.gain[name].mean()))
            return figures(
                rows, ["model", "fraction", "fraction error", "gap to oracle", "sigma of lead",
                       "gap ratio", "gap ratio error", f"sigma {CLEAR_LEAD:.0%}",
                       "nats per source"],
                formats={"fraction": ".4f", "fraction error": ".4f", "gap to oracle": ".4f",
                         "sigma of lead": ".1f", f"sigma {CLEAR_LEAD:.0%}": ".1f"})
        groups = {"counts": self._deciles, "time_shape": self._shapes}[by]()
        rows = []
        for label, mask in groups:
            row = [label, int(mask.sum()), self.gain["oracle"][mask].mean()]
            for f in self._estimates(everyone, mask):
                row += [f.value, f.error]
            rows.append(row)
        names = ["photons" if by == "counts" else "time_shape", "sources", "oracle nats"]
        return figures(rows, names + [c for m in everyone for c in (m, f"{m} error")])

    def tables(self):
        """Overall, by decile of photon counts, and by kind of variability."""
        return [joined_errors(self.to_table(by)) for by in (None, "counts", "time_shape")]

    def _deciles(self):
        order = np.argsort(self.counts, kind="stable")
        for part in np.array_split(order, min(10, len(order))):
            mask = np.zeros(len(order), bool)
            mask[part] = True
            yield f"{self.counts[part].min()}-{self.counts[part].max()}", mask

    def _shapes(self):
        for shape in np.unique(self.time_shape):
            yield shape, self.time_shape == shape


def _sigma(estimate):
    return estimate.value / estimate.error if estimate.error > 0 else np.nan


def _true_sum(population, photons, share):
    """Sum over each source's photons of the log of their true rate."""
    counted = BAND_OF_CHANNEL[photons.channel] < N_BANDS
    logs = population.true_log_rates(photons)[counted].astype(float) + np.log(share)
    if not np.isfinite(logs).all():
        bad = np.unique(photons.source_index[counted][~np.isfinite(logs)])
        raise ValueError(f"The true rate is zero or undefined at a photon of sources {bad[:5]}: "
                         "the population's rates must include the background.")
    return _total(logs, counted, photons)


def _as_rates(counts, photons):
    """Expected counts per bin as rates; bins without exposure, where none is needed, get 1."""
    seconds = (photons.exposed * (photons.duration[:, None] / N_TIME_BINS))[:, :, None]
    return np.where(seconds > 0, counts / np.where(seconds > 0, seconds, 1), 1.0)


def _checked(rates, n):
    rates = np.asarray(rates, dtype=float)
    if rates.ndim != 3 or rates.shape[::2] != (n, N_BANDS) or rates.shape[1] % N_TIME_BINS or (
            rates.shape[1] == 0):
        raise ValueError(f"Rates have shape {rates.shape}, expected ({n}, a multiple of "
                         f"{N_TIME_BINS}, {N_BANDS}).")
    if not (np.isfinite(rates).all() and (rates >= 0).all()):
        raise ValueError("Rates must be finite and not negative.")
    return rates
