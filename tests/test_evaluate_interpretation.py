"""Calibration of interpretations, of a catalogue that is right by construction."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from stingray_align import evaluate

N = 900


class Catalogue:
    """A source's vector is its row in ``table``, and its neighbours are the rows near it."""

    classes = ("polar", "steady ULX")
    held_out = {"stretch": np.ones((8, 3))}

    def __init__(self):
        x = np.linspace(0, 1, N)
        self.table = QTable({"hardness": 2 * x - 1, "n_h": 10 ** (2 * x - 1) * u.Unit("1e22 cm-2"),
                             "flux": np.full(N, 1e-14) * u.Unit("erg / (s cm2)")})

    def class_probabilities(self, vectors):
        return np.array([0.75, 0.25])

    def neighbour_weights(self, vectors):
        distance = np.linspace(0, 1, N) - vectors[0, 0]
        weight = np.exp(-0.5 * (distance / 0.1) ** 2)
        return weight / weight.sum()


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(5)
    place = rng.uniform(0.35, 0.65, 600)
    true = place + 0.1 * rng.normal(size=600)
    return place, QTable({
        "class": np.where(rng.random(600) < 0.75, "polar", "steady ULX"),
        "counts": rng.choice([20, 100, 1000], 600) * u.ct, "hardness": 2 * true - 1,
        "n_h": 10 ** np.where(true < 0.3, np.nan, 2 * true - 1) * u.Unit("1e22 cm-2")})


def test_neighbours_hold_the_truth_and_photons_come_closer(truth):
    place, table = truth
    rng = np.random.default_rng(1)
    inferred = {"hardness": table["hardness"] + 0.05 * rng.normal(size=600),
                "n_h": 3 * table["n_h"].value, "period": np.ones(600)}
    result = evaluate.interpretation(Catalogue(), place[:, None, None], table, inferred=inferred,
                                     n_resamples=50)
    assert set(result.inside) == set(inferred) - {"period"} and set(result.miss) == {
        "hardness", "n_h"}
    for name in ("hardness", "n_h"):
        assert np.nanmean(result.inside[name]) == pytest.approx(0.68, abs=0.06)
    known = np.isfinite(table["n_h"].value)
    np.testing.assert_array_equal(np.isfinite(result.miss["n_h"]), [known, known])
    # A mean distance is sqrt(2 / pi) of a standard deviation.
    neighbours, photons = result.miss["hardness"].mean(axis=1)
    assert neighbours == pytest.approx(0.8 * 0.2, rel=0.15)
    assert photons == pytest.approx(0.8 * 0.05, rel=0.15)
    np.testing.assert_allclose(result.miss["n_h"][1, known], np.log10(3), rtol=1e-4)
    assert result.scores["ECE"].value < 0.06
    classes, held, off = result.tables()
    assert list(off["off"]) == ["n_h", "hardness"]
    assert off["ratio"][1] == pytest.approx(photons / neighbours)
    assert 0 < off["ratio error"][1] < 0.05
    for group in ("< 50", "50 to 300", "> 300"):
        assert off[group][1] == pytest.approx(off["ratio"][1], abs=0.08)
    assert "inferred" in str(result) and "0.477" in str(result)


def test_without_inferred_parameters_there_is_no_table_of_them(truth):
    place, table = truth
    result = evaluate.interpretation(Catalogue(), place[:, None, None], table, n_resamples=20)
    assert len(result.tables()) == 2 and "inferred" not in str(result)
