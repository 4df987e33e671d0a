r"""The Poisson-process autodecoder as it was published: PPAD.

A neural field maps a latent :math:`z` (8 entries) and a positional encoding of time, :math:`t` with
sines and cosines of :math:`2^k \pi t`, to the log rates in three bands. The network has residual
blocks of two layers with rectified linear units. Training minimises, averaged over sources,

.. math:: -\log L(z) + 10\,[\mathrm{TV}_\mathrm{mesh} + \mathrm{TV}_\mathrm{events}] + |z|^2,

where each total variation is the mean absolute difference of the rate, in photons per window,
between neighbours on a mesh and between successive events. There is no encoder: the latent of a
new source starts at the mean of the training's latents and takes 400 steps of Adam.

Kept as published: the loss and its weights, bands (0.5-1.2, 1.2-2, 2-7 keV), latent size, kind of
network and initial weights, one rate for source and background, ten times higher learning rate for
latents than for the network, batches of 16, 400-step inference.

Different here, so that it fits one CPU core and any observation:

- width 128 and 3 blocks instead of 512 and 5; 10 frequencies instead of 12, as the shortest period
  that the time bins hold;
- the mesh is the 512 time bins, to which events are rounded; published are a mesh of 2048, to which
  the total variation on the mesh is scaled, and the exact times;
- windows of any length, scaled to one; published are the first eight hours of longer observations;
- the integral covers the exposed time; published is zero to the last event, gaps included. This
  helps it where there are gaps;
- the mean rate of each band is that of the photons, as for all rivals here, so that curves are
  compared; `Ppad.decoded_rates` has the means that eight latent entries hold beside the curve;
- the learning rate of the inference is 0.05, with which 400 steps come closer to the optimum than
  with the published 0.01;
- 1500 simulated sources, learning rate 1e-3 falling to zero by a cosine, AdamW; published
  are 109,656 sources of the Chandra Source Catalog in three stages, 1e-5, halved on plateaus, Adam.

References
----------
Song et al. 2025, arXiv:2502.01627, and its code, https://github.com/villrv/ppae.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..._files import read_tensors, write_tensors
from ...autodecoder.latents import optimise_latents, train_decoder
from ...errors import ModelFileError
from ...photons import BAND_OF_CHANNEL, N_CHANNELS, N_TIME_BINS, Photons, reduce_events
from ...rates import RateEstimate
from ._rival import scored

__all__ = ["Ppad", "PpadEstimate"]

VERSION = 1
N_BANDS = 3
VARIATION_PENALTY = 10.0
PUBLISHED_MESH = 2048
LATENT_PENALTY = 1.0
INFERENCE_RATE = 0.05
#: Sources decoded at a time.
CHUNK = 64


class _Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        _initialise(self.inner)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x):
        return x + self.outer(torch.relu(self.inner(torch.relu(x))))


def _initialise(layer):
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)


class _Field(nn.Module):
    """Latents (n, n_latent) to log rates (n, 512, 3) in photons per window."""

    def __init__(self, n_latent, n_hidden, n_blocks, n_frequencies):
        super().__init__()
        time = (torch.arange(N_TIME_BINS) + 0.5)[:, None] / N_TIME_BINS
        angle = np.pi * 2.0 ** torch.arange(n_frequencies) * time
        self.register_buffer("time", torch.cat([time, angle.sin(), angle.cos()], dim=1),
                             persistent=False)
        self.n_latent = n_latent
        self.enter = nn.Linear(n_latent + self.time.shape[1], n_hidden)
        self.blocks = nn.Sequential(*(_Block(n_hidden) for _ in range(n_blocks)), nn.ReLU())
        self.leave = nn.Linear(n_hidden, N_BANDS)
        _initialise(self.enter)
        _initialise(self.leave)

    def forward(self, latents):
        # A linear layer of (latent, time) is the sum of two, each worked out once.
        of_latent, of_time = self.enter.weight.split([self.n_latent, self.time.shape[1]], dim=1)
        x = (latents @ of_latent.T)[:, None] + self.time @ of_time.T + self.enter.bias
        return self.leave(self.blocks(x))


@dataclass
class _Events:
    """Photons of ``n`` sources on the mesh: occupied cells, and steps between occupied bins.

    A step has its share in the mean over all pairs of successive events; pairs inside one bin are
    steps of zero and only count for that mean.
    """

    source: torch.Tensor
    cell: torch.Tensor
    counts: torch.Tensor
    step_source: torch.Tensor
    earlier: torch.Tensor
    later: torch.Tensor
    share: torch.Tensor
    exposed: torch.Tensor

    @classmethod
    def from_photons(cls, photons):
        photons = scored(photons)
        in_time = photons.source_index * N_TIME_BINS + photons.time_bin
        cell, counts = np.unique(in_time * N_BANDS + BAND_OF_CHANNEL[photons.channel],
                                 return_counts=True)
        bins = np.unique(in_time)
        follows = np.flatnonzero(np.diff(bins // N_TIME_BINS) == 0)
        step_source = bins[follows] // N_TIME_BINS
        share = 1 / (photons.n_photons[step_source] - 1)
        return cls(*map(torch.from_numpy, (
            cell // (N_TIME_BINS * N_BANDS), cell, counts.astype(np.float32), step_source,
            bins[follows], bins[follows + 1], share.astype(np.float32),
            np.array(photons.exposed, dtype=np.float32))))


class _Objective:
    """PPAD's loss, for `stingray_align.autodecoder.latents`; the penalty on z is added there."""

    def prepare(self, photons):
        return _Events.from_photons(photons)

    def misfit(self, field, latents, events):
        log_rate = field(latents)
        rate = log_rate.exp()
        expected = (rate.sum(dim=2) * events.exposed).mean(dim=1)
        log_product = torch.zeros_like(expected).index_add(
            0, events.source, events.counts * log_rate.reshape(-1)[events.cell])
        on_mesh = rate.diff(dim=1).abs().mean(dim=(1, 2))
        bins = rate.reshape(-1, N_BANDS)
        steps = (bins[events.later] - bins[events.earlier]).abs().mean(dim=1) * events.share
        between_events = torch.zeros_like(expected).index_add(0, events.step_source, steps)
        variation = N_TIME_BINS / PUBLISHED_MESH * on_mesh + between_events
        return expected - log_product + VARIATION_PENALTY * variation

    def weight(self, events):
        return events.exposed.new_ones(len(events.exposed))


