"""Photon spectra of simulated sources, vectorised over sources, folded with an instrument.

Energies live on a fixed grid of fine logarithmic bins between 0.3 and 10 keV whose edges include
all channel edges of `stingray_align.photons`, so bands and channels are sums of whole bins. A
spectrum is an array of photons per bin per cm2 per s (up to a factor) of shape ``(n, N_BINS)``.
The thermal plasma, the areas and the response are approximations made to be believable, not to
fit data with.
"""

from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from ..instruments import INSTRUMENTS, effective_area
from ..photons import CHANNEL_EDGES, N_CHANNELS

ERG_PER_KEV = 1.602177e-9
_STEPS = 10                                 # fine bins per channel
EDGES = np.concatenate(
    [np.geomspace(0.3, 0.5, 3 * _STEPS + 1)[:-1]]
    + [np.geomspace(a, b, _STEPS + 1)[:-1] for a, b in zip(CHANNEL_EDGES[:-1], CHANNEL_EDGES[1:])]
    + [np.geomspace(8.0, 10.0, _STEPS + 1)])
N_BINS = len(EDGES) - 1
WIDTH = np.diff(EDGES)
ENERGY = np.sqrt(EDGES[:-1] * EDGES[1:])
#: Channel of each fine bin, -1 outside 0.5-8 keV.
CHANNEL_OF_BIN = np.full(N_BINS, -1)
CHANNEL_OF_BIN[3 * _STEPS:3 * _STEPS + N_CHANNELS * _STEPS] = np.repeat(np.arange(N_CHANNELS),
                                                                        _STEPS)
IN_BAND = CHANNEL_OF_BIN >= 0


def in_range(low, high):
    """1 for the fine bins between two energies (keV), else 0, as float32."""
    return ((ENERGY > low) & (ENERGY < high)).astype(np.float32)


def normalised(photons):
    """Scale each spectrum to one photon in 0.5-8 keV."""
    return photons / np.maximum(photons @ IN_BAND.astype(photons.dtype), 1e-30)[:, None]


# ---- emission ---------------------------------------------------------------------------------
def power_law(photon_index, cutoff):
    """Power law with an exponential cut-off (keV; inf for none)."""
    return normalised(np.exp(-photon_index[:, None] * np.log(ENERGY)
                             - ENERGY / cutoff[:, None]) * WIDTH)


def blackbody(kt):
    """Planck photon spectrum."""
    x = np.minimum(ENERGY / kt[:, None], 600.0)
    return normalised(ENERGY**2 / np.expm1(x) * WIDTH)


def disc_blackbody(kt):
    """Multicolour disc with inner temperature ``kt`` (Mitsuda et al. 1984), as 12 rings."""
    total = 0.0
    for temperature in np.geomspace(1.0, 0.03, 12):
        # Equal logarithmic steps in T: area r dr goes as T**(-8/3) dlnT.
        x = np.minimum(ENERGY / (kt[:, None] * temperature), 600.0)
        total = total + ENERGY**2 / np.expm1(x) * temperature ** (-8.0 / 3.0)
    return normalised(total * WIDTH)


# Strongest emission blends of a thermal plasma: energy (keV), temperature of greatest emission
# (keV) and equivalent width there (keV) at solar abundance; rough values after AtomDB.
_LINES = np.array([
    (0.570, 0.18, 0.35), (0.654, 0.27, 0.45), (0.739, 0.45, 0.35), (0.826, 0.50, 0.50),
    (0.920, 0.70, 0.50), (1.022, 0.65, 0.30), (1.110, 1.10, 0.18), (1.352, 0.60, 0.12),
    (1.473, 0.90, 0.08), (1.865, 0.95, 0.28), (2.006, 1.50, 0.14), (2.450, 1.40, 0.25),
    (2.622, 2.20, 0.10), (3.120, 1.80, 0.10), (3.900, 2.20, 0.12), (6.670, 4.50, 0.80),
    (6.970, 8.00, 0.30)])


