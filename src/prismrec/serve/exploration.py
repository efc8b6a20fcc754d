"""What the explorer shows of a service: users and items found by text, interests with all that formed them, a map.

Takes a service; gives answers with ids as text. The map and the interests of users are made when first asked for.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import polars as pl

from prismrec.data.schema import CATEGORY_FEATURES, ITEM, TITLE, USER
from prismrec.errors import DataError
from prismrec.export.user_encoder import sample_users, stored_vectors
from prismrec.index.base import NO_ROW
from prismrec.serve.answers import Past, unit_vectors
from prismrec.serve.explorer_messages import (
    Exploration,
    ExploreQuery,
    Fan,
    FoundItem,
    FoundItems,
    FoundUser,
    FoundUsers,
    ItemView,
    MapView,
    Neighbour,
    PlacedEvent,
    PlacedInterest,
    PlacedItem,
)
from prismrec.serve.item_map import ItemMap
from prismrec.serve.limits import check_limits
from prismrec.serve.messages import AnyRecommendQuery, Event, EventReference, Recommendations, SimilarQuery
from prismrec.serve.service import Service

MAP_ITEMS = 5_000
"""Most popular items of the map."""
SAMPLE_USERS = 5_000
"""Users whose interests are compared with an item, at most; drawn by the model's seed."""
_FOUND = 20  # users or items of an answer
_NEIGHBOURS = 10
_CLOSEST = 5
_INTEGER = re.compile(r"-?[0-9]{1,20}")


