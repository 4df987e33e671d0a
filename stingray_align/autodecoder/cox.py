r"""A log-Gaussian Cox process for each source, averaged over kernels by their evidence.

The rate is :math:`\exp\eta(t)` with :math:`\eta` a Gaussian process, on cells of the window whose
expected counts are proportional to their exposure, so that a gap tells nothing. The exposure is
known in 512 time bins. Where one was exposed in part, nobody knows which of its cells were, so its
photons are shared out evenly among them. The kernels:

- none, that is a constant rate, with half of the prior probability;
- Matern-3/2 on nine length scales from 1.5 time bins to the window, four amplitudes each;
- Matern-1/2 (rough) on five length scales, three amplitudes each;
- where photons crowd inside the 512 time bins, Matern-3/2 and -1/2 on scales from a fifth of a bin,
  on 4096 cells;
- periodic and quasi-periodic: harmonics of a period, with constant or slowly changing amplitudes,
  alone and, for the best, on top of the best kernel without a period. Periods are those of the
  highest peaks of the source's own periodogram of 1, 2, 4 and 8 harmonics summed (Buccheri et al.
  1983, A&A 128, 245). That they were picked from many is paid for in their prior, which is flat in
  the logarithm of the period.

Each gives a most probable curve and, by Laplace's approximation, an evidence; the estimate is the
mean of the curves with the evidences as weights.

References
----------
Moller, Syversveen & Waagepetersen 1998, Scand. J. Statist. 25, 451 (the process); MacKay 2003,
*Information Theory, Inference, and Learning Algorithms*, chapter 28 (evidence).
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import fft

from ..photons import BAND_OF_CHANNEL, N_FINE_BINS, N_TIME_BINS
from .harmonics import Harmonics, add_power
from .markov import (LEVEL, Columns, Fit, Posterior, fit, fit_kernels, matern12, matern32,
                     mean_only)

__all__ = ["CoxProcess", "N_SUMMARY", "cox_processes"]

GRIDS = (N_TIME_BINS, N_FINE_BINS)
#: Entries of `CoxProcess.summary`.
N_SUMMARY = 10

_KERNELS = {"Matern-3/2": matern32, "Matern-1/2": matern12}
#: Kernels on the time bins and on the fine bins: length scales in time bins, and standard
#: deviations of the log-rate.
COARSE = (("Matern-3/2", (1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0, 200.0, 512.0),
           (0.25, 0.5, 1.0, 2.0)),
          ("Matern-1/2", (3.0, 12.0, 50.0, 200.0, 512.0), (0.35, 0.7, 1.4)))
FINE = (("Matern-3/2", (0.2, 0.4, 0.8), (0.5, 1.0, 2.0)),
        ("Matern-1/2", (0.4, 1.5, 6.0), (0.7, 1.4, 2.8)))
#: Share of a time bin from which on it counts as exposed throughout.
_WHOLE = 0.999
#: Excess of pairs of photons in one fine bin, in standard deviations, from which FINE is tried.
_CROWDED = 2.5
#: Numbers of harmonics, numbers of slow changes of their amplitudes, and standard deviations.
HARMONICS, CHANGES, STRENGTHS = (1, 2, 4, 8), (0, 2), (0.3, 1.0, 2.0)
#: Steps of the periodogram per independent frequency, and the frequencies (cycles per window).
_FINER, _LOWEST, _HIGHEST = 8, 1.5, 1600.0
#: Cycles of the highest harmonic that the time bins can follow.
_COARSE_CYCLES = 100.0
#: Logs of the prior probability of no variability, of each other kernel, and of each periodic model
#: at one cycle per window. A quarter is for periods; it is shared by the independent frequencies f
#: as 1 / f, and by the models of each.
_LOG_CONSTANT = np.log(0.5)
_LOG_KERNEL = np.log(0.5 / sum(len(lengths) * len(deviations)
                               for _, lengths, deviations in COARSE + FINE))
_LOG_PERIODIC = np.log(0.25 / np.log(_HIGHEST / _LOWEST)
                       / (len(HARMONICS) * len(CHANGES) * len(STRENGTHS)))
_FIRST_TRIAL = int(_LOWEST * _FINER)
_LOG_PRIOR_OF_TRIALS = _LOG_PERIODIC - np.log(np.arange(_FIRST_TRIAL, int(_HIGHEST * _FINER))
                                              / _FINER)
#: Excess power over the cost of the prior below which a period is not tried.
_LEAST_POWER = 3.0
#: Models this unlikely are left out of the average, unless another limit is asked for.
_NEGLIGIBLE = 0.02
#: Stronger variability is not tried once the evidence falls and lies this far below the best.
_HOPELESS = 6.0


class _Model(NamedTuple):
    """One kernel: its name and parameters, its matrices, its prior and the fit."""

    kernel: str
    length: float        # of the correlation, in time bins
    deviation: float
    cycles: float        # per window; 0 without a period
    harmonics: int
    process: np.ndarray | None
    columns: Columns
    log_prior: float
    fit: Fit

    @property
    def n_cells(self):
        return len(self.fit.log_rate)

    @property
    def log_posterior(self):
        return self.log_prior + self.fit.log_evidence


class _Data:
    """Photons of one source in cells, on any grid."""

    def __init__(self, fine_counts, exposed):
        exposed = exposed.astype(float)
        inside = fine_counts.reshape(N_TIME_BINS, -1)
        self._whole = exposed > _WHOLE
        even = np.repeat(inside.mean(axis=1), inside.shape[1])
        self.fine_counts = np.where(np.repeat(self._whole, inside.shape[1]), fine_counts, even)
        self._counts = {N_TIME_BINS: inside.sum(axis=1), N_FINE_BINS: self.fine_counts}
        # of a constant rate; half a photon more is known
        in_bins = (fine_counts.sum() + 0.5) * exposed / exposed.sum()
        self._expected = {n: np.repeat(in_bins, n // N_TIME_BINS) * N_TIME_BINS / n for n in GRIDS}

    def counts(self, n_cells):
        return self._counts[n_cells]

    def expected(self, n_cells):
        """Photons expected from a constant rate."""
        return self._expected[n_cells]

    def fit(self, process, columns, start=None):
        n_cells = columns.n_cells
        return fit(self.counts(n_cells), self.expected(n_cells), process, columns, start)

    def crowded(self):
        """Whether more photons share a fine bin than if spread evenly over their time bins."""
        inside = N_FINE_BINS // N_TIME_BINS
        fine = self.fine_counts.reshape(-1, inside)[self._whole]
        pairs = (fine * (fine - 1)).sum()
        counts = self.counts(N_TIME_BINS)[self._whole]
        even = (counts * (counts - 1)).sum() / inside
        return pairs - even > _CROWDED * np.sqrt(2 * even * (1 - 1 / inside)) > 0


class CoxProcess:
    """A log-Gaussian Cox process fitted to one source, averaged over kernels by their evidence.

    Parameters
    ----------
    counts : ndarray, shape (4096,)
        Photons in the fine cells of the window.
    exposed : ndarray, shape (512,)
        Exposed fraction of each time bin.
    fine : bool
        Without, it works on the time bins alone.
    negligible : float
        Models with less probability are left out of averages and draws.

    Attributes
    ----------
    models : list
        The kernels that are not negligible, each with its fit.
    chance : ndarray, shape (n_models,)
        Their probabilities.
    """

    def __init__(self, counts, exposed, *, fine=True, negligible=_NEGLIGIBLE):
        self._negligible = negligible
        self._data = data = _Data(counts, exposed)
        models = [_Model("constant", np.inf, 0.0, 0.0, 0, None, mean_only(N_TIME_BINS),
                         _LOG_CONSTANT, data.fit(None, mean_only(N_TIME_BINS)))]
        _try_kernels(data, models, COARSE, N_TIME_BINS)
        if fine and data.crowded():
            _try_kernels(data, models, FINE, N_FINE_BINS)
        _try_periods(data, models, fine)
        self._tried, self._posteriors = models, {}
        self._log_posterior = np.array([m.log_posterior for m in models])
        kept, self.chance = self._likely(np.ones(len(models), bool))
        self.models = [models[i] for i in kept]
        expected = data.expected(N_FINE_BINS)
        self._weight = expected / expected.sum()

    def _likely(self, among):
        """Numbers and probabilities of those of some models that are not negligible."""
        log_posterior = np.where(among, self._log_posterior, -np.inf)
        chance = np.exp(log_posterior - np.logaddexp.reduce(log_posterior))
        kept = np.flatnonzero(chance > self._negligible)
        return kept, chance[kept] / chance[kept].sum()

    def _posterior(self, number):
        if number not in self._posteriors:
            m = self._tried[number]
            self._posteriors[number] = Posterior(self._data.expected(m.n_cells), m.process,
                                                 m.columns, m.fit.log_rate)
        return self._posteriors[number]

    def _mean(self, among):
        kept, chance = self._likely(among)
        return chance @ np.array([self._rates(self._posterior(i).log_mean) for i in kept])

    def _rates(self, log_rates):
        """Rates over the fine bins in units of their mean, from log-rates on any grid."""
        rates = _on_fine(np.exp(log_rates))
        return rates / (rates @ self._weight)[..., None]

    @cached_property
    def shape(self):
        """Mean rate in the fine cells over its mean over the exposure, shape (4096,)."""
        return self._mean(np.ones(len(self._tried), bool))

    @cached_property
    def aperiodic(self):
        """The same of the models without a period alone."""
        return self._mean(np.array([m.cycles == 0 for m in self._tried]))

    @property
    def deviation(self):
        """Standard deviation of the log-rate in the time bins, shape (512,)."""
        posteriors = [self._posterior(i) for i in self._likely(np.ones(len(self._tried), bool))[0]]
        centre, log_mean = (np.array([_on_fine(getattr(p, name)) for p in posteriors])
                            for name in ("centre", "log_mean"))
        scatter = (centre - self.chance @ centre) ** 2
        total = np.sqrt(self.chance @ (2 * (log_mean - centre) + scatter))
        return total.reshape(N_TIME_BINS, -1).mean(axis=1)

    @property
    def summary(self):
        """What the evidence says of the kind of variability, shape (`N_SUMMARY`,).

        Log-odds of no variability, of kernels on the time bins, of those on the fine bins and of
        periods; mean log of the length (bins) and mean deviation of those without a period;
        excess of the best log-evidence (with prior) of kernels on the time bins, of those on the
        fine bins, and of periods; cycles of the most probable period, as a logarithm.
        """
        models, log_posterior = self._tried, self._log_posterior
        periodic = np.array([m.cycles > 0 for m in models])
        on_fine = np.array([m.n_cells == N_FINE_BINS for m in models]) & ~periodic
        constant = np.arange(len(models)) == 0
        kinds = constant, ~(constant | on_fine | periodic), on_fine, periodic
        chance = np.exp(log_posterior - np.logaddexp.reduce(log_posterior))
        of_kind = np.clip([chance[kind].sum() for kind in kinds], 1e-3, 1 - 1e-3)
        best = [log_posterior[kind].max(initial=-1e3) for kind in kinds]
        excess = np.array([best[1] - best[0], best[2] - best[0], best[3] - max(best[:3])])
        weight = np.where(periodic, 0, chance) + 1e-9 * constant
        weight /= weight.sum()
        length = np.log([min(m.length, N_TIME_BINS) for m in models])
        cycles = max(models, key=lambda m: (m.cycles > 0, m.log_posterior)).cycles
        return np.concatenate([
            np.log(of_kind / (1 - of_kind)),
            [weight @ length, weight @ [m.deviation for m in models]],
            np.arcsinh(np.maximum(excess, -10)), [np.log1p(cycles)]])

    def drawn(self, n, rng):
        """Draws from the posterior of `shape`, shape (n, 4096)."""
        kept, _ = self._likely(np.ones(len(self._tried), bool))
        parts = [self._rates(self._posterior(i).drawn(number, rng)) for i, number in
                 zip(kept, rng.multinomial(n, self.chance)) if number]
        return rng.permutation(np.concatenate(parts))


def _on_fine(curve):
    return np.repeat(curve, N_FINE_BINS // curve.shape[-1], axis=-1)


def cox_processes(photons, **options):
    """Fit each of many sources; photons above 7 keV are mostly background, and left out.

    Parameters
    ----------
    photons : Photons
    **options
        Of `CoxProcess`.

    Yields
    ------
    CoxProcess
    """
    photons = photons.select(BAND_OF_CHANNEL[photons.channel] < 3)
    for i in range(len(photons)):
        one = photons[i]
        cell = np.minimum((one.phase * N_FINE_BINS).astype(np.int64), N_FINE_BINS - 1)
        counts = np.bincount(cell, minlength=N_FINE_BINS).astype(float)
        yield CoxProcess(counts, one.exposed[0], **options)


def _process(name, length, deviation, n_cells):
    return _KERNELS[name](length * n_cells / N_TIME_BINS, deviation)


def _try_kernels(data, models, kernels, n_cells):
    """Add the models without a period to a list that begins with the constant.

    All kernels of the same rank among the deviations of their length are fitted together.
    """
    counts, expected, level = data.counts(n_cells), data.expected(n_cells), mean_only(n_cells)
    constant = models[0].fit
    if n_cells > N_TIME_BINS:
        constant = constant._replace(log_rate=np.zeros(n_cells))
    best = max(m.fit.log_evidence for m in models)
    hopeful = [(name, length, deviations, constant) for name, lengths, deviations in kernels
               for length in lengths]
    rank = 0
    while hopeful:
        processes = [_process(name, length, deviations[rank], n_cells)
                     for name, length, deviations, _ in hopeful]
        found = fit_kernels(counts, expected, processes, [last.log_rate for *_, last in hopeful])
        best = max(best, *(one.log_evidence for one in found))
        rank += 1
        still = []
        for (name, length, deviations, last), process, one in zip(hopeful, processes, found):
            models.append(_Model(name, length, deviations[rank - 1], 0.0, 0, process, level,
                                 _LOG_KERNEL, one))
            falls = one.log_evidence < min(last.log_evidence, best - _HOPELESS)
            if rank < len(deviations) and not falls:
                still.append((name, length, deviations, one))
        hopeful = still


def _try_periods(data, models, fine):
    """Add the models with a period to a list of those without."""
    found = []
    highest = max(m.fit.log_evidence for m in models)
    for cycles, n_harmonics in _candidates(data):
        n_cells = N_TIME_BINS if cycles * n_harmonics < _COARSE_CYCLES else N_FINE_BINS
        if n_cells == N_FINE_BINS and not fine:
            continue
        log_prior = _LOG_PERIODIC - np.log(cycles)
        hopeful = -np.inf
        for changes in CHANGES:
            if changes and hopeful < highest - _HOPELESS:
                break
            waves, deviation = _waves(cycles, n_harmonics, changes, n_cells)
            last = None
            for strength in STRENGTHS:
                columns = Columns(waves, np.append(LEVEL, strength * deviation) ** -2)
                one = data.fit(None, columns, last and last.log_rate)
                found.append(_Model("quasi-periodic" if changes else "periodic", np.inf, strength,
                                    cycles, n_harmonics, None, columns, log_prior, one))
                hopeful = max(hopeful, one.log_evidence)
                if last and one.log_evidence < min(last.log_evidence, highest - _HOPELESS):
                    break
                last = one
    if found:
        best = max(found, key=lambda m: m.log_posterior)
        other = max(models[1:], key=lambda m: m.log_posterior)
        if best.n_cells >= other.n_cells:
            process = _process(other.kernel, other.length, other.deviation, best.n_cells)
            one = data.fit(process, best.columns, best.fit.log_rate)
            found.append(best._replace(kernel=f"{best.kernel} + {other.kernel}",
                                       length=other.length, process=process, fit=one))
    models += found


def _candidates(data):
    """Frequencies (cycles per window) and numbers of harmonics with the greatest power."""
    expected = data.expected(N_FINE_BINS)
    power = fft.rfft(data.fine_counts - expected, N_FINE_BINS * _FINER)
    power = (power.real ** 2 + power.imag ** 2) / expected.sum()
    excess = _LOG_PRIOR_OF_TRIALS.copy()
    found = []
    for k in range(1, max(HARMONICS) + 1):
        add_power(excess, power, _FIRST_TRIAL, k)  # noise alone has a mean power of one
        if k in HARMONICS:
            left = excess.copy()
            left[[0, -1]] = -np.inf
            for _ in range(2):
                top = np.argmax(left)
                if left[top] < _LEAST_POWER:
                    break
                below, peak, above = excess[top - 1:top + 2]
                bend = below - 2 * peak + above  # the peak of the parabola through three points
                off = np.clip((below - above) / (2 * bend), -0.5, 0.5) if bend < 0 else 0.0
                found.append(((_FIRST_TRIAL + top + off) / _FINER, k))
                left[max(0, top - _FINER):top + _FINER + 1] = -np.inf
    return found


def _waves(cycles, n_harmonics, changes, n_cells):
    """Level and harmonics of a period, each times slow cosines that let its amplitude change.

    Returns the `Harmonics` and the relative deviations (m,) of their coefficients.
    """
    order = np.arange(1, n_harmonics + 1)
    order = order[order * cycles < n_cells / 2]
    # a cell averages over part of a cycle; sharp profiles need more of the high harmonics
    steepness = 1.0 if n_harmonics < 8 else 0.7
    height = order ** -steepness * np.sinc(order * cycles / n_cells)
    deviation = np.repeat(height, 2)[:, None] * np.exp(-0.25 * np.arange(changes + 1) ** 2)
    return Harmonics(cycles, len(order), changes, n_cells), deviation.ravel()
