"""Draws from the posterior of the rate, and its quantiles.

The latent's posterior says how the rate at different times moves together; how far it may lie from
the estimate at any one time is said by calibrated marginals (`intervals`). A draw takes its rank
from the one and its size from the other, as a copula does; since what a latent leaves open is
shorter than what it says, half of the variance behind the ranks is noise with a short memory
(without it, averages over a window scatter too much: double thinning), and the more, the more
photons there are, whose averages over a window are known well. The mean rate has the Gamma
posterior of a Poisson rate under Jeffreys' prior, :math:`\\Gamma(N + 1/2)` over the exposure: with
no photon at all this is what the exposure alone says, and the shape's posterior is its prior.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import gammaincinv

from ..photons import N_FINE_BINS, N_TIME_BINS
from .batch import COLOUR_BIN
from .experts import in_bins
from .inference import RUN
from .intervals import mixture, mixture_quantiles
from .likelihood import total_log_rate

__all__ = ["band_share", "drawn_log_rates", "mean_rate_quantiles", "rate_quantiles"]

#: Channels of 0.5-7 keV.
BELOW_7_KEV = slice(0, 19)
#: Normal scores at which the marginals are tabulated.
_SCORES = torch.linspace(-3.2, 3.2, 33)
#: Width of the marginals, in units of that learned, in their middle and from 95 % intervals on. The
#: loss that they were learned with gives rare kinds of variability more weight than they have
#: (`prepared.BALANCE`), which makes all intervals too wide; but the rare kinds are in the tails.
MIDDLE, TAILS = 0.87, 1.05
_TAILS_FROM = 1.96
#: More photons than this are not missed in a cell, nor in a run of cells.
MORE_PHOTONS = 10.0
#: Share of the latent in the variance of the scores of a faint source, and photons at which it is
#: half of that.
COMMON, COMMON_UP_TO = 0.5, 70.0
#: What the rest keeps from run to run, of a faint source and of a bright one, and photons between.
MEMORY, MEMORY_UP_TO = (0.35, 0.7), 100.0
#: Draws behind quantiles of the rate.
_N_SAMPLES = 256
_GOLDEN = (5**0.5 - 1) / 2


def _table(raw):
    width = MIDDLE + (TAILS - MIDDLE) * (_SCORES / _TAILS_FROM).square().clamp(max=1)
    levels = torch.special.ndtr(width * _SCORES)
    return mixture_quantiles(mixture(raw), levels.expand(*raw.shape[:-1], -1))


def _at_scores(table, scores):
    """Entries of tables (..., 33) at normal scores (..., k), interpolated."""
    step = _SCORES[1] - _SCORES[0]
    position = ((scores - _SCORES[0]) / step).clamp(0, len(_SCORES) - 1.001)
    low = position.long()
    below, above = table.gather(-1, low), table.gather(-1, low + 1)
    return below + (position - low) * (above - below)


def _highest(batch):
    """Log of a rate over the mean rate that no cell of a run can exceed, shape (n, 128).

    Even the fullest cell cannot stand for much more than its photons; heavy tails of the mixtures
    end there. The less of a run was exposed, the less its photons say.
    """
    cells = batch.per_cell
    fullest = cells.reshape(len(cells), N_TIME_BINS // RUN, -1).amax(dim=2)
    mean = (batch.n_photons + 0.5) / (batch.exposed.mean(dim=1) * N_FINE_BINS)
    exposed = batch.exposed.unflatten(1, (-1, RUN)).mean(dim=2).clamp(min=1e-6)
    return torch.log((fullest + MORE_PHOTONS) / (mean[:, None] * exposed))


def _highest_of_draws(batch):
    """Log of a rate over the mean rate that no run as a whole can exceed, shape (n, 128).

    The quantiles are those at a random time; but a draw has one rate in all of a run, in which its
    photons leave less room.
    """
    seen, exposed = (x.unflatten(1, (-1, RUN)).sum(dim=2) for x in (batch.per_bin, batch.exposed))
    mean = (batch.n_photons + 0.5) / batch.exposed.sum(dim=1)
    expected = mean[:, None] * exposed.clamp(min=1e-6)
    return torch.log((seen + 3 * torch.sqrt(seen) + MORE_PHOTONS) / expected)


def _in_bins(refined, batch):
    """Log of the estimated total rate over its mean in the time bins, shape (n, 512)."""
    return total_log_rate(refined.shape, batch) + in_bins(refined.fine)


def _mid_ranks(n):
    return (torch.arange(n) + 0.5) / n


def _scores(x):
    """Normal scores of the ranks along the last axis."""
    scores = torch.special.ndtri(_mid_ranks(x.shape[2])).expand_as(x)
    return torch.empty_like(x).scatter_(2, x.argsort(dim=2), scores)


def _common(n_photons):
    return COMMON / (1 + (n_photons / COMMON_UP_TO) ** 2)


def _memory(n_photons):
    faint, bright = MEMORY
    return bright + (faint - bright) / (1 + n_photons / MEMORY_UP_TO)


def _short_noise(n_photons, n_runs, n_draws):
    """Noise of unit variance, shape (n, n_runs, n_draws), with a memory of some runs of bins."""
    generator = torch.Generator().manual_seed(n_draws)
    noise = torch.randn(n_runs, n_draws, generator=generator).repeat(len(n_photons), 1, 1)
    kept = _memory(n_photons)[:, None]
    for run in range(1, n_runs):
        noise[:, run] = kept * noise[:, run - 1] + torch.sqrt(1 - kept**2) * noise[:, run]
    return noise


@torch.inference_mode()
def drawn_log_rates(shape, batch, refined, n_draws):
    """Draws of the log of the total rate over its mean.

    Parameters
    ----------
    shape : Shape
        Rate of each draw of the latent, for ``n * n_draws`` sources, all draws of the first first.
    batch : Batch
        As many sources.
    refined : Refined
        Of the ``n`` sources.
    n_draws : int

    Returns
    -------
    Tensor, shape (n, n_draws, 512)
    """
    drawn = total_log_rate(shape, batch).reshape(-1, n_draws, N_TIME_BINS)
    if refined.log_rate_intervals is None:
        return drawn + in_bins(refined.fine)[:, None]  # what the refined rate has beside the shape
    runs = drawn.reshape(len(drawn), n_draws, -1, RUN).mean(dim=3).transpose(1, 2)
    one = batch.every(n_draws)
    common = _common(one.n_photons)[:, None, None]
    noise = _short_noise(one.n_photons, runs.shape[1], n_draws)
    scores = common.sqrt() * _scores(runs) + (1 - common).sqrt() * noise
    scores = _scores(scores)
    offset = _at_scores(_table(refined.log_rate_intervals), scores).transpose(1, 2)
    drawn = _in_bins(refined, one)[:, None] + offset.repeat_interleave(RUN, dim=2)
    return torch.minimum(drawn, _highest_of_draws(one)[:, None].repeat_interleave(RUN, dim=2))


def mean_rate_quantiles(batch, levels):
    """Quantiles of the mean total rate, ct/s, ndarray (n, n_levels)."""
    seen = batch.n_photons.double().numpy()[:, None] + 0.5
    return gammaincinv(seen, levels) / batch.exposure.double().numpy()[:, None]


@torch.inference_mode()
def rate_quantiles(batch, refined, levels, share=1.0, runs=slice(None)):
    """Quantiles of the total rate, ct/s, at a random time of the time bins.

    Parameters
    ----------
    batch : Batch
    refined : Refined
    levels : array_like, shape (n_levels,)
    share : float or Tensor, shape (n, 512)
        Of the rate that is wanted in the total.
    runs : slice or ndarray
        Which runs of four time bins.

    Returns
    -------
    Tensor, shape (n, 4 * n_runs, n_levels)
    """
    # Draws of the shape in order, and of the amplitude in steps of the golden ratio: so the pairs
    # fill the plane evenly.
    seen = batch.n_photons.double().numpy()[:, None] + 0.5
    amplitude = gammaincinv(seen, _GOLDEN * (np.arange(_N_SAMPLES) + 0.5) % 1)
    scores = torch.special.ndtri(_mid_ranks(_N_SAMPLES))
    table = _table(refined.log_rate_intervals[:, runs])
    drawn = _at_scores(table, scores.expand(*table.shape[:2], -1))
    drawn = drawn + torch.from_numpy(np.log(amplitude)).float()[:, None]
    offset = torch.quantile(drawn, torch.as_tensor(levels, dtype=torch.float32), dim=2)
    offset = offset.permute(1, 2, 0)
    highest = _highest(batch)[:, runs, None] + torch.log(batch.n_photons + 0.5)[:, None, None]
    scale = share / batch.exposure[:, None].expand(-1, N_TIME_BINS)

    def of_runs(x):
        return x.unflatten(1, (-1, RUN))[:, runs, :, None]

    rate = torch.minimum(of_runs(_in_bins(refined, batch)) + offset[:, :, None],
                         highest[:, :, None])
    return (torch.exp(rate) * of_runs(scale)).flatten(1, 2)


@torch.inference_mode()
def band_share(inferred, refined):
    """Share of 0.5-7 keV in the total rate of each time bin, shape (n, 512)."""
    batch, shape = inferred.batch, refined.shape
    fraction = batch.background_fraction[:, None]
    of_source = torch.exp(shape.log_energy)[:, :, BELOW_7_KEV].sum(dim=2)
    of_source = of_source.repeat_interleave(COLOUR_BIN, dim=1)
    rate = (1 - fraction) * torch.exp(shape.log_relative_rate(batch.exposed))
    known = fraction * batch.background[:, BELOW_7_KEV].sum(dim=1, keepdim=True)
    return (rate * of_source + known) / (rate + fraction)
