"""Windows hold every target once an epoch, at the position that its history ends at."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prismrec.config import HistoryConfig
from prismrec.data.loader import ExampleLoader
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.data.windows import WindowLoader


@pytest.fixture(scope="module")
def long_store(make_store) -> Store:
    """Users with 3 to 60 events, several at one time."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(12), rng.integers(3, 60, 12))
    return make_store(
        pl.DataFrame({"user_id": users, "item_id": np.arange(len(users)), "timestamp": rng.integers(0, 40, len(users))})
    )


def examples(batches: list[TrainBatch]) -> dict[int, tuple[list[int], int]]:
    """By target: items of the history that a causal encoder sees at its position, newest first, and the time then."""
    found = {}
    for batch in batches:
        history, length = batch.history, batch.history.item.shape[1]
        for moment, target in zip(batch.moment.tolist(), batch.target.tolist(), strict=True):
            window, place = divmod(moment, length)
            now = history.now[window] if place == 0 else history.time[window, place - 1]
            items = history.item[window, place:]
            assert target not in found
            found[target] = (items[items != 0].tolist(), int(now))
    return found


def test_windows_by_hand(make_store) -> None:
    # trains on the first six of eight events; T = 3, so windows end after the fifth event and before
    store = make_store([("a", 10 * place, place) for place in range(1, 9)])
    loader = WindowLoader(store, HistoryConfig(max_length=3), batch_size=9, seed=0)
    assert (loader.num_examples, loader.steps_per_epoch) == (5, 1)
    (batch,) = loader.batches(0)
    found = examples([batch])
    assert sorted(found) == [2, 3, 4, 5, 6]
    for target, (history, now) in found.items():
        assert now == target  # event number `target` happened at that second
        assert history == list(range(target - 1, target - 1 - len(history), -1))
        assert 1 <= len(history) <= 3
    assert (np.diff(batch.moment) >= 0).all()


def test_a_short_history_is_one_window_and_padding_stays_out(make_store) -> None:
    store = make_store([("a", 10, 1), ("a", 20, 2), ("a", 30, 3), ("a", 40, 4), ("a", 50, 5), ("b", 10, 7)])
    (batch,) = WindowLoader(store, HistoryConfig(max_length=50), batch_size=9, seed=0).batches(0)
    assert batch.history.item.tolist() == [[2, 1]]
    assert (batch.moment.tolist(), batch.target.tolist()) == ([0, 1], [3, 2])
    assert batch.history.now.tolist() == [3]


def test_a_basket_is_the_target_of_the_last_event_before_it(make_store) -> None:
    times = (1, 1, 2, 2, 3, 3, 4, 5)
    rows = [("a", 10 * place, time) for place, time in enumerate(times, 1)]
    store = make_store(rows, split="global_time", valid_from=4, test_from=5)
    config = HistoryConfig(max_length=9, before_target_time=True)
    (batch,) = WindowLoader(store, config, batch_size=9, seed=0).batches(0)
    assert batch.history.item.tolist() == [[4, 3, 2, 1]]
    assert (batch.moment.tolist(), batch.target.tolist()) == ([0, 0, 2, 2], [5, 6, 3, 4])
    assert examples([batch])[5] == ([4, 3, 2, 1], 3)


def test_a_basket_larger_than_a_batch_is_cut(make_store) -> None:
    rows = [("a", 1, 1), *(("a", item, 2) for item in range(2, 9)), ("a", 9, 3), ("a", 10, 4)]
    store = make_store(rows, split="global_time", valid_from=3, test_from=4)
    loader = WindowLoader(store, HistoryConfig(max_length=4, before_target_time=True), batch_size=3, seed=0)
    sizes = [len(batch.target) for batch in loader.batches(0)]
    assert (sorted(sizes), loader.steps_per_epoch) == ([1, 3, 3], 3)


def test_no_examples(make_store) -> None:
    loader = WindowLoader(make_store([(1, 1, 1), (2, 1, 1)]), HistoryConfig(), batch_size=4, seed=0)
    assert (loader.num_examples, loader.steps_per_epoch, list(loader.batches(0))) == (0, 0, [])


@settings(deadline=None, max_examples=40)
@given(
    length=st.integers(1, 70),
    batch_size=st.integers(1, 90),
    epoch=st.integers(0, 2),
    baskets=st.booleans(),
    step=st.integers(0, 9),
)
def test_an_epoch_holds_the_same_targets_as_one_history_each(
    long_store, length, batch_size, epoch, baskets, step
) -> None:
    """With the newest events of the same histories, and resumes at any step."""
    config = HistoryConfig(max_length=length, before_target_time=baskets)
    loader = WindowLoader(long_store, config, batch_size, seed=3)
    batches = list(loader.batches(epoch))
    assert len(batches) == loader.steps_per_epoch
    assert min(len(batch.target) for batch in batches) >= 1
    assert max(len(batch.target) for batch in batches) < 2 * batch_size
    assert max(batch.history.item.shape[1] for batch in batches) <= length
    found = examples(batches)
    for batch in ExampleLoader(long_store, config, 64, seed=0).batches(0):
        for moment, target in zip(batch.moment, batch.target, strict=True):
            history, now = found.pop(int(target))
            expected = batch.history.item[moment]
            assert history == expected[: len(history)].tolist()
            assert 1 <= len(history) <= (expected != 0).sum()
            assert now == batch.history.now[moment]
    assert not found
    resumed = list(loader.batches(epoch, first_step=step))
    assert [batch.target.tolist() for batch in resumed] == [batch.target.tolist() for batch in batches[step:]]


def test_windows_of_long_histories_begin_elsewhere_in_each_epoch(long_store) -> None:
    loader = WindowLoader(long_store, HistoryConfig(max_length=7), batch_size=50, seed=0)
    first, second = (examples(list(loader.batches(epoch))) for epoch in (0, 1))
    assert first != second
    assert first.keys() == second.keys()
