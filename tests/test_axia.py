"""The Axia corpus: lines of any quality, files that are cut off, and the model hub."""

import gzip
import hashlib
import json
import re

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from local_server import Reply, serving

import stingray_align as sa
from stingray_align.datasets import axia
from stingray_align.cli import main
from stingray_align.errors import ArchiveError, EventDataError


def entry(i, n=50, **changes):
    rng = np.random.default_rng(i)
    times = np.sort(rng.uniform(2e8, 2e8 + 3e4, n))
    energies = rng.uniform(500, 7000, n)
    pairs = np.column_stack([times, energies])
    return {"_id": f"x{i}", "obsid": 9000 + i, "obi": 0, "region_id": i,
            "source_name": f"2CXO J12103{i}.5+392420", "ra": 182.6 + i, "dec": 39.4,
            "source_type": "Seyfert1", "bb_kt": None if i == 1 else 0.5, "powlaw_nh": 3.0,
            "preferred_spectral_model": ["powlaw", "bb"], "original_event_list": pairs.tolist(),
            "event_list": (pairs[:20] - [times[0], 0]).tolist(), "pca_64d": [0.1] * 64} | changes


def lines(*entries):
    return b"".join((e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n"
                    for e in entries)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(lines(*(entry(i) for i in range(4)))))
    return path


def test_photons_and_columns_of_every_line(corpus):
    found = list(axia.sources(corpus))
    assert [reason for _, _, reason in found] == [None] * 4
    row, events, _ = found[2]
    expected = np.array(entry(2)["original_event_list"])
    assert np.array_equal(events.time, expected[:, 0])
    assert np.allclose(events.energy, expected[:, 1] / 1000, rtol=1e-15)
    assert events.gti.tolist() == [[expected[0, 0], expected[-1, 0]]]
    assert sa.events.instrument_of(events) in ("ACIS-I", "ACIS-S")
    assert row["line"] == 3 and row["ra"] == 184.6
    assert not {"event_list", "original_event_list", "pca_64d", "_id"} & set(row)


def test_the_window_of_eight_hours_instead(corpus):
    _, events, _ = next(axia.sources(corpus, events="event_list"))
    assert len(events) == 20 and events.time[0] == 0
    with pytest.raises(ValueError, match="event_list"):
        next(axia.sources(corpus, events="pca_64d"))


def test_only_one_line_is_in_memory(tmp_path):
    # A stream without an end: reading all of it first would never return.
    read = []

    class Endless:
        def readline(self, limit):
            read.append(1)
            return lines(entry(len(read)))

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axia, "_opened", lambda path: Endless())
        stream = axia.sources(tmp_path)
        assert [next(stream)[0]["line"] for _ in range(3)] == [1, 2, 3]
        stream.close()
    assert len(read) == 3


PAIRS = entry(0)["original_event_list"]
BAD = {
    "no JSON": (b"{'obsid': 1}", "line 2: .*Expecting"),
    "no object": (b"[1, 2]", "line 2: it holds no JSON object"),
    "no list": (entry(1, original_event_list=None), "line 2: it has no original_event_list"),
    "words": (entry(1, original_event_list=[["a", "b"]]), "line 2: .*no list of .time, energy"),
    "ragged": (entry(1, original_event_list=[[1, 2], [3]]), "line 2: .*no list of"),
    "triples": (entry(1, original_event_list=[[1, 2, 3]] * 5), "line 2: .*no list of"),
    "empty": (entry(1, original_event_list=[]), "line 2: .*fewer than two photons"),
    "one photon": (entry(1, original_event_list=[[1, 2000]]), "line 2: .*fewer than two photons"),
    "one instant": (entry(1, original_event_list=[[5, 2000]] * 3), "line 2: .*one instant"),
    "not finite": (entry(1, original_event_list=[*PAIRS, [np.nan, 1000]]), "line 2: .*not finite"),
    "keV": (entry(1, original_event_list=[[t, e / 1000] for t, e in PAIRS]), "line 2: .*not in eV"),
    "names": (entry(1, original_event_list={"t": [1, 2]}), "line 2: .*no lists named"),
    "lengths": (entry(1, original_event_list={"time": [1], "energy": [1, 2]}), "line 2: .*shorter|"
                "line 2: .*longer"),
    "depth": (b"[" * 100_000, "line 2: "),
    "bytes": (b"\xff\xfe\x00", "line 2: "),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path, kind):
    bad, message = BAD[kind]
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(lines(entry(0), bad, b"", entry(2)))
    found = list(axia.sources(path))
    assert [events is not None for _, events, _ in found] == [True, False, True]
    assert found[2][0]["line"] == 4
    assert re.match(message, found[1][2])


