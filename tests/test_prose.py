"""The prose of simulated sources: varied, true to its slots, and without tell-tale keywords."""

import importlib.resources
import json
import math
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from stingray_align.datasets.prose import (WORDINGS, _raw_stock, class_descriptions,
                                           stock_identity, write_prose)
from stingray_align.text.glossary import plain_descriptions
from stingray_align.text.slots import CLASSES, FLAG_SLOTS, NUMBER_SLOTS
from stingray_align.text.summary import check_summary, read_summaries, write_summaries

N_MANY = 10_000
NAN = math.nan

# What of each class matters to the prose: photon index, kT (keV), N_H (1e22 cm-2), time shapes.
RANGES = {
    "unobscured AGN": ((1.6, 2.3), None, (0.01, 0.3), ("red noise", "constant")),
    "obscured AGN": ((1.5, 2.1), None, (2, 100), ("constant", "red noise")),
    "quasar with soft excess": ((1.8, 2.5), (0.08, 0.2), (0.01, 0.06), ("red noise", "constant")),
    "tidal disruption event": (None, (0.05, 0.17), (0.01, 0.3), ("constant", "red noise", "trend")),
    "quasi-periodic eruptions": (None, (0.05, 0.09), (0.01, 0.1), ("eruptions",)),
    "HMXB pulsar": ((0.4, 1.4), None, (0.5, 30), ("pulsations", "eclipses", "flares")),
    "LMXB with type I bursts": ((1.6, 2.3), (0.5, 1.5), (0.05, 3), ("bursts", "red noise")),
    "dipping LMXB": ((1.5, 2.2), (0.8, 2), (0.1, 2), ("dips",)),
    "black-hole transient": ((1.5, 2.6), (0.2, 1.2), (0.1, 3),
                             ("red noise", "trend", "state change")),
    "steady ULX": ((1.6, 2.6), (0.12, 0.45), (0.05, 0.7), ("constant", "red noise")),
    "eclipsing ULX": ((1.6, 2.6), (0.15, 0.6), (0.05, 1), ("eclipses",)),
    "pulsating ULX": ((0.7, 1.6), None, (0.05, 1), ("pulsations",)),
    "heartbeat ULX": (None, (0.6, 2), (0.05, 1), ("heartbeat",)),
    "polar": (None, (5, 30), (0.005, 0.2), ("pulsations", "eclipses")),
    "intermediate polar": (None, (8, 40), (0.3, 10), ("pulsations",)),
    "dwarf nova": (None, (2, 10), (0.01, 0.1), ("red noise", "eclipses", "constant")),
    "supersoft source": (None, (0.03, 0.1), (0.01, 0.15), ("constant", "red noise", "sinusoid")),
    "flaring young star": (None, (0.8, 3), (0.1, 4), ("flares",)),
    "coronal star": (None, (0.2, 1.1), (0.001, 0.05), ("constant", "flares", "red noise")),
    "massive star wind": (None, (0.25, 0.8), (0.2, 1.5), ("constant", "sinusoid")),
    "colliding-wind binary": (None, (1, 4), (0.4, 5), ("constant", "trend", "sinusoid")),
    "supernova remnant knot": (None, (0.3, 2), (0.05, 2), ("constant",)),
    "thermally emitting neutron star": (None, (0.06, 0.5), (0.005, 1.2),
                                        ("constant", "pulsations")),
    "magnetar with bursts": ((2, 4), (0.3, 0.7), (0.3, 4), ("bursts", "pulsations")),
    "gamma-ray pulsar": ((1, 2), (0.08, 0.25), (0.01, 0.6), ("pulsations", "constant")),
    "fast X-ray transient": ((1.4, 2.6), None, (0.02, 1.5), ("transient", "flares")),
    "cluster core": (None, (1.5, 9), (0.01, 0.2), ("constant",)),
    "background only": (None, None, None, ("constant", "flares")),
}
PERIODIC = ("pulsations", "eclipses", "dips", "heartbeat", "eruptions", "sinusoid")
EVENTS = ("flares", "bursts", "transient", "eruptions")
TIMED = (*EVENTS, "trend", "state change", "eclipses", "dips")


