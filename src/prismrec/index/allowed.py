"""Which items a filter allows, for the engines that search in this process.

Takes a filter and the items' categories; gives one boolean per item.
"""

from collections.abc import Sequence

import numpy as np

from prismrec.errors import SearchIndexError
from prismrec.index.base import NO_CATEGORY, Filter, check_filter


def check_categories(categories: np.ndarray | None, num_vectors: int) -> None:
    """Refuse categories that are not int64 [I, C], one line per item."""
    if categories is not None and (categories.ndim != 2 or len(categories) != num_vectors):
        raise SearchIndexError(f"categories: expected shape [{num_vectors}, C], found {list(categories.shape)}")


def allowed_items(where: Filter, num_vectors: int, categories: np.ndarray | None) -> np.ndarray:
    """The items that `where` allows, bool [I]; item i is catalogue row i + 1.

    Args:
        where: the filter.
        num_vectors: I.
        categories: keys of each item's categories, int64 [I, C], 0 for none; None if they are not known.

    Raises:
        SearchIndexError: the filter names categories, and they are not known.
    """
    check_filter(where, categories is not None)
    allowed = np.full(num_vectors, where.rows is None)
    if where.rows is not None:
        allowed[_places(where.rows, num_vectors)] = True
    allowed[_places(where.excluded_rows, num_vectors)] = False
    if categories is not None:
        if where.categories is not None:
            allowed &= _of_any(categories, where.categories)
        if where.excluded_categories:
            allowed &= ~_of_any(categories, where.excluded_categories)
    return allowed


def _places(rows: np.ndarray, num_vectors: int) -> np.ndarray:
    return rows[(rows >= 1) & (rows <= num_vectors)] - 1


def _of_any(categories: np.ndarray, keys: Sequence[int]) -> np.ndarray:
    found = np.isin(categories, [key for key in keys if key != NO_CATEGORY])
    return np.asarray(found.any(axis=1))
