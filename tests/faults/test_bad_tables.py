"""Strange columns in tables of events and items: a right store, or one short line that says where and what."""

import io
import math
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prismrec.config import PrepareConfig
from prismrec.data.append import append
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.errors import DataError, PrismRecError

from .strange import COLUMNS, MIXED, NAMES, fuzzed, integers, leaves_nothing, outcome

EVENTS = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [7, 8, 7, 9], "timestamp": [10, 20, 30, 30]})
ITEMS = pl.DataFrame({"item_id": [7, 8, 9, 10], "category": ["a", "b", "a", None]})
LATEST = 253_402_300_799
QUIET = Console(quiet=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def prepared(folder: Path, events, items=None, **settings) -> Store | PrismRecError:
    """The store, checked against the events; or the refusal, which left nothing."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    found = outcome(lambda: prepare(events, items, folder / "store", PrepareConfig(**settings), QUIET))
    if isinstance(found, PrismRecError):
        assert leaves_nothing(folder)
        return found
    assert found.num_events + sum(found.manifest["dropped"].values()) == len(events)
    assert found.weight is None or np.isfinite(found.weight[:]).all()
    assert np.diff(found.offsets).min() >= 1
    times = np.asarray(found.time[:])
    assert 0 <= times.min() <= times.max() <= LATEST
    return found


def ids_come_back(store: Store, events: pl.DataFrame) -> None:
    for name, ids in (("user_id", store.user_ids), ("item_id", store.item_ids)):
        given = (
            events[name].cast(pl.String) if isinstance(events[name].dtype, pl.Categorical | pl.Enum) else events[name]
        )
        assert ids.dtype == given.dtype
        assert set(ids) == set(given)


ROLES = ("user_id", "item_id", "timestamp", "dwell", "weight", "uniform", "shop")


@fuzzed(250)
@given(changed=st.dictionaries(st.sampled_from(ROLES), COLUMNS, min_size=1, max_size=2), rows=st.integers(0, 4))
def test_strange_columns_of_events(tmp_path_factory, tried, changed, rows) -> None:
    events = EVENTS.with_columns(column.alias(name) for name, column in changed.items())[:rows]
    found = prepared(tmp_path_factory.mktemp("events"), events)
    if isinstance(found, PrismRecError):
        assert any(repr(name) in str(found) for name in changed) or not rows
        assert str(found).startswith("events: ")
    else:
        ids_come_back(found, events)
    tried("tables of events", 1)


@fuzzed(100)
@given(role=st.sampled_from(ROLES), values=MIXED)
def test_strange_values_in_pandas(tmp_path_factory, tried, role, values) -> None:
    events = EVENTS.to_pandas().assign(**{role: pd.Series(values, dtype=object)})
    found = prepared(tmp_path_factory.mktemp("pandas"), events)
    assert not isinstance(found, PrismRecError) or f"events: column {role!r}" in str(found)
    tried("tables of events", 1)


@fuzzed(150)
@given(
    changed=st.dictionaries(st.sampled_from(["item_id", "category", "brand", "tags", "title"]), COLUMNS, max_size=2),
    name=st.none() | NAMES,
)
def test_strange_columns_of_items(tmp_path_factory, tried, changed, name) -> None:
    items = ITEMS.with_columns(column.alias(key) for key, column in changed.items())
    items = items if name is None else items.with_columns(pl.lit("a").alias(name))
    found = prepared(tmp_path_factory.mktemp("items"), EVENTS, items)
    if not isinstance(found, PrismRecError):
        assert found.item_ids.to_list() == items["item_id"].to_list()
        assert found.items.columns[0] == "item_id"
    tried("tables of items", 1)


@fuzzed(60)
@given(name=NAMES, values=COLUMNS)
def test_strange_names_of_columns(tmp_path_factory, tried, name, values) -> None:
    events = EVENTS.with_columns(values.alias(name))
    found = prepared(tmp_path_factory.mktemp("names"), events)
    assert isinstance(found, PrismRecError) or found.schema.context_features == (name,)
    tried("tables of events", 1)


def first_fault(values: list, good) -> int | None:
    """The row, from 1, of the first value that is not good."""
    return next((row for row, value in enumerate(values, 1) if not good(value)), None)


GOOD = {
    "timestamp": (integers | st.integers(0, LATEST), lambda value: 0 <= value <= LATEST),
    "dwell": (
        st.floats() | st.floats(0, 2**31) | st.none(),
        lambda value: value is None or math.isnan(value) or 0 <= value <= 2**31 - 1,
    ),
    "weight": (
        st.floats() | st.floats(0, 1e38) | st.none(),
        lambda value: value is not None and 0 <= value <= float(np.finfo(np.float32).max),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_first_bad_number_is_named(tmp_path_factory, tried, name) -> None:
    values, good = GOOD[name]
    dtype = pl.Int64 if name == "timestamp" else pl.Float64

    @fuzzed(60)
    @given(st.lists(values, min_size=1, max_size=4))
    def check(given: list) -> None:
        events = EVENTS[: len(given)].with_columns(pl.Series(name, given, dtype=dtype))
        found, row = prepared(tmp_path_factory.mktemp("numbers"), events), first_fault(given, good)
        if row is None:
            assert isinstance(found, Store)
        else:
            assert f"events: column {name!r}, row {row}: expected" in str(found)
        tried("tables of events", 1)

    check()


LITERAL = {
    "a weight that float32 has not": (
        {"weight": [1.0, 1e39, 1, 1]},
        "column 'weight', row 2: expected a number from 0",
    ),
    "a moment after all dates": (
        {"timestamp": pl.Series([2**62, 1, 2, 3]).cast(pl.Datetime("ms"))},
        "column 'timestamp', row 1: expected seconds from 0 up (not milliseconds), or a datetime from 1970 on, found "
        "4611686018427387 seconds from 1970 on",
    ),
    "microseconds": ({"timestamp": [1_700_000_000_000_000] * 4}, "column 'timestamp', row 1: expected seconds"),
    "ids of 128 bits": (
        {"user_id": pl.Series([1, 2, 3, 2**100], dtype=pl.Int128)},
        "column 'user_id': expected integer or text ids, found Int128",
    ),
    "a long text": ({"dwell": ["x" * 10**6] * 4}, "column 'dwell', row 1: expected seconds from 0 up, found 'xxx"),
    "a name of ours": ({"__item": [1, 2, 3, 4]}, "'__item' is a name that PrismRec uses itself; list only others"),
    "no name": (
        {"": [1, 2, 3, 4]},
        "events: expected a name for every column, found '' for column 4; rename it, or leave it out (pandas: "
        "to_csv(..., index=False))",
    ),
}


@pytest.mark.parametrize(("columns", "message"), LITERAL.values(), ids=LITERAL)
def test_what_is_said(tmp_path: Path, columns, message) -> None:
    events = EVENTS.with_columns(**{name: pl.Series(values, strict=False) for name, values in columns.items()})
    assert message in str(prepared(tmp_path, events))


def test_a_terminal_obeys_no_name_of_a_column(tmp_path: Path) -> None:
    message = str(prepared(tmp_path, EVENTS.rename({"timestamp": "time\x1b[31m\u202e\n"})))
    assert "found only user_id, item_id, time\\x1b[31m\\u202e\\n; say which one it is" in message


@pytest.mark.parametrize("ahead", [0, 1000])
def test_an_event_of_the_future_is_told_of(tmp_path: Path, ahead: int) -> None:
    """It is the present of everybody's recommendations, which would be others without it."""
    said = io.StringIO()
    newest = pl.Series([10, 20, 30, int(time.time()) + 86_400 * ahead])
    store = prepare(EVENTS.with_columns(timestamp=newest), None, tmp_path / "store", console=Console(file=said))
    assert ("warning: the newest event is 1,000 days in the future" in said.getvalue()) == bool(ahead)
    said.truncate(0)
    append(store.path, EVENTS.with_columns(timestamp=newest + 1)[3:], console=Console(file=said))
    assert ("warning: the newest event is 1,000 days in the future" in said.getvalue()) == bool(ahead)


def test_a_context_feature_may_be_called_row(tmp_path: Path) -> None:
    store = prepared(tmp_path, EVENTS.with_columns(row=pl.Series([1, 2, 3, 4])))
    assert store.schema.context_features == ("row",)
    assert store.context[:].ravel().tolist() == [2, 3, 4, 5]  # a small integer's key is one more


def test_many_columns_are_not_all_listed(tmp_path: Path) -> None:
    events = pl.DataFrame({f"column {number}": [1] for number in range(3000)})
    message = str(prepared(tmp_path, events))
    assert "found only column 0, column 1, " in message
    assert "column 19 and 2,980 more; say which one it is" in message


PANDAS = {
    "two types": ({"user_id": [1, "a", None, 2]}, "events: column 'user_id': could not be read ("),
    "half a character": ({"shop": ["\ud800", "a", "a", "a"]}, "events: column 'shop': could not be read ("),
    "more than 64 bits": ({"item_id": [2**70, 1, 2, 3]}, "events: column 'item_id': could not be read ("),
    "complex": ({"shop": np.array([1j, 2, 3, 4])}, "events: column 'shop': could not be read ("),
    "a zone without a name": (
        {"timestamp": pd.date_range("2024", periods=4, tz="+05:30")},
        "events: column 'timestamp': could not be read (",
    ),
    "no time": (
        {"timestamp": pd.to_datetime(["2024-01-01", None, "2024-01-02", "2024-01-03"])},
        "column 'timestamp', row 2: expected seconds from 0 up (not milliseconds), or a datetime from 1970 on, found N",
    ),
}


@pytest.mark.parametrize(("columns", "message"), PANDAS.values(), ids=PANDAS)
def test_what_is_said_of_pandas(tmp_path: Path, columns, message) -> None:
    columns = {
        name: pd.Series(values, dtype=object) if isinstance(values, list) else values
        for name, values in columns.items()
    }
    assert message in str(prepared(tmp_path, EVENTS.to_pandas().assign(**columns)))


def test_a_column_that_comes_twice(tmp_path: Path) -> None:
    events = EVENTS.to_pandas()
    found = prepared(tmp_path, pd.concat([events, events[["user_id"]]], axis=1))
    assert str(found).startswith("events: could not be read (")


def test_zones_are_moments(tmp_path: Path) -> None:
    moments = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in range(4)]
    events = EVENTS.with_columns(timestamp=pl.Series(moments).dt.convert_time_zone("Asia/Kathmandu"))
    start = int(moments[0].timestamp())
    assert sorted(prepared(tmp_path, events).time[:].tolist()) == [start + 3600 * hour for hour in range(4)]


