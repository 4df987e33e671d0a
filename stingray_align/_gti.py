"""Good time intervals (GTIs) as tidy arrays: float64 (m, 2), disjoint, ascending, none empty."""

from __future__ import annotations

import warnings

import numpy as np
from stingray.gti import cross_two_gtis

from .errors import EventDataError, EventDataWarning

__all__ = ["as_floats", "tidy_gti", "in_gti", "length", "intersect", "pieces", "runs",
           "warn_dropped"]


def warn_dropped(bad, why, stacklevel=3):
    warnings.warn(
        f"{int(bad.sum())} of {bad.size} events have {why}; they were dropped",
        EventDataWarning,
        stacklevel=stacklevel,
    )


def as_floats(values, unit):
    """A new array of float64, NaN where masked; of a Quantity or a table's column, in this unit."""
    floats = values
    if hasattr(values, "to_value"):
        floats = values.to_value(unit)
    elif getattr(values, "unit", None) is not None:
        floats = np.array(values, dtype=float) * values.unit.to(unit)
    return np.where(np.ma.getmask(values), np.nan, np.array(floats, dtype=float))


def tidy_gti(gti):
    """Intervals as float64 (m, 2), sorted, merged where they overlap, none empty."""
    try:
        gti = as_floats(gti, "s")
    except (TypeError, ValueError):
        gti = None
    if gti is not None and gti.size == 0:
        return np.empty((0, 2))
    if gti is None or gti.ndim != 2 or gti.shape[1] != 2:
        raise EventDataError("good time intervals must be given as [[start, stop], ...] in seconds")
    gti = gti[np.isfinite(gti).all(axis=1)]
    gti = gti[gti[:, 1] > gti[:, 0]]
    if len(gti) < 2:
        return gti
    gti = gti[np.argsort(gti[:, 0], kind="stable")]
    reach = np.maximum.accumulate(gti[:, 1])
    first = np.concatenate([[True], gti[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.column_stack([gti[first, 0], reach[last]])


def in_gti(times, gti):
    """Which times lie inside tidy intervals, edges included."""
    index = np.searchsorted(gti[:, 0], times, side="right") - 1
    return (index >= 0) & (times <= gti[np.maximum(index, 0), 1])


def pieces(gti, edges):
    """Begins and ends (n,) of what tidy intervals are cut into at some edges."""
    cuts = np.unique(np.concatenate([edges, gti.ravel()]))
    middle = (cuts[1:] + cuts[:-1]) / 2
    inside = np.searchsorted(gti.ravel(), middle, side="right") % 2 == 1
    return cuts[:-1][inside], cuts[1:][inside]


def length(gti):
    gti = np.asarray(gti, dtype=float).reshape(-1, 2)
    return float(np.sum(gti[:, 1] - gti[:, 0]))


def intersect(gtis):
    """Common intervals (m, 2) of several tidy interval lists."""
    common = gtis[0]
    for gti in gtis[1:]:
        if len(common) == 0 or len(gti) == 0:
            return np.empty((0, 2))
        common = tidy_gti(cross_two_gtis(common, gti))
    return common


def runs(mask):
    """Slices of the stretches where ``mask`` is true."""
    steps = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return [slice(a, b) for a, b in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1))]
