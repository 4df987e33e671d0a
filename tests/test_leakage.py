"""Masks on texts, and what they take from retrieval and regression."""

import numpy as np
import pytest

from stingray_align.alignment import Aligner
from stingray_align.evaluate import leakage, masked
from stingray_align.text import CLASSES, N_SLOTS, Summary
from stingray_align.text.glossary import class_terms


@pytest.mark.parametrize("text, expected", [
    ("a period of 33.5 h", "a period of some"),
    ("Gamma = 1.77 +/- 0.37.", "Gamma = some."),
    ("kT is 340 eV", "kT is some"),
    ("N_H of 3.1 x 10^22 cm^-2 is seen", "N_H of some is seen"),
    ("N_H = 1.4e22 cm-2", "N_H = some"),
    ("about half an hour long", "about some long"),
    ("a few times 10^22 cm^-2", "some"),
    ("a hardness of -0.46", "a hardness of some"),
    ("0.5-7 keV", "some"),
    ("2.0 × 10^-14 cgs units", "some"),
    ("1e-13 erg/s/cm^2 at peak", "some at peak"),
    ("in cm^-2 or ACIS-S or a star", "in cm^-2 or ACIS-S or a star"),
])
def test_numbers(text, expected):
    assert masked(Summary(text, {}), ["numbers"]).text == expected


@pytest.mark.parametrize("text, expected", [
    ("an intermediate polar with pulses", "an object with pulses"),
    ("Two white dwarfs and a Seyfert 2 nucleus", "Two object and a object object"),
    ("a T Tauri star", "a object"),
    ("gas between galaxies", "gas between galaxies"),
])
def test_class_names(text, expected):
    assert masked(Summary(text, {}), ["class names"]).text == expected


def test_no_class_keeps_its_name():
    for name in CLASSES:
        assert not class_terms().search(masked(Summary(f"it is {name} here", {}),
                                               ["class names"]).text)


@pytest.mark.parametrize("text", ["NGC 1313 X-1", "4U 1636-536", "CXOU J123456.7+123456", "M82 X-2",
                                  "1E 161348-5055", "Cyg X-1", "my favourite"])
def test_source_names(text):
    found = masked(Summary(f"We saw {text} again.", {}), ["source names"], name="My Favourite")
    assert found.text == "We saw the source again."


def test_slots_follow():
    summary = Summary("x", {"class": "polar", "period": 3.0, "n_h": 1.0, "soft": True})
    assert masked(summary, ["numbers"]).slots == {"class": "polar", "soft": True}
    assert masked(summary, ["class names"]).slots == {"period": 3.0, "n_h": 1.0, "soft": True}
    assert masked(summary).slots == {"soft": True}
    assert masked(summary, ()) == summary
    assert summary.slots["period"] == 3.0  # the original is as it was
    with pytest.raises(ValueError, match="'names'"):
        masked(summary, ["names"])


class Letters:
    """Counts letters: enough of an encoder to see a text change."""

    dim, name = 26, "letters"

    def encode(self, texts):
        counts = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts],
                          np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)


class Through(Aligner):
    """An aligner that knows both sides: the event vector is a slot vector."""

    def transform_texts(self, text_vectors):
        return np.asarray(text_vectors)[:, -N_SLOTS:] + 1e-6

    def transform_events(self, event_vectors, **_):
        return np.asarray(event_vectors) + 1e-6


def test_what_is_only_written_is_lost():
    from stingray_align.text import slot_vector

    rng = np.random.default_rng(1)
    index, label = rng.normal(1.9, 0.5, 120), rng.integers(3, size=120)
    summaries = [Summary(f"A polar with photon index {x:.2f}.",
                         {"photon_index": float(x), "class": CLASSES[k]})
                 for x, k in zip(index, label)]
    events = np.array([slot_vector(s.slots) for s in summaries])
    result = leakage(summaries, events, {"index": index}, aligner=Through(), encoder=Letters(),
                     labels=label, names=[f"star {i}" for i in range(120)], n_resamples=50,
                     progress=False)
    value = {key: estimate.value for key, estimate in result.estimates.items()}
    assert value["R2 index", "nothing"] > 0.98 and value["R2 index", "class names"] > 0.98
    assert value["R2 index", "numbers"] < 0.1 and value["R2 index", "all"] < 0.1
    assert value["Recall@1 %", "nothing"] > 0.95 > 0.2 > value["Recall@1 %", "numbers"]
    assert value["Recall@1 %", "source names"] == value["Recall@1 %", "nothing"]
    fall = result.falls["R2 index", "numbers"]
    assert fall.value == pytest.approx(value["R2 index", "nothing"] - value["R2 index", "numbers"])
    assert 0 < fall.error < 0.2 and result.falls["R2 index", "source names"].error == 0
    assert result.changed == {"nothing": 0, "numbers": 1, "class names": 1, "source names": 0,
                              "all": 1}
    assert result.primary == result.falls["Recall@1 %", "all"]
    assert len(result.to_table()) == 4 * 5 and "R2 index" in str(result)


def test_rows_must_agree():
    with pytest.raises(ValueError, match="one entry per source"):
        leakage([Summary("a", {})], np.ones((2, 3)), {}, aligner=Through(), encoder=Letters())
