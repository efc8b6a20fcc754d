"""The contract of every search index over item vectors.

Takes query vectors; gives, for each, catalogue rows and inner products, best first. Vectors are
L2-normalised by the model, so that the inner product is the cosine; with the dial of popularity one
more dimension adds an item's part of the score.
"""

from typing import Protocol

import numpy as np

from prismrec.errors import SearchIndexError

NO_ROW = 0
"""Catalogue row that fills the places for which no item exists (its score is -inf)."""


class Index(Protocol):
    """Finds the items of the largest inner product with a query; row i + 1 is the index's i-th vector."""

    @property
    def is_exact(self) -> bool:
        """Whether `search` always finds the true nearest vectors."""

    @property
    def num_vectors(self) -> int:
        """Size of the catalogue."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best items of each query.

        Args:
            queries: float32 [N, D].
            k: results per query, at least 1.

        Returns:
            Scores float32 [N, k] and catalogue rows int64 [N, k], best first, equal scores by lower
            row. All min(k, num_vectors) places hold distinct items; the rest hold -inf and row 0.

        Raises:
            SearchIndexError: the queries are not [N, D], or k is below 1.
        """


def check_queries(queries: np.ndarray, dimension: int, k: int) -> None:
    """Refuse queries of another width than the index's vectors, and k below 1."""
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise SearchIndexError(f"queries: expected shape [N, {dimension}], found {list(queries.shape)}")
    if k < 1:
        raise SearchIndexError(f"k: expected at least 1, found {k}")


def best_first(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Order results [N, m <= k] by falling score, then rising row, and pad them to k places."""
    order = np.lexsort((rows, -scores), axis=1)
    missing = k - scores.shape[1]
    return (
        np.pad(np.take_along_axis(scores, order, 1), ((0, 0), (0, missing)), constant_values=-np.inf),
        np.pad(np.take_along_axis(rows, order, 1), ((0, 0), (0, missing)), constant_values=NO_ROW),
    )
