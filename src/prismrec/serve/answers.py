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
    dwell: np.ndarray
    """int64 [T]."""
    vectors: np.ndarray
    """float32 [V, D] or [V, D + 1]."""
    weights: np.ndarray
    """Share of each event in each interest, float32 [V, T]."""
    shares: np.ndarray
    """Share of each interest in the attention to the events, float32 [V]."""
    dim: int
    """Width of the vectors without popularity, which may follow and is no likeness."""

    @classmethod
    def of(cls, histories: HistoryBatch, encoded: EncodedUsers, user: int, dim: int) -> "Past":
        """That of one user of a batch."""
        seen = histories.item[user], histories.time[user], histories.dwell[user]
        return cls(*seen, encoded.vectors[user], encoded.interest_weights[user], encoded.interest_shares[user], dim)


def show_items(catalogue: Catalogue, ranking: Ranking) -> list[dict[str, Any]]:
    """A ranking in original ids, as fields of `Item`."""
    return _items(ranking, catalogue.shown(ranking.item))


def show_recommendations(
    catalogue: Catalogue, index: Index, ranking: Ranking, past: Past, lists: np.ndarray, settings: ServeConfig
) -> dict[str, Any]:
    """A ranking and the interests that there are, as fields of `Recommendations`.

    Of an interest it is shown where it leads, and the events of the largest shares.

    Args:
        catalogue: to show ids.
        index: knows the items' vectors.
        ranking: the items.
        past: the user's events and vectors.
        lists: rows of the nearest items of each vector, int64 [V, m]; 0 is none.
        settings: how much to show.
    """
    present = np.flatnonzero(past.vectors.any(axis=1))
    length = int((past.item != NO_ROW).sum())
    order = np.argsort(-past.weights[present, :length], axis=1, kind="stable")[:, : settings.events_per_interest]
    rows = past.item[order]  # [P, E]
    shown = catalogue.shown(np.concatenate([ranking.item, rows.ravel()]))
    vectors = unit_vectors(index, rows.ravel(), past.dim).reshape(*rows.shape, past.dim)
    columns = (
        past.time[order],
        np.take_along_axis(past.weights[present], order, 1),
        np.einsum("ped,pd->pe", vectors, past.vectors[present, : past.dim]),
    )
    events = [
        {**item, "timestamp": time, "weight": weight, "closeness": closeness}
        for item, time, weight, closeness in zip(
            shown[len(ranking.item) :], *(column.ravel().tolist() for column in columns), strict=True
        )
    ]
    categories = catalogue.category_shares(lists[present], settings.categories_per_interest)
    size = rows.shape[1]
    return {
        "items": _items(ranking, shown[: len(ranking.item)]),
        "interests": [
            {
                "interest": vector,
                "share": float(past.shares[vector]),
                "categories": categories[place],
                "events": events[place * size : (place + 1) * size],
            }
            for place, vector in enumerate(present.tolist())
        ],
    }


def _items(ranking: Ranking, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    interests = [None if interest == NO_INTEREST else interest for interest in ranking.interest.tolist()]
    return [
        {**item, "rank": rank, "score": score, "interest": interest}
        for rank, (item, score, interest) in enumerate(zip(shown, ranking.score.tolist(), interests, strict=True), 1)
    ]


def unit_vectors(index: Index, rows: np.ndarray, dim: int) -> np.ndarray:
    """Vectors of items, float32 [N, D], of length one and without popularity."""
    vectors = index.vectors(rows)[:, :dim]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
