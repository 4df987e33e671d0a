"""Counterfactuals: the same source without its flare, its eclipse, its period, or behind more gas.

The decoded rate of an embedding is changed, and the photons follow it: with
:math:`r = \\lambda' / \\lambda` the edited over the decoded rate at a photon's time and energy, a
photon stays with probability :math:`\\min(1, r)`, and where the rate was raised further photons
are drawn from :math:`\\max(0, \\lambda' - \\lambda)`. If the decoded rate is right, these are
photons of a Poisson process with the edited rate, and all photons that the edit does not concern
are the observed ones. They are embedded as any observation is. Several realisations with seeds of
their own are averaged, so that the vector depends little on which photons happened to stay.

What this cannot do: the decoded rate is taken as it is, and its errors are the edit's errors; a
column that is *taken away* shows photons that nobody has seen, as the decoder imagines them.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .._gti import as_floats, runs
from ..instruments import USUAL_INSTRUMENT
from ..photons import (BAND_OF_CHANNEL, CHANNEL_EDGES, N_CHANNELS, exposure_in_bins)
from ..rates import RateEstimate
from .batch import CHANNEL_SHARE
from .cox import cox_processes

__all__ = ["EditedEmbedding", "edited"]

_REALISATIONS = 16
_LEVEL = 0.9      # of the rate's interval that has to clear the bars below
_FLARE, _ECLIPSE = 1.5, 0.5  # times the median rate
_BRIGHTEST = 1e4  # factor on the counts of a channel that can be asked for
_PHASES = 32
_FEWEST_STEPS = 8  # cells of the decoded rate in a period that can be taken out
_SURE = 20 / 21    # least probability of a period that is removed unasked


def edited(embedding, *, remove=(), period=None, n_h=0.0, seed=0):
    """Do the work of `Embedding.edit`."""
    remove = (remove,) if isinstance(remove, str) else tuple(remove or ())
    if unknown := set(remove) - set(_REMOVERS):
        raise ValueError(f"remove={sorted(unknown)} is not known: use {', '.join(_REMOVERS)}")
    if period is not None and "period" not in remove:
        raise ValueError("a period is given but not removed: add remove='period'")
    n_h = float(as_floats(n_h, "1e22 cm-2"))
    if not np.isfinite(n_h):
        raise ValueError(f"n_h must be a finite column density, not {n_h}")
    if not remove and n_h == 0:
        raise ValueError("nothing is changed: give remove='flare', 'eclipse' or 'period', or n_h")
    if period is not None:
        period = float(as_floats(period, "s"))
    scene = _Scene(embedding)
    for name in remove:
        _REMOVERS[name](scene, period)
    if n_h:
        scene.absorb(n_h)
    return EditedEmbedding(embedding, scene.source + scene.background, tuple(scene.changes),
                           np.array(scene.intervals).reshape(-1, 2), seed)


class _Scene:
    """The decoded rate, split into source and steady background, while it is changed."""

    def __init__(self, embedding):
        self.embedding = embedding
        photons = embedding.photons
        expected = np.maximum(photons.background[0], 0)[BAND_OF_CHANNEL] * CHANNEL_SHARE
        # The decoder never lets the background take everything.
        self.background = np.minimum(expected / embedding.exposure,
                                     0.9 * embedding._rates.mean(axis=0))
        self.source = np.maximum(embedding._rates - self.background, 0)
        self.edges = embedding.bin_edges
        self.weight = exposure_in_bins(embedding.gti, self.edges)
        self.changes, self.intervals = [], []

    @property
    def curve(self):
        return self.source.sum(axis=1)

    def quiet_level(self):
        curve = self.curve
        order = np.argsort(curve)
        passed = np.cumsum(self.weight[order])
        return curve[order][np.searchsorted(passed, passed[-1] / 2)]

    def level_out(self, above):
        """Bring flares down, or eclipses up, to the median rate with the spectrum outside them."""
        level, curve = self.quiet_level(), self.curve
        middle = (self.edges[1:] + self.edges[:-1]) / 2
        lower, upper = (x.value - self.background.sum() for x in
                        self.embedding.rate_interval(middle, _LEVEL))
        beyond = (curve > level) if above else (curve < level)
        sure = (lower > _FLARE * level) if above else (upper < _ECLIPSE * level)
        sure &= self.weight > 0
        changed = np.zeros(len(curve), dtype=bool)
        for part in runs(beyond):
            if sure[part].any():
                changed[part] = True
                self.intervals.append((self.edges[part.start], self.edges[part.stop]))
        name = "flare" if above else "eclipse"
        if not changed.any():
            bar = f"above {_FLARE:g}" if above else f"below {_ECLIPSE:g}"
            raise ValueError(f"there is no {name} to remove: with a probability of {_LEVEL:.0%} "
                             f"the rate is nowhere {bar} times its median")
        outside = (self.weight * ~changed) @ self.source
        self.source[changed] = level * outside / outside.sum()
        self.changes.append(f"{name} removed")

    def flatten(self, period):
        """Divide by the mean profile of a period."""
        embedding = self.embedding
        length = embedding.stop - embedding.start
        if period is None:
            period = length / _sure_cycles(embedding.photons)
        shortest = _FEWEST_STEPS * length / len(self.source)
        if not shortest <= period <= length:
            raise ValueError(f"a period of {period:.4g} s cannot be removed: the decoded rate "
                             f"shows periods from {shortest:.3g} s to the window's {length:.4g} s")
        phase = ((self.edges[1:] + self.edges[:-1]) / 2 - embedding.start) / period % 1 * _PHASES
        cell = phase.astype(int) % _PHASES
        seconds = np.bincount(cell, self.weight, _PHASES)
        counts = np.bincount(cell, self.weight * self.curve, _PHASES)
        mean = counts.sum() / seconds.sum()
        profile = np.where(seconds > 0, counts / np.maximum(seconds, 1e-9), mean) / mean
        steps = np.arange(-1, _PHASES + 1) + 0.5
        smooth = np.interp(phase, steps, profile[np.arange(-1, _PHASES + 1) % _PHASES])
        self.source /= np.maximum(smooth, 0.02)[:, None]
        self.changes.append(f"period of {period:.4g} s removed")

    def absorb(self, n_h):
        """Put a column of neutral gas (1e22 cm-2) in front of the source, or take one away."""
        name = str(self.embedding.photons.instrument[0]) or USUAL_INSTRUMENT
        with np.errstate(over="ignore", invalid="ignore"):
            factor = _absorption(name, self.weight @ self.source, n_h)
        if not (factor < _BRIGHTEST).all():
            raise ValueError(f"without {-n_h:.3g}e22 cm-2 of gas the source would be more than "
                             f"{_BRIGHTEST:.0e} times as bright at some energies; take away less")
        self.source *= factor
        self.changes.append(f"{abs(n_h):.3g}e22 cm-2 of gas {'added' if n_h > 0 else 'removed'}")


_REMOVERS = {
    "flare": lambda scene, period: scene.level_out(above=True),
    "eclipse": lambda scene, period: scene.level_out(above=False),
    "period": lambda scene, period: scene.flatten(period),
}


def _sure_cycles(photons):
    """Cycles per window of the most probable period, if there surely is one."""
    process = next(cox_processes(photons))
    periodic = [(chance, model.cycles) for chance, model in zip(process.chance, process.models)
                if model.cycles > 0]
    if sum(chance for chance, _ in periodic) < _SURE:
        raise ValueError("no significant period was found in the photons: give one, "
                         "edit(remove='period', period=...)")
    return max(periodic)[1]


def _absorption(instrument, counts, n_h):
    """Factor on the counts in each channel, shape (20,)."""
    from ..datasets import _spectra

    area = _spectra.effective_area(instrument, _spectra.ENERGY)
    centre = np.sqrt(CHANNEL_EDGES[:-1] * CHANNEL_EDGES[1:])
    per_kev = np.maximum(counts / np.diff(CHANNEL_EDGES), 1e-6 * counts.max())
    # Photons before the mirror, near enough: the factor depends on their form inside a channel.
    photons = np.exp(np.interp(np.log(_spectra.ENERGY), np.log(centre), np.log(per_kev)))
    photons = photons / area * _spectra.WIDTH
    response = _spectra.response(instrument)
    through = np.stack([photons, photons * _spectra.transmission(np.array([n_h]))[0]]) @ response
    inside = _spectra.CHANNEL_OF_BIN >= 0
    free, behind = (np.bincount(_spectra.CHANNEL_OF_BIN[inside], x[inside], N_CHANNELS)
                    for x in through)
    return behind / free


class EditedEmbedding(RateEstimate):
    """An embedding whose decoded rate was changed; made by `Embedding.edit`.

    It can be asked and queried with as an `Embedding` is: ``catalogue.query(edited)``,
    ``catalogue.rank_of([embedding, edited], text)``, ``catalogue.interpret(edited)``.

    Attributes
    ----------
    vector : ndarray of float32, shape (n_features,)
        Mean over 16 realisations of the edited photons.
    photons : Photons
        One realisation of the edited photons.
    gti : ndarray, shape (m, 2)
    original : Embedding
        What was edited.
    changes : tuple of str
        What was changed, in words.
    intervals : ndarray, shape (n, 2)
        Absolute times (s) in which a flare or an eclipse was removed.

    Notes
    -----
    Rates and spectra have the relative uncertainty of the original's.
    """

    name = "edited rate"

    def __init__(self, original, rates, changes, intervals, seed):
        self.original, self.changes, self.intervals = original, changes, intervals
        self.model = original.model
        self._rates, self._seed = rates, seed
        self._kept = np.minimum(rates / np.maximum(original._rates, 1e-300), 1.0)
        added = np.maximum(rates - original._rates, 0)
        self._added = added * exposure_in_bins(original.gti, original.bin_edges)[:, None]
        super().__init__(self._realised(1, seed), original.gti)
        self.mjdref, self.arf_file = original.mjdref, original.arf_file

    def __repr__(self):
        return f"<EditedEmbedding: {self.original.n_photons} photons, {', '.join(self.changes)}>"

    @property
    def feature_names(self):
        """Name of each entry of `vector`."""
        return self.original.feature_names

    @property
    def feature_units(self):
        """Unit of each entry of `vector`, as a string."""
        return self.original.feature_units

    @cached_property
    def vector(self):
        from .embedding import embed_vectors

        photons = self._realised(_REALISATIONS, self._seed)
        return embed_vectors(photons, self.model).mean(axis=0)

    def parameters(self, level=0.68):
        """`Embedding.parameters` of the realisation in `photons`."""
        from .embedding import Embedding, embed_vectors

        vector = embed_vectors(self.photons, self.model)[0]
        return Embedding(self.model, self.photons, self.gti, vector).parameters(level)

    def draws(self, n=32, seed=0):
        """Feature vectors drawn from the posterior, each of a realisation of its own.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int

        Returns
        -------
        ndarray of float32, shape (n, n_features)
        """
        from .embedding import draw_vectors

        photons = self._realised(n, [self._seed, seed, 1])
        return draw_vectors(photons, 1, self.model, seed=seed)[:, 0]

    def _realised(self, n, seed):
        """``n`` realisations of the edited photons, as a set of sources."""
        rng = np.random.default_rng(seed)
        old, n_cells = self.original.photons, len(self._rates)
        cell = np.minimum((old.phase.astype(float) * n_cells).astype(int), n_cells - 1)
        stays = rng.random((n, len(cell))) < self._kept[cell, old.channel]
        owner, which = np.nonzero(stays)
        new_owner = np.repeat(np.arange(n), rng.poisson(self._added.sum(), size=n))
        total = np.cumsum(self._added)
        at = np.searchsorted(total, rng.random(len(new_owner)) * total[-1], side="right")
        new_cell, new_channel = np.divmod(np.minimum(at, total.size - 1), N_CHANNELS)
        new_phase = (new_cell + rng.random(len(new_cell))) / n_cells
        owner = np.concatenate([owner, new_owner])
        phase = np.concatenate([old.phase[which], new_phase]).astype(np.float32)
        channel = np.concatenate([old.channel[which], new_channel]).astype(np.uint8)
        order = np.lexsort((phase, owner))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])
        empty = old.select(np.zeros(len(old.phase), bool))
        return empty[np.zeros(n, dtype=int)].replace(offsets=offsets, phase=phase[order],
                                                     channel=channel[order])

    def _drawn_rates(self, n, seed, weight):
        ratio = (self._rates @ weight) / np.maximum(self.original._rates @ weight, 1e-300)
        return self.original._drawn_rates(n, seed, weight) * ratio

    def _drawn_spectra(self, n, seed):
        exposure = exposure_in_bins(self.gti, self.bin_edges)
        ratio = (exposure @ self._rates) / np.maximum(exposure @ self.original._rates, 1e-300)
        return self.original._drawn_spectra(n, seed) * ratio
