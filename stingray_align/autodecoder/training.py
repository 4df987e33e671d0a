"""Training: show some of a source's photons, score the rate against the truth or the others.

Simulated sources come with their true rate. The networks see a random part of the photons, and
are scored by the expected log-likelihood of any other photon under what they predict,

.. math:: \\sum_{t,E} p_\\mathrm{true}(t, E)\\, \\log p(t, E; z),

which is the held-out likelihood without the noise of the held-out photons. For real sources there
is no truth: then the photons not shown are scored. A Poisson process split at random gives two
independent Poisson processes with the same rate shape, so neither way can the networks gain by
copying noise, and no smoothness penalty is needed.

Training has nine phases, each with the networks of those before it fixed: decoder and first pass;
the mixture of curves in the first pass; the refinement (`stingray_align.autodecoder.refinement`),
twice, with large steps and with small ones; its intervals; the covariance of the latent; and, on
sources that were prepared for them, the weights of the experts
(`stingray_align.autodecoder.experts`), the descriptors (`stingray_align.autodecoder.describing`),
and hardness ratio, variability, parameters and spectrum
(`stingray_align.autodecoder.quantities`). Without truth there is nothing to describe.
"""

from __future__ import annotations

import math
import os
import time
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from torch import distributed
from torch.distributions import LowRankMultivariateNormal, kl_divergence
from tqdm import tqdm

from .._files import read_tensors, write_tensors
from .._precision import bfloat16_if_fast
from ..datasets.stream import RUNS, TARGETS, SimulatedStream, Truth, simulate_with_truth
from ..errors import ModelFileError
from ..photons import N_TIME_BINS, Photons
from . import describing, quantities
from .areas import other_transmissions, seen_through
from .batch import COLOUR_BIN, Cells, fine_counts, make_batch
from .descriptors import descriptor_loss
from .inference import smoothed
from .intervals import mixture, mixture_loss
from .latents import _team, _under, _write_curve, about_sources
from .likelihood import expected_log_likelihood, log_likelihood, total_log_rate
from .prepared import Weighed, examples
from .pulsations import pulsations
from .readouts import readouts
from .refinement import SUB

__all__ = ["EventSet", "Simulated", "fit_model", "train"]

WARM_UP = 500
EVERY = 500  # steps between lines of the training curve, and between checkpoints
EMA = 0.999
DESCRIPTOR_WEIGHT = 0.1
INTERVAL_WEIGHT = 0.1
#: Chunks of sources that are prepared for descriptors have smaller numbers.
OTHERS = 100_000
#: Beginnings of the names of the parameters that intervals and sub-bins are made of.
INTERVALS = ("refinement.sub_bins", "refinement.log_rate_intervals")


