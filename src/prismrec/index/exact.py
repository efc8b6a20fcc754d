"""Exact search in NumPy: the reference for every other engine, and the engine of evaluation.

Takes all item vectors; gives the true nearest ones. Queries go through in blocks, so that memory
stays bounded whatever their number.
"""

import numpy as np

from prismrec.errors import SearchIndexError
from prismrec.index.base import best_first, check_queries

_BLOCK_SCORES = 8_000_000  # scores held at once: 32 MB


class ExactIndex:
    """Inner products with every vector, then a partial sort."""

    is_exact = True

    def __init__(self, vectors: np.ndarray) -> None:
        """Index `vectors`, float32 [I, D]; vector i is catalogue row i + 1."""
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise SearchIndexError(f"item vectors: expected shape [I, D] with I, D >= 1, found {list(vectors.shape)}")
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)

    @property
    def num_vectors(self) -> int:
        return len(self._vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best items of each query; see `Index.search`."""
        check_queries(queries, self._vectors.shape[1], k)
        queries = np.asarray(queries, dtype=np.float32)
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        size = max(1, _BLOCK_SCORES // self.num_vectors)
        for start in range(0, len(queries), size):
            block = slice(start, start + size)
            scores[block], rows[block] = _top(queries[block] @ self._vectors.T, k)
        return scores, rows


def _top(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (from 1) of the k largest of scores [N, I]; a tie for the last place goes to the lower column."""
    num_found = min(k, scores.shape[1])
    columns = np.argpartition(scores, -num_found, axis=1)[:, -num_found:]
    found = np.take_along_axis(scores, columns, 1)
    last = found.min(axis=1, keepdims=True)
    # argpartition picks any of the columns that tie for the last places; choose again where there are several
    tied = np.flatnonzero((scores == last).sum(axis=1) > (found == last).sum(axis=1))
    for row in tied:
        columns[row] = np.argsort(-scores[row], kind="stable")[:num_found]
        found[row] = scores[row, columns[row]]
    return best_first(found, columns + 1, k)
