"""Whole catalogues on disk: the same as in memory, and whole again after whatever happens."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable, Table
from small_sources import write_arf

import stingray_align as sa
from stingray_align import scale
from stingray_align.autodecoder import PoissonAutodecoder, embed_vectors
from stingray_align.errors import EventDataError, EventDataWarning, PartitionError
from stingray_align.events import background_rates
from stingray_align.photons import Photons

pytest.importorskip("lsdb", reason="catalogues on disk need the extra 'scale'")

pytestmark = [
    # LSDB and nested-pandas use options that pandas 3.1 wants to rename.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lsdb"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in NestedFrame"),
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
    # A worker that the test kills leaves its connections open.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

N_ROWS = 7
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def make_parts(arf_file):
    """Three parts with thirty sources in two fields, one of them without a photon."""
    population = sa.datasets.simulate_population(30, seed=5, instruments="ACIS-S", summaries=0)
    events, table = list(population.event_lists), QTable(population.truth["class", "flux"])
    events[4] = sa.EventList(time=[], energy=[], gti=[[1e8, 1e8 + 500], [1e8 + 900, 1e8 + 2000]],
                             mission="chandra", instr="ACIS-S")
    events[7].arf_file = str(arf_file)
    rng = np.random.default_rng(0)
    table["name"] = [f"source {i}" for i in range(30)]
    table["ra"] = (rng.uniform(-3, 3, 30) % 360) * u.deg
    table["dec"] = rng.uniform(-3, 3, 30) * u.deg
    table["ra"][20:] = 150 * u.deg + rng.uniform(0, 0.1, 10) * u.deg
    table["n_obs"] = np.arange(30)
    return [(events[rows], table[rows]) for rows in (slice(0, 12), slice(12, 15), slice(15, 30))]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_parts(write_arf(tmp_path_factory.mktemp("response") / "source.arf",
                                lambda energy: 100 * energy))


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    """A catalogue with event lists."""
    path = tmp_path_factory.mktemp("scale") / "sources"
    scale.write_catalog(parts, path, n_rows=N_ROWS)
    return path


@pytest.fixture(scope="module")
def embedded(folder):
    path = folder.parent / "embedded"
    scale.embed_catalog(folder, path)
    return path


def partitions(path):
    """Contents of all partitions of a catalogue."""
    return {str(file.relative_to(path)): file.read_bytes()
            for file in sorted(path.rglob("Npix=*.parquet"))}


def in_memory(folder):
    """The same sources as an `AlignedCatalog`, and their feature vectors."""
    events, tables = zip(*scale.read_catalog(folder))
    events = [one for part in events for one in part]
    table = QTable({name: np.concatenate([part[name] for part in tables])
                    for name in tables[0].colnames})
    return sa.AlignedCatalog.build(events, [None] * len(events), table=table), events


# -- writing and reading --------------------------------------------------------------------------


def test_every_event_list_comes_back_to_the_last_bit(parts, folder):
    written = {name: (one, row) for events, table in parts
               for one, row, name in zip(events, table, table["name"])}
    seen = 0
    for events, table in scale.read_catalog(folder):
        assert len(events) == len(table) <= N_ROWS
        for i, one in enumerate(events):
            before, row = written[table["name"][i]]
            seen += 1
            np.testing.assert_array_equal(one.gti, before.gti)
            if before.n:
                np.testing.assert_array_equal(one.time, before.time)
                np.testing.assert_array_equal(one.energy, before.energy)
            assert one.n == before.n
            assert (one.mission, one.instr) == (before.mission, before.instr)
            assert one.arf_file == getattr(before, "arf_file", None)
            if background_rates(before) is not None:
                np.testing.assert_array_equal(background_rates(one), background_rates(before))
            for name in ("ra", "dec", "flux", "class", "n_obs"):
                np.testing.assert_array_equal(table[name][i], row[name])
            assert table["flux"].unit == row["flux"].unit
    assert seen == len(written) == 30


def test_the_parts_do_not_shape_the_catalogue(parts, folder, tmp_path):
    events = [one for part, _ in parts for one in part]
    table = QTable({name: np.concatenate([part[name] for _, part in parts])
                    for name in parts[0][1].colnames})
    order = np.random.default_rng(1).permutation(30)
    scale.write_catalog([([events[i] for i in order], table[order])], tmp_path / "one",
                        n_rows=N_ROWS)
    assert partitions(tmp_path / "one") == partitions(folder)


def test_writing_goes_on_without_reading_again(parts, folder, tmp_path):
    def stopped():
        yield from parts[:2]
        raise KeyboardInterrupt

    def unread():
        raise AssertionError("the event lists of this part are not needed")
        yield

    with pytest.raises(KeyboardInterrupt):
        scale.write_catalog(stopped(), tmp_path / "sources", n_rows=N_ROWS)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        scale.open_catalog(tmp_path / "sources")
    scale.write_catalog([(unread(), parts[0][1]), (unread(), parts[1][1]), parts[2]],
                        tmp_path / "sources", n_rows=N_ROWS)
    assert partitions(tmp_path / "sources") == partitions(folder)
    with pytest.raises(FileExistsError, match="finished"):
        scale.write_catalog(parts, tmp_path / "sources")


def test_an_unfinished_folder_is_not_filled_with_other_sources(parts, tmp_path):
    with pytest.raises(ZeroDivisionError):
        scale.write_catalog((parts[i] if i == 0 else 1 / 0 for i in range(2)), tmp_path / "a")
    with pytest.raises(FileExistsError, match="other settings"):
        scale.write_catalog(parts, tmp_path / "a", n_rows=3)
    with pytest.raises(FileExistsError, match="other sources"):
        scale.write_catalog(parts[1:], tmp_path / "a")


def test_parts_in_other_units_become_those_of_the_first(parts, tmp_path):
    (first, one), (second, two) = parts[:2]
    one, two = one.copy(), two.copy()
    one["ra"] = one["ra"].to(u.hourangle)
    two["flux"] = two["flux"].to(u.mW / u.m**2)
    two["dec"] = two["dec"].value
    written = scale.write_catalog([(first, one), (second, two[two.colnames[::-1]])],
                                  tmp_path / "sources")
    expected = {row["name"]: row for _, table in parts[:2] for row in table}
    for _, table in scale.read_catalog(written):
        for row in table:
            for name in ("ra", "dec", "flux"):
                assert row[name].unit == expected[row["name"]][name].unit
                assert u.isclose(row[name], expected[row["name"]][name], equal_nan=True)
    for number, (name, values, message) in enumerate((
            ("flux", two["ra"], "column 'flux' has the unit deg in part 2 and .* in the first"),
            ("flux", two["flux"].value, "column 'flux' has the unit None in part 2"),
            ("n_obs", np.ones(3) * u.one, "column 'n_obs' has the unit  in part 2 and None in"),
            ("more", 5, "different columns"))):
        other = two.copy()
        other[name] = values
        with pytest.raises(ValueError, match=message):
            scale.write_catalog([(first, one), (second, other)], tmp_path / f"{number}")


def test_what_cannot_be_written_is_said(parts, tmp_path):
    events, table = parts[1]
    away = table.copy()
    away["dec"][0] = np.nan * u.deg
    masked = Table(table)
    masked["ra"] = MaskedColumn(table["ra"].value, mask=[True, False, False])
    clash = table.copy()
    clash["gti"] = 1
    for number, (bad, message) in enumerate([
            ((events[:2], table), "2 event lists but 3 rows"),
            ((events, table["ra", "name"]), "'ra' and 'dec'"),
            ((events, away), "needs a position"),
            ((events, masked), "needs a position"),
            ((events, QTable(masked, units={"ra": u.deg})), "needs a position"),
            ((events, clash), "rename"),
            ((["no list"] * 3, table), "expected a stingray.EventList")]):
        with pytest.raises((ValueError, EventDataError), match=message):
            scale.write_catalog([bad], tmp_path / f"bad {number}")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="something else"):
        scale.write_catalog(parts, tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="no HATS catalogue"):
        scale.open_catalog(tmp_path / "nowhere")


# -- embedding ------------------------------------------------------------------------------------


def test_embedding_is_that_of_the_event_lists(folder, embedded):
    catalogue, events = in_memory(folder)
    frame = scale.open_catalog(embedded).compute(progress_bar=False).sort_index(kind="stable")
    vectors = embed_vectors(Photons.from_events(events))
    np.testing.assert_allclose(np.stack(frame["vector"]), vectors, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.stack(frame["shared"]).astype(float), catalogue.source_vectors,
                               atol=2e-3)
    assert frame["counts"].tolist() == catalogue.table["counts"].tolist()
    assert "events" not in frame.columns


def test_the_catalogue_says_what_made_it(embedded):
    import hashlib
    from importlib.metadata import version

    info = scale.open_catalog(embedded).hc_structure.catalog_info
    assert info.stingray_align_version == version("stingray-align")
    for name in ("autodecoder", "aligner"):
        content = (embedded / f"{name}.safetensors").read_bytes()
        assert getattr(info, f"stingray_align_{name}") == hashlib.sha256(content).hexdigest()


def test_a_finished_catalogue_is_not_touched_and_other_models_are_refused(folder, embedded):
    before = {path: path.stat().st_mtime_ns for path in embedded.rglob("Npix=*.parquet")}
    scale.embed_catalog(folder, embedded)
    assert before == {path: path.stat().st_mtime_ns for path in embedded.rglob("Npix=*.parquet")}
    other = sa.Aligner.pretrained()
    other.best_step_ = 1
    with pytest.raises(FileExistsError, match="other settings .*aligner"):
        scale.embed_catalog(folder, embedded, aligner=other)


def test_unusable_event_lists_are_left_out_by_name(parts, tmp_path):
    import json

    events, table = parts[1]
    broken = sa.EventList(time=[1.0, 2.0], energy=[1.0, 2.0], gti=[[5.0, 9.0]])
    scale.write_catalog([([None, broken, events[2]], table)], tmp_path / "sources")
    with pytest.warns(EventDataWarning, match="1 sources .* source 13"):
        found = scale.embed_catalog(tmp_path / "sources", tmp_path / "embedded")
    assert found.compute(progress_bar=False)["name"].tolist() == ["source 14"]
    (name, reason), = json.loads((tmp_path / "embedded" / "left_out.json").read_text())
    assert name == "source 13" and "good time intervals" in reason


def test_sources_alone_in_their_partition_are_left_out_by_name_at_every_call(parts, tmp_path):
    import json

    events, table = parts[1]
    broken = sa.EventList(time=[1.0, 2.0], energy=[1.0, 2.0], gti=[[5.0, 9.0]])
    table = table.copy()
    table["ra"] = [0, 90, 180] * u.deg
    sources = scale.write_catalog([([*events[:2], broken], table)], tmp_path / "sources", n_rows=1)
    for _ in range(2):
        with pytest.warns(EventDataWarning, match="1 sources .* source 14"):
            found = scale.embed_catalog(sources, tmp_path / "embedded")
        assert len(found) == 2
        (name, reason), = json.loads((tmp_path / "embedded" / "left_out.json").read_text())
        assert name == "source 14" and "good time intervals" in reason
    alone = scale.write_catalog([([broken], table[2:])], tmp_path / "alone")
    with pytest.raises(EventDataError, match="no source .* source 14: .* good time intervals"):
        scale.embed_catalog(alone, tmp_path / "nothing")


def test_columns_of_the_sources_are_kept_with_their_units(parts, tmp_path):
    events, table = parts[1]
    table = table.copy()
    table["counts"], table["exposure"] = [1, 2, 3], [4.0, 5.0, 6.0] * u.ks
    scale.write_catalog([(events, table)], tmp_path / "sources")
    found = scale.query(scale.embed_catalog(tmp_path / "sources", tmp_path / "embedded"), "a flare")
    found.sort("name")
    assert found["counts"].tolist() == [1, 2, 3]
    assert (found["exposure"] == table["exposure"]).all() and found["exposure"].unit == u.ks
    assert found["duration"].unit == u.s


def test_what_lsdb_cuts_out_can_be_embedded(folder, embedded, tmp_path):
    import lsdb

    sources = scale.open_catalog(folder)
    cone = sources.cone_search(150.05, 0, 4 * 3600)
    found = scale.embed_catalog(cone, tmp_path / "cone").compute(progress_bar=False)
    assert len(found) == 10 and (found["ra"] > 149).all()

    names = sources.compute(progress_bar=False)[["ra", "dec", "name"]].iloc[:6]
    stars = lsdb.from_dataframe(names.reset_index(drop=True).assign(
        optical=np.arange(6.0)).drop(columns="name"), catalog_name="stars")
    both = sources.crossmatch(stars, radius_arcsec=1, suffixes=("", "_star"),
                              suffix_method="overlapping_columns")
    found = scale.embed_catalog(both, tmp_path / "both").compute(progress_bar=False)
    assert sorted(found["name"]) == sorted(names["name"])
    whole = scale.open_catalog(embedded).compute(progress_bar=False).set_index("name")
    for name, vector in zip(found["name"], found["vector"]):
        np.testing.assert_allclose(vector, whole.loc[name, "vector"], rtol=1e-4, atol=1e-4)
    assert set(found["optical"]) == set(range(6))


# -- searching ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(embedded):
    """What `AlignedCatalog` makes of the very vectors that were stored."""
    frame = scale.open_catalog(embedded).compute(progress_bar=False).sort_index(kind="stable")
    units = {"ra": u.deg, "dec": u.deg, "exposure": u.s, "duration": u.s,
             "flux": u.erg / u.s / u.cm**2}
    table = QTable()
    for name in frame.columns.drop(["vector", "shared"]):
        values = frame[name].to_numpy()
        values = values.astype(str) if values.dtype == object else values
        table[name] = values * units[name] if name in units else values
    vectors = np.stack(frame["shared"]).astype(np.float16)
    return sa.AlignedCatalog(aligner=sa.Aligner.pretrained(), table=table, source_vectors=vectors)


NEAR = (SkyCoord(150.05, 0, unit="deg"), 4 * u.deg)
QUESTIONS = {
    "words": {"what": "a soft source that flares"},
    "more than there are": {"what": "steady", "k": 100},
    "cone": {"what": "a steady source", "cone": NEAR},
    "nothing there": {"what": "a steady source",
                      "cone": (SkyCoord(40, 80, unit="deg"), 1 * u.arcsec)},
    "where": {"what": "a pulsar", "where": lambda table: table["exposure"] > 2e4 * u.s},
    "mask": {"what": "a pulsar", "where": np.arange(30) % 3 == 0, "k": 4},
}


def assert_same(found, expected):
    assert found.colnames == expected.colnames
    assert found.meta == expected.meta
    assert len(found) == len(expected)
    for name in found.colnames:
        np.testing.assert_array_equal(found[name], expected[name])
        assert found[name].unit == expected[name].unit


@pytest.mark.parametrize("case", QUESTIONS)
def test_answers_are_those_of_the_catalogue_in_memory(case, whole, embedded):
    assert_same(scale.query(embedded, **QUESTIONS[case]), whole.query(**QUESTIONS[case]))


def test_photons_are_a_question_too(whole, embedded, parts):
    events = parts[0][0][0]
    np.testing.assert_array_equal(scale.query(embedded, events)["name"],
                                  whole.query(events)["name"])


def test_questions_that_cannot_be_answered(folder, embedded):
    with pytest.raises(ValueError, match="not embedded"):
        scale.query(folder, "a flare")
    with pytest.raises(ValueError, match="at least 1"):
        scale.query(embedded, "a flare", k=0)
    with pytest.raises(ValueError, match=r"one True or False per source \(30\)"):
        scale.query(embedded, "a flare", where=np.ones(7, bool))


# -- clusters and faults --------------------------------------------------------------------------


@pytest.fixture
def threads():
    from distributed import Client

    with Client(n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://",
                host="127.0.0.1", dashboard_address=None) as client:
        yield client


def test_threads_of_a_worker_load_the_model_once(folder, embedded, tmp_path, threads, monkeypatch):
    loaded = []
    load = PoissonAutodecoder.load
    monkeypatch.setattr(PoissonAutodecoder, "load",
                        lambda path: loaded.append(path) or load(path))
    scale.embed_catalog(folder, tmp_path / "embedded", client=threads)
    assert len(loaded) == 1
    assert partitions(tmp_path / "embedded") == partitions(embedded)
    answers = [scale.query(embedded, "a flare", client=client) for client in (None, threads)]
    assert_same(*answers)


def wait_for_partitions(path, n, process=None):
    """Until this many are finished."""
    while len(list(path.rglob("Npix=*.parquet"))) < n:
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.002)


EMBED = """
import sys, time
from stingray_align import _hats, scale
write = _hats.write_partition
def slowly(*args):
    write(*args)
    time.sleep(0.2)
