"""Answers out of arrays: items with what the catalogue shows of them, and interests with what formed them.

Gives plain fields, which pydantic makes an answer of in one go.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from prismrec.data.history import HistoryBatch
from prismrec.export.user_encoder import EncodedUsers
from prismrec.index.base import NO_ROW, Index
from prismrec.index.merge import NO_INTEREST
from prismrec.index.policies import Ranking
from prismrec.serve.catalogue import Catalogue
from prismrec.serve.settings import ServeConfig


@dataclass(frozen=True)
class Past:
    """What the encoder saw of one user, and what it made of it."""

    item: np.ndarray
    """int64 [T], rows, newest first; 0 is padding."""
    time: np.ndarray
    """int64 [T]."""
    vectors: np.ndarray
    """float32 [V, D]."""
    weights: np.ndarray
    """Share of each event in each interest, float32 [V, T]."""

    @classmethod
    def of(cls, histories: HistoryBatch, encoded: EncodedUsers, user: int) -> "Past":
        """That of one user of a batch."""
        return cls(histories.item[user], histories.time[user], encoded.vectors[user], encoded.interest_weights[user])


def show_items(catalogue: Catalogue, ranking: Ranking) -> list[dict[str, Any]]:
    """A ranking in original ids, as fields of `Item`."""
    shown = catalogue.shown(ranking.item)
    interests = [None if interest == NO_INTEREST else interest for interest in ranking.interest.tolist()]
    return [
        {**item, "rank": rank, "score": score, "interest": interest}
        for rank, (item, score, interest) in enumerate(zip(shown, ranking.score.tolist(), interests, strict=True), 1)
    ]


def show_interests(
    catalogue: Catalogue, index: Index, past: Past, lists: np.ndarray, dim: int, settings: ServeConfig
) -> list[dict[str, Any]]:
    """The interests that there are, as fields of `Interest`: where they lead, and the events of the largest shares.

    Args:
        catalogue: to show ids.
        index: knows the items' vectors.
        past: the user's events and vectors.
        lists: rows of the nearest items of each vector, int64 [V, m]; 0 is none.
        dim: D; what follows it in a vector is popularity, which is no likeness.
        settings: how much to show.
    """
    present = np.flatnonzero(past.vectors.any(axis=1))
    length = int((past.item != NO_ROW).sum())
    order = np.argsort(-past.weights[present, :length], axis=1, kind="stable")[:, : settings.events_per_interest]
    rows = past.item[order]  # [P, E]
    items = unit_vectors(index, rows.reshape(-1), dim).reshape(*rows.shape, dim)
    columns = {
        "timestamp": past.time[order],
        "weight": np.take_along_axis(past.weights[present], order, 1),
        "closeness": np.einsum("ped,pd->pe", items, past.vectors[present, :dim]),
    }
    shown = iter(catalogue.shown(rows.reshape(-1), with_category=False))
    return [
        {
            "interest": vector,
            "categories": catalogue.category_shares(lists[vector], settings.categories_per_interest),
            "events": [
                {**item, **dict(zip(columns, values, strict=True))}
                for *values, item in zip(*(column[place].tolist() for column in columns.values()), shown, strict=False)
            ],
        }
        for place, vector in enumerate(present.tolist())
    ]


def unit_vectors(index: Index, rows: np.ndarray, dim: int) -> np.ndarray:
    """Vectors of items, float32 [N, D], of length one and without popularity."""
    vectors = index.vectors(rows)[:, :dim]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
