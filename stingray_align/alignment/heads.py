"""The small networks that project vectors onto the unit sphere."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

__all__ = ["EventHead", "Head", "PiecewiseLinear", "SlotHead", "TextHead"]

# The slots are standardised with fixed constants, so these bins suit any set of texts.
_SLOT_EDGES = torch.linspace(-3, 3, 33)
_NARROWEST = 0.01  # bin, in units of the spread; a number of few values has bins of no width


class PiecewiseLinear(nn.Module):
    """Piecewise linear encoding: how far each number has come through each of its bins.

    A network fed with a number as such has to learn where along it something changes; fed with its
    place in each bin it starts from there, and small differences count.

    Parameters
    ----------
    edges : torch.Tensor, shape (n_numbers, n_bins + 1)
        Edges of the bins of each number, in increasing order; kept in half precision, as in a file.

    References
    ----------
    Gorishniy et al. 2022, arXiv:2203.05556 (equation 1).
    """

    def __init__(self, edges):
        super().__init__()
        self.register_buffer("edges", edges.half().float())

    @property
    def n_out(self):
        """Numbers times bins."""
        return self.edges[:, 1:].numel()

    def forward(self, x):
        """From -0.5 below a bin to 0.5 above it, shape (n, n_numbers, n_bins)."""
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        return ((x[:, :, None] - low) / (high - low).clamp(min=_NARROWEST)).clamp(0, 1) - 0.5


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


class EventHead(Head):
    """A head that sees each number as it is and piecewise linearly.

    Parameters
    ----------
    edges : torch.Tensor, shape (n_in, n_bins + 1)
        Of the bins.
    n_hidden, n_out, dropout
        As of `Head`.
    """

    def __init__(self, edges, n_hidden, n_out, dropout):
        bins = PiecewiseLinear(edges)
        super().__init__(len(edges) + bins.n_out, n_hidden, n_out, dropout)
        self.bins = bins

    def unscaled(self, x, rng=None):
        """The output before it is brought to unit length."""
        return super().unscaled(torch.cat([x, self.bins(x).flatten(1)], dim=1), rng)


class SlotHead(Head):
    """A head that sees each number among the slots as it is and piecewise linearly.

    Parameters
    ----------
    n_in, n_hidden, n_out
        As of `Head`; slots are few, exact, and hidden at random anyway, so nothing is dropped.
    n_numbers : int
        The first slots are this many numbers, and the next as many say which are known.
    """

    def __init__(self, n_in, n_hidden, n_out, n_numbers):
        bins = PiecewiseLinear(_SLOT_EDGES.expand(n_numbers, -1))
        super().__init__(n_in + bins.n_out, n_hidden, n_out, dropout=0.0)
        self.bins, self.n_numbers = bins, n_numbers

    def unscaled(self, x, rng=None):
        """The output before it is brought to unit length."""
        numbers, known = x[:, :self.n_numbers], x[:, self.n_numbers:2 * self.n_numbers]
        places = self.bins(numbers) * (known != 0)[:, :, None]
        return super().unscaled(torch.cat([x, places.flatten(1)], dim=1), rng)


class TextHead(nn.Module):
    """Two heads, one for the prose and one for the slots, whose outputs are added.

    Kept apart until then, words that were never seen in training cannot spoil what the slots say.

    Parameters
    ----------
    n_in, n_hidden, n_out
        As of `Head`.
    dropout : float
        Of the prose.
    n_slots : int
        How many of the last columns are slots; at least one.
    n_numbers : int
        As of `SlotHead`.
    """

    def __init__(self, n_in, n_hidden, n_out, dropout, n_slots, n_numbers):
        super().__init__()
        self.n_prose = n_in - n_slots
        self.prose = Head(self.n_prose, n_hidden, n_out, dropout)
        self.slots = SlotHead(n_slots, n_hidden, n_out, n_numbers)

    def forward(self, x, rng=None):
        """Unit vectors; with ``rng`` hidden units are dropped at random."""
        prose, slots = x[:, :self.n_prose], x[:, self.n_prose:]
        return functional.normalize(
            self.prose.unscaled(prose, rng) + self.slots.unscaled(slots, rng), dim=1)
