"""Facts for a summary out of a row of the Chandra Source Catalog.

The columns are those of the table ``master_source`` of CSC 2.1 (Evans et al. 2024, ApJS 274, 22),
with the few that only tables of single observations have.
"""

import math

import numpy as np
from astropy import units as u

__all__ = ["csc_facts"]

_FLUX, _COLUMN = u.erg / u.s / u.cm**2, 1e22 / u.cm**2
_CSC_COLUMN = u.def_unit("1e20 cm-2", 1e20 / u.cm**2)

# A spectral model whose reduced statistic is worse than this does not describe the spectrum, and
# its parameters are no facts.
_POOR_FIT = 2.0

# model: (what it is called, column of its parameter, fact)
_MODELS = {
    "powlaw": ("absorbed power law", "powlaw_gamma", "photon_index"),
    "bb": ("absorbed black body", "bb_kt", "kT"),
    "brems": ("absorbed bremsstrahlung", "brems_kt", "kT"),
    "apec": ("absorbed thermal plasma (APEC)", "apec_kt", "kT"),
}

# fact: column
_NUMBERS = {
    "detection_significance": "significance",
    "counts": "src_cnts_aper_b",
    "hardness_2-7_to_0.5-1.2_keV": "hard_hs",
    "hardness_2-7_to_1.2-2_keV": "hard_hm",
    "hardness_1.2-2_to_0.5-1.2_keV": "hard_ms",
    "variability_probability_within_observations": "var_intra_prob_b",
    "variability_index_within_observations_0-10": "var_intra_index_b",
    "variability_probability_between_observations": "var_inter_prob_b",
    "variability_index_between_observations_0-10": "var_inter_index_b",
    "variability_probability_in_this_observation": "var_prob_b",
    "variability_index_in_this_observation_0-10": "var_index_b",
}

# fact: column; only stated where the flag is set
_FLAGS = {"variable": "var_flag", "extended": "extent_flag", "piled_up": "pileup_flag",
          "confused": "conf_flag", "saturated": "sat_src_flag"}


def csc_facts(row):
    """What the Chandra Source Catalog says of a source, as facts for `write_summary`.

    Parameters
    ----------
    row : Row of a Table or QTable, pandas.Series, or mapping
        A row of ``master_source``, of another table with the same columns, or of a part of them:
        columns that are absent, masked or NaN are left out. Units that the table gives are
        heeded; without them, or where they cannot be read, those of the catalogue (below) are
        taken.

    Returns
    -------
    dict
        Facts by name: Quantity where there is a dimension, float, str, or True.  ``x_err`` is
        half of the 68 % interval of ``x``.

    Raises
    ------
    ValueError
        If the row has none of the columns.

    Notes
    -----
    Bands: broad (b) 0.5-7, soft (s) 0.5-1.2, medium (m) 1.2-2, hard (h) 2-7 keV.

    =============================================  =================================================
    column (unit)                                  fact
    =============================================  =================================================
    ``name``                                       ``name``
    ``ra``, ``dec`` (deg)                          ``ra``, ``dec``
    ``significance``                               ``detection_significance``: highest of any stack
                                                   and band
    ``likelihood_class``                           ``detection_class``: true or marginal
    ``acis_time``, ``hrc_time``, ``livetime`` (s)  ``exposure``, from the first that is positive;
                                                   ``instrument`` with the first two
    ``src_cnts_aper_b``                            ``counts``, net (tables of observations only)
    ``flux_aper_b`` (erg s-1 cm-2)                 ``flux``, 0.5-7 keV; if zero, the limit as
                                                   ``flux_upper_limit``
    ``hard_hs``, ``hard_hm``, ``hard_ms``          ``hardness_2-7_to_0.5-1.2_keV``, ...: (x-y)/(x+y)
                                                   of photon fluxes, not the ``hardness`` of counts
    ``powlaw_gamma``                               ``photon_index``
    ``bb_kt``, ``brems_kt``, ``apec_kt`` (keV)     ``kT``, where such a model fits best
    ``powlaw_nh``, ``bb_nh`` (1e20 cm-2)           ``n_h``, of the model that fits best
    ``brems_nh``, ``apec_nh`` (1e20 cm-2)          the same
    ``powlaw_stat``, ``bb_stat``                   ``spectral_model``, the one that fits best;
                                                   a reduced statistic above 2 leaves it out
    ``brems_stat``, ``apec_stat``                  the same
    ``nh_gal`` (1e20 cm-2)                         ``galactic_n_h``, a text with its unit
    ``var_intra_prob_b``, ``var_intra_index_b``    ``variability_probability_within_observations``,
                                                   ``variability_index_within_observations_0-10``
    ``var_inter_prob_b``, ``var_inter_index_b``    ``variability_.._between_observations``
    ``var_prob_b``, ``var_index_b``                ``variability_.._in_this_observation`` (tables of
                                                   observations only)
    ``var_flag``                                   ``variable``
    ``extent_flag``, ``pileup_flag``               ``extended``, ``piled_up``
    ``conf_flag``, ``sat_src_flag``                ``confused``, ``saturated``
    =============================================  =================================================

    Errors come from the columns with ``_lolim`` and ``_hilim`` in their names, as in
    ``powlaw_gamma_lolim`` and ``flux_aper_lolim_b``.

    Flags are stated only where they are set: a faint source that was not found to vary is not
    known to be constant.

    Examples
    --------
    >>> from stingray_align.datasets import csc_facts
    >>> from stingray_align.text import OfflineWriter, write_summary
    >>> facts = csc_facts({"acis_time": 20e3, "flux_aper_b": 2.5e-14, "powlaw_gamma": 1.8,
    ...                    "powlaw_nh": 12.0, "powlaw_stat": 0.9})
    >>> print(facts["n_h"], facts["spectral_model"])
    0.12 1e+22 / cm2 absorbed power law
    >>> print(write_summary(facts, backend=OfflineWriter()))
    The source was observed with Chandra ACIS for 20 ks. The observed 0.5-7 keV flux is
    2.5e-14 erg/s/cm2. The photon index is 1.8 and the absorbing column is 0.12 x 1e22 cm-2.
    """
    facts = {}
    if name := _text(row, "name"):
        facts["name"] = name
    if likelihood := _text(row, "likelihood_class"):
        facts["detection_class"] = likelihood.casefold()
    for column in ("ra", "dec"):
        _put(facts, column, _number(row, column, u.deg))
    for column, instrument in (("acis_time", "Chandra ACIS"), ("hrc_time", "Chandra HRC"),
                               ("livetime", None)):
        exposure = _number(row, column, u.s)
        if exposure is not None and exposure > 0:
            facts["exposure"] = exposure
            if instrument:
                facts["instrument"] = instrument
            break
    for fact, column in _NUMBERS.items():
        _measured(facts, fact, row, column)
    _flux(facts, row)
    _spectrum(facts, row)
    galactic = _number(row, "nh_gal", _CSC_COLUMN)
    if galactic is not None:
        facts["galactic_n_h"] = f"{galactic.to_value(1 / u.cm**2):.3g} cm-2"
    for fact, column in _FLAGS.items():
        if _text(row, column).casefold() in ("true", "t", "1", "1.0"):
            facts[fact] = True
    if not facts:
        raise ValueError("the row has no column of the Chandra Source Catalog, or no value in "
                         "one; columns are named as in its table master_source")
    return facts


