"""Hardness ratio, variability, spectrum and parameters: several measurements of each, weighed.

The hardness ratio can be counted, over a known background, with the error of Poisson statistics;
with many photons nothing is better, unless there is a background that nobody knows. It can also be
estimated by what a network knows of such sources (`stingray_align.autodecoder.descriptors`). In the
same way the variability can be estimated, or be measured as the scatter of the refined rate and of
what its intervals leave open; and there may be none. The counts expected in a channel are those of
the refined spectrum, of the one that the latent decodes to, or of the photons. Photon index,
temperature, column density and time scale are those that a network knows of such sources. Each
posterior is a mixture of three Gaussians that start at such measurements, in units of their errors;
a small network that sees how far they lie apart says how much each counts, and how far it is off.
So what is right with many photons need not be learned, and what may be one of two things, as a
spectrum that is hard or absorbed, need not be something between.

References
----------
Park et al. 2006, ApJ 652, 610 (hardness ratios); Vaughan et al. 2003, MNRAS 345, 1271 (excess
variance).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..photons import N_CHANNELS, N_TIME_BINS
from ._compiled import compiled
from .descriptors import DESCRIPTORS, N_DESCRIPTORS, estimated
from .experts import on_fine
from .inference import N_RUNS, compress
from .intervals import N_COMPONENTS, Mixture, mixture, mixture_loss, mixture_quantiles
from .layers import Linear, Standardised
from .likelihood import spectra, total_log_rate
from .prepared import Prepared

__all__ = ["Measured", "Measurements", "PARAMETERS", "Posteriors", "Quantities", "examples",
           "hardness_quantiles", "mean_spectrum", "measured", "parameter_quantiles",
           "spectrum_at_ranks", "spectrum_quantiles", "variability_quantiles"]

#: Parameters of the truth table, and their units. A period is not among them: it is known to a
#: fraction of a per cent or not at all, which three Gaussians do not say.
PARAMETERS = {"photon_index": "", "kT": "keV", "n_h": "1e22 cm-2", "timescale": "s"}
#: The same to the descriptor that knows them, which may be in dex.
_KNOWN_AS = {name: name if f"estimated_{name}" in DESCRIPTORS else f"log_{name}"
             for name in PARAMETERS}

#: Channels of 0.5-2 and 2-7 keV.
SOFT, HARD = slice(0, 10), slice(10, 19)
#: Largest hardness ratio that is told from one, and what reaches to the end of the scale.
_HARDEST, _STEEPEST = 0.9999, 4.8  # of 4.95, what the first becomes
#: Smallest fractional variability, in dex, and the start of the errors of measurements of it.
_CONSTANT, _SCATTER = -3.0, 0.3
#: Fine cells over which the refined rate, and the photons, are averaged for their scatter.
_OF_RATE, _OF_PHOTONS = (1, 8, 32, 256), (1, 8, 32, 128, 512)
N_ABOUT = 14 + len(_OF_RATE) + 2 * len(_OF_PHOTONS) + 2 + N_DESCRIPTORS
#: Start of the errors of the measurements in a channel, as roots of counts, where Poisson noise is
#: a half.
_ROOT_ERRORS = (0.2, 0.2, 0.5)
N_IN_CHANNEL = 9
#: Of these, a source's posteriors are made of share, counts and area, too.
_OF_SPECTRUM = (1, 2, 8)


class Measured(NamedTuple):
    """Measurements of a source.

    Attributes
    ----------
    centre, width : Tensor, shape (n, 6, 3)
        Three of half the log of hard over soft counts, of log10 of the variability, and of each of
        the `PARAMETERS`, with errors.
    about : Tensor, shape (n, N_ABOUT)
        What they are made of.
    roots : Tensor, shape (n, 20, 3)
        Three of the root of the counts expected in each channel.
    in_channel : Tensor, shape (n, 20, N_IN_CHANNEL)
        What these are made of.
    """

    centre: torch.Tensor
    width: torch.Tensor
    about: torch.Tensor
    roots: torch.Tensor
    in_channel: torch.Tensor


class Posteriors(NamedTuple):
    """Posteriors of a source.

    Attributes
    ----------
    hardness, variability : Mixture
        Of half the log of hard over soft counts, and of log10 of the variability, arrays (n, 3).
    photon_index, kT, n_h, timescale : Mixture
        Of the photon index, and of log10 of the others, arrays (n, 3).
    roots : Mixture
        Of the root of the counts expected in each channel, arrays (n, 20, 3).
    """

    hardness: Mixture
    variability: Mixture
    photon_index: Mixture
    kT: Mixture
    n_h: Mixture
    timescale: Mixture
    roots: Mixture


_N_OF_SOURCE = len(Posteriors._fields) - 1


@torch.no_grad()
def measured(batch, refined, descriptors):
    """Measure hardness ratio, variability, parameters and spectrum.

    Parameters
    ----------
    batch : Batch
    refined : Refined
        With its rate in the fine cells.
    descriptors : Tensor, shape (n, N_DESCRIPTORS)

    Returns
    -------
    Measured
    """
    hardness, of_counts = _counted_hardness(batch)
    centre, width = hardness.unbind(dim=1)
    guess, spread = estimated(descriptors, "hardness")
    slope = (1 - guess**2).clamp(min=0.02)
    guess = torch.atanh(guess.clamp(-_HARDEST, _HARDEST))
    spread = (spread / slope).clamp(0.003, 3)
    variability, error = estimated(descriptors, "log_fractional_variability")
    scatter, left_open, of_curve = _scatter(batch, refined)
    rms = 0.5 * torch.log10(scatter + left_open + 1e-6)
    compared = torch.stack([
        compress((guess - centre) / width), torch.log(spread / width), guess,
        torch.log10(1 - batch.background_fraction.clamp(max=0.98)),
        torch.log10(batch.n_photons + 1)], dim=1)
    about = torch.cat([of_counts, compared, of_curve, descriptors], dim=1)
    constant = torch.full_like(rms, _CONSTANT)
    even = torch.full_like(rms, _SCATTER)
    found = [((centre, guess, guess), (width, spread, 3 * spread)),
             ((variability, rms, constant), (error, even, even))]
    for name in _KNOWN_AS.values():
        guess, spread = estimated(descriptors, name)
        found.append(((guess, guess, guess), (0.5 * spread, spread, 2 * spread)))
    centre, width = (torch.stack([torch.stack(three, dim=1) for three in of_all], dim=1)
                     for of_all in zip(*found))
    return Measured(centre, width, about, *_measured_spectrum(batch, refined))


def _measured_spectrum(batch, refined):
    """Roots of the counts expected in the channels (n, 20, 3), and what they are made of."""
    total = batch.n_photons[:, None] + 0.5
    inside = torch.exp(refined.fine).unflatten(1, (N_TIME_BINS, -1)).mean(dim=2)
    found, background = (total * x for x in spectra(batch, refined.shape, inside))
    decoded = total * sum(spectra(batch, refined.decoded))
    found, counted = found + background, batch.colours.sum(dim=1)
    noise = torch.sqrt(found + 1)
    residual = (counted - found) / noise
    beside = nn.functional.pad(residual, (1, 1))
    in_channel = torch.stack([
        torch.log(found + 0.01), torch.log(found / total + 1e-4), torch.log1p(counted),
        compress(residual), compress((decoded - found) / noise), compress(beside[:, :-2]),
        compress(beside[:, 2:]), torch.log(background / found.clamp(min=1e-6) + 0.01),
        batch.log_area], dim=2)
    roots = torch.sqrt(torch.stack([found, decoded, counted + 0.25], dim=2).clamp(min=0))
    return roots, in_channel


def _counted_hardness(batch):
    """Half the log of hard over soft counts and its error (n, 2), and what they are made of (n, 9).
    """
    counted = batch.colours.sum(dim=1)
    background = batch.background * (batch.background_fraction * batch.n_photons)[:, None]
    soft, hard, soft_background, hard_background = (
        x[:, band].sum(dim=1) for x in (counted, background) for band in (SOFT, HARD))

    def net(seen, not_own):
        return torch.maximum(seen - not_own, 0.3 * torch.sqrt(seen + 1))

    own_soft, own_hard = net(soft, soft_background), net(hard, hard_background)
    centre = 0.5 * torch.log(own_hard / own_soft)
    width = 0.5 * torch.sqrt((soft + 1) / own_soft**2 + (hard + 1) / own_hard**2)
    about = torch.stack([
        centre, torch.log(width),
        *(torch.log1p(x) for x in (soft, hard, soft_background, hard_background)),
        (soft_background + hard_background > 0).float(),
        (soft - soft_background) / torch.sqrt(soft + 1),
        (hard - hard_background) / torch.sqrt(hard + 1)], dim=1)
    return torch.stack([centre, width], dim=1), about


@compiled
def _look(log_rate, per_cell, exposed, background_fraction, n_photons, scatter, in_runs, excess):
    """Write what `_scatter` is made of.

    ``scatter`` (n, 4): variance of the source's rate over its mean squared, in blocks of cells;
    ``in_runs`` (n, 128, 2): share of each run in the exposure, and the mean total rate in it;
    ``excess`` (n, 5, 2): squared deviations of the photons in blocks, less their number, and the
    squared numbers expected from a constant rate.
    """
    n_cells, per_bin = log_rate.shape[1], log_rate.shape[1] // exposed.shape[1]
    rate, own, weight = np.empty(n_cells), np.empty(n_cells), np.empty(n_cells)
    for i in range(len(log_rate)):
        whole, total, own_total = exposed[i].sum() * per_bin, 0.0, 0.0
        for j in range(n_cells):
            weight[j] = exposed[i, j // per_bin] / whole
            rate[j] = math.exp(log_rate[i, j])
            total += weight[j] * rate[j]
        for j in range(n_cells):
            rate[j] /= total
            own[j] = max(rate[j] - background_fraction[i], 0.02 * rate[j])
            own_total += weight[j] * own[j]
        for k in range(len(_OF_RATE)):
            scatter[i, k] = 0
            for first in range(0, n_cells, _OF_RATE[k]):
                share, mean = _averaged(weight, own, first, _OF_RATE[k])
                scatter[i, k] += share * (mean / own_total - 1) ** 2
        size = n_cells // in_runs.shape[1]
        for run in range(in_runs.shape[1]):
            in_runs[i, run] = _averaged(weight, rate, run * size, size)
        for k in range(len(_OF_PHOTONS)):
            excess[i, k] = 0
            for first in range(0, n_cells, _OF_PHOTONS[k]):
                seen, share = np.float32(0), 0.0
                for j in range(first, first + _OF_PHOTONS[k]):
                    seen += per_cell[i, j]
                    share += weight[j]
                if share > 0:
                    expected = share * n_photons[i]
                    excess[i, k, 0] += (seen - expected) ** 2 - seen
                    excess[i, k, 1] += expected**2


@compiled
def _averaged(weight, x, first, size):
    """Sum of some weights, and the weighted mean there."""
    share, total = 0.0, 0.0
    for j in range(first, first + size):
        share += weight[j]
        total += weight[j] * x[j]
    return share, total / max(share, 1e-12)


def _scatter(batch, refined):
    """Variance of the source's rate and that which the intervals leave open, over the mean squared.

    Both of shape (n,); their logs with those of averages over more cells, and the excess variance
    of the photons at several bin sizes, in its noise and as log of the rms, shape (n, 16).
    """
    log_rate = on_fine(total_log_rate(refined.shape, batch)) + refined.fine
    n = len(log_rate)
    scatter, in_runs, excess = (torch.empty(n, *shape) for shape in (
        (len(_OF_RATE),), (N_RUNS, 2), (len(_OF_PHOTONS), 2)))
    _look(log_rate.numpy(), *batch.arrays("per_cell", "exposed", "background_fraction",
                                          "n_photons"),
          *(x.numpy() for x in (scatter, in_runs, excess)))
    log_weight, centre, log_sd = mixture(refined.log_rate_intervals)
    weights = torch.exp(log_weight)
    mean = (weights * centre).sum(dim=2, keepdim=True)
    variance = (weights * (torch.exp(2 * log_sd) + (centre - mean) ** 2)).sum(dim=2)
    share, rate = in_runs.unbind(dim=2)
    left_open = (share * rate**2 * torch.expm1(variance.clamp(max=3))).sum(dim=1)
    logs = torch.cat([scatter, (share * variance).sum(dim=1, keepdim=True), left_open[:, None]],
                     dim=1)
    excess, squared = excess.unbind(dim=2)
    of_photons = torch.stack([
        compress(excess / torch.sqrt(2 * squared + 1)),
        0.5 * torch.log10((excess / squared.clamp(min=1e-9)).clamp(min=1e-4))], dim=2)
    return scatter[:, 0], left_open, torch.cat([0.5 * torch.log10(logs + 1e-6),
                                                of_photons.flatten(1)], dim=1)


class _Weights(nn.Module):
    """Raw mixtures from what measurements are made of."""

    def __init__(self, n_about, n_outputs, width):
        super().__init__()
        self.body = nn.Sequential(Linear(n_about, width), nn.GELU(), Linear(width, width),
                                  nn.GELU())
        self.outputs = Linear(width, n_outputs)
        nn.init.normal_(self.outputs.weight, std=1e-3)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, about):
        return self.outputs(self.body(about)).float()


class Quantities(nn.Module):
    """Weighs the measurements."""

    def __init__(self):
        super().__init__()
        self.about = Standardised(N_ABOUT)
        self.in_channel = Standardised(N_IN_CHANNEL)
        self.of_source = _Weights(N_ABOUT + len(_OF_SPECTRUM) * N_CHANNELS,
                                  _N_OF_SOURCE * 3 * N_COMPONENTS, 256)
        self.of_channel = _Weights(N_ABOUT + N_IN_CHANNEL + N_CHANNELS, 3 * N_COMPONENTS, 64)

    def forward(self, found):
        """Posteriors of measured sources.

        Parameters
        ----------
        found : Measured

        Returns
        -------
        Posteriors
        """
        about, n = self.about(found.about), len(found.about)
        in_channel = self.in_channel(found.in_channel)
        spectrum = in_channel[:, :, _OF_SPECTRUM].flatten(1)
        channel = torch.eye(N_CHANNELS, device=about.device).expand(n, -1, -1)
        in_channel = torch.cat([in_channel, channel,
                                about[:, None].expand(-1, N_CHANNELS, -1)], dim=2)
        of_channel = self.of_channel(in_channel.flatten(0, 1)).unflatten(0, (n, N_CHANNELS))
        of_source = self.of_source(torch.cat([about, spectrum], dim=1))
        return _posteriors(of_source, of_channel, found)


def _posteriors(of_source, of_channel, found):
    of_each = zip(of_source.chunk(_N_OF_SOURCE, dim=1), found.centre.unbind(dim=1),
                  found.width.unbind(dim=1))
    errors = torch.tensor(_ROOT_ERRORS, device=of_channel.device).expand_as(found.roots)
    return Posteriors(*(mixture(*of_one) for of_one in of_each),
                      mixture(of_channel, found.roots, errors))


def _quantiles(posterior, levels):
    """Of mixtures (..., 3), at levels (n_levels,) or (..., n_levels), on the scale of these."""
    levels = torch.as_tensor(levels, dtype=torch.float32)
    return mixture_quantiles(posterior, levels.expand(*posterior.mean.shape[:-1],
                                                      levels.shape[-1]))


def hardness_quantiles(posteriors, levels):
    """Quantiles of the hardness ratio, ndarray (n, n_levels).

    Hardness ratios beyond 0.9999 count as 0.9999 in training. So an interval that gets there
    reaches to the end.
    """
    found, levels = _quantiles(posteriors.hardness, levels), torch.as_tensor(levels)
    hardness = torch.tanh(found)
    hardness = torch.where((found < -_STEEPEST) & (levels < 0.5), -1.0, hardness)
    return torch.where((found > _STEEPEST) & (levels > 0.5), 1.0, hardness).numpy()


def variability_quantiles(posteriors, levels):
    """Quantiles of the fractional variability, ndarray (n, n_levels)."""
    return (10 ** _quantiles(posteriors.variability, levels)).numpy()


def parameter_quantiles(posteriors, levels):
    """Quantiles of the `PARAMETERS`, a dict of ndarray of shape (n, n_levels)."""
    found = {name: _quantiles(getattr(posteriors, name), levels).numpy() for name in PARAMETERS}
    return {name: values if name == _KNOWN_AS[name] else 10 ** values
            for name, values in found.items()}


def spectrum_quantiles(posteriors, levels):
    """Quantiles of the counts expected in each channel, ndarray (n, 20, n_levels)."""
    return _quantiles(posteriors.roots, levels).clamp(min=0).square().numpy()


def mean_spectrum(posteriors):
    """Mean of the counts expected in each channel, Tensor (n, 20)."""
    log_weight, mean, log_sd = posteriors.roots
    return (torch.exp(log_weight) * (mean**2 + torch.exp(2 * log_sd))).sum(dim=-1)


def spectrum_at_ranks(posteriors, drawn):
    """Counts of one source's channels, spread as the posterior says, ranked as draws of them are.

    Parameters
    ----------
    posteriors : Posteriors
        Of one source.
    drawn : ndarray, shape (n_draws, 20)

    Returns
    -------
    ndarray, shape (n_draws, 20)
    """
    levels = (drawn.argsort(axis=0).argsort(axis=0) + 0.5) / len(drawn)
    return spectrum_quantiles(posteriors, levels.T[None])[0].T


def examples(found, targets, spectrum):
    """What the network learns from: measurements, and what is true of the sources.

    Parameters
    ----------
    found : Measured
    targets : dict of ndarray, shape (n,)
        True values by their names in `~stingray_align.datasets.stream.TARGETS`, which says what is
        in dex; nan where there is none.
    spectrum : ndarray, shape (n, 20)
        Expected counts.

    Returns
    -------
    dict of ndarray
    """
    truth = {"hardness": np.arctanh(np.clip(targets["hardness"], -_HARDEST, _HARDEST)),
             "variability": targets["fractional_variability"],
             **{name: targets[name] for name in PARAMETERS}, "roots": np.sqrt(spectrum)}
    return {name: x.cpu().numpy() for name, x in found._asdict().items()} | {
        f"true_{name}": x.astype(np.float32) for name, x in truth.items()}


def _loss(posteriors, one):
    truth = (one[f"true_{name}"] for name in Posteriors._fields)
    return sum(mixture_loss(posterior, of_one).mean() for posterior, of_one in
               zip(posteriors, truth))


class Measurements(Prepared):
    """Examples for the weights of the measurements."""

    #: Each is drawn some thirty times.
    CHUNK, PER_STEP = 512, 16

    def start(self, quantities):
        """Scale what is known about the measurements."""
        trained = {name: self.arrays[name][:self.n_trained] for name in ("about", "in_channel")}
        quantities.about.fit(trained["about"])
        quantities.in_channel.fit(trained["in_channel"].reshape(-1, N_IN_CHANNEL))

    def loss(self, quantities, one):
        """Loss of a batch."""
        return _loss(quantities(_measured_of(one)), one)

    @torch.no_grad()
    def gain(self, quantities):
        """Gain in log-likelihood per source over equal weights, on sources held out."""
        gain = total = 0
        for one in self.held_out():
            n = len(one["about"])
            even = _posteriors(torch.zeros(n, _N_OF_SOURCE * 3 * N_COMPONENTS),
                               torch.zeros(n, N_CHANNELS, 3 * N_COMPONENTS), _measured_of(one))
            gain += n * (_loss(even, one) - self.loss(quantities, one)).item()
            total += n
        return gain / total


def _measured_of(one):
    return Measured(*(one[name] for name in Measured._fields))
