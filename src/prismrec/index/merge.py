"""One recommendation list per user from the result lists of its V vectors.

Takes an index, the users' vectors and the items each user must not get; gives the k best items per
user. The budget k is the same whatever V: an item's score is the maximum over the user's vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prismrec.index.base import NO_ROW, Index

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
    """Find the k best items for users of several vectors.

    More than k items are fetched per vector, and twice as many again where exclusions left a vector
    with fewer than k, so that k items come back whenever they exist. With an exact index the result
    equals sorting the whole catalogue.

    Args:
        index: the catalogue.
        interests: float32 [B, V, D]; a zero vector is none.
        k: results per user.
        exclude: per user, catalogue rows that must not come back; may repeat.
    """
    num_users = len(interests)
    excluded = [np.unique(rows) for rows in exclude] if exclude is not None else [np.empty(0, np.int64)] * num_users
    if len(excluded) != num_users:
        raise ValueError(f"exclude: expected one array for each of {num_users} users, found {len(excluded)}")
    # Fetching this many leaves every vector k allowed items, or all that there are.
    enough = np.minimum(index.num_vectors, k + np.array([len(rows) for rows in excluded], dtype=np.int64))
    result = Retrieved(
        item=np.full((num_users, k), NO_ROW, np.int64),
        score=np.full((num_users, k), -np.inf, np.float32),
        interest=np.full((num_users, k), NO_INTEREST, np.int64),
    )
    pending, fetch = np.arange(num_users), 2 * k
    while len(pending):
        fetch = min(fetch, int(enough[pending].max()))
        scores, rows, complete = _fetch(index, interests[pending], fetch, k, [excluded[user] for user in pending])
        complete |= enough[pending] <= fetch
        _fill(result, pending[complete], scores[complete], rows[complete])
        pending, fetch = pending[~complete], 2 * fetch
    return result


def _fetch(
    index: Index, interests: np.ndarray, fetch: int, k: int, excluded: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and rows [B, V, fetch], excluded ones as row 0, and whether every vector kept at least k, [B]."""
    num_users, num_interests, dimension = interests.shape
    scores, rows = index.search(interests.reshape(-1, dimension), fetch)
    rows = rows.reshape(num_users, num_interests, fetch)
    absent = np.all(interests == 0, axis=2)
    rows[absent] = NO_ROW
    forbidden = np.concatenate([_keys(index, user, items) for user, items in enumerate(excluded)])
    users = np.arange(num_users)[:, None, None]
    rows = np.where(np.isin(_keys(index, users, rows), forbidden), NO_ROW, rows)
    complete = (((rows != NO_ROW).sum(axis=2) >= k) | absent).all(axis=1)
    return scores.reshape(rows.shape), rows, complete


def _keys(index: Index, user: int | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One integer per (user, item)."""
    return user * (index.num_vectors + 1) + np.asarray(rows, np.int64)


def _fill(result: Retrieved, users: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> None:
    """Merge the lists [B, V, fetch] of `users` and write the k best of each into `result`."""
    user, interest, place = np.nonzero(rows != NO_ROW)
    score, row = scores[user, interest, place], rows[user, interest, place]
    order = np.lexsort((interest, row, -score, user))
    user, interest, score, row = user[order], interest[order], score[order], row[order]
    # the first entry of an item in this order is its best one
    first = np.sort(np.unique(user * (row.max(initial=0) + 1) + row, return_index=True)[1])
    user, interest, score, row = user[first], interest[first], score[first], row[first]
    rank = np.arange(len(user)) - np.searchsorted(user, user)
    top = rank < result.item.shape[1]
    target = users[user[top]], rank[top]
    result.item[target], result.score[target], result.interest[target] = row[top], score[top], interest[top]
