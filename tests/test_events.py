"""Reading event lists, the state they are in afterwards, and bad input."""

import gc
import gzip
import pickle
import re
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import stingray
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_sources import write_arf

import stingray_align as sa
from stingray_align.errors import EventDataError, EventDataWarning
from stingray_align.events import EventList, background_rates, instrument_of, prepare

STINGRAY_DATA = files("stingray") / "tests" / "data"
M82 = STINGRAY_DATA / "chandra_test.fits"
SHARED = Path(__file__).parents[2] / "shared" / "data"
T0 = 4.0e8  # s: where float32 has steps of 32 s


def gti_hdu(intervals, name="GTI", ver=1, **keys):
    intervals = np.reshape(np.asarray(intervals, dtype=float), (-1, 2))
    hdu = fits.BinTableHDU.from_columns([
        fits.Column("START", "D", unit="s", array=intervals[:, 0]),
        fits.Column("STOP", "D", unit="s", array=intervals[:, 1]),
    ], name=name, ver=ver)
    hdu.header.update(keys)
    return hdu


def write_events(path, times, *, energy=(1000.0, "eV"), pi=None, pi_unit=None, ccds=None, gtis=(),
                 keys=None, ccd_name="ccd_id", mission="CHANDRA", instrument="ACIS",
                 time_unit="s"):
    """Write a small event file; energy is (value or values, unit)."""
    times = np.asarray(times, dtype=float)
    columns = [fits.Column("TIME", "D", unit=time_unit, array=times)]
    if energy is not None:
        values = np.broadcast_to(np.asarray(energy[0], dtype=float), times.shape)
        columns.append(fits.Column("ENERGY", "E", unit=energy[1], array=values))
    if pi is not None:
        columns.append(fits.Column("PI", "J", unit=pi_unit,
                                   array=np.broadcast_to(pi, times.shape)))
    if ccds is not None:
        columns.append(fits.Column(ccd_name, "I", array=ccds))
    hdu = fits.BinTableHDU.from_columns(columns, name="EVENTS")
    header = {"TELESCOP": mission, "INSTRUME": instrument, "MJDREF": 50814.0} | (keys or {})
    hdu.header.update(header)
    primary = fits.PrimaryHDU()
    primary.header.update({k: header[k] for k in ("TELESCOP", "INSTRUME")})
    fits.HDUList([primary, hdu, *gtis]).writeto(path, overwrite=True)
    return path


