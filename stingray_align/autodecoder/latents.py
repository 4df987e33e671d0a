"""The autodecoder without an encoder: one latent per source, found by optimisation.

Decoder and latents are trained together, each source's latent :math:`z_i` as free parameters, on

.. math:: \\sum_i w_i \\left[-\\log L_i(z_i) + \\beta\\,|z_i|^2\\right]

(Song et al. 2025, arXiv:2502.01627; auto-decoders: Park et al. 2019, arXiv:1901.05103). The weight
:math:`w_i` decides what the decoder learns from; the latent's own optimum does not depend on it.
The latent of a new source is found with the decoder fixed.

Two things keep a latent from memorising its source's photons one by one, where the penalty alone
does not: in each step the latents are blurred with Gaussian noise, and where sources are few,
copies that are shifted in a circle and reversed in time, with latents of their own, teach the
decoder more curves than there are sources.

Several processes, as ``torchrun`` starts them, share the work: each keeps the latents of its own
sources and only the decoder's gradients are added up. Which sources make up a step does not depend
on the number of processes, so they all train the same decoder that one process would.
"""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from .._files import atomic_file, read_tensors, write_tensors
from ..errors import ModelFileError
from ..photons import N_TIME_BINS, Photons
from .batch import Cells, make_batch
from .likelihood import log_likelihood

__all__ = ["ShapeObjective", "optimise_latents", "train_decoder"]

WARM_UP = 500
EVERY = 200  # steps between lines of the training curve, and between checkpoints
CHUNK = 256  # sources whose latents are optimised together
ENOUGH = 50  # steps that a latent should see before there are copies of its source


class ShapeObjective:
    """What is optimised: the multinomial likelihood of the shape of a photon rate.

    Any object with these methods can take its place.
    """

    def prepare(self, photons):
        """Tensors of some sources, made once however often the likelihood is evaluated."""
        return make_batch(photons)

    def misfit(self, decoder, latents, batch):
        """Negative log-likelihood of each source's photons, shape (n,)."""
        return -log_likelihood(decoder(latents, batch.log_area), batch, batch.cells)

    def weight(self, batch):
        """How much the decoder learns from each source, shape (n,).

        The weight of a source grows with the square root of its photons: bright sources teach
        the curve's detail, faint ones are the many.
        """
        return torch.rsqrt(batch.n_photons + 20)

    def gain(self, decoder, latents, shown, scored):
        """Log-likelihood of photons that the latents have not seen, over a constant's, shape (n,).

        The constant has the spectrum of the photons shown.
        """
        cells = Cells.from_photons(scored)
        batch = make_batch(shown, also_counted=cells)
        spectrum = torch.log_softmax(torch.log(batch.colours.sum(dim=1) + 0.5), dim=1)
        in_time = torch.log(batch.exposed / batch.exposed.sum(dim=1, keepdim=True))
        constant = in_time.reshape(-1)[cells.in_time] + spectrum.reshape(-1)[cells.in_channel]
        there, cells_there = _on(latents.device, batch), _on(latents.device, cells)
        model = log_likelihood(decoder(latents, there.log_area), there, cells_there).cpu()
        return model.index_add(0, cells.source, cells.counts * constant, alpha=-1)


def _on(device, batch):
    """A batch, or the cells of one, on another device."""
    if device.type == "cpu":
        return batch
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{
        name: value.to(device) if isinstance(value, torch.Tensor)
        else _on(device, value) if isinstance(value, Cells) else value
        for name, value in values.items()})


