"""Search in Milvus: a cluster, or a file of milvus-lite.

Takes a URL and a name; `load` writes item vectors to a collection of that name, `open` searches
them. A file belongs to one process at a time, and milvus-lite is slow: it is for trying things out.
"""

from collections.abc import Iterable

import numpy as np

from prismrec.errors import SearchIndexError
from prismrec.index.base import NO_ROW, Filter, best_first, check_filter, check_queries, check_rows
from prismrec.index.exact import ExactIndex
from prismrec.index.loading import ItemBlocks, Progress, check_same
from prismrec.index.milvus import EVERYTHING, MAX_RESULTS, Collection

_MIN_WIDTH, _MAX_WIDTH = 200, 32_768  # of a search in the graph; the latter is Milvus's limit


class MilvusIndex:
    """A collection of item vectors; safe to use from several threads."""

    is_exact = False

    def __init__(self, collection: Collection, num_vectors: int, dimension: int, has_categories: bool) -> None:
        """Search a collection; see `open`."""
        self.num_vectors = num_vectors
        self._collection = collection
        self._dimension = dimension
        self._has_categories = has_categories

    @classmethod
    def open(cls, url: str, name: str, *, fingerprint: str, num_vectors: int, dimension: int) -> "MilvusIndex":
        """Open what `load` has written.

        Raises:
            SearchIndexError: the server cannot be reached, or the collection is missing or holds other
                vectors than expected, or not all of them.
        """
        collection = Collection(url, name)
        record = collection.record()
        if record is None:
            raise SearchIndexError(f"{collection.place}: expected item vectors, found none; load the index first")
        expected = {"fingerprint": fingerprint, "dimension": dimension}
        check_same(collection.place, expected, record, collection.replace)
        counts = {"num_vectors": num_vectors}, {"num_vectors": collection.count(EVERYTHING)}
        check_same(collection.place, *counts, "load the index again to go on")
        collection.make_searchable()
        return cls(collection, num_vectors, dimension, record["categories"])

    @staticmethod
    def load(
        url: str,
        name: str,
        vectors: np.ndarray | Iterable[np.ndarray],
        categories: np.ndarray | None = None,
        *,
        fingerprint: str,
        progress: Progress = lambda _: None,
    ) -> None:
        """Write item vectors to a collection and index them; goes on where an earlier call stopped.

        Args:
            url: `milvus:FILE.db`, `milvus+http://HOST:PORT` or `milvus+https://USER:PASSWORD@HOST:PORT`.
            name: of the collection; lower-case letters, digits and underscores.
            vectors: float32 [I, D], whole or in blocks [N, D].
            categories: keys of each item's categories for filters, int64 [I, C], 0 for none.
            fingerprint: tells these vectors from all others.
            progress: called after each block with the number of items loaded by then.

        Raises:
            SearchIndexError: the server cannot be reached or refuses the work, or the collection holds
                other vectors.
        """
        items = ItemBlocks(vectors, categories)
        collection = Collection(url, name)
        record = collection.record()
        if record is None:
            collection.create(items.dimension, None if categories is None else categories.shape[1], fingerprint)
        else:
            check_same(collection.place, items.record(fingerprint), record, collection.replace)
            collection.make_searchable()
        for block in items.beyond(collection.num_first_rows()):
            collection.insert(block, with_categories=categories is not None)
            progress(items.num_read)
        collection.finish()
        found = {"items": collection.count(EVERYTHING)}
        check_same(collection.place, {"items": items.num_read}, found, collection.replace)

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best items of each query; see `Index.search`.

        More than 16,384 results, and those that the graph is left without, take reading all vectors allowed.
        """
        check_queries(queries, self._dimension, k)
        check_filter(where, self._has_categories)
        condition = EVERYTHING if where is None else _condition(where)
        num_allowed = self.num_vectors if where is None else self._collection.count(condition)
        num_found = min(k, num_allowed)
        scores = np.full((len(queries), num_found), -np.inf, np.float32)
        rows = np.full((len(queries), num_found), NO_ROW, np.int64)
        if rows.size and num_found <= MAX_RESULTS:
            width = min(_MAX_WIDTH, max(_MIN_WIDTH, 2 * k) * self.num_vectors // num_allowed)
            for number, hits in enumerate(self._collection.search(queries, num_found, condition, width)):
                rows[number, : len(hits)] = [hit["row"] for hit in hits]
                scores[number, : len(hits)] = [hit["distance"] for hit in hits]
        short = np.flatnonzero((rows == NO_ROW).any(axis=1))
        if len(short):
            scores[short], rows[short] = self._search_exactly(queries[short], num_found, condition)
        return best_first(scores, rows, k)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of catalogue rows; see `Index.vectors`."""
        check_rows(rows, self.num_vectors)
        distinct, place = np.unique(rows, return_inverse=True)
        found = np.empty((len(distinct), self._dimension), np.float32)
        for start in range(0, len(distinct), MAX_RESULTS):
            part = distinct[start : start + MAX_RESULTS]
            for page_rows, vectors in self._collection.pages(f"row in {part.tolist()}", self._dimension):
                found[np.searchsorted(distinct, page_rows)] = vectors
        return found[place]

    def _search_exactly(self, queries: np.ndarray, k: int, condition: str) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for page_rows, vectors in self._collection.pages(condition, self._dimension):
            page_scores, places = ExactIndex(vectors).search(queries, min(k, len(vectors)))
            scores, rows = np.hstack([scores, page_scores]), np.hstack([rows, page_rows[places - 1]])
            scores, rows = (found[:, :k] for found in best_first(scores, rows, scores.shape[1]))
        return scores, rows


def _condition(where: Filter) -> str:
    """A filter in Milvus's language."""
    conditions = [EVERYTHING]
    if where.categories is not None:
        conditions.append(_of_any(where.categories) if where.categories else "row < 0")
    if where.excluded_categories:
        conditions.append(f"not {_of_any(where.excluded_categories)}")
    if where.rows is not None:
        conditions.append(f"row in {where.rows.tolist()}")
    if len(where.excluded_rows):
        conditions.append(f"row not in {where.excluded_rows.tolist()}")
    return " and ".join(conditions)


def _of_any(categories: tuple[int, ...]) -> str:
    return f"array_contains_any(categories, {[int(key) for key in categories]})"
