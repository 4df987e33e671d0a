"""Statistics of the photons that the first guess reads."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..photons import N_CHANNELS, N_TIME_BINS
from ._compiled import compiled
from .counting import COLOUR_BIN, N_COLOUR_BINS

__all__ = ["HARD_FROM", "N_FEATURES", "SOFT_BELOW", "compress", "photon_features"]

#: Channels below and above these are the soft and hard photons of the colour series.
SOFT_BELOW, HARD_FROM = 6, 10
N_RATE_BINS, N_FREQUENCIES, N_COLOUR_SERIES, N_EXPOSURE_BINS = 128, 128, 32, 64
#: Where each of the groups begins, and how many features there are.
_RESIDUAL = N_TIME_BINS
_LOW = _RESIDUAL + N_RATE_BINS
_POWER = _LOW + 2 * N_FREQUENCIES
_CHANNELS = _POWER + N_TIME_BINS
_AREA = _CHANNELS + N_CHANNELS
_COLOURS = _AREA + N_CHANNELS
_EXPOSED = _COLOURS + 2 * N_COLOUR_SERIES
_SCALARS = _EXPOSED + N_EXPOSURE_BINS
N_FEATURES = _SCALARS + 5


def compress(x):
    """Bright sources have residuals of hundreds of sigma: compress, keep the sign."""
    return torch.asinh(x)


@compiled
def _fill(per_bin, colours, exposed, log_area, n_photons, log_duration, background_fraction,
          averaged, wave, features):
    """Write the features, not compressed yet."""
    in_channel = np.empty(N_CHANNELS, dtype=np.float32)
    for i in range(len(features)):
        row, counts, open_, n = features[i], per_bin[i], exposed[i], n_photons[i]
        total = np.float32(0)
        for j in range(N_TIME_BINS):
            row[j] = averaged[i, j]
            total += open_[j]

        here = row[_RESIDUAL:_LOW]
        for k in range(N_RATE_BINS):
            seen, expected = np.float32(0), np.float32(0)
            for j in range(4 * k, 4 * k + 4):
                seen += counts[j]
                expected += open_[j]
            expected *= n / total
            here[k] = (seen - expected) / math.sqrt(expected + 1)

        # At every half frequency, so that no period falls between two.
        here, inverse = row[_POWER:_CHANNELS], 1 / (n + 1)
        for k in range(N_TIME_BINS):
            w = wave[i, 2 * k + 2]
            here[k] = (w.real**2 + w.imag**2) * inverse
        here, inverse = row[_LOW:_POWER], 1 / math.sqrt(n + 1)
        for k in range(N_FREQUENCIES):
            shrunk = max(1 - 2 / (row[_POWER + 2 * k + 1] + 1e-6), 0.0) * inverse
            here[k] = wave[i, 4 * k + 4].real * shrunk
            here[N_FREQUENCIES + k] = wave[i, 4 * k + 4].imag * shrunk

        in_channel[:] = 0
        for k in range(N_COLOUR_BINS):
            for c in range(N_CHANNELS):
                in_channel[c] += colours[i, k, c]
        for c in range(N_CHANNELS):
            row[_CHANNELS + c] = math.sqrt(in_channel[c] / (n + 1e-6)) * 3
            row[_AREA + c] = log_area[i, c]
        _colour_series(counts, colours[i], in_channel, n, 0, SOFT_BELOW, row[_COLOURS:])
        _colour_series(counts, colours[i], in_channel, n, HARD_FROM, N_CHANNELS,
                       row[_COLOURS + N_COLOUR_SERIES:])

        width = N_TIME_BINS // N_EXPOSURE_BINS
        for k in range(N_EXPOSURE_BINS):
            mean = np.float32(0)
            for j in range(k * width, (k + 1) * width):
                mean += open_[j]
            row[_EXPOSED + k] = mean / width
        row[_SCALARS] = math.log10(n + 1) - 2
        row[_SCALARS + 1] = log_duration[i] - 4
        row[_SCALARS + 2] = background_fraction[i]
        row[_SCALARS + 3] = total / N_TIME_BINS
        row[_SCALARS + 4] = n > 0


@compiled
def _colour_series(counts, colours, in_channel, n, first, last, series):
    """Excess of some channels' photons in parts of the window over their share in all of it."""
    share = np.float32(0)
    for c in range(first, last):
        share += in_channel[c]
    share /= n + 1e-6
    bins = N_TIME_BINS // N_COLOUR_SERIES
    for k in range(N_COLOUR_SERIES):
        all_, seen = np.float32(0), np.float32(0)
        for j in range(k * bins, (k + 1) * bins):
            all_ += counts[j]
        for j in range(k * bins // COLOUR_BIN, (k + 1) * bins // COLOUR_BIN):
            for c in range(first, last):
                seen += colours[j, c]
        series[k] = (seen - share * all_) / math.sqrt(share * (1 - share) * all_ + 1)


def photon_features(batch, curves):
    """Statistics of the photons that the first guess reads.

    Parameters
    ----------
    batch : `~stingray_align.autodecoder.batch.Batch`
    curves : `~stingray_align.autodecoder.smoothing.Smoothed`

    Returns
    -------
    Tensor, shape (n, N_FEATURES)
        Kernel log-rate; Pearson residuals of the binned counts; Fourier coefficients shrunk
        towards zero where they are not above noise; log power at every half frequency; square
        root of the energy histogram; log effective area; soft and hard colour series; exposure
        mask; log counts, log duration, background fraction, exposed fraction, whether there is any
        photon.
    """
    features = np.empty((len(batch.per_bin), N_FEATURES), dtype=np.float32)
    _fill(*batch.arrays("per_bin", "colours", "exposed", "log_area", "n_photons", "log_duration",
                        "background_fraction"), curves.averaged.cpu().numpy(), batch.wave,
          features)
    for group in (features[:, _RESIDUAL:_POWER], features[:, _COLOURS:_EXPOSED]):
        np.arcsinh(group, out=group)
    power = features[:, _POWER:_CHANNELS]
    np.log1p(power, out=power)
    return torch.as_tensor(features, device=batch.per_bin.device)
