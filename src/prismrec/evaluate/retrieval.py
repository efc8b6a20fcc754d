"""The best items of the whole catalogue for every query: dense scores, exclusions, top k.

Takes a function that scores all items for a range of queries; gives recommendation lists. Nothing
is sampled and nothing is over-fetched: excluded items are scored -inf. With the vectors of a model
the lists equal `index.merge.retrieve` over an exact index, at a fraction of its time.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from prismrec.evaluate.item_sets import ItemSets

Scorer = Callable[[slice], Tensor]
"""Scores of every item for a range of queries and each of their V vectors: float32 [b, V, I], its own to overwrite."""

_BLOCK_SCORES = 16_000_000  # 64 MB of float32


def ranked_lists(
    scorer: Scorer,
    seen: ItemSets,
    num_items: int,
    k: int,
    num_interests: int = 1,
    advance: Callable[[int], None] = lambda users: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each vector of each query, excluded items left out.

    Args:
        scorer: scores every item; column i is catalogue row i + 1.
        seen: per query, catalogue rows that must not come back.
        num_items: I.
        k: length of each list, at most I.
        num_interests: V.
        advance: told how many queries are done, for a progress bar.

    Returns:
        Catalogue rows int64 [U, V, k], best first, 0 where no item is left; scores float32 [U, V, k].
    """
    items = np.zeros((seen.num_users, num_interests, k), np.int64)
    scores = np.full(items.shape, -np.inf, np.float32)
    for block in _blocks(seen.num_users, num_items * num_interests):
        dense, excluded = scorer(block), seen[block]
        user, row = (torch.from_numpy(ids).to(dense.device) for ids in (excluded.user, excluded.item - 1))
        dense[user, :, row] = -torch.inf
        best = dense.topk(k)
        scores[block] = best.values.cpu().numpy()
        items[block] = np.where(np.isneginf(scores[block]), 0, best.indices.cpu().numpy() + 1)
        advance(len(items[block]))
    return items, scores


def interest_scorer(interests: np.ndarray, item_vectors: np.ndarray, device: torch.device) -> Scorer:
    """Score items by inner product with vectors [U, V, D] of the users, zero where there is none; items are [I, D]."""
    catalogue = torch.from_numpy(item_vectors).to(device).T

    def score(queries: slice) -> Tensor:
        vectors = torch.from_numpy(interests[queries]).to(device)
        return (vectors @ catalogue).masked_fill_(~vectors.any(-1, keepdim=True), -torch.inf)

    return score


def merge_interests(items: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Merge V lists per user into one of the same length k; an item's score is its largest.

    Every item of the merged list is among the k best of the vector that scores it highest, so lists
    of k each are enough, for any subset of the vectors too.

    Args:
        items: catalogue rows [U, V, k], 0 where there is none.
        scores: float32 [U, V, k], -inf where there is none.

    Returns:
        Catalogue rows int64 [U, k], best first, equal scores by lower row, 0 where no item is left.
    """
    return merge_with_finders(items, scores)[0]


def merge_with_finders(items: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The list of `merge_interests`, and which vector, from 0, scores each of its items highest; the first of several.

    Args:
        items: as of `merge_interests`.
        scores: as of `merge_interests`.

    Returns:
        Catalogue rows, and vectors with -1 where no item is left, int64 [U, k] each.
    """
    users, num_interests, k = items.shape
    if num_interests == 1:
        return items[:, 0], np.where(items[:, 0] == 0, -1, 0)
    items, scores = items.reshape(users, -1), scores.reshape(users, -1)
    by_item = np.lexsort((-scores, items), axis=1)
    items, scores = np.take_along_axis(items, by_item, 1), np.take_along_axis(scores, by_item, 1)
    repeated = np.pad(items[:, 1:] == items[:, :-1], ((0, 0), (1, 0)))
    items, scores = np.where(repeated, 0, items), np.where(repeated, -np.inf, scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    rows, vector = np.take_along_axis(items, best, 1), np.take_along_axis(by_item, best, 1) // k
    return rows, np.where(rows == 0, -1, vector)


def _blocks(users: int, scores_per_user: int) -> Iterator[slice]:
    size = max(1, _BLOCK_SCORES // max(scores_per_user, 1))
    for start in range(0, users, size):
        yield slice(start, min(start + size, users))
