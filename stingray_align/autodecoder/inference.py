"""The first pass: from photons to a latent and a rate, in a fraction of a millisecond.

A network reads statistics of the photons (`photon_features`) and guesses the latent, and some
parameters of the source (`stingray_align.autodecoder.descriptors`). The decoded rate is mixed, bin
by bin, with kernel estimates of the same photons (`LocalMixture`).
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from ..photons import N_CHANNELS, N_TIME_BINS
from .decoder import Residual
from .descriptors import N_DESCRIPTORS

__all__ = ["FirstPass", "KERNELS", "LocalMixture", "N_RUNS", "RUN", "Smoothed", "compress",
           "gathered", "mixed",
           "photon_features", "pooled", "run_means", "smoothed"]

#: Bins that share their weights in a mixture of curves, and how many such runs there are.
RUN = 4
N_RUNS = N_TIME_BINS // RUN
N_RATE_BINS = 128
N_COLOUR_SERIES = 32
N_FREQUENCIES = 128
N_FEATURES = (N_TIME_BINS + N_RATE_BINS + 2 * N_FREQUENCIES + N_TIME_BINS + 2 * N_CHANNELS
              + 2 * N_COLOUR_SERIES + 64 + 5)
#: Channels below and above these are the soft and hard photons of the colour series.
SOFT_BELOW, HARD_FROM = 6, 10
#: Widths of the Gaussian kernels in bins; 0: the bins as they are.
KERNELS = (0, 1.5, 3, 6, 12, 24, 48)


def pooled(x, bins):
    return x.reshape(len(x), bins, -1).sum(dim=2)


@cache
@torch.inference_mode(False)  # kept for later passes, some of which are training
def _transfer():
    """Fourier transforms of the kernels with width, peaks at one, shape (n_kernels - 1, 513)."""
    frequency = torch.arange(N_TIME_BINS + 1) / (2 * N_TIME_BINS)
    width = torch.tensor(KERNELS[1:])[:, None]
    return (width * math.sqrt(2 * math.pi)
            * torch.exp(-2 * (math.pi * width * frequency) ** 2))


class Smoothed(NamedTuple):
    """Kernel estimates of the rate over its mean.

    Attributes
    ----------
    averaged : Tensor, shape (n, 512)
        Log of the mean of all of them and the constant, weighted by their scores' likelihood.
    logs, reach : Tensor, shape (n, n_kernels, 512)
        Logarithm of each estimate, and the photons that its kernel gathers.
    scores : Tensor, shape (n, n_kernels)
        Leave-one-out log-likelihoods over that of a constant.
    """

    averaged: torch.Tensor
    logs: torch.Tensor
    reach: torch.Tensor
    scores: torch.Tensor


def smoothed(counts, exposed):
    """Kernel estimates of the rate over its mean, from binned counts and exposure, (n, 512)."""
    total = exposed.sum(dim=1)[:, None, None]
    # Photons per mean rate: one over the mean count of a fully exposed bin.
    scale = (total / counts.sum(dim=1)[:, None, None]).clamp(max=1e12)
    near = _gathered(counts)
    # A little of the mean keeps empty stretches from ruling a kernel out altogether.
    weight = 1 / (_gathered_exposure(exposed) + 0.02)
    rate = near * scale
    rate += 0.02
    rate *= weight
    norm = (rate * exposed[:, None]).sum(dim=2) / total[:, :, 0]
    log_norm = torch.log(norm)
    logs = torch.log(rate)
    logs -= log_norm[:, :, None]

    # The kernels are one at their peak, so a photon counts one in its own estimate.
    row, column = torch.nonzero(counts, as_tuple=True)
    others = (near[row, :, column] - 1) * scale[row, :, 0] + 0.02
    others = torch.log(others.clamp(min=0.01) * weight.expand_as(near)[row, :, column])
    others -= log_norm[row]
    scores = torch.zeros_like(log_norm).index_add_(0, row, others * counts[row, column, None])

    share = torch.softmax(nn.functional.pad(scores, (0, 1)), dim=1)
    averaged = ((share[:, :-1] / norm)[:, None] @ rate)[:, 0] + share[:, -1:]
    return Smoothed(torch.log(averaged), logs, near, scores)


def _gathered(x):
    """Sums of (n, 512) under each kernel, shape (n, n_kernels, 512)."""
    # Twice the window, so that what leaves it at one end does not come back at the other.
    wave = torch.fft.rfft(x, n=2 * N_TIME_BINS, dim=1)[:, None] * _transfer().to(x.device)
    near = torch.fft.irfft(wave, dim=2)[:, :, :N_TIME_BINS].clamp(min=0)
    return torch.cat([x[:, None], near], dim=1)


def gathered(x, number):
    """Sums of (n, 512) under one of the kernels with width, shape (n, 512)."""
    wave = torch.fft.rfft(x, n=2 * N_TIME_BINS, dim=1) * _transfer()[number - 1].to(x.device)
    return torch.fft.irfft(wave, dim=1)[:, :N_TIME_BINS]


@cache
@torch.inference_mode(False)
def _gathered_full_exposure():
    return _gathered(torch.ones(1, N_TIME_BINS))


def _gathered_exposure(exposed):
    full = _gathered_full_exposure().to(exposed.device)
    gaps = torch.nonzero((exposed != 1).any(dim=1))[:, 0]
    if len(gaps) == 0:  # as is usual: the same for every source
        return full
    return full.repeat(len(exposed), 1, 1).index_copy_(0, gaps, _gathered(exposed[gaps]))


def photon_features(batch, curves):
    """Statistics of the photons that the first guess reads.

    Parameters
    ----------
    batch : `~stingray_align.autodecoder.batch.Batch`
    curves : Smoothed

    Returns
    -------
    Tensor, shape (n, N_FEATURES)
        Kernel log-rate; Pearson residuals of the binned counts; Fourier coefficients shrunk
        towards zero where they are not above noise; log power at every half frequency; square
        root of the energy histogram; log effective area; soft and hard colour series; exposure
        mask; log counts, log duration, background fraction, exposed fraction, whether there is any
        photon.
    """
    per_bin, per_channel = batch.per_bin, batch.colours.sum(dim=1)
    n = batch.n_photons[:, None]
    expected = n * batch.exposed / batch.exposed.sum(dim=1, keepdim=True)

    coarse = pooled(expected, N_RATE_BINS)
    residual = (pooled(per_bin, N_RATE_BINS) - coarse) / torch.sqrt(coarse + 1)

    # At every half frequency, so that no period falls between two.
    wave = torch.fft.rfft(per_bin - expected, n=2 * N_TIME_BINS, dim=1)[:, 1:] / torch.sqrt(n + 1)
    power = wave.real**2 + wave.imag**2
    whole = slice(1, 2 * N_FREQUENCIES, 2)
    low = wave[:, whole] * torch.relu(1 - 2 / (power[:, whole] + 1e-6))

    bins = pooled(per_bin, N_COLOUR_SERIES)
    colours = []
    for channels in (slice(None, SOFT_BELOW), slice(HARD_FROM, None)):
        share = per_channel[:, channels].sum(dim=1, keepdim=True) / (n + 1e-6)
        seen = pooled(batch.colours[:, :, channels].sum(dim=2), N_COLOUR_SERIES)
        colours.append((seen - share * bins) / torch.sqrt(share * (1 - share) * bins + 1))

    scalars = torch.cat([torch.log10(n + 1) - 2, batch.log_duration[:, None] - 4,
                         batch.background_fraction[:, None],
                         batch.exposed.mean(dim=1, keepdim=True), (n > 0).float()], dim=1)
    # Bright sources have residuals of hundreds of sigma: compress, keep the sign.
    return torch.cat([
        curves.averaged, compress(residual),
        compress(low.real), compress(low.imag), torch.log1p(power),
        torch.sqrt(per_channel / (n + 1e-6)) * 3, batch.log_area, *map(compress, colours),
        batch.exposed.reshape(len(n), 64, -1).mean(dim=2), scalars], dim=1)


def compress(x):
    return torch.asinh(x)


class FirstPass(nn.Module):
    """From the photons' statistics to a latent, and to descriptors of the source."""

    def __init__(self, n_latent, n_hidden):
        super().__init__()
        self.guess = nn.Sequential(
            nn.Linear(N_FEATURES, n_hidden), Residual(n_hidden), Residual(n_hidden),
            nn.LayerNorm(n_hidden))
        self.latent = nn.Linear(n_hidden, n_latent)
        self.descriptors = nn.Linear(n_hidden, N_DESCRIPTORS)

    def forward(self, batch, curves):
        """Latent (n, n_latent), hidden features (n, n_hidden), raw descriptors."""
        hidden = self.guess(photon_features(batch, curves))
        return self.latent(hidden).float(), hidden, self.descriptors(hidden).float()