@torch.inference_mode(False)
@torch.enable_grad()
def optimise_latents(decoder, photons, *, start, n_steps=400, learning_rate=0.03,
                     latent_penalty=0.5, latent_noise=0.6, objective=ShapeObjective(),
                     device=None):
    """Find the latents of new sources with the decoder fixed, by Adam.

    Parameters
    ----------
    decoder : torch.nn.Module
    photons : `~stingray_align.photons.Photons`
        ``n`` sources; each is optimised on its own, however many are given.
    start : array_like, shape (n_latent,) or (n, n_latent)
        Where to begin, such as the mean of the latents of the training, or a first guess.
    n_steps : int
        Steps for each source.
    learning_rate : float
    latent_penalty : float
        Weight of :math:`|z|^2` beside the log-likelihood in nats.
    latent_noise : float
        Standard deviation of the noise added to the latents in each step.
    objective : ShapeObjective
    device : {None, "cpu", "cuda"}
        The GPU, if there is one, by default.

    Returns
    -------
    Tensor, shape (n, n_latent)
        On the CPU.
    """
    device, home = _device(device), next(decoder.parameters()).device
    decoder.to(device)
    start = torch.as_tensor(start, dtype=torch.float32)
    # The same noise for all sources: what is found for one does not depend on the others.
    noises = torch.randn(n_steps, start.shape[-1], generator=torch.Generator().manual_seed(0))
    noises = latent_noise * noises.to(device)
    found = start.expand(len(photons), start.shape[-1]).clone()
    for first in range(0, len(photons), CHUNK):
        rows = slice(first, first + CHUNK)
        batch = _on(device, objective.prepare(photons[rows]))
        latents = found[rows].to(device).requires_grad_()
        optimiser = torch.optim.Adam([latents], lr=learning_rate)
        for noise in noises:
            loss = objective.misfit(decoder, latents + noise, batch).sum()
            loss = loss + latent_penalty * latents.square().sum()
            latents.grad, = torch.autograd.grad(loss, latents)
            optimiser.step()
        found[rows] = latents.detach().cpu()
    decoder.to(home)
    return found


