import subprocess
import sys

import numpy as np
import pytest
from astropy.table import QTable

from stingray_align.text.slots import (CLASSES, FLAG_SLOTS, N_SLOTS, NUMBER_SLOTS, clean_slots,
                                       slot_names, slot_vector)


def entries(slots):
    return {name: value for name, value in zip(slot_names(), slot_vector(slots)) if value != 0}


def test_layout():
    assert len(CLASSES) == len(set(CLASSES)) == 28
    assert len(slot_names()) == len(set(slot_names())) == N_SLOTS
    vector = slot_vector({})
    assert vector.shape == (N_SLOTS,) and vector.dtype == np.float32
    assert not vector.any()


@pytest.mark.parametrize("name", NUMBER_SLOTS)
def test_numbers_are_standardised_and_masked(name):
    _, log10, mean, std = NUMBER_SLOTS[name]
    centre, above = ((10.0 ** mean, 10.0 ** (mean + std)) if log10 else (mean, mean + std))
    assert entries({name: centre}) == pytest.approx({f"{name} known": 1}, abs=1e-6)
    assert entries({name: above}) == pytest.approx({name: 1, f"{name} known": 1}, rel=1e-5)


def test_extreme_numbers_are_limited():
    assert entries({"n_h": 0})["n_h"] == -4
    assert entries({"flux": 1e30})["flux"] == 4
    assert entries({"photon_index": -50})["photon_index"] == -4


@pytest.mark.parametrize("name", CLASSES)
def test_class_one_hot(name):
    assert entries({"class": name}) == {f"class: {name}": 1, "class known": 1}


@pytest.mark.parametrize("name", FLAG_SLOTS)
def test_flags_tell_no_from_unknown(name):
    assert entries({name: True}) == {name: 1, f"{name} known": 1}
    assert entries({name: np.bool_(False)}) == {name: -1, f"{name} known": 1}
    assert entries({name: None}) == {}


def test_unknown_values():
    assert clean_slots({"kT": np.nan, "n_h": None, "class": None, "flux": np.ma.masked}) == {}


def test_row_of_a_truth_table():
    row = QTable({"name": ["a"], "class": ["polar"], "n_h": [0.3], "period": [np.nan],
                  "soft": [True], "counts": [12]})[0]
    assert clean_slots(row, ignore_other=True) == {"class": "polar", "n_h": 0.3, "soft": True}


@pytest.mark.parametrize("slots, message", [
    ({"nh": 1.0}, "no slot"), ({"class": "ULX"}, "no class"), ({"soft": 1}, "yes or no"),
    ({"kT": "2 keV"}, "is a number"), ({"kT": True}, "is a number"), ({"flux": -1.0}, "cannot be"),
    ({"period": np.inf}, "cannot be"),
])
def test_bad_slots(slots, message):
    with pytest.raises(ValueError, match=message):
        slot_vector(slots)


def test_no_heavy_import():
    code = ("import sys, stingray_align.text.slots, stingray_align.text.summary, "
            "stingray_align.text.writers, stingray_align.text.glossary; "
            "sys.exit(bool({'torch', 'transformers', 'openai'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_lazy_package():
    import stingray_align.text as text

    for name in text.__all__:
        assert getattr(text, name).__doc__ or isinstance(getattr(text, name), (tuple, dict, int))
    assert dir(text) == text.__all__
    with pytest.raises(AttributeError, match="nonsense"):
        text.nonsense
