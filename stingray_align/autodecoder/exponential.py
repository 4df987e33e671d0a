"""The exponential function for compiled loops, many numbers at a time.

That of the C library takes one number after the other, at five times the cost.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["exp"]

_LOG2E = 1.4426950408889634
#: Natural logarithm of two in two parts, of which multiples of the first are exact.
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-06
#: Added to a number, it leaves the nearest integer in the last bits.
_ROUND = 6755399441055744.0
_BITS_OF_ROUND = np.float64(_ROUND).view(np.int64) - 1023


# Unlike elsewhere, sums may not be added up in another order: rounding is the point of some.
@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def exp(x):
    """Exponential of a float64, right to two units in the last place; from -708 to 709."""
    x = min(max(x, -708.0), 709.0)
    shifted = x * _LOG2E + _ROUND
    whole = shifted - _ROUND
    x -= whole * _LN2_HIGH
    x -= whole * _LN2_LOW
    # Taylor's series, on half a power of two to either side
    series = 1 / 479001600.0
    for factorial in (39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0,
                      2.0, 1.0, 1.0):
        series = series * x + 1 / factorial
    power = np.int64(np.int64(np.float64(shifted).view(np.int64) - _BITS_OF_ROUND) << 52)
    return series * power.view(np.float64)
