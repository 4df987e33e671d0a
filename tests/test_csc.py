"""The Chandra Source Catalog: queries, files, and everything that can go wrong with them."""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import tarfile
import time

import csc_archive
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table
from csc_archive import archive, detections, event_file, members_of, packed, tar_of
from local_server import Reply, serving
from small_sources import write_arf

import stingray_align as sa
from stingray_align._network import session
from stingray_align.datasets import _unpack, csc
from stingray_align.errors import ArchiveError, EventDataError, EventDataWarning
from stingray_align.photons import Photons

pytest.importorskip("pyvo", reason="the archives need the extra 'remote'")
CENTRE = SkyCoord(csc_archive.RA, csc_archive.DEC, unit="deg")


def fetch(table, folder, url, **options):
    options = {"progress": False, "session": session(retries=1, backoff=0)} | options
    return csc.fetch(table, folder, url=url, **options)


def contents(folder):
    """Digest of everything in a folder, by path."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def instead(change):
    """An archive with one fault: ``change`` gets the members it would send, and the request."""
    return lambda request: Reply(tar_of(change(list(members_of(request.parameters["packageset"])))))


# -- search ---------------------------------------------------------------------------------------


def search(url, **options):
    return csc.search(url=url, session=session(retries=1, backoff=0), **options)


def test_search_gives_names_units_and_missing_values():
    with serving(archive) as (url, requests):
        table = search(url, name="2CXO J095600.0+694200")
    assert isinstance(table, QTable) and len(table) == 3
    assert table["ra"].unit == u.deg
    assert table["flux_aper_b"].unit.is_equivalent("erg / (s cm2)")
    assert np.allclose(table["powlaw_nh"].to_value("cm-2"), [12e20, 13e20, 14e20])
    assert np.isnan(table["hard_hs"][0]) and table["hard_hs"][2] == 0.5
    assert list(table["instrument"]) == ["ACIS"] * 3
    assert table["obsid"].dtype.kind == "i"
    assert list(table["extent_flag"]) == [False, True, False]  # no value is no flag
    asked = requests[0].parameters["QUERY"]
    assert "m.name = '2CXO J095600.0+694200'" in asked and "o.instrument = 'ACIS'" in asked
    assert all(column in asked for column in csc.COLUMNS)


def test_a_name_cannot_break_out_of_the_query():
    with serving(archive) as (url, requests):
        search(url, name="2CXO ' OR 1=1 --")
    assert "m.name = '2CXO '' OR 1=1 --'" in requests[0].parameters["QUERY"]


def test_the_corners_of_the_box_around_a_cone_are_cut_off():
    with serving(archive) as (url, requests):
        table = search(url, cone=(CENTRE, 0.5 * u.arcsec), where="m.significance > 5")
    # The sources lie 0, 0.35 and 0.69 arcsec from the centre.
    assert list(table["region_id"]) == [16, 17]
    asked = requests[0].parameters["QUERY"]
    assert "m.dec BETWEEN" in asked and "(m.significance > 5)" in asked


@pytest.mark.parametrize("centre, inside, outside", [
    ((0.001, 0), (359.999, 0), (0.1, 0)), ((180, 45), (180.013, 45), (180.03, 45)),
    ((10, 89.999), (190, 89.999), (10, 89.9))])
def test_the_box_holds_the_cone_across_zero_and_the_pole(centre, inside, outside):
    condition = csc._box(SkyCoord(*centre, unit="deg"), 36 * u.arcsec)
    database = sqlite3.connect(":memory:")
    for position, expected in ((inside, 1), (outside, 0)):
        query = f"WITH m(ra, dec) AS (VALUES (?, ?)) SELECT {condition} FROM m"
        assert database.execute(query, position).fetchone() == (expected,)
    database.close()


def test_a_query_of_ones_own_is_sent_as_it_is():
    with serving(archive) as (url, requests):
        search(url, adql="SELECT o.obsid FROM csc21.observation_source o")
    assert requests[0].parameters["QUERY"] == "SELECT o.obsid FROM csc21.observation_source o"


@pytest.mark.parametrize("options, message", [
    ({}, "nothing to search for"), ({"adql": "SELECT", "name": "M 82"}, "nothing beside it"),
    ({"name": "M 82", "cone": (CENTRE, 1 * u.deg)}, "not both")])
def test_what_to_search_for_is_clear(options, message):
    with pytest.raises(ValueError, match=message):
        csc.search(**options)


def test_errors_of_the_service_are_told():
    wrong = csc_archive.votable(Table({"x": [1]})[:0], status="ERROR").replace(
        b'value="ERROR"/>', b'value="ERROR">no such column m.nonsense</INFO>')
    with serving(lambda request: Reply(wrong, type="text/xml")) as (url, _):
        with pytest.raises(ArchiveError, match="no such column m.nonsense"):
            search(url, where="m.nonsense = 1")
    with serving(lambda request: Reply("down", status=503)) as (url, requests):
        with pytest.raises(ArchiveError, match="did not answer"):
            search(url, name="2CXO J0")
    assert len(requests) == 2  # one retry


def test_an_answer_that_was_cut_is_not_taken_for_whole():
    cut = csc_archive.votable(detections(2)).replace(
        b"</RESOURCE>", b'<INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>')
    with serving(lambda request: Reply(cut, type="text/xml")) as (url, _):
        with pytest.warns(EventDataWarning, match="cut its answer after 2 rows"):
            assert len(search(url, where="1 = 1")) == 2


# -- photons --------------------------------------------------------------------------------------


def test_fetched_photons_are_those_of_the_source_with_the_rate_around_it(tmp_path):
    with serving(archive) as (url, requests):
        got = fetch(search(url, name="2CXO J0"), tmp_path, url)
    assert not got.failed and got.n_before == 0
    assert requests[-1].parameters["packageset"].split(",")[:2] == [
        "14031.0.16/regevt3/b", "14031.0.16/srcreg/b"]
    events = csc.read(tmp_path / got.table["file"][0])
    area = np.pi * csc_archive.RADIUS**2
    expected = csc_archive.N_BACKGROUND * area / (2 * csc_archive.HALF_SIZE) ** 2
    assert abs(len(events) - csc_archive.N_SOURCE - expected) < 5 * np.sqrt(expected) + 1
    rate = sum(getattr(events, f"background_{band}") for band in ("soft", "medium", "hard", "top"))
    assert rate * 2e4 == pytest.approx(expected, rel=0.4)
    assert events.exposure == pytest.approx(2e4)
    assert sa.events.instrument_of(events) == "ACIS-S"
    table = QTable.read(tmp_path / "sources.ecsv")
    assert table["powlaw_nh"].unit == got.table["powlaw_nh"].unit
    assert list(table["file"]) == list(got.table["file"])


def test_a_folder_of_the_catalogue_is_read_with_its_regions(tmp_path):
    with serving(archive) as (url, _):
        fetch(detections(2), tmp_path, url)
    paths = sa.datasets.event_files(tmp_path)
    assert [path.name[-15:] for path in paths] == ["regevt3.fits.gz"] * 2
    for path, events, reason in sa.datasets.read_event_files(paths):
        assert reason is None
        assert len(events) == len(csc.read(path)) < csc_archive.N_SOURCE + 20


def test_the_effective_area_is_that_of_the_file_beside(tmp_path):
    with serving(archive) as (url, _):
        got = fetch(detections(2), tmp_path, url)
    for name, obsid in zip(got.table["file"], (14031, 14032)):
        events = csc.read(tmp_path / name)
        assert events.arf_file.endswith("arf3.fits.gz")
        np.testing.assert_allclose(Photons.from_events(events).area, obsid / 100, rtol=1e-5)
    own = tmp_path / "own.arf"
    write_arf(own, lambda energy: 7.0)
    events = csc.read(tmp_path / got.table["file"][0], arf_file=own)
    np.testing.assert_allclose(Photons.from_events(events).area, 7)


@pytest.mark.parametrize("change, why", [
    (lambda good: good[:2] + good[3:], "the archive did not send it"),
    (lambda good: good[:2] + [(good[2][0], packed(csc_archive.region_file(14031)))] + good[3:],
     "it holds no effective area")])
def test_without_effective_area_a_detection_can_be_read(tmp_path, change, why):
    with serving(instead(change)) as (url, _):
        got = fetch(detections(2), tmp_path, url)
    assert list(got.failed) == ["14031.0.16"] and got.table["file"].astype(bool).all()
    assert "2 of 2 event files" in str(got)
    assert "without effective area: 14031.0.16: ancillary response file" in str(got)
    assert why in str(got)
    assert csc.read(tmp_path / got.table["file"][0]).arf_file is None
    with serving(archive) as (url, requests):
        assert not fetch(detections(2), tmp_path, url).failed
    assert [r.parameters["packageset"] for r in requests] == ["14031.0.16/arf/b"]
    assert csc.read(tmp_path / got.table["file"][0]).arf_file is not None


def test_without_its_region_a_file_is_not_taken_for_a_source(tmp_path):
    path = tmp_path / "acisf14031_000N021_r0016_regevt3.fits"
    path.write_bytes(event_file(14031))
    with pytest.raises(EventDataError, match="no region file"):
        csc.read(path)
    (_, events, reason), = sa.datasets.read_event_files([path])
    assert events is None and "no region file" in reason
    with serving(instead(lambda good: good[:1])) as (url, _):
        got = fetch(detections(1), tmp_path / "found", url)
    assert list(got.table["file"]) == [""]
    assert got.failed["14031.0.16"] == "region file: the archive did not send it"


# -- faults ---------------------------------------------------------------------------------------


def test_what_is_there_is_not_fetched_again(tmp_path):
    with serving(archive) as (url, requests):
        fetch(detections(2), tmp_path, url)
        before, n = contents(tmp_path), len(requests)
        again = fetch(detections(2), tmp_path, url)
        assert len(requests) == n and again.n_before == 2
        assert contents(tmp_path) == before
        more = fetch(detections(3), tmp_path, url)
    assert requests[-1].parameters["packageset"].startswith("14033.0.18/")
    assert more.n_before == 2 and "3 of 3 event files" in str(more)
    assert len(QTable.read(tmp_path / "sources.ecsv")) == 3


def test_requests_hold_no_more_files_than_the_archive_allows(tmp_path):
    with serving(archive) as (url, requests):
        fetch(detections(3), tmp_path, url, batch=4)
        assert [r.parameters["packageset"].count("/b") for r in requests] == [4, 4, 1]
        with pytest.raises(ValueError, match="1 to 50"):
            fetch(detections(3), tmp_path, url, batch=51)
        with pytest.raises(ValueError, match="no column region_id"):
            fetch(detections(3)["obsid", "obi"], tmp_path, url)


def test_a_connection_cut_inside_the_tar_loses_nothing(tmp_path):
    whole = archive_contents(tmp_path / "undisturbed", 4)
    cuts = np.random.default_rng(3)

    def cutting(request):
        reply = archive(request)
        # At a random place in the answer, first in its first file and then anywhere, until only
        # one file is left to ask for.
        if len(requests) <= 3:
            reply.cut = int(cuts.integers(0, 3000))
        elif request.parameters["packageset"].count("/b") > 1:
            reply.cut = int(cuts.integers(0, len(reply.body)))
        return reply

    with serving(cutting) as (url, requests):
        first = fetch(detections(4), tmp_path / "cut", url)
        assert len(first.failed) == 4 and "connection was lost" in str(first)
        assert list(contents(tmp_path / "cut")) == ["sources.ecsv"]
        while fetch(detections(4), tmp_path / "cut", url).failed:
            assert len(requests) < 100
    assert contents(tmp_path / "cut") == whole
    assert len(requests) > 4


def archive_contents(folder, n):
    with serving(archive) as (url, _):
        assert not fetch(detections(n), folder, url).failed
    return contents(folder)


def test_an_answer_that_ends_early_without_notice_is_asked_for_again(tmp_path):
    def short(request):
        reply = archive(request)
        if len(requests) == 1:
            reply.headers["Content-Length"] = len(reply.body) // 2
        return reply

    with serving(short) as (url, requests):
        assert not fetch(detections(2), tmp_path, url).failed
    assert len(requests) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_archive_is_asked_again_and_then_left_alone(tmp_path, status):
    replies = [Reply("busy", status=status, headers={"Retry-After": "0"})]

    def recovering(request):
        return replies.pop() if replies else archive(request)

    with serving(recovering) as (url, requests):
        assert not fetch(detections(1), tmp_path / "once", url).failed
    assert len(requests) == 2
    with serving(lambda request: Reply("busy", status=status)) as (url, requests):
        got = fetch(detections(3), tmp_path / "always", url, batch=2)
    assert len(requests) == 2  # one retry, and no further batch
    assert len(got.failed) == 3 and f"status {status}" in str(got)
    assert list(got.table["file"]) == [""] * 3


def test_an_archive_that_is_not_there_is_named(tmp_path):
    got = fetch(detections(1), tmp_path, "http://127.0.0.1:9")
    assert "no connection to http://127.0.0.1:9" in got.failed["14031.0.16"]


def test_one_refused_request_does_not_stop_the_others(tmp_path):
    def refusing(request):
        if "14031" in request.parameters["packageset"]:
            return Reply("unknown", status=404)
        return archive(request)

    with serving(refusing) as (url, _):
        got = fetch(detections(2), tmp_path, url, batch=3)
    assert list(got.failed) == ["14031.0.16"] and "404" in str(got)
    assert got.table["file"][1]


def member(name, kind=tarfile.REGTYPE, target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "dots": member("../../acisf14031_000N021_r0016_regevt3.fits"),
    "inner dots": member("package/../../escaped.fits"),
    "absolute": member("/tmp/acisf14031_000N021_r0016_regevt3.fits"),
    "backslash": member("..\\escaped.fits"),
    "symlink": member("acisf14031_000N021_r0016_regevt3.fits", tarfile.SYMTYPE),
    "hardlink": member("acisf14031_000N021_r0016_regevt3.fits", tarfile.LNKTYPE),
    "device": member("acisf14031_000N021_r0016_regevt3.fits", tarfile.CHRTYPE),
    "fifo": member("acisf14031_000N021_r0016_regevt3.fits", tarfile.FIFOTYPE),
    "folder": member("../outside/", tarfile.DIRTYPE),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_tar_that_leads_out_of_the_folder_is_refused_by_name(tmp_path, kind):
    inner = tmp_path / "inner"
    with serving(instead(lambda good: [(HOSTILE[kind], b"bad"), *good])) as (url, requests):
        got = fetch(detections(1), inner, url)
    assert "refused" in str(got) and repr(HOSTILE[kind].name.rstrip("/"))[1:-1] in str(got)
    assert list(contents(tmp_path)) == ["inner/sources.ecsv"]
    assert len(requests) == 1  # not asked again: it will not get better
    with serving(archive) as (url, _):
        assert not fetch(detections(1), inner, url).failed


def test_what_was_not_asked_for_is_not_kept(tmp_path):
    extra = [("README", b"hello"), ("package/.bashrc", b"bad"),
             ("acisf99999_000N001_r0001_regevt3.fits", event_file(14031))]
    with serving(instead(lambda good: extra + good + good)) as (url, _):
        assert not fetch(detections(1), tmp_path, url).failed
    assert list(contents(tmp_path)) == [
        "events/acisf14031_000N020_r0016_reg3.fits.gz",
        "events/acisf14031_000N021_r0016_arf3.fits.gz",
        "events/acisf14031_000N021_r0016_regevt3.fits.gz", "sources.ecsv"]


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_unpack, "RATIO_FROM", 1 << 20)
    bomb = packed(event_file(14031) + bytes(50 << 20))
    assert len(bomb) < 200_000
    with serving(instead(lambda good: [(good[0][0], bomb), good[1]])) as (url, _):
        got = fetch(detections(1), tmp_path, url)
    assert "unpacks to far more than it should" in str(got)
    assert list(contents(tmp_path)) == ["events/acisf14031_000N020_r0016_reg3.fits.gz",
                                        "sources.ecsv"]


def test_a_file_that_is_too_large_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(_unpack, "MAX_SIZE", 1000)
    with serving(archive) as (url, _):
        assert "too large" in str(fetch(detections(1), tmp_path, url))


def spoiled(data, where):
    data = bytearray(data)
    data[where] ^= 0xFF
    return bytes(data)


WRONG = {
    "no FITS": (b"<html>Sorry</html>", "no whole FITS file"),
    "empty": (b"", "no whole FITS file"),
    "cut": (event_file(14031)[:9000], "damaged|no whole FITS"),
    "spoiled photon": (spoiled(event_file(14031), 12960), "verification failed"),
    "spoiled header": (spoiled(event_file(14031), -3000), "damaged"),
    "no events": (csc_archive.region_file(14031), "no table of events"),
    "cut gzip": (packed(event_file(14031))[:-500], "damaged gzip"),
    "spoiled gzip": (spoiled(packed(event_file(14031)), 4000), "damaged gzip"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_damaged_files_are_reported_and_never_kept(tmp_path, kind):
    data, message = WRONG[kind]
    with serving(instead(lambda good: [(good[0][0], data), *good[1:]])) as (url, _):
        got = fetch(detections(2), tmp_path, url)
    assert list(got.failed) == ["14031.0.16"]
    assert re.search(message, str(got))
    assert not list(tmp_path.glob("events/acisf14031*regevt3*"))
    assert got.table["file"][1]
    with serving(archive) as (url, requests):
        assert not fetch(detections(2), tmp_path, url).failed
    assert requests[0].parameters["packageset"] == "14031.0.16/regevt3/b"


def test_an_answer_that_is_no_tar_is_reported(tmp_path):
    with serving(lambda request: Reply("<html>maintenance</html>" * 100)) as (url, _):
        assert "no whole tar file" in str(fetch(detections(1), tmp_path, url))
    with serving(lambda request: Reply(b"")) as (url, _):
        assert "no whole tar file" in str(fetch(detections(1), tmp_path, url))


def test_a_full_disk_keeps_what_is_whole(tmp_path, monkeypatch):
    whole = archive_contents(tmp_path / "undisturbed", 3)
    copy, calls = _unpack.shutil.copyfileobj, []

    def full(source, target, size):
        calls.append(target.name)
        if len(calls) == 4:
            target.write(source.read(100))
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target, size)

    monkeypatch.setattr(_unpack.shutil, "copyfileobj", full)
    with serving(archive) as (url, _):
        with pytest.raises(OSError, match="No space left"):
            fetch(detections(3), tmp_path / "full", url)
        monkeypatch.undo()
        kept = contents(tmp_path / "full")
        assert kept and kept.items() <= whole.items()
        assert not fetch(detections(3), tmp_path / "full", url).failed
    assert contents(tmp_path / "full") == whole


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder],
                          capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_really_full_disk(small_disk):
    with serving(archive) as (url, _):
        with pytest.raises(OSError, match="No space left"):
            fetch(detections(20), small_disk, url)
    for path in small_disk.glob("events/*regevt3*"):
        with fits.open(path, checksum=True) as hdus:
            assert len(hdus["EVENTS"].data) == csc_archive.N_SOURCE + csc_archive.N_BACKGROUND
    assert not list(small_disk.glob(".partial*"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_at_random_moments_and_finished_later(tmp_path):
    whole = archive_contents(tmp_path / "undisturbed", 6)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["stingray_align.datasets.csc", "stingray_align.regions",
                                      "regions", "requests"])
    moments = np.random.default_rng(11)
    n_killed = 0
    with serving(archive) as (url, requests):
        for _ in range(4):
            n = len(requests)
            process = processes.Process(
                target=csc.fetch, args=(detections(6), tmp_path / "killed"),
                kwargs={"url": url, "batch": 2, "progress": False})
            process.start()
            while len(requests) == n and process.is_alive():
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.1))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.join()
            n_killed += process.exitcode == -signal.SIGKILL
            kept = {k: v for k, v in contents(tmp_path / "killed").items()
                    if k.startswith("events/")}
            assert kept.items() <= whole.items()
        assert n_killed
        assert not fetch(detections(6), tmp_path / "killed", url).failed
    assert contents(tmp_path / "killed") == whole


# -- live -----------------------------------------------------------------------------------------


@pytest.mark.remote_data
def test_live_catalogue(tmp_path):
    table = csc.search("M 82 X-2", where="o.flux_significance_b > 10")
    assert len(table) and np.all(table["name"] == table["name"][0])
    got = csc.fetch(table[:2], tmp_path, progress=False)
    assert not got.failed, str(got)
    events = csc.read(tmp_path / got.table["file"][0])
    assert len(events) > 50 and events.background_soft is not None
