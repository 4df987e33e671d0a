"""What embedding an event list gives: latent, posterior, rate, spectrum, uncertainties."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..errors import DomainShiftWarning
from ..photons import N_FINE_BINS, Photons, reduce_events
from ..rates import RateEstimate, _check_level
from .batch import COLOUR_BIN
from .descriptors import N_DESCRIPTORS
from .draws import rate_quantiles
from .inference import RUN
from .likelihood import component_rates, spectra
from .model import CHUNK, PoissonAutodecoder, cell_rates, one_thread
from .readouts import feature_names, feature_units, feature_vectors, readouts
from .refinement import SUB
from .quantities import (
    PARAMETERS, hardness_quantiles, parameter_quantiles, spectrum_at_ranks, variability_quantiles)

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
        If the instrument is not Chandra ACIS and the effective area not that of an ancillary
        response file, or if the window is shorter or longer than any the model was trained on.

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
    many = len(lists) >= 100
    reduced = [reduce_events(ev) for ev in _shown(lists, "reading photons", many)]
    if not reduced:
        return []
    photons = Photons.concatenate(p for p, _ in reduced)
    _warn_of_shift(photons)
    if single:
        with one_thread():
            inferred = model.infer(photons)
            made = [Embedding(model, photons, reduced[0][1], model.vectors(inferred)[0], inferred)]
    else:
        vectors = embed_vectors(photons, model, progress=many)
        made = [Embedding(model, p, gti, vector) for (p, gti), vector in zip(reduced, vectors)]
    for embedding, own in zip(made, lists):
        embedding.mjdref, embedding.arf_file = own.mjdref, getattr(own, "arf_file", None)
    return made[0] if single else made


def embed_vectors(photons, model=None, *, progress=False):
    """Feature vectors of many sources, the fast path for catalogues.

    As many threads share the sources as ``torch.get_num_threads()`` says.

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

    def work(first):
        part = photons if len(photons) <= CHUNK else photons[first:first + CHUNK]
        vectors[first:first + CHUNK] = model.vectors(model.infer(part))

    begins = range(0, len(photons), CHUNK)
    n_threads = min(torch.get_num_threads(), len(begins))
    # Each thread has chunks of its own: the matrices are too small to be shared.
    pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None
    try:
        with one_thread():
            done = pool.map(work, begins) if pool else map(work, begins)
            for _ in _shown(done, "embedding", progress, len(begins)):
                pass
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    return vectors


def _shown(work, what, progress, total=None):
    """With a bar if it takes more than two seconds; making one costs a tenth of a single source."""
    return tqdm(work, what, total, delay=2) if progress else work


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
    amplitude = [names.index(name) for name in ("log_counts", "log_rate")]
    with one_thread():
        for first in range(0, len(photons), CHUNK):
            rows = slice(first, first + CHUNK)
            inferred = model.infer(photons[rows])
            posterior = model.posterior(inferred, model.encode(inferred))
            described = model.describe(inferred, readouts(inferred))
            seen = inferred.batch.n_photons.numpy() + 0.5
            for k in range(n_draws):
                # Around the first guess, as the vector is: only the deviation is drawn.
                latent = inferred.latent + posterior.draw(generator) - posterior.mean
                shape = model.decode(latent, inferred.batch).moved(inferred.offset)
                vectors[rows, k] = feature_vectors(readouts(replace(inferred, shape=shape)),
                                                   latent, described)
                # Below about a hundredth of a photon the logarithm would run away.
                change = np.log10(np.maximum(rng.gamma(seen), 0.01) / seen)
                vectors[rows, k][:, amplitude] += change[:, None]
    return vectors


def _resolve(model):
    if model is None:
        return PoissonAutodecoder.pretrained()
    if isinstance(model, PoissonAutodecoder):
        return model
    if isinstance(model, (str, Path)):
        return PoissonAutodecoder.load(model)
    raise TypeError(f"model must be a PoissonAutodecoder or the path of one, not {model!r}")


def _middle_and_ends(level):
    """Probabilities of the median, and of the ends of a central interval."""
    _check_level(level)
    return [0.5, (1 - level) / 2, (1 + level) / 2]


