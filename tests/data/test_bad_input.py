"""Every fault of an input has an outcome: an error that says where, what was expected and what came."""

import io
import re
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from prismrec.config import PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.data.tables import read_table
from prismrec.errors import ArtifactError, ConfigError, DataError

GOOD = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7], "timestamp": [10, 20, 30]})
ITEMS = pl.DataFrame({"item_id": [7, 8], "brand": ["p", "q"]})


def refused(events, items, message: str, error: type[Exception] = DataError, out: Path = Path("unused"), **settings):
    with pytest.raises(error, match=re.escape(message)):
        prepare(events, items, out, PrepareConfig(**settings), Console(quiet=True))


def column(name: str, *values) -> pl.DataFrame:
    return GOOD.with_columns(pl.Series(name, values))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


EVENTS = {
    "no user column": (
        GOOD.rename({"user_id": "household"}),
        "events: expected a column 'user_id', found only household, item_id, timestamp; say which one it is, "
        "for example --columns user_id=household",
    ),
    "no time column": (GOOD.drop("timestamp"), "expected a column 'timestamp', found only user_id, item_id"),
    "null user": (column("user_id", 1, None, 2), "events: column 'user_id', row 2: expected an id, found None"),
    "null users": (column("user_id", None, None, None), "events: column 'user_id', row 1: expected an id, found None"),
    "null item": (column("item_id", 7, 8, None), "events: column 'item_id', row 3: expected an id, found None"),
    "float users": (column("user_id", 1.0, 2.0, 3.0), "column 'user_id': expected integer or text ids, found Float64"),
    "null time": (column("timestamp", 1, None, 2), "column 'timestamp', row 2: expected seconds from 0 up"),
    "negative time": (
        column("timestamp", 1, 5, -2),
        "events: column 'timestamp', row 3: expected seconds from 0 up (not milliseconds), or a datetime from 1970 on, "
        "found -2",
    ),
    "milliseconds": (
        column("timestamp", 1, 1_700_000_000_000, 2),
        "column 'timestamp', row 2: expected seconds from 0 up (not milliseconds), or a datetime from 1970 on, "
        "found 1700000000000",
    ),
    "text that is no time": (
        column("timestamp", "2024-05-06", "2024-05-06 10:00", "May 6th"),
        "column 'timestamp', row 3: expected seconds from 0 up (not milliseconds) in every row, or a datetime from "
        "1970 on, found 'May 6th'",
    ),
    "no such day": (column("timestamp", "2023-02-29", "2024-02-29", "2024-02-29"), "row 1: expected seconds"),
    "float times": (
        column("timestamp", 1.0, 2.0, 3.0),
        "column 'timestamp': expected whole seconds, datetimes or ISO 8601 text, found Float64; convert the column",
    ),
    "negative dwell": (column("dwell", 1, -1, 2), "column 'dwell', row 2: expected seconds from 0 up, found -1"),
    "endless dwell": (column("dwell", 1.0, 2.0, float("inf")), "column 'dwell', row 3: expected seconds from 0 up"),
    "dwell in words": (column("dwell", "5", None, "long"), "column 'dwell', row 3: expected seconds from 0 up"),
    "lists of dwell": (column("dwell", [1], [2], [3]), "column 'dwell': expected numbers, found List(Int64)"),
    "null weight": (
        column("weight", 1.0, None, 2.0),
        "column 'weight', row 2: expected a number from 0 to 3e38, found None",
    ),
    "weight not a number": (column("weight", 1.0, 2.0, float("nan")), "column 'weight', row 3: expected a number"),
    "two of exposure": (
        column("uniform", 1, 2, 0),
        "column 'uniform', row 2: expected true or false, or 1 or 0, found 2",
    ),
    "exposure in words": (column("uniform", "1", None, "yes"), "column 'uniform', row 3: expected true or false"),
    "lists of exposure": (column("uniform", [1], [0], [1]), "column 'uniform': expected numbers, found List(Int64)"),
    "fractions as a feature": (
        column("price", 1.0, 2.5, 3.0),
        "events: column 'price', row 2: expected integers or text as ids; make buckets of numbers, or list only others "
        "in context_features, found 2.5",
    ),
    "endless feature": (column("price", 1.0, float("inf"), 3.0), "column 'price', row 2: expected integers or text"),
    "lists as a feature": (column("tags", [1], [2], [3]), "column 'tags': expected integers or text as ids"),
    "ids of another type": (
        column("item_id", "7", "8", "7"),
        "events: column 'item_id': expected Int64 ids as in the catalogue, found String; convert one",
    ),
    "no rows": (GOOD[:0], "events: expected at least one row, found an empty table"),
    "all items unknown": (
        column("item_id", 1, 2, 3),
        "events: expected events to keep, but all 3 were left out: 3 (item not in catalogue)",
    ),
    "no table": (5, "events: expected a path, a Polars frame or a pandas frame, found int"),
}