def quiet_read(path, **kwargs):
    """Read a file about which nothing is to be said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        events = EventList.read(path, **kwargs)
        gc.collect()  # an open file handle would be reported here
    return events


# Reading


def test_reads_a_real_chandra_file():
    ev = quiet_read(M82)
    assert type(ev) is EventList
    assert ev.n == len(ev) == 4612
    for values in (ev.time, ev.energy, ev.gti):
        assert values.dtype == np.dtype(float) and values.dtype.isnative
    assert ev.time[0] > 3e8 and np.all(np.diff(ev.time) >= 0)
    assert 4000 == np.sum((ev.energy > 0.3) & (ev.energy < 10)) - 3
    assert float(ev.exposure) == pytest.approx(945.3, abs=0.1)
    assert instrument_of(ev) == "ACIS-S"
    assert isinstance(ev.mjdref, float) and isinstance(ev.dt, float)


@pytest.mark.parametrize("fmt", [None, "hea", "ogip", "HEA"])
@pytest.mark.parametrize("kind", [str, Path])
def test_paths_and_formats(fmt, kind):
    assert EventList.read(kind(M82), fmt=fmt).n == 4612


def test_gzipped_file_with_an_odd_name(tmp_path):
    path = tmp_path / "events.dat"
    path.write_bytes(gzip.compress(M82.read_bytes()))
    assert np.array_equal(quiet_read(path).time, quiet_read(M82).time)


def test_agrees_with_stingray():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        stock = stingray.EventList.read(str(M82), fmt="hea")
        del stock.detector_id
        gc.collect()
    ev = EventList.read(M82)
    assert np.array_equal(stock.time.astype(float), ev.time)
    assert np.allclose(stock.energy, ev.energy)
    assert np.allclose(np.asarray(stock.gti, dtype=float), ev.gti)


@pytest.mark.parametrize(("name", "n", "instrument", "says"), [
    ("chandra_noener_test.fits", 4612, "ACIS-S", None),
    ("xte_test.evt.gz", 999, None, "1 of 1000 events"),
    ("xte_gx_test.evt.gz", 3415, None, "103 of 3518 events"),
    ("laxpc_file_read.fits", 1000, None, "no good time intervals"),
    ("monol_testA_calib.evt", 1000, None, "no good time intervals"),
    ("monol_testA_calib_unsrt.evt", 1000, None, "no good time intervals"),
    ("xmm_test.fits", 1708244, "EPIC-pn", None),
])
def test_reads_stingrays_own_files(name, n, instrument, says):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ev = EventList.read(STINGRAY_DATA / name)
        times, energies, gti = prepare(ev)
        gc.collect()
    caught = [w for w in caught if "recommended numba" not in str(w.message)]
    assert all(w.category is EventDataWarning for w in caught), [str(w.message) for w in caught]
    assert (ev.n, instrument_of(ev)) == (n, instrument)
    assert times.size == n and np.all(energies >= 0)
    if says is None:
        assert not caught
    else:
        assert len(caught) == 1 and says in str(caught[0].message)
        assert Path(caught[0].filename) == Path(__file__)


@pytest.mark.parametrize(("mission", "instrument", "pi", "energy"), [
    ("AXAF", "ACIS", 101, 1.46),
    ("XMM", "EPN", 1500, 1.5),
    ("NICER", "XTI", 150, 1.5),
    ("NuSTAR", "FPMA", 10, 2.02),
    ("IXPE", "GPD", 50, 2.0),
    ("SWIFT", "XRT", 150, 1.505),
    ("ROSAT", "PSPCB", 150, 1.505),
    ("ASCA", "SIS0", 400, 1.461825),
    ("SUZAKU", "XIS1", 400, 1.461825),
    ("HITOMI", "SXI", 250, 1.503),
    ("XRISM", "XTEND", 250, 1.503),
    ("XRISM", "RESOLVE", 3000, 1.50025),
    ("ASTROSAT", "SXT", 150, 1.505),
    ("eROSITA", "TM1", 1500, 1.5005),
])
def test_channels_become_energies(tmp_path, mission, instrument, pi, energy):
    path = write_events(tmp_path / "pi.fits", T0 + np.arange(5.0), energy=None, pi=pi,
                        gtis=[gti_hdu([T0 - 1, T0 + 9])], mission=mission, instrument=instrument)
    ev = quiet_read(path)
    assert ev.energy == pytest.approx(energy)
    assert np.all(ev.pi == pi)
    # A list in memory with channels only is calibrated alike.
    bare = stingray.EventList(ev.time, pi=ev.pi, gti=ev.gti, mission=ev.mission, instr=ev.instr)
    assert prepare(bare)[1] == pytest.approx(energy)


@pytest.mark.parametrize(("mission", "instrument"), [
    ("CHANDRA", "HRC"), ("AXAF", "HRC-I"), ("XMM", "OM"), ("ROSAT", "HRI"), ("ASCA", "GIS2")])
def test_cameras_without_energies(tmp_path, mission, instrument):
    path = write_events(tmp_path / "pi.fits", T0 + np.arange(5.0), energy=None, pi=100,
                        gtis=[gti_hdu([T0 - 1, T0 + 9])], mission=mission, instrument=instrument)
    ev = quiet_read(path)
    assert ev.energy is None and ev.pi.tolist() == [100] * 5
    with pytest.raises(EventDataError, match="no energies, and no PI channels of a mission"):
        prepare(ev)


@pytest.mark.parametrize(("pi", "unit"), [(1500, "eV"), (2, "keV")])
def test_channels_with_a_unit_of_energy_need_no_calibration(tmp_path, pi, unit):
    path = write_events(tmp_path / "pi.fits", T0 + np.arange(5.0), energy=None, pi=pi,
                        pi_unit=unit, gtis=[gti_hdu([T0 - 1, T0 + 9])], mission="NEW",
                        instrument="CAMERA")
    assert quiet_read(path).energy == pytest.approx((pi * u.Unit(unit)).to_value("keV"))


def test_erosita(tmp_path):
    """Photons of seven telescopes, beside rows of pixels that are none."""
    times = T0 + np.linspace(0.5, 98.5, 70)
    telescopes, pi = np.tile(np.arange(1, 8), 10), np.full(70, 1200)
    pi[::10] = -1200
    gtis = [gti_hdu(T0 + np.array([0, 99.0]), name=f"GTI{tm}") for tm in range(1, 8)]
    # One telescope looked for a shorter time, and one sent next to nothing at all.
    gtis[2] = gti_hdu(T0 + np.array([10, 99.0]), name="GTI3")
    telescopes[telescopes == 5] = 4
    gtis[4] = gti_hdu(T0 + np.array([0, 1.0]), name="GTI5")
    path = write_events(tmp_path / "em01.fits", times, energy=None, pi=pi, pi_unit="eV",
                        ccds=telescopes, ccd_name="TM_NR", gtis=gtis, mission="eROSITA",
                        instrument="MERGED", keys={"MISSION": "SRG"})
    with pytest.warns(EventDataWarning, match="6 of 63 events"):
        ev = EventList.read(path)
    assert ev.n == 57 and ev.energy == pytest.approx(1.2)
    assert (ev.gti - T0).tolist() == [[10, 99]]


@pytest.mark.parametrize(("value", "unit"), [(1500.0, "eV"), (1.5, "keV"), (1.5e-3, "MeV")])
def test_energy_units(tmp_path, value, unit):
    path = write_events(tmp_path / "e.fits", T0 + np.arange(5.0), energy=(value, unit),
                        gtis=[gti_hdu([T0, T0 + 9])])
    assert quiet_read(path).energy == pytest.approx(1.5)


def test_energy_without_a_unit(tmp_path):
    kev = write_events(tmp_path / "kev.fits", T0 + np.arange(5.0), energy=(1.5, None),
                       gtis=[gti_hdu([T0, T0 + 9])])
    assert quiet_read(kev).energy == pytest.approx(1.5)
    ev = write_events(tmp_path / "ev.fits", T0 + np.arange(5.0), energy=(1500.0, None),
                      gtis=[gti_hdu([T0, T0 + 9])])
    with pytest.warns(EventDataWarning, match="no unit"):
        assert EventList.read(ev).energy == pytest.approx(1.5)


@pytest.mark.parametrize("unit", ["KeV", "chan", "EV"])
@pytest.mark.parametrize("mission", ["CHANDRA", None])
def test_an_energy_unit_that_is_none(tmp_path, unit, mission):
    path = write_events(tmp_path / "e.fits", T0 + np.arange(5.0), energy=(1500.0, unit),
                        gtis=[gti_hdu([T0, T0 + 9])])
    if mission is None:
        forget_mission(path)
    with pytest.raises(EventDataError, match=f"ENERGY is in '{unit}'.*fits.setval.*'keV'"):
        EventList.read(path)


def test_response_matrix(tmp_path):
    path = STINGRAY_DATA / "monol_testA.evt"
    ev = quiet_read(path, rmf_file=str(STINGRAY_DATA / "test.rmf"))
    assert ev.energy.dtype == float and np.all(ev.energy > 0)


def test_ancillary_response_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_arf(Path("source.arf"), lambda energy: 50.0)
    ev = quiet_read(M82, arf_file="source.arf")
    assert ev.arf_file == str(tmp_path / "source.arf")
    assert ev[:5].arf_file == ev.apply_mask(ev.energy > 1).arf_file == ev.arf_file
    ev.write("long_enough.ecsv")
    assert quiet_read("long_enough.ecsv").arf_file == ev.arf_file
    assert quiet_read("long_enough.ecsv", arf_file="source.arf").arf_file == ev.arf_file
    assert quiet_read(M82).arf_file is None
    with pytest.raises(FileNotFoundError):
        EventList.read(M82, arf_file="missing.arf")
    with pytest.raises(EventDataError, match="no ancillary response file"):
        EventList.read(M82, arf_file=M82)


def test_joined_lists_keep_the_response_file_that_they_share():
    one, two = (EventList([1.0 + t], energy=[1.0], gti=[[t, t + 2]]) for t in (0, 5))
    assert one.join(two).arf_file is None
    one.arf_file = two.arf_file = "a.arf"
    assert one.join(two).arf_file == "a.arf"
    two.arf_file = "b.arf"
    with pytest.warns(EventDataWarning, match="different effective areas"):
        assert one.join(two).arf_file is None
    assert (one.arf_file, two.arf_file) == ("a.arf", "b.arf")


def test_unsorted_files_are_sorted_and_stay_matched(tmp_path):
    times = T0 + np.array([5.0, 1.0, 3.0])
    path = write_events(tmp_path / "u.fits", times, energy=([5000, 1000, 3000], "eV"),
                        ccds=[5, 1, 3], gtis=[gti_hdu([T0, T0 + 9])])
    ev = quiet_read(path)
    assert ev.time.tolist() == sorted(times)
    assert ev.energy.tolist() == [1, 3, 5]
    assert ev.detector_id.tolist() == [1, 3, 5]


def test_an_exposure_without_photons_is_data(tmp_path):
    path = write_events(tmp_path / "empty.fits", [], gtis=[gti_hdu([T0, T0 + 500])])
    ev = quiet_read(path)
    assert len(ev) == ev.n == 0
    times, energies, gti = prepare(ev)
    assert (times.size, energies.size) == (0, 0)
    assert gti.tolist() == [[T0, T0 + 500]]
    copied = tmp_path / "empty.ecsv"
    ev.write(copied)
    assert prepare(quiet_read(copied))[2].tolist() == gti.tolist()


def test_zero_times_are_added(tmp_path):
    path = write_events(tmp_path / "z.fits", [1.0, 2.0], gtis=[gti_hdu([0, 9])],
                        keys={"TIMEZERO": T0})
    ev = quiet_read(path)
    assert ev.time.tolist() == [T0 + 1, T0 + 2]
    assert ev.gti.tolist() == [[T0, T0 + 9]]


def test_zero_times_and_dates_of_gtis(tmp_path):
    def gti(gtis=None, gti_file=None, **keys):
        keys = {"TIMEZERO": 100.0} | keys
        if gti_file is not None:
            fits.HDUList([fits.PrimaryHDU(), gti_file]).writeto(tmp_path / "g.gti", overwrite=True)
        path = write_events(tmp_path / "z.fits", T0 + np.arange(1.0, 4), keys=keys, gtis=gtis or [])
        ev = quiet_read(path, gti_file=None if gti_file is None else str(tmp_path / "g.gti"))
        assert ev.time[0] == T0 + 1 + 100 and ev.n == 3
        return (ev.gti - T0).tolist()

    # Those of the GTIs count if they are there.
    assert gti([gti_hdu([T0, T0 + 9])]) == [[100, 109]]
    assert gti([gti_hdu([T0 + 100, T0 + 109], TIMEZERO=0.0)]) == [[100, 109]]
    assert gti(gti_file=gti_hdu([T0 - 500, T0 - 491], TIMEZERO=600.0)) == [[100, 109]]
    assert gti(gti_file=gti_hdu([T0 - 86400, T0 - 86391], MJDREF=50815.0)) == [[100, 109]]
    assert gti(gti_file=gti_hdu([T0 - 43200, T0 - 43191], MJDREFI=50814, MJDREFF=0.5)) == [
        [100, 109]]
    # The same date with fewer digits.
    assert gti([gti_hdu([T0, T0 + 9], MJDREF=50814 + 1e-10)]) == [[100, 109]]


def test_split_zero_times_are_added(tmp_path):
    path = write_events(tmp_path / "z.fits", [1.0, 2.0], gtis=[gti_hdu([0, 9])],
                        keys={"TIMEZERI": int(T0), "TIMEZERF": 0.25})
    ev = quiet_read(path)
    assert ev.time.tolist() == [T0 + 1.25, T0 + 2.25]
    assert ev.gti.tolist() == [[T0 + 0.25, T0 + 9.25]]


@pytest.mark.parametrize("mission", ["CHANDRA", None])
@pytest.mark.parametrize(("unit", "keyword"), [("d", None), ("day", None), (None, "d"), ("D", "s")])
def test_times_in_days(tmp_path, unit, keyword, mission):
    path = write_events(tmp_path / "d.fits", [1000.0, 1000.5], gtis=[gti_hdu([999.0, 1001.0])],
                        keys={"TIMEZERO": 2.0, "TIMEDEL": 1.0})
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus[1:]:
            for column in hdu.columns:
                if column.name != "ENERGY":
                    column.unit = unit
            if keyword is not None:
                hdu.header["TIMEUNIT"] = keyword
    if mission is None:
        forget_mission(path)
    ev = quiet_read(path)
    zero = 2 * 86400 if keyword == "d" else 2
    assert (ev.time - zero).tolist() == [1000 * 86400, 1000.5 * 86400]
    assert (ev.gti - zero).tolist() == [[999 * 86400, 1001 * 86400]]
    if mission is not None:
        assert ev.dt == (86400 if keyword == "d" else 1)


@pytest.mark.parametrize("unit", ["sec", "SECONDS", "S", ""])
def test_old_names_of_seconds(tmp_path, unit):
    path = write_events(tmp_path / "s.fits", T0 + np.arange(5.0), gtis=[gti_hdu([T0, T0 + 9])],
                        time_unit=unit)
    assert quiet_read(path).time[1] == T0 + 1


def test_a_time_unit_that_is_none(tmp_path):
    path = write_events(tmp_path / "s.fits", T0 + np.arange(5.0), gtis=[gti_hdu([T0, T0 + 9])],
                        time_unit="frames")
    with pytest.warns(EventDataWarning, match="'frames', which is no unit of time"):
        assert EventList.read(path).time[1] == T0 + 1


def test_times_that_are_not_finite(tmp_path):
    times = T0 + np.array([0, np.nan, 2.0])
    path = write_events(tmp_path / "n.fits", times)
    with pytest.warns(EventDataWarning) as caught:
        ev = EventList.read(path)
    assert ["1 of 3" in str(w.message) for w in caught] == [True, False]
    assert ev.gti.tolist() == [[T0, T0 + 2]]
    with pytest.raises(EventDataError, match="finite time"):
        EventList.read(write_events(tmp_path / "n.fits", times * np.nan))


# Good time intervals of files


def test_gti_gaps_and_events_outside(tmp_path):
    path = write_events(tmp_path / "g.fits", T0 + np.arange(10.0),
                        gtis=[gti_hdu(T0 + np.array([[-1, 2.5], [5.5, 7.5]]))])
    with pytest.warns(EventDataWarning, match="5 of 10 events .*outside the good time"):
        ev = EventList.read(path)
    assert (ev.time - T0).tolist() == [0, 1, 2, 6, 7]


def test_missing_gtis(tmp_path):
    path = write_events(tmp_path / "n.fits", T0 + np.arange(5.0))
    with pytest.warns(EventDataWarning, match="first to last event"):
        ev = EventList.read(path)
    assert ev.gti.tolist() == [[T0, T0 + 4]]
    prepare(ev)  # says nothing more


CCD_TIMES = T0 + np.linspace(0, 99, 100)
OF_CCD = {3: [[0, 40]], 7: [[-1, 100]]}


def ccd_file(path, ccds, style):
    """Events on CCDs 3 and 7, whose GTIs differ, in the ways of naming them."""
    gtis = {ccd: T0 + np.array(gti, dtype=float) for ccd, gti in OF_CCD.items()}
    keys, column, mission = {}, "ccd_id", ("CHANDRA", "ACIS")
    if style == "name":
        hdus = [gti_hdu(gti, name=f"GTI{ccd}") for ccd, gti in gtis.items()]
    elif style == "version":
        hdus = [gti_hdu(gti, ver=ccd) for ccd, gti in gtis.items()]
    elif style == "keyword":
        hdus = [gti_hdu(gti, ver=i + 1, CCD_ID=ccd) for i, (ccd, gti) in enumerate(gtis.items())]
    elif style == "xmm":
        column, mission = "CCDNR", ("XMM", "EMOS1")
        hdus = [gti_hdu(gti, name=f"STDGTI{ccd:02d}") for ccd, gti in gtis.items()]
    else:  # XMM after filtering: the names count filters, keywords tell the CCD
        column, mission = "CCDNR", ("XMM", "EMOS1")
        hdus = [gti_hdu(gti, name=f"GTI{i:03d}06") for i, gti in enumerate(gtis.values())]
        keys = {"DSTYP1": "CCDNR", "DSVAL1": "3", "2DSVAL1": "7", "DSTYP2": "TIME",
                "DSVAL2": "TABLE", "DSREF2": ":GTI00006", "2DSREF2": ":GTI00106"}
    return write_events(path, CCD_TIMES, ccds=ccds, gtis=hdus, ccd_name=column,
                        mission=mission[0], instrument=mission[1], keys=keys, energy=(1, "keV"))


@pytest.mark.parametrize("style", ["name", "version", "keyword", "xmm", "filtered"])
def test_gtis_of_the_ccd_of_the_source(tmp_path, style):
    path = ccd_file(tmp_path / "seven.fits", np.full(100, 7), style)
    ev = quiet_read(path)
    assert ev.n == 100 and ev.exposure == pytest.approx(101)

    path = ccd_file(tmp_path / "three.fits", np.full(100, 3), style)
    with pytest.warns(EventDataWarning, match="59 of 100 events"):
        ev = EventList.read(path)
    assert ev.exposure == pytest.approx(40)

    # Two photons that dither onto another CCD do not cost the exposure; half of them do.
    few, many = np.full(100, 7), np.full(100, 7)
    few[:2], many[::2] = 3, 3
    assert quiet_read(ccd_file(tmp_path / "few.fits", few, style)).exposure == pytest.approx(101)
    with pytest.warns(EventDataWarning, match="outside"):
        ev = EventList.read(ccd_file(tmp_path / "many.fits", many, style))
    assert ev.exposure == pytest.approx(40)


def test_general_and_ccd_gtis_are_intersected(tmp_path):
    path = write_events(
        tmp_path / "both.fits", T0 + np.arange(20, 30.0), ccds=np.full(10, 7),
        gtis=[gti_hdu(T0 + np.array([10, 60.0])), gti_hdu(T0 + np.array([0, 40.0]), name="GTI7")])
    assert (quiet_read(path).gti - T0).tolist() == [[10, 40]]


def test_user_names_the_gtis(tmp_path):
    path = ccd_file(tmp_path / "named.fits", np.full(100, 7), "name")
    with pytest.warns(EventDataWarning, match="outside"):
        ev = EventList.read(path, gtistring="GTI3")
    assert ev.exposure == pytest.approx(40)
    gti_file = tmp_path / "gti.fits"
    fits.HDUList([fits.PrimaryHDU(), gti_hdu(T0 + np.array([50.0, 60.0]))]).writeto(gti_file)
    with pytest.warns(EventDataWarning, match="outside"):
        ev = EventList.read(path, gti_file=str(gti_file))
    assert (ev.gti - T0).tolist() == [[50, 60]]


def test_gtis_that_are_not_there(tmp_path):
    path = ccd_file(tmp_path / "named.fits", np.full(100, 7), "name")
    with pytest.raises(EventDataError, match="named.fits .* named FOO; .* EVENTS, GTI3, GTI7"):
        EventList.read(path, gtistring="FOO")
    image = tmp_path / "image.fits"
    fits.PrimaryHDU().writeto(image)
    with pytest.raises(EventDataError, match="image.fits .*; its extensions are none"):
        EventList.read(path, gti_file=str(image))


def test_an_empty_aperture_has_the_gtis_of_its_ccd(tmp_path):
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0, 200, (2, 4000))
    keep = np.hypot(x - 150, y - 100) > 12
    x, y = x[keep], y[keep]
    wcs = [dict(coord_type=kind, coord_ref_value=0.0, coord_ref_point=100.0, coord_inc=1 / 3600)
           for kind in ("RA---TAN", "DEC--TAN")]
    hdu = fits.BinTableHDU.from_columns([
        fits.Column("TIME", "D", array=T0 + rng.uniform(0, 40, x.size)),
        fits.Column("ENERGY", "E", unit="keV", array=np.ones(x.size)),
        fits.Column("X", "E", array=x, **wcs[0]), fits.Column("Y", "E", array=y, **wcs[1]),
        fits.Column("ccd_id", "I", array=np.where(x < 100, 3, 7)),
    ], name="EVENTS")
    hdu.header.update({"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "MJDREF": 50814.0})
    gtis = [gti_hdu(T0 + np.array(gti, dtype=float), name=f"GTI{c}") for c, gti in OF_CCD.items()]
    path = tmp_path / "hole.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu, *gtis]).writeto(path)
    ev = quiet_read(path, region="circle(150,100,8)", background="auto")
    assert ev.n == 0 and prepare(ev)[2].tolist() == [[T0 - 1, T0 + 100]]
    # Energies of 1 keV, 4000 events over 200 x 200 pixels.
    expected = 4000 / 200**2 * np.pi * 8**2 / 101
    assert background_rates(ev) == pytest.approx([expected, 0, 0, 0], rel=0.3)


@pytest.mark.parametrize(("intervals", "says"), [
    ([], "hold no exposure"),
    ([T0 + 5, T0 + 5], "hold no exposure"),
    ([0, 10], "none of the 5 events"),
])
def test_useless_gtis_in_a_file(tmp_path, intervals, says):
    path = write_events(tmp_path / "g.fits", T0 + np.arange(5.0), gtis=[gti_hdu(intervals)])
    with pytest.raises(EventDataError, match=says):
        EventList.read(path)


# Files that are none


def test_image_instead_of_events(tmp_path):
    path = tmp_path / "image.fits"
    images = [fits.PrimaryHDU(np.zeros((20, 20))), fits.ImageHDU(np.ones((3, 3)))]
    fits.HDUList(images).writeto(path)
    with pytest.raises(EventDataError, match="no table, .*; give the event file"):
        EventList.read(path)


def test_table_without_times(tmp_path):
    path = tmp_path / "catalogue.fits"
    Table({"ra": [1.0], "dec": [2.0]}).write(path)
    with pytest.raises(EventDataError, match="no table with a TIME column"):
        EventList.read(path)


@pytest.mark.parametrize("keep", [0.15, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("zipped", [False, True])
def test_truncated_fits(tmp_path, keep, zipped):
    content = M82.read_bytes()
    if zipped:
        content = gzip.compress(content)
    path = tmp_path / "cut.fits"
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(EventDataError, match=re.escape(str(path))):
        EventList.read(path)


def test_fits_that_ends_before_its_table(tmp_path):
    path = tmp_path / "cut.fits"
    path.write_bytes(M82.read_bytes()[:5000])
    with pytest.raises(EventDataError, match="is cut off before it"):
        EventList.read(path)


def test_truncated_in_the_gtis(tmp_path):
    path = write_events(tmp_path / "cut.fits", T0 + np.arange(5.0), gtis=[gti_hdu([T0, T0 + 9])])
    content = path.read_bytes()
    assert len(content) % 2880 == 0
    for missing in (1000, 2880, 3000, 5000, 5700):  # the data, and the header before
        path.write_bytes(content[:-missing])
        with pytest.raises(EventDataError, match="is truncated"):
            EventList.read(path)


@pytest.mark.parametrize("content, what", [
    (b"", "empty; fetch"), (b"hello, these are no events\n", "neither a FITS"),
    (b"SIMPLE  = nonsense", "could not be read"), (b"\x1f\x8bnot really", "damaged gzip")])
def test_other_files(tmp_path, content, what):
    path = tmp_path / "notes.evt"
    path.write_bytes(content)
    with pytest.raises(EventDataError, match=f"notes.evt .*{what}"):
        EventList.read(path)


def test_missing_file(tmp_path):
    for fmt in (None, "hea", "ascii.ecsv"):
        with pytest.raises(FileNotFoundError):
            EventList.read(tmp_path / "nowhere.fits", fmt=fmt)


def test_file_handles_are_closed_after_errors(tmp_path):
    path = write_events(tmp_path / "e.fits", T0 + np.arange(5.0), gtis=[gti_hdu([0, 1])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kwargs in ({}, {"position": "1 2", "radius": 3}):
            with pytest.raises(EventDataError):
                EventList.read(path, **kwargs)
        gc.collect()


def test_no_energy_reads_but_cannot_be_embedded(tmp_path):
    path = write_events(tmp_path / "e.fits", T0 + np.arange(5.0), energy=None, pi=3,
                        gtis=[gti_hdu([T0, T0 + 9])], mission="babasone", instrument="X")
    ev = quiet_read(path)
    assert ev.energy is None and ev.n == 5
    with pytest.raises(EventDataError, match="no energies.*convert_pi_to_energy"):
        prepare(ev)


# Tables


def full_list():
    ev = EventList(
        T0 + np.array([1.0, 2, 2, 7]), energy=np.array([0.7, 1.5, 3.0, 7.5]),
        gti=T0 + np.array([[0.0, 3], [5, 10]]), mjdref=50814.0, mission="chandra", instr="ACIS",
        detector_id=np.array([7, 7, 7, 6]), header="DETNAM  = 'ACIS-7  '",
    )
    ev.background_soft, ev.background_medium = 0.01, 0.02
    ev.background_hard, ev.background_top = 0.03, 0.0
    return ev


def assert_same(one, other):
    assert type(one) is type(other) is EventList
    for name in ("time", "energy", "gti", "detector_id"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype.isnative
    assert np.array_equal(background_rates(one), background_rates(other))
    assert instrument_of(one) == instrument_of(other) == "ACIS-S"
    assert one.mjdref == other.mjdref


@pytest.mark.parametrize("name", ["a.ecsv", "much_longer_name.ecsv"])
def test_ecsv_round_trip(tmp_path, name):
    ev = full_list()
    ev.write(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    for fmt in (None, "ascii", "ascii.ecsv"):
        assert_same(quiet_read(tmp_path / name, fmt=fmt), ev)


def test_ecsv_round_trip_of_a_real_file(tmp_path):
    ev = EventList.read(M82)
    ev.write(tmp_path / "m82.ecsv")
    again = quiet_read(tmp_path / "m82.ecsv")
    assert_same_photons = [np.array_equal(a, b) for a, b in zip(prepare(ev), prepare(again))]
    assert all(assert_same_photons) and instrument_of(again) == "ACIS-S"


def test_stock_ecsv_and_other_tables(tmp_path):
    stock = stingray.EventList([1.0, 2.0, 5.0], energy=[1.0, 2.0, 3.0], gti=[[0, 10.0]])
    stock.to_astropy_table(no_longdouble=True).write(tmp_path / "stock.ecsv")
    assert quiet_read(tmp_path / "stock.ecsv").gti.tolist() == [[0, 10]]
    Table({"TIME": [5.0, 1.0], "Energy": [2.0, 1.0]}).write(tmp_path / "t.csv", format="ascii.csv")
    with pytest.warns(EventDataWarning, match="first to last"):
        ev = EventList.read(tmp_path / "t.csv", fmt="ascii.csv")
    assert ev.time.tolist() == [1, 5] and ev.energy.tolist() == [1, 2]
    with pytest.raises(EventDataError, match="name its format with fmt="):
        EventList.read(tmp_path / "t.csv")


def test_fits_table_without_a_mission(tmp_path):
    Table({"time": [1.0, 2.0], "energy": [1.0, 2.0]}).write(tmp_path / "plain.fits")
    with pytest.warns(EventDataWarning, match="first to last"):
        assert EventList.read(tmp_path / "plain.fits").n == 2
    with pytest.raises(EventDataError, match="names no mission"):
        EventList.read(tmp_path / "plain.fits", position="1 2", radius=3)
    path = write_events(tmp_path / "none.fits", [], gtis=[gti_hdu([T0, T0 + 9])])
    forget_mission(path)
    assert quiet_read(path).exposure == 9


def test_units_and_masks_of_tables(tmp_path):
    table = QTable({"time": [1.0, 2.0, 3.0] * u.ks, "energy": [1000.0, 2000.0, 3000.0] * u.eV},
                   meta={"gti": [[0, 4000]]})
    masked = QTable(table, masked=True)
    masked["energy"].mask[2] = True
    for name, table in (("q", table), ("m", masked)):
        table.write(tmp_path / f"{name}.ecsv")
        for ev in (quiet_read(tmp_path / f"{name}.ecsv"), EventList.from_astropy_table(table)):
            assert ev.time.tolist() == [1000, 2000, 3000]
            energy = [1, 2, 3 if name == "q" else np.nan]
            assert np.array_equal(ev.energy, energy, equal_nan=True)
    days = Table({"time": [1.0, 2.0], "pi": np.ma.array([100, 200], mask=[False, True])},
                 meta={"gti": [[0, 2e5]], "mission": "nicer"})
    days["time"].unit = "d"
    days.write(tmp_path / "d.ecsv")
    ev = quiet_read(tmp_path / "d.ecsv")
    assert ev.time.tolist() == [86400, 172800]
    with pytest.warns(EventDataWarning, match="1 of 2 events have NaN"):
        assert prepare(ev)[1].tolist() == [1]
    days["time"].unit = "m"
    days.write(tmp_path / "d.ecsv", overwrite=True)
    with pytest.raises(EventDataError, match="d.ecsv .*time is in 'm', .*converted to s"):
        EventList.read(tmp_path / "d.ecsv")


def forget_mission(path):
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus[:2]:
            del hdu.header["TELESCOP"]


@pytest.mark.parametrize("fmt", [None, "fits"])
def test_events_and_gtis_of_no_mission(tmp_path, fmt):
    gtis = [gti_hdu([T0, T0 + 9]), gti_hdu([T0 + 1, T0 + 9], name="BEST")]
    path = write_events(tmp_path / "e.fits", T0 + np.arange(5.0), energy=(1500, "eV"), gtis=gtis,
                        keys={"EXPOSURE": 9.0, "MJDREF": 50000.0})
    forget_mission(path)
    ev = quiet_read(path, fmt=fmt)
    assert ev.n == 5 and ev.energy == pytest.approx(1.5) and ev.mjdref == 50000
    assert (ev.gti - T0).tolist() == [[0, 9]]
    with pytest.warns(EventDataWarning, match="1 of 5"):
        assert EventList.read(path, fmt=fmt, gtistring="BEST").exposure == 8
    with pytest.raises(EventDataError, match="named FOO"):
        EventList.read(path, fmt=fmt, gtistring="FOO")
    assert quiet_read(path, fmt=fmt, gti_file=str(path), force_hduname="EVENTS").exposure == 9
    with pytest.raises(EventDataError, match="unexpected keyword"):
        EventList.read(path, fmt=fmt, gti_flie="x")
    with pytest.raises(EventDataError, match="source can be picked"):
        EventList.read(path, fmt=fmt, position="1 2", radius=3)


def test_tables_have_no_sky(tmp_path):
    full_list().write(tmp_path / "a.ecsv")
    with pytest.raises(EventDataError, match="need a FITS event file"):
        EventList.read(tmp_path / "a.ecsv", position="1 2", radius=3)
    with pytest.raises(TypeError, match="gtistring"):
        EventList.read(tmp_path / "a.ecsv", gtistring="GTI")
    (tmp_path / "bad.ecsv").write_text("# %ECSV 1.0\nthis is none\n")
    with pytest.raises(EventDataError, match="could not be read as ascii.ecsv"):
        EventList.read(tmp_path / "bad.ecsv")


# The class


def test_operations_keep_the_class_and_its_attributes():
    ev = full_list()
    rates = background_rates(ev)
    for new in (ev.apply_mask(ev.energy > 1), ev[1:3], ev.sort(), ev.filter_energy_range([1, 8]),
                ev.apply_gtis(inplace=False), pickle.loads(pickle.dumps(ev)),
                EventList.from_eventlist(ev), EventList.from_astropy_table(ev.to_astropy_table())):
        assert type(new) is EventList
        assert np.array_equal(background_rates(new), rates)
        prepare(new)


def test_lists_of_coincidental_length():
    # Two events and two GTIs; four events and four bands.
    ev = full_list().apply_mask(np.array([True, False, False, True]))
    assert ev.gti.shape == (2, 2) and ev.n == 2
    assert background_rates(full_list()).size == full_list().n
    one = ev.apply_mask(np.array([True, False]))
    assert one.gti.shape == (2, 2) and one.background_hard == 0.03


def test_length_of_an_empty_list():
    assert len(EventList()) == 0
    assert len(EventList(gti=[[0, 1]])) == 0


def test_from_eventlist_copies():
    stock = stingray.EventList([1.0, 2.0], energy=[1.0, 2.0], gti=[[0, 3]], mission="nicer")
    ev = EventList.from_eventlist(stock)
    ev.energy[0] = 9
    assert stock.energy[0] == 1 and ev.mission == "nicer" and type(ev) is EventList
    with pytest.raises(EventDataError, match="expected a stingray.EventList, not list"):
        EventList.from_eventlist([1, 2])


def test_join_with_a_stock_list():
    ours = EventList([1.0, 2.0], energy=[1.0, 2.0], gti=[[0, 3]])
    stock = stingray.EventList([6.0], energy=[3.0], gti=[[5, 9]])
    for joined in (ours.join(stock), ours.join([stock])):
        assert type(joined) is EventList
        assert joined.time.tolist() == [1, 2, 6] and joined.exposure == 7


def test_join_with_an_empty_exposure_keeps_its_time():
    full = EventList([1.0, 2.0], energy=[1.0, 2.0], gti=[[0, 3]])
    empty = EventList(gti=[[5, 9]])
    for joined in (full.join(empty), empty.join(full)):
        assert joined.n == 2 and joined.exposure == 7
    assert empty.join(EventList(gti=[[10, 11]])).exposure == 5


def test_join_background():
    def one(gti, rate):
        ev = EventList([np.mean(gti)], energy=[1.0], gti=[gti])
        ev.background_soft = ev.background_medium = ev.background_hard = ev.background_top = rate
        return ev

    after = one([0.0, 10.0], 0.1).join(one([20.0, 50.0], 0.3))
    assert background_rates(after) == pytest.approx((10 * 0.1 + 30 * 0.3) / 40)
    beside = one([0.0, 10.0], 0.1).join(one([0.0, 10.0], 0.3))
    assert background_rates(beside) == pytest.approx(0.4)
    assert background_rates(one([0.0, 10.0], 0.1).join(one([20.0, 50.0], None))) is None


@pytest.mark.parametrize("days", [1.0, 0.25])
def test_join_counts_from_one_date(days):
    def one(mjdref, rate, n=1):
        ev = EventList([500.0] * n, energy=[1.0] * n, gti=[[0, 1000]], mjdref=mjdref)
        ev.background_soft = ev.background_medium = ev.background_hard = ev.background_top = rate
        return ev

    first, second = one(50000.0, 0.1), one(50000 + days, 0.3)
    for other in (second, one(50000 + days, 0.3, n=0)):
        joined = first.join(other)
        assert joined.mjdref == 50000
        assert joined.gti.tolist() == [[0, 1000], [days * 86400, days * 86400 + 1000]]
        assert prepare(joined)[0].size == joined.n == 1 + other.n
        assert background_rates(joined) == pytest.approx(0.2)
    assert second.mjdref == 50000 + days and second.time.tolist() == [500]


def test_background_is_known_in_all_bands_or_not():
    ev = full_list()
    assert background_rates(ev).tolist() == [0.01, 0.02, 0.03, 0.0]
    ev.background_top = np.nan
    assert background_rates(ev) is None
    ev.background_top = (0.1, 0.2)
    assert background_rates(ev) is None
    assert background_rates(stingray.EventList([1.0], gti=[[0, 2]])) is None
    for rate in (0.04 / u.s, 0.04 * u.ct / u.s, 40 * u.ct / u.ks, np.float32(0.04)):
        ev.background_top = rate
        assert background_rates(ev)[3] == pytest.approx(0.04)


@pytest.mark.parametrize("value", ["0.1", 0.1 * u.s, 0.1 * u.keV / u.s])
def test_a_background_that_is_no_rate(value):
    ev = full_list()
    ev.background_soft = value
    with pytest.raises(TypeError, match="background_soft must be a number in counts per second"):
        background_rates(ev)


@pytest.mark.parametrize("value", [-0.1, np.inf, -np.inf])
def test_a_background_that_cannot_be(value):
    ev = full_list()
    ev.background_soft = value
    with pytest.raises(EventDataError, match="must not be negative or infinite"):
        background_rates(ev)


def test_enable_is_for_the_stock_class(monkeypatch):
    monkeypatch.delattr(stingray.EventList, "embed", raising=False)
    monkeypatch.setattr("stingray_align.autodecoder.embed", lambda ev, model=None: (ev, model),
                        raising=False)
    stock = stingray.EventList([1.0, 2.0], gti=[[0, 3]])
    assert not hasattr(stock, "embed")
    sa.enable()
    assert stock.embed() == (stock, None)
    assert stock.embed(model="m")[1] == "m"
    monkeypatch.delattr(stingray.EventList, "embed")
    ours = EventList.from_eventlist(stock)
    assert ours.embed(model="m")[0] is ours


def test_spectrum():
    ev = full_list()
    spectrum = ev.spectrum([0.5, 1, 2, 8] * u.keV)
    assert spectrum.flux.to_value("ct / keV") == pytest.approx([2, 1, 2 / 6])
    assert spectrum.bin_edges.to_value("keV") == pytest.approx([0.5, 1, 2, 8])
    assert spectrum.uncertainty.array == pytest.approx([4, 1, 2 / 36])
    assert spectrum.meta["exposure"] == 8 * u.s
    default = ev.spectrum()
    assert len(default.flux) == 20
    assert np.sum(default.flux * np.diff(default.bin_edges)).to_value("ct") == pytest.approx(4)
    edges = np.array([500, 8000]) * u.eV
    assert ev.spectrum(edges).flux.to_value("ct / keV") == pytest.approx([4 / 7.5])
    assert np.all(EventList(gti=[[0, 1]]).spectrum().flux == 0)
    with pytest.raises(ValueError, match="increasing"):
        ev.spectrum([2, 1])


@pytest.mark.parametrize(("mission", "instr", "detector", "header", "expected"), [
    ("axaf", "ACIS", [7, 7, 3], None, "ACIS-S"),
    ("chandra", "ACIS", [0, 1, 3], None, "ACIS-I"),
    ("chandra", "ACIS", [5], None, "ACIS-S"),
    ("axaf", "ACIS", None, "DETNAM  = 'ACIS-7  '".ljust(80), "ACIS-S"),
    ("axaf", "ACIS", None, "DETNAM  = 'ACIS-01236'".ljust(80), "ACIS-I"),
    ("axaf", "ACIS", None, None, "ACIS-I"),
    ("xmm", "EPN", None, None, "EPIC-pn"),
    ("XMM", "EMOS2", None, None, "EPIC-MOS"),
    ("xmm,xmm", "EMOS1,EMOS2", None, None, "EPIC-MOS"),
    (("nicer", "nicer"), ("XTI", "XTI"), None, None, "NICER"),
    ("swift", "XRT", None, None, "XRT"),
    ("nustar", "FPMA", None, None, None),
    (None, None, None, None, None),
])
def test_instrument_names(mission, instr, detector, header, expected):
    ev = stingray.EventList([1.0, 2.0, 3.0], mission=mission, instr=instr, header=header)
    if detector is not None:
        ev.detector_id = np.resize(detector, 3)
    assert instrument_of(ev) == expected


# Bad input


def test_prepare_leaves_the_list_alone():
    ev = full_list()
    times, energies, gti = prepare(ev)
    times[:], energies[:], gti[:] = 0, 0, 0
    assert_same(ev, full_list())


@pytest.mark.parametrize(("make", "says"), [
    (lambda: [1, 2, 3], "expected a stingray.EventList"),
    (lambda: None, "expected a stingray.EventList"),
    (lambda: stingray.EventList(), "no events and no good time intervals"),
    (lambda: stingray.EventList([], energy=[]), "no events and no good time intervals"),
    (lambda: stingray.EventList(gti=[]), "hold no exposure"),
    (lambda: stingray.EventList([1.0, 2], gti=[[0, 3]]), "no energies"),
    (lambda: stingray.EventList([1.0, 2], pi=[4, 5], gti=[[0, 3]]), "no energies"),
    (lambda: stingray.EventList([1.0], energy=[1.0]), "one instant"),
    (lambda: stingray.EventList([4.0] * 5, energy=[1.0] * 5), "one instant"),
    (lambda: stingray.EventList([4.0], energy=[1.0], gti=[[4, 4]]), "hold no exposure"),
    (lambda: stingray.EventList([4.0], energy=[1.0], gti=[[9, 3]]), "hold no exposure"),
    (lambda: stingray.EventList([4.0, 5], energy=[1.0, 1], gti=[1.0, 2]), "must be given as"),
    (lambda: stingray.EventList([4.0, 5], energy=[1.0, 1], gti=[[1, 2], [6, 9]]), "none of the 2"),
    (lambda: stingray.EventList([1.0, 2], energy=[np.nan] * 2, gti=[[0, 3]]), "NaN or negative"),
    (lambda: stingray.EventList([1.0, 2], energy=[-1.0, -2], gti=[[0, 3]]), "NaN or negative"),
    (lambda: EventList([np.nan, np.nan], energy=[1.0, 2], gti=[[0, 3]], skip_checks=True),
     "no event has a finite time"),
])
def test_unusable_lists_are_refused(make, says):
    with pytest.raises(EventDataError, match=says):
        prepare(make())


def test_energies_of_another_length():
    ev = EventList([1.0, 2.0], gti=[[0, 3]])
    ev.energy = np.ones(3)
    with pytest.raises(EventDataError, match="2 times but energies"):
        prepare(ev)


def test_bad_energies_are_dropped():
    ev = stingray.EventList([1.0, 2, 3, 4], energy=[1.0, np.nan, -3, np.inf], gti=[[0, 9]])
    with pytest.warns(EventDataWarning, match="3 of 4 events have NaN or negative energies"):
        times, energies, _ = prepare(ev)
    assert times.tolist() == [1] and energies.tolist() == [1]


def test_bad_times_are_dropped():
    ev = stingray.EventList([1.0, 2, np.inf], energy=[1.0, 2, 3], gti=[[0, 9]])
    with pytest.warns(EventDataWarning, match="1 of 3 events have times that are not finite"):
        assert prepare(ev)[0].tolist() == [1, 2]


def test_masked_events_are_dropped():
    masked = np.ma.array([1.0, 2, 3, 4], mask=[False, True, False, False])
    ev = stingray.EventList([1.0, 2, 3, 4], energy=masked, gti=[[0, 9]])
    with pytest.warns(EventDataWarning, match="1 of 4 events have NaN"):
        assert prepare(ev)[1].tolist() == [1, 3, 4]
    ev = stingray.EventList([1.0, 2, 3, 4], pi=(masked * 100).astype(int), gti=[[0, 9]],
                            mission="nicer")
    with pytest.warns(EventDataWarning, match="1 of 4 events have NaN"):
        assert prepare(ev)[1].tolist() == [1, 3, 4]
    ev = stingray.EventList([1.0, 2, 3, 4], energy=np.ones(4), gti=[[0, 9]])
    ev.time = masked
    with pytest.warns(EventDataWarning, match="1 of 4 events have times that are not finite"):
        assert prepare(ev)[0].tolist() == [1, 3, 4]


def test_joining_keeps_what_is_masked_out():
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    first, second = (stingray.EventList([t + 1, t + 2], energy=masked,
                                        pi=(100 * masked).astype(int), gti=[[t, t + 9]])
                     for t in (0.0, 20.0))
    joined = EventList.from_eventlist(first).join(second)
    for values in (joined.energy, joined.pi / 100):
        assert np.array_equal(values, [1, np.nan, 1, np.nan], equal_nan=True)


def test_unsorted_times_are_sorted():
    ev = stingray.EventList([3.0, 1, 2], energy=[3.0, 1, 2], gti=[[0, 9]], skip_checks=True)
    with pytest.warns(EventDataWarning, match="not sorted"):
        times, energies, _ = prepare(ev)
    assert times.tolist() == energies.tolist() == [1, 2, 3]


def test_duplicated_times_are_kept():
    ev = stingray.EventList([1.0, 1, 1, 2], energy=[1.0, 2, 3, 4], gti=[[0, 9]])
    assert prepare(ev)[1].tolist() == [1, 2, 3, 4]


def test_missing_gtis_in_memory():
    ev = stingray.EventList([1.0, 5.0], energy=[1.0, 2.0])
    with pytest.warns(EventDataWarning, match="first to last event"):
        assert prepare(ev)[2].tolist() == [[1, 5]]


def test_one_photon():
    times, energies, gti = prepare(stingray.EventList([5.0], energy=[1.0], gti=[[0, 9]]))
    assert (times.tolist(), energies.tolist(), gti.tolist()) == ([5], [1], [[0, 9]])


def test_gtis_are_tidied():
    ev = EventList([1.0], energy=[1.0],
                   gti=[[8.0, 9], [0, 2], [1, 3], [3, 4], [6, 6], [np.nan, 7]])
    assert prepare(ev)[2].tolist() == [[0, 4], [8, 9]]


def test_odd_number_types():
    ev = stingray.EventList(np.array([1.0, 2.0], dtype=">f8"), energy=np.array([1, 2], dtype=">f4"),
                            gti=np.array([[0, 3]], dtype=np.longdouble))
    for values in prepare(ev):
        assert values.dtype == np.dtype(float) and values.dtype.isnative
    high = stingray.EventList([T0 + 0.125, T0 + 0.25], energy=[1.0, 2.0], gti=[[T0, T0 + 1]],
                              high_precision=True)
    assert (prepare(high)[0] - T0).tolist() == [0.125, 0.25]


@st.composite
def event_lists(draw):
    """Any event list a user could bring, good or bad."""
    n = draw(st.integers(0, 30))
    wild = st.floats(allow_nan=True, allow_infinity=True, width=64)
    tame = st.floats(-1e9, 1e9)
    times = draw(hnp.arrays(float, n, elements=draw(st.sampled_from([wild, tame]))))
    energy = draw(st.none() | hnp.arrays(float, n, elements=draw(
        st.sampled_from([wild, st.floats(0, 20)]))))
    gti = draw(st.none() | hnp.arrays(float, st.tuples(st.integers(0, 4), st.just(2)),
                                      elements=draw(st.sampled_from([wild, tame]))))
    if draw(st.booleans()) and n:
        finite = times[np.isfinite(times)]
        if finite.size:
            gti = [[finite.min(), finite.max() + draw(st.floats(0, 1e5))]]
    kind = draw(st.sampled_from([stingray.EventList, EventList]))
    return kind(times, energy=energy, gti=gti, skip_checks=True,
                mission=draw(st.sampled_from([None, "nicer", "unknown"])))


@settings(deadline=None)
@given(event_lists())
def test_any_list_is_prepared_or_refused(ev):
    energies_before = None if ev.energy is None else np.array(ev.energy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", EventDataWarning)
        try:
            times, energies, gti = prepare(ev)
        except EventDataError as error:
            assert str(error)
            return
    assert times.shape == energies.shape and gti.ndim == 2 and len(gti) >= 1
    assert np.all(np.diff(times) >= 0)
    assert np.all(np.isfinite(energies)) and np.all(energies >= 0)
    assert np.all(gti[:, 1] > gti[:, 0]) and np.all(gti[1:, 0] > gti[:-1, 1])
    assert all(np.any((gti[:, 0] <= t) & (t <= gti[:, 1])) for t in times)
    if ev.time is not None:
        assert set(times) <= set(ev.time)
    if energies_before is not None:
        assert np.array_equal(ev.energy, energies_before, equal_nan=True)


@settings(deadline=None)
@given(event_lists())
def test_preparing_twice_changes_nothing(ev):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            once = prepare(ev)
        except EventDataError:
            return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twice = prepare(EventList(once[0], energy=once[1], gti=once[2]))
    assert all(np.array_equal(a, b) for a, b in zip(once, twice))


# The shared development data, where they are


def shared_table():
    """Events and events in 0.3-10 keV of each file, from the README of the shared data."""
    readme = SHARED / "README.md"
    if not readme.exists():
        return []
    rows = re.findall(r"^\| (\S+\.(?:fits|evt)(?:\.gz)?) \|.*\| (\d+) \| (\d+) \|",
                      readme.read_text(), re.MULTILINE)
    return [(name, int(n), int(in_band)) for name, n, in_band in rows]


def test_every_shared_file():
    rows = shared_table()
    if not rows:
        pytest.skip("the shared development data are not here")
    assert len(rows) > 50
    dropped = {"raw/xte_gx_test.evt.gz": 103, "raw/xte_test.evt.gz": 1}
    for name, n, in_band in rows:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            times, energies, gti = prepare(EventList.read(SHARED / name))
        assert all(w.category is EventDataWarning for w in caught), name
        assert times.size == n - dropped.get(name, 0), name
        if name not in dropped:
            assert np.sum((energies >= 0.3) & (energies <= 10)) == in_band, name
        assert gti[0, 0] <= times[0] and times[-1] <= gti[-1, 1]


@pytest.mark.parametrize(("raw", "pattern"), [
    ("raw/755_7_evt2_05_8keV.fits", "chandra755_0[1-5]*.fits"),
    ("raw/ixpe01006501_det1_evt2_v15.fits.gz", "ixpe01006501_du1*.fits"),
])
def test_shared_extractions(raw, pattern):
    paths = sorted((SHARED / "extracted").glob(pattern))
    if not paths or not (SHARED / raw).exists():
        pytest.skip("the shared development data are not here")
    for path in paths:
        header = fits.getheader(path, 1)
        ev = EventList.read(SHARED / raw, position=f"{header['RA_OBJ']} {header['DEC_OBJ']}",
                            radius=header["APRAD"], background="auto")
        # Their apertures are centred to about a pixel.
        assert ev.n == pytest.approx(header["NAXIS2"], rel=0.03, abs=2)
        if "BKGCNT" in header:
            expected = background_rates(ev).sum() * ev.exposure
            assert expected == pytest.approx(header["BKGCNT"], rel=0.3, abs=1)


def test_a_thinned_list_says_so(tmp_path):
    with fits.open(M82) as hdus:
        hdus["EVENTS"].header["THINNED"] = True
        hdus.writeto(tmp_path / "thin.fits")
    with pytest.warns(EventDataWarning, match="no Poisson process"):
        assert len(EventList.read(tmp_path / "thin.fits")) > 0
