"""Time behaviour of simulated sources on a grid of cells, vectorised over sources.

Every function returns the mean of the light curve over each cell, not its value in the middle:
periodic profiles and flares are integrated analytically. A modulation faster than a cell is
therefore averaged out (a pulsar of 0.1 s in a 50 ks window looks constant), and a burst shorter
than a cell keeps its photons but not its form.
"""

import numpy as np
from scipy.fft import irfft

N_CELLS = 4096
_PHASES = 256               # steps of a tabulated periodic profile
_GRID = (np.arange(_PHASES) + 0.5) / _PHASES


def edges(duration):
    """Cell edges in s since the start of each window, shape (n, N_CELLS + 1)."""
    return duration[:, None] * (np.arange(N_CELLS + 1) / N_CELLS)


def red_noise(rng, slope, rms):
    """Log-normal noise of mean one whose logarithm has a power-law power spectrum.

    Parameters
    ----------
    rng : numpy.random.Generator
    slope, rms : ndarray, shape (n,)
        Slope of the power spectrum, and standard deviation of the logarithm over twice the
        window; a single realisation scatters around it, as red noise does.

    Returns
    -------
    ndarray of float32, shape (n, N_CELLS)
    """
    # Modes of twice the window, so that its two ends are not tied, down to 1/512 of the window:
    # what is faster has little power and no effect on what the model sees.
    frequency = np.log(np.arange(1, N_CELLS // 4 + 1, dtype=np.float32))
    amplitude = np.exp(-0.5 * slope[:, None].astype(np.float32) * frequency)
    return log_normal_noise(rng, amplitude, rms)


def log_normal_noise(rng, amplitude, rms):
    """Log-normal noise of mean one whose logarithm has a given power spectrum.

    Parameters
    ----------
    rng : numpy.random.Generator
    amplitude : ndarray of float32, shape (n, n_modes)
        Root of the power at 1, 2, ... ``n_modes`` cycles in twice the window, up to a factor.
    rms : ndarray, shape (n,)
        Standard deviation of the logarithm.

    Returns
    -------
    ndarray of float32, shape (n, N_CELLS)
    """
    n, n_modes = amplitude.shape
    modes = np.zeros((n, N_CELLS + 1), dtype=np.complex64)
    noise = rng.standard_normal((n, 2 * n_modes), dtype=np.float32)
    modes[:, 1:n_modes + 1] = noise.view(np.complex64) * amplitude
    log_rate = irfft(modes, n=2 * N_CELLS, axis=1)[:, :N_CELLS]
    drawn = np.sqrt((amplitude**2).sum(axis=1)) / N_CELLS
    log_rate = log_rate * (rms / drawn)[:, None].astype(np.float32)
    rate = np.exp(log_rate)
    return rate / rate.mean(axis=1, keepdims=True)


def folded(profile, period, duration, phase, wander=None):
    """A periodic profile averaged over each cell.

    Parameters
    ----------
    profile : ndarray, shape (n, 256)
        One cycle, any height.
    period, duration : ndarray, shape (n,)
        In s.
    phase : ndarray, shape (n,)
        Phase at the start of the window, in cycles.
    wander : tuple of ndarray or None
        Amplitude (cycles), length (cycles) and phase of a slow wander of the clock, for
        quasi-periodic sources.

    Returns
    -------
    ndarray of float32, shape (n, N_CELLS)
    """
    cycles = edges(duration) / period[:, None] + phase[:, None]
    if wander is not None:
        size, length, start = (np.asarray(w)[:, None] for w in wander)
        cycles = cycles + size * np.sin(2 * np.pi * (cycles / length + start))
    return cycled(profile, cycles)


def cycled(profile, cycles):
    """A periodic profile averaged over each cell, for any clock.

    Parameters
    ----------
    profile : ndarray, shape (n, 256)
        One cycle, any height.
    cycles : ndarray, shape (n, N_CELLS + 1)
        Cycles passed at the cell edges, ascending.

    Returns
    -------
    ndarray of float32, shape (n, N_CELLS)
    """
    # The integral of the profile up to each edge: whole turns, then a table, then its slope.
    integral = np.zeros((len(profile), _PHASES + 1))
    np.cumsum(profile / _PHASES, axis=1, out=integral[:, 1:])
    turns = np.floor(cycles)
    position = (cycles - turns) * _PHASES
    step = np.minimum(position.astype(np.int32), _PHASES - 1)
    position -= step
    step += np.arange(len(profile), dtype=np.int32)[:, None] * (_PHASES + 1)
    total = integral.ravel()[step]
    position *= np.diff(integral, axis=1, append=0.0).ravel()[step]
    total += position
    total += turns * integral[:, -1:]
    mean_of_cell = np.diff(total, axis=1) / np.diff(cycles, axis=1)
    return np.maximum(mean_of_cell, 0.0).astype(np.float32)     # rounding may leave -1e-12


# ---- profiles of one cycle, shape (n, 256) ----------------------------------------------------
def sine_profile(amplitude):
    """1 + a cos."""
    return 1.0 + amplitude[:, None] * np.cos(2 * np.pi * _GRID)


def pulse_profile(rng, amplitude):
    """One or two rounded pulses on a steady part; ``amplitude`` is (max - min) / (max + min)."""
    n = len(amplitude)
    sharpness = rng.uniform(0.3, 4.0, (n, 1))
    second = np.where(rng.random((n, 1)) < 0.4, rng.uniform(0.2, 0.9, (n, 1)), 0.0)
    separation = rng.uniform(0.35, 0.65, (n, 1))
    pulse = (np.exp(sharpness * (np.cos(2 * np.pi * _GRID) - 1))
             + second * np.exp(sharpness * (np.cos(2 * np.pi * (_GRID - separation)) - 1)))
    low, high = pulse.min(axis=1, keepdims=True), pulse.max(axis=1, keepdims=True)
    shape = (pulse - low) / (high - low)
    a = amplitude[:, None]
    return 1.0 - a + 2.0 * a * shape


def accretion_spot_profile(rng, amplitude):
    """A bright phase while the accreting pole of a polar is in sight, then little or nothing."""
    n = len(amplitude)
    length = rng.uniform(0.4, 0.7, (n, 1))
    edge = rng.uniform(0.02, 0.08, (n, 1))
    distance = np.abs(_GRID - 0.5)
    on = 1.0 / (1.0 + np.exp(np.clip((distance - length / 2) / edge, -50, 50)))
    return 1.0 - amplitude[:, None] * (1.0 - on)


def eclipse_profile(width, depth, ingress):
    """1 outside, 1 - depth inside an eclipse of fractional width ``width`` at phase 0.5."""
    distance = np.abs(_GRID - 0.5)
    slope = np.maximum(ingress, 1.0 / _PHASES)[:, None]
    covered = np.clip((width[:, None] / 2 - distance) / slope + 0.5, 0.0, 1.0)
    return 1.0 - depth[:, None] * covered


def dip_profile(rng, width, depth):
    """Covered fraction over a cycle: a few overlapping narrow dips inside a stretch ``width``."""
    n = len(width)
    covered = np.zeros((n, _PHASES))
    for _ in range(4):
        centre = 0.5 + width[:, None] * rng.uniform(-0.4, 0.4, (n, 1))
        sigma = width[:, None] * rng.uniform(0.1, 0.3, (n, 1))
        strength = depth[:, None] * rng.uniform(0.4, 1.0, (n, 1))
        covered = 1.0 - (1.0 - covered) * (
            1.0 - strength * np.exp(-0.5 * ((_GRID - centre) / sigma) ** 2))
    return covered


def heartbeat_profile(rng, amplitude):
    """A slow rise to a sharp peak and a quick fall, as of a disc that empties and refills."""
    n = len(amplitude)
    rise = rng.uniform(0.1, 0.3, (n, 1))
    fall = rng.uniform(0.02, 0.06, (n, 1))
    peak = 0.75
    before = np.mod(peak - _GRID, 1.0)
    after = np.mod(_GRID - peak, 1.0)
    pulse = np.maximum(np.exp(-before / rise), np.exp(-after / fall))
    return 1.0 + amplitude[:, None] * pulse


def eruption_profile(width):
    """A narrow, nearly Gaussian eruption of unit height per cycle."""
    sigma = width[:, None] / 2.3548
    skew = np.where(_GRID > 0.5, 1.25, 0.8)
    return np.exp(-0.5 * ((_GRID - 0.5) / (sigma * skew)) ** 2)


# ---- single events ----------------------------------------------------------------------------
def flare(duration, start, rise, decay):
    """Unit-peak flares (1 - exp(-t/rise)) exp(-t/decay) after ``start``, averaged over cells."""
    short = 1.0 / (1.0 / rise + 1.0 / decay)
    peak_time = rise * np.log1p(decay / rise)
    peak = -np.expm1(-peak_time / rise) * np.exp(-peak_time / decay)
    since = np.maximum(edges(duration) - start[:, None], 0.0).astype(np.float32)

    def integral(scale):
        scale = scale[:, None].astype(np.float32)
        return -scale * np.expm1(-since / scale)

    total = integral(decay) - integral(short)
    cell = (duration / N_CELLS)[:, None].astype(np.float32)
    return np.maximum(np.diff(total, axis=1), 0.0) / (cell * peak[:, None].astype(np.float32))


def middle(duration):
    """Middle of each cell in s, float32, shape (n, N_CELLS)."""
    centre = ((np.arange(N_CELLS) + 0.5) / N_CELLS).astype(np.float32)
    return duration[:, None].astype(np.float32) * centre


def plateau(duration, start, length, slope):
    """A sudden rise to a plateau of unit height and a power-law decline after ``length``."""
    since = middle(duration) - start[:, None].astype(np.float32)
    length = length[:, None].astype(np.float32)
    decline = (1.0 + np.maximum(since, 0.0) / length) ** -slope[:, None].astype(np.float32)
    return np.where(since >= 0, decline, 0.0).astype(np.float32)


def trend(duration, scale, sign):
    """Exponential rise or decline with e-folding time ``scale``, one at the window's middle."""
    x = sign[:, None] * (middle(duration) - duration[:, None] / 2) / scale[:, None]
    return np.exp(np.clip(x, -8.0, 8.0)).astype(np.float32)


def state_change(duration, time, width, ratio):
    """A smooth step from one to ``ratio`` at ``time`` within ``width`` (both s)."""
    x = np.clip((middle(duration) - time[:, None]) / width[:, None], -30, 30)
    return (1.0 + (ratio[:, None] - 1.0) / (1.0 + np.exp(-x))).astype(np.float32)
