"""Are artefacts of the instrument found, and how often is a source mistaken for one?

Simulated photons without read-out frames are tested as they are, and after one artefact was put
into them:

- *frame time*: times rounded to a comb of 0.7 to 3 of the model's 4096 cells;
- *pile-up*: the photons of each frame counted as one of their summed energy, at half a photon per
  frame;
- *background flare*: photons with the background's spectrum in 2 to 10 % of the window, half as
  many as the source has;
- *hard background*: flat in energy, three tenths as many as the source has, and not declared;
- *good time intervals*: a tenth of the window at one border without photons.
"""

from dataclasses import dataclass, replace

import numpy as np
from tqdm.auto import tqdm

from ..artefacts import FOUND, _background_template, _tested, _Seen
from ..photons import CHANNEL_EDGES, N_CHANNELS
from ._report import Report, figures

__all__ = ["ArtefactsResult", "artefacts"]

_LEVELS = (0.01, 0.05, 0.2)


def artefacts(population, *, seed=0, progress=True):
    """Measure false alarms and detections of `stingray_align.artefacts.find_artefacts`.

    Parameters
    ----------
    population : SimulatedSources
    seed : int, optional
        Of the artefacts.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    ArtefactsResult
    """
    rng = np.random.default_rng(seed)
    names = list(_INJECTED)
    clean, spoilt = [], []
    for i in tqdm(range(len(population)), "artefacts", disable=not progress):
        seen = _seen(population, i)
        table = _tested(seen, seed)
        clean.append((list(table["p_value"]), list(table["found"])))
        own = []
        for number, name in enumerate(names):
            changed = _INJECTED[name](seen, rng)
            row = None if changed is None else _tested(changed, seed)[number]
            own.append((np.nan, np.nan) if row is None or not np.isfinite(row["p_value"])
                       else (row["p_value"], float(row["found"])))
        spoilt.append(own)
    truth = population.truth
    return ArtefactsResult(
        names=tuple(names), p_values=np.array([p for p, _ in clean]),
        found=np.array([f for _, f in clean]), injected=np.array(spoilt)[:, :, 0],
        detected=np.array(spoilt)[:, :, 1], piled=np.asarray(truth["pileup"]),
        counts=np.asarray(truth["counts"].value),
        shapes=np.asarray(truth["time_shape"]).astype(str))


def _seen(population, i):
    photons = population.photons[i]
    gti = np.asarray(population.event_lists[i].gti, float)

    class _Whole:
        vector = None

    whole = _Whole()
    whole.photons, whole.gti = photons, gti - gti[0, 0] + photons.start[0]
    return _Seen.of(whole)


# ---- artefacts ----------------------------------------------------------------------------------
def _comb(seen, rng):
    if len(seen.time) < 10 or not seen.frame:
        return None
    cell = seen.gti[-1, 1] / 4096
    # The camera's frame time is what it is: the window is made to fit it.
    stretch = seen.frame / (cell * rng.uniform(0.7, 3))
    time = (np.floor(seen.time * stretch / seen.frame) + 0.5) * seen.frame
    duration = seen.gti[-1, 1] * stretch
    time = np.minimum(time, duration * (1 - 1e-9))
    return replace(seen, time=time, phase=time / duration, gti=seen.gti * stretch)


def _piled(seen, rng):
    if not seen.frame or len(seen.time) < 20:
        return None
    # As bright as half a photon per frame in the mean.
    length = float((seen.gti[:, 1] - seen.gti[:, 0]).sum())
    stretch = len(seen.time) * seen.frame / 0.5 / length
    frame = np.floor(seen.time * stretch / seen.frame).astype(int)
    energy = _energies(seen, rng)
    _, first, member = np.unique(frame, return_index=True, return_inverse=True)
    summed = np.bincount(member, energy)
    keep = summed < CHANNEL_EDGES[-1]
    time = (frame[first] + 0.5)[keep] * seen.frame
    gti = seen.gti * stretch
    time = np.minimum(time, gti[-1, 1] * (1 - 1e-9))
    channel = np.clip(np.searchsorted(CHANNEL_EDGES, summed[keep], side="right") - 1, 0,
                      N_CHANNELS - 1)
    return replace(seen, time=time, channel=channel, gti=gti, phase=time / gti[-1, 1])


