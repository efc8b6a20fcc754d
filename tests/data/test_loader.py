"""An epoch holds every example once, in an order that depends on seed and epoch alone."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prismrec.config import HistoryConfig
from prismrec.data import targets
from prismrec.data.loader import ExampleLoader
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.data.windows import WindowLoader

# a trains on its first three events, b on its only two, c on its only one.
ROWS = [("a", 10, 1), ("a", 20, 2), ("a", 30, 3), ("a", 10, 4), ("a", 20, 5), ("b", 20, 7), ("b", 30, 8), ("c", 10, 9)]
HISTORY = HistoryConfig(max_length=3)


def examples(batches) -> list[tuple[list[int], int, int]]:
    """Items of each history, newest first, its target and its time."""
    return [
        ([int(item) for item in row if item], int(target), int(now))
        for batch in batches
        for row, target, now in zip(
            batch.history.item[batch.moment], batch.target, batch.history.now[batch.moment], strict=True
        )
    ]


def same(first: TrainBatch, second: TrainBatch) -> bool:
    return (
        first.target.tolist() == second.target.tolist() and first.history.item.tolist() == second.history.item.tolist()
    )


@pytest.fixture(scope="module")
def long_store(make_store) -> Store:
    rng = np.random.default_rng(0)
    events = {"user_id": rng.integers(0, 20, 300), "item_id": rng.integers(0, 15, 300), "timestamp": np.arange(300)}
    return make_store(pl.DataFrame(events))


def test_examples_by_hand(make_store) -> None:
    loader = ExampleLoader(make_store(ROWS), HISTORY, batch_size=2, seed=0)
    assert (loader.num_examples, loader.steps_per_epoch) == (3, 2)
    assert sorted(examples(loader.batches(0))) == [([1], 2, 2), ([2], 3, 8), ([2, 1], 3, 3)]


def test_weights_are_those_of_the_targets(make_store) -> None:
    events = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")
    store = make_store(events.with_columns(weight=pl.col("timestamp") / 2))
    (batch,) = ExampleLoader(store, HISTORY, batch_size=9, seed=0).batches(0)
    assert batch.weight is not None
    assert batch.weight.dtype == np.float32
    assert batch.weight.tolist() == (batch.history.now / 2).tolist()
    (plain,) = ExampleLoader(make_store(ROWS), HISTORY, batch_size=9, seed=0).batches(0)
    assert plain.weight is None


@pytest.mark.parametrize("sorted_events", [1, 5, 8, 13, 100])  # the first user has eight events, the second five
@pytest.mark.parametrize("kind", [ExampleLoader, WindowLoader])
def test_where_only_new_items_are_wanted_repeats_are_no_targets(make_store, kind, sorted_events, monkeypatch) -> None:
    monkeypatch.setattr(targets, "_SORTED_EVENTS", sorted_events)
    rows = [("a", item, time) for time, item in enumerate([10, 20, 10, 30, 20, 40, 50, 60])]
    rows += [("b", item, time) for time, item in enumerate([10, 10, 10, 70, 80])]
    (batch,) = kind(make_store(rows), HistoryConfig(), batch_size=9, seed=0, new_only=True).batches(0)
    items = make_store(rows).item_ids[batch.target - 1].to_list()
    assert sorted(items) == [20, 30, 40]  # 50 to 80 are for validation and test
    assert kind(make_store(rows), HistoryConfig(), batch_size=9, seed=0).num_examples == 7


def test_baskets_do_not_see_themselves(make_store) -> None:
    rows = [("a", 10, 1), ("a", 20, 1), ("a", 30, 2), ("a", 40, 2), ("a", 50, 3), ("a", 50, 4)]
    store = make_store(rows)  # trains on the first four
    sorted_in = ExampleLoader(store, HISTORY, batch_size=9, seed=0).batches(0)
    assert sorted(examples(sorted_in)) == [([1], 2, 1), ([2, 1], 3, 2), ([3, 2, 1], 4, 2)]
    before = ExampleLoader(store, HistoryConfig(max_length=3, before_target_time=True), batch_size=9, seed=0)
    assert sorted(examples(before.batches(0))) == [([2, 1], 3, 2), ([2, 1], 4, 2)]
    assert before.num_examples == 2
    (batch,) = before.batches(0)
    assert (len(batch.history.now), batch.moment.tolist()) == (1, [0, 0])  # one history for the whole basket


def test_baskets_of_neighbouring_users_at_one_time(make_store) -> None:
    store = make_store([("a", 10, 5), ("a", 20, 5), ("b", 10, 5), ("b", 20, 6)])
    loader = ExampleLoader(store, HistoryConfig(max_length=3, before_target_time=True), batch_size=9, seed=0)
    assert examples(loader.batches(0)) == [([1], 2, 6)]


def test_baskets_larger_than_a_batch_are_cut(make_store) -> None:
    rows = [("a", 10, 1), *(("a", item, 2) for item in range(20, 27)), ("a", 50, 3), ("a", 50, 4)]
    loader = ExampleLoader(make_store(rows), HistoryConfig(max_length=3, before_target_time=True), 3, seed=0)
    batches = list(loader.batches(0))
    assert (loader.num_examples, loader.steps_per_epoch) == (7, 3)
    assert sorted(len(batch.target) for batch in batches) == [1, 3, 3]
    assert sorted(target for _, target, _ in examples(batches)) == [2, 3, 4, 5, 6, 7, 8]


@settings(deadline=None)
@given(batch_size=st.integers(1, 60), epoch=st.integers(0, 3))
def test_baskets_fill_batches_of_the_size_asked(make_store, batch_size, epoch) -> None:
    rng = np.random.default_rng(1)
    rows = {"user_id": rng.integers(0, 9, 300), "item_id": np.arange(300), "timestamp": rng.integers(0, 30, 300)}
    loader = ExampleLoader(
        make_store(pl.DataFrame(rows)), HistoryConfig(max_length=3, before_target_time=True), batch_size, seed=0
    )
    batches = list(loader.batches(epoch))
    sizes = [len(batch.target) for batch in batches]
    assert len(batches) == loader.steps_per_epoch
    assert sum(sizes) == loader.num_examples == len({target for _, target, _ in examples(batches)})
    assert min(sizes) >= 1
    assert max(sizes) < 2 * batch_size


def test_no_examples(make_store) -> None:
    loader = ExampleLoader(make_store([(1, 1, 1), (2, 1, 1)]), HISTORY, batch_size=4, seed=0)
    assert (loader.num_examples, loader.steps_per_epoch, list(loader.batches(0))) == (0, 0, [])


def test_orders_differ_between_epochs_and_seeds(long_store: Store) -> None:
    def first(seed: int, epoch: int) -> TrainBatch:
        return next(ExampleLoader(long_store, HISTORY, batch_size=50, seed=seed).batches(epoch))

    assert same(first(0, 0), first(0, 0))
    assert not same(first(0, 0), first(0, 1))
    assert not same(first(0, 0), first(1, 0))


@settings(deadline=None)
@given(batch_size=st.integers(1, 300), epoch=st.integers(0, 5), seed=st.integers(0, 5), step=st.integers(0, 20))
def test_an_epoch_covers_all_examples_once_and_resumes_anywhere(long_store, batch_size, epoch, seed, step) -> None:
    loader = ExampleLoader(long_store, HISTORY, batch_size, seed)
    batches = list(loader.batches(epoch))
    assert len(batches) == loader.steps_per_epoch
    assert {len(batch.target) for batch in batches[:-1]} <= {batch_size}
    times = sorted(now for _, _, now in examples(batches))  # all times of this store differ
    starts, ends = long_store.split_bounds("train")
    expected = [long_store.time[start + 1 : end].tolist() for start, end in zip(starts, ends, strict=True)]
    assert times == sorted(time for of_user in expected for time in of_user)
    resumed = list(loader.batches(epoch, first_step=step))
    assert len(resumed) == max(len(batches) - step, 0)
    assert all(map(same, resumed, batches[step:]))


@pytest.mark.parametrize("kind", [ExampleLoader, WindowLoader])
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3))
def test_parts_of_a_batch_side_by_side_are_the_batch(long_store, kind, batch_size, ranks, epoch) -> None:
    config = HistoryConfig(max_length=4)
    whole = list(kind(long_store, config, batch_size, 0).batches(epoch))
    parts = [list(kind(long_store, config, batch_size, 0, part=(rank, ranks)).batches(epoch)) for rank in range(ranks)]
    assert [len(batches) for batches in parts] == [len(whole)] * ranks
    for step, batch in enumerate(whole):
        of_step = [batches[step] for batches in parts]
        np.testing.assert_array_equal(np.concatenate([part.target for part in of_step]), batch.target)
        np.testing.assert_array_equal(np.concatenate([part.history.user for part in of_step]), batch.history.user)
        sizes = [len(part.target) for part in of_step]
        assert sizes[0] > 0  # the first rank speaks for all
        assert max(sizes) < len(batch.target) / ranks + 4 + 1  # a window of four may be cut off a little late


def test_a_batch_of_three_in_two_parts(make_store) -> None:
    """Of one user's events of training, the last three are targets: two for the first rank, one for the second."""
    store = make_store([("a", item, item) for item in (10, 11, 12, 13, 14, 15)])
    batches = [list(ExampleLoader(store, HISTORY, 3, 0, part=(rank, 2)).batches(0)) for rank in (0, 1)]
    assert [[batch.target.tolist() for batch in part] for part in batches] == [[[2, 3]], [[4]]]
