"""The restless X-ray sources of NGC 3621, simulated: six sources in two observations each.

What the sources do follows Sacchi et al. (2024, A&A 689, A217), and for X4 Motta et al. (2020,
ApJ 898, 174): which of them faded, appeared, changed its spectrum, left an eclipse or stopped its
heartbeats. **Everything else is assumed** (`ASSUMED`): photon numbers, exposures, absorption,
spectral parameters, and all positions but those of X1 (the nucleus) and X4. No photon of these
event lists was ever observed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import _shapes, _simulate, _spectra
from ._sources import COLUMNS, Plan, SimulatedSources

__all__ = ["ASSUMED", "DISTANCE_MPC", "PUBLISHED", "ngc3621"]

#: Distance of the galaxy in Mpc.
DISTANCE_MPC = 6.64

#: What is published about each source.
PUBLISHED = {
    "X1": "the weak, absorbed active nucleus; seen in 2008, faded below detection since",
    "X2": "the brightest source; constant flux, but another spectral shape, as binaries fed by a "
          "disc show it",
    "X3": "rises out of an eclipse in the latest data: one of few eclipsing ultraluminous sources",
    "X4": "4XMM J111816.0-324910; heartbeats of about 3,500 s, steady in the latest data",
    "X5": "seen in 2008, faded below detection since",
    "X6": "new and quiet",
}

#: What is assumed for the simulation.
ASSUMED = {
    "X1": "15-40 photons, then 0-3; photon index 1.8 behind 1e23 cm-2",
    "X2": "1,200-1,600 photons in both epochs, the same energy flux; photon index 1.8, then a disc "
          "of 1.1 keV",
    "X3": "about 400 photons; constant, then eclipsed for 0.4 of the exposure with a ramp of 1 ks",
    "X4": "about 500 photons; a sawtooth that rises slowly, of fractional rms 0.3-0.5, then steady",
    "X5": "about 400 photons, then background",
    "X6": "background, then 100-200 photons",
}

_CENTRE = 169.56879, -32.81261          # the nucleus, degrees
# Offsets from the nucleus in arcsec, east and north; True where the position is published.
_PLACES = {"X1": (0.0, 0.0, True), "X2": (-16.0, 12.0, False), "X3": (25.0, -30.0, False),
           "X4": (-7.1, -24.6, True), "X5": (18.0, -9.0, False), "X6": (-34.0, 21.0, False)}
_CLASSES = {"X1": "obscured AGN", "X2": "steady ULX", "X3": "eclipsing ULX",
            "X4": "heartbeat ULX", "X5": "black-hole transient", "X6": "steady ULX"}
_STARTS = 3.2e8, 7.9e8                  # s since 1998.0: in 2008, and in 2023
_INSTRUMENT = "ACIS-S"
_NAMES = tuple(_PLACES)
_N = 2 * len(_NAMES)                    # rows: X1 to X6 in epoch 1, then X1 to X6 in epoch 2

_COLUMNS = {
    "name": "source and epoch",
    "source": "X1 to X6, as in Sacchi et al. (2024)",
    "epoch": "1 (about 2008) or 2 (the latest)",
    "class": "class that the assumed behaviour belongs to; an interpretation",
    "position_published": "False where ra and dec are only illustrative",
} | {name: COLUMNS[name] for name in (
    "instrument", "exposure", "duration", "counts", "source_counts", "background_counts", "flux",
    "photon_index", "kT", "n_h", "hardness", "fractional_variability", "period", "timescale",
    "time_shape", "periodic", "eclipsing", "soft", "absorbed", "variable", "pileup")} | {
    "ra": "right ascension", "dec": "declination"}


def ngc3621(seed):
    """Simulate six X-ray sources of the galaxy NGC 3621 in two Chandra-like observations.

    Parameters
    ----------
    seed : int
        Draws the exposure (8-40 ks, the same for all entries), photon numbers, the period and phase
        of the heartbeats, and the photons.

    Returns
    -------
    SimulatedSources
        Twelve entries: X1 to X6 in epoch 1, then X1 to X6 in epoch 2. Event lists, photons, true
        rates and truth table as of every simulated population; the columns ``source``, ``epoch``
        and ``position_published`` are its own. `PUBLISHED` and `ASSUMED` tell what of the
        behaviour is known and what is made up.

    References
    ----------
    Sacchi et al. 2024, A&A 689, A217; Motta et al. 2020, ApJ 898, 174 (arXiv:2006.05384).

    Examples
    --------
    >>> from stingray_align.datasets import ngc3621
    >>> galaxy = ngc3621(seed=1)
    >>> print(galaxy.truth["source", "epoch", "time_shape"][[3, 9]])
    source epoch time_shape
    ------ ----- ----------
        X4     1  heartbeat
        X4     2   constant
    """
    galaxy = SimulatedSources(Plan(_N, seed, _simulate_chunk), "NGC 3621", _COLUMNS)
    galaxy.truth["name"] = [f"NGC 3621 {source} epoch {epoch}"
                            for source, epoch in galaxy.truth["source", "epoch"].iterrows()]
    galaxy.truth["name"].info.description = _COLUMNS["name"]
    galaxy.truth.meta["origin"] = (
        "simulated by stingray-align after the published behaviour of the sources (Sacchi et al. "
        "2024; Motta et al. 2020); photon numbers and spectra are assumed")
    return galaxy


def _simulate_chunk(rng, size, *, photons=True):
    source = np.tile(_NAMES, 2)
    row = {f"{name}{epoch}": i + (epoch - 1) * len(_NAMES)
           for epoch in (1, 2) for i, name in enumerate(_NAMES)}
    duration = np.full(_N, rng.uniform(8e3, 4e4))
    windows = _simulate.Windows.of([np.array([[0.0, length]]) for length in duration])
    wanted = _counts(rng, row)
    background = rng.uniform(1.0, 5.0, _N)

    level = np.zeros((2, _N, _shapes.N_CELLS), dtype=np.float32)
    level[0] = 1.0
    level[0, row["X32"]] = _egress(duration[row["X32"]])
    level[0, row["X41"]], period = _heartbeats(rng, duration[row["X41"]])
    emitted, facts = _photon_spectra(row, wanted)
    instrument = np.full(_N, _simulate.NAMES.index(_INSTRUMENT))
    # The same energy flux in both epochs: a disc has more energy per photon than the power law.
    per_photon = (emitted[0] @ _simulate.ENERGY_05_7
                  / (_spectra.fold(emitted[0], instrument) @ _spectra.IN_BAND + 1e-30))
    wanted[row["X22"]] *= per_photon[row["X21"]] / per_photon[row["X22"]]
    behind = _simulate.background_spectra(instrument)
    # What has faded is background, which has no source spectrum of its own.
    gone = wanted == 0
    total = np.where(gone, background, wanted)
    spectrum, scale = _simulate.count_spectra(level, emitted, instrument, behind, windows, total,
                                              np.where(gone, 0.0, background))
    facts |= _simulate.measured(level, emitted, scale, spectrum, instrument, windows, total,
                                np.where(gone, 0.0, background))
    shape = np.full(_N, "constant", dtype="U9")
    shape[row["X32"]], shape[row["X41"]] = "eclipses", "heartbeat"
    nothing = np.full(_N, np.nan)
    facts |= {
        "source": source, "epoch": np.repeat([1, 2], len(_NAMES)), "time_shape": shape,
        "class": np.where(gone, "background only", [_CLASSES[name] for name in source]),
        "period": _with(nothing, row["X41"], period),
        "timescale": _with(nothing, row["X32"], 0.4 * duration[row["X32"]]),
        "periodic": _with(np.zeros(_N, bool), row["X41"], period < 0.5 * duration[row["X41"]]),
        "eclipsing": shape == "eclipses", "absorbed": np.nan_to_num(facts["n_h"]) >= 1.0}
    scene = _simulate.Scene(windows, level, emitted, scale, spectrum, facts)
    chunk = _simulate.observe(rng, scene, photons=photons)
    return replace(chunk, start=np.repeat(_STARTS, len(_NAMES)),
                   truth=chunk.truth | _places(source),
                   background=_annulus(rng, background, behind))


def _with(values, row, value):
    values = values.copy()
    values[row] = value
    return values


def _counts(rng, row):
    """Photons expected of each source; zero where it has faded or has not yet appeared."""
    ranges = {"X11": (15, 40), "X12": (0, 3), "X21": (1300, 1600),
              "X31": (360, 440), "X32": (360, 440), "X41": (450, 550), "X42": (450, 550),
              "X51": (360, 440), "X52": (0, 0), "X61": (0, 0), "X62": (100, 200)}
    counts = np.zeros(_N)
    for name, (low, high) in ranges.items():
        counts[row[name]] = rng.uniform(low, high)
    counts[row["X22"]] = counts[row["X21"]]
    return counts


def _egress(duration):
    """Eclipsed for 0.4 of the window but for scattered light, up within 1 ks, then flat."""
    since = (_shapes.middle(np.array([duration]))[0] - 0.4 * duration) / 1e3
    return np.clip(since, 0.02, 1.0)


def _heartbeats(rng, duration):
    """A sawtooth with a slow rise and a quick fall, whose clock wanders; and its period in s."""
    cycle = (np.arange(256) + 0.5) / 256
    saw = np.where(cycle < 0.8, cycle / 0.8, (1.0 - cycle) / 0.2) - 0.5
    rms, period = rng.uniform(0.3, 0.5), rng.uniform(3300.0, 3700.0)
    profile = 1.0 + rms * np.sqrt(12.0) * saw
    wander = tuple(np.array([x]) for x in (0.05, rng.uniform(3.0, 9.0), rng.random()))
    return _shapes.folded(profile[None], np.array([period]), np.array([duration]),
                          rng.random(1), wander)[0], period


def _photon_spectra(row, wanted):
    """Absorbed photon spectra (2, n, N_BINS) and their parameters."""
    index, kt, n_h = np.full(_N, 1.8), np.full(_N, np.nan), np.full(_N, 0.2)
    for name in ("X11", "X12"):
        n_h[row[name]] = 10.0
    for name, temperature in {"X22": 1.1, "X41": 1.2, "X42": 1.2}.items():
        index[row[name]], kt[row[name]] = np.nan, temperature
    disc = np.isfinite(kt)
    emitted = np.zeros((2, _N, _spectra.N_BINS))
    emitted[0, disc] = _spectra.disc_blackbody(kt[disc])
    emitted[0, ~disc] = _spectra.power_law(index[~disc], np.full((~disc).sum(), np.inf))
    emitted[0] *= _spectra.transmission(n_h)
    gone = wanted == 0
    emitted[:, gone] = 0.0
    return emitted, {name: np.where(gone, np.nan, values) for name, values in
                     {"photon_index": index, "kT": kt, "n_h": n_h}.items()}


def _places(source):
    east, north, published = zip(*(_PLACES[name] for name in source))
    ra, dec = _CENTRE
    return {"ra": ra + np.array(east) / 3600 / np.cos(np.radians(dec)),
            "dec": dec + np.array(north) / 3600, "position_published": np.array(published)}


def _annulus(rng, background, behind):
    """Background counts per band as estimated from a region twelve times as large."""
    expected = background[:, None] * (behind @ _simulate.BAND_OF_BIN)
    return (rng.poisson(12.0 * expected) / 12.0).astype(np.float32)
