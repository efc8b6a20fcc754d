"""Policies that make one list of the result lists of a user's V vectors.

Takes, for one user, the scores and catalogue rows of the best items of each vector, best first; gives
every item once, best first, with a score and the vector that found it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from prismrec.index.base import NO_ROW

RANK_CONSTANT = 60
"""k of reciprocal-rank fusion, as published."""


class Ranking(NamedTuple):
    """Distinct items, best first."""

    item: np.ndarray
    """int64 [N], catalogue rows."""
    score: np.ndarray
    """float32 [N], of the policy."""
    interest: np.ndarray
    """int64 [N], the vector (from 0) that found the item."""


Policy = Callable[[np.ndarray, np.ndarray], Ranking]
"""From scores float32 [V, m] and rows int64 [V, m], best first, row 0 where there is none."""


def maximum(scores: np.ndarray, rows: np.ndarray) -> Ranking:
    """An item's score is its largest inner product over the vectors; the model is trained for this one."""
    interest, place = np.nonzero(rows != NO_ROW)
    return _best_of_each(rows[interest, place], scores[interest, place], interest)


def quota(scores: np.ndarray, rows: np.ndarray) -> Ranking:
    """Every vector has a turn in each round, that of the best first item first, and gives its best item still left.

    Of equally long lists each gives the same number of items, whatever the levels of their scores.
    """
    present = rows[:, 0] != NO_ROW
    order = np.flatnonzero(present)[np.lexsort((rows[present, 0], -scores[present, 0]))]
    left = [iter(zip(rows[vector].tolist(), scores[vector].tolist(), strict=True)) for vector in order]
    taken: dict[int, tuple[float, int]] = {}
    turns = list(zip(order.tolist(), left, strict=True))
    while turns:
        turns = [(vector, items) for vector, items in turns if _take_next(items, vector, taken)]
    return Ranking(
        np.fromiter(taken, np.int64, len(taken)),
        np.fromiter((score for score, _ in taken.values()), np.float32, len(taken)),
        np.fromiter((vector for _, vector in taken.values()), np.int64, len(taken)),
    )


def reciprocal_rank_fusion(scores: np.ndarray, rows: np.ndarray) -> Ranking:
    """An item's score is the sum over the lists that hold it of 1 / (60 + its rank), ranks from 1.

    Favours what several interests agree on (Cormack, Clarke and Buettcher, SIGIR 2009). The vector that found an
    item is the one of its best rank.
    """
    del scores
    interest, place = np.nonzero(rows != NO_ROW)
    row, share = rows[interest, place], 1 / (RANK_CONSTANT + 1 + place)
    best = _best_of_each(row, share, interest)
    distinct, where = np.unique(row, return_inverse=True)
    fused = np.bincount(where, share, len(distinct))[np.searchsorted(distinct, best.item)]
    order = np.lexsort((best.item, -fused))
    return Ranking(best.item[order], fused[order].astype(np.float32), best.interest[order])


POLICIES: dict[str, Policy] = {"maximum": maximum, "quota": quota, "reciprocal_rank_fusion": reciprocal_rank_fusion}


def diversify(ranking: Ranking, vectors: np.ndarray, k: int, diversity: float) -> Ranking:
    """Choose k items one by one, each for its score less its likeness to those already chosen.

    Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), with scores scaled to 0 to 1:
    (1 - diversity) score(i) - diversity max_chosen cos(i, j).

    Args:
        ranking: what is to choose from, N items.
        vectors: their unit vectors, float32 [N, D].
        k: items wanted.
        diversity: from 0, the order of the ranking, to 1, nothing but difference after the first.
    """
    lowest, highest = ranking.score.min(initial=np.inf), ranking.score.max(initial=-np.inf)
    relevance = (ranking.score - lowest) / max(highest - lowest, np.finfo(np.float32).tiny)
    likeness = np.full(len(relevance), -1.0, np.float32)
    chosen: list[int] = []
    for _ in range(min(k, len(relevance))):
        gain = (1 - diversity) * relevance - diversity * likeness
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        likeness = np.maximum(likeness, vectors @ vectors[chosen[-1]])
    return Ranking(*(part[chosen] for part in ranking))


def _best_of_each(row: np.ndarray, score: np.ndarray, interest: np.ndarray) -> Ranking:
    """Each item with its best score and the first vector that gave it, by falling score, then rising row."""
    order = np.lexsort((interest, row, -score))
    first = np.sort(np.unique(row[order], return_index=True)[1])
    kept = order[first]
    return Ranking(row[kept], score[kept].astype(np.float32), interest[kept])


def _take_next(items: Iterator[tuple[int, float]], vector: int, taken: dict[int, tuple[float, int]]) -> bool:
    """Take the next item that nobody has; whether there was one."""
    for row, score in items:
        if row == NO_ROW:
            return False
        if row not in taken:
            taken[row] = (score, vector)
            return True
    return False