@pytest.mark.parametrize(("events", "message"), EVENTS.values(), ids=EVENTS)
def test_bad_events(events, message: str) -> None:
    refused(events, ITEMS, message)
    assert list(Path.cwd().iterdir()) == []


CATALOGUES = {
    "no item column": (ITEMS.drop("item_id"), "items: expected a column 'item_id', found only brand"),
    "null id": (pl.DataFrame({"item_id": [7, None]}), "items: column 'item_id', row 2: expected an id, found None"),
    "an id twice": (
        pl.DataFrame({"item_id": [7, 8, 9, 8, 7]}),
        "items: column 'item_id', row 4: expected each item once, found 8",
    ),
    "no rows": (ITEMS[:0], "items: expected at least one row, found an empty table"),
    "fractions as a feature": (
        ITEMS.with_columns(price=pl.Series([1.0, 9.99])),
        "items: column 'price', row 2: expected integers or text as ids; make buckets of numbers, or name it in "
        "display_columns, found 9.99",
    ),
    "dates as a feature": (
        ITEMS.with_columns(released=pl.date(2024, 1, 1)),
        "items: column 'released': expected integers or text as ids; make buckets of numbers, or name it in "
        "display_columns, found Date",
    ),
    "lists of fractions": (
        ITEMS.with_columns(sizes=pl.Series([[1.5], [2.5]])),
        "items: column 'sizes': expected lists of integers or text as ids, found List(Float64); convert",
    ),
    "a list without end": (
        ITEMS.with_columns(tags=pl.Series([[1], list(range(65))])),
        "items: column 'tags', row 2: expected at most 64 values, or name it in display_columns, found ",
    ),
    "a name of ours": (ITEMS.with_columns(key=1), "items: column 'key': this name is PrismRec's own; rename it"),
}


@pytest.mark.parametrize(("items", "message"), CATALOGUES.values(), ids=CATALOGUES)
def test_bad_items(items: pl.DataFrame, message: str) -> None:
    refused(GOOD, items, message)


def test_bad_settings() -> None:
    refused(GOOD, ITEMS, "expected a column 'shop', found only", context_features=("shop",))
    refused(GOOD, ITEMS, "'timestamp' is a name that PrismRec uses", ConfigError, context_features=("timestamp",))
    refused(GOOD.with_columns(item=1), ITEMS, "--columns event_item=item", ConfigError)
    message = "--columns user_id=customer: expected one of the columns user_id, item_id, timestamp, item_id, brand"
    refused(GOOD, ITEMS, message, ConfigError, columns={"user": "customer"})
    refused(GOOD, ITEMS, "all 3 were left out: 3 (user with few events)", min_user_events=3)


