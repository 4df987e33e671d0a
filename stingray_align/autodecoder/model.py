"""The public model: fit, save, load, and the passes from photons to latent and rate."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .._files import BUNDLED, read_tensors, write_tensors
from ..errors import ModelFileError
from ..photons import N_TIME_BINS, Photons
from .batch import COLOUR_BIN, Batch, make_batch
from .decoder import Decoder, Shape
from .inference import Inference, smoothed

__all__ = ["CHUNK", "Inferred", "PoissonAutodecoder", "cell_rates", "one_thread"]

#: Raised whenever the networks or their inputs change meaning.
VERSION = 1

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


class Inferred(NamedTuple):
    """What one pass over a batch finds.

    Attributes
    ----------
    batch : `~stingray_align.autodecoder.batch.Batch`
    latent : Tensor, shape (n, n_latent)
    hidden : Tensor, shape (n, n_hidden)
        What the networks remember of the photons, for the posterior.
    shape : `~stingray_align.autodecoder.decoder.Shape`
        Shape of the rate.
    offset : Tensor, shape (n, 512)
        How far the log-rate lies from the one that the latent alone decodes to.
    """

    batch: Batch
    latent: torch.Tensor
    hidden: torch.Tensor
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
    n_steps, n_posterior_steps : int
        Optimiser steps for the curve, and afterwards for the posterior covariance.
    batch_size : int
        Sources per step.
    learning_rate : float
        Peak of the warm-up and cosine schedule of AdamW.
    latent_penalty, latent_noise : float
        Weight of :math:`|z|^2` in the loss, and spread of the noise added to :math:`z`.
    seed : int
        Seeds the initial weights, the order of the sources and the thinning.

    Attributes
    ----------
    networks_ : torch.nn.ModuleDict
        ``decoder`` and ``inference``; present after `fit` or `load`.
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

    def __init__(self, *, n_latent=96, n_hidden=512, n_rank=24, n_steps=20_000,
                 n_posterior_steps=3_000, batch_size=128, learning_rate=1.5e-3,
                 latent_penalty=6e-4, latent_noise=0.03, seed=0):
        self.n_latent = n_latent
        self.n_hidden = n_hidden
        self.n_rank = n_rank
        self.n_steps = n_steps
        self.n_posterior_steps = n_posterior_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.latent_penalty = latent_penalty
        self.latent_noise = latent_noise
        self.seed = seed

    _PARAMETERS = ("n_latent", "n_hidden", "n_rank", "n_steps", "n_posterior_steps", "batch_size",
                   "learning_rate", "latent_penalty", "latent_noise", "seed")

    def get_params(self):
        """The constructor's parameters as a dict."""
        return {name: getattr(self, name) for name in self._PARAMETERS}

    def __repr__(self):
        state = "fitted" if hasattr(self, "networks_") else "not fitted"
        return f"<PoissonAutodecoder: {self.n_latent} latent entries, {state}>"

    def _build(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return nn.ModuleDict({
                "decoder": Decoder(self.n_latent, self.n_hidden),
                "inference": Inference(self.n_latent, self.n_hidden, self.n_rank)})

    # -- training, saving, loading -----------------------------------------------------------

    def fit(self, event_lists, *, checkpoint=None, progress=True):
        """Train on sources, by random thinning of each source's photons.

        Parameters
        ----------
        event_lists : sequence of stingray.EventList, or Photons
            One entry per source.
        checkpoint : path-like, optional
            File that holds the state of the training every few minutes. If it exists, and was
            written with the same parameters and sources, training goes on from there.
        progress : bool
            Print the training curve and show a progress bar.

        Returns
        -------
        PoissonAutodecoder
            ``self``.
        """
        from .training import fit_networks

        photons = (event_lists if isinstance(event_lists, Photons)
                   else Photons.from_events(event_lists))
        self.networks_, self.curve_ = fit_networks(self, photons, checkpoint, progress)
        self.training_ = {"n_sources": len(photons), "n_photons": int(photons.offsets[-1])}
        return self

    def save(self, path):
        """Write the model as safetensors, weights in half precision, atomically."""
        self._require_fitted()
        halves = {name: tensor.half().numpy()
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
            model = cls(**about["parameters"])
            model.networks_ = model._build()
            model.networks_.load_state_dict(
                {name: torch.from_numpy(array).float() for name, array in tensors.items()})
            model.curve_, model.training_ = about["curve"], about["training"]
        except (KeyError, TypeError, RuntimeError) as error:
            raise ModelFileError(f"{path} does not hold the model that its header promises; make "
                                 "it again with PoissonAutodecoder.save") from error
        model.networks_.eval()
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

    def _require_fitted(self):
        if not hasattr(self, "networks_"):
            raise ModelFileError("this PoissonAutodecoder has no weights yet: call fit(), or use "
                                 "PoissonAutodecoder.load(path) or .pretrained()")

    # -- passes --------------------------------------------------------------------------------

    @torch.inference_mode()
    def infer(self, photons):
        """Latent and rate of a moderate number of sources.

        Parameters
        ----------
        photons : Photons

        Returns
        -------
        Inferred
        """
        self._require_fitted()
        decoder, inference = self.networks_["decoder"], self.networks_["inference"]
        batch = make_batch(photons)
        curves = smoothed(batch.per_bin, batch.exposed)
        guess, hidden = inference.first_guess(batch, curves)
        latent, hidden = inference.refined(guess, hidden, decoder(guess), batch)
        shape = decoder(latent)
        decoded = shape.log_relative_rate(batch.exposed)
        offset = inference.mixture(decoded, hidden, curves) - decoded
        return Inferred(batch, latent, hidden, shape.moved(offset), offset)

    @torch.inference_mode()
    def posterior(self, inferred):
        """Gaussian posterior over the latent, see `~stingray_align.autodecoder.inference`."""
        return self.networks_["inference"].posterior(inferred.latent, inferred.hidden,
                                                     inferred.batch)

    @torch.inference_mode()
    def decode(self, latent):
        """Shape of the rate for latents (n, n_latent)."""
        self._require_fitted()
        return self.networks_["decoder"](torch.as_tensor(latent, dtype=torch.float32))

    def band_rates(self, photons):
        """Expected photon rate of each source in the three CSC bands.

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
        with one_thread():
            for first in range(0, len(photons), CHUNK):
                part = photons[first:first + CHUNK]
                inferred = self.infer(part)
                cells = cell_rates(inferred)
                for k, (low, high) in enumerate(BANDS):
                    rates[first:first + CHUNK, :, k] = cells[:, :, low:high].sum(dim=2)
        return rates


@cache
def _bundled(name):
    path = BUNDLED / f"{name}.safetensors"
    if not path.is_file():
        raise ModelFileError(f"no bundled model is called {name!r}; give the path of your own to "
                             "PoissonAutodecoder.load()")
    return PoissonAutodecoder.load(path)


@torch.inference_mode()
def cell_rates(inferred):
    """Total expected rate in ct/s per time bin and channel, shape (n, 512, 20).

    The amplitude is (N + 1/2) / exposure, the posterior mean of a Poisson rate under Jeffreys'
    prior.
    """
    batch, shape = inferred.batch, inferred.shape
    in_time = torch.exp(shape.log_relative_rate(batch.exposed))
    in_energy = torch.exp(shape.log_energy).repeat_interleave(COLOUR_BIN, dim=1)
    fraction = batch.background_fraction[:, None, None]
    mean = ((batch.n_photons + 0.5) / batch.exposure)[:, None, None]
    return mean * ((1 - fraction) * in_time[:, :, None] * in_energy
                   + fraction * batch.background[:, None, :])
