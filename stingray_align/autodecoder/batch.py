"""Photons of many sources as tensors, the form every network here works on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from scipy import fft

from ..photons import N_CHANNELS, N_FINE_BINS, N_TIME_BINS, Photons
from .counting import (CHANNEL_SHARE, COLOUR_BIN, N_COLOUR_BINS, count, count_fine, locate,
                       share_of_background)

__all__ = ["Batch", "CHANNEL_SHARE", "COLOUR_BIN", "Cells", "N_COLOUR_BINS", "fine_counts",
           "make_batch"]


@dataclass
class Cells:
    """The occupied cells of time and energy of a set of sources; most cells are empty.

    A cell may be named more than once, each time with some of its photons.

    Attributes
    ----------
    source, in_time, in_colour, in_channel : Tensor of int64, shape (n_cells,)
        Which source, and flat indices into (n, 512), (n, 128, 20) and (n, 20).
    counts : Tensor, shape (n_cells,)
        Photons in the cell.
    """

    source: torch.Tensor
    in_time: torch.Tensor
    in_colour: torch.Tensor
    in_channel: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def from_photons(cls, photons):
        return cls(*map(torch.as_tensor, _occupied(photons)))


def _occupied(photons):
    """The arrays that make up `Cells`."""
    cells = locate(photons.offsets, photons.phase, photons.channel)
    counts = np.ones(cells.shape[1], dtype=np.float32)
    if len(counts) > 2000 * len(photons):  # bright: worth gathering photons of one cell
        gathered = np.bincount(cells[1] * N_CHANNELS + cells[3] % N_CHANNELS)
        in_time, channel = np.divmod(np.flatnonzero(gathered), N_CHANNELS)
        source = in_time // N_TIME_BINS
        cells = (source, in_time, in_time // COLOUR_BIN * N_CHANNELS + channel,
                 source * N_CHANNELS + channel)
        counts = gathered[gathered > 0].astype(np.float32)
    return *cells, counts


@dataclass
class Batch:
    """Tensors of ``n`` sources.

    Attributes
    ----------
    cells : Cells
    n_photons : Tensor, shape (n,)
    per_bin : Tensor, shape (n, 512)
        Counts per time bin.
    colours : Tensor, shape (n, 128, 20)
        Counts per channel on the coarser grid.
    exposed : Tensor, shape (n, 512)
        Exposed fraction of each bin; positive wherever there are counts.
    background : Tensor, shape (n, 20)
        Spectrum of the known background, summing to one (flat where none is known).
    background_fraction : Tensor, shape (n,)
        Estimated share of the photons that the known background accounts for.
    log_duration : Tensor, shape (n,)
        log10 of the window's length in s.
    exposure : Tensor, shape (n,)
        In s.
    log_area : Tensor, shape (n, 20)
        Log of the instrument's effective area in each channel over its mean.
    photons : `~stingray_align.photons.Photons`
        What this was made of.
    """

    cells: Cells
    n_photons: torch.Tensor
    per_bin: torch.Tensor
    colours: torch.Tensor
    exposed: torch.Tensor
    background: torch.Tensor
    background_fraction: torch.Tensor
    log_duration: torch.Tensor
    exposure: torch.Tensor
    log_area: torch.Tensor
    photons: Photons

    @property
    def wholly_exposed(self):
        """Fine cells of time bins that are exposed throughout, bool Tensor (n, 4096).

        Where in the other bins their exposure lies is not known, so the place of a photon inside
        of them tells nothing of the source.
        """
        return (self.exposed > 0.999).repeat_interleave(N_FINE_BINS // N_TIME_BINS, dim=1)

    @cached_property
    def per_cell(self):
        """Counts in the fine cells, Tensor (n, 4096)."""
        return fine_counts(self.photons)

    def arrays(self, *names):
        """Some of the attributes as ndarrays."""
        return [getattr(self, name).cpu().numpy() for name in names]

    @cached_property
    def expected(self):
        """Counts per time bin of a constant source, ndarray (n, 512)."""
        n_photons, exposed = self.arrays("n_photons", "exposed")
        return exposed * (n_photons / exposed.sum(axis=1))[:, None]

    @cached_property
    def wave(self):
        """Fourier transform of what the counts differ from those, complex ndarray (n, 1025).

        From 0 to 256 cycles per window in steps of a quarter.
        """
        return fft.rfft(self.per_bin.cpu().numpy() - self.expected, n=4 * N_TIME_BINS)

    def repeated(self, n):
        """Each source ``n`` times in a row; the cells stay as they are."""
        return self._rows(lambda x: x.repeat_interleave(n, dim=0))

    def every(self, n):
        """Every ``n``-th source: undoes `repeated`."""
        return self._rows(lambda x: x[::n])

    def _rows(self, change):
        return replace(self, **{f.name: change(value) for f in fields(self)
                                if isinstance(value := getattr(self, f.name), torch.Tensor)})


def fine_counts(photons):
    """Photons in each of the 4096 fine cells of the window, Tensor (n, 4096)."""
    return torch.as_tensor(count_fine(photons.offsets, photons.phase))


def make_batch(photons, also_counted=None):
    """Tensors of some sources.

    Parameters
    ----------
    photons : `~stingray_align.photons.Photons`
    also_counted : Cells, optional
        Cells of further photons of the same observations: where they are, there was exposure,
        even if rounding at a GTI's border says otherwise.
    """
    occupied = _, in_time, in_colour, _, counts = _occupied(photons)
    exposed = np.array(photons.exposed, dtype=np.float32)
    per_bin, colours = count(in_time, in_colour, counts, exposed)
    if also_counted is not None:
        there = also_counted.in_time.cpu().numpy()
        exposed.reshape(-1)[there] = np.maximum(exposed.reshape(-1)[there], 1e-3)

    n_photons = photons.n_photons.astype(np.float32)
    background, fraction = share_of_background(photons.background, n_photons)
    exposure = photons.exposure.astype(np.float32)
    log_duration = np.log10(photons.duration).astype(np.float32)
    area = photons.area
    log_area = np.log(area / area.mean(axis=1, keepdims=True)).astype(np.float32)
    return Batch(Cells(*map(torch.as_tensor, occupied)), *map(torch.as_tensor, (
        n_photons, per_bin, colours, exposed, background, fraction, log_duration, exposure,
        log_area)), photons=photons)