# ---- where sources come from -------------------------------------------------------------------
class EventSet:
    """A fixed set of sources without known truth."""

    def __init__(self, photons, seed):
        if len(photons) < 2:
            raise ValueError(f"{len(photons)} source to train on: give at least two, of which one "
                             "is held out; useful models need hundreds")
        order = np.random.default_rng([seed, 1]).permutation(len(photons))
        n = min(1000, max(1, len(photons) // 10))
        self.photons, self.held_out = photons[order[n:]], photons[order[:n]]
        self.about = about_sources(photons)

    def draw(self, step, size, rng):
        """Photons of ``size`` sources, and no truth."""
        chosen = rng.choice(len(self.photons), min(size, len(self.photons)), replace=False)
        return self.photons[chosen], None

    def prepared(self, number, size, rng):
        """The same, to prepare evidence for."""
        return self.draw(0, size, rng)

    @property
    def apart(self):
        """The sources held out, as a set of their own."""
        apart = copy(self)
        apart.photons = self.held_out
        return apart


class Simulated:
    """Simulated sources with their truth: a pool of chunks in which new ones replace the oldest.

    Parameters
    ----------
    stream : SimulatedStream
    steps_per_chunk : int
        Steps after which a chunk is replaced.
    """

    POOL = 24
    DRAWN_FROM = 8
    apart = None  # all that is prepared is of new sources, also what is held out of it

    def __init__(self, stream, *, steps_per_chunk=12):
        self.stream, self.steps_per_chunk = stream, steps_per_chunk
        self.held_out, _ = simulate_with_truth(stream.seed, 10**6)
        self.about = {"n_sources": len(stream), "population": "simulated",
                      "population_seed": stream.seed}
        self._pool = {}

    def draw(self, step, size, rng):
        """Photons of ``size`` sources, and their truth; each process has chunks of its own."""
        oldest = step // self.steps_per_chunk
        numbers = [(oldest + k) * _world_size() + _rank() for k in range(self.POOL)]
        for number in [k for k in self._pool if k not in numbers]:
            del self._pool[number]
        for number in numbers:
            if number not in self._pool:
                self._pool[number] = self.stream.chunk(number, _world_size())
        photons, truth = [], []
        for number in rng.choice(numbers, self.DRAWN_FROM, replace=False):
            of_chunk = self._pool[number]
            rows = rng.choice(len(of_chunk[0]), max(1, size // self.DRAWN_FROM), replace=False)
            photons.append(of_chunk[0][rows])
            truth.append(of_chunk[1][rows])
        return Photons.concatenate(photons), Truth.concatenate(truth)

    def prepared(self, number, size, rng):
        """Sources that no network has seen, to prepare evidence for, and their truth."""
        photons, truth = simulate_with_truth(self.stream.seed, 10**6 + 1 + number)
        return photons[:size], truth[np.arange(min(size, len(photons)))]


def augment(photons, truth, rng):
    """Shift some windows in a circle, and reverse others in time; new sources at no cost."""
    n, of = len(photons), photons.source_index
    per_run = N_TIME_BINS // RUNS
    runs = np.where(rng.random(n) < 0.3, rng.integers(RUNS, size=n), 0)
    back = rng.random(n) < 0.25
    phase = photons.phase + (runs / RUNS).astype(np.float32)[of]
    phase -= np.floor(phase)
    phase = np.where(back[of], 1 - phase, phase)

    def moved(size, by):
        index = (np.arange(size) - by[:, None]) % size
        return np.where(back[:, None], index[:, ::-1], index)

    bins, in_runs = moved(N_TIME_BINS, runs * per_run), moved(RUNS, runs)
    exposed = np.take_along_axis(photons.exposed, bins, axis=1)
    photons = photons.replace(phase=phase, exposed=exposed)
    if truth is None:
        return photons, None
    cell = np.take_along_axis(truth.cell, in_runs, axis=1)
    return photons, Truth(
        share=np.take_along_axis(truth.share, bins[:, None], axis=2), expected=truth.expected,
        cell=np.where(back[:, None], 31 - cell, cell),
        log_relative_rate=np.take_along_axis(truth.log_relative_rate, in_runs, axis=1),
        targets=truth.targets, time_shape=truth.time_shape)


def with_gaps(photons, truth, rng):
    """Take stretches of exposure out of some windows, in many patterns: new gaps at no cost."""
    n = len(photons)
    keep = np.ones((n, N_TIME_BINS), dtype=bool)
    for i in np.flatnonzero(rng.random(n) < 0.3):
        # Stretches of good and lost time take turns, with lengths from a bin to half a window.
        pieces = rng.integers(2, 33)
        lost = rng.uniform(0.05, 0.9)
        lengths = rng.dirichlet(np.full(pieces, rng.choice([0.5, 2, 20])))
        lengths = np.where(np.arange(pieces) % 2, lost, 1 - lost) * lengths
        ends = np.round(np.cumsum(lengths) / lengths.sum() * N_TIME_BINS).astype(int)
        keep[i] = np.repeat(np.arange(pieces) % 2 == 0, np.diff(ends, prepend=0))
        if (photons.exposed[i] * keep[i]).sum() < 0.02 * N_TIME_BINS:
            keep[i] = True
    exposed = photons.exposed * keep
    left = exposed.sum(axis=1) / photons.exposed.sum(axis=1)
    inside = keep[photons.source_index, photons.time_bin]
    photons = photons.select(inside).replace(
        exposed=exposed, background=photons.background * left[:, None].astype(np.float32))
    if truth is None:
        return photons, None
    share = truth.share * keep[:, None]
    kept = share.mean(axis=2, dtype=np.float32)
    expected = truth.expected * np.column_stack([kept, left])[:, :, None].astype(np.float32)
    before, after = (e[:, :, :19].sum(axis=(1, 2)) for e in (truth.expected, expected))
    change = np.log(np.maximum(after, 1e-6) / before / left)
    return photons, replace(
        truth, share=(share / np.maximum(kept, 1e-6)[:, :, None]).astype(np.float16),
        expected=expected,
        log_relative_rate=(truth.log_relative_rate - change[:, None]).astype(np.float16))


def with_other_areas(photons, truth, rng):
    """See some sources through other effective areas, by `other_transmissions`."""
    transmission = other_transmissions(len(photons), rng)
    changed = (transmission < 1).any(axis=1)
    seen = seen_through(photons, transmission, rng)
    seen = seen.replace(arf=np.where(changed[:, None], seen.arf, photons.arf))
    expected, targets = truth.expected * transmission[:, None], truth.targets.copy()
    soft, hard = (expected[:, :2, band].sum(axis=(1, 2)) for band in (quantities.SOFT,
                                                                      quantities.HARD))
    hardness, variability = (list(TARGETS).index(name) for name in ("hardness",
                                                                    "fractional_variability"))
    known = changed & np.isfinite(targets[:, hardness])
    targets[known, hardness] = ((hard - soft) / (hard + soft))[known]
    # How much the sum of two components varies depends on which of them is dimmed. What happens
    # inside the time bins is not known of each, and left as it is: it changes by 0.1 dex at most.
    before, after = (_variance(truth.share, of_all, photons.exposed)
                     for of_all in (truth.expected, expected))
    shown = changed & (before > 0.5 * 100 ** targets[:, variability])
    targets[shown, variability] += 0.5 * np.log10(after[shown] / before[shown])
    return seen, replace(truth, expected=expected, targets=targets)


def _variance(share, expected, exposed):
    """Variance over time of the sum of the two components, over its mean squared, shape (n,)."""
    weight = exposed / exposed.sum(axis=1, keepdims=True)
    seen = expected[:, :2, :19].sum(axis=2)
    curve = share / np.maximum(N_TIME_BINS * weight, 1e-9)[:, None] - 1
    rate = np.einsum("nk,nkt->nt", seen / seen.sum(axis=1, keepdims=True), curve)
    return np.einsum("nt,nt,nt->n", rate, rate, weight)


# ---- how a rate is scored ----------------------------------------------------------------------
class _HeldOut:
    """Scores a shape by photons that were not shown."""

    def __init__(self, cells, n):
        self.cells = cells
        self.weight = torch.zeros(n).index_add(0, cells.source, cells.counts)

    def per_photon(self, shape, batch):
        """Log-likelihood per photon, shape (n,)."""
        return log_likelihood(shape, batch, self.cells) / self.weight.clamp(min=1)


class _Expected:
    """Scores a shape by the true density of photons, at every ``step``-th time bin."""

    def __init__(self, truth, exposed, rng, step):
        self.first, self.step = int(rng.integers(step)), step
        share = torch.as_tensor(truth.share).float() / N_TIME_BINS
        expected = torch.as_tensor(truth.expected)
        steady = exposed / exposed.sum(dim=1, keepdim=True)
        share = torch.cat([share, steady[:, None]], dim=1)[:, :, self.first::step]
        self.weight = expected.sum(dim=(1, 2))
        scale = step / self.weight
        with torch.autocast(exposed.device.type, enabled=False):
            self.density = (share.transpose(1, 2) @ expected) * scale[:, None, None]

    def per_photon(self, shape, batch):
        """Expected log-likelihood per photon, shape (n,)."""
        return expected_log_likelihood(shape, batch, self.density, first=self.first,
                                       step=self.step)


def show(photons, rng, *, tiny, everything):
    """Split photons at random into those shown and the others; see `share_shown`.

    Returns
    -------
    shown, others : Photons
    """
    return photons.thin(share_shown(photons, rng, tiny=tiny, everything=everything), rng)


def share_shown(photons, rng, *, tiny, everything):
    """Probability of a photon of each source to be shown.

    Parameters
    ----------
    photons : Photons
    rng : numpy.random.Generator
    tiny, everything : float
        Shares of the sources of which very few photons, or all are shown.

    Returns
    -------
    ndarray, shape (n,)
    """
    n = len(photons)
    few = 10 ** rng.uniform(-0.3, np.log10(np.maximum(photons.n_photons, 2)))
    kind = rng.random(n)
    fraction = np.where(kind < tiny, few / np.maximum(photons.n_photons, 1),
                        rng.uniform(0.25, 0.85, n))
    return np.where(kind > 1 - everything, 1.0, np.minimum(fraction, 0.95))


def _shown(photons, truth, rng, *, step):
    """What is shown as a batch, how predictions are scored, and the photons not shown.

    With truth, only every ``step``-th time bin is scored, to save time.
    """
    # Without truth there is nothing to learn from a source all of whose photons are shown.
    everything = 0.25 if truth is not None else 0.0
    shown, others = show(photons, rng, tiny=0.15, everything=everything)
    cells = Cells.from_photons(others)
    batch = make_batch(shown, also_counted=cells)
    score = (_HeldOut(cells, len(photons)) if truth is None
             else _Expected(truth, batch.exposed, rng, step))
    return batch, score, others


def mean_score(score, shape, batch):
    """Mean log-likelihood per photon of all sources, bright ones with somewhat less weight."""
    # The weight of a source grows with the square root of its photons: bright sources teach the
    # curve's detail, faint ones are the many.
    weight = score.weight * torch.rsqrt(score.weight + 20)
    return (score.per_photon(shape, batch) * weight).sum() / weight.sum().clamp(min=1)


def _first_pass(networks, batch):
    latent, _, _ = networks["first_pass"](batch, smoothed(batch.per_bin, batch.exposed))
    return networks["decoder"](latent, batch.log_area)


def first_pass_loss(model, networks, photons, truth, rng, torch_rng):
    """Loss of decoder and first pass: rate, size of the latent, descriptors."""
    batch, score, _ = _shown(photons, truth, rng, step=2)
    curves = smoothed(batch.per_bin, batch.exposed)
    latent, _, raw = networks["first_pass"](batch, curves)
    noise = torch.randn(latent.shape, generator=torch_rng, device="cpu").to(latent.device)
    noise = model.latent_noise * noise
    shape = networks["decoder"](latent + noise, batch.log_area)
    loss = (model.latent_penalty * latent.square().mean() - mean_score(score, shape, batch))
    if truth is not None:
        loss = loss + DESCRIPTOR_WEIGHT * descriptor_loss(
            raw, torch.as_tensor(truth.targets), torch.as_tensor(truth.time_shape).long())
    return loss


@torch.no_grad()
def _fixed_first_pass(networks, batch):
    curves = smoothed(batch.per_bin, batch.exposed)
    latent, hidden, _ = networks["first_pass"](batch, curves)
    return curves, latent, hidden


def refine(networks, batch):
    """Refined pass behind a first pass that is not trained any more."""
    return networks["refinement"](batch, *_fixed_first_pass(networks, batch), networks["decoder"])


def _refined_shape(networks, batch):
    return refine(networks, batch).shape


def _mixed_first_pass(networks, batch):
    curves, latent, hidden = _fixed_first_pass(networks, batch)
    with torch.no_grad():
        decoded = networks["decoder"](latent, batch.log_area)
    log_rate = decoded.log_relative_rate(batch.exposed)
    return decoded.moved(networks["mixture"](log_rate, hidden, curves) - log_rate)


def local_mixture_loss(model, networks, photons, truth, rng, torch_rng):
    """Loss of the mixture of the first pass."""
    batch, score, _ = _shown(photons, truth, rng, step=2)
    return -mean_score(score, _mixed_first_pass(networks, batch), batch)


def refinement_loss(model, networks, photons, truth, rng, torch_rng):
    """Loss of the refinement: rate, rate of the latent alone, sub-bins, intervals."""
    batch, score, others = _shown(photons, truth, rng, step=4)
    refined = refine(networks, batch)
    fine = networks["refinement"].fine(batch, refined.shape)
    loss = (model.latent_penalty * refined.latent.square().mean()
            - mean_score(score, refined.shape, batch)
            - 0.5 * mean_score(score, refined.decoded, batch)
            - sub_bin_score(fine, others, score.weight))
    if truth is None:
        batch, refined, fine, truth = _with_known_truth(networks, photons, rng)
    return loss + INTERVAL_WEIGHT * interval_loss(refined, batch, fine, truth)


def intervals_loss(model, networks, photons, truth, rng, torch_rng):
    """Loss of the sub-bins and intervals around the final estimate."""
    batch, score, others = _shown(photons, truth, rng, step=4)
    refined = refine(networks, batch)
    fine = networks["refinement"].fine(batch, refined.shape)
    loss = -sub_bin_score(fine, others, score.weight)
    if truth is None:
        batch, refined, fine, truth = _with_known_truth(networks, photons, rng)
    with torch.no_grad():
        fine = fine + torch.log(pulsations(batch, refined.shape, fine))
    return loss + interval_loss(refined, batch, fine, truth)


def sub_bin_score(fine, others, expected):
    """Log-likelihood per photon of where in their time bins the photons not shown fall."""
    weight = torch.rsqrt(expected + 20)
    of_source = (fine * fine_counts(others)).sum(dim=1)
    return (of_source * weight).sum() / (weight * expected).sum().clamp(min=1)


def _with_known_truth(networks, photons, rng):
    """For real sources the present estimate is the truth of photons drawn from it."""
    photons, truth = redraw(networks, photons, rng)
    batch = _shown(photons, truth, rng, step=4)[0]
    refined = refine(networks, batch)
    return batch, refined, networks["refinement"].fine(batch, refined.shape), truth


def interval_loss(refined, batch, fine, truth):
    """Minus log-density of the true rate at random times."""
    estimate = (total_log_rate(refined.shape, batch).repeat_interleave(SUB, dim=1) + fine).detach()
    cell = torch.as_tensor(truth.cell).long()[:, :, None]
    estimate = estimate.reshape(len(estimate), RUNS, -1).gather(2, cell)[:, :, 0]
    true = torch.as_tensor(truth.log_relative_rate).float()
    seen = batch.exposed.reshape(len(estimate), RUNS, -1)
    seen = seen.gather(2, cell // SUB)[:, :, 0] > 0
    miss = torch.where(seen, true - estimate, torch.nan)
    missed = mixture_loss(mixture(refined.log_rate_intervals), miss)
    return missed.sum() / seen.sum().clamp(min=1)


def posterior_loss(model, networks, photons, truth, rng, torch_rng):
    """Loss of the latent's posterior: the evidence lower bound of a neural process,

    .. math:: \\mathrm E_{q(z|AB)} \\log p(B|z) - \\mathrm{KL}[q(z|AB)\\,\\|\\,q(z|A)],

    where *A* is a random part of the photons, down to less than one, and *B* is the rest (Garnelo
    et al. 2018, arXiv:1807.01622).
    """
    shown, others = show(photons, rng, tiny=0.5, everything=0.0)
    cells, everything = Cells.from_photons(others), Cells.from_photons(photons)

    def posterior(part):
        batch = make_batch(part, also_counted=everything)
        with torch.no_grad():
            refined = refine(networks, batch)
        return batch, networks["spread"](refined, batch), refined.shape.g - refined.decoded.g

    _, from_some, offset = posterior(shown)
    batch, from_all, _ = posterior(photons)
    draw = from_all.draw(torch_rng)
    # The offset of the part shown: that of all photons would know the scored ones.
    shape = networks["decoder"](draw, batch.log_area).moved(offset)
    bound = (log_likelihood(shape, batch, cells)
             - kl_divergence(_distribution(from_all), _distribution(from_some)))
    # The bound is per source: each must be calibrated, however many photons it has.
    return -(bound / (1 + 0.01 * batch.n_photons)).mean()


def _distribution(posterior):
    # In double precision: narrow and wide directions differ by many powers of ten.
    mean, factor, log_scale = (x.double() for x in posterior)
    return LowRankMultivariateNormal(mean, factor, torch.exp(2 * log_scale), validate_args=False)


@torch.no_grad()
def redraw(networks, photons, rng):
    """Photons drawn from the refined rate of other photons, with that rate as their truth.

    Returns
    -------
    photons : Photons
    truth : Truth
        Only what the intervals are trained on has a meaning.
    """
    batch = make_batch(photons)
    shape = refine(networks, batch).shape
    in_time = torch.exp(shape.log_time(batch.exposed))
    in_energy = torch.exp(shape.log_energy).repeat_interleave(COLOUR_BIN, dim=1)
    fraction = batch.background_fraction[:, None, None]
    steady = batch.exposed / batch.exposed.sum(dim=1, keepdim=True)
    source = (1 - fraction) * in_time[:, :, None] * in_energy
    density = source + fraction * steady[:, :, None] * batch.background[:, None]
    number = rng.poisson(density.cpu().numpy() * photons.n_photons[:, None, None])
    cell = np.repeat(np.arange(number.size), number.ravel())
    bins, channel = np.divmod(cell, density.shape[2])
    phase = (bins % N_TIME_BINS + rng.random(len(bins))) / N_TIME_BINS
    drawn = photons.replace(
        offsets=np.concatenate([[0], np.cumsum(number.sum(axis=(1, 2)))]),
        phase=phase.astype(np.float32), channel=channel.astype(np.uint8))

    n, names = len(photons), list(TARGETS)
    at = rng.integers(32, size=(n, RUNS))
    log_rate = total_log_rate(shape, batch).cpu().numpy().reshape(n, RUNS, -1)
    targets = np.full((n, len(names)), np.nan, dtype=np.float32)
    by_energy = source.sum(dim=1).cpu().numpy()
    behind = (batch.background_fraction[:, None] * batch.background).cpu().numpy()
    expected = np.stack([by_energy, 0 * by_energy, behind], axis=1)
    expected *= photons.n_photons[:, None, None]
    soft, hard = by_energy[:, :10].sum(axis=1), by_energy[:, 10:19].sum(axis=1)
    targets[:, names.index("hardness")] = (hard - soft) / (hard + soft)
    deviation = np.exp(shape.log_relative_rate(batch.exposed).cpu().numpy()) - 1
    variance = (steady.cpu().numpy() * deviation**2).sum(axis=1)
    targets[:, names.index("fractional_variability")] = 0.5 * np.log10(np.maximum(variance, 1e-6))
    return drawn, Truth(
        share=np.zeros((n, 2, N_TIME_BINS), np.float16), cell=at.astype(np.uint8),
        expected=expected.clip(min=1e-6).astype(np.float32),
        targets=targets, time_shape=np.zeros(n, np.uint8),
        log_relative_rate=np.take_along_axis(log_rate, at[:, :, None] // SUB, axis=2)[:, :, 0])


def prepare_evidence(model, source, number, size):
    """Examples for the weights of the experts, from one chunk of sources."""
    rng = np.random.default_rng([model.seed, 3, number])
    photons, truth = with_gaps(*augment(*source.prepared(number, size, rng), rng), rng)
    shown, others = show(photons, rng, tiny=0.15, everything=0.2 if truth is not None else 0.0)
    made = examples(model, shown, others, truth)
    if truth is not None:
        return made
    # The curves learn from the photons not shown, the intervals from what is known to be true.
    photons, truth = redraw(model.networks_, photons, rng)
    shown, others = show(photons, rng, tiny=0.15, everything=0.0)
    known = examples(model, shown, others, truth)
    known["weight"] *= 0
    known["others"] *= 0
    return {name: np.concatenate([made[name], known[name]]) for name in made}


def prepare_descriptions(model, source, number, size):
    """Examples for the descriptors, from one chunk of sources."""
    rng = np.random.default_rng([model.seed, 4, number])
    photons, truth = source.prepared(number, size, rng)
    others, others_truth = with_other_areas(photons, truth, rng)
    # Each source twice, since simulating it takes longer than the first pass, the second time as
    # another camera sees it; one after the other, so that those held out are other sources.
    order = np.arange(2 * len(photons)).reshape(2, -1).T.ravel()
    shown, _ = show(Photons.concatenate([photons, others])[order], rng, tiny=0.1, everything=0.4)
    return describing.examples(model.infer(shown),
                               Truth.concatenate([truth, others_truth])[order])


def prepare_quantities(model, source, number, size):
    """Examples for hardness ratio, variability, parameters and spectrum, from some sources."""
    rng = np.random.default_rng([model.seed, 5, number])
    # Not those that the descriptors were learned from, of which they know too much.
    photons, truth = source.prepared(OTHERS + number, size, rng)
    if truth is None:
        photons, truth = redraw(model.networks_, photons, rng)
    photons, truth = with_other_areas(photons, truth, rng)
    fraction = share_shown(photons, rng, tiny=0.15, everything=0.2)
    inferred = model.infer(photons.thin(fraction, rng)[0])
    found = quantities.measured(inferred.batch, model.refine(inferred),
                                model.describe(inferred, readouts(inferred)))
    return quantities.examples(found, dict(zip(TARGETS, truth.targets.T)),
                               fraction[:, None] * truth.expected.sum(axis=1))


# ---- the loop ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Phase:
    """One phase of training: which networks it trains, on which loss, for how many steps.

    ``trained`` are beginnings of the parameters' names.
    ``predict(networks, batch)`` gives the rate that the training curve scores. ``gaps`` says
    whether more gaps are made: what works bin by bin has to know them all. A phase of one network
    that learns from `Prepared` sources has their class and the function that makes them in
    ``prepared``, and neither ``loss`` nor ``predict``. ``learning_rate`` is in units of the
    model's, and ``beta2`` is how much the optimiser remembers of the gradients' sizes.
    """

    name: str
    trained: tuple
    loss: object
    predict: object
    n_steps: int
    batch_size: int
    gaps: bool = True
    prepared: tuple | None = None
    weight_decay: float = 1e-4
    learning_rate: float = 1.0
    beta2: float = 0.98


def fit_model(model, sources, checkpoint, progress, device, path=None):
    """Train a model; see `PoissonAutodecoder.fit`.

    With ``path`` it is saved there, before the checkpoint is deleted.
    """
    from .latents import train_decoder
    from .model import one_thread

    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r} is asked for, and torch finds no GPU here; leave "
                         "it out to use the CPU")
    if not model.encoder:
        if isinstance(sources, SimulatedStream):
            raise ValueError("a model without encoder has a latent for each source, so it needs a "
                             "fixed set of them: give event lists or Photons, such as those of "
                             "simulate_photons()")
        model.networks_ = model._build()
        photons = sources if isinstance(sources, Photons) else Photons.from_events(sources)
        curve_file = None if checkpoint is None else _curve_file(checkpoint)
        with one_thread():
            _, model.curve_ = train_decoder(
                model.networks_["decoder"], photons, n_latent=model.n_latent,
                n_steps=model.n_steps, batch_size=model.batch_size,
                learning_rate=model.learning_rate, latent_penalty=0.5, seed=model.seed,
                checkpoint=checkpoint, progress=progress, curve_file=curve_file, device=device)
        model.training_ = about_sources(photons)
        model.networks_.eval()
        return
    if isinstance(sources, SimulatedStream):
        source = Simulated(sources)
    else:
        source = EventSet(sources if isinstance(sources, Photons)
                          else Photons.from_events(sources), model.seed)
    phases = [
        Phase("first pass", ("decoder", "first_pass"), first_pass_loss, _first_pass,
              model.n_steps, model.batch_size, gaps=False),
        Phase("mixture", ("mixture",), local_mixture_loss, _mixed_first_pass,
              model.n_steps // 10, model.batch_size),
        # Half the sources a step: the refinement gains more from more steps.
        Phase("refinement", ("refinement",), refinement_loss, _refined_shape,
              model.n_refinement_steps, model.batch_size // 2),
        # Of small differences between faint sources, large steps on few sources see only noise.
        Phase("finer refinement", ("refinement",), refinement_loss, _refined_shape,
              10 * model.n_refinement_steps // 11, 4 * model.batch_size,
              learning_rate=4 / 15, beta2=0.999),
        # What lies between the final estimate, pulsations included, and the truth.
        Phase("intervals", INTERVALS, intervals_loss, _refined_shape, model.n_posterior_steps,
              model.batch_size // 2),
        Phase("posterior", ("spread",), posterior_loss, _refined_shape,
              model.n_posterior_steps, model.batch_size // 2),
        Phase("experts", ("experts",), None, None, 6 * model.n_posterior_steps,
              model.batch_size // 2, prepared=(Weighed, prepare_evidence))]
    if isinstance(source, Simulated):
        phases.append(Phase("descriptors", ("describer",), None, None, 4 * model.n_steps // 5,
                            8 * model.batch_size, weight_decay=0.05,
                            prepared=(describing.Described, prepare_descriptions)))
    phases.append(Phase("quantities", ("quantities",), None, None, 20 * model.n_posterior_steps,
                        4 * model.batch_size, weight_decay=0.05,
                        prepared=(quantities.Measurements, prepare_quantities)))
    with _team(device), one_thread():
        run = _Run(model, source, phases, checkpoint, device, progress and _rank() == 0)
        with tqdm(total=run.total, initial=run.step, desc="training",
                  disable=not progress or _rank() > 0) as bar:
            while run.step < run.total:
                run.advance()
                bar.update()
                if run.step % EVERY == 0 or run.step in run.ends:
                    run.report(bar)
                    run.write()
    run.networks.load_state_dict(run.average)
    model.networks_ = run.networks.cpu().eval()
    model.curve_, model.training_ = run.curve, source.about
    if int(os.environ.get("RANK", 0)) == 0:
        if path is not None:
            model.save(path)
        if checkpoint is not None:
            Path(checkpoint).unlink(missing_ok=True)
            rmtree(_prepared_directory(checkpoint), ignore_errors=True)


class _Run:
    """State of one training: weights, their average, the optimiser, the step."""

    def __init__(self, model, source, phases, checkpoint, device, progress):
        self.progress = progress
        self.model, self.networks, self.source = model, model._build().to(device), source
        self.phases, self.checkpoint, self.device = phases, checkpoint, device
        self.ends = np.cumsum([phase.n_steps for phase in phases]).tolist()
        self.total = self.ends[-1]
        self.step, self.curve, self.losses = 0, [], []
        self.about = {"parameters": model.get_params(), "source": source.about}
        self.average = {k: v.clone() for k, v in self.networks.state_dict().items()}
        self.optimiser = self._optimiser()
        if checkpoint is not None and Path(checkpoint).exists():
            self._read()

    @property
    def phase(self):
        number = sum(self.step >= end for end in self.ends)
        return self.phases[min(number, len(self.phases) - 1)]

    @cached_property
    def prepared(self):
        """Sources that the present phase learns from; each process has its own."""
        kind, make = self.phase.prepared
        n_sources = kind.PER_STEP * self.phase.n_steps // _world_size()
        directory = None
        if self.checkpoint is not None:
            directory = _prepared_directory(self.checkpoint) / f"{self.phase.name}-{_rank()}"

        def chunk(model, number, source=self.source):
            return make(model, source, number * _world_size() + _rank(),
                        min(kind.CHUNK, max(n_sources, 2)))

        apart = self.source.apart
        return kind(self.model, self.networks, chunk, n_sources, directory, self.progress,
                    self.about | {"processes": _world_size()},
                    apart and partial(chunk, number=0, source=apart))

    @property
    def _network(self):
        return self.networks[self.phase.trained[0]]

    def _begin(self):
        return self.ends[self.phases.index(self.phase)] - self.phase.n_steps

    def _optimiser(self):
        chosen = []
        for name, parameter in self.networks.named_parameters():
            parameter.requires_grad_(name.startswith(self.phase.trained))
            if parameter.requires_grad:
                chosen.append(parameter)
        return torch.optim.AdamW(chosen, lr=self.model.learning_rate, betas=(0.9, self.phase.beta2),
                                 weight_decay=self.phase.weight_decay, fused=True)

    def _learning_rate(self):
        here = self.step - self._begin()
        peak = self.phase.learning_rate * self.model.learning_rate
        return (peak * min(1.0, (here + 1) / WARM_UP)
                * 0.5 * (1 + math.cos(math.pi * here / self.phase.n_steps)))

    def advance(self):
        """One step of the optimiser."""
        phase = self.phase
        if self.step and self.step == self._begin():  # go on from the average of the last phase
            self.networks.load_state_dict(self.average)
            vars(self).pop("prepared", None)
            if phase.prepared:
                self.prepared.start(self._network)
                _share(self._network.buffers())
                self.average = {k: v.clone() for k, v in self.networks.state_dict().items()}
            self.optimiser = self._optimiser()
        # Everything random in a step follows from (seed, step, rank): a resumed run is the same.
        rng = np.random.default_rng([self.model.seed, 2, self.step, _rank()])
        torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        size = max(1, phase.batch_size // _world_size())
        if phase.prepared:
            with self.device:
                loss = self.prepared.loss(self._network, self.prepared.draw(size, rng))
        else:
            photons, truth = augment(*self.source.draw(self.step, size, rng), rng)
            if phase.gaps:
                photons, truth = with_gaps(photons, truth, rng)
            with self.device, bfloat16_if_fast(self.device):
                loss = phase.loss(self.model, self.networks, photons, truth, rng, torch_rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = self.optimiser.param_groups[0]["params"]
        _average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()
        self.losses.append(loss.item())
        here = self.step + 1 - self._begin()
        self.step += 1
        if here % 4 == 0 or self.step in self.ends:
            keep = min(EMA, (1 + here) / (10 + here)) ** 4
            now = self.networks.state_dict()
            torch._foreach_lerp_([self.average[k] for k in now], list(now.values()), 1 - keep)

    def report(self, bar):
        """One more line of the training curve."""
        phase = self.phases[sum(self.step > end for end in self.ends)]  # the one just worked on
        with self.device:
            gain = held_out_gain(self.networks, self.average, self.source.held_out, phase,
                                 self.prepared if phase.prepared else None)
        self.curve.append({"step": self.step, "phase": phase.name,
                           "loss": float(np.mean(self.losses)), "gain": gain})
        self.losses.clear()
        if not bar.disable:
            bar.write(f"step {self.step:6d}  {phase.name}  loss {self.curve[-1]['loss']:8.4f}"
                      f"  held-out gain {gain:.4f} nat")

    def write(self):
        """Checkpoint, and the training curve beside it."""
        if self.checkpoint is None or _rank():
            return
        tensors = {f"now.{k}": v for k, v in self.networks.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        write_tensors(self.checkpoint, {k: v.cpu().numpy() for k, v in tensors.items()},
                      kind="checkpoint", version=4,
                      about=self.about | {"step": self.step, "curve": self.curve})
        _write_curve(_curve_file(self.checkpoint), self.curve)

    def _read(self):
        arrays, about = read_tensors(self.checkpoint, kind="checkpoint", version=4)
        if {k: about[k] for k in self.about} != self.about:
            raise ModelFileError(
                f"{self.checkpoint} belongs to a training with other parameters or sources: "
                "delete it, or give another checkpoint file")
        tensors = {k: torch.as_tensor(v.copy()).to(self.device) for k, v in arrays.items()}
        self.step, self.curve = about["step"], about["curve"]
        self.networks.load_state_dict(_under("now.", tensors))
        self.average = _under("average.", tensors)
        if self.step in self.ends:
            return  # between the phases: the next step starts a fresh optimiser
        self.optimiser = self._optimiser()
        state = {}
        for key, value in _under("optimiser.", tensors).items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})


def _prepared_directory(checkpoint):
    return _beside(checkpoint, ".prepared")


def _curve_file(checkpoint):
    return _beside(checkpoint, ".curve.ecsv")


def _beside(path, ending):
    # Any other dot is part of the name: run_lr0.01 and run_lr0.001 are two.
    path = Path(path)
    return path.with_name(path.name.removesuffix(".safetensors") + ending)


# ---- several processes -------------------------------------------------------------------------
def _rank():
    return distributed.get_rank() if distributed.is_initialized() else 0


def _world_size():
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _share(tensors):
    """Replace tensors by their mean over all processes."""
    if _world_size() > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor)
            tensor /= _world_size()


def _average_gradients(parameters):
    """Mean of the gradients over all processes of a `torchrun`, as one message."""
    if _world_size() == 1:
        return
    for p in parameters:  # what a loss does not reach must not change the message's length
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    distributed.all_reduce(flat)
    flat /= _world_size()
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(g.reshape(p.shape))


@torch.no_grad()
def held_out_gain(networks, weights, photons, phase, prepared=None):
    """Gain in log-likelihood per held-out photon over a constant source of the same spectrum.

    Of descriptors, per source over knowing the population; of quantities, over equal weights.
    """
    current = {k: v.clone() for k, v in networks.state_dict().items()}
    networks.load_state_dict(weights)
    if prepared is not None:
        gain = prepared.gain(networks[phase.trained[0]])
        networks.load_state_dict(current)
        return gain
    gain = total = 0.0
    for first in range(0, len(photons), 250):
        rng = np.random.default_rng(first)
        shown, scored = photons[first:first + 250].thin(0.5, rng)
        cells = Cells.from_photons(scored)
        batch = make_batch(shown, also_counted=cells)
        predicted = log_likelihood(phase.predict(networks, batch), batch, cells)
        spectrum = torch.log(batch.colours.sum(dim=1) + 0.5)
        spectrum = spectrum - torch.logsumexp(spectrum, dim=1, keepdim=True)
        in_time = torch.log(batch.exposed / batch.exposed.sum(dim=1, keepdim=True))
        constant = (in_time.reshape(-1)[cells.in_time] + spectrum.reshape(-1)[cells.in_channel])
        gain += predicted.sum().item() - (constant * cells.counts).sum().item()
        total += cells.counts.sum().item()
    networks.load_state_dict(current)
    return gain / max(total, 1)


def train(path, *, n_sources=614_400, seed=0, n_steps=20_000, n_refinement_steps=11_000,
          n_posterior_steps=1_500, n_workers=1, device=None, progress=True):
    """Simulate a population, train the autodecoder on it, and save the model.

    This is the command behind `stingray-align train`, and what made the bundled weights. It can
    be interrupted at any time: run again with the same arguments, it goes on from its last
    checkpoint and ends with the same model. Started by ``torchrun``, several processes share the
    work.

    Parameters
    ----------
    path : path-like
        Model file to write; simulated sources, checkpoint and training curve lie beside it
        meanwhile.
    n_sources : int
        Different simulated sources, in steps of 512; they are used again if there are more steps.
    seed : int
        Seeds population and training.
    n_steps, n_refinement_steps, n_posterior_steps : int
        As in `PoissonAutodecoder`.
    n_workers : int
        Processes that simulate ahead; 0 simulates in between.
    device : {None, "cpu", "cuda"}
        The GPU, if there is one, by default.
    progress : bool
        Print the training curve and show progress bars.

    Returns
    -------
    PoissonAutodecoder
    """
    from .model import PoissonAutodecoder

    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name the file to write")
    stream = SimulatedStream(_beside(path, ".stream"), seed, max(1, n_sources // 512),
                             n_workers=n_workers)
    begin = time.monotonic()
    model = PoissonAutodecoder(n_steps=n_steps, n_refinement_steps=n_refinement_steps,
                               n_posterior_steps=n_posterior_steps, seed=seed)
    try:
        fit_model(model, stream, _beside(path, ".checkpoint.safetensors"), progress, device,
                  path)
    finally:
        stream.close()
    if int(os.environ.get("RANK", 0)) == 0:
        stream.delete()
        if progress:
            print(f"wrote {path} after {(time.monotonic() - begin) / 60:.0f} minutes of training")
    return model