def make_row(rng, name):
    """A row like those of the truth table of a simulated population."""
    def draw(interval):
        return NAN if interval is None else float(np.exp(rng.uniform(*np.log(interval))))

    photon_index, temperature, column, shapes = RANGES[name]
    shape = shapes[rng.integers(len(shapes))]
    exposure, n_h = draw((1e3, 2e5)), draw(column)
    empty = name == "background only"
    hardness = NAN if empty else float(rng.uniform(-1, 0.9))
    variability = 0.0 if shape == "constant" else float(rng.uniform(0.03, 1.2))
    period = draw((1.0, 1e5)) if shape in PERIODIC else NAN
    return {
        "name": "SIM-0-0", "class": name, "instrument": "ACIS-S", "exposure": exposure,
        "duration": exposure, "counts": int(draw((1, 1e4))),
        "flux": NAN if empty else draw((1e-15, 1e-11)), "photon_index": draw(photon_index),
        "kT": draw(temperature), "n_h": n_h, "hardness": hardness,
        "fractional_variability": variability, "period": period,
        "timescale": draw((0.1, 1e5)) if shape in TIMED else NAN, "time_shape": shape,
        "periodic": period <= exposure / 2, "eclipsing": shape == "eclipses",
        "flaring": shape in EVENTS, "soft": hardness < -0.75, "absorbed": n_h >= 1,
        "variable": variability > 0.1,
    }


def write_many(wording, n):
    rng = np.random.default_rng(20)
    rows = [make_row(rng, CLASSES[i % len(CLASSES)]) for i in range(n)]
    return rows, [write_prose(row, rng, wording=wording) for row in rows]


@pytest.fixture(scope="module")
def many():
    return write_many("training", N_MANY)


def stock():
    """All lists of phrases as (where, {"training": [...], "held_out": [...]})."""
    def walk(tree, where):
        if isinstance(tree, dict) and "training" in tree:
            yield where, tree
        elif isinstance(tree, dict):
            for key, value in tree.items():
                yield from walk(value, (*where, key))

    shared, classes, _ = _raw_stock()
    yield from walk(shared, ())
    yield from walk(classes, ())


def without_conditions(phrase):
    return re.sub(r"^([?&]\S+ )+", "", phrase)


def test_length_schema_and_provenance():
    for wording in WORDINGS:
        for summary in write_many(wording, 1000)[1]:
            check_summary(summary)  # 60 to 150 words, slots and provenance as they should be
            assert summary.provenance["kind"] == "simulated"
            assert not re.search(r"[{}\[\]|?&\0]|  |\b(nan|inf|None)\b", summary.text), summary.text
            assert summary.text[-1] == "." and not re.search(r"\. [a-z]", summary.text)


def test_no_two_are_equal(many):
    assert len({summary.text for summary in many[1]}) == N_MANY


@pytest.mark.parametrize("wording, n", [("training", N_MANY), ("held-out", 5600)])
def test_no_class_has_a_keyword(many, wording, n):
    """No word is in more than half the summaries of a class and mostly in those."""
    rows, summaries = many if wording == "training" else write_many(wording, n)
    in_class, total = {name: Counter() for name in CLASSES}, Counter()
    size = Counter(row["class"] for row in rows)
    for row, summary in zip(rows, summaries):
        words = set(re.findall(r"[a-z0-9'-]+", summary.text.casefold()))
        in_class[row["class"]].update(words)
        total.update(words)
    for name, words in in_class.items():
        for word, number in words.items():
            recall, precision = number / size[name], number / total[word]
            assert recall <= 0.5 or precision <= 0.5, (name, word, recall, precision)


def test_wording_is_held_out():
    """No phrase is in both parts, about one in four is held out, and each part is used alone."""
    training, held_out = Counter(), Counter()
    for _, lists in stock():
        training.update(without_conditions(phrase).casefold() for phrase in lists["training"])
        held_out.update(without_conditions(phrase).casefold() for phrase in lists["held_out"])
        assert lists["training"] and lists["held_out"]
    assert not set(training) & set(held_out)
    assert 0.2 < held_out.total() / (training.total() + held_out.total()) < 0.35

    def literal(phrases):  # whole sentences without choices, numbers or subjects
        return {phrase for phrase in phrases if not re.search(r"[\[{]", phrase)
                and phrase.endswith(".")}

    for wording, own, other in (("training", training, held_out),
                                ("held-out", held_out, training)):
        sentences = Counter()
        for summary in write_many(wording, 560)[1]:
            sentences.update(s.casefold() for s in re.split(r"(?<=\.) ", summary.text))
        assert len(literal(own) & set(sentences)) > 100
        assert not literal(other) & set(sentences)


