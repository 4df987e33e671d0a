"""Descriptors: numbers that the first pass estimates directly, each with its uncertainty.

Simulated sources come with the truth, so a head of the inference network learns the posterior mean
and standard deviation of some parameters, and the probability of each kind of time behaviour, by
maximising their likelihood (neural posterior estimation with a Gaussian; Papamakarios & Murray
2016, arXiv:1605.06376).
"""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["DESCRIPTORS", "N_DESCRIPTORS", "TIME_SHAPES", "descriptor_loss", "descriptors",
           "estimated"]

#: Parameters: name and unit of the descriptor, mean and spread in the simulated population.
_TARGETS = (
    ("log_fractional_variability", "dex", -1.3, 0.8), ("hardness", "", -0.4, 0.5),
    ("log_n_h", "dex(1e22 / cm2)", -0.8, 0.8), ("photon_index", "", 1.8, 0.5),
    ("log_kT", "dex(keV)", -0.1, 0.5), ("log_period", "dex(s)", 3.4, 0.8),
    ("log_timescale", "dex(s)", 2.9, 0.8),
)

#: Kinds of time behaviour, in the order of their numbers in training.
TIME_SHAPES = ("bursts", "constant", "dips", "eclipses", "eruptions", "flares", "heartbeat",
               "pulsations", "red noise", "sinusoid", "state change", "transient", "trend")

#: Name to unit of each column of `descriptors`.
DESCRIPTORS = ({f"estimated_{name}": unit for name, unit, _, _ in _TARGETS}
               | {f"spread_{name}": "" for name, *_ in _TARGETS}
               | {f"log_probability_{shape.replace(' ', '_')}": "" for shape in TIME_SHAPES})

_N = len(_TARGETS)
N_DESCRIPTORS = len(DESCRIPTORS)


@cache
@torch.inference_mode(False)  # kept for later passes, some of which are training
def _population():
    """Mean and spread of each parameter, tensors of shape (7,)."""
    return torch.tensor([t[2:] for t in _TARGETS], device="cpu").unbind(dim=1)


def descriptors(raw):
    """Outputs of the network, shape (n, N_DESCRIPTORS), as the columns of `DESCRIPTORS`.

    Spreads are logarithms of the standard deviation in units of the population's.
    """
    middle, width = _population()
    return torch.cat([middle + width * raw[:, :_N], raw[:, _N:2 * _N].clamp(-4, 1),
                      torch.log_softmax(raw[:, 2 * _N:], dim=1).clamp(min=-12)], dim=1)


def estimated(descriptors, name):
    """Mean and standard deviation of a parameter (n,) in the columns of `DESCRIPTORS`."""
    at = [target[0] for target in _TARGETS].index(name)
    return descriptors[:, at], _TARGETS[at][3] * torch.exp(descriptors[:, _N + at])


def descriptor_loss(raw, targets, time_shape, beta=0.0):
    """Minus log-likelihood of the truth, mean over sources.

    Parameters
    ----------
    raw : Tensor, shape (n, N_DESCRIPTORS)
        Outputs of the network.
    targets : Tensor, shape (n, 7)
        True parameters, nan where there is none.
    time_shape : Tensor of int64, shape (n,)
    beta : float
        Power of the variance by which the likelihood of each number is multiplied; the factor is
        taken as given, so that the minimum stays where it is (Seitzer et al. 2022,
        arXiv:2203.09168).
    """
    middle, width = (x.to(raw.device) for x in _population())
    known = torch.isfinite(targets)
    standard = torch.where(known, (targets - middle) / width, 0.0)
    log_sd = raw[:, _N:2 * _N].clamp(-4, 1)
    miss = 0.5 * ((standard - raw[:, :_N]) * torch.exp(-log_sd)) ** 2 + log_sd
    if beta:
        miss = miss * torch.exp(2 * beta * log_sd.detach())
    return ((miss.clamp(max=50) * known).sum() / len(raw)
            + torch.nn.functional.cross_entropy(raw[:, 2 * _N:], time_shape))