def test_columns_instead_of_pairs(tmp_path):
    path = tmp_path / "corpus.jsonl"
    times, energies = zip(*PAIRS)
    path.write_bytes(lines(entry(0, original_event_list={"time": times, "energy": energies})))
    (_, events, reason), = axia.sources(path)
    assert reason is None and np.array_equal(events.time, times)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_file_that_is_cut_off_gives_what_is_whole(tmp_path, corpus, share):
    data = corpus.read_bytes()
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(data[:int(share * len(data))])
    *good, (row, events, reason) = axia.sources(cut)
    assert all(events is not None for _, events, _ in good) and len(good) < 5
    assert events is None and f"cut off or damaged in line {len(good) + 1}" in reason


def test_a_damaged_file_is_reported(tmp_path, corpus):
    data = bytearray(corpus.read_bytes())
    data[len(data) // 2] ^= 0xFF
    corpus.write_bytes(data)
    *_, (_, events, reason) = axia.sources(corpus)
    assert events is None and "line" in reason


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(axia, "_LONGEST_LINE", 10_000)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 1_000_000))
    (_, _, reason), = axia.sources(path)
    assert "line 1 is longer" in reason


def test_a_folder_of_event_files_with_a_table(tmp_path, corpus):
    with gzip.open(corpus, "ab") as file:
        file.write(b"nonsense\n" + lines(entry(3)))
    folder = tmp_path / "axia"
    written = axia.write(corpus, folder, progress=False)
    assert len(written.failed) == 2
    assert "left out: line 5" in str(written) and "same detection" in written.failed[1]
    table = QTable.read(folder / "sources.ecsv")
    assert table["powlaw_nh"].unit.is_equivalent(u.cm**-2) and table["bb_kt"].unit == u.keV
    assert np.isnan(table["bb_kt"][1]) and table["preferred_spectral_model"][0] == "powlaw, bb"
    paths = sa.datasets.event_files(folder)
    assert [str(path.relative_to(folder)) for path in paths] == sorted(table["file"])
    for row, events, _ in axia.sources(corpus):
        if events is not None:
            name = table["file"][list(table["obsid"]).index(row["obsid"])]
            again = sa.EventList.read(folder / name)
            assert np.array_equal(again.time, events.time)
            assert np.allclose(again.energy, events.energy, rtol=1e-15)
            assert np.array_equal(again.gti, events.gti)


def test_writing_goes_on_where_it_stopped(tmp_path, corpus, monkeypatch):
    whole = axia.write(corpus, tmp_path / "whole", progress=False)
    write, calls = axia._write_fits, []

    def full(path, events, row):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"SIMPLE")
            raise OSError(28, "No space left on device")
        write(path, events, row)

    monkeypatch.setattr(axia, "_write_fits", full)
    with pytest.raises(OSError, match="No space left"):
        axia.write(corpus, tmp_path / "again", progress=False)
    assert len(list((tmp_path / "again").rglob("*.fits"))) == 2
    again = axia.write(corpus, tmp_path / "again", progress=False)
    assert again.n_before == 2
    for path in (tmp_path / "whole").rglob("*.*"):
        other = tmp_path / "again" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()
    assert len(whole.table) == 4
    assert len(axia.write(corpus, tmp_path / "two", limit=2, progress=False).table) == 2


