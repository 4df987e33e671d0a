"""Light curves of the challenge: time behaviour that no class of the population has.

As in `_shapes`, every function gives the mean over each of `N_CELLS` cells, with no value at zero.
Each takes a random generator and `Windows` and returns ``curve, period, timescale``: the light
curve of shape (n, N_CELLS), of any mean, and what there is to say about it in s (nan for nothing).
"""

import numpy as np

from . import _shapes
from ._shapes import N_CELLS
from ._simulate import clock_time, log_uniform

_FLOOR = 0.01               # what is left of the light at the deepest
_EDGES = np.arange(N_CELLS + 1) / N_CELLS


def _exposed_positions(rng, windows, number):
    """Random exposed moments as fractions of the window, shape (n, number), ascending."""
    good = np.sort(rng.random((len(windows.gti), number)), axis=1) * windows.exposed[:, None]
    times = np.array([clock_time(g, gti) for g, gti in zip(good, windows.gti)])
    return times / windows.duration[:, None]


def _trapezoid(centre, width, slope):
    """Unit height for ``width``, with linear ramps of length ``slope``; fractions of the window.

    ``centre``, ``width`` and ``slope`` have shape (n,).
    """
    def ramp(since):        # integral of a ramp from 0 to 1 of length ``slope``
        since, length = np.maximum(since, 0.0), slope[:, None]
        return np.where(since < length, 0.5 * since**2 / length, since - 0.5 * length)

    begin = _EDGES - (centre - 0.5 * (width + slope))[:, None]
    return np.diff(ramp(begin) - ramp(begin - width[:, None]), axis=1) * N_CELLS


def _bump(rng, kind, centre, width, duration):
    """Single flares of unit height: "fast", "slow" (a fast one reversed) or "flat"."""
    flat = _trapezoid(centre, width, width * rng.uniform(0.05, 0.5, len(width)))
    rise, decay = 0.15 * width * duration, width * duration
    fast = _shapes.flare(duration, centre * duration, rise, decay)
    slow = _shapes.flare(duration, (1.0 - centre) * duration, rise, decay)[:, ::-1]
    return np.select([kind[:, None] == name for name in ("fast", "slow")], [fast, slow], flat)


def two_flares(rng, windows):
    """Two flares of different size, width and form on a steady level."""
    n = len(windows.duration)
    centre = rng.permuted(_exposed_positions(rng, windows, 2), axis=1)
    height = log_uniform(rng, (2.0, 50.0), n)
    curve = np.ones((n, N_CELLS))
    widths = log_uniform(rng, (0.004, 0.12), (2, n))
    for k in range(2):
        kind = rng.choice(["fast", "slow", "flat"], n)
        curve += height[:, None] * _bump(rng, kind, centre[:, k], widths[k], windows.duration)
        height = height * log_uniform(rng, (0.25, 4.0), n)
    return curve, np.full(n, np.nan), widths.min(axis=0) * windows.duration


def short_bursts(rng, windows):
    """One to eight bursts of some 10 s, with a few to a few tens of per cent of all photons."""
    n = len(windows.duration)
    number = rng.integers(1, 9, n)
    centre = rng.permuted(_exposed_positions(rng, windows, 8), axis=1)
    decay = rng.uniform(5.0, 15.0, n)
    share = rng.uniform(0.1, 0.6, n) / number
    curve = np.ones((n, N_CELLS))
    for k in range(8):
        size = share * rng.uniform(0.5, 1.5, n) * windows.exposed / decay * (k < number)
        curve += size[:, None] * _shapes.flare(windows.duration, centre[:, k] * windows.duration,
                                               np.full(n, 1.0), decay)
    return curve, np.full(n, np.nan), decay


def eclipse_and_pulsation(rng, windows):
    """Pulses of a source that is eclipsed every now and then; the period is that of the pulses."""
    n = len(windows.duration)
    orbit = windows.duration / rng.uniform(1.2, 5.0, n)
    width = rng.uniform(0.05, 0.3, n)
    eclipse = _shapes.eclipse_profile(width, rng.uniform(0.85, 0.99, n),
                                      width * rng.uniform(0.03, 0.3, n))
    period = windows.duration / log_uniform(rng, (15.0, 250.0), n)
    pulse = _shapes.pulse_profile(rng, rng.uniform(0.4, 0.95, n))
    curve = (_shapes.folded(eclipse, orbit, windows.duration, rng.random(n))
             * _shapes.folded(pulse, period, windows.duration, rng.random(n)))
    return curve, period, width * orbit


