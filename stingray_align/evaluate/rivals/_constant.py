"""A rate that does not change: the zero of the scale."""

from __future__ import annotations

import numpy as np

from ...photons import N_TIME_BINS
from ._rival import Rival

__all__ = ["constant"]


class _Constant:
    shape = np.ones(N_TIME_BINS)

    def drawn(self, n, rng):
        return np.ones((n, N_TIME_BINS))


def _curves(photons):
    return (_Constant() for _ in range(len(photons)))


#: Mean rate of each band, ``(n + 1/2) / T`` with n photons in exposure T; Gamma(n + 1/2) posterior.
constant = Rival("constant", _curves)
