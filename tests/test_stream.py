"""Simulated chunks for training: the same however they came about, and true."""

from dataclasses import fields

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from stingray_align.datasets import _simulate, stream
from stingray_align.datasets.stream import (
    RUNS, TARGETS, SimulatedStream, Truth, simulate_with_truth)
from stingray_align.photons import N_CHANNELS, N_TIME_BINS, Photons


@pytest.fixture(scope="module")
def whole():
    """A chunk as it is simulated: 512 sources."""
    return simulate_with_truth(1, 0)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(_simulate, "CHUNK", 24)


def same(first, second):
    (photons, truth), (others, other_truth) = first, second
    for name in (*Photons.ARRAYS, "instrument"):
        assert_array_equal(getattr(photons, name), getattr(others, name), err_msg=name)
    for f in fields(Truth):
        assert_array_equal(getattr(truth, f.name), getattr(other_truth, f.name), err_msg=f.name)


# -- one chunk, several ways ----------------------------------------------------------------------

def test_a_chunk_made_ahead_is_the_one_that_is_made_when_asked_for(tmp_path, whole):
    ahead = SimulatedStream(tmp_path / "ahead", 1, 1, n_workers=1)
    try:
        made = ahead.chunk(0)
    finally:
        ahead.close()
    same(made, ahead.chunk(0))  # read back; the processes have ended
    photons, truth = made
    for name in set(Photons.ARRAYS) - {"exposed"} | {"instrument"}:
        assert_array_equal(getattr(photons, name), getattr(whole[0], name))
    assert_allclose(photons.exposed, whole[0].exposed, atol=5e-4)  # half precision on disk
    same((whole[0], truth), whole)


def test_chunks_are_made_when_asked_for_and_read_back(tmp_path, small_chunks, monkeypatch):
    first = SimulatedStream(tmp_path / "a", 4, 3, n_workers=0)
    assert len(first) == 3 * 24
    made = [first.chunk(k) for k in (2, 0)]
    other = SimulatedStream(tmp_path / "b", 4, 3, n_workers=0)
    same(other.chunk(0), made[1])  # whatever came before
    again = SimulatedStream(tmp_path / "a", 4, 3, n_workers=0)
    monkeypatch.setattr(stream, "simulate_with_truth", None)  # no more simulations
    for number, chunk in zip((2, 0, 5, 3), made + made):  # after the last comes the first
        same(again.chunk(number), chunk)


def test_chunks_and_seeds_differ(small_chunks):
    begin = simulate_with_truth(4, 0)[0].phase[:50]
    for seed, number in ((4, 1), (5, 0)):
        assert (simulate_with_truth(seed, number)[0].phase[:50] != begin).any()


def test_what_is_asked_for_is_made_ahead_once(tmp_path, monkeypatch):
    class Now:
        """Does at once, and notes, what it is asked to do later."""

        def __init__(self):
            self.done = []

        def submit(self, function, path, seed, number):
            self.done.append(number)
            path.touch()
            return self

        def result(self):
            pass

    monkeypatch.setattr(stream, "_read", lambda path: path.name)
    chunks = SimulatedStream(tmp_path, 4, 6, n_workers=0)
    chunks._pool = now = Now()
    assert chunks.chunk(0) == "4-000000.safetensors"
    assert now.done == [0, 1, 2, 3]
    for number in range(1, 14):
        chunks.chunk(number)
    assert now.done == [0, 1, 2, 3, 4, 5]


def test_a_failure_in_another_process_reaches_who_asks(tmp_path):
    chunks = SimulatedStream(tmp_path, 4, 1, n_workers=0)

    class Broken:
        def submit(self, *arguments):
            return self

        def result(self):
            raise OSError("disk full")

    chunks._pool = Broken()
    with pytest.raises(OSError, match="disk full"):
        chunks.chunk(0)


def test_delete_removes_the_chunks_and_nothing_else(tmp_path, small_chunks):
    chunks = SimulatedStream(tmp_path / "s", 4, 2, n_workers=0)
    chunks.chunk(0), chunks.chunk(1)
    other = SimulatedStream(tmp_path / "s", 5, 1, n_workers=0)
    other.chunk(0)
    chunks.delete()
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["5-000000.safetensors"]
    other.delete()
    assert not (tmp_path / "s").exists()


# -- the truth ------------------------------------------------------------------------------------

def test_shapes_are_those_of_the_documentation(whole):
    photons, truth = whole
    n = len(photons)
    assert n == 512
    assert {f.name: getattr(truth, f.name).shape for f in fields(Truth)} == {
        "share": (n, 2, 512), "expected": (n, 3, 20), "cell": (n, RUNS),
        "log_relative_rate": (n, RUNS), "targets": (n, len(TARGETS)), "time_shape": (n,)}
    parts = truth[:100], truth[np.arange(100, 512)]
    same((photons, Truth.concatenate(parts)), whole)


