"""Photons of many sources as tensors, the form every network here works on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from ..photons import BAND_EDGES, BAND_OF_CHANNEL, CHANNEL_EDGES, N_CHANNELS, N_TIME_BINS

__all__ = ["Batch", "Cells", "make_batch", "N_COLOUR_BINS", "COLOUR_BIN"]

#: The spectrum changes on a grid four times coarser than the rate.
N_COLOUR_BINS = 128
COLOUR_BIN = N_TIME_BINS // N_COLOUR_BINS

#: Share of a background band that falls into each channel: flat per keV inside a band.
CHANNEL_SHARE = (np.diff(CHANNEL_EDGES) / np.diff(BAND_EDGES)[BAND_OF_CHANNEL]).astype(np.float32)


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
        occupied = (photons.source_index * N_TIME_BINS + photons.time_bin) * N_CHANNELS
        occupied += photons.channel
        counts = np.ones(len(occupied))
        if len(occupied) > 2000 * len(photons):  # bright: worth gathering photons of one cell
            counts = np.bincount(occupied)
            occupied = np.flatnonzero(counts)
            counts = counts[occupied]
        in_time, channel = np.divmod(occupied, N_CHANNELS)
        source = in_time // N_TIME_BINS
        return cls(*map(torch.from_numpy, (
            source, in_time, in_time // COLOUR_BIN * N_CHANNELS + channel,
            source * N_CHANNELS + channel, counts.astype(np.float32))))


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
    instrument : ndarray of str, shape (n,)
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
    instrument: np.ndarray

    def repeated(self, n):
        """The only source of this batch ``n`` times, without copies; its cells stay as they are."""
        copies = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in copies.items():
            if isinstance(value, torch.Tensor):
                copies[name] = value.expand(n, *value.shape[1:])
        return Batch(**copies | {"instrument": np.repeat(self.instrument, n)})


def make_batch(photons, also_counted=None):
    """Tensors of some sources.

    Parameters
    ----------
    photons : `~stingray_align.photons.Photons`
    also_counted : Cells, optional
        Cells of further photons of the same observations: where they are, there was exposure,
        even if rounding at a GTI's border says otherwise.
    """
    n = len(photons)
    cells = Cells.from_photons(photons)
    per_bin = torch.zeros(n * N_TIME_BINS).index_add_(0, cells.in_time, cells.counts)
    colours = torch.zeros(n * N_COLOUR_BINS * N_CHANNELS)
    colours.index_add_(0, cells.in_colour, cells.counts)

    exposed = torch.from_numpy(np.array(photons.exposed, dtype=np.float32)).reshape(-1)
    for counted in (cells, also_counted) if also_counted is not None else (cells,):
        exposed[counted.in_time] = exposed[counted.in_time].clamp(min=1e-3)

    bands = np.maximum(photons.background, 0)
    expected = bands[:, BAND_OF_CHANNEL] * CHANNEL_SHARE
    total = expected.sum(axis=1)
    spectrum = np.where(total[:, None] > 0, expected / np.maximum(total, 1e-30)[:, None],
                        1 / N_CHANNELS)
    # A smooth stand-in for max(N - B, 0): the source never vanishes when N happens to be below B.
    excess = photons.n_photons - total
    source = 0.5 * (excess + np.sqrt(excess**2 + photons.n_photons + 1))
    return Batch(
        cells=cells, n_photons=torch.from_numpy(photons.n_photons.astype(np.float32)),
        per_bin=per_bin.reshape(n, N_TIME_BINS),
        colours=colours.reshape(n, N_COLOUR_BINS, N_CHANNELS),
        exposed=exposed.reshape(n, N_TIME_BINS),
        background=torch.from_numpy(spectrum.astype(np.float32)),
        background_fraction=torch.from_numpy((total / (total + source)).astype(np.float32)),
        log_duration=torch.from_numpy(np.log10(photons.duration).astype(np.float32)),
        exposure=torch.from_numpy(photons.exposure.astype(np.float32)),
        instrument=photons.instrument)
