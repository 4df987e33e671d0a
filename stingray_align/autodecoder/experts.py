r"""The final rate: several estimates of it weighed against each other, time by time.

What a network learned of a whole population and what a log-Gaussian Cox process
(`stingray_align.autodecoder.cox`) works out for one source alone err in different ways. Of the
estimates :math:`\lambda_k(t)`, a constant among them, two geometric means with weights
:math:`w_{jk}(t)` are mixed with weights :math:`a_j(t)`,

.. math:: \lambda(t) \propto \sum_j a_j(t) \prod_k \lambda_k(t)^{w_{jk}(t)},

where a geometric mean averages noise, and a sum hedges against an estimate that is wrong
altogether ("mixture of experts", Jacobs et al. 1991, Neural Computation 3, 79; "logarithmic
pooling", Genest & Zidek 1986, Statistical Science 1, 114). The weights come from a small network
that sees the estimates, how far they lie apart, the photons, and the evidence that the Cox process
finds for each kind of variability. The same network says how far the truth may lie from the final
rate (`stingray_align.autodecoder.intervals`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..photons import N_FINE_BINS, N_TIME_BINS
from .along import Along
from .comparing import compared
from .cox import N_SUMMARY, cox_processes
from .descriptors import DESCRIPTORS, descriptors
from .inference import KERNELS, N_RUNS, compress, run_means
from .intervals import N_COMPONENTS
from .layers import Linear
from .likelihood import total_log_rate
from .pulsations import pulsations
from .refinement import SUB, Block
from .residual import corrected_rate, scaled_fine
from .spectrum import corrected_spectrum

__all__ = ["Evidence", "Experts", "gather_evidence", "in_bins", "on_fine", "split"]

#: First pass; refinement, corrected by many photons, and with pulsations; Cox process without
#: periods, and with them.
N_CURVES = 6
N_POOLS = 2
#: Fine cells in a run of four time bins, which share their weights.
CELLS = N_FINE_BINS // N_RUNS
N_LOCAL = 3 * N_CURVES + 4 + 3 * N_COMPONENTS - 1
N_WHOLE = 3 + N_SUMMARY + len(KERNELS) + len(DESCRIPTORS) + N_CURVES
#: The source's own rate is at least this share of the total.
LEAST_SHARE = 0.02


class Evidence(NamedTuple):
    """What the weights are made of.

    Attributes
    ----------
    curves : Tensor, shape (n, 6, 4096)
        Logs of the estimates of the rate of source and background, over their mean.
    local : Tensor, shape (n, N_LOCAL, 128)
    whole : Tensor, shape (n, N_WHOLE)
        Of each run of four time bins, and of the whole source.
    hidden : Tensor, shape (n, n_hidden)
        What the refinement remembers of the photons.
    exposed : Tensor, shape (n, 512)
    """

    curves: torch.Tensor
    local: torch.Tensor
    whole: torch.Tensor
    hidden: torch.Tensor
    exposed: torch.Tensor


def on_fine(x):
    return x.repeat_interleave(SUB, dim=-1)


def in_bins(log_rate):
    """Log of the mean rate in each time bin, from that in the fine cells (..., 4096)."""
    parts = log_rate.unflatten(-1, (N_TIME_BINS, SUB))
    return torch.logsumexp(parts, dim=-1) - math.log(SUB)


def _mean_one(log_rate, exposed):
    """Log-rates (..., 4096) over their mean over the exposure (..., 512)."""
    log_exposed = torch.log(exposed / exposed.sum(dim=-1, keepdim=True))
    return log_rate - torch.logsumexp(in_bins(log_rate) + log_exposed, dim=-1, keepdim=True)


@torch.no_grad()
def gather_evidence(inferred, refined, refinement):
    """Let every expert make its estimate.

    Parameters
    ----------
    inferred : `~stingray_align.autodecoder.model.Inferred`
    refined : `~stingray_align.autodecoder.refinement.Refined`
        As the networks left it.
    refinement : `~stingray_align.autodecoder.refinement.Refinement`

    Returns
    -------
    shape : Shape
        Of the refinement, corrected by many photons.
    evidence : Evidence
    """
    batch = inferred.batch
    shape = corrected_rate(corrected_spectrum(refined.shape, batch), batch)
    log_rate = on_fine(total_log_rate(shape, batch))
    fine = scaled_fine(refinement.fine(batch, shape), shape, batch)
    pulsed = torch.log(pulsations(batch, shape, fine))

    fits = [(np.log([fit.aperiodic, fit.shape]), fit.deviation, fit.summary)
            for fit in cox_processes(batch.photons)]
    by_cox, deviation, summary = (torch.as_tensor(np.array(part)).float() for part in zip(*fits))
    curves = torch.cat([torch.stack([
        on_fine(total_log_rate(inferred.shape, batch)),
        on_fine(total_log_rate(refined.shape, batch)) + fine,
        log_rate + fine, log_rate + fine + pulsed], dim=1), by_cox], dim=1).double().cpu().numpy()
    found = compared(curves, batch.exposed.double().cpu().numpy(), N_RUNS, 3)
    curves, means, inside, apart = (torch.as_tensor(x, device=fine.device).float()
                                    for x in (curves, *found))
    cells = batch.per_cell.reshape(-1, N_RUNS, CELLS)
    single = torch.stack([run_means(deviation), torch.log1p(cells.sum(dim=2)),
                          torch.log1p(cells.amax(dim=2)), run_means(batch.exposed)], dim=1)
    local = torch.cat([means, apart[:, [0, 1, 2, 4, 5]], inside, single,
                       refined.log_rate_intervals.transpose(1, 2)], dim=1)
    whole = torch.cat([
        torch.log10(batch.n_photons[:, None] + 1), batch.background_fraction[:, None],
        pulsed.abs().amax(dim=1, keepdim=True), summary, compress(inferred.curves.scores),
        descriptors(inferred.guessed), means.std(dim=2)], dim=1)
    return shape, Evidence(curves, local, whole, refined.hidden, batch.exposed)


class _AlongWindow(nn.Module):
    """A small convolutional network along the window, with outputs for each run of four bins."""

    def __init__(self, n_local, n_hidden, n_outputs, width=32):
        super().__init__()
        self.local = Along(n_local, width)
        self.whole = nn.Sequential(Linear(N_WHOLE, width), nn.GELU(), Linear(width, width))
        self.hidden = Linear(n_hidden // 2, width)
        nn.init.zeros_(self.hidden.weight)
        self.blocks = nn.ModuleList(Block(width, dilation) for dilation in (1, 4))
        self.outputs = Along(width, n_outputs)
        nn.init.normal_(self.outputs.weight, std=1e-3)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, local, evidence):
        whole = self.whole(compress(evidence.whole)) + self.hidden(evidence.hidden)
        x = self.local(local, whole[:, :, None])
        for block in self.blocks:
            x = block(x)
        return self.outputs(nn.functional.gelu(x)).float()


class Experts(nn.Module):
    """Weights of the estimates, and intervals around their mean."""

    def __init__(self, n_hidden):
        super().__init__()
        self.weights = _AlongWindow(N_LOCAL, n_hidden, N_POOLS * (N_CURVES + 2))
        self.intervals = _AlongWindow(N_LOCAL + 2, n_hidden, 3 * N_COMPONENTS)
        with torch.no_grad():  # start from refinement and Cox process, one pool without constant
            start = torch.zeros(N_POOLS, N_CURVES + 2)
            start[:, [4, 6]] = 2.0
            start[1, 0] = -1.5
            self.weights.outputs.bias.copy_(start.flatten())

    def forward(self, evidence):
        """Weigh the estimates.

        Parameters
        ----------
        evidence : Evidence

        Returns
        -------
        log_rate : Tensor, shape (n, 4096)
            Log of the rate over its mean.
        intervals : Tensor, shape (n, 128, 9)
            Raw mixtures of the log of the true over this rate.
        """
        weights = self.weights(evidence.local, evidence).unflatten(1, (N_POOLS, N_CURVES + 2))
        share = torch.log_softmax(weights[:, :, -1], dim=1)
        # The first weight is the constant's: log 1 = 0.
        weights = torch.softmax(weights[:, :, :-1], dim=2)[:, :, 1:]
        curves = evidence.curves.unflatten(2, (N_RUNS, CELLS))
        pools = torch.einsum("npkr,nkrc->nprc", weights, curves)
        log_rate = torch.logsumexp(pools + share[:, :, :, None], dim=1).flatten(1)
        log_rate = _mean_one(log_rate, evidence.exposed)

        by_run = log_rate.detach().unflatten(1, (N_RUNS, CELLS))
        found = torch.stack([by_run.mean(dim=2), by_run.std(dim=2)], dim=1)
        intervals = self.intervals(torch.cat([evidence.local, found], dim=1), evidence)
        return log_rate, intervals.transpose(1, 2)


def split(log_rate, shape, batch):
    """A total rate in the fine cells as the source's shape, and what that leaves over.

    Parameters
    ----------
    log_rate : Tensor, shape (n, 4096)
        Log of the rate of source and background over its mean.
    shape : Shape
        From which the spectrum is taken.
    batch : Batch

    Returns
    -------
    shape : Shape
    fine : Tensor, shape (n, 4096)
        Log of the rate in each fine cell over that of the shape in its time bin: the changes inside
        bins, and, where the rate falls below the background as it was measured, the difference.
    """
    rate = torch.exp(in_bins(log_rate))
    source = torch.maximum(rate - batch.background_fraction[:, None], LEAST_SHARE * rate)
    shape = shape.moved(torch.log(source) - shape.g)
    return shape, log_rate - on_fine(total_log_rate(shape, batch))
