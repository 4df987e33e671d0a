"""A second, harder population, unlike the one that models are trained on.

A model that is good on more of what it was trained on may have learned that population rather than
how photons come. Sources of the challenge have time shapes (`SHAPES`), spectra (`SPECTRA`), gap
patterns (`GAPS`) and backgrounds (`BACKGROUNDS`) that `simulate_population` never draws. They
stand for no physical classes. What is approximate there is approximate here too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from . import _shapes, _simulate, _spectra
from ._challenge_shapes import SHAPES, light_curves
from ._simulate import log_uniform
from ._sources import COLUMNS, Plan, SimulatedSources

__all__ = ["BACKGROUNDS", "GAPS", "SHAPES", "SPECTRA", "simulate_challenge"]

#: How the window is observed.
GAPS = ("none", "snapshots", "two visits", "belt passages", "dropouts")

#: Background: as usual, with flares of its own, or with an estimate that is wrong by a factor of
#: 1.4 to 3. Its spectrum is tilted against the usual one.
BACKGROUNDS = {"steady": 0.6, "flaring": 0.2, "mis-estimated": 0.2}

_OWN_COLUMNS = {
    "time_shape": "what the true light curve shows in this window; \"flaring background\" where "
                  "that alone moves the rate by 3 % rms or more",
    "spectrum": "kind of spectrum",
    "gaps": "kind of gaps in the window",
    "background": "kind of background",
    "period": "period at the middle of the window",
    "timescale": "length or decay time of events, steps and dips; damping time of oscillations",
}
_COLUMNS = {name: COLUMNS[name] for name in (
    "name", "instrument", "exposure", "duration", "counts", "source_counts", "background_counts",
    "flux", "photon_index", "kT", "n_h", "hardness", "fractional_variability", "soft", "absorbed",
    "variable", "pileup", "ra", "dec")} | _OWN_COLUMNS


def simulate_challenge(n, seed, *, counts="bright"):
    """Simulate observations of sources unlike those that models are trained on.

    Parameters
    ----------
    n, seed : int
        As in `simulate_population`.
    counts : {"bright", "csc", "training"} or (low, high)
        As in `simulate_population`.

    Returns
    -------
    SimulatedSources
        The columns ``time_shape``, ``spectrum``, ``gaps`` and ``background`` of its truth table
        say what is unusual.

    Raises
    ------
    ValueError
        If the distribution of the counts is not known.

    Examples
    --------
    >>> from stingray_align.datasets import simulate_challenge
    >>> challenge = simulate_challenge(20, seed=1)
    >>> len(challenge), "period change" in challenge.truth["time_shape"]
    (20, True)
    """
    _simulate.check_counts(counts)
    return SimulatedSources(Plan(n, seed, partial(_simulate_chunk, counts=counts)),
                            f"CHALLENGE-{seed}", _COLUMNS)


def _simulate_chunk(rng, size, *, counts, photons=True):
    shape = rng.choice(list(SHAPES), size)
    gaps = rng.choice(GAPS, size)
    kind = rng.choice(list(BACKGROUNDS), size, p=list(BACKGROUNDS.values()))
    instrument = rng.integers(len(_simulate.NAMES), size=size)
    total = _simulate.draw_counts(rng, counts, size)
    windows = _windows(rng, shape, gaps, total / _simulate.MAXIMUM_RATE[instrument])

    curve, period, timescale = light_curves(rng, shape, windows)
    level = np.stack([*_shared_out(rng, _with_noise(rng, shape, curve)),
                      _background_flares(rng, kind == "flaring", windows)])
    spectrum, emitted, facts = _photon_spectra(rng, size)
    background = total * log_uniform(rng, (0.01, 0.85), size)
    source = total - background
    counted, scale = _simulate.count_spectra(level, emitted, instrument,
                                             _tilted_background(rng, instrument), windows, source,
                                             background)
    facts |= _simulate.measured(level, emitted, scale, counted, instrument, windows, source,
                                background)
    shape[facts["fractional_variability"] < 0.03] = "constant"
    share = background / total * _rms(level[2], windows)
    shape[(shape == "constant") & (share >= 0.03)] = "flaring background"
    facts |= {"time_shape": shape, "spectrum": spectrum, "gaps": gaps, "background": kind,
              "period": period, "timescale": timescale,
              "absorbed": np.nan_to_num(facts["n_h"]) >= 1.0}
    chunk = _simulate.observe(rng, _simulate.Scene(windows, level, emitted, scale, counted, facts),
                              photons=photons)
    wrong = log_uniform(rng, (1.4, 3.0), size) ** rng.choice([-1.0, 1.0], size)
    wrong = np.where(kind == "mis-estimated", wrong, 1.0).astype(np.float32)
    return replace(chunk, background=chunk.background * wrong[:, None])


# ---- windows ----------------------------------------------------------------------------------
def _windows(rng, shape, gaps, least):
    n = len(shape)
    # Bursts of some 10 s would be lost in the cells of a longer window.
    longest = np.where(shape == "short bursts", 5e4, 4e5)
    duration = np.maximum(log_uniform(rng, (3e3, longest), n), least)
    patterns = {"none": _no_gaps, "snapshots": _snapshots, "two visits": _two_visits,
                "belt passages": _belt_passages, "dropouts": _dropouts}
    return _simulate.Windows.of([patterns[kind](rng) * length
                                 for kind, length in zip(gaps, duration)])


def _no_gaps(rng):
    return np.array([[0.0, 1.0]])


def _between(*borders):
    return np.concatenate([[0.0], *borders, [1.0]]).reshape(-1, 2)


def _snapshots(rng):
    """Six to forty short looks at irregular times, about a tenth to a half of the window."""
    number = rng.integers(6, 41)
    good = rng.dirichlet(np.full(number, 2.0)) * rng.uniform(0.1, 0.5)
    wait = rng.dirichlet(np.ones(number - 1)) * (1.0 - good.sum())
    borders = np.cumsum(np.ravel(np.column_stack([good[:-1], wait])))
    return _between(borders)


def _two_visits(rng):
    """Two visits, a long time apart."""
    return _between(np.cumsum([rng.uniform(0.02, 0.3), rng.uniform(0.4, 0.65)]))


def _belt_passages(rng):
    """A piece lost once per orbit, longer and longer and then shorter, as of radiation belts."""
    number = rng.integers(4, 25)
    orbit = 1.0 / number
    lost = orbit * 0.6 * np.sin(np.pi * (np.arange(number) + 0.5) / number) ** 2
    begin = orbit * (np.arange(number) + rng.uniform(0.1, 0.3))
    keep = lost > 0.05 * orbit
    return _between(np.column_stack([begin, begin + lost])[keep].ravel())


def _dropouts(rng):
    """Ten to sixty short losses at random."""
    number = rng.integers(10, 61)
    good = rng.dirichlet(np.ones(number + 1)) * 0.85
    lost = rng.dirichlet(np.ones(number)) * 0.15
    return _between(np.cumsum(np.ravel(np.column_stack([good[:-1], lost]))))


# ---- how the components vary ------------------------------------------------------------------
def _with_noise(rng, shape, curve):
    """Red noise on half of the sources that are not constant."""
    noisy = np.flatnonzero((shape != "constant") & (rng.random(len(shape)) < 0.5))
    curve[noisy] *= _shapes.red_noise(rng, rng.uniform(1.0, 2.0, len(noisy)),
                                      log_uniform(rng, (0.03, 0.3), len(noisy)))
    return curve


def _shared_out(rng, curve):
    """Light curves of two components: half of the time, one takes less part than the other."""
    part = np.ones((2, len(curve), 1), dtype=np.float32)
    uneven = np.flatnonzero(rng.random(len(curve)) < 0.5)
    part[rng.integers(2, size=len(uneven)), uneven, 0] = rng.random(len(uneven))
    return 1.0 + (curve - 1.0) * part


def _background_flares(rng, flaring, windows):
    """Background of mean one in the exposed time, with one to four flares where it has any."""
    level = np.ones((len(flaring), _shapes.N_CELLS), dtype=np.float32)
    rows = np.flatnonzero(flaring)
    duration = windows.duration[rows]
    for _ in range(4):
        size = log_uniform(rng, (2.0, 40.0), len(rows)) * (rng.random(len(rows)) < 0.6)
        rise, decay = (log_uniform(rng, limits, len(rows)) * duration
                       for limits in ((0.003, 0.05), (0.01, 0.1)))
        begin = rng.uniform(-0.05, 1.0, len(rows)) * duration
        level[rows] += size[:, None] * _shapes.flare(duration, begin, rise, decay)
    mean = np.einsum("nt,nt->n", level, windows.exposure) / windows.exposed
    return level / mean[:, None].astype(np.float32)


def _rms(level, windows):
    """Standard deviation of levels of mean one in the exposed time."""
    return np.sqrt(np.einsum("nt,nt,nt->n", level - 1.0, level - 1.0, windows.exposure)
                   / windows.exposed)


def _tilted_background(rng, instrument):
    tilt = rng.uniform(-0.7, 0.7, (len(instrument), 1))
    spectrum = _simulate.background_spectra(instrument) * _spectra.ENERGY**tilt
    return _spectra.normalised(spectrum.astype(np.float32))


# ---- spectra ----------------------------------------------------------------------------------
def _gas(column):
    return _spectra.transmission(column)


def _power_law(index):
    return _spectra.power_law(index, np.full(len(index), np.inf))


def _two_temperatures(rng, n):
    """A cool and a hot plasma, of any abundance."""
    kt, column = log_uniform(rng, (0.15, 0.7), n), log_uniform(rng, (0.01, 3.0), n)
    cool = _spectra.plasma(kt, log_uniform(rng, (0.1, 8.0), n))
    hot = _spectra.plasma(log_uniform(rng, (2.0, 15.0), n), log_uniform(rng, (0.1, 8.0), n))
    mix = log_uniform(rng, (0.2, 5.0), n)[:, None]
    return cool * _gas(column), mix * hot * _gas(column), {"kT": kt, "n_h": column}


def _partial_covering(rng, n):
    """A power law, most of it behind a column that leaves a part of the source free."""
    index, column = rng.uniform(1.2, 2.8, n), log_uniform(rng, (1.0, 30.0), n)
    bare = _power_law(index) * _gas(log_uniform(rng, (0.02, 0.3), n))
    covered = rng.uniform(0.3, 0.97, n)[:, None]
    return ((1.0 - covered) * bare, covered * bare * _gas(column),
            {"photon_index": index, "n_h": column})


def _soft_excess(rng, n):
    """A soft blackbody below a power law harder than that of any quasar."""
    kt, index = log_uniform(rng, (0.06, 0.25), n), rng.uniform(0.5, 1.4, n)
    column, mix = log_uniform(rng, (0.01, 0.5), n), log_uniform(rng, (0.3, 6.0), n)[:, None]
    return (mix * _spectra.blackbody(kt) * _gas(column), _power_law(index) * _gas(column),
            {"kT": kt, "photon_index": index, "n_h": column})


def _strong_line(rng, n):
    """A flat, buried continuum and an iron line of 1 to 3 keV equivalent width."""
    index, column = rng.uniform(-0.5, 1.2, n), log_uniform(rng, (3.0, 60.0), n)
    flat = _power_law(index)
    at_line = np.searchsorted(_spectra.EDGES, 6.4) - 1
    width = rng.uniform(1.0, 3.0, n) * flat[:, at_line] / _spectra.WIDTH[at_line]
    # What is scattered into the line of sight passes no gas but ours.
    scattered = log_uniform(rng, (0.003, 0.1), n)[:, None] * flat
    line = width[:, None] * _spectra.iron_line()
    return ((flat + line) * _gas(column), scattered * _gas(np.full(n, 0.05)),
            {"photon_index": index, "n_h": column})


def _steep(rng, n):
    """A power law steeper than that of any class but magnetars, with little absorption."""
    index, column = rng.uniform(3.0, 5.5, n), log_uniform(rng, (0.01, 1.5), n)
    photons = _power_law(index) * _gas(column)
    hard = 1.0 / (1.0 + (1.0 / _spectra.ENERGY) ** 3)
    return photons * (1.0 - hard), photons * hard, {"photon_index": index, "n_h": column}


#: Spectra by the names of the truth table.
SPECTRA = {"two temperatures": _two_temperatures, "partial covering": _partial_covering,
           "soft excess": _soft_excess, "strong line": _strong_line, "steep": _steep}


def _photon_spectra(rng, n):
    """Kinds, absorbed photon spectra of two components (2, n, N_BINS), and their parameters."""
    kind = rng.choice(list(SPECTRA), n)
    emitted = np.empty((2, n, _spectra.N_BINS))
    facts = {name: np.full(n, np.nan) for name in ("photon_index", "kT", "n_h")}
    for name, draw in SPECTRA.items():
        rows = np.flatnonzero(kind == name)
        emitted[0, rows], emitted[1, rows], own = draw(rng, len(rows))
        for key, values in own.items():
            facts[key][rows] = values
    return kind, emitted, facts
