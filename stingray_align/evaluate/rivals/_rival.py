"""What all rivals have in common: a curve over time for each source, times its mean spectrum."""

from __future__ import annotations

import numpy as np

from ...photons import BAND_OF_CHANNEL, N_CHANNELS, N_TIME_BINS, Photons, reduce_events
from ...rates import RateEstimate

__all__ = ["Rival", "RivalEstimate", "bin_means", "channel_counts", "exposed_positions", "mean_one",
           "scored"]

#: Half a photon is added to each band (Jeffreys), in equal parts to the channels of the band.
_EXTRA = 0.5 / np.bincount(BAND_OF_CHANNEL)[BAND_OF_CHANNEL]


class Rival:
    """A method that turns the photons of one source into a rate, without any training.

    Parameters
    ----------
    name : str
        Printed in tables and plots.
    curves : callable
        Takes `~stingray_align.photons.Photons` and yields for each source what was found: an
        object with ``shape``, the rate over the time bins (512, or a multiple of it) in units of
        its mean over the exposure, and ``drawn(n, rng)``, draws of it from the posterior, shape
        (n, n_bins).
    estimate : type, optional
        Class of the result, a `RivalEstimate`.
    """

    def __init__(self, name, curves, estimate=None):
        self.name = name
        self.curves = curves
        self.estimate = RivalEstimate if estimate is None else estimate

    def __repr__(self):
        return f"<rival: {self.name}>"

    def __call__(self, events):
        """Estimate the rate of one source, or of each of several.

        Parameters
        ----------
        events : stingray.EventList, or sequence of them
            With GTIs and energies.

        Returns
        -------
        RivalEstimate, or list of them for a sequence

        Raises
        ------
        stingray_align.errors.EventDataError
            If an event list cannot be used; the message says why.
        """
        from stingray import EventList

        single = isinstance(events, EventList)
        lists = [events] if single else list(events)
        reduced = [reduce_events(one) for one in lists]
        if not reduced:
            return []
        curves = self.curves(Photons.concatenate(photons for photons, _ in reduced))
        made = [self.estimate(photons, gti, curve, self.name)
                for (photons, gti), curve in zip(reduced, curves, strict=True)]
        for estimate, own in zip(made, lists):
            estimate.mjdref, estimate.arf_file = own.mjdref, getattr(own, "arf_file", None)
        return made[0] if single else made

    def band_rates(self, photons):
        """Rate of many sources in the evaluation bands.

        Parameters
        ----------
        photons : Photons

        Returns
        -------
        ndarray, shape (n, n_bins, 3)
            Rate in ct/s in 0.5-1.2, 1.2-2 and 2-7 keV.
        """
        shape = np.array([curve.shape for curve in self.curves(photons)])
        mean = _by_band(channel_counts(photons) + _EXTRA) / photons.exposure[:, None]
        return shape[:, :, None] * mean[:, None]

    def drawn_band_rates(self, photons, n, seed=0):
        """Draws from the posterior of the rate, source by source.

        Parameters
        ----------
        photons : Photons
        n : int
            Draws for each source.
        seed : int

        Yields
        ------
        ndarray, shape (n, n_bins, 3)
            Rate of the next source in ct/s.
        """
        rng = np.random.default_rng(seed)
        counts = channel_counts(photons) + _EXTRA
        for curve, seen, exposure in zip(self.curves(photons), counts, photons.exposure):
            mean = _by_band(rng.gamma(seen, size=(n, N_CHANNELS))) / exposure
            yield curve.drawn(n, rng)[:, :, None] * mean[:, None]


class RivalEstimate(RateEstimate):
    """Rate of one source as a rival sees it; made by calling a `Rival`.

    The spectrum does not change with time: each channel has a Gamma posterior, whose prior holds
    half a photon for each of the four bands in equal parts for the band's channels.
    """

    def __init__(self, photons, gti, curve, name):
        super().__init__(photons, gti)
        self.name = name
        self._curve = curve
        self._seen = channel_counts(photons)[0] + _EXTRA

    @property
    def _rates(self):
        return self._curve.shape[:, None] * (self._seen / self.photons.exposure[0])

    def _drawn_rates(self, n, seed, weight):
        rng = np.random.default_rng(seed)
        mean = rng.gamma(self._seen, size=(n, N_CHANNELS)) @ weight / self.photons.exposure[0]
        return self._curve.drawn(n, rng) * mean[:, None]

    def _drawn_spectra(self, n, seed):
        return np.random.default_rng(seed).gamma(self._seen, size=(n, N_CHANNELS))


def scored(photons):
    """Only the photons of the three evaluation bands: those above 7 keV are mostly background."""
    return photons.select(BAND_OF_CHANNEL[photons.channel] < 3)


def exposed_positions(photons):
    """Place of each photon on exposed time (0 to 1), and that clock (n, 513) at the bin edges."""
    clock = np.zeros((len(photons), N_TIME_BINS + 1))
    np.cumsum(photons.exposed, axis=1, dtype=float, out=clock[:, 1:])
    clock /= np.maximum(clock[:, -1:], 1e-12)
    source, bins = photons.source_index, photons.time_bin
    left, right = clock[source, bins], clock[source, bins + 1]
    within = photons.phase.astype(float) * N_TIME_BINS - bins
    return left + (right - left) * within, clock


def bin_means(clock, knots, gathered):
    """Mean of a density over each time bin, from its integral at knots on exposed time."""
    inside = np.interp(clock, knots, gathered)
    length = np.diff(clock)
    mean = np.diff(inside) / np.where(length > 0, length, 1)
    # a bin without exposure takes the level at its place on the exposed clock
    cell = np.clip(np.searchsorted(knots, clock[:-1], side="right") - 1, 0, len(knots) - 2)
    level = np.diff(gathered) / np.diff(knots)
    return np.where(length > 1e-9, mean, level[cell])


def mean_one(curves, exposed):
    """Curves (..., n_bins) in units of their mean over the exposure."""
    return curves / (curves @ (exposed / exposed.sum()))[..., None]


def channel_counts(photons):
    """Photons of each source in each channel, shape (n, 20)."""
    cell = photons.source_index * N_CHANNELS + photons.channel
    counts = np.bincount(cell, minlength=len(photons) * N_CHANNELS)
    return counts.reshape(len(photons), N_CHANNELS)


def _by_band(channels):
    """Sums over the channels of the three evaluation bands, shape (..., 3)."""
    first = np.searchsorted(BAND_OF_CHANNEL, [0, 1, 2, 3])
    return np.add.reduceat(channels, first, axis=-1)[..., :3]