def _flux(facts, row):
    flux = _number(row, "flux_aper_b", _FLUX)
    limit = _number(row, "flux_aper_hilim_b", _FLUX)
    if flux is not None and flux > 0:
        facts["flux"] = flux
        _put(facts, "flux_err", _error(row, "flux_aper_lolim_b", "flux_aper_hilim_b", _FLUX))
    elif limit is not None and limit > 0:
        facts["flux_upper_limit"] = f"{limit.value:.3g} erg s-1 cm-2"


def _spectrum(facts, row):
    fits = {}
    for model, (_, column, _) in _MODELS.items():
        goodness = _number(row, f"{model}_stat")
        goodness = math.inf if goodness is None else goodness
        if _number(row, column) is not None and (goodness <= _POOR_FIT or goodness == math.inf):
            fits[model] = goodness
    if "powlaw" in fits:  # an index is a measure of hardness, whichever model is best
        _measured(facts, "photon_index", row, "powlaw_gamma")
    if not fits:
        return
    best = min(fits, key=fits.get)
    facts["spectral_model"], column, fact = _MODELS[best]
    if fact == "kT":
        _measured(facts, fact, row, column, u.keV)
    _measured(facts, "n_h", row, f"{best}_nh", _CSC_COLUMN, _COLUMN)


def _measured(facts, fact, row, column, unit=None, wanted=None):
    """Put a number and its error, in the unit ``wanted``."""
    value = _number(row, column, unit)
    if value is None:
        return
    error = _error(row, f"{column}_lolim", f"{column}_hilim", unit)
    for name, number in ((fact, value), (f"{fact}_err", error)):
        _put(facts, name, number if wanted is None or number is None else number.to(wanted))


def _put(facts, name, value):
    if value is not None:
        facts[name] = value


def _error(row, low, high, unit):
    low, high = _number(row, low, unit), _number(row, high, unit)
    return (high - low) / 2 if low is not None and high is not None and high > low else None


def _number(row, column, unit=None):
    """A finite number of a row, with the unit if it should have one, else `None`."""
    value = _cell(row, column)
    if value is None:
        return None
    given = getattr(value, "unit", None)
    if given is None and hasattr(row, "columns"):  # a row of a Table: the unit is the column's
        given = row.columns[column].unit
    number = float(getattr(value, "value", value))
    if not math.isfinite(number):
        return None
    if unit is None:
        return number
    try:
        return (number * given).to(unit)
    except (TypeError, ValueError):  # no unit, or one that astropy cannot read
        return number * unit


def _text(row, column):
    value = _cell(row, column)
    return "" if value is None else str(value).strip()


def _cell(row, column):
    if column not in row.keys():
        return None
    value = row[column]
    return None if value is None or np.ma.is_masked(value) or value is np.ma.masked else value
