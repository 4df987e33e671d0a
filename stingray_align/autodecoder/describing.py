"""The descriptors once more, from everything that the first pass found.

The first pass learns its descriptors beside the rate, from a hidden layer that mostly serves the
rate. A small network of its own reads that layer again, with the read-outs and the energies as they
are, and knows absorption, temperature and time scales better. It learns from sources that were
prepared for it, by a likelihood whose gradient the sources known best do not drown (`BETA`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from .._precision import bfloat16_if_fast
from ..photons import N_CHANNELS
from ._compiled import compiled
from .counting import N_COLOUR_BINS
from .descriptors import N_DESCRIPTORS, descriptor_loss
from .layers import Body, Linear, Standardised
from .prepared import Prepared
from .readouts import N_READOUTS, readouts

__all__ = ["BETA", "Described", "Describer", "energies", "examples"]

#: Power of the variance that weighs the likelihood of each number (Seitzer et al. 2022,
#: arXiv:2203.09168): with 0 the gradient is mostly that of a few numbers known to a per cent.
BETA = 0.5
N_ENERGIES = 4 * N_CHANNELS


@compiled
def _fill(colours, n_photons, log_area, background, background_fraction, out):
    """Write what `energies` returns."""
    for i in range(len(out)):
        n, row = n_photons[i], out[i]
        for c in range(N_CHANNELS):
            count = np.float32(0)
            for k in range(N_COLOUR_BINS):
                count += colours[i, k, c]
            unfolded = math.log((count + 0.5) / (n + 0.5 * N_CHANNELS)) - log_area[i, c]
            row[c] = 3 * math.sqrt(count / (n + 1e-6))
            row[N_CHANNELS + c] = unfolded
            row[2 * N_CHANNELS + c] = log_area[i, c]
            row[3 * N_CHANNELS + c] = 3 * math.sqrt(background[i, c] * background_fraction[i])


def energies(batch):
    """Energies of the photons and what shapes them, Tensor (n, N_ENERGIES).

    The share of each channel, as a root and as the logarithm over the effective area; that area;
    the root of the share of the known background in each.
    """
    found = np.empty((len(batch.n_photons), N_ENERGIES), dtype=np.float32)
    _fill(*batch.arrays("colours", "n_photons", "log_area", "background", "background_fraction"),
          found)
    return torch.as_tensor(found, device=batch.n_photons.device)


class Describer(nn.Module):
    """From hidden features, energies and read-outs to raw descriptors.

    Untrained, it says of each source what is known of the population.
    """

    def __init__(self, n_hidden):
        super().__init__()
        self.standardised = Standardised(N_READOUTS)
        self.body = Body(n_hidden + N_ENERGIES + N_READOUTS, n_hidden)
        self.outputs = Linear(n_hidden, N_DESCRIPTORS)
        nn.init.zeros_(self.outputs.weight)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, hidden, energies, readouts):
        """Raw descriptors, shape (n, N_DESCRIPTORS)."""
        scaled = self.standardised(readouts)
        return self.outputs(self.body(torch.cat([hidden, energies, scaled], dim=1))).float()


def examples(inferred, truth):
    """What the describer learns from: its inputs, and what is true of the sources.

    Parameters
    ----------
    inferred : `~stingray_align.autodecoder.model.Inferred`
    truth : `~stingray_align.datasets.stream.Truth`

    Returns
    -------
    dict of ndarray
    """
    halves = {"hidden": inferred.hidden, "energies": energies(inferred.batch),
              "readouts": torch.as_tensor(readouts(inferred))}
    return {name: value.cpu().numpy().clip(-6e4, 6e4).astype(np.float16)
            for name, value in halves.items()} | {
                "targets": truth.targets, "time_shape": truth.time_shape}


class Described(Prepared):
    """Examples for the describer."""

    #: Each example is drawn some thirteen times.
    CHUNK, PER_STEP, VIEWS = 512, 40, 2

    def start(self, describer):
        """Scale the read-outs."""
        describer.standardised.fit(self.arrays["readouts"][:self.n_trained].astype(np.float32))

    def loss(self, describer, one):
        """Loss of a batch."""
        with bfloat16_if_fast(one["hidden"].device):
            raw = _raw(describer, one)
        return _loss(raw, one, BETA)

    @torch.no_grad()
    def gain(self, describer):
        """Gain in log-likelihood per source over knowing the population, on sources held out."""
        gain = total = 0
        for one in self.held_out():
            n = len(one["targets"])
            gain += n * (_loss(torch.zeros(n, N_DESCRIPTORS), one) - _loss(_raw(describer, one),
                                                                           one)).item()
            total += n
        return gain / total


def _raw(describer, one):
    return describer(one["hidden"], one["energies"], one["readouts"])


def _loss(raw, one, beta=0.0):
    return descriptor_loss(raw, one["targets"], one["time_shape"].long(), beta)
