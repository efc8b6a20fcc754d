"""Histories of a batch of users: what the store holds, what was added since, or both.

Takes users' events and a store; gives a small store in memory that holds just these users, so that
serving reads histories with the same code as training.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from prismrec.config import HistoryConfig
from prismrec.data.history import HistoryBatch, gather_histories
from prismrec.data.store import Store
from prismrec.serve.events import CONTEXT, Events

NEW_USER = -1
"""Position of a user whom the store does not know."""


class KeyTable:
    """From keys to their positions, in place of a dictionary of a million entries."""

    def __init__(self, keys: np.ndarray) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Positions of `keys`, int64 [N] -> int64 [N], -1 for those that are not there."""
        if not len(self._sorted):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._order[place], -1)


def num_stored_events(store: Store, position: int) -> int:
    """How many events the user at this position of the store has."""
    return 0 if position == NEW_USER else int(store.offsets[position + 1] - store.offsets[position])


def stored_events(store: Store, position: int) -> Events:
    """Events of the user at this position of the store, items as catalogue rows; none for `NEW_USER`."""
    num_features = len(store.schema.context_features)
    if position == NEW_USER:
        return Events.none(num_features)
    place = slice(store.offsets[position], store.offsets[position + 1])
    item = store.item[place].astype(np.int64)
    return Events(
        item=item,
        time=np.asarray(store.time[place]),
        dwell=np.zeros_like(item) if store.dwell is None else store.dwell[place].astype(np.int64),
        context=np.zeros((len(item), num_features), np.int64)
        if store.context is None
        else np.asarray(store.context[place]),
    )


def batch_store(store: Store, histories: Sequence[Events]) -> Store:
    """A store in memory whose user u has the events `histories[u]`, items as catalogue rows."""
    # one event of nobody lets a batch without any event be gathered from
    nobody = Events.of_rows(np.zeros((1, CONTEXT + len(store.schema.context_features)), np.int64))
    item, time, dwell, context = (
        np.concatenate([getattr(events, field.name) for events in (*histories, nobody)])
        for field in dataclasses.fields(Events)
    )
    offsets = np.cumsum([0, *(len(events.item) for events in histories)])
    return dataclasses.replace(
        store,
        offsets=offsets,
        valid_start=offsets[1:],
        test_start=offsets[1:],
        item=item,
        time=time,
        dwell=dwell if store.schema.has_dwell else None,
        weight=None,
        uniform=None,
        context=context if store.schema.context_features else None,
    )


def histories_until(batch: Store, now: np.ndarray, user_keys: np.ndarray, config: HistoryConfig) -> HistoryBatch:
    """The newest events of each user of a batch, up to and including their moment in `now` [B]."""
    owner = np.repeat(np.arange(batch.num_users), np.diff(batch.offsets))
    past = np.concatenate([[0], np.cumsum(batch.time[: len(owner)] <= now[owner])])
    start, end = batch.offsets[:-1], batch.offsets[1:]
    return gather_histories(batch, start, start + past[end] - past[start], now, user_keys, config)