def _warn_of_shift(photons):
    cameras = set(zip(photons.instrument.tolist(), photons.has_arf.tolist()))
    for name, has_arf in sorted(cameras):
        if name.startswith("ACIS") or name and has_arf:
            continue
        if has_arf:
            reason, advice = ("the model was not trained on the instrument, whose effective area "
                              "it knows, but not its energy resolution"), ""
        else:
            reason = (f"the instrument is {name}, not Chandra ACIS: the model knows its effective "
                      "area only as a coarse published curve" if name else "the model does not "
                      "know the instrument, whose area it takes for that of ACIS-S")
            advice = " (an ancillary response file would tell the area, arf_file=)"
        warnings.warn(f"domain shift: {reason}; colours and spectral parameters may be biased"
                      f"{advice}", DomainShiftWarning, stacklevel=3)
    low, high = TRAINED_DURATIONS
    for duration in photons.duration[(photons.duration < low) | (photons.duration > high)]:
        warnings.warn(f"domain shift: a window of {duration:.3g} s is outside the {low:.0f} s to "
                      f"{high:.0f} s that the model was trained on; timescales may mislead",
                      DomainShiftWarning, stacklevel=3)


# The C library of Linux hands memory back between two chunks, and fetching it again takes a fifth
# of their time, unless it has seen a large block come and go.
np.empty(30 << 20, dtype=np.uint8)


