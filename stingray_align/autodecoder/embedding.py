"""What embedding an event list gives: latent, posterior, rate, spectrum, uncertainties."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..errors import DomainShiftWarning, EventDataError
from ..photons import CHANNEL_EDGES, N_TIME_BINS, Photons, exposure_in_bins, reduce_events
from .model import CHUNK, PoissonAutodecoder, cell_rates, one_thread
from .readouts import feature_names, feature_units, feature_vectors

__all__ = ["Embedding", "draw_vectors", "embed", "embed_vectors"]

#: Lengths of the window that the training population covers, in s.
TRAINED_DURATIONS = (100.0, 500e3)


def embed(events, model=None):
    """Embed event lists: infer the latent of each source from its photons.

    Parameters
    ----------
    events : stingray.EventList, or sequence of them
        Of stingray's class or `stingray_align.EventList`; with GTIs and energies.
    model : PoissonAutodecoder or path-like, optional
        The bundled model by default.

    Returns
    -------
    Embedding, or list of Embedding for a sequence

    Raises
    ------
    stingray_align.errors.EventDataError
        If an event list cannot be used; the message says why.

    Warns
    -----
    stingray_align.errors.DomainShiftWarning
        If the instrument is not Chandra ACIS, or the window is shorter or longer than any the
        model was trained on.

    Examples
    --------
    >>> import stingray_align as sa
    >>> events, _, _ = sa.datasets.simulate_population(2, seed=1, instruments=["ACIS-S"])
    >>> embeddings = sa.embed(events)
    >>> embeddings[0].latent.shape
    (96,)
    """
    from stingray import EventList

    model = _resolve(model)
    single = isinstance(events, EventList)
    lists = [events] if single else list(events)
    reduced = [reduce_events(ev) for ev in tqdm(lists, "reading photons", delay=2,
                                                disable=len(lists) < 100)]
    if not reduced:
        return []
    photons = Photons.concatenate(p for p, _ in reduced)
    _warn_of_shift(photons)
    vectors = embed_vectors(photons, model, progress=len(lists) >= 100)
    made = [Embedding(model, p, gti, vector)
            for (p, gti), vector in zip(reduced, vectors)]
    return made[0] if single else made


def embed_vectors(photons, model=None, *, progress=False):
    """Feature vectors of many sources, the fast path for catalogues.

    Parameters
    ----------
    photons : Photons
    model : PoissonAutodecoder or path-like, optional
        The bundled model by default.
    progress : bool
        Show a progress bar if the work takes more than two seconds.

    Returns
    -------
    ndarray of float32, shape (n, n_features)
        See `Embedding.feature_names`.
    """
    model = _resolve(model)
    vectors = np.empty((len(photons), len(feature_names(model.n_latent))), dtype=np.float32)
    with one_thread():
        for first in tqdm(range(0, len(photons), CHUNK), "embedding", delay=2,
                          disable=not progress):
            part = photons[first:first + CHUNK]
            vectors[first:first + CHUNK] = feature_vectors(model.infer(part))
    return vectors


def draw_vectors(photons, n_draws, model=None, *, seed=0):
    """Feature vectors of many sources, drawn from their posteriors: `Embedding.draws` in batches.

    Parameters
    ----------
    photons : Photons
    n_draws : int
        Draws for each source.
    model : PoissonAutodecoder or path-like, optional
        The bundled model by default.
    seed : int

    Returns
    -------
    ndarray of float32, shape (n, n_draws, n_features)
    """
    model = _resolve(model)
    names = feature_names(model.n_latent)
    vectors = np.empty((len(photons), n_draws, len(names)), dtype=np.float32)
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    with one_thread():
        for first in range(0, len(photons), CHUNK):
            inferred = model.infer(photons[first:first + CHUNK])
            posterior = model.posterior(inferred)
            for k in range(n_draws):
                vectors[first:first + CHUNK, k] = _vectors_at(
                    model, inferred, posterior.draw(generator), rng)
    return vectors


def _vectors_at(model, inferred, latent, rng):
    """Feature vectors at drawn latents, the total drawn from its Gamma(N + 1/2) posterior too."""
    shape = model.decode(latent).moved(inferred.offset)
    vectors = feature_vectors(inferred._replace(latent=latent, shape=shape))
    seen = inferred.batch.n_photons.numpy() + 0.5
    # Below about a hundredth of a photon the logarithm would run away.
    change = np.log10(np.maximum(rng.gamma(seen), 0.01) / seen)
    for name in ("log_counts", "log_rate"):
        vectors[:, feature_names(model.n_latent).index(name)] += change
    return vectors


def _resolve(model):
    if model is None:
        return PoissonAutodecoder.pretrained()
    if isinstance(model, PoissonAutodecoder):
        return model
    if isinstance(model, (str, Path)):
        return PoissonAutodecoder.load(model)
    raise TypeError(f"model must be a PoissonAutodecoder or the path of one, not {model!r}")


def _warn_of_shift(photons):
    for name in sorted(set(photons.instrument)):
        if name.startswith("ACIS"):
            continue
        reason = ("its effective area is not known to the model, which takes it for ACIS-S"
                  if name == "" else
                  "the model knows its effective area only as a coarse published curve")
        warnings.warn(f"domain shift: the instrument is {name or 'unknown'}, not Chandra ACIS: "
                      f"{reason}; colours and spectral parameters may be biased",
                      DomainShiftWarning, stacklevel=3)
    low, high = TRAINED_DURATIONS
    for duration in photons.duration[(photons.duration < low) | (photons.duration > high)]:
        warnings.warn(f"domain shift: a window of {duration:.3g} s is outside the {low:.0f} s to "
                      f"{high:.0f} s that the model was trained on; timescales may mislead",
                      DomainShiftWarning, stacklevel=3)


class Embedding:
    """Latent of one source with its posterior, and the photon rate it decodes to.

    Made by `stingray_align.embed`.

    Parameters
    ----------
    model : PoissonAutodecoder
    photons : Photons
        A set of one source.
    gti : ndarray, shape (m, 2)
        Good time intervals in absolute s.
    vector : ndarray of float32, shape (n_features,)

    Attributes
    ----------
    vector : ndarray of float32, shape (n_features,)
        What alignment consumes: amplitude, duration, latent, read-outs of the decoded rate and
        photon statistics; `feature_names` and `feature_units` say what each entry is.
    photons : Photons
    gti : ndarray, shape (m, 2)

    Notes
    -----
    Rates are those of all photons in the aperture, background included; the latent and the
    decoded read-outs in `vector` describe the source above a known background. The rate is the one
    that the latent decodes to, mixed bin by bin with kernel estimates of the photons (see
    `stingray_align.autodecoder.inference`); draws from the posterior move the first part. It is
    used as the posterior mean, since averaging over draws predicts held-out photons less well.
    """

    def __init__(self, model, photons, gti, vector):
        self.model = model
        self.photons = photons
        self.gti = gti
        self.vector = vector

    def __repr__(self):
        instrument = self.photons.instrument[0] or "unknown instrument"
        return (f"<Embedding: {self.n_photons} photons in {self.exposure:.4g} s of "
                f"{instrument}, {len(self.vector)} features>")

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
    def _edges(self):
        return np.linspace(self.start, self.stop, N_TIME_BINS + 1)

    # -- the posterior -------------------------------------------------------------------------

    @property
    def feature_names(self):
        """Name of each entry of `vector`."""
        return feature_names(self.model.n_latent)

    @property
    def feature_units(self):
        """Unit of each entry of `vector`, as a string."""
        return feature_units(self.feature_names)

    @cached_property
    def _inferred(self):
        with one_thread():
            return self.model.infer(self.photons)

    @cached_property
    def _posterior(self):
        with one_thread():
            return self.model.posterior(self._inferred)

    @property
    def latent(self):
        """Posterior mean of the latent, shape (n_latent,)."""
        return self._posterior.mean[0].numpy()

    @property
    def covariance(self):
        """Posterior covariance of the latent, shape (n_latent, n_latent)."""
        return self._posterior.covariance()[0].double().numpy()

    def draws(self, n=32, seed=0):
        """Feature vectors drawn from the posterior.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int

        Returns
        -------
        ndarray of float32, shape (n, n_features)
            The entries that are statistics of the photons are the same in every draw, the total
            excepted, which is drawn from its Gamma(N + 1/2) posterior.
        """
        with one_thread():
            inferred = self._inferred._replace(batch=self._inferred.batch.repeated(n))
            return _vectors_at(self.model, inferred, self._drawn_latents(n, seed),
                               np.random.default_rng(seed))

    def _drawn_latents(self, n, seed):
        many = type(self._posterior)(*(x.expand(n, *x.shape[1:]) for x in self._posterior))
        return many.draw(torch.Generator().manual_seed(seed))

    # -- rate and spectrum ---------------------------------------------------------------------

    @cached_property
    def _cells(self):
        """Expected total rate (512, 20) in ct/s."""
        return cell_rates(self._inferred)[0].double().numpy()

    def _drawn_cells(self, n, seed):
        """Rates (n, 512, 20) in ct/s drawn from the posterior."""
        with one_thread():
            shape = self.model.decode(self._drawn_latents(n, seed)).moved(self._inferred.offset)
            batch = self._inferred.batch.repeated(n)
            cells = cell_rates(self._inferred._replace(batch=batch, shape=shape)).numpy()
        total = np.random.default_rng(seed).gamma(self.n_photons + 0.5, size=n)
        return cells * (total / (self.n_photons + 0.5)).astype(np.float32)[:, None, None]

    def _bins_of(self, times):
        times = np.atleast_1d(_seconds(times))
        if times.size and (times.min() < self.start or times.max() > self.stop):
            raise ValueError(
                f"times must lie in the observed window, {self.start} to {self.stop} s (the zero "
                "is that of the event list); the embedding knows nothing about other times")
        index = (times - self.start) / (self.stop - self.start) * N_TIME_BINS
        return np.minimum(index.astype(int), N_TIME_BINS - 1)

    def rate(self, times, energy_range=None):
        """Expected photon rate at some times.

        Parameters
        ----------
        times : array_like or Quantity, shape (n_times,)
            Absolute times in s, on the zero of the event list; inside the window.
        energy_range : tuple or Quantity, optional
            Lowest and highest energy in keV; the model's 0.5 to 8 keV by default.

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
        return (self._cells @ weight)[self._bins_of(times)] / u.s

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

        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, not {level}")
        drawn = (self._drawn_cells(n_draws, seed) @ _channel_weights(energy_range))
        low, high = np.quantile(drawn[:, self._bins_of(times)],
                                [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low / u.s, high / u.s

    def log_likelihood(self, other_events):
        """Poisson-process log-likelihood of other photons under this embedding's rate.

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
            If the other GTIs leave the window of this embedding.
        """
        photons, gti = reduce_events(other_events)
        slack = 1e-6 * (self.stop - self.start)
        if gti[0, 0] < self.start - slack or gti[-1, 1] > self.stop + slack:
            raise EventDataError(
                f"the other events cover {gti[0, 0]} to {gti[-1, 1]} s, this embedding only "
                f"{self.start} to {self.stop} s: apply GTIs inside that window first")
        absolute = photons.start[0] + photons.phase.astype(float) * photons.duration[0]
        bins = self._bins_of(np.clip(absolute, self.start, self.stop))
        density = self._cells / np.diff(CHANNEL_EDGES)
        exposure = exposure_in_bins(gti, self._edges)
        return float(np.log(density[bins, photons.channel]).sum()
                     - (self._cells.sum(axis=1) * exposure).sum())

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

        dt = float(_seconds(dt))
        if not 0 < dt <= self.stop - self.start:
            raise ValueError(f"dt must be positive and at most {self.stop - self.start:.6g} s")
        edges = self.start + dt * np.arange(int((self.stop - self.start) / dt * (1 + 1e-12)) + 1)

        def binned(rates):  # from the running integral of the piecewise constant rate
            width = (self.stop - self.start) / N_TIME_BINS
            total = np.concatenate([[0.0], np.cumsum(rates) * width])
            return np.diff(np.interp(edges, self._edges, total))

        drawn = np.array([binned(r) for r in self._drawn_cells(300, 0).sum(axis=2)])
        low, high = np.quantile(drawn, [0.16, 0.84], axis=0)
        with warnings.catch_warnings():
            # Said to everybody whose errors are not Poisson, as is right for a model curve.
            warnings.filterwarnings("ignore", message="SIMON says: Stingray only uses poisson")
            return Lightcurve(edges[:-1] + dt / 2, binned(self._cells.sum(axis=1)),
                              err=(high - low) / 2, dt=dt, gti=self.gti, err_dist="gauss",
                              skip_checks=True)

    def spectrum(self):
        """Decoded counts spectrum.

        Returns
        -------
        specutils.Spectrum
            Expected counts per keV over the exposure in the model's 20 channels, with the
            posterior variance.
        """
        import astropy.units as u
        from astropy.nddata import VarianceUncertainty
        from specutils import Spectrum

        exposure = exposure_in_bins(self.gti, self._edges)
        width = np.diff(CHANNEL_EDGES)
        drawn = np.einsum("nte,t->ne", self._drawn_cells(300, 0), exposure) / width
        return Spectrum(
            flux=(exposure @ self._cells) / width * u.ct / u.keV,
            spectral_axis=CHANNEL_EDGES * u.keV, bin_specification="edges",
            uncertainty=VarianceUncertainty(drawn.var(axis=0) * (u.ct / u.keV) ** 2),
            meta={"exposure": self.exposure * u.s})

    def simulate(self, seed=None):
        """Draw an event list from the decoded rate.

        Parameters
        ----------
        seed : int, optional
            For a reproducible draw.

        Returns
        -------
        stingray_align.EventList
            With the GTIs of the observation; the number of photons is drawn too.
        """
        from ..events import EventList

        rng = np.random.default_rng(seed)
        edges = self._edges
        # Every GTI is cut at the time bins, so that each piece has one rate.
        cuts = np.unique(np.concatenate([edges, self.gti.ravel()]))
        middle = (cuts[1:] + cuts[:-1]) / 2
        inside = np.searchsorted(self.gti.ravel(), middle, side="right") % 2 == 1
        low, high = cuts[:-1][inside], cuts[1:][inside]
        expected = self._cells[self._bins_of(middle[inside])] * (high - low)[:, None]
        drawn = rng.poisson(expected)
        piece, channel = (np.repeat(index, drawn.ravel()) for index in
                          np.divmod(np.arange(drawn.size), drawn.shape[1]))
        time = rng.uniform(low[piece], high[piece])
        energy = rng.uniform(CHANNEL_EDGES[channel], CHANNEL_EDGES[channel + 1])
        order = np.argsort(time)
        # Canonical names carry the mission's own: the embedding of a draw is not a new domain.
        return EventList(time[order], energy=energy[order], gti=self.gti,
                         instr=self.photons.instrument[0] or None)

    def plot(self, ax=None, *, n_bins=None):
        """Plot the binned photons with the decoded rate and its 68 % interval.

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
        from .plotting import plot_rate

        return plot_rate(self, ax, n_bins)


def _seconds(times):
    import astropy.units as u

    return np.asarray(times.to_value(u.s) if isinstance(times, u.Quantity) else times, dtype=float)


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
