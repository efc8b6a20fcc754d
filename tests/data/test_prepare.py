"""What prepare writes, worked out by hand and against a sort in plain Python."""

import io
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from prismrec.config import PrepareConfig
from prismrec.data import sequences as module
from prismrec.data.prepare import prepare
from prismrec.data.schema import stable_keys
from prismrec.data.store import Store

EVENTS = pl.DataFrame(
    {
        "user_id": ["b", "a", "b", "a", "b", "a", "c", "b"],
        "item_id": [30, 10, 10, 20, 20, 99, 30, 10],
        "timestamp": [500, 100, 300, 100, 400, 150, 700, 300],
        "dwell": [1.4, None, 2.6, 7.0, 0.0, 3.0, 9.0, 2.6],
        "weight": [1.0, 0.5, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0],
        "shop": ["x", "y", None, "x", "x", "y", "y", None],
        "device": [1, 2, 1, 1, 2, 2, 2, 1],
    }
)
ITEMS = pl.DataFrame(
    {
        "item_id": [30, 10, 20, 40],
        "title": ["Thirty", "Ten", "Twenty", None],
        "colour": ["red", None, "red", "blue"],
        "top_category": [7, 7, 8, 8],
        "brand": ["p", "q", "p", None],
    }
)


def sequences_of(store: Store) -> dict:
    """Each user's (original item, time), in order."""
    items = store.item_ids.to_list()
    bounds = zip(store.user_ids, store.offsets[:-1], store.offsets[1:], strict=True)
    return {user: [(items[store.item[e] - 1], int(store.time[e])) for e in range(a, b)] for user, a, b in bounds}


def test_a_store_by_hand(make_store) -> None:
    store = make_store(EVENTS, ITEMS)
    # The event of item 99 is not in the catalogue; b's second event of item 10 at 300 repeats the first.
    assert store.user_ids.to_list() == ["a", "b", "c"]
    assert store.offsets.tolist() == [0, 2, 5, 6]
    assert store.item.tolist() == [2, 3, 2, 3, 1, 1]
    assert store.time.tolist() == [100, 100, 300, 400, 500, 700]
    assert store.dwell.tolist() == [0, 7, 3, 0, 1, 9]
    assert store.weight.tolist() == [0.5, 1, 2, 1, 1, 1]
    assert store.schema.context_features == ("shop", "device")
    x, y = stable_keys(["x", "y"]).tolist()
    assert store.context.tolist() == [[y, 3], [x, 2], [0, 2], [x, 3], [x, 2], [y, 3]]
    assert store.valid_start.tolist() == [2, 3, 6]
    assert store.test_start.tolist() == [2, 4, 6]
    assert [a.dtype for a in (store.offsets, store.item, store.time, store.dwell, store.weight, store.context)] == [
        np.dtype(kind) for kind in ("int64", "int32", "int64", "int32", "float32", "int64")
    ]


@pytest.mark.parametrize("kind", [pl.Boolean, pl.Int8, pl.Float64, pl.String])
def test_events_of_exposure_at_random_are_marked(make_store, kind: pl.DataType) -> None:
    marks = pl.Series([1, 0, None, 0, 1, 1, 0, 0]).cast(pl.Int8)
    given = marks.cast(pl.Boolean) if kind == pl.Boolean else marks.cast(kind)
    store = make_store(EVENTS.with_columns(uniform=given), ITEMS)
    # a: 10, 20; b: 10 (twice, of equal marks: once), 20, 30; c: 30
    assert store.uniform.tolist() == [False, False, False, True, True, False]
    assert store.schema.has_uniform
    assert store.schema.context_features == ("shop", "device")  # and no feature


def test_marks_in_csv_are_words_or_numbers_and_no_matter_to_a_model(make_store, tmp_path) -> None:
    rows = ["a,7,10,true", "a,8,20,False", "b,7,10,1", "b,8,20,0", "c,7,30,TRUE", "c,8,40,"]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp,uniform", *rows]))
    marked = make_store(tmp_path / "events.csv")
    assert marked.uniform.tolist() == [True, False, True, False, True, False]
    plain = make_store(pl.read_csv(tmp_path / "events.csv").drop("uniform"))
    assert marked.manifest["schema_hash"] == plain.manifest["schema_hash"]