def test_unsorted_and_repeated_events(tmp_path: Path) -> None:
    events = pl.concat([EVENTS.reverse(), EVENTS, EVENTS])
    store = prepared(tmp_path, events)
    assert store.manifest["dropped"] == {"duplicate": 8}
    assert store.time[:].tolist() == [10, 20, 30, 30]


@pytest.mark.parametrize("title", [[[1], [2]], [b"a", b"b"], [datetime(2024, 1, 1)] * 2, [{"a": 1}] * 2])
def test_a_title_is_one_value_to_show(tmp_path: Path, title) -> None:
    items = pl.DataFrame({"item_id": [7, 8], "title": title})
    assert "items: column 'title': expected text to show, found" in str(prepared(tmp_path, EVENTS, items))


NEWER = EVENTS.with_columns(pl.col("timestamp") + 100, dwell=pl.Series([1, 2, 3, 4]), shop=pl.Series(["a"] * 4))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("append") / "store"
    events = EVENTS.with_columns(dwell=pl.lit(1), shop=pl.lit("a"))
    return prepare(events, ITEMS, out, console=QUIET).path


@fuzzed(120)
@given(
    events=st.dictionaries(st.sampled_from([*ROLES, "row", "__newest"]), COLUMNS, max_size=2),
    items=st.none() | st.dictionaries(st.sampled_from(["item_id", "category", "title"]), COLUMNS, max_size=1),
    late=st.sampled_from(["refuse", "drop"]),
)
def test_strange_columns_of_a_new_day(tmp_path_factory, tried, base, events, items, late) -> None:
    folder = tmp_path_factory.mktemp("day")
    shutil.copytree(base, folder / "store")
    before = (folder / "store" / "manifest.json").read_bytes()
    day = NEWER.with_columns(column.alias(name) for name, column in events.items())
    more = None if items is None else ITEMS.with_columns(column.alias(name) for name, column in items.items())
    found = outcome(lambda: append(folder / "store", day, more, late=late, console=QUIET))
    if isinstance(found, PrismRecError):
        assert (folder / "store" / "manifest.json").read_bytes() == before
        assert not list((folder / "store").glob("parts/*"))
    else:
        dropped = sum(found.manifest["dropped"].values())
        assert found.num_events + dropped == len(EVENTS) + len(day)
    tried("days to append", 1)


def test_an_append_of_another_type_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(DataError, match="column 'user_id': expected Int64 ids as in the store, found String"):
        append(base, NEWER.with_columns(user_id=pl.lit("a")), console=QUIET)
