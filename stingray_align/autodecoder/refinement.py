"""Refinement: from the first pass to the best rate, and to what is known about it.

1. The rate that the first guess decodes to is compared with the photons: the gradient of the
   log-likelihood with respect to the decoder's four outputs is handed to a network that proposes a
   step in :math:`z`, a learned optimiser ("iterative amortised inference", Marino et al. 2018,
   arXiv:1807.09356). One such step costs a fraction of a millisecond where gradient descent on
   :math:`z` takes hundreds of passes.
2. A convolutional network along the window weighs, in runs of four bins, the decoded curve against
   kernel estimates and folded curves of the same photons, and corrects their mean: events that a
   latent cannot place to the bin, and pulses that a kernel cannot see, are so kept in the rate.
3. Inside each time bin the photons are spread over eight fine cells (`SubBins`), for bursts
   shorter than a bin.
4. The same network says how far the true rate may lie from this one (see
   `stingray_align.autodecoder.intervals`), and a last one gives the posterior of the latent.

The rate that comes out is one of those which `stingray_align.autodecoder.experts` weighs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from ..photons import N_CHANNELS, N_FINE_BINS, N_TIME_BINS
from .along import Along
from .batch import N_COLOUR_BINS
from .decoder import Shape
from .folding import FOLDS, folded
from .inference import (HARD_FROM, KERNELS, N_RUNS, RUN, SOFT_BELOW, compress, mixed, pooled,
                        run_means)
from .intervals import N_COMPONENTS
from .layers import Body, Linear
from .likelihood import log_density, total_log_rate

__all__ = ["Block", "Posterior", "Refined", "Refinement", "SUB", "Spread"]

#: Fine cells per time bin.
SUB = N_FINE_BINS // N_TIME_BINS
N_CURVES = len(KERNELS) + FOLDS + 1  # and a constant


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
        wide = torch.randn(n, r, 1, generator=generator, device="cpu").to(self.mean.device)
        narrow = torch.randn(n, d, generator=generator, device="cpu").to(self.mean.device)
        return self.mean + (self.factor @ wide)[:, :, 0] + torch.exp(self.log_scale) * narrow


class Refined(NamedTuple):
    """What the refinement finds.

    Attributes
    ----------
    latent : Tensor, shape (n, n_latent)
    hidden : Tensor, shape (n, n_hidden)
        What the networks remember of the photons, for the posterior.
    decoded, shape : `~stingray_align.autodecoder.decoder.Shape`
        What the refined latent decodes to, and the shape of the rate.
    log_rate_intervals : Tensor, shape (n, 128, 9), or None
        Raw mixtures of the log of the true over this rate, see `intervals`; None without encoder.
    fine : Tensor, shape (n, 4096), or None
        Log of the rate in each fine cell over that of the shape in its time bin; None before the
        experts are weighed.
    """

    latent: torch.Tensor
    hidden: torch.Tensor
    decoded: Shape
    shape: Shape
    log_rate_intervals: torch.Tensor | None = None
    fine: torch.Tensor | None = None


class Block(nn.Module):
    """Residual block of a dilated convolution along the window."""

    def __init__(self, width, dilation):
        super().__init__()
        self.along = Along(width, width, 5, dilation)
        self.across = Along(width, width)
        nn.init.zeros_(self.across.weight)
        nn.init.zeros_(self.across.bias)

    def forward(self, x):
        return x + self.across(nn.functional.gelu(self.along(x)))


class SubBins(nn.Module):
    """Where inside a time bin its photons fall: log density over eight fine cells, mean one.

    It reads the photons of the bin and of its two neighbours, and is evaluated only where there
    are any: elsewhere the rate is the same over the bin.
    """

    def __init__(self, width=64):
        super().__init__()
        self.inner = Linear(3 * SUB + 6, width)
        self.middle = Linear(width, width)
        self.outer = Linear(width, SUB)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, per_cell, log_rate, log_mean):
        """Log density over the fine cells of each bin.

        Parameters
        ----------
        per_cell : Tensor, shape (n, 4096)
            Photons in each fine cell.
        log_rate : Tensor, shape (n, 512)
            Log of rate over mean rate in each bin.
        log_mean : Tensor, shape (n,)
            Log of the mean number of photons in a bin.

        Returns
        -------
        Tensor, shape (n, 4096)
        """
        n = len(per_cell)
        cells = nn.functional.pad(per_cell, (SUB, SUB)).unfold(1, 3 * SUB, SUB)
        counts = cells.sum(dim=2)
        rates = nn.functional.pad(log_rate[:, None], (1, 1), "replicate")[:, 0].unfold(1, 3, 1)
        row, column = torch.nonzero(counts, as_tuple=True)
        cells, rates = cells[row, column], rates[row, column]
        few = torch.stack([torch.log1p(counts[row, column]), log_mean[row]], dim=1)
        spread = compress(cells * (1 + 1 / (1 + cells.sum(dim=1, keepdim=True).sqrt())))
        x = torch.cat([spread, rates, few, torch.log1p(cells[:, SUB:2 * SUB].sum(dim=1))[:, None]],
                      dim=1)
        x = nn.functional.gelu(self.inner(x))
        x = self.outer(nn.functional.gelu(self.middle(x))).float()
        fine = per_cell.new_zeros(n, N_TIME_BINS, SUB)
        fine[row, column] = torch.log_softmax(x, dim=1) + math.log(SUB)
        return fine.reshape(n, -1)


class Refinement(nn.Module):
    """The networks behind the refined rate, its intervals, and the posterior of the latent."""

    def __init__(self, n_latent, n_hidden, width=64):
        super().__init__()
        n_step = n_hidden // 2
        n_scores = 256 + 64 + 2 * N_CHANNELS + n_latent + 1
        self.step = Body(n_scores + n_hidden, n_step, 1)
        self.step_latent = Linear(n_step, n_latent)
        nn.init.zeros_(self.step_latent.weight)
        nn.init.zeros_(self.step_latent.bias)

        n_local = 2 * len(KERNELS) + FOLDS + 4 * RUN + 2
        self.local = Along(n_local, width)
        self.whole = Linear(n_step + len(KERNELS) + 4, width)
        self.blocks = nn.ModuleList(Block(width, dilation) for dilation in (1, 2, 4, 8))
        self.spread_out = Linear(2 * width, width)
        nn.init.zeros_(self.spread_out.weight)
        self.weights = Along(width, N_CURVES + 1)
        self.correction = Along(width, RUN)
        self.sub_bins = SubBins()

        self.log_rate_intervals = Along(width, 3 * N_COMPONENTS)
        for head in (self.correction, self.log_rate_intervals):
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)

    def forward(self, batch, curves, latent, hidden, decoder, first=None):
        """Refine a first pass.

        Parameters
        ----------
        batch : Batch
        curves : Smoothed
        latent, hidden : Tensor
            Of the first pass.
        decoder : Decoder
        first : Shape, optional
            What the latent decodes to, where that is known.

        Returns
        -------
        Refined
        """
        with torch.no_grad():  # as in other learned optimisers
            scores = _likelihood_scores(first or decoder(latent, batch.log_area), batch)
        known = self.step(torch.cat([scores, latent, hidden], dim=1))
        latent = latent + self.step_latent(known).float()
        decoded = decoder(latent, batch.log_area)

        folds = folded(batch.per_bin, batch.exposed)
        whole = torch.cat([known, compress(curves.scores), torch.log1p(folds.power),
                           torch.log(folds.frequency)], dim=1)
        x = self.local(_local_features(batch, curves, folds, decoded),
                       self.whole(whole)[:, :, None])
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k == 1:
                x = x + self.spread_out(_over_window(x))[:, :, None]
        x = nn.functional.gelu(x)
        log_rate = decoded.log_relative_rate(batch.exposed)
        # The last weight is that of a constant: log 1 = 0.
        best = mixed(torch.softmax(self.weights(x).float(), dim=1)[:, :-1],
                     torch.cat([curves.logs, folds.logs, log_rate[:, None]], dim=1))
        best = best + self.correction(x).float().transpose(1, 2).reshape(best.shape)
        return Refined(latent, known, decoded, decoded.moved(best - log_rate),
                       self.log_rate_intervals(x).float().transpose(1, 2))

    def fine(self, batch, shape):
        """Log of the rate in each fine cell over that of its time bin, shape (n, 4096)."""
        mean = batch.n_photons / batch.exposed.sum(dim=1)
        fine = self.sub_bins(batch.per_cell, total_log_rate(shape, batch).detach(),
                             torch.log(mean + 1e-3))
        return torch.where(batch.wholly_exposed, fine, 0.0)


class Spread(nn.Module):
    """Covariance of the latent's posterior from what the refinement remembers."""

    def __init__(self, n_latent, n_hidden, n_rank):
        super().__init__()
        n_step = n_hidden // 2
        self.n_latent, self.n_rank = n_latent, n_rank
        self.inner = nn.Sequential(Linear(n_step + n_latent + 1, n_step), nn.GELU())
        self.scale = Linear(n_step, n_latent)
        self.factor = Linear(n_step, n_latent * n_rank)
        nn.init.normal_(self.factor.weight, std=0.003)
        nn.init.constant_(self.scale.bias, -1.0)

    def forward(self, refined, batch):
        """Gaussian posterior around a refined latent."""
        n = torch.log10(batch.n_photons + 1)[:, None]
        inner = self.inner(torch.cat([refined.hidden, refined.latent, n], dim=1))
        factor = self.factor(inner).float().reshape(-1, self.n_latent, self.n_rank)
        return Posterior(refined.latent, factor, self.scale(inner).float().clamp(-6, 2))


