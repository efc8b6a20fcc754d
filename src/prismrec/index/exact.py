"""Exact search in NumPy: the reference for every other engine, and the engine of evaluation.

Takes all item vectors; gives the true nearest ones. Queries go through in blocks, so that memory
stays bounded whatever their number.
"""

import numpy as np

from prismrec.errors import SearchIndexError
from prismrec.index.allowed import allowed_items, check_categories
from prismrec.index.base import NO_ROW, Filter, best_first, check_queries, check_rows

_BLOCK_SCORES = 8_000_000  # scores held at once: 32 MB


class ExactIndex:
    """Inner products with every vector, then a partial sort."""

    is_exact = True

    def __init__(self, vectors: np.ndarray, categories: np.ndarray | None = None) -> None:
        """Index `vectors`, float32 [I, D]; vector i is catalogue row i + 1.

        `categories`, int64 [I, C], are the keys of each item's categories, 0 for none.
        """
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise SearchIndexError(f"item vectors: expected shape [I, D] with I, D >= 1, found {list(vectors.shape)}")
        check_categories(categories, len(vectors))
        self._categories = categories
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)

    @property
    def num_vectors(self) -> int:
        return len(self._vectors)

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best items of each query; see `Index.search`."""
        check_queries(queries, self._vectors.shape[1], k)
        queries = np.asarray(queries, dtype=np.float32)
        forbidden = None if where is None else ~allowed_items(where, self.num_vectors, self._categories)
        num_found = min(k, self.num_vectors - (0 if forbidden is None else int(forbidden.sum())))
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), NO_ROW, np.int64)
        if num_found == 0:
            return scores, rows
        size = max(1, _BLOCK_SCORES // self.num_vectors)
        for start in range(0, len(queries), size):
            block = slice(start, start + size)
            products = queries[block] @ self._vectors.T
            if forbidden is not None:
                products[:, forbidden] = -np.inf
            scores[block, :num_found], rows[block, :num_found] = _top(products, num_found)
        return scores, rows

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of catalogue rows; see `Index.vectors`."""
        check_rows(rows, self.num_vectors)
        return self._vectors[rows - 1]


def _top(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (from 1) of the k <= I largest of scores [N, I]; a tie for the last place goes to the lower column."""
    columns = np.argpartition(scores, -k, axis=1)[:, -k:]
    found = np.take_along_axis(scores, columns, 1)
    last = found.min(axis=1, keepdims=True)
    # argpartition picks any of the columns that tie for the last places; choose again where there are several
    tied = np.flatnonzero((scores == last).sum(axis=1) > (found == last).sum(axis=1))
    for row in tied:
        columns[row] = np.argsort(-scores[row], kind="stable")[:k]
        found[row] = scores[row, columns[row]]
    return best_first(found, columns + 1, k)
