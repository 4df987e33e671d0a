"""Corrections of a network's rate by many photons.

A network is exact to some per cent; ten thousand photons are better than that. Two corrections,
both empirical Bayes (Efron & Morris 1973, JASA 68, 117), leave faint sources as they are:

- The log-rate is cut into bands :math:`d_k` of slow to fast change, and the changes inside time
  bins are one more. Each is multiplied by :math:`1 + \\delta_k`, one Newton step of the
  Poisson likelihood with a Gaussian prior of width :math:`\\tau`,
  :math:`\\delta = (F + \\tau^{-2} I)^{-1} g` with :math:`g_k = \\sum (n - \\mu) d_k` and
  :math:`F_{kl} = \\sum \\mu\\, d_k d_l`. What the photons do not confirm is so taken back.
- What is left over is smoothed with Gaussian kernels from wide to narrow. With :math:`n_w` and
  :math:`\\mu_w` the counts and expected counts under a kernel, :math:`r = n_w / \\mu_w - 1` has the
  variance :math:`v = 1 / (\\sqrt 2 \\mu_w)` from Poisson noise alone; where the residuals scatter
  by :math:`\\sigma^2` more, the rate is multiplied by :math:`1 + r\\, \\sigma^2 / (\\sigma^2 + v)`.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from ..photons import N_TIME_BINS
from ._compiled import compiled
from .excess import excess, under_kernel
from .inference import KERNELS
from .likelihood import total_log_rate
from .triangular import cholesky, solve_lower, solve_lower_transposed

__all__ = ["corrected_rate", "scaled_fine", "scaled_rate"]

#: Prior width of the factors on the bands, and the largest factor.
TAU, LARGEST = 0.15, 1.3
#: Kernels (by number) between whose smoothings the bands lie.
BORDERS = (1, 3, 5)
#: Photons of a source from which its residuals are trusted: with few, the network knows better.
ENOUGH = 1000.0
#: Scatter that every network has, and the independent stretches of window that count for it.
FLOOR, PRIOR_STRETCHES = 0.01, 8.0


#: Widths of the kernels from wide to narrow.
_WIDTHS = np.array(KERNELS[:0:-1], dtype=float)


@cache
def _full_kernel(width):
    return under_kernel(np.ones(N_TIME_BINS), float(width))


def _expected(log_rate, batch):
    return torch.softmax(log_rate + torch.log(batch.exposed), dim=1) * batch.n_photons[:, None]


def _factors(counts, expected, bands):
    """Factors (n, n_bands) on bands (n, n_bands, n_bins) of the log-rate."""
    found = _newton_step(*(x.cpu().numpy() for x in (counts, expected, bands)))
    return torch.as_tensor(1 + found, dtype=bands.dtype, device=bands.device).clamp(0, LARGEST)


@compiled
def _newton_step(counts, expected, bands):
    """One step from factors of one, with the curvature there and that of the prior."""
    n, n_bands, n_bins = bands.shape
    steps, centred = np.empty((n, n_bands)), np.empty((n_bands, n_bins))
    for i in range(n):
        gradient, information = np.zeros((n_bands, 1)), np.zeros((n_bands, n_bands))
        whole = 0.0
        for j in range(n_bins):
            whole += expected[i, j]
        for k in range(n_bands):
            mean = 0.0
            for j in range(n_bins):
                mean += bands[i, k, j] * expected[i, j]
            mean /= max(whole, 1e-9)
            for j in range(n_bins):
                centred[k, j] = bands[i, k, j] - mean
                gradient[k, 0] += centred[k, j] * (counts[i, j] - expected[i, j])
            for other in range(k + 1):
                for j in range(n_bins):
                    information[k, other] += centred[k, j] * expected[i, j] * centred[other, j]
            information[k, k] += 1 / TAU**2
        cholesky(information)
        solve_lower(information, gradient)
        solve_lower_transposed(information, gradient)
        for k in range(n_bands):
            steps[i, k] = gradient[k, 0]
    return steps


def scaled_rate(shape, batch):
    """Shape in whose log-rate only those bands are left that the photons confirm."""
    log_rate = total_log_rate(shape, batch)
    curves = log_rate.double().cpu().numpy()
    smooth = [curves, *(np.array([under_kernel(curve, float(KERNELS[k])) for curve in curves])
                        / _full_kernel(KERNELS[k]) for k in BORDERS),
              np.broadcast_to(curves.mean(axis=1, keepdims=True), curves.shape)]
    bands = torch.as_tensor(-np.diff(smooth, axis=0).swapaxes(0, 1), dtype=log_rate.dtype,
                            device=log_rate.device)
    factors = _factors(batch.per_bin, _expected(log_rate, batch), bands)
    return shape.moved(((factors - 1)[:, :, None] * bands).sum(dim=1))


def corrected_rate(shape, batch):
    """Shape with both corrections of the log-rate.

    Parameters
    ----------
    shape : Shape
    batch : Batch

    Returns
    -------
    Shape
    """
    shape = scaled_rate(shape, batch)
    n = batch.n_photons[:, None]
    expected = _expected(total_log_rate(shape, batch), batch)
    change = excess(*(x.double().cpu().numpy() for x in (batch.per_bin, expected, batch.exposed)),
                    _WIDTHS, FLOOR, PRIOR_STRETCHES)
    change = torch.as_tensor(change, dtype=expected.dtype, device=expected.device)
    return shape.moved(change * (n**2 / (n**2 + ENOUGH**2)))


def scaled_fine(fine, shape, batch):
    """The same for the log of the rate in fine cells over that of their time bin, (n, 4096)."""
    inside = fine.shape[1] // N_TIME_BINS
    in_bins = _expected(total_log_rate(shape, batch), batch)
    expected = in_bins.repeat_interleave(inside, dim=1) * torch.exp(fine) / inside
    factors = _factors(batch.per_cell, expected, fine[:, None])
    scaled = (fine * factors).reshape(len(fine), N_TIME_BINS, inside)
    return (scaled - torch.logsumexp(scaled, dim=2, keepdim=True) + math.log(inside)).flatten(1)
