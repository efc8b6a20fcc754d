"""A store in memory from literal sequences."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prismrec.data.schema import Schema
from prismrec.data.store import Store

Sequences = list[list[tuple[int, int]]]
MakeStore = Callable[..., Store]


@pytest.fixture
def make_store() -> MakeStore:
    """Build a store from each user's (catalogue row, time) events; the last `valid` and `test` events are split off."""

    def build(sequences: Sequences, num_items: int, valid: int = 1, test: int = 1) -> Store:
        lengths = np.array([len(sequence) for sequence in sequences])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        test_start = np.maximum(offsets[1:] - test, offsets[:-1])
        events = [event for sequence in sequences for event in sequence]
        return Store(
            path=Path("store"),
            manifest={},
            schema=Schema(item_features=("item_id",)),
            item_features=np.arange(num_items + 1)[:, None],
            offsets=offsets,
            valid_start=np.maximum(test_start - valid, offsets[:-1]),
            test_start=test_start,
            item=np.array([item for item, _ in events], np.int32),
            time=np.array([time for _, time in events], np.int64),
            dwell=None,
            weight=None,
            context=None,
        )

    return build