# Loose ways to give a number; whoever reads them will take the value beside them.
LOOSE = {
    "a fraction of a second": 0.3, "a few seconds": 3, "about ten seconds": 10,
    "a few tens of seconds": 30, "about a minute": 60, "a few minutes": 180,
    "about ten minutes": 600, "about half an hour": 1800, "about an hour": 3600,
    "a couple of hours": 7200, "a few hours": 10800, "about half a day": 43200,
    "about a day": 86400, "a few days": 259200,
}
FACTORS = {  # slot units per unit of the number in the text
    "photon_index": [1.0], "kT": [1.0, 1e-3, 1 / 11.6045], "n_h": [1e-22], "flux": [1.0],
    "period": [1e-3, 1.0, 60.0, 1e3, 3600.0, 86400.0],
}
FACTORS["timescale"] = FACTORS["period"]


def numbers_in(text):
    number = r"-?\d+(?:\.\d+)?"
    for match in re.finditer(rf"({number})e(-?\d+)|({number}) [x×] 10\^(-?\d+)"
                             rf"|(a few times )?10\^(-?\d+)|({number})", text):
        a, b, c, d, few, power, plain = match.groups()
        if a:
            yield float(f"{a}e{b}")
        elif c:
            yield float(f"{c}e{d}")
        elif power:
            yield float(f"{3 if few else 1}e{power}")
        else:
            yield float(plain)
            if "ogarithm" in text and abs(float(plain)) < 30:
                yield 10 ** float(plain)


def test_stated_numbers_are_in_the_text(many):
    seen = Counter()
    for row, summary in zip(*many):
        told = list(numbers_in(summary.text))
        for name in NUMBER_SLOTS:
            if name not in summary.slots:
                continue
            value = summary.slots[name]
            seen[name] += 1
            candidates = [number * factor for number in told for factor in FACTORS[name]]
            if name in ("period", "timescale"):
                candidates += [s for words, s in LOOSE.items() if words in summary.text]
            assert any(math.isclose(value, c, rel_tol=1e-6) for c in candidates), (
                name, value, summary.text)
    assert min(seen[name] for name in NUMBER_SLOTS) > 300, seen


def test_what_is_stated_is_mostly_true(many):
    """A few per cent of the statements are wrong, on purpose; the rest follow the truth."""
    right, wrong = Counter(), Counter()
    for row, summary in zip(*many):
        for name, value in summary.slots.items():
            if name in NUMBER_SLOTS:
                if name == "photon_index":
                    good = abs(value - row[name]) < 0.5
                else:
                    good = 0.45 < value / row[name] < 2.2
            else:
                good = value == row[name]
            (right if good else wrong)[name] += 1
    for name in ("class", *NUMBER_SLOTS):
        assert 0.01 < wrong[name] / (right[name] + wrong[name]) < 0.08, name
    for name in FLAG_SLOTS:
        assert wrong[name] / (right[name] + wrong[name]) < 0.05, name
    n = len(many[1])
    assert 0.5 < (right["class"] + wrong["class"]) / n < 0.8  # the class is often left open
    assert sum(wrong[name] for name in FLAG_SLOTS) > 50


def test_a_calm_star_does_not_flare():
    rng = np.random.default_rng(8)
    row = make_row(rng, "coronal star") | {
        "time_shape": "constant", "flaring": False, "variable": False, "timescale": NAN,
        "fractional_variability": 0.0}
    summaries = [write_prose(row, rng) for _ in range(500)]
    claims = [s for s in summaries if "flare with a decay" in s.text or "The rise took" in s.text]
    assert len(claims) == sum(s.slots.get("flaring") is True for s in claims)
    assert np.mean([s.slots.get("flaring") is True for s in summaries]) < 0.03
    assert np.mean([s.slots.get("flaring") is False for s in summaries]) > 0.2


