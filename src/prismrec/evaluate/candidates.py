"""A model's recommendations for the queries of an evaluation, and what its vectors contribute.

Takes a model, a store and queries; gives the lists of each vector, which merge into one list of the
same length, with or without any vector.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prismrec.config import HistoryConfig
from prismrec.data.history import gather_histories
from prismrec.data.store import Store
from prismrec.evaluate.queries import Queries
from prismrec.evaluate.retrieval import interest_scorer, merge_interests, merge_with_finders, ranked_lists
from prismrec.model.encode import UserEncoding, encode_items, encode_users
from prismrec.model.multi_interest import MultiInterestModel

_USERS_PER_BATCH = 128


@dataclass(frozen=True)
class Candidates:
    """The best items of each vector of each user, and the vectors."""

    interests: np.ndarray
    """Unit vectors, float32 [U, V, D]."""
    head_usage: np.ndarray
    """p(head), mean over users, [H]."""
    items: np.ndarray
    """int64 [U, V, k], catalogue rows, 0 where no item is left."""
    scores: np.ndarray
    """float32 [U, V, k]."""

    def merged(self) -> np.ndarray:
        """The k best items of all vectors together, int64 [U, k]."""
        return self._merged[0]

    def finders(self) -> np.ndarray:
        """The vector, from 0, that found each item of `merged`, int64 [U, k], -1 where no item is left."""
        return self._merged[1]

    def merged_without(self, vector: int) -> np.ndarray:
        """The k best items of the other vectors, int64 [U, k]."""
        return merge_interests(np.delete(self.items, vector, axis=1), np.delete(self.scores, vector, axis=1))

    @cached_property
    def _merged(self) -> tuple[np.ndarray, np.ndarray]:
        return merge_with_finders(self.items, self.scores)


def find_candidates(
    model: MultiInterestModel,
    store: Store,
    queries: Queries,
    history: HistoryConfig,
    k: int,
    advance: Callable[[int], None] = lambda users: None,
) -> Candidates:
    """Encode the catalogue and every user, and rank the whole catalogue for each vector."""
    item_vectors = encode_items(model, store)
    encoded = [
        encode_range(
            model, store, queries.user[block], queries.start[block], queries.end[block], queries.now[block], history
        )
        for block in _batches(queries.num_users)
    ]
    interests = np.concatenate([part.vectors for part in encoded])
    head_usage = np.concatenate([part.head_usage for part in encoded]).mean(axis=0, dtype=np.float64)
    scorer = interest_scorer(interests, item_vectors, next(model.parameters()).device)
    items, scores = ranked_lists(scorer, queries.seen, store.num_items, k, interests.shape[1], advance)
    return Candidates(interests[..., : model.config.embedding_dim], head_usage, items, scores)


def encode_range(
    model: MultiInterestModel,
    store: Store,
    user: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    now: np.ndarray,
    history: HistoryConfig,
) -> UserEncoding:
    """Encode users (store rows [B]) whose histories are the events start:end, as of `now`."""
    keys = store.users["key"].to_numpy()[user]
    return encode_users(model, gather_histories(store, start, end, now, keys, history), store.item_features)


def _batches(users: int) -> list[slice]:
    return [slice(start, start + _USERS_PER_BATCH) for start in range(0, users, _USERS_PER_BATCH)]
