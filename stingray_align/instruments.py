"""The instruments the package knows, and the one place where their names are made uniform.

Effective areas are **approximate**: on-axis curves read off the missions' published plots at about
a dozen energies and interpolated in log-log. They make simulated spectra look right; they are no
calibration, and nothing measured on real data is divided by them. Those of ACIS are of its first
months; `contamination` says what they have become since.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
from astropy import units as u
from astropy.io import fits

from .errors import EventDataError, EventDataWarning

__all__ = ["INSTRUMENTS", "USUAL_INSTRUMENT", "Instrument", "canonical_instrument",
           "canonical_mission", "contamination", "effective_area", "mean_area", "read_arf"]

#: Whose area is taken for that of an unknown instrument.
USUAL_INSTRUMENT = "ACIS-S"
#: Optical depth of the contamination of ACIS at 0.68 keV near the aim points, by year. Until 2008
#: and in 2017 from ancillary response files of observations, relative to such without
#: contamination; in between and later roughly the published growth, which became faster in 2009
#: and again after 2017 (Plucinsky et al. 2018; release notes of CalDB 4.4.10 and 4.10.2).
_DEPTH = {1999.6: 0.0, 2000.5: 0.2, 2002.7: 0.39, 2004.0: 0.43, 2006.2: 0.55, 2008.0: 0.62,
          2010.0: 0.75, 2012.0: 1.1, 2014.0: 1.5, 2016.0: 1.8, 2017.0: 2.1, 2020.0: 3.0,
          2022.0: 3.7, 2026.0: 5.0}
#: That depth at other energies (keV), over that at 0.68 keV, in the same files: carbon, with the
#: edges of oxygen (0.54 keV) and fluorine (0.69 keV).
_ABSORPTION = {0.5: 1.55, 0.53: 1.55, 0.56: 1.7, 0.6: 1.37, 0.65: 1.12, 0.68: 1.0, 0.70: 1.22,
               0.75: 0.94, 0.8: 0.76, 0.9: 0.55, 1.0: 0.42, 1.2: 0.26, 1.5: 0.15, 2.0: 0.06,
               3.0: 0.01}
# Energies (keV) at which every area below is tabulated.
_ENERGIES = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 2.3, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)


@dataclass(frozen=True)
class Instrument:
    """An X-ray camera, described as far as a simulation of one point source needs it.

    Parameters
    ----------
    name, mission : str
        Canonical name (a key of `INSTRUMENTS`) and mission.
    area : tuple of float
        Approximate effective area in cm2 at ``energies``.
    frame_time : float
        Time between two read-outs in s; 0 where photons are timed one by one.
    resolution : tuple of float
        Full width at half maximum of the energy response in eV, at 1 and at 6 keV.
    background_rate : float
        Typical background of 0.5-8 keV in a source aperture, in ct/s.
    maximum_rate : float
        Count rate in ct/s above which observers choose another mode or instrument.
    energies : tuple of float
        Energies of the area table in keV.
    """

    name: str
    mission: str
    area: tuple
    frame_time: float
    resolution: tuple
    background_rate: float
    maximum_rate: float
    energies: tuple = _ENERGIES

    def fwhm(self, energies):
        """Full width at half maximum (keV) at some energies (keV).

        The square of the width grows linearly with energy (electronic noise plus Fano noise),
        through the two tabulated values.
        """
        low, high = np.square(self.resolution) * 1e-6
        slope = (high - low) / 5.0
        return np.sqrt(np.maximum(low + slope * (np.asarray(energies) - 1.0), 0.2 * low))


INSTRUMENTS = {
    instrument.name: instrument for instrument in (
        # Chandra Proposers' Observatory Guide, chapter 6.
        Instrument("ACIS-I", "chandra", (10, 90, 220, 380, 580, 500, 370, 360, 400, 340, 230, 130,
                                         60, 8), 3.24, (70, 150), 6e-5, 5.0),
        Instrument("ACIS-S", "chandra", (110, 270, 420, 600, 720, 540, 400, 380, 400, 330, 220,
                                         120, 50, 5), 3.24, (100, 155), 1.2e-4, 5.0),
        # XMM-Newton Users Handbook, section 3.2.
        Instrument("EPIC-pn", "xmm", (600, 900, 1050, 1230, 1320, 1000, 820, 820, 850, 870, 850,
                                      780, 560, 320), 0.0734, (75, 150), 2e-3, 60.0),
        Instrument("EPIC-MOS", "xmm", (120, 200, 330, 450, 540, 400, 340, 350, 370, 360, 300, 200,
                                       110, 30), 2.6, (65, 140), 5e-4, 15.0),
        # NICER mission guide; a collimated instrument, hence its background.
        Instrument("NICER", "nicer", (1000, 1400, 1650, 1850, 1900, 1350, 1000, 900, 750, 620, 500,
                                      380, 280, 150), 0.0, (85, 137), 0.5, 3000.0),
        # Swift XRT users guide, photon-counting mode.
        Instrument("XRT", "swift", (30, 60, 90, 120, 135, 100, 85, 85, 85, 75, 60, 40, 25, 6),
                   2.5, (70, 145), 3e-4, 5.0),
    )
}


def effective_area(name, energies):
    """Approximate on-axis effective area.

    Parameters
    ----------
    name : str
        Canonical instrument name, a key of `INSTRUMENTS`.
    energies : array_like
        Energies in keV; beyond 0.3-10 keV the value at the nearer end is returned.

    Returns
    -------
    ndarray
        Area in cm2, of the shape of ``energies``.

    Raises
    ------
    ValueError
        If the instrument is not known.

    Examples
    --------
    >>> from stingray_align.instruments import effective_area
    >>> effective_area("EPIC-pn", [1.0, 6.0]).round().tolist()
    [1230.0, 850.0]
    """
    if name not in INSTRUMENTS:
        raise ValueError(f"unknown instrument {name!r}: use one of {', '.join(INSTRUMENTS)}")
    instrument = INSTRUMENTS[name]
    return np.exp(np.interp(np.log(energies), np.log(instrument.energies),
                            np.log(instrument.area)))


def contamination(energies, year):
    """Share of the photons that the contamination of ACIS lets through near the aim points.

    The layer on the filters of ACIS grows, and is thicker at the edges of the arrays. What is
    returned is approximate: the optical depth is right to about a fifth.

    Parameters
    ----------
    energies : array_like
        Energies in keV.
    year : float
        Time of the observation, such as 2012.5. Before the launch there is no contamination.

    Returns
    -------
    ndarray
        Transmission, of the shape of ``energies``.

    References
    ----------
    Marshall et al. 2004, Proc. SPIE 5165, 497 (composition); Plucinsky et al. 2018, Proc. SPIE
    10699, 106996B (growth).

    Examples
    --------
    >>> from stingray_align.instruments import contamination
    >>> contamination([0.7, 1.0, 4.0], 2015.0).round(2).tolist()
    [0.13, 0.5, 0.98]
    """
    depth = np.interp(year, list(_DEPTH), list(_DEPTH.values()))
    ratio = np.exp(np.interp(np.log(energies), np.log(list(_ABSORPTION)),
                             np.log(list(_ABSORPTION.values()))))
    return np.exp(-depth * ratio)


@cache
def mean_area(name, edges, year=0.0):
    """Approximate on-axis effective area, averaged over bins of energy.

    Parameters
    ----------
    name : str
        Canonical instrument name; an empty one is taken for `USUAL_INSTRUMENT`.
    edges : tuple of float, shape (n + 1,)
        Edges of the bins in keV.
    year : float
        Time of the observation, which matters for ACIS, see `contamination`.

    Returns
    -------
    ndarray, shape (n,)
        Area in cm2.
    """
    edges = np.array(edges)
    inside = edges[:-1] + np.diff(edges) * (np.arange(8)[:, None] + 0.5) / 8
    area = effective_area(name or USUAL_INSTRUMENT, inside)
    if name.startswith("ACIS"):
        area *= contamination(inside, year)
    return area.mean(axis=0)


def read_arf(filename, edges, *, mission=None, instrument=None):
    """Effective area in an ancillary response file (ARF), averaged over bins of energy.

    Parameters
    ----------
    filename : str or `~pathlib.Path`
        FITS file with a table SPECRESP (columns ENERG_LO, ENERG_HI, SPECRESP), plain or gzipped.
    edges : array_like, shape (n + 1,)
        Edges of the bins in keV.
    mission, instrument : str, optional
        What the events are of that the area is for, as far as it is known. ``instrument`` is a
        canonical name.

    Returns
    -------
    ndarray, shape (n,)
        Area in cm2, zero where the file has none.

    Raises
    ------
    EventDataError
        If the file is no ARF, or has no area at these energies.
    FileNotFoundError
        If there is no such file.

    Warns
    -----
    EventDataWarning
        If the file says that it is of another mission or instrument.

    References
    ----------
    George et al. 1998, OGIP Calibration Memo CAL/GEN/92-002 (the format).
    """
    filename = os.fspath(filename)
    try:
        with fits.open(filename) as hdus:
            table = next(hdu for hdu in hdus if hdu.name == "SPECRESP")
            low, high, area = (u.Quantity(table.data[name].astype(float),
                                          table.columns[name].unit or usual).to_value(usual)
                               for name, usual in (("ENERG_LO", "keV"), ("ENERG_HI", "keV"),
                                                   ("SPECRESP", "cm2")))
    except FileNotFoundError:
        raise
    except (OSError, StopIteration, KeyError, TypeError, ValueError) as error:
        raise EventDataError(f"{filename} is no ancillary response file (ARF), which has a table "
                             "SPECRESP with columns ENERG_LO, ENERG_HI and SPECRESP") from error
    order = np.argsort(low)
    low, high, area = low[order], high[order], np.nan_to_num(area[order])
    collected = np.concatenate([[0.0], np.cumsum(area * (high - low))])
    found = np.diff(np.interp(edges, np.append(low, high[-1]), collected)) / np.diff(edges)
    if not (len(area) and np.all(area >= 0) and np.any(found > 0)):
        raise EventDataError(f"{filename} has no effective area at {edges[0]:g} to {edges[-1]:g} "
                             "keV")
    other = _of_another(table.header, mission, instrument)
    if other is not None:
        warnings.warn(f"{filename} is an ancillary response file of {other}, and the events are of "
                      f"{instrument or mission}: with a wrong area hardness and parameters are "
                      "wrong", EventDataWarning, stacklevel=5)
    return found


def canonical_instrument(mission, instrument, detector=None):
    """One name for an instrument, however the file or the user wrote it.

    Parameters
    ----------
    mission, instrument : str or None
        As found in an event file or on an event list; case does not matter.
    detector : str or None
        The ``DETNAM`` keyword, which for ACIS lists the CCDs in use ("ACIS-7", "ACIS-012367").

    Returns
    -------
    str or None
        A key of `INSTRUMENTS`, or None for an instrument the simulations do not cover.

    Notes
    -----
    ACIS without an array is taken as ACIS-S if CCD 7 (S3) is on and the four CCDs of the imaging
    array are not all on, and as ACIS-I otherwise.

    Examples
    --------
    >>> from stingray_align.instruments import canonical_instrument
    >>> canonical_instrument("axaf", "ACIS", "ACIS-235678")
    'ACIS-S'
    >>> canonical_instrument("XMM", "EMOS1")
    'EPIC-MOS'
    >>> canonical_instrument("nustar", "FPMA") is None
    True
    """
    mission = canonical_mission(mission)
    instrument = re.sub(r"[^A-Z0-9]", "", str(instrument or "").upper())
    if mission in ("chandra", "") and instrument.startswith("ACIS"):
        return _acis_array(instrument[4:], str(detector or "").upper())
    if mission in ("xmm", ""):
        if instrument in ("EPN", "PN", "EPICPN"):
            return "EPIC-pn"
        if re.fullmatch(r"(E|EPIC)?MOS[12]?", instrument):
            return "EPIC-MOS"
    if (mission == "nicer" and instrument in ("XTI", "NICER", "")) or (
            mission == "" and instrument in ("XTI", "NICER")):
        return "NICER"
    if mission in ("swift", "") and instrument in ("XRT", "SWIFTXRT"):
        return "XRT"
    return None


def canonical_mission(name):
    """One name for a mission, however the file or the user wrote it.

    Parameters
    ----------
    name : str or None
        Case and punctuation do not matter.

    Returns
    -------
    str
        In lower case, letters only; empty if there is none.

    Examples
    --------
    >>> from stingray_align.instruments import canonical_mission
    >>> canonical_mission("AXAF"), canonical_mission("XMM-Newton")
    ('chandra', 'xmm')
    """
    name = re.sub(r"[^a-z]", "", str(name or "").lower())
    return {"axaf": "chandra", "cxo": "chandra", "xmmnewton": "xmm", "rxte": "xte"}.get(name, name)


def _of_another(header, mission, instrument):
    """Mission and instrument that a header names, if they are not these; else None."""
    names = [str(header.get(key) or "").strip() for key in ("TELESCOP", "INSTRUME")]
    missions = {canonical_mission(names[0]), canonical_mission(mission)} - {""}
    # Which array of ACIS the events are from is often a guess.
    instruments = {str(name or "").replace("ACIS-I", "ACIS-S")
                   for name in (canonical_instrument(*names), instrument)} - {""}
    return " ".join(names) if max(len(missions), len(instruments)) > 1 else None


def _acis_array(suffix, detector):
    if suffix in ("I", "S"):
        return f"ACIS-{suffix}"
    chips = set(re.sub(r"\D", "", suffix + detector))
    if detector.endswith("S3") or suffix == "S3":
        return "ACIS-S"
    return "ACIS-S" if "7" in chips and not set("0123") <= chips else "ACIS-I"
