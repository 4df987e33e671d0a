"""Pulsations faster than the networks can see, by Bayesian model averaging.

The photons in the 4096 fine cells are searched for periods that the refined rate leaves over. For
a modulation :math:`\\exp[\\kappa \\cos(2\\pi f t - \\phi)] / I_0(\\kappa)` of :math:`V` expected
photons the likelihood depends on the data only through :math:`R`, the modulus of the Fourier
transform of counts minus expected counts at :math:`f`; averaged over the phase, its Bayes factor is

.. math:: B(f) = \\sum_\\kappa p(\\kappa)\\, \\frac{I_0(\\kappa R)}{I_0(\\kappa)^V} .

Each of up to four harmonics is there or not with equal chance. Frequencies have a log-uniform
prior, and three sources in a hundred pulsate (in the spirit of Gregory & Loredo 1992, ApJ 398, 146,
with von Mises profiles in place of their stepwise ones).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from scipy import fft

from ..photons import N_FINE_BINS, N_TIME_BINS
from .likelihood import total_log_rate

__all__ = ["pulsations", "pulsed"]

#: Frequencies are tried in steps of 1/4 cycle per window, up to 1600 cycles.
STEPS = 4
LOWEST, HIGHEST = 4 * STEPS, 1600 * STEPS
N_HARMONICS = 4
#: How many sources pulsate, before looking.
SHARE = 0.03
#: Concentrations of the profile, from a few per cent to nearly all of the light.
CONCENTRATIONS = torch.tensor([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
#: Frequencies whose Bayes factor is worked out, and those that are averaged over.
N_CANDIDATES, N_BEST = 48, 4


@cache
@torch.inference_mode(False)
def _log_prior():
    weight = 1 / torch.arange(LOWEST, HIGHEST + 1)
    return torch.log(SHARE * weight / weight.sum())


def _log_bessel(x):
    return torch.log(torch.special.i0e(x)) + x


def _by_concentration(modulus, total):
    """Log of prior times likelihood ratio for each concentration, shape (..., n_kappa)."""
    kappa = CONCENTRATIONS.to(modulus.device)
    return (_log_bessel(kappa * modulus[..., None]) - total[..., None] * _log_bessel(kappa)
            - math.log(len(kappa)))


def pulsations(batch, shape, fine):
    """Change of a refined rate by pulsations.

    Parameters
    ----------
    batch : Batch
    shape : Shape
        Rate of the source in the time bins.
    fine : Tensor, shape (n, 4096)
        Log of the rate in each fine cell over that of its time bin.

    Returns
    -------
    Tensor, shape (n, 4096)
        Factor on the rate, see `pulsed`.
    """
    log_rate = total_log_rate(shape, batch) + torch.log(batch.exposed)
    log_rate = log_rate.repeat_interleave(N_FINE_BINS // N_TIME_BINS, dim=1) + fine
    expected = torch.softmax(log_rate, dim=1) * batch.n_photons[:, None]
    seen = batch.wholly_exposed
    return pulsed(batch.per_cell * seen, expected * seen)


def pulsed(counts, expected):
    """Change of the rate by pulsations.

    Parameters
    ----------
    counts, expected : Tensor, shape (n, 4096)
        Photons in the fine cells, and how many the rate so far expects.

    Returns
    -------
    Tensor, shape (n, 4096)
        Factor on the rate, of mean one; one throughout where nothing pulsates.
    """
    total = expected.sum(dim=1, keepdim=True).clamp(min=1)
    wave = fft.rfft((counts - expected).cpu().numpy(), n=STEPS * N_FINE_BINS)[:, :-1]
    wave = torch.as_tensor(wave, device=counts.device)
    power = (wave.real**2 + wave.imag**2) / total
    surplus = torch.relu(power - 2)  # a harmonic that is hardly there adds nothing
    rough = power[:, LOWEST:HIGHEST + 1] + _log_prior()
    for harmonic in range(2, N_HARMONICS + 1):
        multiples = surplus[:, harmonic * LOWEST:harmonic * HIGHEST + 1:harmonic]
        rough[:, :multiples.shape[1]] += multiples
    candidates = rough.topk(N_CANDIDATES, dim=1).indices

    index = (candidates[:, :, None] + LOWEST) * torch.arange(1, N_HARMONICS + 1)
    inside = index < power.shape[1]
    index = index.clamp(max=power.shape[1] - 1)
    at_index = wave.gather(1, index.flatten(1)).reshape(index.shape)
    by_kappa = _by_concentration(at_index.abs(), total[:, :, None].expand(index.shape))
    log_factor = torch.logsumexp(by_kappa, dim=3)
    # Half a chance that a harmonic is there.
    with_chance = torch.logaddexp(log_factor, torch.zeros(())) - math.log(2)
    log_odds = (_log_prior()[candidates]
                + torch.where(inside, with_chance, 0.0).sum(dim=2))
    evidence = torch.logaddexp(torch.logsumexp(log_odds, dim=1),
                               torch.full((), math.log(1 - SHARE)))
    log_odds, best = log_odds.topk(N_BEST, dim=1)
    chance = torch.exp(log_odds - evidence[:, None])

    factor = torch.ones_like(counts)
    likely = torch.nonzero(chance.sum(dim=1) > 0.02)[:, 0]
    if len(likely) == 0:
        return factor
    at = torch.arange(N_FINE_BINS) / N_FINE_BINS
    change = (1 - chance[likely].sum(dim=1, keepdim=True)) * torch.ones(len(likely), N_FINE_BINS)
    for k in range(N_BEST):
        own = best[likely, k, None]

        def of_best(x):
            shape = (len(likely), 1, *x.shape[2:])
            return x[likely].gather(1, own.reshape(-1, 1, *[1] * (x.dim() - 2)).expand(shape))[:, 0]

        profile = chance[likely, k, None]
        for h in range(N_HARMONICS):
            there = torch.where(of_best(inside)[:, h],
                                torch.sigmoid(of_best(log_factor)[:, h]), 0.0)
            weight = torch.softmax(of_best(by_kappa)[:, h], dim=1)
            modulus = of_best(at_index)[:, h].abs()[:, None] * CONCENTRATIONS
            # First two Fourier coefficients of the profile, averaged over its phase.
            ratio = _bessel_ratios(CONCENTRATIONS), _bessel_ratios(modulus)
            first, second = ((weight * a * b).sum(dim=1) * there for a, b in zip(*ratio))
            phase = (2 * math.pi / STEPS * of_best(index)[:, h, None] * at
                     + of_best(at_index)[:, h, None].angle())
            profile = profile * (1 + 2 * first[:, None] * torch.cos(phase)
                                 + 2 * second[:, None] * torch.cos(2 * phase)).clamp(min=0.01)
        change += profile
    mean = (change * expected[likely]).sum(dim=1, keepdim=True) / expected[likely].sum(
        dim=1, keepdim=True).clamp(min=1e-9)
    factor[likely] = change / mean.clamp(min=1e-6)
    return factor


def _bessel_ratios(x):
    """I1 / I0 and I2 / I0."""
    first = torch.special.i1e(x) / torch.special.i0e(x)
    return first, 1 - 2 * first / x.clamp(min=1e-6)
