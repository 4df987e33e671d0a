"""Meaning against wording: the sentences, and the measure on spaces with known answers."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stingray_align.evaluate import domain_sense, domain_sentences
from stingray_align.text.glossary import _glossary, _stems
from stingray_align.text.slots import CLASSES

# Words of every day: that a paraphrase and the jargon both say "star" gives nothing away.
EVERYDAY = set("becom between energ her hour light long low per star ten thin tim two view "
               "year".split())


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def test_the_sentences():
    sentences = domain_sentences()
    texts = [s["text"] for s in sentences]
    assert len(texts) == len(set(texts)) >= 300
    for kind, least in (("jargon", 4), ("paraphrase", 5), ("hard negative", 3)):
        counts = Counter(s["class"] for s in sentences if s["kind"] == kind)
        assert set(counts) == set(CLASSES) and min(counts.values()) >= least


def test_paraphrases_share_no_jargon():
    for name in CLASSES:
        own = [s for s in domain_sentences() if s["class"] == name]
        jargon = set(_stems(" ".join(s["text"] for s in own if s["kind"] == "jargon")))
        for sentence in own:
            if sentence["kind"] == "paraphrase":
                assert not (jargon & set(_stems(sentence["text"]))) - EVERYDAY, sentence
            elif sentence["kind"] == "hard negative":
                assert len(jargon & set(_stems(sentence["text"]))) >= 2, sentence


def test_nothing_of_it_is_in_what_models_learn_from():
    """No paraphrase has five words in a row of the glossary, phrase stock or plain queries."""
    package = Path(__file__).parents[1]
    sources = [*(package / "stingray_align" / "datasets" / "phrases").glob("*.json"),
               package / "stingray_align" / "evaluate" / "data" / "plain_queries.json"]
    seen = set()
    strings = list(_glossary().descriptions)

    def walk(tree):
        if isinstance(tree, str):
            strings.append(tree)
        for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) \
                else ():
            walk(part)

    for path in sources:
        walk(json.loads(path.read_text(encoding="utf-8")))
    for text in strings:
        own = words(text)
        seen.update(zip(*(own[i:] for i in range(5))))
    assert len(seen) > 10_000
    shared = {" ".join(run) for s in domain_sentences() if s["kind"] == "paraphrase"
              for run in zip(*(words(s["text"])[i:] for i in range(5))) if run in seen}
    assert not shared


def sentences(n_classes=4):
    kinds = ["jargon"] * 2 + ["paraphrase"] * 3 + ["hard negative"] * 2
    return [{"class": f"class {i}", "kind": kind, "text": ""} for i in range(n_classes)
            for kind in kinds]


def test_known_spaces():
    given = sentences()
    label = np.repeat(np.arange(4), 7)
    negative = np.array([s["kind"] == "hard negative" for s in given])
    meaning = np.eye(4)[label]
    meaning[negative] = np.eye(4)[(label[negative] + 1) % 4] + 0.1
    wording = np.zeros((28, 9))
    plain = np.array([s["kind"] == "paraphrase" for s in given])
    wording[np.arange(28), np.where(plain, 8, label)] = 1  # jargon and negatives alike
    constant = np.ones((28, 2))
    result = domain_sense({"constant": constant, "meaning": meaning, "wording": wording}, given)
    value = {key: estimate.value for key, estimate in result.estimates.items()}
    first, among_all, negatives = result.chance
    assert (result.chance[first], result.chance[negatives]) == (0.25, 0.5)
    assert result.chance[among_all] == pytest.approx(2 / 25)
    for measure in result.chance:  # ties are no answers
        assert value["constant", measure] == 0.5
    assert value["meaning", first] == value["meaning", negatives] == 1
    assert value["wording", negatives] == 0
    assert result.ratios["meaning", first].value == 2
    assert result.by_class["meaning"]["class 2"] == 1
    assert result.primary == result.estimates["wording", first]
    assert "4 of kind" not in result.title and "12 of kind paraphrase" in result.title
    assert len(result.to_table()) == 9 and "meaning" in str(result)


def test_errors_shrink_with_classes():
    rng = np.random.default_rng(0)
    errors = []
    for n in (4, 64):
        given = sentences(n)
        result = domain_sense({"random": rng.normal(size=(len(given), 8))}, given)
        errors.append(result.estimates["random", list(result.chance)[2]].error)
        assert abs(result.estimates["random", list(result.chance)[2]].value - 0.5) < 4 * errors[-1]
    assert errors[1] < 0.5 * errors[0]


def test_wrong_input():
    given = sentences()
    with pytest.raises(ValueError, match="one finite vector for each of the 28"):
        domain_sense({"a": np.ones((27, 2))}, given)
    with pytest.raises(ValueError, match="finite"):
        domain_sense({"a": np.full((28, 2), np.nan)}, given)
    with pytest.raises(ValueError, match="no vectors"):
        domain_sense({}, given)
    with pytest.raises(ValueError, match="'class 0' has no sentence of kind jargon"):
        domain_sense({"a": np.ones((26, 2))}, given[2:])