class Ppad:
    """The PPAD configuration as a rival: trained once, then used as the other rivals are.

    Parameters
    ----------
    n_latent, n_hidden, n_blocks, n_frequencies : int
        Sizes of the latent and of the network.
    n_steps : int
        Training steps.
    n_inference_steps : int
        Steps for the latent of a new source.
    batch_size : int
        Sources per training step.
    learning_rate : float
        Of the network; the latents' is ten times as high.
    seed : int
        Seeds initial weights and the order of the sources.

    Attributes
    ----------
    field_ : torch.nn.Module
        The network; present after `fit` or `load`.
    start_ : Tensor, shape (n_latent,)
        Mean latent of the training, where inference begins.
    curve_ : list of dict
        Training curve.

    Examples
    --------
    >>> from stingray_align.datasets import simulate_photons
    >>> from stingray_align.evaluate.rivals.ppad import Ppad
    >>> photons = simulate_photons(4, seed=1, counts=(20, 50))
    >>> ppad = Ppad(n_hidden=8, n_blocks=1, n_steps=3, n_inference_steps=3)
    >>> ppad.fit(photons, progress=False).band_rates(photons).shape
    (4, 512, 3)
    """

    name = "PPAD"

    def __init__(self, *, n_latent=8, n_hidden=128, n_blocks=3, n_frequencies=10, n_steps=12_000,
                 n_inference_steps=400, batch_size=16, learning_rate=1e-3, seed=0):
        self.n_latent = n_latent
        self.n_hidden = n_hidden
        self.n_blocks = n_blocks
        self.n_frequencies = n_frequencies
        self.n_steps = n_steps
        self.n_inference_steps = n_inference_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed

    def __repr__(self):
        return f"<rival: {self.name}, {'' if hasattr(self, 'field_') else 'not '}fitted>"

    def get_params(self):
        """The constructor's parameters as a dict."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_")}

    def _build(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return _Field(self.n_latent, self.n_hidden, self.n_blocks, self.n_frequencies)

    def fit(self, event_lists, *, checkpoint=None, curve_file=None, progress=True):
        """Train network and latents together.

        Parameters
        ----------
        event_lists : sequence of stingray.EventList, or Photons
            One entry per source.
        checkpoint, curve_file, progress
            As in `stingray_align.autodecoder.latents.train_decoder`.

        Returns
        -------
        Ppad
            ``self``.
        """
        photons = (event_lists if isinstance(event_lists, Photons)
                   else Photons.from_events(event_lists))
        field = self._build()
        latents, self.curve_ = train_decoder(
            field, photons, n_latent=self.n_latent, n_steps=self.n_steps,
            batch_size=self.batch_size, learning_rate=self.learning_rate, seed=self.seed,
            latent_learning_rate=10 * self.learning_rate, latent_penalty=LATENT_PENALTY,
            latent_noise=0.0, max_copies=1, holdout=0.0, objective=_Objective(),
            checkpoint=checkpoint, curve_file=curve_file, progress=progress)
        self.field_, self.start_ = field, latents.mean(dim=0)
        return self

    def save(self, path):
        """Write the network as safetensors."""
        self._require_fitted()
        tensors = {f"field.{name}": value for name, value in self.field_.state_dict().items()}
        tensors["start"] = self.start_
        write_tensors(path, {name: value.numpy() for name, value in tensors.items()}, kind="ppad",
                      version=VERSION, about={"parameters": self.get_params(),
                                              "curve": self.curve_})

    @classmethod
    def load(cls, path):
        """Read what `save` wrote.

        Raises
        ------
        stingray_align.errors.ModelFileError
            If the file is damaged, holds something else, or was written by another version.
        """
        arrays, about = read_tensors(path, kind="ppad", version=VERSION)
        try:
            ppad = cls(**about["parameters"])
            tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
            ppad.start_, ppad.curve_ = tensors.pop("start"), about["curve"]
            ppad.field_ = ppad._build()
            ppad.field_.load_state_dict(
                {name.removeprefix("field."): value for name, value in tensors.items()})
        except (KeyError, TypeError, RuntimeError) as error:
            raise ModelFileError(f"{path} does not hold the model that its header promises; make "
                                 "it again with Ppad.save") from error
        return ppad

    def _require_fitted(self):
        if not hasattr(self, "field_"):
            raise ModelFileError("this Ppad has no weights yet: call fit(), or use "
                                 "Ppad.load(path)")

    def latents(self, photons):
        """Latents of new sources by gradient descent, a Tensor of shape (n, n_latent)."""
        self._require_fitted()
        return optimise_latents(
            self.field_, photons, start=self.start_, n_steps=self.n_inference_steps,
            learning_rate=INFERENCE_RATE, latent_penalty=LATENT_PENALTY, latent_noise=0.0,
            objective=_Objective())

    def decoded_rates(self, photons):
        """Rate of many sources as the network decodes it, also its mean.

        Parameters
        ----------
        photons : Photons

        Returns
        -------
        ndarray, shape (n, 512, 3)
            Rate in ct/s in 0.5-1.2, 1.2-2 and 2-7 keV.
        """
        rates = np.empty((len(photons), N_TIME_BINS, N_BANDS))
        for first in range(0, len(photons), CHUNK):
            latents = self.latents(photons[first:first + CHUNK])
            with torch.no_grad():
                rates[first:first + CHUNK] = self.field_(latents).exp().numpy()
        return rates / photons.duration[:, None, None]

    def band_rates(self, photons):
        """Rate of many sources in the evaluation bands, with the mean rates of their photons.

        Parameters
        ----------
        photons : Photons

        Returns
        -------
        ndarray, shape (n, 512, 3)
            Rate in ct/s in 0.5-1.2, 1.2-2 and 2-7 keV.
        """
        rates = self.decoded_rates(photons)
        counts = np.zeros((len(photons), N_BANDS + 1))
        np.add.at(counts, (photons.source_index, BAND_OF_CHANNEL[photons.channel]), 1)
        # (n + 1/2) / T, as for all rivals
        seconds = photons.exposed * (photons.duration / N_TIME_BINS)[:, None]
        expected = np.einsum("ntb,nt->nb", rates, seconds)
        return rates * ((counts[:, :N_BANDS] + 0.5) / expected)[:, None]

    def drawn_band_rates(self, photons, n, seed=0):
        """Draws of the rate, source by source: only its amplitude has an uncertainty.

        Parameters
        ----------
        photons : Photons
        n : int
            Draws for each source.
        seed : int

        Yields
        ------
        ndarray, shape (n, 512, 3)
            Rate of the next source in ct/s.
        """
        rng = np.random.default_rng(seed)
        for rates, seen in zip(self.band_rates(photons), scored(photons).n_photons):
            yield rates * _amplitudes(seen, n, rng)[:, None, None]

    def __call__(self, events):
        """Estimate the rate of one source, or of each of several.

        Parameters
        ----------
        events : stingray.EventList, or sequence of them
            With GTIs and energies.

        Returns
        -------
        PpadEstimate, or list of them for a sequence
        """
        from stingray import EventList

        single = isinstance(events, EventList)
        reduced = [reduce_events(one) for one in ([events] if single else events)]
        if not reduced:
            return []
        rates = self.band_rates(Photons.concatenate(photons for photons, _ in reduced))
        made = [PpadEstimate(photons, gti, own) for (photons, gti), own in zip(reduced, rates)]
        return made[0] if single else made


def _amplitudes(n_photons, n, rng):
    """Draws of the amplitude given the number of photons, in units of its mean."""
    return rng.gamma(n_photons + 0.5, size=n) / (n_photons + 0.5)


class PpadEstimate(RateEstimate):
    """Rate of one source as PPAD sees it; made by calling a `Ppad`.

    Inside a band the rate is shared out like the photons; above 7 keV, where PPAD does not look,
    it is constant. PPAD gives no uncertainty: intervals are those of the number of photons.
    """

    name = Ppad.name

    def __init__(self, photons, gti, band_rates):
        super().__init__(photons, gti)
        seen = np.bincount(photons.channel, minlength=N_CHANNELS)
        in_band = np.bincount(BAND_OF_CHANNEL)
        seen = seen + (0.5 / in_band)[BAND_OF_CHANNEL]
        top = np.full((N_TIME_BINS, 1), seen[BAND_OF_CHANNEL == N_BANDS].sum()
                      / photons.exposure[0])
        share = seen / np.bincount(BAND_OF_CHANNEL, seen)[BAND_OF_CHANNEL]
        self._rates = np.hstack([band_rates, top])[:, BAND_OF_CHANNEL] * share

    def _drawn_rates(self, n, seed, weight):
        amplitudes = _amplitudes(self.n_photons, n, np.random.default_rng(seed))
        return amplitudes[:, None] * (self._rates @ weight)

    def _drawn_spectra(self, n, seed):
        amplitudes = _amplitudes(self.n_photons, n, np.random.default_rng(seed))
        seconds = self.photons.exposed[0] * (self.photons.duration[0] / N_TIME_BINS)
        return amplitudes[:, None] * (seconds @ self._rates)
