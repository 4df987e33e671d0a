"""Linear layers that are fast for a single source, too.

With one source a layer does nothing but read its weights. They are stored in half precision, and
read from there it takes half the time; products and sums are those of single precision.
"""

from __future__ import annotations

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import nn

from ._compiled import compiled

__all__ = ["Linear"]


class Linear(nn.Linear):
    """A linear layer; after `settle`, for inference alone."""

    _halves = None

    def settle(self):
        """Prepare for inference with the weights as they are now."""
        halves = self.weight.detach().half()
        if torch.equal(halves.float(), self.weight):
            self._halves = (halves.contiguous().view(torch.int16).numpy().view(np.uint16),
                            self.bias.detach().numpy())
        # As laid out now, products with many sources are fastest.
        self.weight.data = self.weight.data.t().contiguous().t()

    def forward(self, x):
        """Apply the layer to (n, n_in)."""
        if self._halves is None or x.shape[0] != 1 or not torch.is_inference_mode_enabled():
            return super().forward(x)
        return torch.from_numpy(_product(*self._halves, x.numpy().reshape(-1)))[None]


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
