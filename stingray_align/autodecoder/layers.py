"""Linear layers and residual blocks that are fast for a single source, too.

With one source a layer does nothing but read its weights. They are stored in half precision, and
read from there it takes half the time; products and sums are those of single precision. What is
between the layers takes less time than calling torch for it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import nn

from ._compiled import compiled

__all__ = ["Body", "Linear", "Residual", "Standardised", "settle"]


class Linear(nn.Linear):
    """A linear layer; after `settle`, for inference alone."""

    #: Once settled: the weights as bits of halves (n_out, n_in), and the bias.
    halves = None

    def settle(self):
        """Prepare for inference with the weights as they are now."""
        halves = self.weight.detach().half()
        if torch.equal(halves.float(), self.weight):
            self.halves = (halves.contiguous().view(torch.int16).numpy().view(np.uint16),
                           self.bias.detach().numpy())
        # As laid out now, products with many sources are fastest.
        self.weight.data = self.weight.data.t().contiguous().t()

    def forward(self, x):
        """Apply the layer to (n, n_in)."""
        if self.halves is None or not _is_one(x):
            return super().forward(x)
        return torch.from_numpy(_product(*self.halves, x.numpy().reshape(-1)))[None]


class Residual(nn.Module):
    """Pre-normalised residual block of two linear layers."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = Linear(width, width)
        self.outer = Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x):
        """Apply the block to (n, width)."""
        return x + self.outer(nn.functional.gelu(self.inner(self.norm(x))))


class Body(nn.Sequential):
    """A linear layer, residual blocks, and a normalisation: what the networks are made of."""

    #: Once settled: what `_body` takes before the numbers themselves.
    settled = None

    def __init__(self, n_in, width, n_blocks=2):
        super().__init__(Linear(n_in, width), *(Residual(width) for _ in range(n_blocks)),
                         nn.LayerNorm(width))

    def settle(self):
        """Prepare for inference, once the layers have settled."""
        first, *blocks, last = self
        layers = [layer for block in blocks for layer in (block.inner, block.outer)]
        if any(layer.halves is None for layer in (first, *layers)):
            return
        halves, biases = (np.stack(parts) for parts in zip(*(layer.halves for layer in layers)))
        norms = np.stack([[norm.weight.detach().numpy(), norm.bias.detach().numpy()]
                          for norm in (*(block.norm for block in blocks), last)])
        self.settled = (*first.halves, halves, biases, norms, np.float32(last.eps))

    def forward(self, x):
        """Apply the layers to (n, n_in)."""
        if self.settled is None or not _is_one(x):
            return super().forward(x)
        return torch.from_numpy(_body(*self.settled, x.numpy().reshape(-1)))[None]


class Standardised(nn.Module):
    """Numbers of very different sizes, scaled to what is usual and cut where they are not."""

    _CLIP = 6.0

    def __init__(self, n):
        super().__init__()
        self.register_buffer("centre", torch.zeros(n))
        self.register_buffer("spread", torch.ones(n))

    @torch.no_grad()
    def fit(self, x):
        """Scale from now on as these numbers, ndarray (n_sources, n), need it."""
        low, centre, high = np.percentile(x, [16, 50, 84], axis=0)
        spread = np.where(high > low, high - low, 2 * x.std(axis=0)) / 2
        self.centre.copy_(torch.as_tensor(centre))
        self.spread.copy_(torch.as_tensor(np.maximum(spread, 1e-2)))

    def forward(self, x):
        """Apply the scale to (n_sources, n)."""
        return ((x - self.centre) / self.spread).clamp(-self._CLIP, self._CLIP)


def settle(network):
    """Prepare all layers of a network for inference with the weights as they are now."""
    for kind in (Linear, Body):
        for layer in network.modules():
            if isinstance(layer, kind):
                layer.settle()


def _is_one(x):
    return x.shape[0] == 1 and torch.is_inference_mode_enabled()


@intrinsic
def _single(_, half):
    """The float32 that the bits of a half stand for: one instruction for many."""
    def generated(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())
    return types.float32(types.uint16), generated


@compiled
def _product(weight, bias, x):
    """Weights (n_out, n_in) as bits of halves times ``x`` (n_in,), plus the bias."""
    out = np.empty_like(bias)
    quarter = len(bias) // 4
    for i in range(quarter):
        # Four rows far apart at a time: memory is read faster in several places at once.
        i1, i2, i3 = i + quarter, i + 2 * quarter, i + 3 * quarter
        row, row1, row2, row3 = weight[i], weight[i1], weight[i2], weight[i3]
        total, total1, total2, total3 = bias[i], bias[i1], bias[i2], bias[i3]
        for j in range(len(x)):
            total += _single(row[j]) * x[j]
            total1 += _single(row1[j]) * x[j]
            total2 += _single(row2[j]) * x[j]
            total3 += _single(row3[j]) * x[j]
        out[i], out[i1], out[i2], out[i3] = total, total1, total2, total3
    for i in range(4 * quarter, len(bias)):
        row, total = weight[i], bias[i]
        for j in range(len(x)):
            total += _single(row[j]) * x[j]
        out[i] = total
    return out


@compiled
def _normed(x, norm, eps):
    """Numbers of mean zero and variance one, scaled and moved."""
    centred = x - x.mean()
    return centred / np.sqrt((centred * centred).mean() + eps) * norm[0] + norm[1]


@compiled
def _body(first, first_bias, halves, biases, norms, eps, x):
    """What a `Body` makes of ``x`` (n_in,).

    ``halves`` and ``biases`` are those of the layers of its blocks, one after the other; for the
    first layer see `_product`.
    """
    x = _product(first, first_bias, x)
    for block in range(len(norms) - 1):
        hidden = _product(halves[2 * block], biases[2 * block], _normed(x, norms[block], eps))
        for i in range(len(hidden)):
            hidden[i] *= np.float32(0.5) * (1 + math.erf(hidden[i] * np.float32(math.sqrt(0.5))))
        x += _product(halves[2 * block + 1], biases[2 * block + 1], hidden)
    return _normed(x, norms[-1], eps)
