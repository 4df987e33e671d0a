"""Splits by source: no source is on both sides."""

import numpy as np

__all__ = ["group_folds", "source_index"]


def source_index(groups, n):
    """Number of the source of each row (each row its own source if ``groups`` is None)."""
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"groups has shape {groups.shape}, expected ({n},).")
    return np.unique(groups, return_inverse=True)[1]


def group_folds(sources, n_splits, rng):
    """Put every source into one of ``n_splits`` folds at random; returns the fold of each row."""
    distinct, inverse = np.unique(sources, return_inverse=True)
    if len(distinct) < n_splits:
        raise ValueError(f"{len(distinct)} sources cannot be split into {n_splits} parts.")
    return (rng.permutation(len(distinct)) % n_splits)[inverse]
