"""The decoded spectrum, corrected towards the counted one as far as the photons ask for it.

A decoder has a finite memory: with many photons the counted spectrum is better known than decoded.
Let the true shares of the channels scatter around the decoded ones :math:`p_E` as a Dirichlet
distribution of concentration :math:`\\kappa`. Then :math:`n_E` counted photons give

.. math:: \\hat p_E = \\frac{n_E + \\kappa p_E}{N + \\kappa},

averaged over :math:`\\kappa` with its evidence, the Dirichlet-multinomial likelihood
(Minka 2000, *Estimating a Dirichlet distribution*). Faint sources keep the decoded spectrum.
"""

from __future__ import annotations

import numpy as np
import torch

from ..photons import BAND_OF_CHANNEL, N_FINE_BINS, N_TIME_BINS
from .batch import COLOUR_BIN, N_COLOUR_BINS
from .decoder import Shape
from .likelihood import total_log_rate
from .tilts import tilts

__all__ = ["corrected_spectrum", "spectrum_with_rate"]

#: Prior widths of the mean log-shares of the bands, and of their change per unit of log-rate.
LEVEL, SLOPE = 0.1, 0.15
#: Largest log of the rate over its mean with which a spectrum changes.
_REACH = 4.0
#: Concentrations, in photons; the last one leaves the decoded spectrum as it is.
CONCENTRATIONS = torch.logspace(1.5, 5.5, 9)


def corrected_spectrum(shape, batch):
    """Shape whose mean spectrum has been moved towards the counted one.

    Parameters
    ----------
    shape : Shape
    batch : Batch

    Returns
    -------
    Shape
    """
    in_time = torch.exp(shape.log_time(batch.exposed))
    coarse = in_time.reshape(len(in_time), -1, COLOUR_BIN).sum(dim=2)
    decoded = (coarse[:, :, None] * torch.exp(shape.log_energy)).sum(dim=1)
    fraction = batch.background_fraction[:, None]
    source, background = (1 - fraction) * decoded, fraction * batch.background
    # Photons count by their probability to come from the source.
    counted = batch.colours.sum(dim=1) * source / (source + background)
    total = counted.sum(dim=1, keepdim=True)

    kappa = CONCENTRATIONS.to(decoded.device)[:, None]
    prior = kappa * decoded[:, None].clamp(min=1e-6)
    evidence = (torch.lgamma(kappa[:, 0]) - torch.lgamma(total + kappa[:, 0])
                + (torch.lgamma(counted[:, None] + prior) - torch.lgamma(prior)).sum(dim=2))
    weight = torch.softmax(evidence, dim=1)
    share = ((counted[:, None] + prior) / (total[:, :, None] + kappa) * weight[:, :, None])
    change = torch.log(share.sum(dim=1) / decoded.clamp(min=1e-6))
    return Shape(shape.g, shape.s + change, shape.u, shape.v)


def spectrum_with_rate(shape, fine, batch):
    """Shape whose spectrum changes with its rate, as far as the photons ask for it.

    Flares are harder and eclipses softer than the rest, or the other way round, and short ones are
    gone before a latent can tell. Shares of the bands change in proportion to
    :math:`\\exp(a_b + v_b x)`, with :math:`x` the log-rate at the photons, and :math:`a_b` and
    :math:`v_b` are found by Newton's method under a Gaussian prior.

    Parameters
    ----------
    shape : Shape
    fine : Tensor, shape (n, 4096)
        Log of the rate in each fine cell over that of its time bin.
    batch : Batch

    Returns
    -------
    Shape
    """
    in_bins = total_log_rate(shape, batch)
    rate = torch.exp(in_bins.repeat_interleave(N_FINE_BINS // N_TIME_BINS, dim=1) + fine)
    rate = rate.reshape(len(fine), N_COLOUR_BINS, -1)
    # Most photons of a stretch are there where its rate is highest.
    x = torch.log(rate.square().sum(dim=2) / rate.sum(dim=2))
    seen = batch.colours.sum(dim=2)
    x = x - (x * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp(min=1)
    x = x.clamp(-_REACH, _REACH)

    band = torch.as_tensor(BAND_OF_CHANNEL).long()
    in_bands = torch.nn.functional.one_hot(band).float()
    of_source = torch.exp(shape.log_energy)
    fraction = batch.background_fraction[:, None, None]
    source = (1 - fraction) * of_source * rate.mean(dim=2)[:, :, None]
    # Photons count by their probability to come from the source.
    counted = batch.colours * source / (source + fraction * batch.background[:, None])
    counted, decoded = counted @ in_bands, torch.log(of_source @ in_bands)
    found = tilts(*(part.double().cpu().numpy() for part in (counted, decoded, x)),
                  np.array([LEVEL, SLOPE]) ** -2)
    found = torch.as_tensor(found, dtype=x.dtype, device=x.device)
    return shape.coloured(found[:, :1, band], x[:, :, None] * found[:, 1:, band])
