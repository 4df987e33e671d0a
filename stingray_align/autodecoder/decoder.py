"""The decoder: from a latent to the shape of a photon rate over time and energy.

Four linear heads on a residual network give a log-rate over time :math:`g(t)`, a spectrum
:math:`s(E)` and a low-rank change of the spectrum with time :math:`u(t)\\,v(E)`:

.. math::

   \\log p(t, E; z) = \\log\\mathrm{softmax}_t[g(t) + \\log w(t)]
                      + \\log\\mathrm{softmax}_E[s(E) + u(t)\\,v(E)],

with :math:`w` the exposed fraction of each time bin: :math:`p` is normalised over the exposure. The
spectrum is that in front of the telescope, :math:`s(E) = s_z(E) + \\log A(E)` with the instrument's
effective area :math:`A`: so the latent describes the source and not the camera.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn

from ..photons import N_CHANNELS, N_TIME_BINS
from .batch import N_COLOUR_BINS
from .layers import Body, Linear

__all__ = ["Decoder", "Shape"]


#: Sizes of the outputs g, s, u and v.
HEADS = (N_TIME_BINS, N_CHANNELS, N_COLOUR_BINS, N_CHANNELS)


class Shape:
    """What the heads say: ``g`` (n, 512), ``s`` (n, 20), ``u`` (n, 128), ``v`` (n, 20).

    ``s`` holds the effective area. ``total`` is what `likelihood.total_log_rate` last found of it.
    """

    total = None

    def __init__(self, g, s, u, v):
        self.g, self.s, self.u, self.v = g, s, u, v

    def moved(self, in_time, in_energy=None):
        """The same shape with something added to the log-rate over time, shape (n, 512).

        If ``in_energy``, shape (n, 20), is given, it is added to the spectrum.
        """
        if in_energy is not None:
            return Shape(self.g + in_time, self.s + in_energy, self.u, self.v)
        moved = Shape(self.g + in_time, self.s, self.u, self.v)
        if "log_energy" in vars(self):  # it does not change
            moved.log_energy = self.log_energy
        return moved

    def coloured(self, always, in_time):
        """The same rate with something added to the log spectrum, before it is normalised.

        Parameters
        ----------
        always : Tensor, shape (n, 1, 20)
        in_time : Tensor, shape (n, 128, 20)
        """
        coloured = Shape(self.g, self.s + always[:, 0], self.u, self.v)
        coloured.log_energy = torch.log_softmax(self.log_energy + always + in_time, dim=2)
        return coloured

    def log_time(self, exposed):
        """Log share of the source's photons in each time bin, shape (n, 512)."""
        return torch.log_softmax(self.g + torch.log(exposed), dim=1)

    @cached_property
    def log_energy(self):
        """Log spectrum in each of the coarser time bins, shape (n, 128, 20)."""
        return torch.log_softmax(
            self.s[:, None, :] + self.u[:, :, None] * self.v[:, None, :], dim=2)

    def log_relative_rate(self, exposed):
        """Log of rate over mean rate in each time bin, also in gaps, shape (n, 512)."""
        total = torch.logsumexp(self.g + torch.log(exposed), dim=1, keepdim=True)
        return self.g - total + torch.log(exposed.sum(dim=1, keepdim=True))


class Decoder(nn.Module):
    """Latent (n, n_latent) and log effective area (n, 20) to `Shape`."""

    def __init__(self, n_latent, n_hidden):
        super().__init__()
        self.body = Body(n_latent, n_hidden)
        self.heads = Linear(n_hidden, sum(HEADS))  # all four as one matrix product
        g, _, u, v = self.heads.weight.detach().split(HEADS)
        for head in (g, u, v):  # start from a constant source whose spectrum does not change
            nn.init.normal_(head, std=0.01)

    def forward(self, z, log_area):
        g, s, u, v = self.heads(self.body(z)).float().split(HEADS, dim=1)
        return Shape(g, s + log_area, u, v)
