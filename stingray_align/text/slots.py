"""Slots: the facts beside the prose.

A summary says what a source is in words; its *slots* say the same as values a program can compare:
numbers with units, one class out of 28, and yes/no flags.  Each slot is filled or unknown, and
"unknown" is told apart from "no": `slot_vector` returns values *and* presence masks, so that a
missing period is not mistaken for a period of zero.

Numbers that span decades (column density, flux, period...) are compared in log10; all are
standardised with fixed constants, so that a vector never depends on the sample it came from.
"""

import math
import numbers

import numpy as np

__all__ = ["CLASSES", "NUMBER_SLOTS", "FLAG_SLOTS", "N_SLOTS", "slot_names", "slot_vector",
           "clean_slots"]

CLASSES = (
    "unobscured AGN", "obscured AGN", "quasar with soft excess", "tidal disruption event",
    "quasi-periodic eruptions", "HMXB pulsar", "LMXB with type I bursts", "dipping LMXB",
    "black-hole transient", "steady ULX", "eclipsing ULX", "pulsating ULX", "heartbeat ULX",
    "polar", "intermediate polar", "dwarf nova", "supersoft source", "flaring young star",
    "coronal star", "massive star wind", "colliding-wind binary", "supernova remnant knot",
    "thermally emitting neutron star", "magnetar with bursts", "gamma-ray pulsar",
    "fast X-ray transient", "cluster core", "background only",
)
"""Physical classes, spelled as in truth tables and catalogues."""

# name: (unit, compared in log10?, mean, standard deviation), the last two after the logarithm.
# They are round figures for X-ray point sources at large; only their constancy matters.
NUMBER_SLOTS = {
    "photon_index": ("", False, 1.9, 0.6),
    "kT": ("keV", True, 0.0, 0.6),
    "n_h": ("1e22 cm-2", True, -0.7, 0.9),
    "flux": ("erg s-1 cm-2", True, -13.0, 1.2),
    "period": ("s", True, 3.0, 1.5),
    "timescale": ("s", True, 3.7, 1.3),
}
"""Number slots: ``name -> (unit, log10, mean, standard deviation)``."""

FLAG_SLOTS = ("periodic", "eclipsing", "flaring", "soft", "absorbed", "variable")
"""Yes/no slots."""

N_SLOTS = 2 * len(NUMBER_SLOTS) + len(CLASSES) + 1 + 2 * len(FLAG_SLOTS)
"""Length of a slot vector."""

_LIMIT = 4.0  # standard deviations: one absurd number must not outweigh the rest of the vector


def slot_names():
    """Names of the entries of a slot vector.

    Returns
    -------
    list of str
        ``N_SLOTS`` names, in the order of `slot_vector`.

    Examples
    --------
    >>> from stingray_align.text.slots import slot_names
    >>> slot_names()[:2], slot_names()[-1]
    (['photon_index', 'kT'], 'variable known')
    """
    return [
        *NUMBER_SLOTS, *(f"{name} known" for name in NUMBER_SLOTS),
        *(f"class: {name}" for name in CLASSES), "class known",
        *FLAG_SLOTS, *(f"{name} known" for name in FLAG_SLOTS),
    ]


def clean_slots(values, *, ignore_other=False):
    """Plain, checked slots out of any mapping.

    Parameters
    ----------
    values : mapping
        Slot values in the units of `NUMBER_SLOTS`.  `None`, NaN and masked values are unknown.
    ignore_other : bool, optional
        Leave keys that are no slots aside (a row of a truth table has many) instead of refusing
        them.

    Returns
    -------
    dict
        The known slots only, as `float`, `bool` and `str`.

    Raises
    ------
    ValueError
        If a key is no slot, a number is negative or no number, a flag is no yes/no value, or the
        class is not one of `CLASSES`.

    Examples
    --------
    >>> from stingray_align.text.slots import clean_slots
    >>> clean_slots({"photon_index": 1.7, "period": None, "soft": False})
    {'photon_index': 1.7, 'soft': False}
    """
    clean = {}
    for name in values.keys():
        known = name in NUMBER_SLOTS or name in FLAG_SLOTS or name == "class"
        if not known:
            if ignore_other:
                continue
            raise ValueError(f"{name!r} is no slot; slots are "
                             f"{', '.join([*NUMBER_SLOTS, 'class', *FLAG_SLOTS])}")
        value = values[name]
        if value is None or value is np.ma.masked:
            continue
        if name in NUMBER_SLOTS:
            value = _number(name, value)
            if value is None:
                continue
        elif name in FLAG_SLOTS:
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"slot {name!r} is yes or no (True, False or None), not {value!r}")
            value = bool(value)
        else:
            value = str(value)
            if value not in CLASSES:
                raise ValueError(f"{value!r} is no class; classes are {', '.join(CLASSES)}")
        clean[name] = value
    return clean


def _number(name, value):
    value = getattr(value, "value", value)  # a Quantity of a QTable row, already in our unit
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise ValueError(f"slot {name!r} is a number, not {value!r}")
    value = float(value)
    if math.isnan(value):
        return None
    if math.isinf(value) or (value < 0 and NUMBER_SLOTS[name][1]):
        raise ValueError(f"slot {name!r} cannot be {value}")
    return value


def slot_vector(slots):
    """Standardised slots with their presence masks.

    Parameters
    ----------
    slots : mapping
        Slot values (see `clean_slots`); a missing key or `None` is unknown.

    Returns
    -------
    ndarray, shape (N_SLOTS,), float32
        Standardised numbers, their mask, class one-hot, class mask, flags as +1 or -1, their mask.
        Whatever is unknown is zero.

    Raises
    ------
    ValueError
        As `clean_slots`.

    Examples
    --------
    >>> from stingray_align.text.slots import N_SLOTS, slot_vector
    >>> vector = slot_vector({"class": "polar", "soft": True})
    >>> vector.shape == (N_SLOTS,), float(vector.sum())
    (True, 4.0)
    """
    slots = clean_slots(slots)
    numbers_, number_mask = np.zeros((2, len(NUMBER_SLOTS)), np.float32)
    for i, (name, (_, log10, mean, std)) in enumerate(NUMBER_SLOTS.items()):
        if name in slots:
            value = slots[name]
            if log10:  # "no absorption at all" is an honest answer: the lowest value there is
                value = math.log10(value) if value > 0 else -math.inf
            numbers_[i] = min(max((value - mean) / std, -_LIMIT), _LIMIT)
            number_mask[i] = 1
    classes = np.array([slots.get("class") == name for name in CLASSES], np.float32)
    flags = np.array([{True: 1, False: -1, None: 0}[slots.get(name)] for name in FLAG_SLOTS],
                     np.float32)
    return np.concatenate([numbers_, number_mask, classes, [classes.sum()], flags,
                           np.abs(flags)]).astype(np.float32)
