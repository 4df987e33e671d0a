"""The public model: fit, save, load, and the passes from photons to latent and rate."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from .._files import BUNDLED, read_tensors, write_tensors
from ..errors import ModelFileError
from ..photons import N_CHANNELS, N_FINE_BINS, N_TIME_BINS
from .batch import COLOUR_BIN, Batch, make_batch
from .decoder import Decoder, Shape
from .describing import Describer, energies
from .descriptors import N_DESCRIPTORS, descriptors
from .draws import band_share, drawn_log_rates, mean_rate_quantiles, rate_quantiles
from .experts import Experts, gather_evidence, on_fine, split
from .inference import FirstPass, LocalMixture, Smoothed, smoothed
from .layers import settle
from .likelihood import total_log_rate
from .pulsations import pulsations
from .quantities import (
    PARAMETERS, Quantities, hardness_quantiles, mean_spectrum, measured, parameter_quantiles,
    spectrum_quantiles, variability_quantiles)
from .readouts import feature_vectors, readouts
from .refinement import SUB, Refined, Refinement, Spread
from .spectrum import spectrum_with_rate

__all__ = ["CHUNK", "Inferred", "PoissonAutodecoder", "cell_rates", "one_thread"]

#: Raised whenever the networks or their inputs change meaning.
VERSION = 7

#: Sources worked on at once: the weights are read once for all, and the rest fits into the cache.
CHUNK = 256

BANDS = ((0, 6), (6, 10), (10, 19))  # channels of 0.5-1.2, 1.2-2 and 2-7 keV


@contextmanager
def one_thread():
    """Small matrices are slower on several threads: use one, and restore the setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Inferred:
    """What the first pass over a batch finds.

    Attributes
    ----------
    batch : `~stingray_align.autodecoder.batch.Batch`
    curves : `~stingray_align.autodecoder.smoothing.Smoothed`
    latent : Tensor, shape (n, n_latent)
    hidden : Tensor, shape (n, n_hidden)
        What the networks remember of the photons, for the refinement.
    guessed : Tensor, shape (n, n_descriptors)
        Raw descriptors as the first pass guesses them, see
        `stingray_align.autodecoder.descriptors`.
    shape : `~stingray_align.autodecoder.decoder.Shape`
        Shape of the rate.
    offset : Tensor, shape (n, 512)
        How far the log-rate lies from the one that the latent alone decodes to.
    """

    batch: Batch
    curves: Smoothed
    latent: torch.Tensor
    hidden: torch.Tensor
    guessed: torch.Tensor
    decoded: Shape
    shape: Shape
    offset: torch.Tensor


