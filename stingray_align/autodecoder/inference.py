"""From photons to latent and rate: a learned guess, refined by the photons' likelihood.

The first guess reads statistics of the photons (`photon_features`). It is decoded, and the
gradient of the log-likelihood with respect to the decoder's four outputs (observed minus expected
counts, weighted) is handed to a second network that proposes a step in :math:`z`: a learned
optimiser ("iterative amortised inference", Marino et al. 2018, arXiv:1807.09356). One such step
costs a fraction of a millisecond where gradient descent on :math:`z` takes hundreds of passes.
Then `LocalMixture` weighs the decoded curve against kernel estimates of the same photons, bin by
bin: narrow events that a latent cannot place to the bin are so kept in the rate. A last network
predicts the posterior covariance.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from ..photons import N_CHANNELS, N_TIME_BINS
from .batch import N_COLOUR_BINS
from .decoder import Residual
from .likelihood import log_density

__all__ = ["photon_features", "smoothed", "Inference", "LocalMixture", "Posterior", "N_FEATURES"]

N_RATE_BINS = 128
N_COLOUR_SERIES = 32
N_FREQUENCIES = 128
N_FEATURES = (N_TIME_BINS + N_RATE_BINS + 2 * N_FREQUENCIES + N_TIME_BINS // 2 + N_CHANNELS
              + 2 * N_COLOUR_SERIES + 64 + 5)
#: Channels below and above these are the soft and hard photons of the colour series.
SOFT_BELOW, HARD_FROM = 6, 10
#: Widths of the kernels in bins (0: the bins as they are), and the bins added up first so that
#: wide kernels stay cheap.
KERNELS = ((0, 1), (1.5, 1), (3, 2), (6, 4), (12, 8), (24, 16), (48, 32))
#: Bins that share their weights in the mixture of curves.
RUN = 4


def _pooled(x, bins):
    return x.reshape(len(x), bins, -1).sum(dim=2)


@cache
@torch.inference_mode(False)  # kept for later passes, some of which are training
def _kernels():
    """Weights (n_coarse, 512), and of a photon on its own bin (512,), of each kernel with width."""
    fine = torch.arange(N_TIME_BINS) + 0.5
    kernels = [None]
    for width, step in KERNELS[1:]:
        coarse = (torch.arange(N_TIME_BINS // step) + 0.5) * step
        weight = torch.exp(-0.5 * ((coarse[:, None] - fine) / width) ** 2)
        weight[weight < 1e-6] = 0.0  # numbers too small for full precision are slow to multiply
        own = weight[torch.arange(N_TIME_BINS) // step, torch.arange(N_TIME_BINS)]
        kernels.append((weight, own))
    return kernels


class Smoothed(NamedTuple):
    """Kernel estimates, for each kernel a Tensor (n, 512), and their ``scores`` (n, n_kernels).

    ``relative`` is the rate over its mean, ``logs`` its logarithm, ``reach`` the photons that a
    kernel gathers. Scores are leave-one-out log-likelihoods over that of a constant.
    """

    relative: list
    logs: list
    reach: list
    scores: torch.Tensor


def smoothed(counts, exposed):
    """Kernel estimates of the rate over its mean, from binned counts and exposure, (n, 512)."""
    n = counts.sum(dim=1, keepdim=True)
    total = exposed.sum(dim=1, keepdim=True)
    mean = (n / total).clamp(min=1e-12)
    pair = torch.stack([counts, exposed], dim=1)
    gathered = 1
    relative, reach, scores = [], [], []
    for (width, step), kernel in zip(KERNELS, _kernels()):
        if width == 0:
            (near, seen), own = pair.unbind(dim=1), 1.0
        else:
            while gathered < step:
                pair, gathered = pair[:, :, ::2] + pair[:, :, 1::2], 2 * gathered
            near, seen = (pair @ kernel[0]).unbind(dim=1)
            own = kernel[1]
        # A little of the mean keeps empty stretches from ruling a kernel out altogether.
        rate = (near / mean + 0.02) / (seen + 0.02)
        left_out = ((near - own) / mean + 0.02).clamp(min=0.01) / (seen + 0.02)
        norm = (exposed * rate).sum(dim=1, keepdim=True) / total
        scores.append((counts * torch.log(left_out / norm)).sum(dim=1))
        relative.append(rate / norm)
        reach.append(near)
    return Smoothed(relative, [r.log() for r in relative], reach, torch.stack(scores, dim=1))


def _averaged(curves):
    """One log-rate from all kernels and the constant, weighted by leave-one-out likelihood."""
    weight = torch.softmax(nn.functional.pad(curves.scores, (0, 1)), dim=1)
    return torch.log(_mixed(weight[:, :, None], curves.relative) + weight[:, -1:])


def _mixed(weights, curves):
    """Sum of curves (n, 512) with weights (n, n_curves, n_runs), the same within a run."""
    # One curve at a time: all at once they would not fit into the processor's cache.
    n, _, runs = weights.shape
    total = torch.zeros(n, runs, N_TIME_BINS // runs)
    for k, curve in enumerate(curves):
        total = torch.addcmul(total, weights[:, k, :, None], curve.reshape(n, runs, -1))
    return total.reshape(n, N_TIME_BINS)


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
        towards zero where they are not above noise; log power at every frequency; square root of
        the energy histogram; soft and hard colour series; exposure mask; log counts, log
        duration, background fraction, exposed fraction, and whether there is any photon.
    """
    per_bin, per_channel = batch.per_bin, batch.colours.sum(dim=1)
    n = batch.n_photons[:, None]
    expected = n * batch.exposed / batch.exposed.sum(dim=1, keepdim=True)

    coarse = _pooled(expected, N_RATE_BINS)
    residual = (_pooled(per_bin, N_RATE_BINS) - coarse) / torch.sqrt(coarse + 1)

    wave = torch.fft.rfft(per_bin - expected, dim=1)[:, 1:] / torch.sqrt(n + 1)
    power = wave.real**2 + wave.imag**2
    low = wave[:, :N_FREQUENCIES] * torch.relu(1 - 2 / (power[:, :N_FREQUENCIES] + 1e-6))

    bins = _pooled(per_bin, N_COLOUR_SERIES)
    colours = []
    for channels in (slice(None, SOFT_BELOW), slice(HARD_FROM, None)):
        share = per_channel[:, channels].sum(dim=1, keepdim=True) / (n + 1e-6)
        seen = _pooled(batch.colours[:, :, channels].sum(dim=2), N_COLOUR_SERIES)
        colours.append((seen - share * bins) / torch.sqrt(share * (1 - share) * bins + 1))

    scalars = torch.cat([torch.log10(n + 1) - 2, batch.log_duration[:, None] - 4,
                         batch.background_fraction[:, None],
                         batch.exposed.mean(dim=1, keepdim=True), (n > 0).float()], dim=1)
    # Bright sources have residuals of hundreds of sigma: compress, keep the sign.
    return torch.cat([
        _averaged(curves), _compress(residual),
        _compress(low.real), _compress(low.imag), torch.log1p(power),
        torch.sqrt(per_channel / (n + 1e-6)) * 3, *map(_compress, colours),
        batch.exposed.reshape(len(n), 64, -1).mean(dim=2), scalars], dim=1)


