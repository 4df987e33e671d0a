"""The Poisson-process likelihood, with exposure and a known background.

Photons come from the source with probability :math:`1 - f` and from the known background with
probability :math:`f`; the background is constant in time and has the annulus' spectrum
:math:`b(E)`:

.. math:: p_\\mathrm{tot}(t, E) = (1 - f)\\,p(t, E; z) + f\\,b(E)\\,w(t) / \\textstyle\\sum w.

So the latent describes the source, while the likelihood is that of all photons in the aperture.
It is evaluated at the occupied cells only.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ._compiled import compiled, highest
from .batch import COLOUR_BIN, N_COLOUR_BINS
from .exponential import exp

__all__ = ["component_rates", "expected_log_likelihood", "log_density", "log_likelihood", "spectra",
           "total_log_rate"]

#: Keeps the logarithm finite where no background is known.
LEAST = 1e-30


def log_density(shape, batch, cells):
    """Log probability of a photon to fall into each of some cells.

    Parameters
    ----------
    shape : `~stingray_align.autodecoder.decoder.Shape`
    batch : `~stingray_align.autodecoder.batch.Batch`
        The observations: exposure and background.
    cells : `~stingray_align.autodecoder.batch.Cells`
        Where to evaluate; any cells of the same observations.

    Returns
    -------
    total, source_share : Tensor, shape (n_cells,)
        Log probability density over the 512 x 20 cells, and the probability that a photon of that
        cell comes from the source.
    """
    source = (shape.log_time(batch.exposed).reshape(-1)[cells.in_time]
              + shape.log_energy.reshape(-1)[cells.in_colour])
    fraction = batch.background_fraction[cells.source]
    share = batch.exposed / batch.exposed.sum(dim=1, keepdim=True)
    floor = share.reshape(-1)[cells.in_time] * batch.background.reshape(-1)[cells.in_channel]
    from_source = source + torch.log1p(-fraction)
    total = torch.logaddexp(from_source, torch.log(fraction * floor + 1e-30))
    return total, torch.exp(from_source - total)


def log_likelihood(shape, batch, cells):
    """Multinomial log-likelihood of the photons in some cells, up to a constant, shape (n,)."""
    total, _ = log_density(shape, batch, cells)
    zero = total.new_zeros(len(batch.exposed))
    return zero.index_add(0, cells.source, cells.counts * total)


def expected_log_likelihood(shape, batch, density, *, first=0, step=1):
    """Mean log-likelihood of one photon from a known density, shape (n,).

    Parameters
    ----------
    shape : `~stingray_align.autodecoder.decoder.Shape`
    batch : `~stingray_align.autodecoder.batch.Batch`
    density : Tensor, shape (n, 512 / step, 20)
        True probability of a photon to fall into each cell, at every ``step``-th time bin.
    first, step : int
        The first of those bins, and the step (1, 2 or 4).
    """
    n, bins = len(density), slice(first, None, step)
    in_time = shape.log_time(batch.exposed) + torch.log1p(-batch.background_fraction)[:, None]
    source = (in_time[:, bins].reshape(n, N_COLOUR_BINS, -1, 1) + shape.log_energy[:, :, None])
    share = (batch.exposed / batch.exposed.sum(dim=1, keepdim=True))[:, bins]
    floor = batch.background_fraction[:, None] * share
    floor = (floor[:, :, None] * batch.background[:, None]).reshape(source.shape)
    total = torch.logaddexp(source, torch.log(floor + 1e-30))
    return (density.reshape(n, -1) * total.reshape(n, -1)).sum(dim=1)


def total_log_rate(shape, batch):
    """Log of the rate of source and background over its mean, shape (n, 512)."""
    # Many corrections of one rate ask for it; where gradients are, each needs its own.
    if torch.is_inference_mode_enabled():
        if shape.total is None or shape.total[0] is not batch:
            total = torch.empty_like(shape.g)
            _write_total(*(x.numpy() for x in (shape.g, batch.exposed, batch.background_fraction,
                                               total)))
            shape.total = batch, total
        return shape.total[1]
    fraction = batch.background_fraction[:, None]
    return torch.logaddexp(shape.log_relative_rate(batch.exposed) + torch.log1p(-fraction),
                           torch.log(fraction + LEAST))


@compiled
def _write_total(g, exposed, fraction, total):
    """The same without gradients, in a fraction of the time."""
    rate = np.empty(g.shape[1])
    for i in range(len(g)):
        most, open_, sum_ = highest(g[i]), 0.0, 0.0
        for j in range(len(rate)):
            rate[j] = exp(g[i, j] - most)
            open_ += exposed[i, j]
            sum_ += exposed[i, j] * rate[j]
        scale = (1 - fraction[i]) * open_ / sum_
        for j in range(len(rate)):
            total[i, j] = math.log(scale * rate[j] + fraction[i] + LEAST)


def component_rates(batch, shape):
    """Rate of source, background and both over the mean of both, by time bin."""
    background = batch.background_fraction[:, None]
    source = (1 - background) * torch.exp(shape.log_relative_rate(batch.exposed))
    return source, background, source + background


def spectra(batch, shape, inside=1.0):
    """Share of each channel in all photons, of the source and of the background, (n, 20).

    Parameters
    ----------
    batch : Batch
    shape : Shape
    inside : Tensor, shape (n, 512), optional
        Factor on the rate in each time bin.
    """
    source, background, _ = component_rates(batch, shape)
    weight = inside * batch.exposed / batch.exposed.sum(dim=1, keepdim=True)
    coarse = (source * weight).reshape(len(source), -1, COLOUR_BIN).sum(dim=2)
    of_source = (coarse[:, None] @ torch.exp(shape.log_energy))[:, 0]
    return of_source, (background * weight).sum(dim=1, keepdim=True) * batch.background
