"""Small sets of sources that several test files start from."""

import numpy as np
import torch
from astropy.io import fits

from stingray_align.autodecoder.batch import Cells
from stingray_align.photons import N_CHANNELS, N_TIME_BINS, Photons


def sources(n=24, seed=0, n_photons=(0, 400), background=False, instrument="ACIS-S"):
    """Sinusoids with a gap in every third window."""
    rng = np.random.default_rng(seed)
    count = rng.integers(*n_photons, n)
    offsets = np.concatenate([[0], np.cumsum(count)])
    phase = rng.random(offsets[-1])
    of = np.repeat(np.arange(n), count)
    wave = 1 + 0.9 * np.sin(2 * np.pi * (3 * phase + of / n))
    phase = np.where(rng.random(len(phase)) < wave / 1.9, phase, rng.random(len(phase)))
    exposed = np.ones((n, N_TIME_BINS), dtype=np.float32)
    exposed[::3, 100:200] = 0
    keep = exposed[of, np.minimum((phase * N_TIME_BINS).astype(int), N_TIME_BINS - 1)] > 0
    whole = Photons(
        offsets, phase.astype(np.float32), rng.integers(0, 20, offsets[-1]).astype(np.uint8),
        np.zeros(n), np.full(n, 2e4), exposed,
        (rng.uniform(0, 20, (n, 4)) * background).astype(np.float32), np.full(n, instrument))
    return whole.select(keep)


def every_cell(n):
    """Each cell of time and energy of ``n`` sources once, as `Cells`."""
    flat = torch.arange(n * N_TIME_BINS * N_CHANNELS)
    in_time, channel = flat // N_CHANNELS, flat % N_CHANNELS
    source = in_time // N_TIME_BINS
    return Cells(source, in_time, in_time // 4 * N_CHANNELS + channel,
                 source * N_CHANNELS + channel, torch.ones(len(flat)))


def write_arf(path, area, energies=None, **header):
    """An ancillary response file with an area (cm2), a function of energy in keV."""
    edges = np.linspace(0.2, 10, 981) if energies is None else energies
    hdu = fits.BinTableHDU.from_columns([
        fits.Column("ENERG_LO", "E", unit="keV", array=edges[:-1]),
        fits.Column("ENERG_HI", "E", unit="keV", array=edges[1:]),
        fits.Column("SPECRESP", "E", unit="cm**2",
                    array=np.broadcast_to(area((edges[:-1] + edges[1:]) / 2), len(edges) - 1)),
    ], name="SPECRESP")
    hdu.header.update(header)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return path