def _over_window(x):
    return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)


def _in_run(x):
    """The four bins of each run as four channels, shape (n, 4, 128)."""
    return x.reshape(len(x), N_RUNS, RUN).transpose(1, 2)


def _local_features(batch, curves, folds, decoded):
    log_rate = decoded.log_relative_rate(batch.exposed)
    mean = batch.n_photons / batch.exposed.sum(dim=1)
    expected = mean[:, None] * batch.exposed * torch.exp(log_rate.clamp(max=12))
    residual = compress((batch.per_bin - expected) / torch.sqrt(expected + 1))
    bins = pooled(batch.per_bin, N_COLOUR_BINS)
    n = batch.n_photons[:, None]
    colours = []
    for channels in (slice(None, SOFT_BELOW), slice(HARD_FROM, None)):
        seen = batch.colours[:, :, channels].sum(dim=2)
        share = seen.sum(dim=1, keepdim=True) / (n + 1e-6)
        colours.append((seen - share * bins) / torch.sqrt(share * (1 - share) * bins + 1))
    return torch.cat([
        curves.in_runs, run_means(folds.logs),
        _in_run(log_rate), _in_run(residual), _in_run(curves.logs[:, 1]),
        _in_run(batch.exposed), torch.stack(colours, dim=1)], dim=1)