_hats.write_partition = slowly
scale.embed_catalog(*sys.argv[1:])
"""


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow),
                                  pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_process_loses_nothing(seed, folder, embedded, tmp_path):
    rng = np.random.default_rng(seed)
    output = tmp_path / "embedded"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", EMBED, folder, output],
                               **SILENT)
    wait_for_partitions(output, rng.integers(1, len(partitions(embedded))), process)
    time.sleep(rng.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (output / "dataset" / ".Npix=7.parquet.half-written").write_bytes(b"PAR1")
    finished = partitions(output)
    assert 0 < len(finished) < len(partitions(embedded))
    scale.embed_catalog(folder, output)
    assert partitions(output) == partitions(embedded)
    assert not list(output.rglob(".*"))
    assert_same(scale.query(output, "a flare"), scale.query(embedded, "a flare"))


def test_a_killed_worker_is_replaced(folder, embedded, tmp_path):
    from distributed import Client

    output = tmp_path / "embedded"
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        first, = client.run(os.getpid).values()

        def kill():
            wait_for_partitions(output, 1)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        scale.embed_catalog(folder, output, client=client.scheduler.address)
        killer.join()
        second, = client.run(os.getpid).values()
    assert first != second
    assert partitions(output) == partitions(embedded)


def damage(path, at=0.5):
    content = bytearray(path.read_bytes())
    place = int(len(content) * at)
    content[place:place + 4] = bytes(255 - byte for byte in content[place:place + 4])
    path.write_bytes(content)


def test_a_damaged_partition_is_found_and_made_again(folder, embedded, tmp_path):
    output = tmp_path / "embedded"
    scale.embed_catalog(folder, output)
    bad = sorted(output.rglob("Npix=*.parquet"))[1]
    damage(bad)
    with pytest.raises(PartitionError, match=f"1 of .*\n.*{bad.name}"):
        scale.query(output, "a flare")
    with pytest.warns(EventDataWarning, match=f"{bad.name} is damaged .* made again"):
        scale.embed_catalog(folder, output)
    assert partitions(output) == partitions(embedded)


def test_a_damaged_source_of_events_stops_only_its_partition(folder, embedded, tmp_path):
    import shutil

    copy, output = tmp_path / "sources", tmp_path / "embedded"
    shutil.copytree(folder, copy)
    bad = sorted(copy.rglob("Npix=*.parquet"))[2]
    good = bad.read_bytes()
    damage(bad)
    for _ in range(2):
        with pytest.raises(PartitionError, match=f"failed for 1 of .*\n.*{bad.name}"):
            scale.embed_catalog(copy, output)
    finished = {path: path.stat().st_mtime_ns for path in output.rglob("Npix=*.parquet")}
    assert len(finished) == len(partitions(embedded)) - 1
    assert not scale.is_catalog(output)
    bad.write_bytes(good)
    scale.embed_catalog(copy, output)
    assert partitions(output) == partitions(embedded)
    assert finished.items() <= {path: path.stat().st_mtime_ns
                                for path in output.rglob("Npix=*.parquet")}.items()


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", path], **SILENT)
    except OSError:
        made = None
    if made is None or made.returncode:
        pytest.skip("this user may not mount a small disk")
    yield path
    subprocess.run(["umount", "-l", path], check=True, **SILENT)


def test_a_full_disk_is_reported_and_survived(folder, embedded, small_disk):
    output, ballast = small_disk / "embedded", small_disk / "ballast"
    size = sum(map(len, partitions(embedded).values()))
    models = sum(path.stat().st_size for path in embedded.glob("*.safetensors"))
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - models - size // 2))
    with pytest.raises(PartitionError, match="disk is full .* free some space"):
        scale.embed_catalog(folder, output)
    assert 0 < len(partitions(output)) < len(partitions(embedded))
    ballast.unlink()
    scale.embed_catalog(folder, output)
    assert partitions(output) == partitions(embedded)


def test_the_package_does_not_import_lsdb():
    code = "import sys, stingray_align.scale; sys.exit('lsdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- the command ----------------------------------------------------------------------------------


def test_the_command_embeds_and_queries_a_catalogue(folder, embedded, tmp_path, capsys):
    from stingray_align.cli import main

    output, table = tmp_path / "embedded", tmp_path / "found.ecsv"
    assert main(["embed", str(folder), "-o", str(output)]) == 0
    assert main(["embed", str(folder), "-o", str(output), "--arf", "one.arf"]) == 2
    assert "(30 sources)" in capsys.readouterr().out
    assert partitions(output) == partitions(embedded)
    assert main(["query", "a flare", "--catalog", str(output), "-k", "3", "--cone",
                 "150.05d 0d", "4deg", "--table", str(table)]) == 0
    expected = scale.query(embedded, "a flare", k=3, cone=(SkyCoord("150.05d 0d"), 4 * u.deg))
    assert QTable.read(table)["name"].tolist() == expected["name"].tolist()
    assert main(["query", "a flare", "--catalogue", str(output), "--target", "texts"]) == 2
    assert "holds no texts" in capsys.readouterr().err


def test_the_command_takes_a_folder_of_event_files(parts, tmp_path, capsys):
    from stingray_align.cli import main

    for i, name in enumerate(["b.ecsv", "a.ecsv", "deep/c.ecsv"]):
        (tmp_path / "archive" / name).parent.mkdir(parents=True, exist_ok=True)
        parts[1][0][i].write(tmp_path / "archive" / name)
    (tmp_path / "archive" / "bad.fits").write_text("no event file")
    output = tmp_path / "features.ecsv"
    for before in (0, 3):
        assert main(["embed", str(tmp_path / "archive"), "-o", str(output)]) == 0
        captured = capsys.readouterr()
        assert f"3 of 4 files in {output} ({before} from before)" in captured.out
        assert "left out: " in captured.err and "bad.fits" in captured.err
    assert [Path(name).name for name in QTable.read(output)["file"]] == ["a.ecsv", "b.ecsv",
                                                                         "c.ecsv"]
