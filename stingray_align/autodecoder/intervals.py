"""Calibrated intervals: marginal posteriors as small mixtures of Gaussians.

For the log-rate in every stretch of four time bins, the hardness ratio, the fractional variability
and the counts in each channel, networks predict the posterior of the truth given the photons, as a
mixture of three Gaussians in a suitable scale. They are trained by the likelihood of the truth of
simulated sources (a proper score: neural posterior estimation, Papamakarios & Murray 2016,
arXiv:1605.06376), so what they say holds on average over the simulated population; how it holds at
each brightness and for each kind of variability is measured by
`stingray_align.evaluate.autodecoder_calibration`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from .mixtures import quantiles_of_mixtures

__all__ = ["Mixture", "N_COMPONENTS", "mixture", "mixture_loss", "mixture_quantiles"]

N_COMPONENTS = 3
#: Spreads are kept within these natural logarithms.
NARROWEST, WIDEST = -4.5, 2.0


class Mixture(NamedTuple):
    """Mixtures of Gaussians: log of weights, means and log of spreads, each (..., 3)."""

    log_weight: torch.Tensor
    mean: torch.Tensor
    log_sd: torch.Tensor


def mixture(raw, centre=None, width=None):
    """Mixtures from the outputs of a network.

    Parameters
    ----------
    raw : Tensor, shape (..., 9)
    centre, width : Tensor, shape (..., 3), optional
        Zero and unit of the components, which otherwise start at zero with three spreads, so that
        they do not have to find different roles first.

    Returns
    -------
    Mixture
    """
    weight, mean, log_sd = raw.unflatten(-1, (3, N_COMPONENTS)).unbind(dim=-2)
    if centre is None:
        start = torch.tensor([-0.5, -1.5, 0.3], device=raw.device)
        log_sd = (log_sd + start).clamp(NARROWEST, WIDEST)
    else:
        mean = centre + width * mean
        log_sd = log_sd.clamp(NARROWEST, WIDEST) + torch.log(width)
    return Mixture(torch.log_softmax(weight, dim=-1), mean, log_sd)


def mixture_loss(mixture, truth):
    """Minus log-density of the truth.

    Parameters
    ----------
    mixture : Mixture
    truth : Tensor, shape (...)
        Nan where there is none, which gives zero.
    """
    log_weight, mean, log_sd = mixture
    known = torch.isfinite(truth)
    miss = (torch.where(known, truth, 0.0)[..., None] - mean) * torch.exp(-log_sd)
    density = torch.logsumexp(log_weight - log_sd - 0.5 * miss**2, dim=-1)
    return torch.where(known, 0.5 * math.log(2 * math.pi) - density, 0.0)


def mixture_quantiles(mixture, levels):
    """Quantiles of the mixtures.

    Parameters
    ----------
    mixture : Mixture
    levels : Tensor, shape (..., n_levels)
        Probabilities between 0 and 1.

    Returns
    -------
    Tensor, shape (..., n_levels)
    """
    parts = (x.reshape(-1, N_COMPONENTS).double().cpu().numpy() for x in mixture)
    log_weight, mean, log_sd = parts
    rows = levels.reshape(len(mean), -1).double().cpu().numpy()
    found = quantiles_of_mixtures(np.exp(log_weight), mean, np.exp(log_sd), rows)
    return torch.from_numpy(found).float().reshape(levels.shape).to(mean.device)
