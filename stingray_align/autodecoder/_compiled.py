"""How loops over photons and bins are compiled.

They run on one source after the other, whose few kilobytes stay in the processor's cache. Compiled
code is kept on disk, so a machine compiles it once.
"""

import numpy as np
from numba import njit

__all__ = ["compiled", "highest", "where_highest"]

#: Sums may be added up in another order, many bins at a time; nan and infinity stay what they are.
compiled = njit(cache=True, nogil=True, error_model="numpy",
                fastmath={"reassoc", "contract", "nsz"})
_LANES = 16


@compiled
def highest(x):
    """The highest of many numbers: sixteen are compared at once."""
    most = np.empty(_LANES, dtype=x.dtype)
    for lane in range(_LANES):
        most[lane] = x[0]
    whole = len(x) - len(x) % _LANES
    for first in range(0, whole, _LANES):
        for lane in range(_LANES):
            most[lane] = max(most[lane], x[first + lane])
    for k in range(whole, len(x)):
        most[0] = max(most[0], x[k])
    for lane in range(1, _LANES):
        most[0] = max(most[0], most[lane])
    return most[0]


@compiled
def where_highest(x):
    """The first place at which it stands."""
    most = highest(x)
    for k in range(len(x)):
        if x[k] == most:
            return k
    return 0
