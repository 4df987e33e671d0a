"""Sources seen through other effective areas than that of their camera, at no cost.

Photons are taken out by their energy, and the area says so. What learns from such sources knows
cameras that were not simulated, and the contamination that grows on one.
"""

from __future__ import annotations

import numpy as np

from ..photons import BAND_OF_CHANNEL, CHANNEL_EDGES
from .batch import CHANNEL_SHARE

__all__ = ["other_transmissions", "seen_through"]

#: Energies in keV between which effective areas are changed.
_KNOTS = np.array([0.5, 0.8, 1.2, 2.0, 3.5, 8.0])


def seen_through(photons, transmission, rng):
    """Photons of which each channel lets a share through, shape (n, 20), and their area."""
    kept = rng.random(len(photons.phase), dtype=np.float32) < transmission[
        photons.source_index, photons.channel]
    in_bands = np.add.reduceat(CHANNEL_SHARE * transmission, np.flatnonzero(
        np.diff(BAND_OF_CHANNEL, prepend=-1)), axis=1)
    return photons.select(kept).replace(
        background=(photons.background * in_bands).astype(np.float32),
        arf=(photons.area * transmission).astype(np.float32))


def other_transmissions(n, rng):
    """Shares of the photons let through for ``n`` sources, float32 (n, 20), at most one.

    Some lose soft photons as in the contamination of ACIS, the area of others is changed by a
    random walk over energy, that of some by both, and that of a quarter stays.
    """
    depth, walks = rng.exponential(1.5, n), rng.normal(0, 0.4, (n, len(_KNOTS))).cumsum(axis=1)
    kind = rng.random(n)
    depth[kind > 0.5] = 0
    walks[kind < 0.3] = 0
    centre = np.sqrt(CHANNEL_EDGES[1:] * CHANNEL_EDGES[:-1])
    between = np.array([np.interp(np.log(centre), np.log(_KNOTS), one)
                        for one in np.eye(len(_KNOTS))])
    # Rounder than `contamination`, whose edges a random walk has, too.
    log_share = walks @ between - depth[:, None] * (centre / 0.67) ** -2.5
    log_share -= log_share.max(axis=1, keepdims=True)
    return np.where(kind[:, None] < 0.75, np.exp(log_share), 1).astype(np.float32)