FILES = {
    "no file": ("none.parquet", None, "none.parquet: expected a Parquet or CSV file, found nothing there"),
    "unknown ending": (
        "events.xlsx",
        b"x",
        "events.xlsx: expected files that end in .parquet, or in .csv, found .xlsx",
    ),
    "no ending": ("events", b"x", "events: expected files that end in .parquet, or in .csv, found no ending"),
    "no Parquet": ("events.parquet", b"user_id,item_id\n", "events.parquet: could not be read ("),
    "no bytes": ("events.csv", b"", "events.csv: could not be read (empty CSV)"),
    "header only": ("events.csv", b"user_id,item_id,timestamp\n", "events.csv: expected at least one row, found an"),
    "too many fields": (
        "events.csv",
        b"user_id,item_id,timestamp\n1,2,3\n1,2,3,4\n",
        "events.csv: could not be read (found more fields than defined in 'Schema')",
    ),
    "not UTF-8": (
        "events.csv",
        b"user_id,item_id,timestamp\n\xff,2,3\n",
        "events.csv: could not be read (invalid utf-8 sequence)",
    ),
    "too few fields": (
        "events.csv",
        b"user_id,item_id,timestamp\n1,2,3\n1,2\n",
        "events.csv: column 'timestamp', row 2: expected seconds from 0 up (not milliseconds), or a datetime from "
        "1970 on, found None",
    ),
    "an empty id": ("events.csv", b"user_id,item_id,timestamp\n1,2,3\n,2,3\n", "column 'user_id', row 2: expected"),
    "another separator": ("events.csv", b"user_id;item_id;timestamp\n1;2;3\n", "found only user_id;item_id;timestamp"),
}


@pytest.mark.parametrize(("name", "content", "message"), FILES.values(), ids=FILES)
def test_bad_files(name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    refused(Path(name), None, message)


def test_a_damaged_parquet_file_is_named() -> None:
    Path("events").mkdir()
    for part in ("0", "1"):
        pl.concat([GOOD] * 1000).write_parquet(f"events/{part}.parquet")
    whole = Path("events/1.parquet").read_bytes()
    Path("events/1.parquet").write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    refused(Path("events"), None, "events/1.parquet: could not be read (")
    Path("events/1.parquet").write_bytes(whole[: len(whole) // 2])
    refused(Path("events"), None, "events/1.parquet: could not be read (")


def test_faults_are_located_in_their_file() -> None:
    Path("events").mkdir()
    GOOD.write_parquet("events/0.parquet")
    column("item_id", 7, None, 8).write_parquet("events/1.parquet")
    refused(Path("events"), None, "events/1.parquet: column 'item_id', row 2: expected an id, found None")
    refused(Path("events/*.parquet"), None, "events/1.parquet: column 'item_id', row 2: expected an id, found None")


def test_folders_without_tables_and_with_both_kinds() -> None:
    Path("events").mkdir()
    refused(Path("events"), None, "events: expected Parquet or CSV files, found none")
    refused(Path("events/*.csv"), None, "expected Parquet or CSV files, found none")
    GOOD.write_parquet("events/0.parquet")
    GOOD.write_csv("events/1.csv")
    refused(Path("events"), None, "events: expected files that end in .parquet, or in .csv, found .csv, .parquet")


def test_parts_that_do_not_fit_together() -> None:
    Path("events").mkdir()
    GOOD.write_parquet("events/0.parquet")
    column("user_id", "a", "b", "c").write_parquet("events/1.parquet")
    refused(Path("events"), None, "events: could not be read (")


def test_an_earlier_store_survives_every_failure(tmp_path: Path) -> None:
    out = tmp_path / "store"
    before = prepare(GOOD, ITEMS, out, console=Console(quiet=True)).manifest
    for events, items in ((GOOD[:0], ITEMS), (column("item_id", 1, 2, 3), ITEMS), (GOOD, ITEMS.drop("item_id"))):
        with pytest.raises(DataError):
            prepare(events, items, out, console=Console(quiet=True))
    assert Store.open(out).manifest == before
    assert {path.name for path in tmp_path.iterdir()} == {"store", "work"}


def test_a_directory_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    refused(GOOD, ITEMS, "expected a new path or an earlier store", ArtifactError, tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_unknown_items_are_counted_and_said(tmp_path: Path) -> None:
    written = io.StringIO()
    store = prepare(GOOD, ITEMS[:1], tmp_path / "store", console=Console(file=written))
    assert store.manifest["dropped"] == {"item_not_in_catalogue": 1}
    assert "events left out: 1 (item not in catalogue)" in written.getvalue()


def test_read_table_reads_a_whole_file() -> None:
    GOOD.write_csv("events.csv")
    assert read_table("events.csv").equals(GOOD)
    with pytest.raises(DataError, match=r"none\.csv: expected a Parquet or CSV file"):
        read_table("none.csv")
