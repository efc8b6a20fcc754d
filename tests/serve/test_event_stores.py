"""What every store of appended events promises, whichever it is; a new store is one more line in STORES."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prismrec.errors import DataError
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import Events, EventStore, merged
from prismrec.serve.redis_events import RedisEvents

Row = tuple[int, ...]
"""Item, time, dwell and context features of an event."""
Open = Callable[..., EventStore]
LARGEST = 2**63 - 1


def _log(request: pytest.FixtureRequest, place: Path) -> Open:
    return lambda *features, **options: EventLog(place, features, **options)


def _redis(request: pytest.FixtureRequest, place: Path) -> Open:
    server = request.getfixturevalue("redis_server")
    return lambda *features, **options: RedisEvents(server.url, features, prefix=place.name, **options)


STORES = {"log": _log, "redis": _redis}
_places = itertools.count()


@pytest.fixture(params=STORES)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the test's store for these context features; what was open before is closed."""
    opened: list[EventStore] = []
    make = STORES[request.param](request, tmp_path / f"events-{next(_places)}")

    def reopen(*features: str, **options: Any) -> EventStore:
        for store in opened:
            store.close()
        opened[:] = [make(*features, **options)]
        return opened[0]

    yield reopen
    for store in opened:
        store.close()


def events(*rows: Row, features: int = 0) -> Events:
    return Events.of_rows(np.array(rows, np.int64).reshape(len(rows), 3 + features))


def read(store: EventStore, *users: int) -> list[list[Row]]:
    return [[tuple(row) for row in found.rows.tolist()] for found in store.read(users)]


def test_events_are_read_oldest_first(reopen: Open) -> None:
    store = reopen()
    store.append(7, events((11, 300, 0), (12, 100, 5)))
    store.append(7, events((13, 200, 9)))
    assert read(store, 7) == [[(12, 100, 5), (13, 200, 9), (11, 300, 0)]]
    found = store.read([7])[0]
    for column, expected in ((found.item, [12, 13, 11]), (found.time, [100, 200, 300]), (found.dwell, [5, 9, 0])):
        assert column.dtype == np.int64
        assert column.tolist() == expected
    assert found.context.shape == (3, 0)
    assert len(found) == 3


def test_events_of_one_second_stay_in_the_order_in_which_they_came(reopen: Open) -> None:
    store = reopen()
    store.append(7, events((9, 5, 0), (3, 5, 0), (8, 4, 0)))
    store.append(7, events((1, 5, 0), (6, 4, 0)))
    expected = [(8, 4, 0), (6, 4, 0), (9, 5, 0), (3, 5, 0), (1, 5, 0)]
    assert read(store, 7) == [expected]
    assert read(reopen(), 7) == [expected]


def test_a_batch_is_read_in_the_order_asked_for(reopen: Open) -> None:
    store = reopen()
    store.append(LARGEST, events((1, 10, 0)))
    store.append(1, events((LARGEST, 20, 2**31 - 1)))
    assert read(store, 5, LARGEST, 1, LARGEST, 0) == [
        [],
        [(1, 10, 0)],
        [(LARGEST, 20, 2**31 - 1)],
        [(1, 10, 0)],
        [],
    ]
    assert store.read([]) == []
    store = reopen()
    assert read(store, 1, 5, LARGEST) == [[(LARGEST, 20, 2**31 - 1)], [], [(1, 10, 0)]]


def test_an_unknown_user_has_no_events_of_the_right_shape(reopen: Open) -> None:
    found = reopen("page", "device").read([4])[0]
    assert len(found) == 0
    assert found.context.shape == Events.none(2).context.shape == (0, 2)
    assert found.item.dtype == found.context.dtype == np.int64


def test_no_events_are_nothing_to_append(reopen: Open) -> None:
    store = reopen("page")
    store.append(4, Events.none(1))
    assert read(store, 4) == [[]]


def test_the_same_event_counts_once(reopen: Open) -> None:
    store = reopen()
    twice = events((1, 10, 0), (2, 10, 0), (1, 10, 0))
    for _ in range(3):
        store.append(4, twice)
    expected = [(1, 10, 0), (2, 10, 0)]
    assert read(store, 4) == [expected]
    store = reopen()
    store.append(4, twice)
    assert read(store, 4) == [expected]
    store.append(4, events((1, 10, 3), (1, 11, 0)))  # another dwell, another time
    assert read(store, 4) == [[(1, 10, 0), (2, 10, 0), (1, 10, 3), (1, 11, 0)]]


def test_what_was_read_does_not_change(reopen: Open) -> None:
    store = reopen()
    store.append(4, events((1, 10, 0)))
    before = store.read([4])[0]
    store.append(4, events((2, 5, 0)))
    assert before.rows.tolist() == [[1, 10, 0]]