class LocalMixture(nn.Module):
    """Weighs, in runs of four bins, the decoded log-rate, the kernel estimates and a constant.

    A latent cannot place a narrow event to the bin; the photons' own kernel estimates can. The
    weights are a small function of the curves themselves, of the photons in reach of each kernel,
    and of what is known of the whole source.
    """

    def __init__(self, n_hidden, width=16):
        super().__init__()
        self.local = nn.Conv1d(2 * len(KERNELS) + 1, width, 1)
        self.whole = nn.Linear(n_hidden + len(KERNELS), width)
        self.weights = nn.Conv1d(width, len(KERNELS) + 2, 1)

    def forward(self, decoded, hidden, curves):
        """Log of the relative rate, up to a constant per source, shape (n, 512)."""
        logs = torch.cat([curves.logs, decoded[:, None]], dim=1)
        local = torch.cat([run_means(logs), torch.log1p(run_means(curves.reach))], dim=1)
        whole = self.whole(torch.cat([hidden, compress(curves.scores)], dim=1))
        x = torch.relu(self.local(local) + whole[:, :, None])
        return mixed(torch.softmax(self.weights(x).float(), dim=1), logs)


def run_means(x):
    """Means over each run of four bins, shape (..., 128)."""
    total, *others = x.reshape(*x.shape[:-1], N_RUNS, RUN).unbind(dim=-1)
    for other in others:  # several times faster than a mean over a short axis
        total = total + other
    return total / RUN


def mixed(weights, curves):
    """Sum of curves (n, n_curves, 512), the same weights (n, n_curves + 1, 128) within a run."""
    by_run = curves.reshape(*curves.shape[:2], N_RUNS, RUN)
    # The last weight is the constant's: log 1 = 0. One curve at a time stays in the cache.
    total = weights[:, 0, :, None] * by_run[:, 0]
    for k in range(1, by_run.shape[1]):
        total = torch.addcmul(total, weights[:, k, :, None], by_run[:, k])
    return total.reshape(len(curves), -1)
