"""The command that writes summaries of a table's sources."""

import json
import sys
from types import SimpleNamespace

import pytest
from astropy import units as u
from astropy.table import QTable, Table
from chat_models import UNKNOWN, answer, endpoint

from stingray_align.cli import main
from stingray_align.text import read_summaries


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    QTable({"name": ["A", "B", "C"], "ra": [1, 2, 3] * u.deg, "dec": [4, 5, 6] * u.deg,
            "photon_index": [1.1, 2.1, 3.1]}).write("sources.ecsv")
    with open("papers.jsonl", "w") as file:
        for name in "AB":
            paper = {"name": name, "bibcode": f"2020{name}", "title": "", "abstract": "A star."}
            print(json.dumps(paper), file=file)


def asked(request):
    return json.loads(request.json["messages"][1]["content"])


def reply(request):
    facts, papers = asked(request)["facts"], asked(request)["papers"]
    if facts["name"] == "C":
        return "I had rather not."
    return answer(slots={**UNKNOWN, "photon_index": facts["photon_index"]},
                  bibcodes=[paper["bibcode"] for paper in papers])


def command(url, *more, output="out.ecsv"):
    return ["summarize", "sources.ecsv", "-o", output, "--llm", "tiny", "--llm-url", url, *more]


def test_written_then_known(capsys):
    with endpoint(reply) as (url, requests):
        assert main(command(url, "--literature", "papers.jsonl")) == 0
        shown = capsys.readouterr()
        assert "3 sources: 3 to write, 0 known from before" in shown.out
        assert "2 of 3 sources have a summary (2 llm); 0 verdicts known" in shown.out
        assert "failed: C: tiny-2030 gave no acceptable summary in 2 attempts" in shown.err
        summaries = read_summaries("out.ecsv")
        assert [s and s.provenance["bibcodes"] for s in summaries] == [["2020A"], ["2020B"], None]
        assert Table.read("out.ecsv")["name"].tolist() == ["A", "B", "C"]
        assert len(requests) == 4
        assert main(command(url, "--literature", "papers.jsonl")) == 0
        assert "0 to write, 3 known" in capsys.readouterr().out and len(requests) == 4
        assert main(command(url, "--literature", "papers.jsonl", "--retry-failed")) == 0
        assert len(requests) == 6
        assert read_summaries("out.ecsv") == summaries


def test_parquet(capsys):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (extra `scale`)")
    with endpoint(reply) as (url, _):
        assert main(command(url, output="out.parquet")) == 0
    assert [s and s.slots for s in read_summaries("out.parquet")] == [
        {"photon_index": 1.1}, {"photon_index": 2.1}, None]


def test_cost_comes_first(capsys):
    with endpoint(reply) as (url, requests):
        assert main(command(url, "--dry-run")) == 0
        assert "tokens in and 1800 out" in capsys.readouterr().out
        assert main(command(url, "--max-tokens", "2000")) == 2
        assert "more than the 2000 tokens" in capsys.readouterr().err
    assert requests == []
    with endpoint(reply) as (url, requests):
        assert main(command(url, "--max-tokens", "20000", "--temperature", "none")) == 0
    assert "temperature" not in requests[0].json


def test_stopped_and_resumed(capsys):
    with endpoint(lambda request: 401 if asked(request)["facts"]["name"] == "B" else reply(request)
                  ) as (url, requests):
        assert main(command(url, "--parallel", "1")) == 2
        assert "status 401" in capsys.readouterr().err
    with endpoint(reply) as (url, requests):
        assert main(command(url, "--parallel", "1")) == 0
        assert "1 known from before" in capsys.readouterr().out
    assert "A" not in [asked(request)["facts"]["name"] for request in requests]


def test_papers_from_the_services(monkeypatch, capsys):
    calls = []

    def gather_literature(sources, *, radius, cache, n_tokens):
        calls.append((sources, radius, cache.name))
        assert n_tokens == 6000
        return [[{"bibcode": "2020A", "title": "", "abstract": "A star."}], [], None]

    monkeypatch.setitem(sys.modules, "stingray_align.datasets.literature",
                        SimpleNamespace(gather_literature=gather_literature))
    with endpoint(reply) as (url, requests):
        assert main(command(url, "--literature", "papers")) == 0
        assert "1 with nothing to write from" in capsys.readouterr().out
        assert calls[0] == (["A", "B", "C"], None, "papers") and len(requests) == 2
        assert main(command(url, "--literature", "papers", "--radius", "2")) == 0
    assert calls[1][0].ra.deg.tolist() == [1, 2, 3] and calls[1][1] == 2 * u.arcsec
    with endpoint(reply) as (url, requests):
        Table({"photon_index": [1.1]}).write("sources.ecsv", overwrite=True)
        assert main(command(url, "--literature", "papers")) == 2
        assert "give --radius" in capsys.readouterr().err


def test_columns_of_the_chandra_source_catalog():
    pytest.importorskip("stingray_align.datasets.facts", reason="facts of the catalogue are absent")
    QTable({"name": ["A"], "acis_time": [2e4] * u.s, "powlaw_gamma": [1.8], "powlaw_stat": [0.9],
            "powlaw_nh": [12.0]}).write("sources.ecsv", overwrite=True)
    assert main(["summarize", "sources.ecsv", "-o", "out.ecsv", "--offline", "--csc"]) == 0
    assert read_summaries("out.ecsv")[0].slots == {"photon_index": 1.8, "n_h": pytest.approx(0.12)}


def test_what_a_query_wrote(capsys):
    assert main(["query", "soft", "-k", "2", "--table", "found.ecsv"]) == 0
    assert main(["summarize", "found.ecsv", "-o", "out.ecsv", "--offline"]) == 0
    table = Table.read("found.ecsv")
    assert table["counts"].unit == u.ct
    for summary, counts in zip(read_summaries("out.ecsv"), table["counts"], strict=True):
        assert summary.text.startswith(f"{counts:.0f} counts were recorded")


def test_offline(capsys):
    assert main(["summarize", "sources.ecsv", "-o", "out.ecsv", "--offline"]) == 0
    assert "3 of 3 sources have a summary (3 deterministic)" in capsys.readouterr().out
    assert read_summaries("out.ecsv")[1].text == "The photon index is 2.1."
    assert main(["summarize", "sources.ecsv", "-o", "out.ecsv", "--offline", "--literature",
                 "papers.jsonl"]) == 2
    assert "reads no literature" in capsys.readouterr().err
    assert main(["summarize", "sources.ecsv", "-o", "out.fits", "--offline"]) == 2
    Table({"name": ["A"]}).write("sources.ecsv", overwrite=True)
    assert main(["summarize", "sources.ecsv", "-o", "none.ecsv", "--offline"]) == 1


@pytest.mark.parametrize("arguments", [[], ["--llm", "a", "--offline"],
                                       ["--llm", "a", "--temperature", "-1"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        main(["summarize", "sources.ecsv", "-o", "out.ecsv", *arguments])
    assert "error" in capsys.readouterr().err
