"""The protocol: what is history, what is target, who is left out."""

from typing import cast

import pytest

from prismrec.data.store import Split
from prismrec.errors import DataError
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.queries import make_queries


def lists(sets: ItemSets) -> list[list[int]]:
    return [sets.item[start:stop].tolist() for start, stop in zip(sets.offsets[:-1], sets.offsets[1:], strict=True)]


SEQUENCES = [
    [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)],
    [(1, 10), (2, 20), (1, 30), (2, 40)],  # the test event was bought before
    [(7, 5)],  # one event only, in test: no history
]


def test_unknown_split_is_refused(make_store) -> None:
    with pytest.raises(DataError, match=r"expected 'valid' or 'test', found 'train'"):
        make_queries(make_store(SEQUENCES, 9), cast(Split, "train"), exclude_seen=True)


def test_no_user_with_a_target_is_an_error(make_store) -> None:
    with pytest.raises(DataError, match="found none"):
        make_queries(make_store(SEQUENCES[1:], 9), "test", exclude_seen=True)
    with pytest.raises(DataError, match="found none"):
        make_queries(make_store([[]], 9), "test", exclude_seen=False)


def test_test_history_includes_validation_events(make_store) -> None:
    queries = make_queries(make_store(SEQUENCES, 9), "test", exclude_seen=True)
    assert queries.user.tolist() == [0]
    assert (queries.start.tolist(), queries.end.tolist(), queries.now.tolist()) == ([0], [4], [50])
    assert lists(queries.targets) == [[5]]
    assert lists(queries.seen) == [[1, 2, 3, 4]]
    assert queries.counts == {
        "users_with_events": 3,
        "users_without_history": 1,
        "users_without_new_target": 1,
        "users_evaluated": 1,
        "targets": 1,
    }


def test_validation_history_ends_before_validation(make_store) -> None:
    queries = make_queries(make_store(SEQUENCES, 9), "valid", exclude_seen=True)
    assert queries.user.tolist() == [0]
    assert (queries.end.tolist(), queries.now.tolist(), lists(queries.targets)) == ([3], [40], [[4]])


def test_seen_items_are_targets_when_kept(make_store) -> None:
    queries = make_queries(make_store(SEQUENCES, 9), "test", exclude_seen=False)
    assert queries.user.tolist() == [0, 1]
    assert lists(queries.targets) == [[5], [2]]
    assert lists(queries.seen) == [[], []]


def test_targets_are_distinct(make_store) -> None:
    store = make_store([[(1, 1), (2, 2), (2, 3), (3, 4)]], 4, test=3)
    assert lists(make_queries(store, "test", exclude_seen=True).targets) == [[2, 3]]


def test_events_of_the_targets_own_time_are_left_out_of_the_history(make_store) -> None:
    store = make_store([[(1, 1), (2, 2), (3, 5), (4, 5), (5, 5)], [(1, 5), (2, 5)]], 6)
    queries = make_queries(store, "test", exclude_seen=True, before_target_time=True)
    assert (queries.user.tolist(), queries.end.tolist()) == ([0], [2])
    assert lists(queries.seen) == [[1, 2, 3, 4]]
    assert queries.counts["users_without_history"] == 1


def test_sample_of_users_is_seeded(make_store) -> None:
    store = make_store([[(1, 1), (2, 2), (3, 3)]] * 20, 3)
    first, again, other = (
        make_queries(store, "test", exclude_seen=True, max_users=5, seed=seed).user.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(first) == 5
