"""The training loop of the aligner: batches, optimiser, early stopping, checkpoints."""

import contextlib
import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .._files import read_tensors, write_tensors

__all__ = ["Batches", "Fit", "Pairs", "Sizes", "identity_of", "sizes_for"]

_WARM_UP = 0.05  # share of the steps
_CHECKS = 30  # how often the validation score is looked at, and a checkpoint written
_PATIENCE = 10  # checks without a better score before training ends early
_FEW = 4000  # sources, for which batches and heads are smaller
_FEWEST_STEPS = 600
_KIND, _VERSION = "aligner checkpoint", 2


class Sizes(NamedTuple):
    """Of the heads and of their training."""

    n_hidden: int
    dropout: float
    batch_size: int
    n_steps: int


def sizes_for(n_sources):
    """Sizes that suit this many sources to learn from.

    Few sources are seen often enough in few steps, batches of them have to be small to differ
    from each other, and they say less than a wide head could learn. Very many have to be seen some
    twenty times (each with four rows) before more steps bring little.

    Parameters
    ----------
    n_sources : int

    Returns
    -------
    Sizes

    Examples
    --------
    >>> from stingray_align.alignment.fitting import sizes_for
    >>> sizes_for(500)
    Sizes(n_hidden=256, dropout=0.5, batch_size=256, n_steps=600)
    >>> sizes_for(30_000)
    Sizes(n_hidden=512, dropout=0.3, batch_size=512, n_steps=6900)
    >>> sizes_for(250_000).n_steps
    41700
    """
    few = n_sources < _FEW
    n_steps = max((15 if few else 40) * math.sqrt(n_sources), n_sources / 6)
    n_steps = 100 * round(n_steps / 100)
    return Sizes(n_hidden=256 if few else 512, dropout=0.5 if few else 0.3,
                 batch_size=256 if few else 512,
                 n_steps=max(n_steps, _FEWEST_STEPS))


class Pairs:
    """Scaled rows with what they are about (group) and what they say (text identity)."""

    def __init__(self, events, texts, groups):
        self.events, self.texts, self.groups = events, texts, groups
        self.identity = _row_identity(texts)

    def positives(self, rows, columns):
        """Which rows and columns belong together."""
        same_group = self.groups[rows][:, None] == self.groups[columns]
        return same_group | (self.identity[rows][:, None] == self.identity[columns])

    def digest(self):
        """What tells these data from others."""
        digest = hashlib.sha256()
        for array in (self.events, self.texts, self.groups):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _row_identity(texts):
    """A number per row that is equal for equal rows."""
    seen = {}  # by digest: the rows themselves would take the memory of all texts once more
    return np.array([seen.setdefault(hashlib.blake2b(row, digest_size=16).digest(), len(seen))
                     for row in np.ascontiguousarray(texts)])


class Batches:
    """Batches without end: every row once per round, each with a random text of its group."""

    def __init__(self, groups, rows, batch_size, rng):
        self.rows, self.batch_size, self.rng = rows, batch_size, rng
        self.sorted = rows[np.argsort(groups[rows], kind="stable")]
        ordered = groups[self.sorted]
        self.first = np.searchsorted(ordered, groups)
        self.count = np.searchsorted(ordered, groups, side="right") - self.first
        self.queue = np.empty(0, dtype=int)

    def draw(self):
        """Rows whose event vectors to take, and rows whose texts."""
        if len(self.queue) < self.batch_size:
            self.queue = np.concatenate([self.queue, self.rng.permutation(self.rows)])
        rows, self.queue = np.split(self.queue, [self.batch_size])
        step = (self.rng.random(len(rows)) * self.count[rows]).astype(int)
        return rows, self.sorted[self.first[rows] + step]


