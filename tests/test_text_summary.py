import os

import pytest
from astropy.table import Table

from stingray_align.text import Summary, check_summary, read_summaries, write_summaries

PROVENANCE = {"kind": "llm", "model": "m", "prompt_version": "v", "prompt_hash": "h",
              "bibcodes": ["2020A&A...1A"], "date": "2030-01-01", "package_version": "0"}
WORDS = " ".join(["word"] * 80)


def test_round_trip(tmp_path):
    summaries = [
        Summary('  two\nlines, "quoted", , É λ # \\ ', {"n_h": 0.1, "soft": False}, PROVENANCE),
        Summary("", {}, {}),
        Summary("masked", {"class": "polar", "kT": None}, {"kind": "simulated", "model": None}),
    ]
    path = tmp_path / "a.ecsv"
    write_summaries(path, summaries)
    back = read_summaries(path)
    assert back[:2] == summaries[:2]
    assert back[2] == Summary("masked", {"class": "polar"}, summaries[2].provenance)
    write_summaries(str(path), [])  # replaces
    assert read_summaries(str(path)) == []


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
    (Summary(WORDS, {}, {"kind": "llm"}), "does not state model"),
    (Summary(WORDS, {}, {**PROVENANCE, "kind": "dream"}), "none of"),
    (Summary(WORDS, {}, {**PROVENANCE, "bibcodes": ["invented"]}), "cites invented"),
])
def test_check_refuses(summary, message):
    with pytest.raises(ValueError, match=message):
        check_summary(summary, bibcodes=["2020A&A...1A"])


def test_any_length():
    assert check_summary(Summary("short", {}, PROVENANCE), words=None).text == "short"
    with pytest.raises(ValueError, match="at least 1"):
        check_summary(Summary(" ", {}, PROVENANCE), words=None)
