"""The decoded spectrum, corrected towards the counted one as far as the photons ask for it.

A decoder has a finite memory: with many photons the counted spectrum is better known than decoded.
Let the true shares of the channels scatter around the decoded ones :math:`p_E` as a Dirichlet
distribution of concentration :math:`\\kappa`. Then :math:`n_E` counted photons give

.. math:: \\hat p_E = \\frac{n_E + \\kappa p_E}{N + \\kappa},

averaged over :math:`\\kappa` with its evidence, the Dirichlet-multinomial likelihood
(Minka 2000, *Estimating a Dirichlet distribution*). Faint sources keep the decoded spectrum.
"""

from __future__ import annotations

import torch

from .batch import COLOUR_BIN
from .decoder import Shape

__all__ = ["corrected_spectrum"]

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
