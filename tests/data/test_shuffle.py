"""Dealing a user's training events anew keeps what belongs together, and nothing else."""

import numpy as np
import polars as pl
import pytest

from prismrec.config import HistoryConfig
from prismrec.data.loader import ExampleLoader
from prismrec.data.shuffle import shuffle_events
from prismrec.data.store import Store
from prismrec.data.windows import WindowLoader


@pytest.fixture(scope="module")
def store(make_store) -> Store:
    """Ten users with twelve events each, item, dwell, weight and shop all telling the event's number."""
    number = np.arange(120)
    return make_store(
        pl.DataFrame(
            {
                "user_id": number // 12,
                "item_id": number,
                "timestamp": 1000 + number,
                "dwell": number,
                "weight": number,
                "shop": number,
            }
        )
    )


def test_each_user_keeps_the_events_and_moments_and_they_are_dealt_anew(store: Store) -> None:
    shuffled = shuffle_events(store, np.random.default_rng(0))
    np.testing.assert_array_equal(shuffled.time, store.time)
    for user in range(store.num_users):
        train = slice(store.offsets[user], store.valid_start[user])
        later = slice(store.valid_start[user], store.offsets[user + 1])
        assert sorted(shuffled.item[train]) == sorted(store.item[train])
        assert (shuffled.item[train] != store.item[train]).any()
        np.testing.assert_array_equal(shuffled.item[later], store.item[later])


def test_an_item_keeps_its_dwell_weight_and_context(store: Store) -> None:
    shuffled = shuffle_events(store, np.random.default_rng(0))
    number = shuffled.item - 1  # item i is catalogue row i + 1
    np.testing.assert_array_equal(shuffled.dwell, number)
    np.testing.assert_array_equal(shuffled.weight, number)
    np.testing.assert_array_equal(shuffled.context[:, 0], number + 1)  # its key


@pytest.mark.parametrize("kind", [ExampleLoader, WindowLoader])
def test_every_epoch_has_another_order_and_the_same_one_when_resumed(store: Store, kind) -> None:
    loader = kind(store, HistoryConfig(max_length=12, shuffle=True), batch_size=16, seed=0)
    epochs = [list(loader.batches(epoch)) for epoch in (0, 1)]
    targets = [np.concatenate([batch.target for batch in batches]) for batches in epochs]
    assert len(targets[0]) == len(targets[1]) == loader.num_examples == 90
    assert set(targets[0]) != set(targets[1])  # another event comes first, which is no target
    resumed = list(loader.batches(1, 2))
    np.testing.assert_array_equal(resumed[0].target, epochs[1][2].target)
    np.testing.assert_array_equal(resumed[0].history.item, epochs[1][2].history.item)
