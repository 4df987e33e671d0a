"""The two small networks that project vectors onto the unit sphere."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

__all__ = ["Head", "TextHead"]


class Head(nn.Module):
    """A residual network of two hidden layers whose output has unit length.

    Parameters
    ----------
    n_in, n_hidden, n_out : int
        Sizes of its layers.
    dropout : float
        Share of hidden units dropped in training.
    """

    def __init__(self, n_in, n_hidden, n_out, dropout):
        super().__init__()
        self.first = nn.Linear(n_in, n_hidden)
        self.second = nn.Linear(n_hidden, n_hidden)
        self.norm = nn.LayerNorm(n_hidden)
        self.last = nn.Linear(n_hidden, n_out)
        self.dropout = dropout

    def forward(self, x, rng=None):
        """Unit vectors; with ``rng`` hidden units are dropped at random."""
        return functional.normalize(self.unscaled(x, rng), dim=1)

    def unscaled(self, x, rng=None):
        """The output before it is brought to unit length."""
        hidden = self._drop(functional.gelu(self.first(x)), rng)
        hidden = hidden + self._drop(functional.gelu(self.second(hidden)), rng)
        return self.last(self.norm(hidden))

    def _drop(self, x, rng):
        # The masks come from the training's own generator: one state to keep in a checkpoint, and
        # a byte per unit is several times faster than torch's dropout on a CPU.
        lost = round(256 * self.dropout)
        if rng is None or not lost:
            return x
        kept = np.frombuffer(rng.bytes(x.numel()), np.uint8).reshape(x.shape) >= lost
        return x * torch.from_numpy(kept * np.float32(256 / max(256 - lost, 1)))


class TextHead(nn.Module):
    """Two heads, one for the prose and one for the slots, whose outputs are added.

    Kept apart until then, words that were never seen in training cannot spoil what the slots say.

    Parameters
    ----------
    n_in, n_hidden, n_out
        As of `Head`.
    dropout : float
        Of the prose. Facts are few, exact and hidden at random anyway: their head drops nothing.
    n_slots : int
        How many of the last columns are slots; at least one.
    """

    def __init__(self, n_in, n_hidden, n_out, dropout, n_slots):
        super().__init__()
        self.n_prose = n_in - n_slots
        self.prose = Head(self.n_prose, n_hidden, n_out, dropout)
        self.slots = Head(n_slots, n_hidden, n_out, dropout=0.0)

    def forward(self, x, rng=None):
        """Unit vectors; with ``rng`` hidden units are dropped at random."""
        prose, slots = x[:, :self.n_prose], x[:, self.n_prose:]
        return functional.normalize(
            self.prose.unscaled(prose, rng) + self.slots.unscaled(slots, rng), dim=1)
