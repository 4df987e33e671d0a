"""Laplace posterior of a latent that was found by optimisation.

With the decoder's outputs linear in the latent around its optimum, the information that :math:`N`
photons of the source hold is that of two multinomials, over time and over energy,

.. math:: F = N \\sum_t p_t\\, j_t j_t^T + \\sum_c n_c \\sum_E p_{E|c}\\, k_{cE} k_{cE}^T
              + 2 \\beta I,

with :math:`j` and :math:`k` the derivatives of the log-shares :math:`\\log p_t` and
:math:`\\log p_{E|c}` in the latent, :math:`n_c` the photons in stretch :math:`c` of the window, and
:math:`\\beta` the penalty on :math:`|z|^2`. Behind a known background, which photons come from the
source is not known: where it makes up the share :math:`b_{t,E}` of the rate,

.. math:: N \\sum_{t,E} p_{t,E}\\, b_{t,E}\\, (j_t + k_{cE}) (j_t + k_{cE})^T

is lost of that. The covariance is :math:`F^{-1}`.
"""

from __future__ import annotations

import warnings

import torch

from .batch import COLOUR_BIN
from .likelihood import LEAST
from .refinement import Posterior

__all__ = ["laplace"]


@torch.no_grad()  # derivatives are taken forwards
def laplace(decoder, latents, batch, *, latent_penalty=0.5):
    """Gaussian posterior around optimised latents.

    Parameters
    ----------
    decoder : Decoder
    latents : Tensor, shape (n, n_latent)
    batch : Batch
        The ``n`` observations.
    latent_penalty : float
        Weight of :math:`|z|^2` beside the log-likelihood in nats.

    Returns
    -------
    Posterior
        Of full rank.
    """
    n, d = latents.shape
    factors = torch.empty(n, d, d)
    for i in range(n):
        exposed, log_area = batch.exposed[i:i + 1], batch.log_area[i:i + 1]

        def log_shares(z):
            shape = decoder(z[None], log_area)
            return shape.log_time(exposed)[0], shape.log_energy[0].reshape(-1)

        over_time, over_energy = log_shares(latents[i])
        with warnings.catch_warnings():  # torch's own, at its first forward derivative
            warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
            by_time, by_energy = torch.func.jacfwd(log_shares)(latents[i])
        fraction = batch.background_fraction[i]
        photons = (1 - fraction) * batch.n_photons[i]
        in_stretch = photons * over_time.exp().reshape(len(over_energy) // 20, -1).sum(dim=1)
        weight = in_stretch.repeat_interleave(20) * over_energy.exp()
        information = (photons * by_time.T @ (over_time.exp()[:, None] * by_time)
                       + by_energy.T @ (weight[:, None] * by_energy)
                       + 2 * latent_penalty * torch.eye(d))
        # The same for every time bin and channel, to take off what the background hides.
        over_energy, by_energy = (x.unflatten(0, (-1, 20)).repeat_interleave(COLOUR_BIN, dim=0)
                                  for x in (over_energy, by_energy))
        own = (1 - fraction) * torch.exp(over_time[:, None] + over_energy)
        known = fraction * (exposed / exposed.sum()).T * batch.background[i]
        hidden = (batch.n_photons[i] * own * known / (own + known + LEAST)).reshape(-1, 1)
        by_both = (by_time[:, None] + by_energy).flatten(0, 1)
        information = information - by_both.T @ (hidden * by_both)
        factors[i] = torch.linalg.cholesky(torch.linalg.inv(information.detach().double())).float()
    # All of the covariance is in the factor; the rest is as good as nothing.
    return Posterior(latents.detach(), factors, torch.full((n, d), -12.0))
