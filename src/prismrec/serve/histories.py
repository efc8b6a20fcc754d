"""Histories of a batch of requested users: what the store holds, what the request gives, or both.

Takes requests and a store; gives a small store in memory that holds just these users, so that
serving reads histories with the same code as training.
"""

import dataclasses

import numpy as np
import polars as pl

from prismrec.config import HistoryConfig
from prismrec.data.history import HistoryBatch, gather_histories
from prismrec.data.ranges import flat_ranges
from prismrec.data.schema import DWELL
from prismrec.data.store import Store
from prismrec.serve.requests import NEW_USER, Requests


def batch_store(store: Store, requests: Requests, start: int, stop: int) -> Store:
    """A store in memory whose user u is request start + u, with stored and given events sorted by time.

    A given event that the store already holds counts once.
    """
    events = _stored_events(store, requests.position[start:stop])
    given = requests.events.filter(pl.col("request").is_between(start, stop - 1)) if len(requests.events) else None
    if given is not None and len(given):
        given = given.with_columns(pl.col("request") - start)
        events = pl.concat([events, given]).unique(maintain_order=True).sort("request", "time", maintain_order=True)
    offsets = np.searchsorted(events["request"].to_numpy(), np.arange(stop - start + 1))
    nobody = pl.DataFrame({name: [0] for name in events.columns})  # lets a batch without any event be gathered from
    events = pl.concat([events, nobody])
    return dataclasses.replace(
        store,
        offsets=offsets,
        valid_start=offsets[1:],
        test_start=offsets[1:],
        item=events["item"].to_numpy(),
        time=events["time"].to_numpy(),
        dwell=events[DWELL].to_numpy() if store.schema.has_dwell else None,
        weight=None,
        context=events.select(store.schema.context_features).to_numpy() if store.schema.context_features else None,
    )


def histories_until(batch: Store, now: int, user_keys: np.ndarray, config: HistoryConfig) -> HistoryBatch:
    """The newest events of each user of a batch, up to and including `now`."""
    past = np.concatenate([[0], np.cumsum(batch.time <= now)])
    start, end = batch.offsets[:-1], batch.offsets[1:]
    return gather_histories(
        batch, start, start + past[end] - past[start], np.full(batch.num_users, now), user_keys, config
    )


def _stored_events(store: Store, position: np.ndarray) -> pl.DataFrame:
    known = np.where(position == NEW_USER, 0, position)
    start = store.offsets[known]
    length = np.where(position == NEW_USER, 0, store.offsets[known + 1] - start)
    request = np.repeat(np.arange(len(position)), length)
    rows = flat_ranges(start, start + length)
    context = (
        {}
        if store.context is None
        else {name: store.context[rows, i] for i, name in enumerate(store.schema.context_features)}
    )
    return pl.DataFrame(
        {
            "request": request,
            "item": store.item[rows].astype(np.int64),
            "time": store.time[rows],
            DWELL: np.zeros(len(rows), np.int64) if store.dwell is None else store.dwell[rows].astype(np.int64),
            **context,
        }
    )
