"""One recommendation list per user from the result lists of its V vectors.

Takes an index, the users' vectors and the items each user must not get; gives the k best items per
user. The budget k is the same whatever V: a policy makes one list of V, by default the maximum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from prismrec.index.base import NO_ROW, Filter, Index, padded
from prismrec.index.policies import Policy, Ranking, maximum

NO_INTEREST = -1


@dataclass(frozen=True)
class Retrieved:
    """Recommendations, best first; places for which no item is left hold row 0, score -inf and interest -1."""

    item: np.ndarray
    """int64 [B, k], catalogue rows."""
    score: np.ndarray
    """float32 [B, k], the largest inner product over the user's vectors."""
    interest: np.ndarray
    """int64 [B, k], the vector (from 0) that gave that score; the first of several."""


def retrieve(index: Index, interests: np.ndarray, k: int, exclude: Sequence[np.ndarray] | None = None) -> Retrieved:
    """Find the k best items for users of several vectors; an item's score is its largest over the vectors.

    With an exact index the result equals sorting the whole catalogue.

    Args:
        index: the catalogue.
        interests: float32 [B, V, D]; a zero vector is none.
        k: results per user.
        exclude: per user, catalogue rows that must not come back; may repeat.
    """
    scores, rows = search_lists(index, interests, k, exclude)
    shape = len(interests), k
    result = Retrieved(
        item=np.full(shape, NO_ROW, np.int64),
        score=np.full(shape, -np.inf, np.float32),
        interest=np.full(shape, NO_INTEREST, np.int64),
    )
    for user in range(len(interests)):
        merged = merge_lists(scores[user], rows[user], k)
        found = slice(0, len(merged.item))
        result.item[user, found], result.score[user, found], result.interest[user, found] = merged
    return result


def search_lists(
    index: Index,
    interests: np.ndarray,
    k: int,
    exclude: Sequence[np.ndarray] | None = None,
    where: Filter | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best allowed items of each vector of each user.

    More than k items are fetched per vector, and twice as many again where exclusions left a vector
    with fewer than k, so that k items come back whenever they exist.

    Args:
        index: the catalogue.
        interests: float32 [B, V, D]; a zero vector is none and has no items.
        k: results per vector.
        exclude: per user, catalogue rows that must not come back; may repeat.
        where: what else may not come back, the same for all users.

    Returns:
        Scores float32 [B, V, k] and rows int64 [B, V, k], best first; -inf and row 0 where no item is left.
    """
    num_users, num_interests, _ = interests.shape
    excluded = list(exclude) if exclude is not None else [np.empty(0, np.int64)] * num_users
    if len(excluded) != num_users:
        raise ValueError(f"exclude: expected one array for each of {num_users} users, found {len(excluded)}")
    # Fetching this many leaves every vector k allowed items, or all that there are.
    enough = np.minimum(index.num_vectors, k + np.array([len(rows) for rows in excluded], dtype=np.int64))
    scores = np.full((num_users, num_interests, k), -np.inf, np.float32)
    rows = np.full((num_users, num_interests, k), NO_ROW, np.int64)
    pending, fetch = np.arange(num_users), 2 * k if any(map(len, excluded)) else k
    while len(pending):
        fetch = min(fetch, int(enough[pending].max()))
        found = _fetch(index, interests[pending], fetch, k, [excluded[user] for user in pending], where)
        complete = found.complete | (enough[pending] <= fetch)
        scores[pending[complete]], rows[pending[complete]] = found.scores[complete], found.rows[complete]
        pending, fetch = pending[~complete], 2 * fetch
    return scores, rows


def merge_lists(scores: np.ndarray, rows: np.ndarray, k: int, policy: Policy = maximum) -> Ranking:
    """The k best items of one user's lists [V, m]."""
    return Ranking(*(part[:k] for part in policy(scores, rows)))


class _Found(NamedTuple):
    scores: np.ndarray
    rows: np.ndarray
    complete: np.ndarray
    """[B], whether every vector has k items, or all that there are."""


def _fetch(
    index: Index, interests: np.ndarray, fetch: int, k: int, excluded: list[np.ndarray], where: Filter | None
) -> _Found:
    """Search for `fetch` items of each vector and keep the first k that are not excluded."""
    num_users, num_interests, dimension = interests.shape
    found = index.search(interests.reshape(-1, dimension), fetch, where)
    scores, rows = (part.reshape(num_users, num_interests, fetch) for part in found)
    absent = np.all(interests == 0, axis=2)
    exhausted = absent | (rows[..., -1] == NO_ROW)
    rows[absent] = NO_ROW
    for user, items in enumerate(excluded):
        rows[user, _among(rows[user], items)] = NO_ROW
    complete = (((rows != NO_ROW).sum(axis=2) >= k) | exhausted).all(axis=1)
    first = np.argsort(rows == NO_ROW, axis=2, kind="stable")[..., :k].reshape(-1, min(k, fetch))
    lists = np.arange(len(first))[:, None]
    rows, scores = (
        part.reshape(-1, fetch)[lists, first].reshape(num_users, num_interests, -1) for part in (rows, scores)
    )
    scores[rows == NO_ROW] = -np.inf
    return _Found(padded(scores, k, -np.inf), padded(rows, k, NO_ROW), complete)


def _among(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Which of the rows are items; a table of all items would cost more than a search for a few of them."""
    if not len(items):
        return np.zeros(rows.shape, bool)
    ordered = np.sort(items)
    return ordered[np.searchsorted(ordered[:-1], rows)] == rows