def train_decoder(decoder, photons, *, n_latent, n_steps, batch_size, learning_rate,
                  seed, latent_learning_rate=0.15, latent_penalty=0.5, latent_noise=0.6,
                  max_copies=8, holdout=0.1, objective=ShapeObjective(), device=None,
                  checkpoint=None, progress=True, curve_file=None):
    """Train a decoder together with one latent for each source.

    Started by ``torchrun``, the processes share the sources; all return the same.

    Parameters
    ----------
    decoder : torch.nn.Module
        Changed in place.
    photons : `~stingray_align.photons.Photons`
        ``n`` sources.
    n_latent : int
        Entries of a latent.
    n_steps : int
        Optimiser steps.
    batch_size : int
        Sources per step, over all processes.
    learning_rate : float
        Peak of the warm-up and cosine schedule of AdamW.
    seed : int
        Seeds the order of the sources, the noise and which photons are held out.
    latent_learning_rate : float
        The same for the latents, which see few steps each.
    latent_penalty : float
        Weight of :math:`|z|^2` beside the log-likelihood in nats.
    latent_noise : float
        Standard deviation of the noise added to the latents in each step.
    max_copies : int
        Each source takes part in up to so many versions, shifted in a circle and reversed in
        time; in fewer if each would take part in less than fifty steps.
    holdout : float
        Share of the photons that is only used to report the gain on photons not seen.
    objective : ShapeObjective
    device : {None, "cpu", "cuda"}
        The GPU, if there is one, by default.
    checkpoint : path-like, optional
        File that holds the state of the training. If it exists, training goes on from there and
        ends with the same decoder as an undisturbed one. It is deleted at the end.
    progress : bool
        Print the training curve and show a progress bar.
    curve_file : path-like, optional
        ECSV table of the training curve, kept up to date during training.

    Returns
    -------
    latents : Tensor, shape (n, n_latent)
        On the CPU.
    curve : list of dict
        Step, mean weighted loss per source since the last line, and, if photons are held out,
        the gain over a constant source in nat per held-out photon.

    Raises
    ------
    stingray_align.errors.ModelFileError
        If the checkpoint belongs to another training.
    """
    with _team(_device(device)) as team:
        shown, scored = photons.thin(1 - holdout, np.random.default_rng([seed, 1]))
        n = len(photons)
        copies = max(1, min(max_copies, n_steps * batch_size // (ENOUGH * n)))
        shown = _with_copies(shown, copies, np.random.default_rng([seed, 4]))
        settings = {"n_latent": n_latent, "n_steps": n_steps, "batch_size": batch_size,
                    "learning_rate": learning_rate, "latent_learning_rate": latent_learning_rate,
                    "latent_penalty": latent_penalty, "latent_noise": latent_noise,
                    "seed": seed, "holdout": holdout, "copies": copies,
                    "decoder": {k: [*v.shape] for k, v in decoder.state_dict().items()},
                    **about_sources(photons)}
        run = _Run(decoder, objective, settings, team)
        if checkpoint is not None and Path(checkpoint).exists():
            run.read(checkpoint)
        with tqdm(total=n_steps, initial=run.step, disable=not progress or team.rank > 0,
                  desc="training") as bar:
            while run.step < n_steps:
                run.advance(shown)
                bar.update()
                if run.step % EVERY == 0 or run.step == n_steps:
                    line = run.report(shown, scored if holdout else None)
                    if checkpoint is not None:
                        run.write(checkpoint)
                    if curve_file is not None and team.rank == 0:
                        _write_curve(curve_file, run.curve)
                    if not bar.disable:
                        bar.write("  ".join(f"{name} {value:.6g}" for name, value in line.items()))
        latents = run.everyone(run.latents.value)[:n]
        team.wait()
        if checkpoint is not None and team.rank == 0:
            Path(checkpoint).unlink(missing_ok=True)
    decoder.cpu()
    return latents.cpu(), run.curve


def about_sources(photons):
    """What sources are known by: their number, that of their photons, and a hash of them all."""
    digest = hashlib.sha256("\n".join(photons.instrument).encode())
    for name in (*photons.ARRAYS, "arf"):
        digest.update(np.ascontiguousarray(getattr(photons, name)).tobytes())
    return {"n_sources": len(photons), "n_photons": int(photons.offsets[-1]),
            "sha256": digest.hexdigest()}


def _with_copies(photons, copies, rng):
    """Sources, then their copies: windows shifted in a circle, half of them reversed."""
    parts, n, of = [photons], len(photons), photons.source_index
    for _ in range(copies - 1):
        bins, back = rng.integers(N_TIME_BINS, size=n), rng.random(n) < 0.5
        phase = photons.phase + (bins / N_TIME_BINS).astype(np.float32)[of]
        phase -= np.floor(phase)
        moved = (np.arange(N_TIME_BINS) - bins[:, None]) % N_TIME_BINS
        moved = np.where(back[:, None], moved[:, ::-1], moved)
        parts.append(photons.replace(
            phase=np.where(back[of], 1 - phase, phase),
            exposed=np.take_along_axis(photons.exposed, moved, axis=1)))
    return Photons.concatenate(parts)


def _device(name):
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _Team(NamedTuple):
    """The processes that train together; each owns every ``size``-th source."""

    rank: int
    size: int
    device: torch.device

    def add_up(self, tensor):
        """Replace a tensor by its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self):
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def _team(device):
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield _Team(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield _Team(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if ours:
            dist.destroy_process_group()


class _Latents:
    """Latents of some sources, each with an Adam optimiser that only sees its own steps."""

    STATE = ("value", "mean", "square", "steps")

    def __init__(self, n, n_latent, device):
        self.value, self.mean, self.square = torch.zeros(3, n, n_latent, device=device)
        self.steps = torch.zeros(n, 1, device=device)

    def advance(self, rows, gradient, learning_rate, betas=(0.9, 0.99)):
        mean = betas[0] * self.mean[rows] + (1 - betas[0]) * gradient
        square = betas[1] * self.square[rows] + (1 - betas[1]) * gradient.square()
        steps = self.steps[rows] + 1
        self.mean[rows], self.square[rows], self.steps[rows] = mean, square, steps
        spread = torch.sqrt(square / (1 - betas[1] ** steps)) + 1e-8
        self.value[rows] -= learning_rate * mean / (1 - betas[0] ** steps) / spread


class _Run:
    """State of one training: decoder, the latents of this process's sources, the step."""

    def __init__(self, decoder, objective, settings, team):
        self.decoder, self.objective = decoder.to(team.device), objective
        self.settings, self.team = settings, team
        self.step, self.curve, self.losses = 0, [], []
        self.n_latents = settings["n_sources"] * settings["copies"]
        self.own = np.arange(team.rank, self.n_latents, team.size)
        self.latents = _Latents(len(self.own), settings["n_latent"], team.device)
        self.parameters = list(decoder.parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings["learning_rate"], betas=(0.9, 0.98), weight_decay=1e-4,
            fused=True)

    def _chosen(self):
        """Sources of this step: all of them in a new order, a batch at a time, then again."""
        n_parts = -(-self.n_latents // self.settings["batch_size"])
        turn, part = divmod(self.step, n_parts)
        rng = np.random.default_rng([self.settings["seed"], 2, turn])
        order = rng.permutation(self.n_latents)
        return order[part::n_parts]

    def _schedule(self):
        n_steps = self.settings["n_steps"]
        warm = min(1.0, (self.step + 1) / min(WARM_UP, 1 + n_steps // 10))
        return warm * 0.5 * (1 + math.cos(math.pi * self.step / n_steps))

    def advance(self, photons):
        # Everything random in a step follows from (seed, step), so a resumed run is the same run,
        # and is drawn for the sources of all processes, so that their number does not matter.
        settings, chosen, rate = self.settings, self._chosen(), self._schedule()
        noise = np.random.default_rng([settings["seed"], 3, self.step]).standard_normal(
            (len(chosen), settings["n_latent"]), dtype=np.float32) * settings["latent_noise"]
        here = chosen % self.team.size == self.team.rank
        mine = chosen[here]
        gradients = [torch.zeros_like(p) for p in self.parameters]
        loss = 0.0
        if len(mine):
            rows = torch.from_numpy(mine // self.team.size).to(self.team.device)
            latents = self.latents.value[rows].requires_grad_()
            batch = _on(self.team.device, self.objective.prepare(photons[mine]))
            blurred = latents + torch.from_numpy(noise[here]).to(self.team.device)
            misfit = self.objective.misfit(self.decoder, blurred, batch)
            misfit = misfit + settings["latent_penalty"] * latents.square().sum(dim=1)
            total = (self.objective.weight(batch) * misfit).sum() / len(chosen)
            *gradients, by_latent = torch.autograd.grad(total, [*self.parameters, latents])
            self.latents.advance(rows, by_latent, settings["latent_learning_rate"] * rate)
            loss = total.item()
        self._move_decoder(gradients, settings["learning_rate"] * rate)
        self.losses.append(loss)
        self.step += 1

    def _move_decoder(self, gradients, rate):
        flat = self.team.add_up(torch.cat([g.reshape(-1) for g in gradients]))
        sizes = [p.numel() for p in self.parameters]
        for parameter, gradient in zip(self.parameters, flat.split(sizes)):
            parameter.grad = gradient.view_as(parameter)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()

    @torch.no_grad()
    def report(self, shown, scored):
        """Add a line to the training curve."""
        sums = torch.tensor([np.mean(self.losses), 0, 0], dtype=torch.float64)
        if scored is not None:
            sources = self.own[self.own < self.settings["n_sources"]]  # of copies no photon is
            for first in range(0, len(sources), CHUNK):                # held out
                own = sources[first:first + CHUNK]
                latents = self.latents.value[first:first + len(own)]
                gain = self.objective.gain(self.decoder, latents, shown[own], scored[own])
                sums[1] += gain.sum()
                sums[2] += len(scored[own].phase)
        sums = self.team.add_up(sums.to(self.team.device)).tolist()
        line = {"step": self.step, "loss": sums[0]}
        if scored is not None:
            line["gain"] = sums[1] / max(sums[2], 1)
        self.losses.clear()
        self.curve.append(line)
        return line

    def everyone(self, values):
        """Rows of all latents from the rows of each process's own."""
        whole = torch.zeros(self.n_latents, values.shape[1], device=values.device)
        whole[self.team.rank::self.team.size] = values
        return self.team.add_up(whole)

    def write(self, path):
        """Keep the state; latents meet in one file, so that no two files can disagree."""
        tensors = {f"latents.{name}": self.everyone(getattr(self.latents, name))
                   for name in _Latents.STATE}
        if self.team.rank > 0:
            return
        tensors |= {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        write_tensors(path, {k: v.cpu().numpy() for k, v in tensors.items()},
                      kind="checkpoint", version=1,
                      about={"settings": self.settings, "step": self.step, "curve": self.curve})

    def read(self, path):
        arrays, about = read_tensors(path, kind="checkpoint", version=1)
        if about.get("settings") != self.settings:
            raise ModelFileError(
                f"{path} belongs to a training with other parameters or sources: "
                "delete it, or give another checkpoint file")
        tensors = {k: torch.from_numpy(v.copy()) for k, v in arrays.items()}
        self.step, self.curve = about["step"], about["curve"]
        self.decoder.load_state_dict(_under("decoder.", tensors))
        for name, value in _under("latents.", tensors).items():
            own = value[self.team.rank::self.team.size].to(self.team.device)
            setattr(self.latents, name, own.clone())
        state = {}
        for key, value in _under("optimiser.", tensors).items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})


def _under(prefix, tensors):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _write_curve(path, curve):
    from astropy.table import Table

    with atomic_file(path) as temporary:
        Table(rows=curve).write(temporary, format="ascii.ecsv", overwrite=True)