def test_the_catalogue_by_hand(make_store) -> None:
    store = make_store(EVENTS, ITEMS)
    assert store.schema.item_features == ("item_id", "brand", "top_category", "colour")
    assert store.items.columns == ["item_id", "key", "brand", "top_category", "colour", "title"]
    assert store.items["title"].to_list() == ["Thirty", "Ten", "Twenty", None]
    p, q, red, blue = stable_keys(["p", "q", "red", "blue"]).tolist()
    assert store.item_features.tolist() == [
        [0, 0, 0, 0],
        [31, p, 8, red],
        [11, q, 8, 0],
        [21, p, 9, red],
        [41, 0, 9, blue],
    ]
    assert store.items["key"].to_list() == [31, 11, 21, 41]
    assert store.users["key"].to_list() == stable_keys(["a", "b", "c"]).tolist()


def test_the_manifest_by_hand(make_store) -> None:
    manifest = make_store(EVENTS, ITEMS).manifest
    assert manifest["counts"] == {
        "users": 3,
        "items": 4,
        "events": 6,
        "train_events": 4,
        "valid_events": 1,
        "test_events": 1,
        "users_only_in_training": 2,
    }
    assert manifest["dropped"] == {"item_not_in_catalogue": 1, "duplicate": 1}
    assert (manifest["min_time"], manifest["max_time"]) == (100, 700)
    assert manifest["settings"] == PrepareConfig().model_dump(mode="json")


def test_the_summary_says_what_was_kept_and_what_not(tmp_path: Path) -> None:
    written = io.StringIO()
    prepare(EVENTS, ITEMS, tmp_path / "store", console=Console(file=written, width=40))
    first, second, third, fourth = written.getvalue().splitlines()
    assert first == f"{tmp_path / 'store'}: 3 users, 4 items, 6 events (4 train, 1 valid, 1 test)"
    assert second == "  2 users have events for training only"
    assert third == "  events left out: 1 (duplicate), 1 (item not in catalogue)"
    assert fourth.startswith("  8 events read in ")


def test_only_the_first_event_with_an_item_if_asked(make_store) -> None:
    rows = [(1, 5, 10), (1, 6, 20), (1, 5, 30), (2, 5, 5), (1, 7, 40), (1, 6, 50)]
    kept, dropped = make_store(rows), make_store(rows, repeats="drop")
    assert sequences_of(kept)[1] == [(5, 10), (6, 20), (5, 30), (7, 40), (6, 50)]
    assert sequences_of(dropped) == {1: [(5, 10), (6, 20), (7, 40)], 2: [(5, 5)]}
    assert dropped.manifest["dropped"] == {"repeated_item": 2}


def test_users_with_few_events_are_left_out_if_asked(make_store) -> None:
    rows = [(1, 5, 10), (1, 5, 10), (2, 5, 20), (2, 6, 30), (3, 5, 1)]
    store = make_store(rows, min_user_events=2)
    assert sequences_of(store) == {2: [(5, 20), (6, 30)]}
    assert store.manifest["dropped"] == {"duplicate": 1, "user_with_few_events": 2}
    assert store.items["item_id"].to_list() == [5, 6]


def test_without_a_catalogue_the_items_of_the_events_are_it(make_store) -> None:
    store = make_store([(1, "b", 1), (1, "a", 2), (2, "b", 3)])
    assert store.schema.item_features == ("item_id",)
    assert store.item_ids.to_list() == ["a", "b"]
    assert store.item_features[:, 0].tolist() == [0, *stable_keys(["a", "b"])]
    assert store.item.tolist() == [2, 1, 2]


def test_events_that_differ_in_context_are_no_duplicates(make_store) -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [2, 2], "timestamp": [3, 3], "shop": ["x", "y"]})
    assert make_store(events).num_events == 2
    assert make_store(events, context_features=()).manifest["dropped"] == {"duplicate": 1}


