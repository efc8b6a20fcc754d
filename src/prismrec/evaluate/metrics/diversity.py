"""Variety inside one list: how many categories it shows."""

import numpy as np

from prismrec.evaluate.item_sets import ItemSets


def category_diversity(recommended: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Distinct categories in a list / length of the list, one value per user, float64 [U].

    Items without a category count in the length only; an empty list has no value (NaN).

    Args:
        recommended: catalogue rows [U, k], 0 where a list is short.
        categories: category key of every catalogue row, int64 [I + 1]; 0 is none.
    """
    codes = np.unique(np.append(categories, 0), return_inverse=True)[1][:-1]
    users = np.repeat(np.arange(len(recommended)), recommended.shape[1])
    shown = codes[recommended].ravel()
    distinct = ItemSets.from_pairs(users[shown > 0], shown[shown > 0], len(recommended)).sizes
    length = (recommended > 0).sum(axis=1)
    return np.where(length > 0, distinct / np.maximum(length, 1), np.nan)