@torch.no_grad()
def _likelihood_scores(shape, batch):
    """Gradient of the log-likelihood in the decoder's outputs, in units of its expected spread."""
    # Photons count by their probability to come from the source, not from the background.
    _, share = log_density(shape, batch, batch.cells)
    counts = batch.cells.counts * share
    n = len(batch.exposed)
    in_time = counts.new_zeros(n * N_TIME_BINS).index_add(0, batch.cells.in_time, counts)
    in_time = in_time.reshape(n, N_TIME_BINS)
    in_colour = counts.new_zeros(n * N_COLOUR_BINS * N_CHANNELS)
    in_colour = in_colour.index_add(0, batch.cells.in_colour, counts)
    in_colour = in_colour.reshape(n, N_COLOUR_BINS, N_CHANNELS)

    expected = in_time.sum(dim=1, keepdim=True) * torch.exp(shape.log_time(batch.exposed))
    coarse = pooled(in_time, N_COLOUR_BINS)
    excess = in_colour - coarse[:, :, None] * torch.exp(shape.log_energy)
    noise = torch.sqrt(coarse.sum(dim=1, keepdim=True) + 1)

    along_v = (excess @ shape.v[:, :, None])[:, :, 0]
    along_u = (shape.u[:, None, :] @ excess)[:, 0]
    return torch.cat([
        compress(pooled(in_time - expected, 256) / torch.sqrt(pooled(expected, 256) + 1)),
        compress(pooled(along_v, 64) / torch.sqrt(pooled(coarse, 64) + 1)),
        compress(excess.sum(dim=1) / noise), compress(along_u / noise),
        torch.log10(batch.n_photons[:, None] + 1)], dim=1)
