"""A model's recommendations for the queries of an evaluation, and what its vectors contribute.

Takes a model, a store and queries; gives the lists of each vector, which merge into one list of the
same length, with or without any vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from prismrec.config import HistoryConfig
from prismrec.data.history import gather_histories
from prismrec.data.store import Store
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.queries import Queries
from prismrec.evaluate.retrieval import interest_scorer, merge_interests, merge_with_finders, ranked_lists
from prismrec.model.encode import UserEncoding, encode_items, encode_users, log_popularity
from prismrec.model.multi_interest import MultiInterestModel

_USERS_PER_BATCH = 128


@dataclass(frozen=True)
class Encoded:
    """Users and items as a model encodes them."""

    interests: np.ndarray
    """Float32 [U, V, D], or [U, V, D + 1] if popularity counts."""
    items: np.ndarray
    """Float32 [I, D] or [I, D + 1]; row i is catalogue row i + 1."""
    head_usage: np.ndarray
    """p(head), mean over users, [H]."""
    dim: int
    """D."""


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
    return rank(encode(model, store, queries, history), queries.seen, k, next(model.parameters()).device, advance)


def encode(model: MultiInterestModel, store: Store, queries: Queries, history: HistoryConfig) -> Encoded:
    """Encode the catalogue and the users of all queries."""
    parts = [
        encode_range(
            model, store, queries.user[block], queries.start[block], queries.end[block], queries.now[block], history
        )
        for block in _batches(queries.num_users)
    ]
    interests = np.concatenate([part.vectors for part in parts])
    head_usage = np.concatenate([part.head_usage for part in parts]).mean(axis=0, dtype=np.float64)
    return Encoded(interests, encode_items(model, store), head_usage, model.config.embedding_dim)


def rank(
    encoded: Encoded,
    seen: ItemSets,
    k: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda users: None,
) -> Candidates:
    """Rank the whole catalogue for each vector of each user."""
    scorer = interest_scorer(encoded.interests, encoded.items, device)
    items, scores = ranked_lists(scorer, seen, len(encoded.items), k, encoded.interests.shape[1], advance)
    return Candidates(encoded.interests[..., : encoded.dim], encoded.head_usage, items, scores)


def rank_over_dial(
    encoded: Encoded,
    counts: np.ndarray,
    weights: Sequence[float],
    seen: ItemSets,
    k: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda users: None,
) -> np.ndarray:
    """The k best items of each user under P weights of popularity, int64 [U, P, k], 0 where no item is left.

    What popularity adds to an item, by its training events `counts` [I], is the same for each of a user's vectors, so
    the best vector stays the best: scores are worked out once, and only ranked for each weight.
    """
    dim = encoded.dim
    scorer = interest_scorer(encoded.interests[..., :dim], encoded.items[:, :dim], device)
    added = torch.from_numpy(np.outer(weights, log_popularity(counts)).astype(np.float32)).to(device)

    def score(queries: slice) -> Tensor:
        return scorer(queries).amax(1, keepdim=True) + added

    return ranked_lists(score, seen, len(counts), k, len(weights), advance)[0]


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
