"""Histories by hand: newest first, padded with zeros, nothing of other users, nothing from the future."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.config import HistoryConfig
from prismrec.data.history import gather_histories
from prismrec.data.schema import stable_keys
from prismrec.data.store import Store

EVENTS = pl.DataFrame(
    {
        "user_id": ["a", "a", "a", "b", "b"],
        "item_id": [10, 20, 30, 20, 10],
        "timestamp": [100, 200, 300, 150, 250],
        "dwell": [1, 2, 3, 4, 5],
        "shop": ["x", "y", "x", None, "y"],
    }
)


@pytest.fixture(scope="module")
def store(make_store) -> Store:
    return make_store(EVENTS)


def gather(store: Store, start, end, **settings):
    now, user = np.full(len(start), 999), np.arange(len(start)) + 70
    return gather_histories(store, np.array(start), np.array(end), now, user, HistoryConfig(**settings))


def test_by_hand(store: Store) -> None:
    batch = gather(store, [0, 3, 3], [3, 4, 3], max_length=4, recent_events=2)
    x, y = stable_keys(["x", "y"]).tolist()
    assert batch.item.tolist() == [[3, 2, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.time.tolist() == [[300, 200, 100, 0], [150, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.dwell.tolist() == [[3, 2, 1, 0], [4, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.recent.tolist() == [[True, True, False, False], [True, False, False, False], [False] * 4]
    assert batch.context[:, :, 0].tolist() == [[x, y, x, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert (batch.now.tolist(), batch.user.tolist()) == ([999] * 3, [70, 71, 72])


def test_only_the_newest_events_are_kept(store: Store) -> None:
    batch = gather(store, [0, 3], [3, 5], max_length=2, recent_events=5)
    assert batch.item.tolist() == [[3, 2], [1, 2]]
    assert batch.recent.all()


def test_no_users(store: Store) -> None:
    empty = np.zeros(0, np.int64)
    batch = gather_histories(store, empty, empty, empty, empty, HistoryConfig(max_length=3))
    assert (batch.item.shape, batch.context.shape) == ((0, 3), (0, 3, 1))


def test_without_dwell_and_context(make_store) -> None:
    batch = gather(make_store([(1, 5, 10)]), [0], [1], max_length=2)
    assert batch.dwell.tolist() == [[0, 0]]
    assert batch.context.shape == (1, 2, 0)


def test_raw_inputs_replace_rows_by_features(store: Store) -> None:
    batch = gather(store, [0], [2], max_length=3)
    inputs = batch.raw_inputs(store.item_features)
    assert inputs["item"].tolist() == [[[21], [11], [0]]]
    assert set(inputs) == {"item", "time", "dwell", "recent", "context", "now", "user"}
    assert inputs["time"] is batch.time


@given(st.data())
def test_the_newest_events_of_any_range(store: Store, data) -> None:
    start = data.draw(st.integers(0, 5))
    end = data.draw(st.integers(start, 5))
    length = data.draw(st.integers(1, 6))
    batch = gather(store, [start], [end], max_length=length)
    expected = store.item[start:end][::-1][:length].tolist()
    assert batch.item[0].tolist() == expected + [0] * (length - len(expected))
