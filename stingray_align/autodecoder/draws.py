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

import math

import numpy as np
import torch
from scipy.special import gammaincinv

from ..photons import N_FINE_BINS, N_TIME_BINS
from .batch import COLOUR_BIN
from .experts import in_bins
from .inference import RUN
from .intervals import VARIABILITY, hardness_quantiles, mixture_quantiles
from .likelihood import total_log_rate

__all__ = ["drawn_log_rates", "quantiles", "rate_quantiles", "source_quantiles"]

#: Channels of 0.5-7 keV.
BELOW_7_KEV = slice(0, 19)
#: Normal scores at which the marginals are tabulated.
_SCORES = torch.linspace(-3.2, 3.2, 33)
#: Width of the marginals, in units of that learned, in their middle and from 95 % intervals on. The
#: loss that they were learned with gives rare kinds of variability more weight than they have
#: (`prepared.BALANCE`), which makes all intervals too wide; but the rare kinds are in the tails.
MIDDLE, TAILS = 0.87, 1.05
_TAILS_FROM = 1.96
#: More photons than this are not missed in a cell.
MORE_PHOTONS = 10.0
#: Share of the latent in the variance of the scores of a faint source, photons at which it is half
#: of that, and what the rest keeps from run to run.
COMMON, COMMON_UP_TO, MEMORY = 0.5, 70.0, 0.5
#: Draws behind quantiles of the rate.
_N_SAMPLES = 256
_GOLDEN = (5**0.5 - 1) / 2


def _table(raw):
    width = MIDDLE + (TAILS - MIDDLE) * (_SCORES / _TAILS_FROM).square().clamp(max=1)
    levels = torch.special.ndtr(width * _SCORES)
    return mixture_quantiles(raw, levels.expand(*raw.shape[:-1], -1))


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
    end there.
    """
    cells = batch.per_cell
    fullest = cells.reshape(len(cells), N_TIME_BINS // RUN, -1).amax(dim=2)
    mean = (batch.n_photons + 0.5) / (batch.exposed.mean(dim=1) * N_FINE_BINS)
    return torch.log((fullest + MORE_PHOTONS) / mean[:, None])


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


def _short_noise(like):
    """Noise of unit variance, shape (n, 128, n_draws), with a memory of some runs of bins."""
    generator = torch.Generator().manual_seed(like.shape[2])
    noise = torch.randn(like.shape[1], like.shape[2], generator=generator)
    for run in range(1, len(noise)):
        noise[run] = MEMORY * noise[run - 1] + math.sqrt(1 - MEMORY**2) * noise[run]
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
        return drawn
    runs = drawn.reshape(len(drawn), n_draws, -1, RUN).mean(dim=3).transpose(1, 2)
    one = batch.every(n_draws)
    common = _common(one.n_photons)[:, None, None]
    scores = common.sqrt() * _scores(runs) + (1 - common).sqrt() * _short_noise(runs)
    scores = _scores(scores)
    offset = _at_scores(_table(refined.log_rate_intervals), scores).transpose(1, 2)
    drawn = _in_bins(refined, one)[:, None] + offset.repeat_interleave(RUN, dim=2)
    return torch.minimum(drawn, _highest(one)[:, None].repeat_interleave(RUN, dim=2))


@torch.inference_mode()
def quantiles(inferred, refined, levels):
    """Quantiles of rate, mean rate, hardness and variability; see `PoissonAutodecoder.quantiles`.
    """
    seen = inferred.batch.n_photons.double().numpy() + 0.5
    mean = gammaincinv(seen[:, None], levels) / inferred.batch.exposure.double().numpy()[:, None]
    rate = rate_quantiles(inferred.batch, refined, levels, _band_share(inferred, refined))
    return {"rate": rate.numpy(), "mean_rate": mean} | {
        name: source_quantiles(refined, name, levels)
        for name in ("hardness", "fractional_variability")}


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
def source_quantiles(refined, name, levels):
    """Quantiles of "hardness" or "fractional_variability" alone, ndarray (n, n_levels)."""
    levels = torch.as_tensor(levels, dtype=torch.float32).expand(len(refined.hardness), -1)
    if name == "hardness":
        return hardness_quantiles(refined.hardness, levels).numpy()
    return VARIABILITY.inverse(mixture_quantiles(refined.variability, levels)).numpy()


def _band_share(inferred, refined):
    """Share of 0.5-7 keV in the total rate of each time bin, shape (n, 512)."""
    batch, shape = inferred.batch, refined.shape
    fraction = batch.background_fraction[:, None]
    of_source = torch.exp(shape.log_energy)[:, :, BELOW_7_KEV].sum(dim=2)
    of_source = of_source.repeat_interleave(COLOUR_BIN, dim=1)
    rate = (1 - fraction) * torch.exp(shape.log_relative_rate(batch.exposed))
    known = fraction * batch.background[:, BELOW_7_KEV].sum(dim=1, keepdim=True)
    return (rate * of_source + known) / (rate + fraction)