@pytest.mark.parametrize("content, reason", [
    (b"", "holds no source of the corpus"), (b"no corpus\n" * 3, "corpus: line 1: Expecting value"),
    (b'{"a": 1}\n', "line 1: it has no original_event_list")])
def test_a_file_that_is_no_corpus_replaces_nothing(tmp_path, corpus, capsys, content, reason):
    folder, other = tmp_path / "axia", tmp_path / "other.jsonl"
    other.write_bytes(content)
    with pytest.raises(EventDataError, match=reason):
        axia.write(other, folder, progress=False)
    assert not folder.exists()
    axia.write(corpus, folder, progress=False)
    before = (folder / "sources.ecsv").read_bytes()
    assert main(["fetch", "axia", str(other), "-o", str(folder)]) == 2
    err = capsys.readouterr().err
    assert reason in err and err.strip().count("\n") == 0
    assert (folder / "sources.ecsv").read_bytes() == before


def test_names_in_the_corpus_lead_nowhere_else(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(lines(entry(0, obsid="../../../x", source_name="/etc/\x00passwd"),
                           entry(1, obsid=None, obi=None, region_id=None, source_name="..")))
    written = axia.write(path, tmp_path / "axia", progress=False)
    assert not written.failed
    folder = tmp_path / "axia"
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*.fits")]
    assert sorted(found) == sorted(written.table["file"])
    assert all(name.startswith("events/axia_") for name in found)


# -- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(corpus, monkeypatch):
    """What the hub answers for the corpus and its manifest; the tests may change it."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="comes with transformers")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    data = corpus.read_bytes()
    manifest = {"files": {"corpus": {
        "sha256_uncompressed": hashlib.sha256(gzip.decompress(data)).hexdigest()}}}
    return {"data/corpus.jsonl.gz": data, "manifest.json": json.dumps(manifest).encode()}


def answering(files):
    def answer(request):
        prefix = "/datasets/astromindinc/axia-csc-corpus/resolve/main/"
        if not request.path.startswith(prefix):
            return Reply("nothing here", status=404)
        data = files[request.path.removeprefix(prefix)]
        headers = {"ETag": '"' + hashlib.sha256(data).hexdigest() + '"', "X-Repo-Commit": "a" * 40,
                   "Accept-Ranges": "bytes"}
        start = int(request.headers.get("range", "bytes=0-")[6:].split("-")[0])
        return Reply(data[start:], status=206 if start else 200, type="application/octet-stream",
                     headers=headers)
    return answer


def test_the_hub_gives_the_same_as_a_local_file(tmp_path, corpus, hub):
    with serving(answering(hub)) as (url, requests):
        path = axia.download(tmp_path / "hub", endpoint=url, token="hf_secret", progress=False)
        n = len([r for r in requests if r.method == "GET"])
        again = axia.download(tmp_path / "hub", endpoint=url, token="hf_secret", progress=False)
        assert len([r for r in requests if r.method == "GET"]) == n and again == path
    assert path.read_bytes() == corpus.read_bytes()
    assert all(r.headers.get("authorization") == "Bearer hf_secret" for r in requests)
    assert len(list(axia.sources(path))) == 4


def test_a_corpus_without_its_checksum_is_refused(tmp_path, hub):
    hub["data/corpus.jsonl.gz"] = gzip.compress(b"{}\n")
    with serving(answering(hub)) as (url, _):
        with pytest.raises(ArchiveError, match="does not have the checksum"):
            axia.download(tmp_path / "hub", endpoint=url, progress=False)


def test_a_hub_without_the_corpus_is_named(tmp_path, hub):
    with serving(lambda request: Reply("gone", status=404)) as (url, _):
        with pytest.raises(ArchiveError, match="astromindinc/axia-csc-corpus could not be fetched"):
            axia.download(tmp_path / "hub", endpoint=url, progress=False)


@pytest.mark.remote_data
def test_live_corpus(tmp_path):
    row, events, reason = next(axia.sources(axia.download(tmp_path, progress=False)))
    assert reason is None and len(events) > 1 and row["source_name"].startswith("2CXO")