def _flared(seen, rng):
    n = len(seen.time) // 2
    if n < 10:
        return None
    number = rng.integers(len(seen.gti))
    begin, end = seen.gti[number]
    length = min(rng.uniform(0.02, 0.1) * seen.gti[-1, 1], end - begin)
    start = rng.uniform(begin, end - length)
    time = np.clip(rng.normal(start + length / 2, length / 4, n), begin, end)
    return _with(seen, time, rng.choice(N_CHANNELS, n, p=_background_template(seen)))


def _hard(seen, rng):
    n = int(0.3 * len(seen.time))
    if n < 5:
        return None
    share = np.diff(CHANNEL_EDGES) / 7.5
    length = seen.gti[:, 1] - seen.gti[:, 0]
    place = rng.choice(len(length), n, p=length / length.sum())
    time = seen.gti[place, 0] + rng.random(n) * length[place]
    return _with(seen, time, rng.choice(N_CHANNELS, n, p=share))


def _dead(seen, rng):
    border = 0.1 * seen.gti[-1, 1]
    keep = seen.time > border if rng.random() < 0.5 else seen.time < seen.gti[-1, 1] - border
    if keep.sum() < 10:
        return None
    return replace(seen, time=seen.time[keep], channel=seen.channel[keep], phase=seen.phase[keep])


_INJECTED = {"frame time": _comb, "pile-up": _piled, "background flare": _flared,
             "hard background": _hard, "good time intervals": _dead}


def _with(seen, time, channel):
    order = np.argsort(both := np.concatenate([seen.time, time]), kind="stable")
    return replace(seen, time=both[order], phase=both[order] / seen.gti[-1, 1],
                   channel=np.concatenate([seen.channel, channel])[order])


def _energies(seen, rng):
    return rng.uniform(CHANNEL_EDGES[seen.channel], CHANNEL_EDGES[seen.channel + 1])


# ---- result -------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class ArtefactsResult(Report):
    """False alarms and detections of each test.

    Attributes
    ----------
    names : tuple of str
        Of the tests.
    p_values, found : ndarray, shape (n, n_tests)
        Of the sources as simulated; nan where a test cannot be made.
    injected, detected : ndarray, shape (n, n_tests)
        p-values, and whether found, after the artefact of each test was put in.
    piled : ndarray of bool, shape (n,)
        Sources so bright that pile-up is right to be expected of the rate.
    counts : ndarray, shape (n,)
    shapes : ndarray of str, shape (n,)
        What the true light curve shows.
    """

    names: tuple
    p_values: np.ndarray
    found: np.ndarray
    injected: np.ndarray
    detected: np.ndarray
    piled: np.ndarray
    counts: np.ndarray
    shapes: np.ndarray

    title = property(lambda self: f"Artefacts: {len(self.counts)} simulated sources")
    notes = (f"p<x: share of the p-values below x without an artefact; false: share found (p < "
             f"{FOUND:g}, or a bad measure), sources left out whose rate alone says pile-up; "
             "found: with the artefact.",)

    @property
    def primary(self):
        """Mean share of the artefacts found (a float)."""
        return float(np.nanmean(self.detected))

    def to_table(self):
        """A row per test."""
        rows = []
        for number, name in enumerate(self.names):
            p = self.p_values[:, number]
            fair = np.isfinite(p) & ~(self.piled & (name == "pile-up"))
            row = [name, int(fair.sum()), *(np.mean(p[fair] < level) for level in _LEVELS),
                   np.mean(self.found[fair, number])]
            own = self.detected[:, number]
            for low, high in ((0, 100), (100, 500), (500, np.inf)):
                some = own[(self.counts >= low) & (self.counts < high)]
                some = some[np.isfinite(some)]
                row.append(some.mean() if len(some) else np.nan)
            rows.append(row)
        return figures(rows, ["test", "sources", *(f"p<{level:g}" for level in _LEVELS), "false",
                              "found <100 ct", "found 100-500", "found >500"])

    def tables(self):
        """The above, and what is mistaken for bad good time intervals."""
        rows = []
        for shape in np.unique(self.shapes):
            own = self.shapes == shape
            rows.append((shape, int(own.sum()), *self.found[own].mean(axis=0)))
        return [self.to_table(), figures(rows, ["true light curve", "sources",
                                                *(f"{name}, false" for name in self.names)])]
