"""Training by random thinning: encode some of a source's photons, score the others.

A Poisson process split at random gives two independent Poisson processes with the same rate
shape. So a latent found from one part is scored by the likelihood of the other part, and neither
the networks nor the latents can gain by copying noise; no smoothness penalty is needed.

The posterior covariance is learned afterwards, with everything else fixed, from the evidence lower
bound of a neural process (Garnelo et al. 2018, arXiv:1807.01622),

.. math:: \\mathrm E_{q(z|AB)} \\log p(B|z) - \\mathrm{KL}[q(z|AB)\\,\\|\\,q(z|A)],

where *A* is a random part of the photons, down to less than one, and *B* is the rest.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.distributions import LowRankMultivariateNormal, kl_divergence
from tqdm import tqdm

from .._files import read_tensors, write_tensors
from ..errors import ModelFileError
from ..photons import N_TIME_BINS, Photons
from .batch import Cells, make_batch
from .inference import smoothed
from .likelihood import log_likelihood

__all__ = ["fit_networks", "train"]

WARM_UP = 500
EVERY = 1000  # steps between lines of the training curve, and between checkpoints
EMA = 0.999
SPREAD = "inference.spread"  # parameters whose names start so belong to the posterior covariance


def fit_networks(model, photons, checkpoint, progress):
    """Train the networks of a model; see `PoissonAutodecoder.fit`.

    Returns
    -------
    networks : torch.nn.ModuleDict
        With the running average of the weights.
    curve : list of dict
    """
    from .model import one_thread

    photons, held_out = _validation_split(photons, model.seed)
    networks = model._build()
    run = _Run(model, networks, len(photons), checkpoint)
    total = model.n_steps + model.n_posterior_steps
    with one_thread(), tqdm(total=total, initial=run.step, disable=not progress,
                            desc="training") as bar:
        while run.step < total:
            run.advance(photons)
            bar.update()
            if run.step % EVERY == 0 or run.step == total:
                _report(run, held_out, bar, progress)
                run.write()
    networks.load_state_dict(run.average)
    networks.eval()
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return networks, run.curve


def _validation_split(photons, seed):
    order = np.random.default_rng([seed, 1]).permutation(len(photons))
    n = min(1000, max(1, len(photons) // 10))
    return photons[order[n:]], photons[order[:n]]


def _report(run, held_out, bar, progress):
    gain = held_out_gain(run.networks, run.average, held_out)
    run.curve.append({"step": run.step, "loss": run.mean_loss(), "gain": gain})
    if progress:
        bar.write(f"step {run.step:6d}  loss {run.curve[-1]['loss']:8.4f}  "
                  f"held-out gain {gain:.4f} nat per photon")


class _Run:
    """State of one training: weights, their average, the optimiser, the step."""

    def __init__(self, model, networks, n_sources, checkpoint):
        self.model, self.networks, self.checkpoint = model, networks, checkpoint
        self.step, self.curve, self.losses = 0, [], []
        self.about = {"parameters": model.get_params(), "n_sources": n_sources}
        self.average = {k: v.clone() for k, v in networks.state_dict().items()}
        self.optimiser = self._optimiser()
        if checkpoint is not None and Path(checkpoint).exists():
            self._read()

    @property
    def posterior_phase(self):
        return self.step >= self.model.n_steps

    def _optimiser(self):
        chosen = []
        for name, parameter in self.networks.named_parameters():
            parameter.requires_grad_(name.startswith(SPREAD) == self.posterior_phase)
            if parameter.requires_grad:
                chosen.append(parameter)
        return torch.optim.AdamW(chosen, lr=self.model.learning_rate, betas=(0.9, 0.98),
                                 weight_decay=1e-4, fused=True)

    def _learning_rate(self):
        first = self.model.n_steps if self.posterior_phase else 0
        length = self.model.n_posterior_steps if self.posterior_phase else self.model.n_steps
        here = self.step - first
        return (self.model.learning_rate * min(1.0, (here + 1) / WARM_UP)
                * 0.5 * (1 + math.cos(math.pi * here / length)))

    def advance(self, photons):
        if self.step == self.model.n_steps:  # the curve is done: go on from its average
            self.networks.load_state_dict(self.average)
            self.optimiser = self._optimiser()
            self.losses.clear()
        # Everything random in a step follows from (seed, step), so a resumed run is the same run.
        rng = np.random.default_rng([self.model.seed, 2, self.step])
        torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = rng.choice(len(photons), min(self.model.batch_size, len(photons)), replace=False)
        part = augment(photons[chosen], rng)
        loss_of = _posterior_loss if self.posterior_phase else _curve_loss
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(self.model, self.networks, part, rng, torch_rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], 1.0)
        self.optimiser.step()
        self.losses.append(loss.item())
        self.step += 1
        if self.step % 4 == 0:
            keep = min(EMA, (1 + self.step) / (10 + self.step)) ** 4
            now = self.networks.state_dict()
            torch._foreach_lerp_([self.average[k] for k in now], list(now.values()), 1 - keep)

    def mean_loss(self):
        return float(np.mean(self.losses[-EVERY:]))

    def write(self):
        if self.checkpoint is None:
            return
        tensors = {f"now.{k}": v for k, v in self.networks.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        write_tensors(self.checkpoint, {k: v.numpy() for k, v in tensors.items()},
                      kind="checkpoint", version=1,
                      about=self.about | {"step": self.step, "curve": self.curve})

    def _read(self):
        arrays, about = read_tensors(self.checkpoint, kind="checkpoint", version=1)
        if {k: about[k] for k in self.about} != self.about:
            raise ModelFileError(
                f"{self.checkpoint} belongs to a training with other parameters or sources: "
                "delete it, or give another checkpoint file")
        tensors = {k: torch.from_numpy(v.copy()) for k, v in arrays.items()}
        self.step, self.curve = about["step"], about["curve"]
        self.networks.load_state_dict(_under("now.", tensors))
        self.average = _under("average.", tensors)
        if self.step == self.model.n_steps:
            return  # between the phases: the next step starts a fresh optimiser
        self.optimiser = self._optimiser()
        state = {}
        for key, value in _under("optimiser.", tensors).items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})


def _under(prefix, tensors):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def augment(photons, rng):
    """Shift some windows in a circle, and reverse others in time; new sources at no cost."""
    n, of = len(photons), photons.source_index
    bins = np.where(rng.random(n) < 0.3, rng.integers(N_TIME_BINS, size=n), 0)
    back = rng.random(n) < 0.25
    phase = photons.phase + (bins / N_TIME_BINS).astype(np.float32)[of]
    phase -= np.floor(phase)
    phase = np.where(back[of], 1 - phase, phase)
    moved = (np.arange(N_TIME_BINS) - bins[:, None]) % N_TIME_BINS
    moved = np.where(back[:, None], moved[:, ::-1], moved)
    exposed = np.take_along_axis(photons.exposed, moved, axis=1)
    return photons.replace(phase=phase, exposed=exposed)


def _random_part(photons, rng, tiny):
    """Split photons; a share ``tiny`` of the sources keeps very few of them in the first part."""
    n = len(photons)
    few = 10 ** rng.uniform(-0.3, np.log10(np.maximum(photons.n_photons, 2)))
    fraction = np.where(rng.random(n) < tiny, few / np.maximum(photons.n_photons, 1),
                        rng.uniform(0.25, 0.85, n))
    return photons.thin(np.minimum(fraction, 0.95), rng)


def _per_photon(log_likelihoods, cells):
    # The weight of a source grows with the square root of its photons: bright sources teach the
    # curve's detail, faint ones are the many.
    n = torch.zeros(len(log_likelihoods)).index_add(0, cells.source, cells.counts)
    weight = torch.rsqrt(n + 20)
    return (log_likelihoods * weight).sum() / (n * weight).sum().clamp(min=1)


def _refined(networks, batch, blur):
    """Refined latent with what is remembered, the rate it decodes to, and the mixed rate."""
    decoder, inference = networks["decoder"], networks["inference"]
    curves = smoothed(batch.per_bin, batch.exposed)
    guess, hidden = inference.first_guess(batch, curves)
    with torch.no_grad():
        guessed = decoder(blur(guess))
    latent, hidden = inference.refined(guess, hidden, guessed, batch)
    decoded = decoder(blur(latent))
    log_rate = decoded.log_relative_rate(batch.exposed)
    return latent, hidden, decoded, decoded.moved(
        inference.mixture(log_rate, hidden, curves) - log_rate)


def _curve_loss(model, networks, photons, rng, torch_rng):
    shown, scored = _random_part(photons, rng, tiny=0.15)
    cells = Cells.from_photons(scored)
    batch = make_batch(shown, also_counted=cells)

    def blur(z):
        return z + model.latent_noise * torch.randn(z.shape, generator=torch_rng)

    latent, _, decoded, mixed = _refined(networks, batch, blur)
    of_latent, of_mixture = (_per_photon(log_likelihood(shape, batch, cells), cells)
                             for shape in (decoded, mixed))
    return model.latent_penalty * latent.square().mean() - of_latent - of_mixture


def _posterior_loss(model, networks, photons, rng, torch_rng):
    shown, scored = _random_part(photons, rng, tiny=0.5)
    cells, everything = Cells.from_photons(scored), Cells.from_photons(photons)
    decoder, inference = networks["decoder"], networks["inference"]

    def posterior(part):
        batch = make_batch(part, also_counted=everything)
        with torch.no_grad():
            latent, hidden, decoded, mixed = _refined(networks, batch, lambda z: z)
        return batch, inference.posterior(latent, hidden, batch), mixed.g - decoded.g

    _, from_some, offset = posterior(shown)
    batch, from_all, _ = posterior(photons)
    draw = from_all.draw(torch_rng)
    # The offset of the part shown: that of all photons would know the scored ones.
    score = log_likelihood(decoder(draw).moved(offset), batch, cells)
    bound = score - kl_divergence(_distribution(from_all), _distribution(from_some))
    # The bound is per source: each must be calibrated, however many photons it has.
    return -(bound / (1 + 0.01 * batch.n_photons)).mean()


def _distribution(posterior):
    # In double precision: narrow and wide directions differ by many powers of ten.
    mean, factor, log_scale = (x.double() for x in posterior)
    return LowRankMultivariateNormal(mean, factor, torch.exp(2 * log_scale), validate_args=False)


@torch.no_grad()
def held_out_gain(networks, weights, photons):
    """Gain in log-likelihood per held-out photon over a constant source of the same spectrum."""
    current = {k: v.clone() for k, v in networks.state_dict().items()}
    networks.load_state_dict(weights)
    gain = total = 0.0
    for first in range(0, len(photons), 250):
        rng = np.random.default_rng(first)
        shown, scored = photons[first:first + 250].thin(0.5, rng)
        cells = Cells.from_photons(scored)
        batch = make_batch(shown, also_counted=cells)
        mixed = _refined(networks, batch, lambda z: z)[-1]
        model = log_likelihood(mixed, batch, cells)
        spectrum = torch.log(batch.colours.sum(dim=1) + 0.5)
        spectrum = spectrum - torch.logsumexp(spectrum, dim=1, keepdim=True)
        in_time = torch.log(batch.exposed / batch.exposed.sum(dim=1, keepdim=True))
        constant = (in_time.reshape(-1)[cells.in_time] + spectrum.reshape(-1)[cells.in_channel])
        gain += model.sum().item() - (constant * cells.counts).sum().item()
        total += cells.counts.sum().item()
    networks.load_state_dict(current)
    return gain / max(total, 1)


def train(path, *, n_sources=200_000, seed=0, n_steps=20_000, n_posterior_steps=3_000,
          progress=True):
    """Simulate a population, train the autodecoder on it, and save the model.

    This is the command behind `stingray-align train`, and what made the bundled weights. It can
    be interrupted at any time: run again with the same arguments, it goes on from its last
    checkpoint.

    Parameters
    ----------
    path : path-like
        Model file to write; the simulated photons and the checkpoint lie beside it meanwhile.
    n_sources : int
        Simulated sources, different in every parameter.
    seed : int
        Seeds population and training.
    n_steps, n_posterior_steps : int
        As in `PoissonAutodecoder`.
    progress : bool
        Print the training curve and show progress bars.

    Returns
    -------
    PoissonAutodecoder
    """
    from ..datasets import simulate_photons
    from .model import PoissonAutodecoder

    path = Path(path)
    store = path.with_suffix(f".photons-{n_sources}-{seed}.safetensors")
    if store.exists():
        photons = _read_photons(store)
    else:
        photons = simulate_photons(n_sources, seed, counts="training")
        write_tensors(store, _as_arrays(photons), kind="photons", version=1, about={})
    begin = time.monotonic()
    model = PoissonAutodecoder(n_steps=n_steps, n_posterior_steps=n_posterior_steps, seed=seed)
    model.fit(photons, checkpoint=path.with_suffix(".checkpoint.safetensors"), progress=progress)
    model.training_ |= {"population": "simulated", "population_seed": seed}
    model.save(path)
    store.unlink()
    if progress:
        print(f"wrote {path} after {(time.monotonic() - begin) / 60:.0f} minutes of training")
    return model


def _as_arrays(photons):
    names, instrument = np.unique(photons.instrument, return_inverse=True)
    arrays = {name: getattr(photons, name) for name in Photons.ARRAYS}
    arrays["exposed"] = photons.exposed.astype(np.float16)
    return arrays | {"instrument": instrument.astype(np.uint8),
                     "names": np.frombuffer("\n".join(names).encode(), dtype=np.uint8)}


def _read_photons(path):
    arrays, _ = read_tensors(path, kind="photons", version=1)
    names = np.array(arrays.pop("names").tobytes().decode().split("\n"))
    arrays["instrument"] = names[arrays["instrument"]]
    return Photons(**arrays)