def test_context_features_are_known_by_their_names(reopen: Open) -> None:
    reopen("page", "device").append(4, events((1, 10, 0, 71, 81), features=2))
    store = reopen("device", "country", "page")  # moved, and a new one between
    assert read(store, 4) == [[(1, 10, 0, 81, 0, 71)]]
    store.append(4, events((2, 20, 0, 82, 92, 72), features=3))
    assert read(store, 4) == [[(1, 10, 0, 81, 0, 71), (2, 20, 0, 82, 92, 72)]]
    assert read(reopen("country"), 4) == [[(1, 10, 0, 0), (2, 20, 0, 92)]]
    assert read(reopen(), 4) == [[(1, 10, 0), (2, 20, 0)]]
    assert read(reopen("page", "device"), 4) == [[(1, 10, 0, 71, 81), (2, 20, 0, 72, 82)]]


def test_an_event_counts_once_whatever_features_it_was_stored_with(reopen: Open) -> None:
    reopen("page").append(4, events((1, 10, 0, 71), (1, 10, 0, 72), features=1))
    store = reopen()
    assert read(store, 4) == [[(1, 10, 0)]]
    store.append(4, events((1, 10, 0)))
    assert read(store, 4) == [[(1, 10, 0)]]


@pytest.mark.parametrize("names", ["", "é", "page \N{SNOWMAN}", 'a "quoted"\nline'])
def test_any_text_may_name_a_feature(reopen: Open, names: str) -> None:
    reopen(names).append(4, events((1, 10, 0, 71), features=1))
    assert read(reopen("other", names), 4) == [[(1, 10, 0, 0, 71)]]


def test_events_of_other_features_are_refused(reopen: Open) -> None:
    store = reopen("page", "device")
    with pytest.raises(DataError, match=r"expected 2 context features \(page, device\), found 1"):
        store.append(4, events((1, 10, 0, 5), features=1))
    assert read(store, 4) == [[]]


def test_the_newest_10_000_events_of_a_user_are_kept(reopen: Open) -> None:
    store = reopen()
    rows = [(item, 1_000 + item, 0) for item in range(10_020)]
    store.append(4, events(*rows[:6_000]))
    store.append(5, events((1, 1, 0)))
    store.append(4, events(*rows[6_000:]))
    store.append(4, events((1, 1, 0)))  # older than all that is kept
    expected = [rows[20:], [(1, 1, 0)]]
    assert read(store, 4, 5) == expected
    assert read(reopen(), 4, 5) == expected


def test_fewer_events_are_kept_from_the_next_opening_on(reopen: Open) -> None:
    reopen().append(4, events((1, 10, 0), (2, 20, 0), (3, 20, 0), (4, 20, 0), (5, 30, 0)))
    store = reopen(max_events=3)
    assert read(store, 4) == [[(2, 20, 0), (3, 20, 0), (5, 30, 0)]]
    store.append(4, events((6, 40, 0), (7, 5, 0)))
    assert read(store, 4) == [[(2, 20, 0), (5, 30, 0), (6, 40, 0)]]


def model(appends: Sequence[Sequence[Row]], limit: int) -> list[Row]:
    """What is to be read, in plain Python."""
    came = list(dict.fromkeys(row for rows in appends for row in rows))
    newest = sorted(came, key=lambda row: -row[1])[:limit]
    return sorted((row for row in came if row in newest), key=lambda row: row[1])


rows = st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 1), st.integers(0, 1))
appends = st.lists(st.tuples(st.integers(1, 2), st.lists(rows, max_size=6)), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(appends=appends, again=st.integers(0, 8), limit=st.sampled_from([1, 4, 10_000]))
def test_any_appends_read_as_their_distinct_events_by_time(
    reopen: Open, appends: list[tuple[int, list[Row]]], again: int, limit: int
) -> None:
    base = 2 * next(_places)  # users of this example
    store = reopen("page", max_events=limit)
    for user, given_rows in appends + appends[:again]:
        store.append(base + user, events(*given_rows, features=1))
    expected = [model([given_rows for user, given_rows in appends if user == one], limit) for one in (1, 2)]
    assert read(store, base + 1, base + 2) == expected
    assert read(reopen("page", max_events=limit), base + 1, base + 2) == expected


def test_threads_append_at_once(reopen: Open) -> None:
    store = reopen()

    def append(thread: int) -> None:
        for turn in range(25):
            store.append(turn % 3, events((thread, turn, 0)))
            assert (thread, turn, 0) in read(store, turn % 3)[0]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(8)))
    for found in (read(store, 0, 1, 2), read(reopen(), 0, 1, 2)):
        for user in range(3):
            expected = {(thread, turn, 0) for thread in range(8) for turn in range(25) if turn % 3 == user}
            assert set(found[user]) == expected
            assert [row[1] for row in found[user]] == sorted(row[1] for row in expected)


def test_merged_events_are_sorted_by_time_and_older_come_first() -> None:
    older = events((1, 10, 0, 5), (2, 30, 0, 5), features=1)
    newer = events((3, 20, 0, 5), (2, 30, 0, 5), (2, 30, 0, 6), (4, 10, 0, 5), features=1)
    assert merged(older, newer).rows.tolist() == [
        [1, 10, 0, 5],
        [4, 10, 0, 5],
        [3, 20, 0, 5],
        [2, 30, 0, 5],
        [2, 30, 0, 6],
    ]
    assert len(merged(Events.none(1), Events.none(1))) == 0
