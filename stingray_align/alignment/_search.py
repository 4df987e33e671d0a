"""Exact nearest-neighbour search by chunks, so that memory does not grow with the catalogue.

A first pass scores all rows in single precision, a block that fits the processor's cache at a
time: widening half precision there costs less than reading it from memory. Only rows whose score
comes within the rounding error of the best are looked at again, in double precision. So the
answer depends neither on the chunks nor on the order in which a library adds numbers up.
"""

import warnings

import numpy as np
import torch

from ..autodecoder.model import one_thread

__all__ = ["top_k"]

_QUERIES, _ROWS = 512, 65_536  # 128 MB of scores at a time
_BLOCK = 1024  # rows widened at a time: half a megabyte at 128 dimensions
_PAIRS = 65_536  # looked at again at a time


def top_k(queries, vectors, k, *, mask=None, exclude=None):
    """The ``k`` rows most similar to each query.

    Parameters
    ----------
    queries : array_like, shape (q, d)
        Unit vectors.
    vectors : ndarray, shape (n, d)
        Unit vectors in half, single or double precision, in memory or memory-mapped.
    k : int
        Neighbours wanted; fewer come back if there are fewer.
    mask : ndarray of bool, shape (n,), optional
        Rows that may be found.
    exclude : ndarray of int, shape (q,), optional
        One row per query that may not be found: itself.

    Returns
    -------
    similarity : ndarray of float32, shape (q, k)
        Cosines, best first: those of the stored values, correct to the last bit.
    index : ndarray of int, shape (q, k)
        Row numbers; those of equal similarity ascend.
    """
    n_rows = len(vectors) if mask is None else int(np.count_nonzero(mask))
    k = max(0, min(k, n_rows - (exclude is not None)))
    queries = np.asarray(queries, np.float32)
    similarity = np.empty((len(queries), k), np.float32)
    index = np.empty((len(queries), k), int)
    if k:
        for i in range(0, len(queries), _QUERIES):
            part = slice(i, i + _QUERIES)
            similarity[part], index[part] = _search(
                queries[part], vectors, k, mask, None if exclude is None else exclude[part])
    return np.clip(similarity, -1, 1), index


def _search(queries, vectors, k, mask, exclude):
    error = queries.shape[1] * np.finfo(np.float32).eps  # of a sum of so many products
    best = _Best(len(queries), k)
    for first, scores in _rough_scores(queries, vectors, mask):
        if exclude is not None:
            inside = np.flatnonzero((exclude >= first) & (exclude < first + scores.shape[1]))
            scores[inside, exclude[inside] - first] = -np.inf
        bar = best.bar - error
        if np.isinf(bar).any() and scores.shape[1] > k:
            bar = np.maximum(bar, np.partition(scores, -k, axis=1)[:, -k] - 2 * error)
        query, row = np.nonzero(scores >= np.maximum(bar, np.finfo(np.float32).min)[:, None])
        row += first
        for i in range(0, len(row), _PAIRS):
            pairs = query[i:i + _PAIRS], row[i:i + _PAIRS]
            products = queries[pairs[0]].astype(float) * vectors[pairs[1]]
            best.add(*pairs, products.sum(axis=1).astype(np.float32))
    return best.similarity.reshape(-1, k), best.row.reshape(-1, k)


def _rough_scores(queries, vectors, mask):
    """For each chunk that holds rows of the mask: its first row, and scores (q, n_rows)."""
    queries = torch.from_numpy(queries)
    with warnings.catch_warnings():
        # A file that is mapped for reading only; nothing here writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        stored = torch.from_numpy(vectors)
    wide = torch.empty(_BLOCK, stored.shape[1])
    for first in range(0, len(stored), _ROWS):
        chunk = stored[first:first + _ROWS]
        hidden = None if mask is None else ~mask[first:first + _ROWS]
        if hidden is not None and hidden.all():
            continue
        scores = torch.empty(len(queries), len(chunk))
        with one_thread():  # blocks this small are not worth sharing out
            for i in range(0, len(chunk), _BLOCK):
                block = wide[:len(chunk[i:i + _BLOCK])].copy_(chunk[i:i + _BLOCK])
                torch.mm(queries, block.T, out=scores[:, i:i + _BLOCK])
        scores = scores.numpy()
        if hidden is not None:
            scores[:, hidden] = -np.inf
        yield first, scores


class _Best:
    """The best rows so far of each query, as flat arrays ordered by query, score and row."""

    def __init__(self, n_queries, k):
        self.n_queries, self.k = n_queries, k
        self.query = self.row = np.empty(0, int)
        self.similarity = np.empty(0, np.float32)

    @property
    def bar(self):
        """The score that is needed to enter, shape (n_queries,)."""
        bar = np.full(self.n_queries, -np.inf, np.float32)
        last = np.searchsorted(self.query, np.arange(self.n_queries), side="right") - 1
        full = np.bincount(self.query, minlength=self.n_queries) == self.k
        bar[full] = self.similarity[last[full]]
        return bar

    def add(self, query, row, similarity):
        query = np.concatenate([self.query, query])
        row = np.concatenate([self.row, row])
        similarity = np.concatenate([self.similarity, similarity])
        order = np.lexsort((row, -similarity, query))
        query = query[order]
        rank = np.arange(len(query)) - np.searchsorted(query, query)
        order = order[rank < self.k]
        self.query = query[rank < self.k]
        self.row, self.similarity = row[order], similarity[order]
