"""Quality of ranked lists, one value per user: recall@k, hit rate@k, NDCG@k and MRR@k.

Takes the hits of each list, bool [U, K] best first, and each user's number of targets [U]; gives
float64 [U]. A user without targets has no value (NaN): summaries leave such users out and count them.
Lists may be shorter than k (row 0 fills them and never hits).
"""

import numpy as np

from prismrec.evaluate.item_sets import ItemSets


def hits(recommended: np.ndarray, targets: ItemSets) -> np.ndarray:
    """Whether each recommended catalogue row [U, K] is one of its user's targets, bool [U, K]."""
    return targets.contains(recommended, np.arange(targets.num_users)[:, None]) & (recommended > 0)


def recall(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Share of a user's targets among the first k: `hits in top k / targets`."""
    share = np.asarray(hits[:, :k].sum(axis=1) / np.maximum(num_targets, 1))
    return _with_targets(share, num_targets)


def hit_rate(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """1 if any of the first k is a target, else 0."""
    return _with_targets(np.asarray(hits[:, :k].any(axis=1), np.float64), num_targets)


def ndcg(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Discounted gain over the best possible gain, with binary relevance (Järvelin and Kekäläinen, 2002).

    `sum over hits of 1 / log2(rank + 1)`, divided by `sum for rank = 1..min(k, targets) of 1 / log2(rank + 1)`.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.clip(num_targets, 1, k) - 1]
    return _with_targets(hits[:, :k] @ discounts[: hits.shape[1]] / ideal, num_targets)


def mrr(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """1 / rank of the first target among the first k; 0 if none is there."""
    top = hits[:, :k]
    first = np.argmax(top, axis=1) if top.shape[1] else np.zeros(len(top), np.int64)
    return _with_targets(np.where(top.any(axis=1), 1 / (first + 1), 0.0), num_targets)


def _with_targets(values: np.ndarray, num_targets: np.ndarray) -> np.ndarray:
    return np.where(num_targets > 0, values, np.nan)
