"""What a log may leave out of its files, against every log that may ever read them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prismrec.serve.event_rows import by_user, lasting, with_features


def test_the_newest_events_stay_and_each_once() -> None:
    came = [[2, 1, 10, 0], [1, 3, 30, 0], [1, 1, 10, 0], [1, 2, 20, 0], [1, 3, 30, 0]]
    assert lasting(np.array(came), 3).tolist() == [[1, 1, 10, 0], [1, 2, 20, 0], [1, 3, 30, 0], [2, 1, 10, 0]]
    assert lasting(np.array(came), 2).tolist() == [[1, 2, 20, 0], [1, 3, 30, 0], [2, 1, 10, 0]]
    assert lasting(np.array(came), 1).tolist() == [[1, 3, 30, 0], [2, 1, 10, 0]]


def test_all_events_of_the_oldest_second_stay() -> None:
    came = [[1, item, 10, 0] for item in (4, 2, 3)] + [[1, 1, 20, 0], [1, 9, 5, 0]]
    assert lasting(np.array(came), 2).tolist() == [*came[:4]]


def test_events_that_differ_in_context_alone_count_once() -> None:
    """A log without the feature finds two events, the older one at 10."""
    came = [[1, 5, 10, 0, 7], [1, 6, 20, 0, 7], [1, 6, 20, 0, 8], [1, 4, 5, 0, 7]]
    assert lasting(np.array(came), 2).tolist() == came[:3]


rows = st.tuples(*[st.integers(0, 1)] * 2, st.integers(0, 4), st.just(0), st.integers(0, 1), st.integers(0, 1))


@settings(max_examples=100, deadline=None)
@given(
    came=st.lists(rows, max_size=20), more=st.lists(rows, max_size=6), most=st.integers(1, 4), less=st.integers(0, 3)
)
@pytest.mark.parametrize("features", [(), ("a",), ("b", "a"), ("c", "b")])
def test_no_log_misses_what_is_left_out(
    came: list[tuple[int, ...]], more: list[tuple[int, ...]], most: int, less: int, features: tuple[str, ...]
) -> None:
    """Whatever its features, however few events it keeps, and whatever comes later."""
    every, later = (np.array(each, np.int64).reshape(-1, 6) for each in (came, more))
    read = [
        by_user(with_features(np.concatenate([first, later]), ("a", "b"), features), max(1, most - less))
        for first in (every, lasting(every, most))
    ]
    np.testing.assert_array_equal(read[0].users, read[1].users)
    np.testing.assert_array_equal(read[0].rows, read[1].rows)


def test_features_are_known_by_their_names() -> None:
    assert with_features(
        np.array([[1, 2, 3, 4, 71, 81]]), ("page", "device"), ("device", "country", "page")
    ).tolist() == [[1, 2, 3, 4, 81, 0, 71]]
