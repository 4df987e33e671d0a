"""How loops over photons and bins are compiled.

They run on one source after the other, whose few kilobytes stay in the processor's cache. Compiled
code is kept on disk, so a machine compiles it once.
"""

from numba import njit

__all__ = ["compiled"]

#: Sums may be added up in another order, many bins at a time; nan and infinity stay what they are.
compiled = njit(cache=True, nogil=True, error_model="numpy",
                fastmath={"reassoc", "contract", "nsz"})
