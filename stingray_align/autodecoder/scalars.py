"""Hardness ratio and fractional variability: several measurements of each, weighed.

The hardness ratio can be counted, over a known background, with the error of Poisson statistics;
with many photons nothing is better, unless there is a background that nobody knows. It can also be
estimated by what a network knows of such sources (`stingray_align.autodecoder.descriptors`). In the
same way the variability can be estimated, or be measured as the scatter of the refined rate and of
what its intervals leave open; and there may be none. Each posterior is a mixture of three
Gaussians that start at such measurements, in units of their errors; a small network that sees how
far they lie apart says how much each counts, and how far it is off. So what is right with many
photons need not be learned.

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

from ._compiled import compiled
from .descriptors import N_DESCRIPTORS, estimated
from .experts import on_fine
from .inference import N_RUNS, compress
from .intervals import N_COMPONENTS, mixture, mixture_loss, mixture_quantiles
from .layers import Linear, Standardised
from .likelihood import total_log_rate
from .prepared import Prepared

__all__ = ["Measured", "Measurements", "Scalars", "examples", "measured", "scalar_quantiles"]

#: Channels of 0.5-2 and 2-7 keV.
SOFT, HARD = slice(0, 10), slice(10, 19)
#: Largest hardness ratio that is told from one, and what reaches to the end of the scale.
_HARDEST, _STEEPEST = 0.9999, 4.8  # of 4.95, what the first becomes
#: Smallest fractional variability, in dex, and the start of the errors of measurements of it.
_CONSTANT, _SCATTER = -3.0, 0.3
#: Fine cells over which the refined rate, and the photons, are averaged for their scatter.
_OF_RATE, _OF_PHOTONS = (1, 8, 32, 256), (1, 8, 32, 128, 512)
N_ABOUT = 14 + len(_OF_RATE) + 2 * len(_OF_PHOTONS) + 2 + N_DESCRIPTORS


class Measured(NamedTuple):
    """Measurements of two numbers: half the log of hard over soft, and log10 of the variability.

    Attributes
    ----------
    centre, width : Tensor, shape (n, 2, 3)
        Three measurements of each, with errors.
    about : Tensor, shape (n, N_ABOUT)
        What they are made of.
    """

    centre: torch.Tensor
    width: torch.Tensor
    about: torch.Tensor


@torch.no_grad()
def measured(batch, refined, descriptors):
    """Measure hardness ratio and variability.

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
    return Measured(
        torch.stack([torch.stack([centre, guess, guess], dim=1),
                     torch.stack([variability, rms, constant], dim=1)], dim=1),
        torch.stack([torch.stack([width, spread, 3 * spread], dim=1),
                     torch.stack([error, even, even], dim=1)], dim=1), about)


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


class Scalars(nn.Module):
    """Weighs the measurements."""

    def __init__(self, width=192):
        super().__init__()
        self.standardised = Standardised(N_ABOUT)
        self.body = nn.Sequential(Linear(N_ABOUT, width), nn.GELU(), Linear(width, width),
                                  nn.GELU())
        self.outputs = Linear(width, 2 * 3 * N_COMPONENTS)
        nn.init.normal_(self.outputs.weight, std=1e-3)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, found):
        """Posteriors of half the log of hard over soft, and of log10 of the variability.

        Parameters
        ----------
        found : Measured

        Returns
        -------
        list of Mixture
        """
        raw = self.outputs(self.body(self.standardised(found.about))).float()
        return _around(raw, found.centre, found.width)


def _around(raw, centre, width):
    return [mixture(*of_one) for of_one in zip(raw.chunk(2, dim=1), centre.unbind(dim=1),
                                               width.unbind(dim=1))]


def _loss(posteriors, truth):
    return sum(mixture_loss(posterior, of_one).mean() for posterior, of_one in
               zip(posteriors, truth.unbind(dim=1)))


def scalar_quantiles(posteriors, name, levels):
    """Quantiles of "hardness" or "fractional_variability", ndarray (n, n_levels).

    Parameters
    ----------
    posteriors : list of Mixture
        As `Scalars` gives them.
    name : str
    levels : array_like, shape (n_levels,)

    Notes
    -----
    Hardness ratios beyond 0.9999 count as 0.9999 in training. So an interval that gets there
    reaches to the end.
    """
    posterior = posteriors[("hardness", "fractional_variability").index(name)]
    levels = torch.as_tensor(levels, dtype=torch.float32).expand(len(posterior.mean), -1)
    found = mixture_quantiles(posterior, levels)
    if name == "fractional_variability":
        return (10**found).numpy()
    hardness = torch.tanh(found)
    hardness = torch.where((found < -_STEEPEST) & (levels < 0.5), -1.0, hardness)
    return torch.where((found > _STEEPEST) & (levels > 0.5), 1.0, hardness).numpy()


def examples(found, hardness, log_variability):
    """What the network learns from: measurements, and what is true of the sources.

    Parameters
    ----------
    found : Measured
    hardness, log_variability : ndarray, shape (n,)

    Returns
    -------
    dict of ndarray
    """
    hardness = np.arctanh(np.clip(hardness, -_HARDEST, _HARDEST))
    return {name: x.cpu().numpy() for name, x in found._asdict().items()} | {
        "truth": np.stack([hardness, log_variability], axis=1).astype(np.float32)}


class Measurements(Prepared):
    """Examples for the weights of the measurements."""

    #: Each is drawn some sixteen times.
    CHUNK, PER_STEP = 512, 32

    def start(self, scalars):
        """Scale what is known about the measurements."""
        scalars.standardised.fit(self.arrays["about"][:self.n_trained])

    def loss(self, scalars, one):
        """Loss of a batch."""
        return _loss(scalars(Measured(*(one[name] for name in Measured._fields))), one["truth"])

    @torch.no_grad()
    def gain(self, scalars):
        """Gain in log-likelihood per source over equal weights, on sources held out."""
        gain = total = 0
        for one in self.held_out():
            n = len(one["truth"])
            even = _around(torch.zeros(n, 2 * 3 * N_COMPONENTS), one["centre"], one["width"])
            gain += n * (_loss(even, one["truth"]) - self.loss(scalars, one)).item()
            total += n
        return gain / total
