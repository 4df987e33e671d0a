"""The function that finds neighbours: exact in any precision, in chunks, from memory or disk."""

import numpy as np
import pytest

from stingray_align.alignment import _search
from stingray_align.alignment._search import top_k


def unit_vectors(n, d, seed, dtype=np.float32):
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


def brute_force(queries, vectors, k):
    """Sums in double precision of the stored values, given in single precision."""
    exact = np.array([(query.astype(float) * vectors).sum(axis=1) for query in queries])
    exact = exact.astype(np.float32)
    order = np.lexsort((np.broadcast_to(np.arange(len(vectors)), exact.shape), -exact))[:, :k]
    return np.clip(np.take_along_axis(exact, order, axis=1), -1, 1), order


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("n_queries", [1, 40])
def test_every_bit_is_that_of_brute_force(dtype, n_queries, monkeypatch):
    monkeypatch.setattr(_search, "_ROWS", 2500)
    vectors = unit_vectors(7000, 16, 1, dtype)
    vectors[3000:4000] = vectors[:1000]  # ties
    queries = unit_vectors(n_queries, 16, 2)
    queries[0] = vectors[500]
    for found, expected in zip(top_k(queries, vectors, 20), brute_force(queries, vectors, 20)):
        np.testing.assert_array_equal(found, expected)


def test_nearly_equal_scores_are_told_apart():
    """Differences far below the rounding error of a sum in single precision decide the order."""
    rng = np.random.default_rng(3)
    vectors = np.tile(unit_vectors(1, 128, 4), (3000, 1))
    vectors += rng.normal(size=vectors.shape).astype(np.float32) * 1e-7
    queries = vectors[:2]
    for found, expected in zip(top_k(queries, vectors, 50), brute_force(queries, vectors, 50)):
        np.testing.assert_array_equal(found, expected)


def test_chunks_and_company_change_nothing(monkeypatch):
    vectors, queries = unit_vectors(3000, 32, 5, np.float16), unit_vectors(9, 32, 6)
    whole = top_k(queries, vectors, 15)
    monkeypatch.setattr(_search, "_ROWS", 100)
    monkeypatch.setattr(_search, "_BLOCK", 7)
    monkeypatch.setattr(_search, "_PAIRS", 11)
    for i in range(len(queries)):
        for found, expected in zip(top_k(queries[i:i + 1], vectors, 15), whole):
            np.testing.assert_array_equal(found[0], expected[i])


def test_a_file_is_searched_in_place(tmp_path):
    vectors, queries = unit_vectors(500, 8, 7, np.float16), unit_vectors(3, 8, 8)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    for found, expected in zip(top_k(queries, mapped, 5), top_k(queries, vectors, 5)):
        np.testing.assert_array_equal(found, expected)


def test_memory_does_not_grow_with_the_rows():
    import tracemalloc

    queries = unit_vectors(1, 8, 9)

    def peak(n):
        vectors = np.zeros((n, 8), np.float16)
        vectors[:, 0] = np.linspace(-1, 1, n)
        tracemalloc.start()
        top_k(queries, vectors, 5)
        value = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return value

    assert peak(1_000_000) < 2 * peak(100_000)
