"""An estimate of the photon rate of one source over time and energy, however it was made.

The rate is piecewise constant on equal time bins (512, or a multiple of it) and on the 20 energy
channels of `stingray_align.photons`. `RateEstimate` asks of its subclasses that rate and draws
from its posterior, and offers everything that follows from them: rates and intervals at any time,
the likelihood of other photons, light curve, spectrum, simulated event lists and a plot. What
`stingray_align.embed` returns is one, and so is what every method of
`stingray_align.evaluate.rivals` returns.
"""

from __future__ import annotations

import warnings

import numpy as np

from ._gti import as_floats, pieces
from .errors import EventDataError
from .instruments import INSTRUMENTS
from .photons import BACKGROUND_ATTRIBUTES, CHANNEL_EDGES, exposure_in_bins, reduce_events

__all__ = ["RateEstimate"]


class RateEstimate:
    """Rate of all photons in the aperture over one observation, with its uncertainty.

    Parameters
    ----------
    photons : Photons
        A set of one source.
    gti : ndarray, shape (m, 2)
        Good time intervals in absolute s.

    Attributes
    ----------
    name : str
        What the estimate is called in plots.
    photons : Photons
    gti : ndarray, shape (m, 2)
    mjdref : float
        MJD from which times are counted, as in the event list.
    arf_file : str or None
        Ancillary response file, as in the event list.

    Notes
    -----
    A subclass provides ``_rates``, the rate in ct/s per time bin and channel, shape (n_bins, 20)
    in float64 with n_bins a multiple of 512; ``_drawn_rates(n, seed, weight)``, draws of
    ``_rates @ weight`` from the posterior, shape (n, n_bins), for the share of each channel
    that is wanted; and ``_drawn_spectra(n, seed)``, draws of the counts expected in each channel
    over the exposure, shape (n, 20).
    """

    name = "rate estimate"
    mjdref, arf_file = 0.0, None  # set by who knows the event list

    def __init__(self, photons, gti):
        self.photons = photons
        self.gti = gti

    def __repr__(self):
        return (f"<{self.name}: {self.n_photons} photons in {self.exposure:.4g} s of "
                f"{self.photons.instrument[0] or 'unknown instrument'}>")

    # -- the observation ---------------------------------------------------------------------

    @property
    def n_photons(self):
        """Photons of 0.5-8 keV inside the GTIs."""
        return int(self.photons.n_photons[0])

    @property
    def exposure(self):
        """Exposure in s."""
        return float(np.sum(self.gti[:, 1] - self.gti[:, 0]))

    @property
    def start(self):
        """Begin of the window in s, on the zero of the event list."""
        return float(self.photons.start[0])

    @property
    def stop(self):
        """End of the window in s, on the zero of the event list."""
        return self.start + float(self.photons.duration[0])

    @property
    def bin_edges(self):
        """Borders of the time bins on which the rate is constant, absolute s."""
        return np.linspace(self.start, self.stop, self._n_bins + 1)

    @property
    def _n_bins(self):
        return len(self._rates)

    def _bins_of(self, times):
        times = np.atleast_1d(as_floats(times, "s"))
        if not ((self.start <= times) & (times <= self.stop)).all():
            raise ValueError(
                f"times must lie in the observed window, {self.start} to {self.stop} s (the zero "
                "is that of the event list); nothing is known about other times")
        index = (times - self.start) / (self.stop - self.start) * self._n_bins
        return np.minimum(index.astype(int), self._n_bins - 1)

    # -- rate and spectrum ---------------------------------------------------------------------

    def rate(self, times, energy_range=None):
        """Expected photon rate at some times.

        Parameters
        ----------
        times : array_like or Quantity, shape (n_times,)
            Absolute times in s, on the zero of the event list; inside the window.
        energy_range : tuple or Quantity, optional
            Lowest and highest energy in keV; 0.5 to 8 keV by default.

        Returns
        -------
        Quantity, shape (n_times,)
            Rate of all photons in the aperture in 1/s.

        Raises
        ------
        ValueError
            If a time is outside the window or the energies are outside 0.5-8 keV.
        """
        import astropy.units as u

        weight = _channel_weights(energy_range)
        return (self._rates @ weight)[self._bins_of(times)] / u.s

    def rate_interval(self, times, level=0.68, energy_range=None, *, n_draws=300, seed=0):
        """Credible interval of the rate at some times.

        Parameters
        ----------
        times, energy_range
            As in `rate`.
        level : float
            Probability that the interval holds, between 0 and 1.
        n_draws : int
            Draws from the posterior.
        seed : int

        Returns
        -------
        lower, upper : Quantity, shape (n_times,)
        """
        import astropy.units as u

        _check_level(level)
        drawn = self._drawn_rates(n_draws, seed, _channel_weights(energy_range))
        low, high = np.quantile(drawn[:, self._bins_of(times)],
                                [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low / u.s, high / u.s

    def log_likelihood(self, other_events):
        """Poisson-process log-likelihood of other photons under this rate.

        Parameters
        ----------
        other_events : stingray.EventList
            Photons of the same window, with GTIs of their own.

        Returns
        -------
        float
            Sum over photons of log rate, in 1/(s keV), minus the expected number of photons in
            0.5-8 keV during the other list's GTIs.

        Raises
        ------
        stingray_align.errors.EventDataError
            If the other GTIs leave the window of this estimate.
        """
        photons, gti = reduce_events(other_events)
        slack = 1e-6 * (self.stop - self.start)
        if gti[0, 0] < self.start - slack or gti[-1, 1] > self.stop + slack:
            raise EventDataError(
                f"the other events cover {gti[0, 0]} to {gti[-1, 1]} s, this estimate only "
                f"{self.start} to {self.stop} s: apply GTIs inside that window first")
        absolute = photons.start[0] + photons.phase.astype(float) * photons.duration[0]
        bins = self._bins_of(np.clip(absolute, self.start, self.stop))
        density = self._rates / np.diff(CHANNEL_EDGES)
        exposure = exposure_in_bins(gti, self.bin_edges)
        return float(np.log(density[bins, photons.channel]).sum()
                     - (self._rates.sum(axis=1) * exposure).sum())

    def to_lightcurve(self, dt):
        """Expected light curve.

        Parameters
        ----------
        dt : float or Quantity
            Bin length in s.

        Returns
        -------
        stingray.Lightcurve
            Expected counts per bin at full exposure in 0.5-8 keV, with the 68 % interval's half
            width as Gaussian error.
        """
        from stingray import Lightcurve

        dt = float(as_floats(dt, "s"))
        if not 0 < dt <= self.stop - self.start:
            raise ValueError(f"dt must be positive and at most {self.stop - self.start:.6g} s")
        edges = self.start + dt * np.arange(int((self.stop - self.start) / dt * (1 + 1e-12)) + 1)
        borders = self.bin_edges
        width = (self.stop - self.start) / len(self._rates)

        def binned(rates, edges):  # from the running integral of the piecewise constant rate
            total = np.concatenate([[0.0], np.cumsum(rates) * width])
            return np.diff(np.interp(edges, borders, total))

        drawn, half_width = self._drawn_rates(300, 0, _channel_weights(None)), []
        for first in range(0, len(edges) - 1, 1024):  # long light curves of all draws are large
            some = [binned(rates, edges[first:first + 1025]) for rates in drawn]
            half_width.append(np.subtract(*np.quantile(some, [0.84, 0.16], axis=0)) / 2)
        with warnings.catch_warnings():
            # Said to everybody whose errors are not Poisson, as is right for a model curve.
            warnings.filterwarnings("ignore", message="SIMON says: Stingray only uses poisson")
            return Lightcurve(edges[:-1] + dt / 2, binned(self._rates.sum(axis=1), edges),
                              err=np.concatenate(half_width), dt=dt, gti=self.gti, err_dist="gauss",
                              mjdref=self.mjdref, skip_checks=True)

    def spectrum(self):
        """Counts spectrum.

        Returns
        -------
        specutils.Spectrum
            Expected counts per keV over the exposure in the 20 channels, with the posterior
            variance.
        """
        import astropy.units as u
        from astropy.nddata import VarianceUncertainty
        from specutils import Spectrum

        exposure = exposure_in_bins(self.gti, self.bin_edges)
        width = np.diff(CHANNEL_EDGES)
        drawn = self._drawn_spectra(300, 0) / width
        return Spectrum(
            flux=(exposure @ self._rates) / width * u.ct / u.keV,
            spectral_axis=CHANNEL_EDGES * u.keV, bin_specification="edges",
            uncertainty=VarianceUncertainty(drawn.var(axis=0) * (u.ct / u.keV) ** 2),
            meta={"exposure": self.exposure * u.s})

    def simulate(self, seed=None):
        """Draw an event list from the rate.

        Parameters
        ----------
        seed : int, optional
            For a reproducible draw.

        Returns
        -------
        stingray_align.EventList
            With GTIs, instrument, time zero and known background of the observation; the number
            of photons is drawn too.
        """
        from .events import EventList

        rng = np.random.default_rng(seed)
        # Every GTI is cut at the time bins, so that each piece has one rate.
        low, high = pieces(self.gti, self.bin_edges)
        expected = self._rates[self._bins_of((low + high) / 2)] * (high - low)[:, None]
        counts = rng.poisson(expected)
        piece, channel = (np.repeat(index, counts.ravel()) for index in
                          np.divmod(np.arange(counts.size), counts.shape[1]))
        time = rng.uniform(low[piece], high[piece])
        energy = rng.uniform(CHANNEL_EDGES[channel], CHANNEL_EDGES[channel + 1])
        order = np.argsort(time)
        name = str(self.photons.instrument[0])
        drawn = EventList(time[order], energy=energy[order], gti=self.gti, mjdref=self.mjdref,
                          mission=INSTRUMENTS[name].mission if name else None, instr=name or None)
        if self.photons.background.any():
            for attribute, known in zip(BACKGROUND_ATTRIBUTES, self.photons.background[0]):
                setattr(drawn, attribute, float(known) / self.exposure)
        drawn.arf_file = self.arf_file
        return drawn

    def plot(self, ax=None, *, n_bins=None):
        """Plot the binned photons with the estimated rate and its 68 % interval.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The current axes by default.
        n_bins : int, optional
            Bins of the data, a divisor of 512; about eight photons per bin by default.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from ._plotting import plot_rate

        return plot_rate(self, ax, n_bins)


def _check_level(level):
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")


def _channel_weights(energy_range):
    """Share of each channel inside an energy range, flat per keV inside a channel."""
    if energy_range is None:
        return np.ones(len(CHANNEL_EDGES) - 1)
    import astropy.units as u

    low, high = u.Quantity(energy_range, u.keV).to_value(u.keV)
    lowest, highest = CHANNEL_EDGES[[0, -1]]
    if not lowest <= low < high <= highest:
        raise ValueError(f"energy_range must rise within {lowest} to {highest} keV, "
                         f"not ({low}, {high})")
    inside = (np.minimum(CHANNEL_EDGES[1:], high) - np.maximum(CHANNEL_EDGES[:-1], low))
    return np.clip(inside / np.diff(CHANNEL_EDGES), 0, 1)
