import gzip

import numpy as np
import pytest
from astropy.io import fits
from small_sources import write_arf

from stingray_align.errors import EventDataError
from stingray_align.instruments import (INSTRUMENTS, canonical_instrument, contamination,
                                        effective_area, mean_area, read_arf)
from stingray_align.photons import CHANNEL_EDGES


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


def test_mean_area_is_that_of_a_fine_grid():
    fine = np.linspace(1.2, 2.0, 100_001)
    expected = effective_area("EPIC-pn", (fine[1:] + fine[:-1]) / 2).mean()
    assert mean_area("EPIC-pn", (1.2, 2.0)) == pytest.approx([expected], rel=1e-3)
    assert mean_area("", (1.0, 2.0)) == mean_area("ACIS-S", (1.0, 2.0))


def test_contamination_grows_and_takes_soft_photons():
    energies, years = np.geomspace(0.5, 8, 60), np.arange(1990, 2040, 0.5)
    left = np.array([contamination(energies, year) for year in years])
    assert np.all((left > 0) & (left <= 1)) and np.all(np.diff(left, axis=0) <= 0)
    np.testing.assert_array_equal(left[years < 1999.5], 1)
    assert np.all(left[:, energies > 3] > 0.94)
    # Twice the depth squares what is left, at each energy.
    np.testing.assert_allclose(contamination(energies, 2012.0), contamination(energies, 2006.2)**2)
    # The edges of oxygen and fluorine: less gets through right above them.
    for edge in (0.54, 0.69):
        below, above = contamination([edge - 0.01, edge + 0.015], 2015.0)
        assert above < below
    assert contamination(np.full((2, 3), 1.0), 2010.0).shape == (2, 3)


def test_only_the_area_of_acis_depends_on_the_date():
    edges = tuple(CHANNEL_EDGES)
    for name in ("ACIS-I", "ACIS-S"):
        now, then = mean_area(name, edges, 2010.0), mean_area(name, edges)
        assert now[0] < 0.5 * then[0] and now[-1] > 0.98 * then[-1]
    for name in ("EPIC-pn", "NICER", ""):
        np.testing.assert_array_equal(mean_area(name, edges, 2010.0), mean_area(name, edges))


def test_area_of_an_ancillary_response_file(tmp_path):
    path = write_arf(tmp_path / "line.arf", lambda energy: 100 * energy)
    centre = (CHANNEL_EDGES[1:] + CHANNEL_EDGES[:-1]) / 2
    np.testing.assert_allclose(read_arf(path, CHANNEL_EDGES), 100 * centre, rtol=1e-3)
    # Other units, rows in another order, and packed.
    with fits.open(path) as hdus:
        data = hdus["SPECRESP"].data[::-1]
        other = fits.BinTableHDU.from_columns([
            fits.Column("ENERG_LO", "D", unit="eV", array=1e3 * data["ENERG_LO"].astype(float)),
            fits.Column("ENERG_HI", "D", unit="eV", array=1e3 * data["ENERG_HI"].astype(float)),
            fits.Column("SPECRESP", "D", unit="m2", array=1e-4 * data["SPECRESP"].astype(float)),
        ], name="SPECRESP")
    other.writeto(tmp_path / "other.fits")
    (tmp_path / "other.arf.gz").write_bytes(
        gzip.compress((tmp_path / "other.fits").read_bytes()))
    np.testing.assert_allclose(read_arf(tmp_path / "other.arf.gz", CHANNEL_EDGES),
                               read_arf(path, CHANNEL_EDGES), rtol=1e-5)


def test_energies_without_area_have_none(tmp_path):
    path = write_arf(tmp_path / "hard.arf", lambda energy: 100.0, np.linspace(3, 79, 1900))
    area = read_arf(path, CHANNEL_EDGES)
    assert np.all(area[CHANNEL_EDGES[1:] < 3] == 0)
    np.testing.assert_allclose(area[CHANNEL_EDGES[:-1] > 3], 100, rtol=1e-6)


def test_what_is_no_ancillary_response_file_is_called_that(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_arf(tmp_path / "missing.arf", CHANNEL_EDGES)
    (tmp_path / "text.arf").write_text("no FITS")
    fits.PrimaryHDU().writeto(tmp_path / "image.arf")
    fits.BinTableHDU.from_columns([fits.Column("TIME", "D", array=[1.0])],
                                  name="SPECRESP").writeto(tmp_path / "times.arf")
    for name in ("text", "image", "times"):
        with pytest.raises(EventDataError, match="no ancillary response file"):
            read_arf(tmp_path / f"{name}.arf", CHANNEL_EDGES)
    for name, area in (("zero", 0.0), ("negative", -1.0)):
        path = write_arf(tmp_path / f"{name}.arf", lambda energy: area)
        with pytest.raises(EventDataError, match="no effective area at 0.5 to 8 keV"):
            read_arf(path, CHANNEL_EDGES)
