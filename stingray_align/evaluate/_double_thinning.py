r"""Is the posterior of a light curve as wide as it should be, where no truth is known?

A source's photons are split at random in three: half of them, part A, give the posterior, a
quarter each are the tests 1 and 2. A posterior says of a time window that it holds the share
:math:`m \pm \sqrt v` of the expected photons. With :math:`k_j` of the :math:`n_j` test photons in
it, :math:`y_j = k_j / n_j - m` is the error of the prediction plus Poisson noise. The noise of the
two tests is independent, so the product :math:`y_1 y_2` has the squared error as its mean, and

.. math:: \tau^2 = \frac{\sum y_1 y_2 / (m (1 - m))}{\sum v / (m (1 - m))}

is one on average if the posterior is calibrated, four if its standard deviations are half of what
they should be, and a quarter if they are twice that. Windows are halves, quarters, eighths and
sixteenths of the exposed time; all the energies are taken together, so what is tested is the light
curve.
"""

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ..photons import BAND_OF_CHANNEL, N_TIME_BINS
from ._report import Report, bootstrap, figures, joined_errors

__all__ = ["DoubleThinningResult", "double_thinning"]

_WINDOWS = (2, 4, 8, 16)


def double_thinning(models, photons, *, n_splits=8, n_draws=200, batch_size=100, n_groups=5,
                    seed=0, n_resamples=400, progress=True):
    """Compare the errors of predicted light curves with their posterior variance.

    Parameters
    ----------
    models : object or dict
        A model, or several by name, each with a method ``drawn_rates(photons, n_draws, seed)``
        that returns draws of the rate of 0.5-7 keV on equal time bins from the posterior, in any
        unit, shape (n, n_draws, m) with ``m`` a multiple of 512; or that method itself.
    photons : Photons
        Real or simulated sources; at least four photons each are needed for a source to count.
    n_splits : int, optional
        Random splits of each source.
    n_draws : int, optional
        Draws from each posterior.
    batch_size : int, optional
        Sources worked on at a time.
    n_groups : int, optional
        Number of quantiles of the photon counts.
    seed : int, optional
        Seed of splits, draws and bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    DoubleThinningResult
    """
    models = models if isinstance(models, dict) else {"model": models}
    photons = photons.select(BAND_OF_CHANNEL[photons.channel] < 3)
    rng = np.random.default_rng(seed)
    squared = {name: np.zeros(len(photons)) for name in models}
    expected = {name: np.zeros(len(photons)) for name in models}
    for split in tqdm(range(n_splits), desc="double thinning", unit="split", disable=not progress):
        seen, rest = photons.thin(0.5, rng)
        tests = rest.thin(0.5, rng)
        for start in range(0, len(photons), batch_size):
            rows = slice(start, start + batch_size)
            window = _window_of_bin(photons[rows])
            shares = [_test_shares(test[rows], window) for test in tests]
            for name, model in models.items():
                drawn = getattr(model, "drawn_rates", model)(seen[rows], n_draws, seed + split)
                terms = _terms(np.asarray(drawn, dtype=float), photons[rows], window, *shares)
                squared[name][rows] += terms[0]
                expected[name][rows] += terms[1]
    return DoubleThinningResult(squared=squared, expected=expected, counts=photons.n_photons,
                                n_groups=n_groups, n_splits=n_splits, seed=seed,
                                n_resamples=n_resamples)


def _window_of_bin(photons):
    """Which of the narrowest windows each time bin belongs to, by the middle of its exposure."""
    gathered = np.cumsum(photons.exposed, axis=1, dtype=float)
    middle = (gathered - photons.exposed / 2) / np.maximum(gathered[:, -1:], 1e-12)
    return np.clip((middle * _WINDOWS[-1]).astype(int), 0, _WINDOWS[-1] - 1)


def _test_shares(photons, window):
    """Share of the photons in every window, shape (n, 30); nan where there is no photon."""
    found = window[photons.source_index, photons.time_bin]
    counts = np.bincount(photons.source_index * _WINDOWS[-1] + found,
                         minlength=len(photons) * _WINDOWS[-1]).reshape(-1, _WINDOWS[-1])
    total = photons.n_photons[:, None]
    return _all_windows(np.where(total > 0, counts / np.maximum(total, 1), np.nan))