class Explorer:
    """Looks into one service; safe to use from several threads."""

    def __init__(self, service: Service) -> None:
        self._service, self._store = service, service.bundle.store
        self._encoding = Lock()

    def users(self, search: str) -> FoundUsers:
        """Find known users by a part of their ids; the ids equal to it or beginning with it come first."""
        store = self._store
        found = np.arange(store.num_users)
        if search:
            ids = store.user_ids.cast(pl.String)
            found = np.flatnonzero(ids.str.contains(search, literal=True).to_numpy())
            begins = ids[found].str.starts_with(search).to_numpy()
            found = found[np.lexsort((ids[found].str.len_chars().to_numpy(), ~begins))]
        users = [
            FoundUser(user_id=str(store.user_ids[row]), events=int(store.offsets[row + 1] - store.offsets[row]))
            for row in found[:_FOUND].tolist()
        ]
        return FoundUsers(users=users, matching=len(found), total=store.num_users)

    def items(self, search: str) -> FoundItems:
        """Find items by a part of their titles, in any case, or of their ids; the most popular come first."""
        rows = 1 + np.arange(self._store.num_items)
        if search:
            columns = [self._store.items[name] for name in (ITEM, TITLE) if name in self._store.items.columns]
            texts = [column.cast(pl.String).str.to_lowercase().fill_null("") for column in columns]
            rows = rows[np.any([text.str.contains(search.lower(), literal=True).to_numpy() for text in texts], axis=0)]
        popular = rows[np.argsort(-self._store.item_counts[rows], kind="stable")[:_FOUND]]
        items = [FoundItem(**shown) for shown in self._shown(popular)]
        return FoundItems(items=items, matching=len(rows), total=self._store.num_items)

    def explore(self, query: ExploreQuery) -> Exploration:
        """A user's interests, the events that formed them and what they lead to.

        Raises:
            DataError: an id is not one of the catalogue's kind, or the query asks for too much.
        """
        asked = self._asked(query)
        check_limits([asked], self._service.settings)
        return self._placed(*self._service.explain([asked])[0])

    def item(self, item_id: str) -> ItemView:
        """An item, what is like it and whom it is for.

        Raises:
            UnknownItemError: it is not in the catalogue.
        """
        original = _original(item_id, self._store.item_ids, ITEM)
        (similar,) = self._service.similar([SimilarQuery[Any, Any](item_id=original, k=_NEIGHBOURS)])
        (row,) = rows = self._service.catalogue.rows([original])
        alike = self._service.catalogue.rows([item.item_id for item in similar.items])
        places = self._map.place(self._vectors(np.append(row, alike)))
        with self._encoding:  # once, whoever else asks meanwhile
            interests = self._user_vectors
        scores = interests @ self._service.bundle.index.vectors(rows)[0]  # [S, V]
        scores[~interests.any(axis=2)] = -np.inf  # what is not there leads nowhere
        return ItemView(
            item=FoundItem(**self._shown(rows)[0]),
            position=places[0],
            neighbours=[
                Neighbour(**shown, cosine=item.score, position=place)
                for shown, item, place in zip(self._shown(alike), similar.items, places[1:], strict=True)
            ],
            fans=self._fans(row, scores),
            looked_at=len(self._sample),
            users=self._store.num_users,
        )

    def map(self) -> MapView:
        """The most popular items on a plane."""
        items = self._store.items[self._drawn - 1]
        category = next((items[name] for name in reversed(CATEGORY_FEATURES) if name in items.columns), None)
        return MapView(
            item_ids=items[ITEM].cast(pl.String).to_list(),
            titles=items[TITLE].to_list() if TITLE in items.columns else [None] * len(items),
            categories=[None] * len(items) if category is None else category.to_list(),
            positions=self._map.place(self._vectors(self._drawn)),
            spread=self._map.spread,
            total=self._store.num_items,
        )

    def _asked(self, query: ExploreQuery) -> AnyRecommendQuery:
        def references(named: Sequence[EventReference[str]]) -> Iterator[tuple[int | str, int]]:
            return ((_original(each.item_id, self._store.item_ids, ITEM), each.timestamp) for each in named)

        return AnyRecommendQuery(
            user_id=None if query.user_id is None else _original(query.user_id, self._store.user_ids, USER),
            events=[Event(item_id=item, timestamp=time) for item, time in references(query.added)],
            without_events=[EventReference(item_id=item, timestamp=time) for item, time in references(query.removed)],
            **query.model_dump(exclude={"user_id", "added", "removed"}),
        )

    def _placed(self, answer: Recommendations, past: Past, lists: np.ndarray) -> Exploration:
        present = [interest.interest for interest in answer.interests]
        rows = self._service.catalogue.rows([item.item_id for item in answer.items])
        seen = past.item[past.item != NO_ROW]
        shown, places = self._shown(np.append(rows, seen)), self._map.place(self._vectors(np.append(rows, seen)))
        num_items, num_events = len(rows), len(seen)
        items = zip(answer.items, shown[:num_items], places[:num_items], strict=True)
        columns = (past.time, past.dwell, past.weights[present].T)
        history = zip(
            shown[num_items:], places[num_items:], *(column[:num_events].tolist() for column in columns), strict=True
        )
        interests = zip(answer.interests, self._map.place(past.vectors[present, : past.dim]), strict=True)
        return Exploration(
            items=[
                PlacedItem(**fields, rank=item.rank, score=item.score, interest=item.interest, position=place)
                for item, fields, place in items
            ],
            interests=[
                PlacedInterest(
                    **interest.model_dump(exclude={"events"}),
                    closest=[FoundItem(**fields) for fields in self._shown(_some(lists[interest.interest]))],
                    position=place,
                )
                for interest, place in interests
            ],
            history=[
                PlacedEvent(**fields, timestamp=time, dwell=dwell, weights=weights, position=place)
                for fields, place, time, dwell, weights in history
            ],
            fallback=answer.fallback,
        )

    def _fans(self, row: int, scores: np.ndarray) -> list[Fan]:
        """Users of the largest scores [S, V] with the item of a row."""
        store, closest = self._store, scores.max(axis=1)
        best = [place for place in np.argsort(-closest, kind="stable")[:_FOUND] if np.isfinite(closest[place])]
        users = self._sample[best]
        ids = store.user_ids[users].cast(pl.String).to_list()
        had = [row in store.item[store.offsets[user] : store.offsets[user + 1]] for user in users.tolist()]
        return [
            Fan(user_id=user_id, interest=int(scores[place].argmax()), score=float(closest[place]), had=seen)
            for user_id, place, seen in zip(ids, best, had, strict=True)
        ]

    def _shown(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Fields of `FoundItem`."""
        counts = self._store.item_counts[rows].tolist()
        return [
            {**shown, ITEM: str(shown[ITEM]), "events": count}
            for shown, count in zip(self._service.catalogue.shown(rows), counts, strict=True)
        ]

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        """Of the bundle's own index, also where another one is searched."""
        return unit_vectors(self._service.bundle.index, rows, self._service.dim)

    @cached_property
    def _drawn(self) -> np.ndarray:
        return 1 + np.argsort(-self._store.item_counts[1:], kind="stable")[:MAP_ITEMS]

    @cached_property
    def _map(self) -> ItemMap:
        return ItemMap.of(self._vectors(self._drawn))

    @cached_property
    def _sample(self) -> np.ndarray:
        """Positions of users, rising."""
        return sample_users(self._store, self._service.bundle.config.train.seed, SAMPLE_USERS)

    @cached_property
    def _user_vectors(self) -> np.ndarray:
        """Of the sample, float32 [S, V, D] or [S, V, D + 1]."""
        bundle, size = self._service.bundle, self._service.settings.encoder_batch
        parts = stored_vectors(self._store, bundle.encoder, bundle.config.history, self._sample, size)
        return np.concatenate([vectors for _, vectors in parts])


def _some(rows: np.ndarray) -> np.ndarray:
    return rows[rows != NO_ROW][:_CLOSEST]


def _original(text: str, ids: pl.Series, name: str) -> int | str:
    """An id in the type of a column of ids.

    Raises:
        DataError: it cannot be one.
    """
    if ids.dtype == pl.String:
        return text
    number = int(text) if _INTEGER.fullmatch(text) else 2**64
    if not -(2**63) <= number < 2**64:
        raise DataError(f"{name}: expected an integer, found {text[:100]!r}")
    return number