class Embedding(RateEstimate):
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
    inferred : `~stingray_align.autodecoder.model.Inferred`, optional
        The first pass that gave the vector, if it is at hand.

    Attributes
    ----------
    vector : ndarray of float32, shape (n_features,)
        What alignment consumes: amplitude, duration, latent of the first pass, descriptors,
        read-outs of the decoded rate and photon statistics; `feature_names` and `feature_units`
        say what each entry is.
    photons : Photons
    gti : ndarray, shape (m, 2)

    Notes
    -----
    Rates are those of all photons in the aperture, background included; the latent, the hardness
    and the decoded read-outs in `vector` describe the source above a known background. The vector
    comes from the first pass, which takes a fraction of a millisecond; everything else from the
    refined latent and rate (`stingray_align.autodecoder.refinement`), made when first asked for.
    """

    name = "decoded rate"

    def __init__(self, model, photons, gti, vector, inferred=None):
        super().__init__(photons, gti)
        self.model = model
        self.vector = vector
        if inferred is not None:
            self._inferred = inferred

    def __repr__(self):
        instrument = self.photons.instrument[0] or "unknown instrument"
        return (f"<Embedding: {self.n_photons} photons in {self.exposure:.4g} s of "
                f"{instrument}, {len(self.vector)} features>")

    @property
    def feature_names(self):
        """Name of each entry of `vector`."""
        return feature_names(self.model.n_latent)

    @property
    def feature_units(self):
        """Unit of each entry of `vector`, as a string."""
        return feature_units(self.feature_names)

    # -- passes through the model, each made once ----------------------------------------------

    @cached_property
    def _inferred(self):
        with one_thread():
            return self.model.infer(self.photons)

    @cached_property
    def _encoded(self):
        with one_thread():
            return self.model.encode(self._inferred)

    @cached_property
    def _refined(self):
        with one_thread():
            return self.model.refine(self._inferred, self._encoded)

    @cached_property
    def _quantities(self):
        with one_thread():
            return self.model.quantities(self._inferred, self._refined, self._descriptors)

    @property
    def _descriptors(self):
        return torch.from_numpy(self.vector[None, -N_DESCRIPTORS:])

    @cached_property
    def _fine(self):
        """Rate in each fine cell over that of the shape in its time bin, shape (4096,)."""
        return torch.exp(self._refined.fine)[0].double().numpy()

    @cached_property
    def _posterior(self):
        with one_thread():
            return self.model.posterior(self._inferred, self._encoded)

    # -- the posterior -------------------------------------------------------------------------

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
            They scatter around `vector` as the latent's posterior and the Gamma(N + 1/2)
            posterior of the total say. Statistics of the photons are the same in every draw.
        """
        return draw_vectors(self.photons, n, self.model, seed=seed)[0]

    def hardness(self, level=0.68):
        """Hardness ratio (H - S) / (H + S) of the source, S in 0.5-2 keV and H in 2-7 keV.

        Parameters
        ----------
        level : float
            Probability that the interval holds, between 0 and 1.

        Returns
        -------
        median, lower, upper : float
            Counts behind this instrument, a known background taken off.

        Notes
        -----
        If the background is unknown, what spectrum and times say of it is taken off, too, so that
        the ratio may differ from that of all counts by more than its error. For a source known to
        have none set ``background_soft``, ``background_medium`` and ``background_hard`` of the
        event list to 0.
        """
        return self._summary("hardness", hardness_quantiles, level)

    def fractional_variability(self, level=0.68):
        """Fractional variability of the source: rms over mean of its rate, Poisson noise taken off.

        Parameters
        ----------
        level : float
            Probability that the interval holds, between 0 and 1.

        Returns
        -------
        median, lower, upper : float
            That the rate is constant has a probability of its own, and counts as 0.001.

        Notes
        -----
        Of variability on all time scales that the decoded rate can follow: what is faster than
        some cells of 1/4096 of the window, such as the pulses of a short period, is missed.
        """
        return self._summary("fractional_variability", variability_quantiles, level)

    def parameters(self, level=0.68):
        """What the photons say of the source's physical parameters, each with its interval.

        Parameters
        ----------
        level : float
            Probability that the interval holds, between 0 and 1.

        Returns
        -------
        QTable
            ``parameter``, ``value`` (median), ``lower``, ``upper``, ``unit`` of `hardness` and
            `fractional_variability`. From a model that learned from simulated sources also of
            ``photon_index`` (of a power law), ``kT`` (of the first thermal component; keV),
            ``n_h`` (column of neutral gas; 1e22 cm-2) and ``timescale`` (decay time or length of
            events, eclipses and dips; s), each for a source that has it, by neural posterior
            estimation with mixtures of Gaussians.

        References
        ----------
        Papamakarios & Murray 2016, arXiv:1605.06376.
        """
        from astropy.table import QTable

        rows = [("hardness", *self.hardness(level), ""),
                ("fractional_variability", *self.fractional_variability(level), "")]
        if self.model.knows_parameters:
            found = parameter_quantiles(self._quantities, _middle_and_ends(level))
            rows += [(name, *map(float, found[name][0]), unit)
                     for name, unit in PARAMETERS.items()]
        table = QTable(rows=rows, names=("parameter", "value", "lower", "upper", "unit"))
        for name in ("value", "lower", "upper"):
            table[name].info.format = ".3g"
        return table

    def _summary(self, name, quantiles, level):
        levels = _middle_and_ends(level)
        if self.model.encoder:
            found = quantiles(self._quantities, levels)[0]
        else:
            found = np.quantile(self._drawn_summaries(300, 0)[name], levels)
        return tuple(map(float, found))

    def edit(self, *, remove=(), period=None, n_h=0.0, seed=0):
        """The same source without its flare, eclipse or period, or behind another column of gas.

        Parameters
        ----------
        remove : {"flare", "eclipse", "period"} or sequence of them, optional
            ``"flare"`` brings every stretch whose rate surely exceeds 1.5 times the median (90 %
            interval) down to it, with the spectrum outside; ``"eclipse"`` brings stretches surely
            below half of the median up; ``"period"`` divides by the mean profile of a period.
        period : float or Quantity, optional
            Period to remove in s; by default the most probable one, if a log-Gaussian Cox process
            finds any periodic rate to be twenty times as probable as all others together.
        n_h : float or Quantity, optional
            Column of neutral gas to put in front of the source, in 1e22 / cm2 if a number; a
            negative one is taken away. The known background is not absorbed.
        seed : int, optional
            Decides which photons stay.

        Returns
        -------
        EditedEmbedding
            A rate estimate with a vector of its own, for `AlignedCatalog.rank_of`, ``query`` and
            ``interpret``. See `stingray_align.autodecoder.editing` for how it is made.

        Raises
        ------
        ValueError
            If nothing is changed, or there is nothing of the kind to remove.

        References
        ----------
        de Jager & Büsching 2010, A&A 517, L9 (significance of H); Morrison & McCammon 1983, ApJ
        270, 119 (absorption).

        Examples
        --------
        >>> import stingray_align as sa
        >>> events = sa.datasets.simulate_population(1, seed=1, counts=(300, 400)).event_lists[0]
        >>> embedding = sa.embed(events)
        >>> behind_gas = embedding.edit(n_h=5)
        >>> bool(behind_gas.n_photons < embedding.n_photons)
        True
        """
        from .editing import edited

        return edited(self, remove=remove, period=period, n_h=n_h, seed=seed)

    # -- rate and spectrum ---------------------------------------------------------------------

    _n_bins = N_FINE_BINS  # known before the rates are

    @cached_property
    def _rates(self):
        in_bins = cell_rates(self._inferred.batch, self._refined.shape, self._quantities)
        return np.repeat(in_bins[0].double().numpy(), SUB, axis=0) * self._fine[:, None]

    def rate_interval(self, times, level=0.68, energy_range=None, *, n_draws=300, seed=0):
        """Credible interval of the rate at some times.

        Parameters
        ----------
        times : array_like or Quantity, shape (n_times,)
            Absolute times in s, on the zero of the event list; inside the window.
        level : float
            Probability that the interval holds, between 0 and 1.
        energy_range : tuple or Quantity, optional
            Lowest and highest energy in keV; 0.5 to 8 keV by default.
        n_draws, seed : int
            Draws from the posterior and their seed. Only an energy range needs them (or a model
            without encoder): the marginals of the whole band are known.

        Returns
        -------
        lower, upper : Quantity, shape (n_times,)

        Notes
        -----
        `rate` is a mean, which a few large values move: where the photons allow a peak that they
        do not ask for, it can lie above the interval of 68 %, as that of any skewed distribution.
        """
        import astropy.units as u

        if energy_range is not None or not self.model.encoder:
            return super().rate_interval(times, level, energy_range, n_draws=n_draws, seed=seed)
        _check_level(level)
        cells = self._bins_of(times)
        if not cells.size:
            return np.zeros((2, 0)) / u.s
        runs, which = np.unique(cells // (RUN * SUB), return_inverse=True)
        with one_thread():
            found = rate_quantiles(self._inferred.batch, self._refined,
                                   [(1 - level) / 2, (1 + level) / 2], runs=runs)[0]
        found = found[which * RUN + cells // SUB % RUN].double().numpy()
        low, high = np.moveaxis(found, -1, 0) * self._inside[cells]
        return low / u.s, high / u.s

    @property
    def _inside(self):
        """Rate in each fine cell over the mean of those of its time bin, shape (4096,)."""
        inside = self._fine.reshape(-1, SUB)
        return (inside / inside.mean(axis=1, keepdims=True)).ravel()

    def _draw(self, n, seed):
        """Batch, shapes and log-rates of ``n`` draws, and mean rates (n,) in ct/s."""
        with one_thread():
            drawn = self.model.drawn(self._inferred, self._refined, n,
                                     torch.Generator().manual_seed(seed))
        total = np.random.default_rng(seed).gamma(self.n_photons + 0.5, size=n)
        return *drawn, (total / self.exposure).astype(np.float32)

    def _drawn_rates(self, n, seed, weight):
        batch, shape, log_rates, mean = self._draw(n, seed)
        rates = torch.exp(log_rates[0]) * torch.from_numpy(mean)[:, None]
        if (weight != 1).any():  # spectra of all draws cost more than their rates
            weight = torch.as_tensor(weight, dtype=torch.float32) * self._recoloured(
                batch, shape, mean)
            source, background, total = component_rates(batch, shape)
            of_source = (torch.exp(shape.log_energy) @ weight[:, :, None])[:, :, 0]
            of_source = of_source.repeat_interleave(COLOUR_BIN, dim=1)
            of_both = source * of_source + background * (batch.background * weight).sum(
                dim=1, keepdim=True)
            rates = rates * of_both / total
        return np.repeat(rates.numpy(), SUB, axis=1) * self._inside.astype(np.float32)

    def _recoloured(self, batch, shape, mean):
        """Factors on the spectra of draws that spread them as the posterior says, (n, 20)."""
        latent = sum(spectra(batch, shape))
        drawn = torch.from_numpy(self._of_spectra(latent, mean)).float()
        share = drawn / drawn.sum(dim=1, keepdim=True).clamp(min=1e-9)
        return share / latent.clamp(min=1e-9)

    def _of_spectra(self, latent, mean):
        """Counts (n, 20) of draws whose shares in the channels a latent says."""
        drawn = latent.numpy() * (mean * self.exposure)[:, None]
        return spectrum_at_ranks(self._quantities, drawn) if self.model.encoder else drawn

    def _drawn_spectra(self, n, seed):
        batch, shape, _, mean = self._draw(n, seed)
        return self._of_spectra(sum(spectra(batch, shape)), mean)

    def _drawn_summaries(self, n, seed):
        """Hardness and fractional variability of draws of the latent."""
        batch, shape, _, _ = self._draw(n, seed)
        of_source, _ = spectra(batch, shape)
        soft, hard = of_source[:, :10].sum(dim=1), of_source[:, 10:19].sum(dim=1)
        weight = batch.exposed / batch.exposed.sum(dim=1, keepdim=True)
        deviation = torch.exp(shape.log_relative_rate(batch.exposed)) - 1
        rms = torch.sqrt((weight * deviation**2).sum(dim=1))
        return {"hardness": ((hard - soft) / (hard + soft)).numpy(),
                "fractional_variability": rms.numpy()}
