"""Facts out of rows of the Chandra Source Catalog."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table

from stingray_align.datasets import csc_facts, facts as facts_module
from stingray_align.text import OfflineWriter, write_summary

SHARED = Path(__file__).parents[2] / "shared" / "data"

ROW = {
    "name": "2CXO J111816.5-324845", "ra": 169.5686, "dec": -32.8126, "significance": 12.5,
    "likelihood_class": "TRUE", "acis_time": 25e3, "hrc_time": 1e3,
    "flux_aper_b": 4e-14, "flux_aper_lolim_b": 3e-14, "flux_aper_hilim_b": 5e-14,
    "hard_hs": 0.2, "hard_hs_lolim": 0.1, "hard_hs_hilim": 0.3, "hard_hm": -0.1, "hard_ms": 0.3,
    "powlaw_gamma": 1.7, "powlaw_gamma_lolim": 1.5, "powlaw_gamma_hilim": 1.9,
    "powlaw_nh": 20.0, "powlaw_nh_lolim": 10.0, "powlaw_nh_hilim": 30.0, "powlaw_stat": 0.9,
    "bb_kt": 0.8, "bb_nh": 5.0, "bb_stat": 1.4, "nh_gal": 6.4,
    "var_intra_prob_b": 0.95, "var_intra_index_b": 6, "var_inter_prob_b": 0.2,
    "var_inter_index_b": 0, "var_flag": True, "extent_flag": False, "pileup_flag": False,
}


def test_every_fact_of_a_full_row():
    facts = csc_facts(ROW)
    assert facts["name"] == ROW["name"] and facts["detection_class"] == "true"
    assert (facts["ra"], facts["dec"]) == (169.5686 * u.deg, -32.8126 * u.deg)
    assert (facts["exposure"], facts["instrument"]) == (25e3 * u.s, "Chandra ACIS")
    assert facts["flux"].to_value("erg s-1 cm-2") == pytest.approx(4e-14)
    assert facts["flux_err"].to_value("erg s-1 cm-2") == pytest.approx(1e-14)
    assert facts["hardness_2-7_to_0.5-1.2_keV"] == 0.2
    assert facts["hardness_2-7_to_0.5-1.2_keV_err"] == pytest.approx(0.1)
    assert "hardness" not in facts  # that of counts is something else
    assert (facts["photon_index"], facts["photon_index_err"]) == pytest.approx((1.7, 0.2))
    assert facts["spectral_model"] == "absorbed power law" and "kT" not in facts
    assert facts["n_h"].to_value("1e22 cm-2") == pytest.approx(0.2)
    assert facts["n_h_err"].to_value("1e22 cm-2") == pytest.approx(0.1)
    assert facts["galactic_n_h"] == "6.4e+20 cm-2"
    assert facts["variability_probability_within_observations"] == 0.95
    assert facts["variability_index_between_observations_0-10"] == 0
    assert facts["variable"] is True and "extended" not in facts


def test_every_column_is_documented():
    columns = [*facts_module._NUMBERS.values(), *facts_module._FLAGS.values(),
               *(f"{model}_{what}" for model in facts_module._MODELS for what in ("nh", "stat")),
               *(column for _, column, _ in facts_module._MODELS.values()), *ROW]
    table = csc_facts.__doc__.partition("Notes")[2]
    missing = {c for c in columns if f"``{c}``" not in table and "_lolim" not in c
               and "_hilim" not in c}
    assert not missing


@pytest.mark.parametrize("stats, model, kt, n_h", [
    ({"powlaw_stat": 1.8}, "absorbed black body", 0.8, 0.05),
    ({"powlaw_stat": 15.0}, "absorbed black body", 0.8, 0.05),
    ({"powlaw_stat": 15.0, "bb_stat": 14.0}, None, None, None),
    ({"powlaw_stat": None, "bb_stat": None}, "absorbed power law", None, 0.2),
])
def test_only_models_that_fit_give_facts(stats, model, kt, n_h):
    facts = csc_facts({**ROW, **stats})
    assert facts.get("spectral_model") == model
    assert facts.get("kT") == (None if kt is None else kt * u.keV)
    assert ("n_h" in facts) == (n_h is not None)
    if n_h is not None:
        assert facts["n_h"].to_value("1e22 cm-2") == pytest.approx(n_h)
    assert ("photon_index" in facts) == (stats["powlaw_stat"] != 15.0)


def test_a_flux_of_zero_is_a_limit():
    facts = csc_facts({"flux_aper_b": 0.0, "flux_aper_hilim_b": 3e-15})
    assert facts == {"flux_upper_limit": "3e-15 erg s-1 cm-2"}


@pytest.mark.parametrize("value, set_", [
    (True, True), (np.True_, True), (1, True), ("TRUE", True), ("T", True), (False, False),
    ("FALSE", False), (0, False), (None, False), (np.ma.masked, False)])
def test_flags_however_they_are_written(value, set_):
    facts = csc_facts({"significance": 3.0, "var_flag": value})
    assert ("variable" in facts) == set_


def test_rows_of_every_kind_agree():
    table = Table(rows=[ROW])
    quantities = QTable(table, units={"ra": u.deg, "flux_aper_b": u.erg / u.s / u.cm**2})
    pandas = pytest.importorskip("pandas", reason="for a row of a DataFrame")
    for row in (table[0], quantities[0], pandas.DataFrame([ROW]).iloc[0]):
        assert csc_facts(row) == csc_facts(ROW)


def test_units_of_the_table_are_heeded_and_strange_ones_are_not():
    table = Table(rows=[ROW])
    table["powlaw_nh"].unit = "cm-2"
    table["powlaw_nh"] *= 1e20
    table["acis_time"].unit = u.ks
    table["acis_time"] /= 1000
    table["bb_kt"].unit = u.Unit("keV of sorts", parse_strict="silent")
    for row in (table[0], QTable(table[["powlaw_nh", "acis_time", "powlaw_gamma"]])[0]):
        facts = csc_facts(row)
        assert facts["n_h"].to_value("1e22 cm-2") == pytest.approx(0.2)
        assert facts["exposure"].to_value("s") == pytest.approx(25e3)
    table["powlaw_stat"] = 1.9
    assert csc_facts(table[0])["kT"] == 0.8 * u.keV


def test_masked_and_missing_values_are_left_out():
    table = Table({"significance": [3.0], "flux_aper_b": MaskedColumn([1e-14], mask=[True]),
                   "powlaw_gamma": [np.nan], "name": MaskedColumn(["x"], mask=[True])})
    assert csc_facts(table[0]) == {"detection_significance": 3.0}
    with pytest.raises(ValueError, match="no column of the Chandra Source Catalog"):
        csc_facts({"magnitude": 12.0})


def test_facts_are_what_write_summary_takes():
    summary = write_summary(csc_facts(ROW), backend=OfflineWriter())
    assert "The source was observed with Chandra ACIS for 25 ks." in summary.text
    assert "flux is (4e-14 +/- 1e-14) erg/s/cm2" in summary.text
    assert "the absorbing column is (0.2 +/- 0.1) x 1e22 cm-2" in summary.text
    assert summary.slots["variable"] is True
    assert summary.slots["photon_index"] == 1.7


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data in ../shared/data")
def test_real_rows():
    table = Table.read(SHARED / "csc_sample.ecsv")
    for row in table:
        facts = csc_facts(row)
        assert facts["flux"].unit == u.Unit("erg s-1 cm-2") and facts["counts"] > 0
        write_summary(facts, backend=OfflineWriter())
    indices = [facts["photon_index"] for facts in map(csc_facts, table)
               if "photon_index" in facts]
    assert indices and all(0 < index < 5 for index in indices)  # bad fits are gone
