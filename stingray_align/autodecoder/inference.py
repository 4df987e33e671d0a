"""The first pass: from photons to a latent and a rate, in a fraction of a millisecond.

A network reads statistics of the photons (`photon_features`) and guesses the latent, and some
parameters of the source (`stingray_align.autodecoder.descriptors`). The decoded rate is mixed, bin
by bin, with kernel estimates of the same photons (`LocalMixture`).
"""

from __future__ import annotations

import torch
from torch import nn

from .along import Along
from .descriptors import N_DESCRIPTORS
from .layers import Body, Linear
from .mixing import write_offsets
from .smoothing import KERNELS, N_RUNS, RUN, Smoothed, smoothed
from .statistics import HARD_FROM, N_FEATURES, SOFT_BELOW, compress, photon_features

__all__ = ["FirstPass", "HARD_FROM", "KERNELS", "LocalMixture", "N_FEATURES", "N_RUNS", "RUN",
           "SOFT_BELOW", "Smoothed", "compress", "mixed", "photon_features", "pooled",
           "run_means", "smoothed"]


def pooled(x, bins):
    return x.reshape(len(x), bins, -1).sum(dim=2)


class FirstPass(nn.Module):
    """From the photons' statistics to a latent, and to descriptors of the source."""

    def __init__(self, n_latent, n_hidden):
        super().__init__()
        self.guess = Body(N_FEATURES, n_hidden)
        self.latent = Linear(n_hidden, n_latent)
        self.descriptors = Linear(n_hidden, N_DESCRIPTORS)

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
        self.local = Along(2 * len(KERNELS) + 1, width)
        self.whole = Linear(n_hidden + len(KERNELS), width)
        self.weights = Along(width, len(KERNELS) + 2)

    def forward(self, decoded, hidden, curves):
        """Log of the relative rate, up to a constant per source, shape (n, 512)."""
        n = len(KERNELS)
        local = torch.cat([curves.in_runs[:, :n], run_means(decoded)[:, None],
                           curves.in_runs[:, n:]], dim=1)
        whole = self.whole(torch.cat([hidden, compress(curves.scores)], dim=1))
        x = self.weights(torch.relu(self.local(local, whole[:, :, None])))
        weights = torch.softmax(x.float(), dim=1)
        # The last weight is the constant's: log 1 = 0.
        of_decoded = weights[:, n, :, None] * decoded.unflatten(1, (N_RUNS, RUN))
        return mixed(weights[:, :n], curves.logs) + of_decoded.flatten(1)

    def offset(self, shape, exposed, hidden, curves):
        """How far that is from the decoded rate, shape (n, 512); without gradients, and faster.

        Parameters
        ----------
        shape : Shape
            As decoded.
        exposed : Tensor, shape (n, 512)
        hidden, curves
            As in `forward`.
        """
        whole = self.whole(torch.cat([hidden, compress(curves.scores)], dim=1)) + self.local.bias
        offset = torch.empty_like(shape.g)
        write_offsets(*(x.numpy() for x in (
            shape.g, exposed, curves.logs, curves.in_runs, whole, self.local.weight[:, :, 0],
            self.weights.weight[:, :, 0], self.weights.bias, offset)))
        return offset


def run_means(x):
    """Means over each run of four bins, shape (..., 128)."""
    total, *others = x.reshape(*x.shape[:-1], N_RUNS, RUN).unbind(dim=-1)
    for other in others:  # several times faster than a mean over a short axis
        total = total + other
    return total / RUN


def mixed(weights, curves):
    """Sum of curves (n, n_curves, 512), each weight (n, n_curves, 128) the same within a run."""
    by_run = curves.unflatten(2, (N_RUNS, RUN))
    # One curve at a time stays in the cache.
    total = weights[:, 0, :, None] * by_run[:, 0]
    for k in range(1, by_run.shape[1]):
        total = torch.addcmul(total, weights[:, k, :, None], by_run[:, k])
    return total.flatten(1)
