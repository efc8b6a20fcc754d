"""The contract of every search index over item vectors.

Takes query vectors; gives, for each, catalogue rows and inner products, best first. Vectors are
L2-normalised by the model, so that the inner product is the cosine; with the dial of popularity one
more dimension adds an item's part of the score.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from prismrec.errors import SearchIndexError

NO_ROW = 0
"""Catalogue row that fills the places for which no item exists (its score is -inf)."""
NO_CATEGORY = 0
"""Key that fills the places of an item of fewer categories than others; no item is of this category."""


@dataclass(frozen=True, eq=False)
class Filter:
    """Which items a search may return: those that pass every part of it. Rows of no item are ignored."""

    categories: tuple[int, ...] | None = None
    """Keys, of which an item needs one; None for no restriction, empty for no item."""
    excluded_categories: tuple[int, ...] = ()
    """Keys, of which an item may have none."""
    rows: np.ndarray | None = None
    """int64 [N], the only catalogue rows allowed, in any order; None for no restriction, empty for no item."""
    excluded_rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [N], catalogue rows that are not allowed."""

    @property
    def names_categories(self) -> bool:
        """Whether it takes the items' categories to answer."""
        return self.categories is not None or bool(self.excluded_categories)


class Index(Protocol):
    """Finds the items of the largest inner product with a query; row i + 1 is the index's i-th vector."""

    @property
    def is_exact(self) -> bool:
        """Whether `search` always finds the true nearest vectors."""

    @property
    def num_vectors(self) -> int:
        """Size of the catalogue."""

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best items of each query.

        Args:
            queries: float32 [N, D].
            k: results per query, at least 1.
            where: the items allowed; by default all.

        Returns:
            Scores float32 [N, k] and catalogue rows int64 [N, k], best first, equal scores by lower
            row. All min(k, number of items allowed) places hold distinct items; the rest hold -inf
            and row 0.

        Raises:
            SearchIndexError: the queries are not [N, D], k is below 1, `where` names categories and the
                index was given none, or a server does not answer.
        """

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The indexed vectors of catalogue rows: int64 [N], in any order, may repeat -> float32 [N, D].

        Raises:
            SearchIndexError: a row is not in the catalogue, or a server does not answer.
        """


def check_queries(queries: np.ndarray, dimension: int, k: int) -> None:
    """Refuse queries of another width than the index's vectors, and k below 1."""
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise SearchIndexError(f"queries: expected shape [N, {dimension}], found {list(queries.shape)}")
    if k < 1:
        raise SearchIndexError(f"k: expected at least 1, found {k}")


def check_rows(rows: np.ndarray, num_vectors: int) -> None:
    """Refuse rows outside the catalogue."""
    wrong = rows[(rows < 1) | (rows > num_vectors)]
    if len(wrong):
        raise SearchIndexError(f"rows: expected catalogue rows from 1 to {num_vectors}, found {wrong[0]}")


def check_filter(where: Filter | None, has_categories: bool) -> None:
    """Refuse a filter by categories where the index knows none."""
    if where is not None and where.names_categories and not has_categories:
        raise SearchIndexError(
            "filter by categories: expected an index that was given the items' categories, found one without; "
            "give them when the index is opened or loaded, or leave categories out of the filter"
        )


def best_first(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Order results [N, m <= k] by falling score, then rising row, and pad them to k places."""
    if (scores[:, 1:] < scores[:, :-1]).all():
        return padded(scores, k, -np.inf), padded(rows, k, NO_ROW)
    order = np.lexsort((rows, -scores), axis=1)
    return (
        padded(np.take_along_axis(scores, order, 1), k, -np.inf),
        padded(np.take_along_axis(rows, order, 1), k, NO_ROW),
    )


def padded(array: np.ndarray, k: int, value: float) -> np.ndarray:
    """Fill the last axis up to k places."""
    missing = k - array.shape[-1]
    if missing == 0:  # np.pad takes its time even then
        return array
    return np.pad(array, (*[(0, 0)] * (array.ndim - 1), (0, missing)), constant_values=value)
