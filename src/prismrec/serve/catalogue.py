"""The catalogue as the service needs it: from original ids to keys and rows, and from rows to what is shown.

Takes a bundle's store; gives look-ups in arrays, so that a million items cost no million Python objects.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from prismrec.data.columns import column_keys
from prismrec.data.schema import CATEGORY_FEATURES, ITEM, TITLE, stable_keys
from prismrec.data.store import Store
from prismrec.errors import DataError
from prismrec.index.allowed import allowed_items
from prismrec.index.base import NO_CATEGORY, NO_ROW, Filter
from prismrec.index.merge import NO_INTEREST
from prismrec.index.policies import Ranking
from prismrec.serve.events import DWELL, Events
from prismrec.serve.events import ITEM as ITEM_KEY
from prismrec.serve.histories import KeyTable
from prismrec.serve.messages import Event, EventReference, Restrictions

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can write and nobody can hash
_CATEGORY = CATEGORY_FEATURES[0]


class Catalogue:
    """Items of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows = KeyTable(store.items["key"].to_numpy())
        # as many columns as the longest list has values
        self._categories = store.item_features[:, [name == _CATEGORY for name in store.schema.item_features]]
        self._category_names = _names(store.items[_CATEGORY]) if _CATEGORY in store.items.columns else {}
        names = [name for name in (ITEM, TITLE, _CATEGORY) if name in store.items.columns]
        # Polars takes milliseconds for a few rows
        self._shown = pa.RecordBatch.from_arrays([store.items[name].to_arrow() for name in names], names)
        self._by_popularity = np.argsort(-store.item_counts[1:], kind="stable") + 1

    def rows(self, ids: Sequence[int | str]) -> np.ndarray:
        """Rows of original ids, int64 [N]; 0 for those outside the catalogue."""
        return self._rows.find(stable_keys(ids)) + 1

    def events(self, events: Sequence[Event[Any]]) -> Events:
        """Given events, oldest first, items as keys.

        Raises:
            DataError: a column of context is not one of the model's, or a value is no id.
        """
        items = stable_keys(event.item_id for event in events)
        time = np.array([event.timestamp for event in events], np.int64)
        dwell = np.array([event.dwell for event in events], np.int64)
        rows = np.column_stack([items, time, dwell, self._context(events)])
        return Events.of_rows(rows[np.argsort(time, kind="stable")])

    def known(self, events: Events) -> Events:
        """Events with rows in place of keys and what the store has of them, without items outside the catalogue."""
        rows = events.rows
        rows[:, ITEM_KEY] = self._rows.find(events.item) + 1
        if not self._store.schema.has_dwell:
            rows[:, DWELL] = 0  # as in the store, or an event of both would count twice
        return Events.of_rows(rows[rows[:, ITEM_KEY] > 0])

    def without(self, events: Events, named: Sequence[EventReference[Any]]) -> Events:
        """Known events but for those of the items and times named."""
        rows = self.rows([each.item_id for each in named])
        named_pairs = set(zip(rows.tolist(), (each.timestamp for each in named), strict=True))
        pairs = zip(events.item.tolist(), events.time.tolist(), strict=True)
        return Events.of_rows(events.rows[[pair not in named_pairs for pair in pairs]])

    def restriction(self, query: Restrictions[Any, Any]) -> Filter | None:
        """What a query allows, but for `exclude_items`; None if that is everything."""
        if query.only_items is None and query.only_categories is None and not query.exclude_categories:
            return None
        return Filter(
            categories=None if query.only_categories is None else tuple(stable_keys(query.only_categories).tolist()),
            excluded_categories=tuple(stable_keys(query.exclude_categories).tolist()),
            rows=None if query.only_items is None else _distinct(self.rows(query.only_items)),
        )

    def most_popular(self, k: int, excluded: np.ndarray, where: Filter | None) -> Ranking:
        """The k items of most training events that are allowed, scored by their number."""
        rows = self._by_popularity
        if where is not None:
            rows = rows[allowed_items(where, self._store.num_items, self._store.item_categories)[rows - 1]]
        rows = rows[: k + len(excluded)]
        rows = rows[~np.isin(rows, excluded)][:k]
        return Ranking(rows, self._store.item_counts[rows].astype(np.float32), np.full(k, NO_INTEREST)[: len(rows)])

    def shown(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Original id, title and category of rows, as far as the catalogue has them."""
        return self._shown.take(pa.array(rows - 1)).to_pylist()

    def category_shares(self, lists: np.ndarray, most: int) -> list[list[dict[str, Any]]]:
        """The most frequent categories of each list of rows [N, m] (0 is none), of equal ones the first in the list.

        A share is that of the rows with the category; where an item has several, shares add up to more than one.
        """
        lengths = (lists != NO_ROW).sum(axis=1).tolist()
        columns = self._categories[lists].reshape(len(lists), -1).tolist()
        return [
            [{"category": self._category_names[key], "share": count / length} for key, count in _most(keys, most)]
            for keys, length in zip(columns, lengths, strict=True)
        ]

    def _context(self, events: Sequence[Event[Any]]) -> np.ndarray:
        names = self._store.schema.context_features
        unknown = sorted({name for event in events for name in event.model_extra or {}} - set(names))
        if unknown:
            raise DataError(
                f"events: {unknown[0]!r} is not a column of context; this model has {', '.join(names) or 'none'}"
            )
        values = [_context_id(name, (event.model_extra or {}).get(name)) for event in events for name in names]
        return stable_keys(values).reshape(len(events), len(names))


def _context_id(name: str, value: object) -> int | str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as `prepare` reads whole numbers
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    if value is None or (isinstance(value, str) and not _SURROGATE.search(value)):
        return value
    raise DataError(f"events: {name}: expected an integer or text, found {str(value)[:100]!r}")


def _most(keys: list[int], most: int) -> list[tuple[int, int]]:
    """The most frequent keys, and how often they occur."""
    counts = Counter(keys)
    del counts[NO_CATEGORY]
    return counts.most_common(most)


def _names(categories: pl.Series) -> dict[int, Any]:
    """From keys to categories as given."""
    if isinstance(categories.dtype, pl.List):
        categories = categories.explode()
    distinct = categories.drop_nulls().unique()
    return dict(zip(column_keys(distinct).to_list(), distinct.to_list(), strict=True))


def _distinct(rows: np.ndarray) -> np.ndarray:
    return np.unique(rows[rows > 0])
