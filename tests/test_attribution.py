"""What a match rests on, intervals that hold, and paragraphs that are checked."""

import numpy as np
import pytest
import stingray_align as sa
from astropy.table import QTable
from stingray_align.alignment.attribution import drivers, sentence_attribution, sentences_of
from stingray_align.alignment.grounded import check_claims
from stingray_align.alignment.intervals import PARAMETERS, stretch_of, stretched, stretches
from stingray_align.evaluate import novelty
from stingray_align.text.summary import Summary


def test_sentences_keep_their_decimals():
    text = "The index is 1.7. Was it 3.2 ks? A flux of 3 x 10^-13 cgs! 634 events."
    assert sentences_of(text) == ["The index is 1.7.", "Was it 3.2 ks?",
                                  "A flux of 3 x 10^-13 cgs!", "634 events."]
    assert sentences_of("") == []


class Counting:
    """Encodes the share of words that are "flare"; the aligner passes vectors on."""

    name, dim, text_model_, n_slots = "counting", 2, None, 0

    def encode(self, texts):
        share = np.array([np.mean([w.strip(".") == "flare" for w in t.split()]) for t in texts])
        return np.stack([share, np.sqrt(1 - share**2)], axis=1).astype(np.float32)

    def transform_texts(self, vectors):
        return vectors[:, :2]


def test_the_sentence_that_carries_the_match_comes_first():
    class Catalogue:
        encoder = aligner = Counting()

    text = Summary("It is steady and soft. There was a flare. Nothing else is known.", {}, {})
    table = sentence_attribution(Catalogue(), np.array([[1.0, 0.0]]), [(1, text)])
    assert table["part"][0] == "There was a flare." and table["change"][0] > 0
    assert (table["change"][1:] < 0).all()
    with_facts = Summary(text.text, {"flaring": True, "period": 8280.0}, {})
    parts = sentence_attribution(Catalogue(), np.array([[1.0, 0.0]]), [(1, with_facts)])["part"]
    assert "facts: flaring, period 8280" in parts


def test_photons_that_drive_a_match_are_found():
    rng = np.random.default_rng(0)
    times = np.concatenate([rng.uniform(0, 1.6e4, 200), rng.uniform(8e3, 9e3, 200)])
    events = sa.EventList(np.sort(times) + 5e8, energy=rng.uniform(0.6, 4, 400),
                          gti=[[5e8, 5e8 + 1.6e4]], mission="chandra", instr="ACIS-S")
    embedding = sa.embed(events)
    names = list(embedding.feature_names)

    class Catalogue:
        class aligner:
            @staticmethod
            def transform_events(vectors, feature_names=None):
                return np.asarray(vectors)[:, [names.index("decoded_maximum")]]

    table = drivers(Catalogue(), embedding, np.array([1.0]))
    time = table[table["kind"] == "time"]
    best = time[np.argmax(time["change"])]
    assert best["drives"] and best["start"] < 5e8 + 8.6e3 and best["stop"] > 5e8 + 8.1e3
    assert set(table["kind"]) == {"time", "energy"}
    assert table["start"].min() >= 0.5 and time["photons"].sum() == 400


def test_stretched_intervals_hold_what_they_say():
    rng = np.random.default_rng(1)
    # The neighbours scatter twice as much as the truth does.
    truth = rng.normal(0, 0.5, 600)
    table = QTable({"hardness": rng.normal(0, 1, 300), "flux": 10 ** rng.normal(-13, 1, 300)})
    weights = [np.full(300, 1 / 300)] * 600
    known = QTable({"hardness": truth, "flux": 10 ** (2 * truth - 13)})
    counts = np.repeat([10.0, 100.0, 1000.0], 200)
    factors = stretches(table, weights, known, counts)
    assert factors.shape == (len(PARAMETERS), 3)
    assert stretch_of("hardness", 100, factors) == pytest.approx(0.5, abs=0.1)
    assert stretch_of("flux", 10, factors) == pytest.approx(1.0, abs=0.2)
    assert stretch_of("kT", 10, factors) == 1
    low, middle, high = stretched("flux", (1e-14, 1e-13, 1e-12), 2.0)
    assert (low, middle, high) == pytest.approx((1e-15, 1e-13, 1e-11))
    assert stretched("hardness", (-0.5, 0.5, 0.9), 3.0)[2] == 1


SOURCES = ["50 photons were seen with ACIS-S. The hardness ratio is -0.31.",
           "A polar with a period of 7,200 s and kT of 1.5e1 keV."]


@pytest.mark.parametrize("text", [
    "It has 50 photons [0].", "The period is 7200 s [1]. It may be a polar [1].",
    "ACIS-S saw it, with a ratio of -0.31 [0].", "The temperature is 15 keV [0][1].",
    "The period is 7200 s. [1]"])
def test_grounded_sentences_pass(text):
    assert check_claims(text, SOURCES) == []


@pytest.mark.parametrize("text, problem", [
    ("It has 50 photons.", "cites nothing"), ("It has 50 photons [2].", "was not given"),
    ("It has 51 photons [0].", "'51'"), ("It has 50 photons [1].", "'50'"),
    ("It may be a steady ULX [1].", "steady ULX"), ("It resembles Hercules [1].", "Hercules"),
    ("", "empty"), ("It has 50 photons [0]. It is old.", "cites nothing")])
def test_claims_without_a_source_do_not_pass(text, problem):
    assert any(problem in said for said in check_claims(text, SOURCES))


def test_density_finds_the_stranger_with_uniform_p_values():
    rng = np.random.default_rng(2)
    labels = np.repeat(["a", "b", "strange"], (300, 300, 40))
    centre = np.eye(4)[np.repeat([0, 1, 2], (300, 300, 40))]
    counts = 10 ** rng.uniform(1, 3, 640)
    spread = 1 / np.sqrt(counts)[:, None]
    vectors = centre + spread * rng.normal(size=(640, 4))
    draws = vectors[:, None] + spread[:, None] * rng.normal(size=(640, 8, 4))
    vectors, draws = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (vectors, draws))
    result = novelty(vectors, labels, draws=draws, counts=counts, classes=["strange"],
                     n_resamples=20, progress=False)
    score = result.scores["strange"]
    assert score["density"]["ROC AUC"].value > 0.9
    assert score["density, given counts"]["ROC AUC"].value > 0.9
    p = result.known_p["strange"]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.1)
    assert "test of uniformity" in str(result)