def test_shares_sum_to_one_and_fall_where_there_is_exposure(whole):
    photons, truth = whole
    total = truth.share.sum(axis=2, dtype=float) / N_TIME_BINS
    there = truth.expected[:, :2].sum(axis=2) > 0
    assert there[:, 0].all() and 0.02 < there[:, 1].mean() < 0.9
    assert_allclose(total[there], 1, rtol=2e-3)
    assert (truth.share >= 0).all()
    assert (truth.share.max(axis=1)[photons.exposed == 0] == 0).all()


def test_photons_were_drawn_from_what_is_expected(whole):
    photons, truth = whole
    expected = truth.expected.sum(axis=1)
    assert (truth.expected >= 0).all()
    seen = photons.counts().sum(axis=1)
    miss = (seen - expected) / np.sqrt(expected)
    enough = expected > 20
    assert enough.sum() > 500
    assert_allclose(miss[enough].mean(), 0, atol=4 / enough.sum() ** 0.5)
    assert_allclose(miss[enough].std(), 1, atol=4 / (2 * enough.sum()) ** 0.5)
    # and each source as a whole, the faint ones together
    faint = expected.sum(axis=1) < 20
    assert abs(seen[faint].sum() - expected[faint].sum()) < 4 * expected[faint].sum() ** 0.5


def test_photons_fall_in_time_as_the_shares_say(whole):
    photons, truth = whole
    steady = photons.exposed / photons.exposed.sum(axis=1, keepdims=True)
    share = np.concatenate([truth.share.astype(float) / N_TIME_BINS, steady[:, None]], axis=1)
    expected = (share.transpose(0, 2, 1) @ truth.expected).reshape(512, 16, 32, N_CHANNELS)
    expected = expected.sum(axis=2)
    seen = photons.counts().reshape(512, 16, 32, N_CHANNELS).sum(axis=2)
    enough = expected > 20
    assert enough.sum() > 2000
    chi_square = (seen - expected)[enough] ** 2 / expected[enough]
    assert_allclose(chi_square.mean(), 1, atol=6 * (2 / enough.sum()) ** 0.5 + 0.02)


def test_kept_rates_average_to_the_mean_rate(whole):
    """Cells are drawn at random, so those of many sources together have the mean rate."""
    photons, truth = whole
    bins = np.arange(RUNS) * (N_TIME_BINS // RUNS) + truth.cell // 8
    exposed = np.take_along_axis(photons.exposed, bins, axis=1)
    rate = np.exp(truth.log_relative_rate.astype(float))
    mean = (rate * exposed).sum(axis=1) / exposed.sum(axis=1)
    # A source with little variability knows its own mean; one burst may be missed or hit.
    calm = truth.targets[:, list(TARGETS).index("fractional_variability")] < np.log10(0.3)
    assert calm.sum() > 100
    assert_allclose(mean[calm], 1, atol=0.15)
    assert_allclose(mean[calm].mean(), 1, atol=0.01)
    assert_allclose(np.median(mean), 1, atol=0.02)
    assert np.isfinite(truth.log_relative_rate).all()
    assert np.unique(truth.cell).tolist() == list(range(32))


def test_targets_are_finite_where_they_have_a_meaning(whole):
    photons, truth = whole
    value = dict(zip(TARGETS, truth.targets.T))
    assert np.isfinite(value["fractional_variability"]).all()
    emits = np.isfinite(value["hardness"])  # the others are nothing but background
    assert 0.9 < emits.mean() < 1 and (np.abs(value["hardness"][emits]) <= 1).all()
    periodic = np.isfinite(value["period"])
    assert 0.02 < periodic.mean() < 0.7
    # Periods that the time bins cannot show are left out.
    assert (10 ** value["period"] >= 0.999 * 4 * photons.duration / N_TIME_BINS)[periodic].all()
    constant = truth.time_shape == stream.TIME_SHAPES.index("constant")
    assert constant.any() and not periodic[constant].any()
    assert truth.time_shape.max() < len(stream.TIME_SHAPES)


def test_hardness_is_that_of_the_expected_counts(whole):
    _, truth = whole
    counts = truth.expected[:, :2].sum(axis=1)
    soft, hard = counts[:, :10].sum(axis=1), counts[:, 10:19].sum(axis=1)
    found = truth.targets[:, list(TARGETS).index("hardness")]
    emits = np.isfinite(found)
    assert_allclose(found[emits], ((hard - soft) / (hard + soft))[emits], atol=0.02)