def _compress(x):
    return torch.asinh(x)


class Posterior(NamedTuple):
    """Gaussian posterior of the latent: mean (n, d), factor (n, d, r), log_scale (n, d).

    The covariance is ``factor @ factor.T + diag(exp(2 * log_scale))``.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    log_scale: torch.Tensor

    def covariance(self):
        """Covariance matrices, shape (n, d, d)."""
        return (self.factor @ self.factor.transpose(1, 2)
                + torch.diag_embed(torch.exp(2 * self.log_scale)))

    def draw(self, generator=None):
        """One draw for each source, shape (n, d)."""
        n, d, r = self.factor.shape
        wide = torch.randn(n, r, 1, generator=generator)
        narrow = torch.randn(n, d, generator=generator)
        return self.mean + (self.factor @ wide)[:, :, 0] + torch.exp(self.log_scale) * narrow


class LocalMixture(nn.Module):
    """Weighs, in runs of four bins, the decoded log-rate, the kernel estimates and a constant.

    The weights are a small function of the curves themselves, of the photons in reach of each
    kernel, and of what is known of the whole source; like all else it is trained on photons it
    has not seen.
    """

    def __init__(self, n_hidden, width=16):
        super().__init__()
        n_curves = len(KERNELS) + 1
        self.local = nn.Conv1d(n_curves + len(KERNELS), width, 1)
        self.whole = nn.Linear(n_hidden + len(KERNELS), width)
        self.inner = nn.Conv1d(width, width, 1)
        self.outer = nn.Conv1d(width, n_curves + 1, 1)

    def forward(self, decoded, hidden, curves):
        """Log of the relative rate, up to a constant per source, shape (n, 512)."""
        logs = [*curves.logs, decoded]
        local = torch.stack([_run_means(x) for x in logs]
                            + [torch.log1p(_run_means(x)) for x in curves.reach], dim=1)
        whole = torch.cat([hidden, _compress(curves.scores)], dim=1)
        x = nn.functional.gelu(self.local(local) + self.whole(whole)[:, :, None])
        x = nn.functional.gelu(self.inner(x))
        weights = torch.softmax(self.outer(x).float(), dim=1)
        return _mixed(weights, logs)  # the last weight is the constant's: log 1 = 0


def _run_means(x):
    total, *others = x.reshape(len(x), -1, RUN).unbind(dim=2)
    for other in others:
        total = total + other
    return total / RUN


class Inference(nn.Module):
    """The networks that go from photons to a rate, and to a posterior over the latent."""

    def __init__(self, n_latent, n_hidden, n_rank):
        super().__init__()
        self.n_latent, self.n_rank = n_latent, n_rank
        self.guess = nn.Sequential(
            nn.Linear(N_FEATURES, n_hidden), Residual(n_hidden), Residual(n_hidden),
            nn.LayerNorm(n_hidden))
        self.guess_latent = nn.Linear(n_hidden, n_latent)
        n_scores = 256 + 64 + 2 * N_CHANNELS + n_latent + 1
        self.refine = nn.Sequential(
            nn.Linear(n_scores + n_hidden, n_hidden), Residual(n_hidden), nn.LayerNorm(n_hidden))
        self.refine_latent = nn.Linear(n_hidden, n_latent)
        nn.init.zeros_(self.refine_latent.weight)
        nn.init.zeros_(self.refine_latent.bias)
        self.mixture = LocalMixture(n_hidden)
        self.spread = nn.Sequential(nn.Linear(n_hidden + n_latent + 1, n_hidden), nn.GELU())
        self.spread_scale = nn.Linear(n_hidden, n_latent)
        self.spread_factor = nn.Linear(n_hidden, n_latent * n_rank)
        nn.init.normal_(self.spread_factor.weight, std=0.003)
        nn.init.constant_(self.spread_scale.bias, -1.0)

    def first_guess(self, batch, curves):
        """Latent (n, n_latent) and hidden features (n, n_hidden) from the photons alone."""
        hidden = self.guess(photon_features(batch, curves))
        return self.guess_latent(hidden).float(), hidden

    def refined(self, latent, hidden, shape, batch):
        """One learned step on the likelihood of all photons, from a decoded guess."""
        scores = _likelihood_scores(shape, batch)
        hidden = self.refine(torch.cat([scores, latent, hidden], dim=1))
        return latent + self.refine_latent(hidden).float(), hidden

    def posterior(self, latent, hidden, batch):
        """Gaussian posterior around a refined latent."""
        n = torch.log10(batch.n_photons + 1)[:, None]
        spread = self.spread(torch.cat([hidden, latent, n], dim=1))
        factor = self.spread_factor(spread).float().reshape(-1, self.n_latent, self.n_rank)
        return Posterior(latent, factor, self.spread_scale(spread).float().clamp(-6, 2))


@torch.no_grad()
def _likelihood_scores(shape, batch):
    """Gradient of the log-likelihood in the decoder's outputs, in units of its expected spread.

    As in other learned optimisers, training does not differentiate through it.
    """
    # Photons count by their probability to come from the source, not from the background.
    _, share = log_density(shape, batch, batch.cells)
    counts = batch.cells.counts * share
    n = len(batch.exposed)
    in_time = torch.zeros(n * N_TIME_BINS).index_add(0, batch.cells.in_time, counts)
    in_time = in_time.reshape(n, N_TIME_BINS)
    in_colour = torch.zeros(n * N_COLOUR_BINS * N_CHANNELS)
    in_colour = in_colour.index_add(0, batch.cells.in_colour, counts)
    in_colour = in_colour.reshape(n, N_COLOUR_BINS, N_CHANNELS)

    expected = in_time.sum(dim=1, keepdim=True) * torch.exp(shape.log_time(batch.exposed))
    coarse = _pooled(in_time, N_COLOUR_BINS)
    excess = in_colour - coarse[:, :, None] * torch.exp(shape.log_energy)
    noise = torch.sqrt(coarse.sum(dim=1, keepdim=True) + 1)

    along_v = (excess @ shape.v[:, :, None])[:, :, 0]
    along_u = (shape.u[:, None, :] @ excess)[:, 0]
    return torch.cat([
        _compress(_pooled(in_time - expected, 256) / torch.sqrt(_pooled(expected, 256) + 1)),
        _compress(_pooled(along_v, 64) / torch.sqrt(_pooled(coarse, 64) + 1)),
        _compress(excess.sum(dim=1) / noise), _compress(along_u / noise),
        torch.log10(batch.n_photons[:, None] + 1)], dim=1)
