"""Exact nearest-neighbour search by chunks, so that memory does not grow with the catalogue."""

import numpy as np

__all__ = ["top_k"]

_QUERIES, _ROWS = 512, 65_536  # 128 MB of similarities at a time


def top_k(queries, vectors, k, *, mask=None, exclude=None):
    """The ``k`` rows most similar to each query.

    Parameters
    ----------
    queries : ndarray, shape (q, d)
        Unit vectors.
    vectors : ndarray, shape (n, d)
        Unit vectors of any float type; half precision is widened chunk by chunk.
    k : int
        Neighbours wanted; fewer come back if there are fewer.
    mask : ndarray of bool, shape (n,), optional
        Rows that may be found.
    exclude : ndarray of int, shape (q,), optional
        One row per query that may not be found: itself.

    Returns
    -------
    similarity : ndarray of float32, shape (q, k)
        Cosines, best first; equal ones in the order of the rows.
    index : ndarray of int, shape (q, k)
        Row numbers.
    """
    rows = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    k = min(k, len(rows) - (exclude is not None))
    parts = [
        _search(queries[i:i + _QUERIES], vectors, rows, k,
                None if exclude is None else exclude[i:i + _QUERIES])
        for i in range(0, len(queries), _QUERIES)
    ]
    if k < 1 or not parts:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), int)
    return tuple(np.concatenate(column) for column in zip(*parts))


def _search(queries, vectors, rows, k, exclude):
    queries = np.asarray(queries, np.float32)
    best = np.empty((len(queries), 0), np.float32)
    found = np.empty((len(queries), 0), int)
    if k < 1:
        return best, found
    for first in range(0, len(rows), _ROWS):
        chunk = rows[first:first + _ROWS]
        similarity = queries @ np.asarray(vectors[chunk], np.float32).T
        if exclude is not None:
            similarity[exclude[:, None] == chunk] = -np.inf
        best = np.concatenate([best, similarity], axis=1)
        found = np.concatenate([found, np.broadcast_to(chunk, similarity.shape)], axis=1)
        best, found = _keep(best, found, k)
    return np.clip(best, -1, 1), found


def _keep(similarity, index, k):
    if similarity.shape[1] > 4 * k:
        # Everything at least as good as the k-th goes to the sort, so ties are settled by row
        # number and not by how the partition happened to leave them.
        bar = np.partition(similarity, -k, axis=1)[:, [-k]]
        n_kept = (similarity >= bar).sum(axis=1).max()
        rough = np.argsort(similarity < bar, axis=1, kind="stable")[:, :n_kept]
        similarity = np.take_along_axis(similarity, rough, axis=1)
        index = np.take_along_axis(index, rough, axis=1)
    order = np.lexsort((index, -similarity), axis=1)[:, :k]
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(index, order, axis=1)