def test_only_the_context_features_listed_are_used(make_store) -> None:
    store = make_store(EVENTS, ITEMS, context_features=("device",))
    assert store.schema.context_features == ("device",)
    assert store.context[:, 0].tolist() == [3, 2, 2, 3, 2, 3]
    assert make_store(EVENTS, ITEMS, context_features=()).context is None


def test_columns_of_another_name(make_store) -> None:
    columns = {"user": "customer", "item": "sku", "time": "bought", "brand": "maker"}
    events = EVENTS.select("user_id", "item_id", "timestamp").rename(
        {"user_id": "customer", "item_id": "sku", "timestamp": "bought"}
    )
    store = make_store(events, ITEMS.rename({"brand": "maker"}), columns=columns)
    assert store.schema.item_features == ("item_id", "brand", "top_category", "colour")
    assert sequences_of(store) == sequences_of(make_store(EVENTS, ITEMS))


def test_a_named_column_replaces_one_that_has_its_name_by_chance(make_store) -> None:
    events = pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": ["morning"], "seconds": [7]})
    store = make_store(events, columns={"time": "seconds"})
    assert store.time.tolist() == [7]
    assert store.schema.context_features == ()


def test_names_of_event_columns_leave_the_catalogue_alone(make_store) -> None:
    events = pl.DataFrame({"user_id": [1], "item_id": [2], "year": [7]})
    store = make_store(events, pl.DataFrame({"item_id": [2], "year": [1999]}), columns={"time": "year"})
    assert store.schema.item_features == ("item_id", "year")


TIMES = {
    "integers": [1_700_000_000, 0],
    "text": ["2023-11-14T22:13:20", "1970-01-01 00:00"],
    "text with zones": ["2023-11-15 00:13:20.9+02:00", "1970-01-01T00:00:00Z"],
    "text with short zones": ["2023-11-15 00:13:20+02", "1969-12-31T23:00-0100"],
    "datetimes": [datetime(2023, 11, 14, 22, 13, 20, 999), datetime(1970, 1, 1)],
    "datetimes with a zone": [
        datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))),
        datetime(1970, 1, 1, tzinfo=UTC),
    ],
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_times_become_seconds(make_store, times: list) -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [2, 2], "timestamp": times})
    assert make_store(events).time.tolist() == [0, 1_700_000_000]


@pytest.mark.parametrize("times", [[date(2023, 11, 14), date(1970, 1, 2)], ["2023-11-14", "1970-01-02"]])
def test_days_become_seconds(make_store, times: list) -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [2, 2], "timestamp": times})
    assert make_store(events).time.tolist() == [86_400, 1_699_920_000]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_times_of_any_unit_and_zone(make_store, unit, zone) -> None:
    moment = pl.from_epoch(pl.Series([1_700_000_000]), "s").cast(pl.Datetime(unit))
    moment = moment.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else moment
    events = pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": moment})
    assert make_store(events).time.tolist() == [1_700_000_000]


IDS = {
    "int8": (pl.Series([5, -3], dtype=pl.Int8), pl.Int8),
    "uint64": (pl.Series([2**63 + 5, 2**64 - 1], dtype=pl.UInt64), pl.UInt64),
    "text": (pl.Series(["é", ""]), pl.String),
    "categories": (pl.Series(["b", "a"], dtype=pl.Categorical), pl.String),
    "enum": (pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"])), pl.String),
}


@pytest.mark.parametrize(("ids", "kind"), IDS.values(), ids=IDS)
def test_ids_of_any_width(make_store, ids: pl.Series, kind) -> None:
    events = pl.DataFrame({"user_id": ids, "item_id": ids, "timestamp": [1, 2]})
    store = make_store(events, ids.alias("item_id").to_frame())
    wanted = ids.cast(kind).to_list()
    assert (store.user_ids.dtype, store.item_ids.dtype) == (kind, kind)
    assert store.item_ids.to_list() == wanted
    assert sequences_of(store) == {wanted[0]: [(wanted[0], 1)], wanted[1]: [(wanted[1], 2)]}
    assert store.users["key"].to_list() == stable_keys(sorted(wanted)).tolist()


def test_items_of_a_narrower_type_than_the_events(make_store) -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 300], "timestamp": [1, 2]})
    store = make_store(events, pl.DataFrame({"item_id": pl.Series([7], dtype=pl.Int8)}))
    assert store.manifest["dropped"] == {"item_not_in_catalogue": 1}


