"""Which sources of a table a question is about."""

import numpy as np
from astropy import units as u

__all__ = ["selection"]


def selection(table, cone, where):
    """Rows inside a cone that fulfil a condition.

    Parameters
    ----------
    table : astropy.table.QTable, n rows
    cone : (astropy.coordinates.SkyCoord, astropy.units.Quantity) or None
        Position and radius.
    where : ndarray of bool, shape (n,), or callable, or None
        A callable gets the table and returns the mask.

    Returns
    -------
    ndarray of bool, shape (n,), or None
        None if everything is asked for.
    """
    if cone is None and where is None:
        return None
    mask = np.ones(len(table), dtype=bool)
    if where is not None:
        chosen = np.asarray(where(table) if callable(where) else where)
        if chosen.shape != mask.shape or chosen.dtype != bool:
            raise ValueError(f"where must give one True or False per source ({len(table)}), "
                             f"not an array of {chosen.dtype} with shape {chosen.shape}")
        mask &= chosen
    if cone is not None:
        from astropy.coordinates import SkyCoord

        if not {"ra", "dec"} <= set(table.colnames):
            raise ValueError("a cone needs positions: this catalogue has no 'ra' and 'dec'")
        centre, radius = cone
        positions = SkyCoord(u.Quantity(table["ra"], u.deg), u.Quantity(table["dec"], u.deg))
        mask &= positions.separation(centre) <= radius
    return mask
