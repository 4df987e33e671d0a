"""Folders of event files: what is found, what is read, what is reported."""

import gzip
import shutil
from importlib.resources import files

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import stingray_align as sa
from stingray_align.datasets import event_files, read_event_files

M82 = files("stingray") / "tests" / "data" / "chandra_test.fits"


@pytest.fixture
def folder(tmp_path):
    """Three good files of two missions, two bad ones, and much that holds no events."""
    data = M82.read_bytes()
    (tmp_path / "below").mkdir()
    shutil.copy(M82, tmp_path / "below" / "no_suffix")
    (tmp_path / "m82.evt.gz").write_bytes(gzip.compress(data))
    rng = np.random.default_rng(1)
    sa.EventList(np.sort(rng.uniform(0, 100, 30)), energy=rng.uniform(1, 5, 30), gti=[[0, 100]],
                 mission="nicer").write(tmp_path / "nicer.ecsv")
    (tmp_path / "cut.fits").write_bytes(data[:len(data) // 2])
    (tmp_path / "failed.fits").write_bytes(b"<html>not found</html>")
    (tmp_path / "notes.txt").write_text("nothing")
    Table({"a": [1]}).write(tmp_path / "table.ecsv")
    fits.HDUList([fits.PrimaryHDU(np.zeros((3, 3)))]).writeto(tmp_path / "image.fits")
    (tmp_path / ".hidden").mkdir()
    shutil.copy(M82, tmp_path / ".hidden" / "part.fits")
    return tmp_path


def test_event_files_are_found_by_what_is_in_them(folder):
    assert [path.relative_to(folder).as_posix() for path in event_files(folder)] == [
        "below/no_suffix", "cut.fits", "failed.fits", "m82.evt.gz", "nicer.ecsv"]


def test_bad_files_are_reported_and_do_not_stop_the_others(folder):
    good, bad = {}, {}
    for path, events, reason in read_event_files(event_files(folder)):
        (good if reason is None else bad)[path.name] = events or reason
    assert sorted(good) == ["m82.evt.gz", "nicer.ecsv", "no_suffix"]
    assert "truncated" in bad["cut.fits"] and "neither a FITS" in bad["failed.fits"]
    assert len(good["no_suffix"]) == len(good["m82.evt.gz"]) == 4612


def test_files_are_read_one_at_a_time_and_as_asked(folder):
    read = []
    found = read_event_files(["a", "b"], read=lambda path: read.append(path.name) or sa.EventList())
    next(found)
    assert read == ["a"]


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(NotADirectoryError, match="no folder"):
        event_files(tmp_path / "nowhere")