class Fit:
    """One training of two heads; a checkpoint holds all of it.

    Parameters
    ----------
    heads : tuple of Head
        Of events and of texts; one without a parameter that asks for gradients is kept as it is.
    loss : ContrastiveLoss
    batches : Batches
        Its generator is the one of the whole training.
    n_steps, learning_rate
        As of the `Aligner`.
    checkpoint : str, Path or None
        File to go on from, and to write.
    identity : str
        What tells this training from others, for the checkpoint.
    """

    def __init__(self, heads, loss, batches, *, n_steps, learning_rate, checkpoint, identity):
        self.event_head, self.text_head = heads
        self.loss, self.batches, self.rng = loss, batches, batches.rng
        self.n_steps, self.learning_rate = n_steps, learning_rate
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.identity = identity
        self.parts = nn.ModuleList([*heads, loss])
        self.trained = [p for p in self.parts.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=learning_rate, fused=True)
        self.every = max(1, n_steps // _CHECKS)
        self.step, self.best_step, self.best_score = 0, 0, math.inf
        self.history, self.loss_sum, self.best = [], 0.0, self._weights()

    def run(self, data, augment, score, progress):
        """Train to the end or until the score stops getting better; keep the best weights.

        Parameters
        ----------
        data : Pairs
        augment : callable
            Texts and generator to the texts that are shown.
        score : callable or None
            Score of the present weights on the validation set, the smaller the better. Without it
            the last weights are kept.
        progress : bool
        """
        from tqdm import tqdm

        if self.checkpoint is not None and self.checkpoint.exists():
            self._restore()
        with tqdm(total=self.n_steps, initial=self.step, desc="aligning", unit="step",
                  disable=not progress) as bar:
            while self.step < self.n_steps and not self._stalled(score):
                with _fast_products():
                    self._advance(data, augment)
                if self.step % self.every == 0 or self.step == self.n_steps:
                    self._check(score)
                    bar.set_postfix(score=f"{self.history[-1][1]:.3f}")
                    if self.checkpoint is not None:
                        self._save()
                bar.update()
        self.parts.load_state_dict(self.best)
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _advance(self, data, augment):
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * _learning_curve(self.step, self.n_steps)
        rows, partners = self.batches.draw()
        events = self._projected(self.event_head, data.events[rows])
        texts = self._projected(self.text_head, augment(data.texts[partners], self.rng))
        loss = self.loss(events, texts, torch.from_numpy(data.positives(rows, partners)))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.loss.clamp_()
        self.loss_sum += float(loss.detach())
        self.step += 1

    def _projected(self, head, values):
        learns = any(p.requires_grad for p in head.parameters())
        with torch.set_grad_enabled(learns):
            return head(torch.from_numpy(values), self.rng if learns else None)

    def _check(self, score):
        steps = self.step - (self.history[-1][0] if self.history else 0)
        current, self.loss_sum = self.loss_sum / steps, 0.0
        if not math.isfinite(current):
            raise FloatingPointError("the alignment loss is not finite: lower learning_rate")
        if score is not None:
            current = score()
        self.history.append((self.step, current))
        if current < self.best_score or score is None:
            self.best_score, self.best_step, self.best = current, self.step, self._weights()

    def _stalled(self, score):
        return score is not None and self.step - self.best_step >= _PATIENCE * self.every

    def _weights(self):
        return {name: value.detach().clone() for name, value in self.parts.state_dict().items()}

    # -- checkpoints --------------------------------------------------------------------------

    def _save(self):
        tensors = {f"now.{name}": value for name, value in self._weights().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value for name, value in state.items()}
        arrays = {name: value.numpy() for name, value in tensors.items()}
        write_tensors(self.checkpoint, arrays | {"queue": self.batches.queue}, kind=_KIND,
                      version=_VERSION, about={
                          "identity": self.identity, "step": self.step, "history": self.history,
                          "best_step": self.best_step, "rng": self.rng.bit_generator.state})

    def _restore(self):
        tensors, about = read_tensors(self.checkpoint, kind=_KIND, version=_VERSION)
        if about["identity"] != self.identity:
            raise ValueError(f"{self.checkpoint} belongs to a training with other parameters or "
                             "data: delete it, or give another checkpoint file")
        self.batches.queue = tensors.pop("queue")

        def stored(name, like):  # numbers come back from the file as arrays of one entry
            return torch.from_numpy(tensors[name].copy()).reshape(like.shape)

        now = self.parts.state_dict()
        self.parts.load_state_dict({name: stored(f"now.{name}", like)
                                    for name, like in now.items()})
        self.best = {name: stored(f"best.{name}", like) for name, like in now.items()}
        adam = {i: {"step": stored(f"adam.{i}.step", torch.tensor(0.0)),
                    "exp_avg": stored(f"adam.{i}.exp_avg", like),
                    "exp_avg_sq": stored(f"adam.{i}.exp_avg_sq", like)}
                for i, like in enumerate(self.trained)}
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": adam})
        self.rng.bit_generator.state = about["rng"]
        self.step, self.best_step = about["step"], about["best_step"]
        self.history = [(step, score) for step, score in about["history"]]
        self.best_score = min((score for _, score in self.history), default=math.inf)


def identity_of(parameters, data, rows):
    """A name of a training: equal if and only if parameters, data and split are."""
    text = json.dumps([parameters, data.digest(), hashlib.sha256(rows.tobytes()).hexdigest()],
                      sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _fast_products():
    """Multiply in bfloat16 where the processor has units for it: a third less time."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _learning_curve(step, total):
    """Share of the peak rate: a linear warm-up, then half a cosine."""
    warm = max(1, round(_WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))
