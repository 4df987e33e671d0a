"""From photons to counts: where each falls, and how many fall there."""

from __future__ import annotations

import math

import numpy as np

from ..photons import (BAND_EDGES, BAND_OF_CHANNEL, CHANNEL_EDGES, N_CHANNELS, N_FINE_BINS,
                       N_TIME_BINS)
from ._compiled import compiled

__all__ = ["CHANNEL_SHARE", "COLOUR_BIN", "N_COLOUR_BINS", "count", "count_fine", "locate",
           "share_of_background"]

#: The spectrum changes on a grid four times coarser than the rate.
N_COLOUR_BINS = 128
COLOUR_BIN = N_TIME_BINS // N_COLOUR_BINS

#: Share of a background band that falls into each channel: flat per keV inside a band.
CHANNEL_SHARE = (np.diff(CHANNEL_EDGES) / np.diff(BAND_EDGES)[BAND_OF_CHANNEL]).astype(np.float32)


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


@compiled
def share_of_background(bands, n_photons):
    """Spectrum of the known background, and the share of the photons that it accounts for.

    Parameters
    ----------
    bands : ndarray of float32, shape (n, 4)
        Counts expected from the background in the bands of `BAND_EDGES`.
    n_photons : ndarray of float32, shape (n,)

    Returns
    -------
    spectrum : ndarray of float32, shape (n, 20)
        Sums to one; flat where no background is known.
    fraction : ndarray of float32, shape (n,)
    """
    spectrum = np.empty((len(bands), N_CHANNELS), dtype=np.float32)
    fraction = np.empty(len(bands), dtype=np.float32)
    for i in range(len(bands)):
        total = 0.0
        for c in range(N_CHANNELS):
            spectrum[i, c] = max(bands[i, BAND_OF_CHANNEL[c]], 0) * CHANNEL_SHARE[c]
            total += spectrum[i, c]
        for c in range(N_CHANNELS):
            spectrum[i, c] = spectrum[i, c] / total if total > 0 else 1 / N_CHANNELS
        # A smooth stand-in for max(N - B, 0): the source never vanishes when N happens to be
        # below B.
        excess = n_photons[i] - total
        source = 0.5 * (excess + math.sqrt(excess**2 + n_photons[i] + 1))
        fraction[i] = total / (total + source)
    return spectrum, fraction