def plasma(kt, abundance):
    """Bremsstrahlung and Gaussian line blends: an approximate collisional plasma."""
    def continuum(energy):
        return np.exp(-energy / kt[:, None]) * (energy / kt[:, None]) ** -0.4 / energy

    centre, peak, width = _LINES.T
    # Emissivity of an ion falls off over about a factor of two in temperature.
    strength = (width * abundance[:, None] * continuum(centre)
                * np.exp(-0.5 * (np.log(kt[:, None] / peak) / 0.55) ** 2))
    return normalised(continuum(ENERGY) * WIDTH + strength @ _line_profiles())


@lru_cache(1)
def _line_profiles():
    return _gauss(_LINES[:, 0], 0.008 * np.sqrt(_LINES[:, 0]))


def _gauss(centre, sigma):
    return np.diff(ndtr((EDGES - centre[:, None]) / sigma[:, None]), axis=1)


@lru_cache(1)
def iron_line():
    """Neutral iron K alpha of unit photon number, shape (N_BINS,)."""
    return _gauss(np.array([6.4]), np.array([0.03]))[0]


# ---- absorption -------------------------------------------------------------------------------
# Morrison & McCammon (1983, ApJ 270, 119), table 2: lower edge of the range (keV), c0, c1, c2.
_ABSORPTION = np.array([
    (0.030, 17.3, 608.1, -2150.0), (0.100, 34.6, 267.9, -476.1), (0.284, 78.1, 18.8, 4.3),
    (0.400, 71.4, 66.8, -51.4), (0.532, 95.5, 145.8, -61.1), (0.707, 308.9, -380.6, 294.0),
    (0.867, 120.6, 169.3, -47.7), (1.303, 141.3, 146.8, -31.5), (1.840, 202.7, 104.7, -17.0),
    (2.471, 342.7, 18.7, 0.0), (3.210, 352.2, 18.7, 0.0), (4.038, 433.9, -2.4, 0.75),
    (7.111, 629.0, 30.9, 0.0), (8.331, 701.2, 25.2, 0.0)])


def cross_section(energy):
    """Photoelectric cross section per hydrogen atom in 1e-22 cm2, 0.03-10 keV."""
    row = np.searchsorted(_ABSORPTION[:, 0], energy, side="right") - 1
    c0, c1, c2 = _ABSORPTION[row, 1:].T
    return (c0 + c1 * energy + c2 * energy**2) / energy**3 * 1e-2


_SIGMA = cross_section(ENERGY)


def transmission(n_h):
    """Fraction of photons that pass a column (1e22 cm-2) of neutral gas, shape (n, N_BINS)."""
    return np.exp(-np.asarray(n_h)[:, None] * _SIGMA)


# ---- instruments ------------------------------------------------------------------------------
NAMES = tuple(INSTRUMENTS)


@lru_cache(None)
def response(name):
    """Counts per bin from photons per cm2 per bin: area times energy redistribution.

    Returns
    -------
    ndarray of float32, shape (N_BINS, N_BINS)
        Row: true energy; column: measured energy. What is measured outside 0.3-10 keV is lost.
    """
    spread = _gauss(ENERGY, INSTRUMENTS[name].fwhm(ENERGY) / 2.3548)
    return (spread * effective_area(name, ENERGY)[:, None]).astype(np.float32)


@lru_cache(None)
def background_spectrum(name):
    """Background counts per bin, one count in 0.5-8 keV: particles (nearly flat) and soft sky."""
    particles = WIDTH * (1.0 + 0.4 * np.clip((ENERGY - 6.0) / 2.0, 0.0, 1.0))
    area = effective_area(name, ENERGY)
    sky = (ENERGY**-1.4 + 3.0 * np.exp(-ENERGY / 0.2)) * WIDTH * area
    spectrum = 0.6 * particles / particles[IN_BAND].sum() + 0.4 * sky / sky[IN_BAND].sum()
    return spectrum.astype(np.float32)


def fold(photons, instrument):
    """Measured counts per s and bin for each source's own instrument (index into `NAMES`)."""
    counts = np.empty(photons.shape, dtype=np.float32)
    for number, name in enumerate(NAMES):
        rows = instrument == number
        if rows.any():
            counts[rows] = photons[rows].astype(np.float32) @ response(name)
    return counts
