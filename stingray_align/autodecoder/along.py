"""Convolutions along the window, as matrix products where that is faster."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Along"]

#: Up to so many sources their shifted copies stay in the cache.
_FEW = 4


class Along(nn.Conv1d):
    """A convolution (n, n_in, length) to (n, n_out, length); nothing lies beyond the ends."""

    def __init__(self, n_in, n_out, taps=1, dilation=1):
        super().__init__(n_in, n_out, taps, padding=taps // 2 * dilation, dilation=dilation)

    def forward(self, x, offset=None):
        """Convolve, and, with one tap, add an offset (n, n_out, 1)."""
        if self.kernel_size[0] > 1:
            if x.shape[0] > _FEW:
                return super().forward(x)
            padded = nn.functional.pad(x, (self.padding[0], self.padding[0]))
            x = padded.unfold(2, x.shape[2], self.dilation[0]).flatten(1, 2)
        bias = self.bias[:, None]
        return torch.baddbmm(bias if offset is None else bias + offset,
                             self.weight.flatten(1).expand(x.shape[0], -1, -1), x)
