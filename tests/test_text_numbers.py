"""Numbers of a summary are found in its inputs, however they are written there."""

import numpy as np
import pytest

from stingray_align.text._numbers import strange_numbers

FOUND = [  # said, given
    ("1.9", "photon index 1.87"),  # rounded
    ("about 20 ks", "19834 s"),
    ("an exposure of 48.6 ks", "exposure: 48600 s"),
    ("48600 s", "48.6 ks"),
    ("2 h", "a two-hour period"),
    ("3600 s", "varies within an hour"),
    ("1800 s", "half an hour"),
    ("a fraction of 0.3", "30% of the photons"),
    ("30 per cent", "fractional_variability: 0.3"),
    ("1.2e-13 erg/s/cm2", "flux 1.24 x 10^-13 erg cm-2 s-1"),
    ("1.2 x 10^-13", "(1.2 +/- 0.3) x 10^{-13}"),
    ("1.2×10⁻¹³", "1.2e-13"),
    ("10^39 erg/s", "10<SUP>39</SUP> erg s<SUP>-1</SUP>"),
    ("5.7 x 10^21 cm^-2", "n_h: 5.7e+21 cm-2"),
    ("0.57", r"$N_{\rm H} = 5.7\times10^{21}$ cm$^{-2}$, in units of $10^{22}$"),
    ("1,234 counts", "1234 counts"),
    ("M82 X-1", "the ULX M82 X-1"),
    ("2001", "on 2001-05-02"),
    ("the 1st and 2nd outburst", "two outbursts"),
    ("in 3 cm-2 s-1", "3 photons"),
    ("at 6.4 keV", "6400 eV"),
    ("0.0862 keV", "10^6 K"),
    ("0.5 to 7 keV", "0.5-7 keV"),
    ("1.8&nbsp;keV", "kT of 1.8&plusmn;0.1 keV"),
    ("about 10^22 cm^-2", "n_h: 7.7e+21 cm-2"),
    ("the logarithm of the column is 21.9", "n_h: 7.7e+21 cm-2"),
    ("log10 of the flux is -13.4", "flux: 4.1e-14 erg s-1 cm-2"),
    ("log L = 39", "log L_X ~ 39.2"),
    ("no numbers at all", ""),
]
STRANGE = [
    ("1.8", "photon index 1.87", ["1.8"]),  # not how 1.87 is rounded
    ("3e-13", "3e-14", ["3e-13"]),  # powers of ten are not free
    ("20 s", "20 d", ["20 s"]),
    ("3.2 keV", "3.2 s", ["3.2 keV"]),
    ("in 1999", "in 1998", ["1999"]),
    ("19.8 ks", "20 ks", ["19.8 ks"]),  # more digits than were given
    ("45%", "0.54", ["45"]),
    ("7 and 7 and 8", "", ["7", "8"]),
    ("M82", "M83", ["82"]),
    ("about 10^23 cm^-2", "n_h: 7.7e+21 cm-2", ["10^23"]),
    ("1.2 x 10^39 erg/s", "about 10^39 erg/s", ["1.2 x 10^39"]),
    ("log N_H of 22.4", "n_h: 7.7e+21 cm-2", ["22.4"]),
]


@pytest.mark.parametrize("said, given", FOUND)
def test_found(said, given):
    assert strange_numbers(said, {}, given) == []


@pytest.mark.parametrize("said, given, strange", STRANGE)
def test_strange(said, given, strange):
    assert strange_numbers(said, {}, given) == strange


@pytest.mark.parametrize("slots, given", [
    ({"n_h": 0.57}, "5.7e21 cm^-2"), ({"n_h": 32.0}, "log N_H ~ 23.5"),
    ({"period": 8316.0}, "2.31 hr"), ({"timescale": 2.0}, "a QPO at 0.5 Hz"),
    ({"timescale": 129600.0}, "1.5 days"), ({"kT": 0.06}, "60 eV"),
    ({"flux": 2.4e-14}, "(2.35 +/- 0.1)e-14 erg/s/cm2 and 2.35e-14"),
    ({"flux": 1e-13}, "log F = -13.0"), ({"photon_index": 2.0}, "index of 2"),
])
def test_slots_in_their_units(slots, given):
    assert strange_numbers("", slots, given) == []


@pytest.mark.parametrize("slots, given", [
    ({"n_h": 5.7}, "5.7e21 cm^-2"), ({"period": 2.31}, "2.31 hr"), ({"kT": 60.0}, "60 eV"),
    ({"n_h": 32.0}, "log N_H ~ 22.5"), ({"timescale": 5.0}, "0.5 Hz"), ({"photon_index": 1.7}, ""),
])
def test_slots_in_wrong_units(slots, given):
    (name, value), = slots.items()
    assert strange_numbers("", slots, given) == [f"{name} {value:g}"]


def test_truth_passes_and_invention_is_caught():
    rng = np.random.default_rng(7)
    n_caught = 0
    for _ in range(200):
        period, energy, flux = 10 ** rng.uniform([0, -1, -15], [5, 1, -12])
        given = f"period: {period:.10g} s\nkT: {energy:.6g} keV\nflux: {flux:.4e} erg s-1 cm-2"
        digits = rng.integers(2, 5)
        for value, unit in ((period, "s"), (period / 1e3, "ks"), (period / 3600, "h")):
            said = f"{value:.{digits}g} {unit}, {energy * 1e3:.{digits}g} eV, {flux:.{digits - 1}e}"
            assert strange_numbers(said, {"period": float(f"{period:.3g}")}, given) == []
        n_caught += bool(strange_numbers(f"{10 ** rng.uniform(0, 5):.3g} s", {}, given))
    assert n_caught > 190