def _all_windows(narrow):
    """Shares of the narrowest windows summed to those of all widths, along the last axis."""
    return np.concatenate([narrow.reshape(*narrow.shape[:-1], n, -1).sum(axis=-1)
                           for n in _WINDOWS], axis=-1)


def _terms(drawn, photons, window, first, second):
    """Numerator and denominator of tau^2 of each source."""
    n, n_draws = drawn.shape[:2]
    rate = drawn.reshape(n, n_draws, N_TIME_BINS, -1).mean(axis=3) * photons.exposed[:, None]
    membership = window[:, :, None] == np.arange(_WINDOWS[-1])
    share = rate @ membership.astype(float)
    share /= share.sum(axis=2, keepdims=True)
    share = _all_windows(share)
    mean = share.mean(axis=1)
    # The mean of a finite number of draws has an error of its own.
    variance = share.var(axis=1, ddof=1) * (1 + 1 / n_draws)
    usable = np.isfinite(first) & np.isfinite(second) & (mean > 0) & (mean < 1)
    weight = np.where(usable, 1 / np.where(usable, mean * (1 - mean), 1), 0)
    product = np.where(usable, (first - mean) * (second - mean), 0)
    return (product * weight).sum(axis=1), (variance * weight).sum(axis=1)


@dataclass(frozen=True, eq=False)
class DoubleThinningResult(Report):
    """Squared errors of predicted window shares beside the variance that the posterior has.

    Attributes
    ----------
    squared, expected : dict of ndarray, shape (n,)
        Numerator and denominator of tau^2 of each source, for each model.
    counts : ndarray, shape (n,)
        Photons of each source (0.5-7 keV, all parts).
    """

    primary_is = "tau^2 (1 if calibrated)"

    squared: dict
    expected: dict
    counts: np.ndarray
    n_groups: int
    n_splits: int
    seed: int
    n_resamples: int

    @property
    def title(self):
        """What was measured."""
        return (f"Double thinning: {len(self.counts)} sources, {self.counts.min()} to "
                f"{self.counts.max()} photons, {self.n_splits} splits")

    notes = ("tau^2: squared error of the predicted share of photons in time windows over the "
             "posterior variance; 1 if the posterior is calibrated, above if it is too narrow; "
             "the noise of the photons is taken off, so that few sources can give less than zero. "
             "Errors: bootstrap over sources.",)

    def tau2(self, name=None, *, where=None):
        """The ratio of squared error to posterior variance.

        Parameters
        ----------
        name : str, optional
            Model; the first by default.
        where : ndarray of bool or int, optional
            Which sources; all by default.

        Returns
        -------
        Estimate
        """
        name = next(iter(self.squared)) if name is None else name
        where = slice(None) if where is None else where
        squared, expected = self.squared[name][where], self.expected[name][where]

        def ratio(rows):  # undefined where a posterior says that the light curve is known
            total = expected[rows].sum()
            return squared[rows].sum() / total if total > 1e-9 * len(rows) else np.nan

        return bootstrap(ratio, len(squared), seed=self.seed, n_resamples=self.n_resamples)

    @property
    def primary(self):
        """tau^2 of the first model over all sources, an `Estimate`."""
        return self.tau2()

    def to_table(self):
        """tau^2 by quantile of photon counts, and of all sources.

        Returns
        -------
        `~astropy.table.QTable`
        """
        order = np.argsort(self.counts, kind="stable")
        parts = [(f"{self.counts[part].min()}-{self.counts[part].max()}", part)
                 for part in np.array_split(order, min(self.n_groups, len(order)))]
        rows = []
        for label, part in [*parts, ("all", order)]:
            row = [label, len(part)]
            for name in self.squared:
                row += self.tau2(name, where=part)[:2]
            rows.append(row)
        columns = [c for name in self.squared for c in (f"tau^2 {name}", f"tau^2 {name} error")]
        return figures(rows, ["photons", "sources", *columns])

    def tables(self):
        """The table, errors beside the values."""
        return [joined_errors(self.to_table())]
