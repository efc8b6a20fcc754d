"""Popularity baselines: the same ranking for everybody, save what each user has already had.

Takes training interaction counts; gives a scorer like that of a model.
"""

import numpy as np
import torch
from torch import Tensor

from prismrec.data.ranges import flat_ranges
from prismrec.data.store import Store
from prismrec.evaluate.retrieval import Scorer

RECENT_SHARE = 0.1
"""Recent is the last tenth of the time span of the training events."""


def item_counts(store: Store) -> np.ndarray:
    """Training interactions of each item, int64 [I]."""
    return store.item_counts[1:]


def recent_item_counts(store: Store) -> np.ndarray:
    """Training interactions of each item in the last tenth of the time span of training, int64 [I]."""
    train = flat_ranges(*store.split_bounds("train"))
    time = store.time[train]
    if not len(time):
        return _counts(store, np.empty(0, np.int64))
    begin = time.max() - (time.max() - time.min()) * RECENT_SHARE
    return _counts(store, store.item[train[time >= begin]])


def popularity_scorer(counts: np.ndarray, *tie_breakers: np.ndarray) -> Scorer:
    """Rank items by falling counts [I], then by the tie breakers', then by rising row."""
    scores = torch.from_numpy(rank_scores(counts, *tie_breakers))

    def score(queries: slice) -> Tensor:
        return scores.repeat(queries.stop - queries.start, 1, 1)

    return score


def rank_scores(counts: np.ndarray, *tie_breakers: np.ndarray) -> np.ndarray:
    """Distinct scores in [-1, 0) of the items' popularity order, float32 [I] (exact up to 16 million items)."""
    keys = [np.arange(len(counts)), *(-breaker for breaker in reversed(tie_breakers)), -counts]
    scores = np.empty(len(counts), np.float32)
    scores[np.lexsort(keys)] = -(np.arange(len(counts), dtype=np.float64) + 1) / max(len(counts), 1)
    return scores


def _counts(store: Store, rows: np.ndarray) -> np.ndarray:
    return np.bincount(rows, minlength=store.num_items + 1)[1:]
