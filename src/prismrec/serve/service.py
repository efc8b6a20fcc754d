"""Recommendations as a service, without HTTP and without torch: queries -> histories -> interests -> items -> answers.

Takes a bundle, an index over its items and a store of what users did since; answers queries in batches, so that
those that wait together are encoded and searched together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from prismrec.data.schema import stable_keys
from prismrec.errors import DataError
from prismrec.export.reader import Bundle
from prismrec.index.base import NO_ROW, Index
from prismrec.index.merge import NO_INTEREST, merge_lists, search_lists
from prismrec.index.policies import POLICIES, Ranking, diversify
from prismrec.serve.answers import Past, show_items, show_recommendations, unit_vectors
from prismrec.serve.catalogue import Catalogue
from prismrec.serve.events import Events, EventStore, merged
from prismrec.serve.histories import NEW_USER, KeyTable, batch_store, histories_until, num_stored_events, stored_events
from prismrec.serve.messages import (
    AnyRecommendQuery,
    AnyUserEvents,
    Appended,
    Recommendations,
    Restrictions,
    Similar,
    SimilarQuery,
)
from prismrec.serve.metrics import Metrics
from prismrec.serve.settings import ServeConfig

POOL = 4
"""To choose k diverse items, this many times k are looked at."""

_Queries = Sequence[AnyRecommendQuery]


class Explained(NamedTuple):
    """An answer and how it came about."""

    answer: Recommendations
    past: Past
    lists: np.ndarray
    """Rows of the best items of each vector that may come back, int64 [V, m]; 0 is none."""


class UnknownItemError(DataError):
    """An item that is asked about is not in the catalogue."""


class Service:
    """Answers queries with one bundle; safe to use from several threads."""

    def __init__(
        self, bundle: Bundle, index: Index, appended: EventStore, settings: ServeConfig, metrics: Metrics
    ) -> None:
        self.bundle, self.settings = bundle, settings
        self.index, self.appended, self._metrics = index, appended, metrics
        self.catalogue = Catalogue(bundle.store)
        self._users = KeyTable(bundle.store.users["key"].to_numpy())
        self.dim = bundle.config.model.embedding_dim
        """D; what follows in a vector is popularity."""

    def recommend(self, queries: _Queries) -> list[Recommendations]:
        """Recommend items to users, known or described by events, and say which events they follow from.

        Raises:
            DataError: an event has a column of context that the model does not know.
            StoreUnavailableError: the store of events cannot be reached.
        """
        return [explained.answer for explained in self.explain(queries)]

    def explain(self, queries: _Queries) -> list[Explained]:
        """What `recommend` gives, and how it came about."""
        store = self.bundle.store
        self._metrics.batch_size.observe(len(queries))
        with self._metrics.stage("histories"):
            keys = stable_keys(query.user_id for query in queries)
            positions = self._users.find(keys)
            events = self._events(queries, keys, positions)
            trained = np.where(positions == NEW_USER, 0, keys)  # rows that other keys are hashed to belong to others
            past = histories_until(
                batch_store(store, events), self._now(queries, events), trained, self.bundle.config.history
            )
        with self._metrics.stage("encode"):
            encoded = self.bundle.encoder.encode(past, store.item_features)
            encoded.vectors[past.item[:, 0] == NO_ROW] = 0.0  # without a past there is no interest
        with self._metrics.stage("search"):
            excluded = [self._excluded(query, seen.item) for query, seen in zip(queries, events, strict=True)]
            lists = self._search(queries, encoded.vectors, excluded)
        with self._metrics.stage("answer"):
            pasts = [Past.of(past, encoded, user, self.dim) for user in range(len(queries))]
            return [
                Explained(self._answer(query, excluded[user], *lists[user], pasts[user]), pasts[user], lists[user][1])
                for user, query in enumerate(queries)
            ]

    def similar(self, queries: Sequence[SimilarQuery[Any, Any]]) -> list[Similar]:
        """Find the items of the largest cosine with an item.

        Raises:
            UnknownItemError: an item is not in the catalogue.
        """
        rows = self.catalogue.rows([query.item_id for query in queries])
        for query, row in zip(queries, rows, strict=True):
            if row == NO_ROW:
                raise UnknownItemError(f"item_id: {query.item_id!r} is not in the catalogue")
        popularity = self.bundle.manifest["index"]["dimension"] - self.dim  # 0: what is popular is not more alike
        vectors = np.pad(unit_vectors(self.index, rows, self.dim), [(0, 0), (0, popularity)])
        excluded = [
            np.append(self.catalogue.rows(query.exclude_items), row) for query, row in zip(queries, rows, strict=True)
        ]
        with self._metrics.stage("search"):
            lists = self._search(queries, vectors[:, None], excluded)
        rankings = [merge_lists(scores, rows, query.k) for query, (scores, rows) in zip(queries, lists, strict=True)]
        nobody = [ranking._replace(interest=np.full(len(ranking.item), NO_INTEREST)) for ranking in rankings]
        return [Similar.model_validate({"items": show_items(self.catalogue, ranking)}) for ranking in nobody]

    def append(self, users: Sequence[AnyUserEvents]) -> list[Appended]:
        """Remember events; when this returns, they are safe, and the next query sees them.

        Raises:
            DataError: an event has a column of context that the model does not know; nothing is kept.
            StoreUnavailableError: the store of events cannot be reached.
        """
        given = [self.catalogue.events(user.events) for user in users]
        for key, events in zip(stable_keys(user.user_id for user in users).tolist(), given, strict=True):
            self.appended.append(key, events)
        return [
            Appended(events=len(events), unknown_items=len(events) - len(self.catalogue.known(events)))
            for events in given
        ]

    def num_events(self, user_id: Any) -> int:
        """How many events are known of a user."""
        keys = stable_keys([user_id])
        (appended,) = self.appended.read(keys.tolist())
        return num_stored_events(self.bundle.store, int(self._users.find(keys)[0])) + len(appended)

    def sample_queries(self, size: int) -> list[AnyRecommendQuery]:
        """Queries of known users, to warm up."""
        users = self.bundle.store.user_ids.head(size).to_list()
        return [AnyRecommendQuery(user_id=user) for user in users]

    def _events(self, queries: _Queries, keys: np.ndarray, positions: np.ndarray) -> list[Events]:
        """All that is known of each query's user, oldest first, items as rows."""
        appended = self.appended.read(keys.tolist())
        known = []
        for query, position, since in zip(queries, positions.tolist(), appended, strict=True):
            events = stored_events(self.bundle.store, position)
            for more in (since, self.catalogue.events(query.events)):
                if len(more):
                    events = merged(events, self.catalogue.known(more))
            known.append(self.catalogue.without(events, query.without_events) if query.without_events else events)
        return known

    def _now(self, queries: _Queries, events: Sequence[Events]) -> np.ndarray:
        """Moments of the queries: those given, or that of the newest event of all, or of the user."""
        newest = self.bundle.store.manifest["max_time"]
        return np.array(
            [
                max(newest, int(known.time[-1]) if len(known) else 0) if query.now is None else query.now
                for query, known in zip(queries, events, strict=True)
            ],
            np.int64,
        )

    def _excluded(self, query: AnyRecommendQuery, seen: np.ndarray) -> np.ndarray:
        named = self.catalogue.rows(query.exclude_items)
        return np.concatenate([named[named != NO_ROW], np.empty(0, np.int64) if query.include_seen else seen])

    def _search(
        self, queries: Sequence[Restrictions[Any, Any]], vectors: np.ndarray, excluded: Sequence[np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scores and rows [V, m] of each query's vectors.

        Those without restrictions are searched together, but only with others of about their depth: a list is as costly
        as it is long, and a deep one shall not hold up all others.
        """
        wheres = [self.catalogue.restriction(query) for query in queries]
        groups: dict[int, list[int]] = {}
        for place, where in enumerate(wheres):
            groups.setdefault(depth(queries[place]).bit_length() if where is None else -1 - place, []).append(place)
        lists: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for group in groups.values():
            deepest = max(depth(queries[place]) for place in group)
            found = search_lists(
                self.index, vectors[group], deepest, [excluded[place] for place in group], wheres[group[0]]
            )
            for place, scores, rows in zip(group, *found, strict=True):
                wanted = depth(queries[place])
                lists[place] = scores[:, :wanted], rows[:, :wanted]
        return [lists[place] for place in range(len(queries))]

    def _answer(
        self,
        query: AnyRecommendQuery,
        excluded: np.ndarray,
        scores: np.ndarray,
        rows: np.ndarray,
        past: Past,
    ) -> Recommendations:
        if not past.vectors.any():
            return self._fall_back(query, excluded)
        ranking = merge_lists(scores, rows, depth(query), POLICIES[query.merge])
        if query.diversity:
            ranking = diversify(ranking, unit_vectors(self.index, ranking.item, self.dim), query.k, query.diversity)
        ranking = Ranking(*(part[: query.k] for part in ranking))
        return Recommendations.model_validate(
            show_recommendations(self.catalogue, self.index, ranking, past, rows, self.settings)
        )

    def _fall_back(self, query: AnyRecommendQuery, excluded: np.ndarray) -> Recommendations:
        """The answer to users of whom nothing is known."""
        if self.settings.fallback == "none":
            return Recommendations(items=[], interests=[], fallback="none")
        ranking = self.catalogue.most_popular(query.k, excluded, self.catalogue.restriction(query))
        items = show_items(self.catalogue, ranking)
        return Recommendations.model_validate({"items": items, "interests": [], "fallback": "popular"})


def depth(query: Restrictions[Any, Any]) -> int:
    """Items wanted of each vector: more than k where they are to be unlike each other."""
    return POOL * query.k if getattr(query, "diversity", 0) else query.k
