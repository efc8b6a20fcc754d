"""Recall by how popular the target is: does a method find only what everyone buys?

Popularity is the number of training interactions. Items, most popular first, are cut into ten
deciles of equal shares of the interactions (not of items): decile 1 is the head, decile 10 the long
tail with every item never seen in training.
"""

import numpy as np

from prismrec.evaluate.item_sets import ItemSets

NUM_DECILES = 10


def deciles(counts: np.ndarray) -> np.ndarray:
    """Decile 1..10 of each item by its training interactions `counts` [I]; ties go by lower row, int64 [I].

    An item whose more popular items hold a share s of all interactions is in decile floor(10 s) + 1.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    result = np.empty(len(counts), np.int64)
    result[order] = np.minimum(NUM_DECILES * before // max(int(counts.sum()), 1), NUM_DECILES - 1) + 1
    result[counts == 0] = NUM_DECILES
    return result


def recall_by_decile(recommended: np.ndarray, targets: ItemSets, item_deciles: np.ndarray) -> list[float | None]:
    """Share of all (user, target) pairs whose target is in a decile that are among the lists [U, k]; None if no pair.

    Pairs are pooled over users: most users have no target in most deciles.
    """
    of_target = item_deciles[targets.item - 1]
    total = np.bincount(of_target, minlength=NUM_DECILES + 1)[1:]
    found = np.bincount(of_target[found_targets(recommended, targets)], minlength=NUM_DECILES + 1)[1:]
    return [float(hit / of) if of else None for hit, of in zip(found, total, strict=True)]


def tail_recall(recommended: np.ndarray, targets: ItemSets, item_deciles: np.ndarray) -> np.ndarray:
    """Recall of each user over the targets in the lower half of popularity (deciles 6 to 10); NaN without any, [U]."""
    tail = item_deciles[targets.item - 1] > NUM_DECILES // 2
    users = targets.num_users
    total = np.bincount(targets.user[tail], minlength=users)
    found = np.bincount(targets.user[tail & found_targets(recommended, targets)], minlength=users)
    return np.where(total > 0, found / np.maximum(total, 1), np.nan)


def found_targets(recommended: np.ndarray, targets: ItemSets) -> np.ndarray:
    """Whether each target, in the order of `targets.item`, is in its user's list [U, k]; bool [M]."""
    users = np.repeat(np.arange(len(recommended)), recommended.shape[1])
    return ItemSets.from_pairs(users, recommended.ravel(), len(recommended)).contains(targets.item, targets.user)
