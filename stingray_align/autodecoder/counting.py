"""From photons to counts: where each falls, and how many fall there."""

from __future__ import annotations

import numpy as np

from ..photons import N_CHANNELS, N_FINE_BINS, N_TIME_BINS
from ._compiled import compiled

__all__ = ["N_COLOUR_BINS", "count", "count_fine", "locate"]

#: The spectrum changes on a grid four times coarser than the rate.
N_COLOUR_BINS = 128
COLOUR_BIN = N_TIME_BINS // N_COLOUR_BINS


@compiled
def locate(offsets, phase, channel):
    """Source of each photon, and its flat indices into (n, 512), (n, 128, 20) and (n, 20).

    Parameters
    ----------
    offsets, phase, channel : ndarray
        As in `~stingray_align.photons.Photons`.

    Returns
    -------
    ndarray of int64, shape (4, n_photons)
    """
    cells = np.empty((4, len(phase)), dtype=np.int64)
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            in_time = i * N_TIME_BINS + min(int(phase[k] * N_TIME_BINS), N_TIME_BINS - 1)
            cells[0, k] = i
            cells[1, k] = in_time
            cells[2, k] = in_time // COLOUR_BIN * N_CHANNELS + channel[k]
            cells[3, k] = i * N_CHANNELS + channel[k]
    return cells


@compiled
def count(in_time, in_colour, counts, exposed):
    """Count photons, and mend the exposure: where there are counts, there was some.

    Parameters
    ----------
    in_time, in_colour : ndarray of int64, shape (n_cells,)
        As `locate` makes them.
    counts : ndarray of float32, shape (n_cells,)
    exposed : ndarray of float32, shape (n, 512)
        Changed in place.

    Returns
    -------
    per_bin, colours : ndarray of float32, shapes (n, 512) and (n, 128, 20)
    """
    n = len(exposed)
    per_bin = np.zeros((n, N_TIME_BINS), dtype=np.float32)
    colours = np.zeros((n, N_COLOUR_BINS, N_CHANNELS), dtype=np.float32)
    in_bin, in_cell, open_ = per_bin.reshape(-1), colours.reshape(-1), exposed.reshape(-1)
    for k in range(len(counts)):
        in_bin[in_time[k]] += counts[k]
        in_cell[in_colour[k]] += counts[k]
        open_[in_time[k]] = max(open_[in_time[k]], np.float32(1e-3))
    return per_bin, colours


@compiled
def count_fine(offsets, phase):
    """Photons in each of the 4096 fine cells of the window, float32, shape (n, 4096)."""
    counts = np.zeros((len(offsets) - 1, N_FINE_BINS), dtype=np.float32)
    for i in range(len(counts)):
        for k in range(offsets[i], offsets[i + 1]):
            counts[i, min(int(phase[k] * N_FINE_BINS), N_FINE_BINS - 1)] += 1
    return counts
