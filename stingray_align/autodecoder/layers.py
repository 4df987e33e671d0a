"""Linear layers and residual blocks that are fast for a single source, too.

With one source a layer does nothing but read its weights. They are stored in half precision, and
read from there it takes half the time; products and sums are those of single precision. What is
between the layers of a block takes less time than calling torch for it.
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

__all__ = ["Linear", "Residual"]


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
    """Pre-normalised residual block of two linear layers; fast once these are settled."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = Linear(width, width)
        self.outer = Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x):
        """Apply the block to (n, width)."""
        inner, outer = self.inner.halves, self.outer.halves
        if inner is None or outer is None or not _is_one(x):
            return x + self.outer(nn.functional.gelu(self.inner(self.norm(x))))
        return torch.from_numpy(_residual(
            self.norm.weight.data.numpy(), self.norm.bias.data.numpy(), self.norm.eps,
            *inner, *outer, x.numpy().reshape(-1)))[None]


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
    for i in range(len(bias)):
        row, total = weight[i], bias[i]
        for j in range(len(x)):
            total += _single(row[j]) * x[j]
        out[i] = total
    return out


@compiled
def _residual(scale, offset, eps, inner, inner_bias, outer, outer_bias, x):
    """What a `Residual` makes of ``x`` (width,); for the rest see `_product`."""
    centred = x - x.mean()
    normed = centred / np.sqrt((centred * centred).mean() + np.float32(eps)) * scale + offset
    hidden = _product(inner, inner_bias, normed)
    for i in range(len(hidden)):
        hidden[i] *= np.float32(0.5) * (1 + math.erf(hidden[i] * np.float32(math.sqrt(0.5))))
    return x + _product(outer, outer_bias, hidden)
