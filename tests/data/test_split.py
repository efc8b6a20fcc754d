"""Splits by hand, and what holds for every split: each user's events are cut in three, in order of time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.config import PrepareConfig
from prismrec.data.split import global_time, leave_last_two_out, newest_shares, split_starts
from prismrec.errors import DataError


def test_last_two_events_of_users_with_three() -> None:
    offsets = np.array([0, 1, 3, 6, 10])  # users with 1, 2, 3 and 4 events
    valid, test = leave_last_two_out(offsets)
    assert valid.tolist() == [1, 3, 4, 8]
    assert test.tolist() == [1, 3, 5, 9]
    assert (valid.dtype, test.dtype) == (np.int64, np.int64)


def test_one_moment_for_everybody() -> None:
    offsets = np.array([0, 4, 5, 7])
    time = np.array([10, 20, 20, 30, 5, 30, 40])
    valid, test = global_time(offsets, time, 20, 30)
    assert valid.tolist() == [1, 5, 5]
    assert test.tolist() == [3, 5, 5]
    assert (valid.dtype, test.dtype) == (np.int64, np.int64)


def test_shares_of_all_events() -> None:
    assert newest_shares(np.array([9, 1, 8, 2, 7, 3, 6, 4, 5, 0]), 0.2, 0.1) == (7, 9)
    assert newest_shares(np.array([1, 2, 3, 4]), 0.25, 0.25) == (3, 4)
    assert newest_shares(np.array([5]), 0.1, 0.1) == (5, 5)


def test_events_of_one_second_stay_together() -> None:
    time = np.array([1, 2, 2, 2, 2, 2, 2, 2, 3, 4])
    assert newest_shares(time, 0.3, 0.2) == (2, 3)  # a cut inside the 2s takes all of them


ROWS = [(1, 7, 10), (1, 8, 20), (1, 9, 30), (1, 7, 40), (2, 7, 15), (2, 8, 35), (3, 8, 5), (3, 9, 45), (3, 7, 46)]


def test_a_store_cut_at_given_moments(make_store) -> None:
    store = make_store(ROWS, split="global_time", valid_from=30, test_from=40)
    assert store.offsets.tolist() == [0, 4, 6, 9]
    assert store.valid_start.tolist() == [2, 5, 7]
    assert store.test_start.tolist() == [3, 6, 7]
    counts = store.manifest["counts"]
    assert [counts[f"{split}_events"] for split in ("train", "valid", "test")] == [4, 2, 3]
    assert counts["users_only_in_training"] == 0


def test_a_store_cut_by_shares(make_store) -> None:
    store = make_store(ROWS, split="global_time", valid_share=0.2, test_share=0.3)
    # Of 9 events, rank round(9 * 0.5) = 4 is at 30 and rank round(9 * 0.7) = 6 at 40.
    assert store.valid_start.tolist() == [2, 5, 7]
    assert store.test_start.tolist() == [3, 6, 7]


def test_a_moment_that_leaves_a_split_empty_is_refused(make_store) -> None:
    with pytest.raises(DataError, match=r"found 4, 5, 0; choose other valid_from and test_from"):
        make_store(ROWS, split="global_time", valid_from=30, test_from=50)


USERS = st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=8), min_size=1, max_size=8)
CONFIGS = st.one_of(
    st.just(PrepareConfig()),
    st.just(PrepareConfig(split="global_time")),
    st.integers(0, 19).flatmap(
        lambda first: st.integers(first + 1, 21).map(
            lambda second: PrepareConfig(split="global_time", valid_from=first, test_from=second)
        )
    ),
)


@given(users=USERS, config=CONFIGS)
def test_every_split_is_a_prefix_a_middle_and_a_suffix(users: list[list[int]], config: PrepareConfig) -> None:
    offsets = np.cumsum([0, *map(len, users)])
    time = np.concatenate([sorted(times) for times in users])
    valid, test = split_starts(offsets, time, config)
    assert (offsets[:-1] <= valid).all()
    assert (valid <= test).all()
    assert (test <= offsets[1:]).all()
    if config.split == "global_time":
        for first in (valid, test):
            old = np.concatenate([time[a:b] for a, b in zip(offsets[:-1], first, strict=True)])
            new = np.concatenate([time[a:b] for a, b in zip(first, offsets[1:], strict=True)])
            assert old.max(initial=-1) < new.min(initial=99)
