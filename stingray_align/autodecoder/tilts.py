"""How the shares of energy bands change with the rate: a compiled Newton method."""

from __future__ import annotations

import numpy as np

from ._compiled import compiled
from .triangular import cholesky, solve_lower, solve_lower_transposed

__all__ = ["tilts"]

_N_STEPS, _LONGEST = 4, 1.0


@compiled
def tilts(counted, decoded, x, precision):
    """Coefficients (a_b, v_b) of shares in proportion to ``exp(decoded + a_b + v_b x)``.

    Parameters
    ----------
    counted, decoded : ndarray, shape (n, n_bins, n_bands)
        Photons of each band, and logs of the shares before.
    x : ndarray, shape (n, n_bins)
    precision : ndarray, shape (2,)
        Of the prior of a_b and of v_b.

    Returns
    -------
    ndarray, shape (n, 2, n_bands)
    """
    n, n_bins, n_bands = counted.shape
    found, share = np.zeros((n, 2, n_bands)), np.empty(n_bands)
    for i in range(n):
        for _ in range(_N_STEPS):
            step, information = np.zeros((2 * n_bands, 1)), np.zeros((2 * n_bands, 2 * n_bands))
            for t in range(n_bins):
                total, whole = counted[i, t].sum(), 0.0
                if total == 0:
                    continue
                terms = 1.0, x[i, t]
                for j in range(n_bands):
                    share[j] = np.exp(decoded[i, t, j] + found[i, 0, j] + terms[1] * found[i, 1, j])
                    whole += share[j]
                for j in range(n_bands):
                    share[j] /= whole
                for j in range(n_bands):
                    for a in range(2):
                        step[a * n_bands + j, 0] += terms[a] * (counted[i, t, j] - total * share[j])
                    for k in range(j + 1):
                        spread = total * share[j] * ((j == k) - share[k])
                        for a in range(2):
                            for b in range(2):
                                information[a * n_bands + j, b * n_bands + k] += (
                                    terms[a] * terms[b] * spread)
            for a in range(2):
                for j in range(n_bands):
                    row = a * n_bands + j
                    step[row, 0] -= precision[a] * found[i, a, j]
                    information[row, row] += precision[a]
                    for b in range(2):
                        for k in range(j):
                            information[b * n_bands + k, row] = information[row, b * n_bands + k]
            cholesky(information)
            solve_lower(information, step)
            solve_lower_transposed(information, step)
            for a in range(2):
                for j in range(n_bands):
                    found[i, a, j] += min(max(step[a * n_bands + j, 0], -_LONGEST), _LONGEST)
    return found
