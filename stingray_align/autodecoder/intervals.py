"""Calibrated intervals: marginal posteriors as small mixtures of Gaussians.

The refinement predicts, for the log-rate in every stretch of four time bins, for the hardness ratio
and for the fractional variability, the posterior of the truth given the photons, as a mixture of
three Gaussians in a suitable scale. They are trained by the likelihood of the truth of simulated
sources (a proper score: neural posterior estimation, Papamakarios & Murray 2016,
arXiv:1605.06376), so what they say holds on average over the simulated population; how it holds at
each brightness and for each kind of variability is measured by
`stingray_align.evaluate.autodecoder_calibration`.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .mixtures import quantiles_of_mixtures

__all__ = ["HARDNESS", "N_COMPONENTS", "Scale", "VARIABILITY", "hardness_quantiles", "mixture_loss",
           "mixture_quantiles"]

N_COMPONENTS = 3
#: Spreads are kept within these natural logarithms.
NARROWEST, WIDEST = -4.5, 2.0


def _parts(raw):
    weight, mean, log_sd = raw.unflatten(-1, (3, N_COMPONENTS)).unbind(dim=-2)
    # Three starting points, so that the components do not have to find different roles first.
    start = torch.tensor([-0.5, -1.5, 0.3], device=raw.device)
    return (torch.log_softmax(weight, dim=-1), mean,
            (log_sd + start).clamp(NARROWEST, WIDEST))


def mixture_loss(raw, truth):
    """Minus log-density of the truth.

    Parameters
    ----------
    raw : Tensor, shape (..., 9)
        Outputs of a network.
    truth : Tensor, shape (...)
        Nan where there is none, which gives zero.
    """
    log_weight, mean, log_sd = _parts(raw)
    known = torch.isfinite(truth)
    miss = (torch.where(known, truth, 0.0)[..., None] - mean) * torch.exp(-log_sd)
    density = torch.logsumexp(log_weight - log_sd - 0.5 * miss**2, dim=-1)
    return torch.where(known, 0.5 * math.log(2 * math.pi) - density, 0.0)


def mixture_quantiles(raw, levels):
    """Quantiles of the mixtures.

    Parameters
    ----------
    raw : Tensor, shape (..., 9)
    levels : Tensor, shape (..., n_levels)
        Probabilities between 0 and 1.

    Returns
    -------
    Tensor, shape (..., n_levels)
    """
    parts = (x.reshape(-1, N_COMPONENTS).double().cpu().numpy() for x in _parts(raw))
    log_weight, mean, log_sd = parts
    rows = levels.reshape(len(mean), -1).double().cpu().numpy()
    found = quantiles_of_mixtures(np.exp(log_weight), mean, np.exp(log_sd), rows)
    return torch.from_numpy(found).float().reshape(levels.shape).to(raw.device)


class Scale:
    """A quantity and the scale in which its posterior is a mixture of Gaussians."""

    def __init__(self, forward, inverse):
        self.forward, self.inverse = forward, inverse


#: Hardness ratio: half the log of the ratio of hard to soft, as far as photons can tell.
_STEEPEST = 4.8  # of 4.95, what 0.9999 becomes
HARDNESS = Scale(lambda h: torch.atanh(h.clamp(-0.9999, 0.9999)), torch.tanh)
#: Fractional variability: decimal logarithm, with a floor of 0.1 %.
VARIABILITY = Scale(lambda f: torch.log10(f.clamp(min=1e-3)), lambda x: 10**x)


def hardness_quantiles(raw, levels):
    """Quantiles of the hardness ratio; see `mixture_quantiles`.

    Hardness ratios beyond 0.9999 count as 0.9999 in training. So an interval that gets there
    reaches to the end.
    """
    found = mixture_quantiles(raw, levels)
    hardness = HARDNESS.inverse(found)
    hardness = torch.where((found < -_STEEPEST) & (levels < 0.5), -1.0, hardness)
    return torch.where((found > _STEEPEST) & (levels > 0.5), 1.0, hardness)