def test_a_column_and_its_flag_agree(many):
    for _, summary in zip(*many):
        slots = summary.slots
        if "n_h" in slots and "absorbed" in slots:  # within rounding
            assert slots["n_h"] >= 0.6 if slots["absorbed"] else slots["n_h"] <= 1.5


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("name", CLASSES)
def test_nothing_known_but_the_class(name, wording):
    row = {"class": name, "instrument": "", "time_shape": "", "counts": 0, "exposure": 0.0,
           "hardness": NAN, "fractional_variability": NAN, **dict.fromkeys(NUMBER_SLOTS, NAN),
           **dict.fromkeys(FLAG_SLOTS, False)}
    for seed in range(5):
        summary = check_summary(write_prose(row, np.random.default_rng(seed), wording=wording))
        assert not set(summary.slots) & set(NUMBER_SLOTS)


def test_same_seed_same_text():
    row = make_row(np.random.default_rng(1), "polar")
    first, again, other = (write_prose(row, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again and first.text != other.text


def test_round_trip_on_disk(tmp_path):
    summaries = write_many("training", 56)[1]
    write_summaries(tmp_path / "summaries.ecsv", summaries)
    assert read_summaries(tmp_path / "summaries.ecsv") == summaries


def test_some_say_it_in_plain_words_only(many):
    """A share of the summaries names the class without a technical term of that class."""
    plain = plain_descriptions()
    n_plain = [sum(text in summary.text.replace(" .", ".") for text in plain[row["class"]])
               for row, summary in zip(*many)]
    assert 0.15 < np.mean(np.array(n_plain) >= 2) < 0.3
    held_out = write_many("held-out", 280)
    assert not any(text in summary.text for row, summary in zip(*held_out)
                   for text in plain[row["class"]])
    assert _raw_stock()[2] in stock_identity()


def test_refusals():
    rng = np.random.default_rng(0)
    row = make_row(rng, "polar")
    with pytest.raises(ValueError, match="held-out"):
        write_prose(row, rng, wording="heldout")
    with pytest.raises(ValueError, match="no phrases for class 'comet'"):
        write_prose(row | {"class": "comet"}, rng)


def test_class_descriptions():
    descriptions = class_descriptions()
    assert tuple(descriptions) == CLASSES
    for text in descriptions.values():
        assert 40 <= len(text.split()) <= 80


def test_the_stock_is_large_and_well_formed():
    least = {"identity": (16, 5), "spectrum": (10, 4), "timing": (10, 4), "environment": (6, 2),
             "open": (6, 2), "plain": (25, 2)}
    counted = Counter()
    known = {"src", "Src", "np", "log_n_h", "log_flux", "rms", "hardness", "instrument",
             "exposure", "counts", "Counts", *NUMBER_SLOTS}
    condition = re.compile(
        rf"[?&]!?({'|'.join(FLAG_SLOTS)})|&({'|'.join(NUMBER_SLOTS)}|hardness)[<>]-?[\d.e]+"
        r"|&shape=\w+")
    for where, lists in stock():
        if where[0] in CLASSES:
            counted[where[0]] += 1
            assert len(lists["training"]) >= least[where[1]][0], where
            assert len(lists["held_out"]) >= least[where[1]][1], where
        for phrase in lists["training"] + lists["held_out"]:
            text = without_conditions(phrase)
            for part in phrase[:len(phrase) - len(text)].split():
                assert condition.fullmatch(part), phrase
            assert re.search(r"[\w)]$" if where[0] == "group" or where[-1] == "identity"
                             or where[0] == "connectors" else r"\.$", text.rstrip(",")), phrase
            if where[0] != "context":
                assert set(re.findall(r"\{(\w+)\}", text)) <= known, phrase
    assert set(counted) == set(CLASSES) and set(counted.values()) == {len(least)}


def test_a_wrong_class_is_a_neighbour(many):
    folder = importlib.resources.files("stingray_align.datasets") / "phrases"
    entries = {}
    for path in folder.iterdir():
        if path.name.endswith(".json") and path.name != "shared.json":
            entries.update(json.loads(path.read_text(encoding="utf-8")))
    taken_for = {(row["class"], summary.slots["class"]) for row, summary in zip(*many)
                 if summary.slots.get("class", row["class"]) != row["class"]}
    assert len(taken_for) > 28
    for name, wrong in taken_for:
        assert wrong in entries[name]["neighbours"]


def test_import_is_light():
    code = ("import sys, stingray_align.datasets.prose;"
            "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'matplotlib')))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
