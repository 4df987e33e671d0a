import os

import pytest
from astropy.table import Table

from stingray_align.text import Summary, check_summary, read_summaries, write_summaries
from stingray_align.text.summary import PROVENANCE_KEYS

PROVENANCE = {"kind": "llm", "model": "m", "prompt_version": "v", "prompt_hash": "h",
              "bibcodes": ["2020A&A...1A"], "date": "2030-01-01", "package_version": "0",
              "revision": None, "decoding": {"temperature": 0.0}, "confidence": "low",
              "bibcodes_given": ["2020A&A...1A", "other"]}
WORDS = " ".join(["word"] * 80)


@pytest.mark.parametrize("name", ["a.ecsv", "a.parquet"])
def test_round_trip(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (extra `scale`)")
    summaries = [
        Summary('  two\nlines, "quoted", , É λ # \\ ', {"n_h": 0.1, "soft": False}, PROVENANCE),
        Summary("", {}, {}),
        Summary("masked", {"class": "polar", "kT": None}, {"kind": "simulated", "model": None}),
        None,
        Summary("terms", {}, PROVENANCE, "plain \N{LATIN SMALL LETTER E WITH ACUTE}, words"),
    ]
    path = tmp_path / name
    write_summaries(path, summaries, names=["A", "B", "C", "D", "É"])
    back = read_summaries(path)
    assert back[:2] == summaries[:2] and back[3:] == summaries[3:]
    assert back[2] == Summary("masked", {"class": "polar"}, summaries[2].provenance)
    table = Table.read(path)
    table.convert_bytestring_to_unicode()
    assert table["name"].tolist() == ["A", "B", "C", "D", "É"]
    write_summaries(str(path), [])  # replaces
    assert read_summaries(str(path)) == []


def test_table_without_paraphrases(tmp_path):
    path = tmp_path / "a.ecsv"
    Table({"text": ['"old"'], "slots": ["{}"], "provenance": ['{"kind": "simulated"}']}).write(path)
    assert read_summaries(path) == [Summary("old", {}, {"kind": "simulated"})]


def test_wordings():
    summary = Summary("terms", {"soft": True}, PROVENANCE, "plain words")
    assert summary.wordings() == [Summary("terms", {"soft": True}, PROVENANCE),
                                  Summary("plain words", {"soft": True}, PROVENANCE)]
    assert Summary("terms").wordings() == [Summary("terms")]


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.ecsv"
    write_summaries(path, [Summary("kept")])
    with pytest.raises(ValueError, match="no slot"):
        write_summaries(path, [Summary("bad", {"colour": "red"})])
    with pytest.raises(TypeError):
        write_summaries(path, [Summary("bad", {}, {"kind": object()})])
    assert os.listdir(tmp_path) == ["a.ecsv"]
    assert read_summaries(path) == [Summary("kept")]


def test_read_something_else(tmp_path):
    path = tmp_path / "a.ecsv"
    Table({"a": [1]}).write(path)
    with pytest.raises(ValueError, match="lacks text, slots, provenance"):
        read_summaries(path)
    Table({"text": ["a"], "slots": ["{"], "provenance": ["{}"]}).write(path, overwrite=True)
    with pytest.raises(ValueError, match="no table of summaries"):
        read_summaries(path)


def test_check_passes_and_cleans():
    summary = check_summary(Summary(WORDS, {"kT": None, "soft": True}, PROVENANCE),
                            bibcodes=["2020A&A...1A", "other"])
    assert summary.slots == {"soft": True}


@pytest.mark.parametrize("summary, message", [
    (Summary("short", {}, PROVENANCE), "1 words, 60 to 150"),
    (Summary(WORDS * 3, {}, PROVENANCE), "words, 60 to 150"),
    (Summary(WORDS, {"class": "star"}, PROVENANCE), "no class"),
    (Summary(WORDS, {}, {"kind": "llm"}), "does not state model.*confidence"),
    (Summary(WORDS, {}, PROVENANCE, "too short"), "paraphrase has 2 words, 10 to 100"),
    (Summary(f"{WORDS} 3.1 keV", {"kT": 4.2}, PROVENANCE), "not given: 3.1 keV, kT 4.2"),
    (Summary(WORDS, {}, {**PROVENANCE, "kind": "dream"}), "none of"),
    (Summary(WORDS, {}, {**PROVENANCE, "bibcodes": ["invented"]}), "cites invented"),
])
def test_check_refuses(summary, message):
    with pytest.raises(ValueError, match=message):
        check_summary(summary, bibcodes=["2020A&A...1A"], given="2.1 keV")


def test_rules_and_simulators_state_less():
    provenance = {name: None for name in PROVENANCE_KEYS} | {"kind": "simulated"}
    assert check_summary(Summary(WORDS, {}, provenance)).text == WORDS


def test_any_length():
    assert check_summary(Summary("short", {}, PROVENANCE), words=None).text == "short"
    with pytest.raises(ValueError, match="at least 1"):
        check_summary(Summary(" ", {}, PROVENANCE), words=None)