def test_features_of_every_kind(make_store) -> None:
    items = pl.DataFrame(
        {
            "item_id": [1, 2],
            "gapped": [3.0, float("nan")],
            "yes": [True, None],
            "nothing": [None, None],
            "kind": pl.Series(["u", "v"], dtype=pl.Categorical),
        }
    )
    store = make_store([(1, 1, 1)], items)
    u, v = stable_keys(["u", "v"]).tolist()
    assert store.item_features.tolist() == [[0] * 5, [2, 4, 2, 0, u], [3, 0, 0, 0, v]]


def test_lists_are_features_of_several_values(make_store) -> None:
    """Each value once, in its order, in as many columns as the longest list needs; null and empty lists are none."""
    items = pl.DataFrame(
        {
            "item_id": [1, 2, 3, 4],
            "tags": [["a", "b", "a"], None, [], [None, "c"]],
            "years": [[1999], [2000, 2001], None, None],
            "kinds": pl.Series([["u"], ["v"], [], None], dtype=pl.List(pl.Categorical)),
            "nothing": pl.Series([[], None, [], []], dtype=pl.List(pl.Null)),
            "shade": [5, 6, 7, 8],
        }
    )
    store = make_store([(1, 1, 1)], items)
    assert store.schema.item_features == (*("item_id", "tags", "tags", "years", "years", "kinds", "nothing", "shade"),)
    a, b, c, u, v = stable_keys(["a", "b", "c", "u", "v"]).tolist()
    assert store.item_features.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [2, a, b, 2000, 0, u, 0, 6],
        [3, 0, 0, 2001, 2002, v, 0, 7],
        [4, 0, 0, 0, 0, 0, 0, 8],
        [5, c, 0, 0, 0, 0, 0, 9],
    ]


def test_columns_to_show_may_be_of_any_type(make_store) -> None:
    items = pl.DataFrame({"item_id": [1], "price": [2.5], "tags": [["a", "b"]], "title": ["T"]})
    store = make_store([(1, 1, 1)], items, display_columns=("price", "tags", "missing"))
    assert store.schema.item_features == ("item_id", "title")
    assert store.items.row(0, named=True)["tags"] == ["a", "b"]


