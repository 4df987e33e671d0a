"""Which sources of a table a question is about."""

import numpy as np
from astropy import units as u

from .._gti import as_floats

__all__ = ["centre_and_radius", "selection"]


def selection(table, cone, where):
    """Rows inside a cone that fulfil a condition.

    Parameters
    ----------
    table : astropy.table.QTable, n rows
    cone : (astropy.coordinates.SkyCoord, astropy.units.Quantity) or None
        Position and radius.
    where : ndarray of bool, shape (n,), or callable, or None
        A callable gets the table and returns the mask. What is masked in it is not selected.

    Returns
    -------
    ndarray of bool, shape (n,), or None
        None if everything is asked for. A source without a position is in no cone.

    Raises
    ------
    ValueError
        If the mask has another length or type, the cone is none, or there are no positions.
    """
    if cone is None and where is None:
        return None
    mask = np.ones(len(table), dtype=bool)
    if where is not None:
        chosen = np.asarray(np.ma.filled(where(table) if callable(where) else where, False))
        if chosen.shape != mask.shape or chosen.dtype != bool:
            raise ValueError(f"where must give one True or False per source ({len(table)}), "
                             f"not an array of {chosen.dtype} with shape {chosen.shape}")
        mask &= chosen
    if cone is not None:
        from astropy.coordinates import SkyCoord

        if not {"ra", "dec"} <= set(table.colnames):
            raise ValueError("a cone needs positions: this catalogue has no 'ra' and 'dec'")
        centre, radius = centre_and_radius(cone)
        positions = SkyCoord(*(as_floats(table[name], u.deg) for name in ("ra", "dec")), unit="deg")
        mask &= positions.separation(centre) <= radius
    return mask


def centre_and_radius(cone):
    """The two parts of a cone, in ICRS; ValueError if it is none."""
    try:
        centre, radius = cone
        return centre.icrs, radius.to(u.deg)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError("a cone is a pair of a SkyCoord and an angle with its unit, such as "
                         f"(SkyCoord(148.97, 69.68, unit='deg'), 1 * u.deg), not {cone!r}"
                         ) from error