def period_change(rng, windows):
    """Pulses whose frequency grows or shrinks by up to a factor of five along the window."""
    n = len(windows.duration)
    number = log_uniform(rng, (6.0, 120.0), n)
    change = rng.uniform(0.4, 1.3, n) * rng.choice([-1.0, 1.0], n)
    cycles = number[:, None] * (_EDGES + 0.5 * change[:, None] * (_EDGES**2 - _EDGES))
    profile = _shapes.pulse_profile(rng, rng.uniform(0.4, 0.95, n))
    curve = _shapes.cycled(profile, cycles + rng.random((n, 1)))
    return curve, windows.duration / number, np.full(n, np.nan)


def quasi_periodic(rng, windows):
    """A damped oscillator driven by noise: a Lorentzian in the power spectrum of the log-rate."""
    n = len(windows.duration)
    number = log_uniform(rng, (4.0, 100.0), n)
    quality = log_uniform(rng, (2.0, 30.0), n)
    frequency = np.arange(1, N_CELLS // 4 + 1) / 2.0        # cycles per window
    detuning = (frequency - number[:, None]) * 2.0 * quality[:, None] / number[:, None]
    amplitude = (1.0 + detuning**2) ** -0.5
    curve = _shapes.log_normal_noise(rng, amplitude.astype(np.float32), rng.uniform(0.3, 0.9, n))
    return curve, windows.duration / number, quality * windows.duration / (np.pi * number)


def steps(rng, windows):
    """Sudden changes between several random levels."""
    n = len(windows.duration)
    number = rng.integers(2, 13, n)
    curve = np.empty((n, N_CELLS))
    for i in range(n):
        knots = np.concatenate([[0.0], np.sort(rng.random(number[i])), [1.0]])
        level = np.exp(rng.normal(0.0, 0.9, number[i] + 1))
        gathered = np.concatenate([[0.0], np.cumsum(level * np.diff(knots))])
        curve[i] = np.diff(np.interp(_EDGES, knots, gathered)) * N_CELLS
    return curve, np.full(n, np.nan), windows.duration / (number + 1)


def broken_trend(rng, windows):
    """Exponential rise and decline by turns, with one to three breaks."""
    n = len(windows.duration)
    number = rng.integers(1, 4, n)
    curve = np.empty((n, N_CELLS))
    middle = 0.5 * (_EDGES[1:] + _EDGES[:-1])
    for i in range(n):
        knots = np.concatenate([[0.0], np.sort(rng.uniform(0.05, 0.95, number[i])), [1.0]])
        turns = np.where(np.arange(number[i] + 2) % 2, 1.0, -1.0) * rng.choice([-1.0, 1.0])
        level = turns * rng.uniform(0.2, 1.5, number[i] + 2)
        curve[i] = np.exp(np.interp(middle, knots, level))
    return curve, np.full(n, np.nan), windows.duration / (number + 1)


def glitch_dips(rng, windows):
    """Three to twelve deep dips at irregular times, each of its own length."""
    n = len(windows.duration)
    number = rng.integers(3, 13, n)
    centre = rng.permuted(_exposed_positions(rng, windows, 12), axis=1)
    width = log_uniform(rng, (0.003, 0.04), (12, n))
    curve = np.ones((n, N_CELLS))
    for k in range(12):
        depth = rng.uniform(0.5, 0.98, n) * (k < number)
        slope = width[k] * rng.uniform(0.1, 0.6, n)
        curve *= 1.0 - depth[:, None] * _trapezoid(centre[:, k], width[k], slope)
    return curve, np.full(n, np.nan), width.mean(axis=0) * windows.duration


def constant(rng, windows):
    """Nothing happens."""
    n = len(windows.duration)
    return np.ones((n, N_CELLS)), np.full(n, np.nan), np.full(n, np.nan)


#: Time shapes by the names of the truth table.
SHAPES = {"two flares": two_flares, "short bursts": short_bursts,
          "eclipse and pulsation": eclipse_and_pulsation, "period change": period_change,
          "quasi-periodic": quasi_periodic, "steps": steps, "broken trend": broken_trend,
          "glitch dips": glitch_dips, "constant": constant}


def light_curves(rng, shape, windows):
    """Light curves of mean one of given shapes.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : ndarray of str, shape (n,)
        Keys of `SHAPES`.
    windows : Windows

    Returns
    -------
    curve : ndarray of float32, shape (n, N_CELLS)
    period, timescale : ndarray, shape (n,)
        In s, nan where there is none.
    """
    curve = np.empty((len(shape), N_CELLS), dtype=np.float32)
    period, timescale = np.empty(len(shape)), np.empty(len(shape))
    for name, draw in SHAPES.items():
        rows = np.flatnonzero(shape == name)
        if len(rows):
            curve[rows], period[rows], timescale[rows] = draw(rng, windows[rows])
    curve = np.maximum(curve, _FLOOR)
    return curve / curve.mean(axis=1, keepdims=True), period, timescale