SOURCES = ["frame", "lazy frame", "pandas", "parquet", "csv", "folder", "glob"]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_the_same_store(make_store, tmp_path: Path, kind: str) -> None:
    expected = make_store(EVENTS, ITEMS)
    EVENTS.write_parquet(tmp_path / "events.parquet")
    EVENTS.write_csv(tmp_path / "events[1].csv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "_SUCCESS").touch()
    EVENTS[:3].write_parquet(tmp_path / "folder" / "part-0.parquet")
    EVENTS[3:].write_parquet(tmp_path / "folder" / "part-1.parquet")
    source = {
        "frame": EVENTS,
        "lazy frame": EVENTS.lazy(),
        "pandas": EVENTS.to_pandas(),
        "parquet": tmp_path / "events.parquet",
        "csv": str(tmp_path / "events[1].csv"),
        "folder": tmp_path / "folder",
        "glob": tmp_path / "folder" / "part-*.parquet",
    }[kind]
    found = make_store(source, ITEMS)
    assert found.manifest["files"] == expected.manifest["files"]
    assert found.manifest["schema_hash"] == expected.manifest["schema_hash"]


def test_the_index_of_a_pandas_frame_is_no_column(make_store) -> None:
    events = pd.DataFrame({"user_id": [1], "item_id": [2], "timestamp": pd.to_datetime([5], unit="s")}, index=["r"])
    store = make_store(events)
    assert (store.time.tolist(), store.schema.context_features) == ([5], ())


def test_ids_in_csv_keep_their_leading_zeros(make_store, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n007,12,5\n12,-3,6\n")
    store = make_store(tmp_path / "events.csv")
    assert store.user_ids.to_list() == ["007", "12"]
    assert store.item_ids.to_list() == [-3, 12]


@pytest.mark.parametrize("which", ["events", "items"])
def test_ids_in_csv_are_text_if_those_of_the_other_table_are(make_store, tmp_path: Path, which: str) -> None:
    tables = {
        "events": pl.DataFrame({"user_id": [1, 1], "item_id": ["12", "7"], "timestamp": [5, 6]}),
        "items": pl.DataFrame({"item_id": ["7", "12"]}),
    }
    tables[which].write_csv(tmp_path / "table.csv")
    store = make_store(**(tables | {which: tmp_path / "table.csv"}))
    assert store.item_ids.to_list() == ["7", "12"]
    assert store.item.tolist() == [2, 1]


def test_the_schema_hash_changes_with_the_schema_only(make_store) -> None:
    def schema_hash(*args, **settings) -> str:
        return make_store(*args, **settings).manifest["schema_hash"]

    assert schema_hash(EVENTS, ITEMS) == schema_hash(EVENTS[:4], ITEMS[:3])
    assert schema_hash(EVENTS, ITEMS) != schema_hash(EVENTS.drop("dwell"), ITEMS)
    assert schema_hash(EVENTS, ITEMS) != schema_hash(EVENTS, ITEMS.drop("brand"))


def test_an_earlier_store_is_replaced(tmp_path: Path) -> None:
    for rows in (EVENTS, EVENTS[:4]):
        store = prepare(rows, ITEMS, tmp_path / "store", console=Console(quiet=True))
    assert store.num_events == 4
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert not [path for path in store.path.iterdir() if path.is_dir()]


def test_ties_keep_the_order_of_large_files(make_store, tmp_path: Path) -> None:
    row = pl.int_range(100_000, eager=True)
    for part in range(2):
        events = pl.DataFrame({"user_id": row % 100, "item_id": row // 100 + 1000 * part, "timestamp": 7})
        events.write_parquet(tmp_path / f"{part}.parquet", row_group_size=3_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BUCKET_EVENTS", 30_000)
        store = make_store(tmp_path)
    assert store.item.reshape(100, 2000).tolist() == [list(range(1, 2001))] * 100


SMALL_EVENTS = st.lists(
    st.tuples(st.integers(-2, 5), st.sampled_from("abcde"), st.integers(0, 6), st.sampled_from([None, "x", "y"])),
    min_size=1,
    max_size=60,
).filter(lambda rows: any(item != "e" for _, item, _, _ in rows))


@settings(max_examples=60, deadline=None)
@given(rows=SMALL_EVENTS, bucket=st.integers(1, 20), repeats=st.sampled_from(["keep", "drop"]))
def test_every_event_lands_once_and_in_order(make_store, rows, bucket, repeats) -> None:
    """Against plain Python, with buckets so small that users are dealt into many."""
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "shop"], orient="row")
    events = events.cast({"shop": pl.String})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BUCKET_EVENTS", bucket)
        store = make_store(events, pl.DataFrame({"item_id": list("dcba")}), repeats=repeats)
        left_out = store.manifest["dropped"]

    known = [row for row in rows if row[1] != "e"]
    distinct = list(dict.fromkeys(known))
    expected: dict[int, list] = {user: [] for user in sorted({row[0] for row in known})}
    for user, item, time, _ in sorted(distinct, key=lambda row: row[2]):  # stable: ties keep their order
        if repeats == "keep" or item not in [item for item, _ in expected[user]]:
            expected[user].append((item, time))
    assert sequences_of(store) == expected
    assert left_out.get("item_not_in_catalogue", 0) == len(rows) - len(known)
    assert left_out.get("duplicate", 0) == len(known) - len(distinct)
    assert sum(left_out.values()) + store.num_events == len(rows)