class PoissonAutodecoder:
    """A neural field of the photon rate with one latent per source.

    Parameters
    ----------
    n_latent : int
        Entries of the latent.
    n_hidden : int
        Width of the networks.
    n_rank : int
        Rank of the correlated part of the posterior covariance.
    encoder : bool
        Whether networks find latent, refined rate and intervals from the photons. Without, each
        latent is optimised, as in the original autodecoder (`stingray_align.autodecoder.latents`).
    n_steps, n_refinement_steps, n_posterior_steps : int
        Optimiser steps for decoder and first pass (a tenth as many for its mixture of curves, and
        four fifths for the descriptors); for the refinement (and ten elevenths of them again, with
        eight times the sources and a lower rate); for the intervals, again for the covariance of
        the latent, six times as many for the weights of the experts, and four times as many for
        hardness ratio, variability, parameters and spectrum. Without encoder there are only the
        first.
    batch_size : int
        Sources per step.
    learning_rate : float
        Peak of the warm-up and cosine schedule of AdamW.
    latent_penalty, latent_noise : float
        Weight of :math:`|z|^2` in the loss, and spread of the noise added to :math:`z`. Without
        encoder those of `stingray_align.autodecoder.latents.train_decoder` are used.
    seed : int
        Seeds the initial weights, the order of the sources and the thinning.

    Attributes
    ----------
    networks_ : torch.nn.ModuleDict
        ``decoder`` and, with an encoder, ``first_pass``, ``mixture``, ``refinement``,
        ``spread``, ``experts``, ``describer`` and ``quantities``; present after `fit` or `load`.
    curve_ : list of dict
        Steps, training loss and gain on held-out sources, as printed during `fit`.
    training_ : dict
        What the model was trained on; written into the file by `save`.

    References
    ----------
    Song et al. 2025, arXiv:2502.01627 (Poisson-process autodecoder).

    Examples
    --------
    >>> import stingray_align as sa
    >>> model = sa.PoissonAutodecoder.pretrained()
    >>> model.n_latent
    96
    """

    def __init__(self, *, n_latent=96, n_hidden=512, n_rank=24, encoder=True, n_steps=20_000,
                 n_refinement_steps=11_000, n_posterior_steps=1_500, batch_size=128,
                 learning_rate=1.5e-3, latent_penalty=6e-4, latent_noise=0.03, seed=0):
        self.n_latent = n_latent
        self.n_hidden = n_hidden
        self.n_rank = n_rank
        self.encoder = encoder
        self.n_steps = n_steps
        self.n_refinement_steps = n_refinement_steps
        self.n_posterior_steps = n_posterior_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.latent_penalty = latent_penalty
        self.latent_noise = latent_noise
        self.seed = seed

    _PARAMETERS = ("n_latent", "n_hidden", "n_rank", "encoder", "n_steps", "n_refinement_steps",
                   "n_posterior_steps", "batch_size", "learning_rate", "latent_penalty",
                   "latent_noise", "seed")

    def get_params(self):
        """The constructor's parameters as a dict."""
        return {name: getattr(self, name) for name in self._PARAMETERS}

    def __repr__(self):
        state = "fitted" if hasattr(self, "networks_") else "not fitted"
        return f"<PoissonAutodecoder: {self.n_latent} latent entries, {state}>"

    def _build(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            networks = nn.ModuleDict({"decoder": Decoder(self.n_latent, self.n_hidden)})
            if self.encoder:
                networks["first_pass"] = FirstPass(self.n_latent, self.n_hidden)
                networks["mixture"] = LocalMixture(self.n_hidden)
                networks["refinement"] = Refinement(self.n_latent, self.n_hidden)
                networks["spread"] = Spread(self.n_latent, self.n_hidden, self.n_rank)
                networks["experts"] = Experts(self.n_hidden)
                networks["describer"] = Describer(self.n_hidden)
                networks["quantities"] = Quantities()
            return networks

    # -- training, saving, loading -----------------------------------------------------------

    def fit(self, event_lists, *, checkpoint=None, progress=True, device=None):
        """Train on sources, by random thinning of each source's photons.

        Parameters
        ----------
        event_lists : sequence of stingray.EventList, Photons, or SimulatedStream
            One entry per source. A `~stingray_align.datasets.stream.SimulatedStream` knows the
            truth of its sources, which are then scored by it.
        checkpoint : path-like, optional
            File that holds the state of the training every few minutes, with the training curve
            beside it (``.curve.ecsv``). If it exists, and was written with the same parameters
            and sources in the same order, training goes on from there.
        progress : bool
            Print the training curve and show a progress bar.
        device : {None, "cpu", "cuda"}
            The GPU, if there is one, by default.

        Returns
        -------
        PoissonAutodecoder
            ``self``.
        """
        from .training import fit_model

        fit_model(self, event_lists, checkpoint, progress, device)
        return self

    def save(self, path):
        """Write the model as safetensors, weights in half precision, atomically."""
        self._require_fitted()
        halves = {name: tensor.half().contiguous().numpy()
                  for name, tensor in self.networks_.state_dict().items()}
        write_tensors(path, halves, kind="autodecoder", version=VERSION, about={
            "parameters": self.get_params(), "curve": self.curve_, "training": self.training_})

    @classmethod
    def load(cls, path):
        """Read a model that `save` wrote.

        Raises
        ------
        stingray_align.errors.ModelFileError
            If the file is damaged, is no model, or was written by another version.
        """
        tensors, about = read_tensors(path, kind="autodecoder", version=VERSION)
        try:
            if not all(np.isfinite(array).all() for array in tensors.values()):
                raise ValueError("some weights are no numbers")
            model = cls(**about["parameters"])
            model.networks_ = model._build()
            model.networks_.load_state_dict(
                {name: torch.from_numpy(array).float() for name, array in tensors.items()})
            model.curve_, model.training_ = about["curve"], about["training"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"{path} does not hold the model that its header promises; make "
                                 "it again with PoissonAutodecoder.save") from error
        model.networks_.eval()
        settle(model.networks_)
        return model

    @classmethod
    def pretrained(cls, name=None):
        """The model that comes with the package, read once per session.

        Parameters
        ----------
        name : str, optional
            Name of a bundled model; the only one is "autodecoder".

        Raises
        ------
        stingray_align.errors.ModelFileError
            If no bundled model has that name.
        """
        return _bundled(name or "autodecoder")

    @property
    def fingerprint(self):
        """SHA-256 of the weights as `save` writes them: vectors of equal models can be compared."""
        self._require_fitted()
        if self._fingerprint is None or self._fingerprint[0] is not self.networks_:
            digest = hashlib.sha256()
            for name, tensor in self.networks_.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.half().cpu().contiguous().numpy().tobytes())
            self._fingerprint = self.networks_, digest.hexdigest()
        return self._fingerprint[1]

    _fingerprint = None

    def _require_fitted(self):
        if not hasattr(self, "networks_"):
            raise ModelFileError("this PoissonAutodecoder has no weights yet: call fit(), or use "
                                 "PoissonAutodecoder.load(path) or .pretrained()")

    @property
    def knows_parameters(self):
        """Whether it learned physical parameters: from simulated sources, whose truth is known."""
        return self.encoder and getattr(self, "training_", {}).get("population") == "simulated"

    # -- passes --------------------------------------------------------------------------------

    @torch.inference_mode()
    def infer(self, photons):
        """First pass over a moderate number of sources: latent, descriptors, and rate.

        Parameters
        ----------
        photons : Photons

        Returns
        -------
        Inferred
        """
        self._require_fitted()
        batch = make_batch(photons)
        curves = smoothed(batch.per_bin, batch.exposed)
        if not self.encoder:
            latent = self._optimised(photons)
            shape = self.networks_["decoder"](latent, batch.log_area)
            nothing = torch.zeros(len(latent), N_DESCRIPTORS)
            return Inferred(batch, curves, latent, latent, nothing, shape, shape, 0.0)
        latent, hidden, guessed = self.networks_["first_pass"](batch, curves)
        decoded = self.networks_["decoder"](latent, batch.log_area)
        offset = self.networks_["mixture"].offset(decoded, batch.exposed, hidden, curves)
        return Inferred(batch, curves, latent, hidden, guessed, decoded, decoded.moved(offset),
                        offset)

    @torch.inference_mode()
    def describe(self, inferred, found):
        """Descriptors, with the read-outs ``found`` in view, shape (n, N_DESCRIPTORS)."""
        if not self.encoder:
            return descriptors(inferred.guessed)
        return descriptors(self.networks_["describer"](
            inferred.hidden, energies(inferred.batch), torch.from_numpy(found)))

    def vectors(self, inferred):
        """Feature vectors of what `infer` found, ndarray (n, n_features), see `readouts`."""
        found = readouts(inferred)
        return feature_vectors(found, inferred.latent, self.describe(inferred, found))

    def _optimised(self, photons):
        from .latents import optimise_latents

        with torch.inference_mode(False):
            return optimise_latents(self.networks_["decoder"], photons,
                                    start=torch.zeros(self.n_latent))

    @torch.inference_mode()
    def encode(self, inferred):
        """Refined latent, see `stingray_align.autodecoder.refinement`.

        Parameters
        ----------
        inferred : Inferred

        Returns
        -------
        Refined
            Its rate is that of the networks alone.
        """
        if not self.encoder:
            return Refined(inferred.latent, inferred.hidden, inferred.shape, inferred.shape)
        return self.networks_["refinement"](inferred.batch, inferred.curves, inferred.latent,
                                            inferred.hidden, self.networks_["decoder"],
                                            inferred.decoded)

    @torch.inference_mode()
    def refine(self, inferred, encoded=None):
        """Refined latent, rate and intervals, see `stingray_align.autodecoder.experts`.

        Parameters
        ----------
        inferred : Inferred
        encoded : Refined, optional
            What `encode` found of it, if it was called before.

        Returns
        -------
        Refined
        """
        batch, refined = inferred.batch, encoded or self.encode(inferred)
        if not self.encoder:
            even = torch.zeros(len(refined.latent), N_FINE_BINS)
            pulsed = torch.log(pulsations(batch, refined.shape, even))
            # In the shape, so that draws, which are moved as far as it was, pulsate too.
            shape, fine = split(on_fine(total_log_rate(refined.shape, batch)) + pulsed,
                                refined.shape, batch)
            return refined._replace(shape=shape, fine=fine)
        shape, evidence = gather_evidence(inferred, refined, self.networks_["refinement"])
        log_rate, intervals = self.networks_["experts"](evidence)
        shape, fine = split(log_rate, shape, batch)
        return refined._replace(shape=spectrum_with_rate(shape, fine, batch), fine=fine,
                                log_rate_intervals=intervals)

    @torch.inference_mode()
    def quantities(self, inferred, refined, descriptors=None):
        """Posteriors of hardness ratio, variability, parameters and spectrum.

        Parameters
        ----------
        inferred : Inferred
        refined : Refined
        descriptors : Tensor, shape (n, N_DESCRIPTORS), optional
            What `describe` found, if it was called before.

        Returns
        -------
        `~stingray_align.autodecoder.quantities.Posteriors`, or None
            None from a model without encoder.
        """
        if not self.encoder:
            return None
        if descriptors is None:
            descriptors = self.describe(inferred, readouts(inferred))
        return self.networks_["quantities"](measured(inferred.batch, refined, descriptors))

    @torch.inference_mode()
    def posterior(self, inferred, refined):
        """Gaussian posterior of the latent, a `~stingray_align.autodecoder.refinement.Posterior`.
        """
        if not self.encoder:
            from .laplace import laplace

            with torch.inference_mode(False):
                return laplace(self.networks_["decoder"], refined.latent, inferred.batch)
        return self.networks_["spread"](refined, inferred.batch)

    @torch.inference_mode()
    def decode(self, latent, batch):
        """Shape of the rate for latents (n, n_latent) behind the instruments of a batch."""
        self._require_fitted()
        latent = torch.as_tensor(latent, dtype=torch.float32)
        return self.networks_["decoder"](latent, batch.log_area)

    # -- rates and uncertainties of many sources -----------------------------------------------

    def _chunks(self, photons, size=CHUNK):
        self._require_fitted()
        with one_thread():
            for first in range(0, len(photons), size):
                inferred = self.infer(photons[first:first + size])
                yield slice(first, first + size), inferred

    def first_pass_rates(self, photons):
        """Expected rate of each source in the three CSC bands, by the first pass alone.

        Parameters
        ----------
        photons : Photons

        Returns
        -------
        ndarray of float32, shape (n, 512, 3)
            ct/s in 0.5-1.2, 1.2-2 and 2-7 keV, source and background together, in each time bin
            (in gaps what the model expects there).
        """
        rates = np.empty((len(photons), N_TIME_BINS, len(BANDS)), dtype=np.float32)
        for rows, inferred in self._chunks(photons):
            rates[rows] = _in_bands(cell_rates(inferred.batch, inferred.shape))
        return rates

    def band_rates(self, photons):
        """Expected rate of each source in the three CSC bands, refined.

        Parameters
        ----------
        photons : Photons

        Returns
        -------
        ndarray of float32, shape (n, 4096, 3)
            ct/s in 0.5-1.2, 1.2-2 and 2-7 keV, source and background together, in each fine cell
            of the window (in gaps what the model expects there).
        """
        rates = np.empty((len(photons), N_FINE_BINS, len(BANDS)), dtype=np.float32)
        for rows, inferred in self._chunks(photons):
            refined = self.refine(inferred)
            posteriors = self.quantities(inferred, refined)
            in_bins = _in_bands(cell_rates(inferred.batch, refined.shape, posteriors))
            fine = torch.exp(refined.fine).numpy()
            rates[rows] = np.repeat(in_bins, SUB, axis=1) * fine[:, :, None]
        return rates

    def quantiles(self, photons, levels):
        """Quantiles of the posterior of rate, mean rate, hardness ratio, variability and spectrum.

        Parameters
        ----------
        photons : Photons
        levels : array_like, shape (n_levels,)
            Probabilities between 0 and 1, rising.

        Returns
        -------
        dict of ndarray
            ``rate`` (n, 512, n_levels): rate in 0.5-7 keV of source and background, ct/s, at a
            random time of each time bin; ``mean_rate`` (n, n_levels): mean rate in 0.5-8 keV of
            source and background, ct/s; ``hardness`` (n, n_levels): hardness ratio
            (H - S) / (H + S) of the source, S in 0.5-2 and H in 2-7 keV;
            ``fractional_variability`` (n, n_levels): rms over mean of the source's rate;
            ``spectrum`` (n, 20, n_levels): counts of source and background expected in each
            channel over the exposure. Of a model that `knows_parameters` also, (n, n_levels),
            ``photon_index``; ``kT``, keV; ``n_h``, 1e22 / cm2; ``timescale``, s.

        Raises
        ------
        stingray_align.errors.ModelFileError
            If the model has no encoder: its intervals come from `posterior` alone.
        """
        if not self.encoder:
            raise ModelFileError("a model without encoder has no quantiles: use the draws of an "
                                 "Embedding")
        levels = np.asarray(levels, dtype=float)
        inside = {"rate": (N_TIME_BINS,), "mean_rate": (), "hardness": (),
                  "fractional_variability": (), "spectrum": (N_CHANNELS,)}
        if self.knows_parameters:
            inside |= dict.fromkeys(PARAMETERS, ())
        of_none = {name: np.empty((0, *shape, len(levels)), dtype=np.float32)
                   for name, shape in inside.items()}
        parts = [of_none, *(self._quantiles(inferred, levels)
                            for _, inferred in self._chunks(photons))]
        return {name: np.concatenate([part[name] for part in parts]) for name in of_none}

    def _quantiles(self, inferred, levels):
        refined = self.refine(inferred)
        descriptors = self.describe(inferred, readouts(inferred))
        posteriors = self.quantities(inferred, refined, descriptors)
        share = band_share(inferred, refined)
        return {"rate": rate_quantiles(inferred.batch, refined, levels, share).numpy(),
                "mean_rate": mean_rate_quantiles(inferred.batch, levels),
                "hardness": hardness_quantiles(posteriors, levels),
                "fractional_variability": variability_quantiles(posteriors, levels),
                "spectrum": spectrum_quantiles(posteriors, levels)} | (
                    parameter_quantiles(posteriors, levels) if self.knows_parameters else {})

    def drawn_rates(self, photons, n_draws, seed=0):
        """Draws of the rate, without its uncertain mean.

        Parameters
        ----------
        photons : Photons
        n_draws, seed : int

        Returns
        -------
        ndarray of float32, shape (n, n_draws, 512)
            Rate in 0.5-8 keV over the mean, source and background together.
        """
        rates = np.empty((len(photons), n_draws, N_TIME_BINS), dtype=np.float32)
        generator = torch.Generator().manual_seed(seed)
        for rows, inferred in self._chunks(photons, max(1, 2 * CHUNK // n_draws)):
            refined = self.refine(inferred)
            _, _, log_rates = self.drawn(inferred, refined, n_draws, generator)
            rates[rows] = torch.exp(log_rates).numpy()
        return rates

    @torch.inference_mode()
    def drawn(self, inferred, refined, n_draws, generator):
        """Draws from the posterior of ``n`` sources.

        Returns
        -------
        batch : Batch
            Each source ``n_draws`` times.
        shape : Shape
            Shape of the source's rate for each draw of the latent.
        log_rates : Tensor, shape (n, n_draws, 512)
            Log of the total rate over its mean, calibrated.
        """
        posterior = self.posterior(inferred, refined)
        batch = inferred.batch.repeated(n_draws)
        many = type(posterior)(*(x.repeat_interleave(n_draws, dim=0) for x in posterior))
        offsets = ((getattr(refined.shape, head) - getattr(refined.decoded, head))
                   .repeat_interleave(n_draws, dim=0) for head in "gs")
        shape = self.decode(many.draw(generator), batch).moved(*offsets)
        return batch, shape, drawn_log_rates(shape, batch, refined, n_draws)


@cache
def _bundled(name):
    path = BUNDLED / f"{name}.safetensors"
    if not path.is_file():
        raise ModelFileError(f"no bundled model is called {name!r}; give the path of your own to "
                             "PoissonAutodecoder.load()")
    return PoissonAutodecoder.load(path)


def _in_bands(cells):
    return torch.stack([cells[:, :, low:high].sum(dim=2) for low, high in BANDS], dim=2).numpy()


@torch.inference_mode()
def cell_rates(batch, shape, posteriors=None):
    """Total expected rate in ct/s per time bin and channel, shape (n, 512, 20).

    The amplitude is (N + 1/2) / exposure, the posterior mean of a Poisson rate under Jeffreys'
    prior. With ``posteriors`` the spectrum of the whole exposure is their mean; how it changes in
    time remains.
    """
    in_time = torch.exp(shape.log_relative_rate(batch.exposed))
    in_energy = torch.exp(shape.log_energy).repeat_interleave(COLOUR_BIN, dim=1)
    fraction = batch.background_fraction[:, None, None]
    mean = ((batch.n_photons + 0.5) / batch.exposure)[:, None, None]
    rates = mean * ((1 - fraction) * in_time[:, :, None] * in_energy
                    + fraction * batch.background[:, None, :])
    if posteriors is None:
        return rates
    spectrum = (batch.exposed[:, None] @ rates)[:, 0]
    coloured = rates * (mean_spectrum(posteriors) / spectrum.clamp(min=1e-20))[:, None]
    return coloured * (rates.sum(dim=2) / coloured.sum(dim=2))[:, :, None]
