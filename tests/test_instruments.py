import numpy as np
import pytest

from stingray_align.instruments import INSTRUMENTS, canonical_instrument, effective_area


def test_names_are_the_six_of_the_simulations():
    assert list(INSTRUMENTS) == ["ACIS-I", "ACIS-S", "EPIC-pn", "EPIC-MOS", "NICER", "XRT"]
    assert all(name == instrument.name for name, instrument in INSTRUMENTS.items())


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_area_passes_through_its_table_and_keeps_its_shape(name):
    instrument = INSTRUMENTS[name]
    np.testing.assert_allclose(effective_area(name, instrument.energies), instrument.area)
    assert effective_area(name, np.full((2, 3), 1.2)).shape == (2, 3)
    assert effective_area(name, 20.0) == pytest.approx(instrument.area[-1])
    # Every X-ray mirror gathers most near 1-2 keV.
    energies = np.geomspace(0.3, 10, 300)
    assert 0.9 < energies[np.argmax(effective_area(name, energies))] < 2.0


def test_area_of_an_unknown_instrument_names_the_known_ones():
    with pytest.raises(ValueError, match="EPIC-pn"):
        effective_area("HRC", 1.0)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_resolution_goes_through_its_two_values_and_widens(name):
    instrument = INSTRUMENTS[name]
    np.testing.assert_allclose(instrument.fwhm([1.0, 6.0]) * 1e3, instrument.resolution)
    assert np.all(np.diff(instrument.fwhm(np.linspace(0.5, 10, 50))) >= 0)


@pytest.mark.parametrize("mission, instrument, detector, expected", [
    ("axaf", "ACIS", None, "ACIS-I"),
    ("chandra", "ACIS", "ACIS-7", "ACIS-S"),
    ("CHANDRA", "acis", "ACIS-235678", "ACIS-S"),
    ("Chandra", "ACIS", "ACIS-012367", "ACIS-I"),
    ("chandra", "ACIS", "ACIS-0123", "ACIS-I"),
    ("chandra", "ACIS", "ACIS-S3", "ACIS-S"),
    ("chandra", "ACIS-S", None, "ACIS-S"),
    ("chandra", "ACIS-I", "ACIS-7", "ACIS-I"),
    ("chandra", "HRC", None, None),
    ("xmm", "EMOS1", None, "EPIC-MOS"), ("XMM-Newton", "EPIC-MOS", None, "EPIC-MOS"),
    ("xmm", "EPN", None, "EPIC-pn"), ("xmm", "EPIC-pn", None, "EPIC-pn"),
    ("xmm", "RGS1", None, None),
    ("nicer", "XTI", None, "NICER"), ("NICER", None, None, "NICER"),
    ("swift", "XRT", None, "XRT"), ("swift", "BAT", None, None),
    ("nustar", "FPMA", None, None), ("xte", "PCA", None, None), ("ixpe", "DU1", None, None),
    ("fermi", "LAT", None, None), (None, None, None, None),
])
def test_names_are_normalised(mission, instrument, detector, expected):
    assert canonical_instrument(mission, instrument, detector) == expected


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_canonical_names_stay_as_they_are(name):
    assert canonical_instrument(INSTRUMENTS[name].mission, name) == name
    assert canonical_instrument(None, name) == name
