"""The Poisson-process likelihood, with exposure and a known background.

Photons come from the source with probability :math:`1 - f` and from the known background with
probability :math:`f`; the background is constant in time and has the annulus' spectrum
:math:`b(E)`:

.. math:: p_\\mathrm{tot}(t, E) = (1 - f)\\,p(t, E; z) + f\\,b(E)\\,w(t) / \\textstyle\\sum w.

So the latent describes the source, while the likelihood is that of all photons in the aperture.
It is evaluated at the occupied cells only.
"""

from __future__ import annotations

import torch

__all__ = ["log_density", "log_likelihood"]


def log_density(shape, batch, cells):
    """Log probability of a photon to fall into each of some cells.

    Parameters
    ----------
    shape : `~stingray_align.autodecoder.decoder.Shape`
    batch : `~stingray_align.autodecoder.batch.Batch`
        The observations: exposure and background.
    cells : `~stingray_align.autodecoder.batch.Cells`
        Where to evaluate; any cells of the same observations.

    Returns
    -------
    total, source_share : Tensor, shape (n_cells,)
        Log probability density over the 512 x 20 cells, and the probability that a photon of that
        cell comes from the source.
    """
    source = (shape.log_time(batch.exposed).reshape(-1)[cells.in_time]
              + shape.log_energy.reshape(-1)[cells.in_colour])
    fraction = batch.background_fraction[cells.source]
    share = batch.exposed / batch.exposed.sum(dim=1, keepdim=True)
    floor = share.reshape(-1)[cells.in_time] * batch.background.reshape(-1)[cells.in_channel]
    from_source = source + torch.log1p(-fraction)
    total = torch.logaddexp(from_source, torch.log(fraction * floor + 1e-30))
    return total, torch.exp(from_source - total)


def log_likelihood(shape, batch, cells):
    """Multinomial log-likelihood of the photons in some cells, up to a constant, shape (n,)."""
    total, _ = log_density(shape, batch, cells)
    return torch.zeros(len(batch.exposed)).index_add(0, cells.source, cells.counts * total)
