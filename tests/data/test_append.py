"""What append adds, worked out by hand and against prepare on all events; that nothing is lost, whatever happens."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from prismrec.artifact import alone
from prismrec.config import PrepareConfig
from prismrec.data import sequences
from prismrec.data.append import append
from prismrec.data.compact import compact
from prismrec.data.prepare import prepare
from prismrec.data.schema import stable_keys
from prismrec.data.store import Store
from prismrec.data.targets import find_targets
from prismrec.errors import ArtifactError, ConfigError, DataError

QUIET = Console(quiet=True)
FIRST = [("b", 5, 10), ("b", 6, 20), ("b", 7, 30), ("d", 5, 40)]
SECOND = [("d", 9, 60), ("b", 8, 100), ("a", 5, 30), ("a", 9, 35), ("b", 5, 110)]
COLUMNS = ("item_features", "offsets", "valid_start", "test_start", "item", "time")


def table(rows: list) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def grow(store: Store, rows: list, items: pl.DataFrame | None = None, **options) -> Store:
    return append(store.path, table(rows), items, console=QUIET, **options)


def arrays(store: Store) -> dict[str, list]:
    return {name: np.asarray(getattr(store, name)).tolist() for name in COLUMNS}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_day_by_hand(make_store) -> None:
    store = make_store(FIRST)
    before, files = arrays(store), digests(store.path)
    grown = grow(store, SECOND)
    # Users b and d stay rows 0 and 1, and a follows; items 5, 6 and 7 stay rows 1 to 3, and 8 and 9 follow.
    assert grown.user_ids.to_list() == ["b", "d", "a"]
    assert grown.users["key"].to_list() == stable_keys(["b", "d", "a"]).tolist()
    assert grown.item_ids.to_list() == [5, 6, 7, 8, 9]
    assert arrays(grown) == {
        "item_features": [[0], [6], [7], [8], [9], [10]],
        "offsets": [0, 5, 7, 9],
        "valid_start": [3, 7, 9],  # d's and a's two events are for training
        "test_start": [4, 7, 9],
        "item": [1, 2, 3, 4, 1, 1, 5, 1, 5],
        "time": [10, 20, 30, 100, 110, 40, 60, 30, 35],
    }
    assert grown.manifest["counts"] == {
        "users": 3,
        "items": 5,
        "events": 9,
        "train_events": 7,
        "valid_events": 1,
        "test_events": 1,
        "users_only_in_training": 2,
    }
    assert (grown.manifest["min_time"], grown.manifest["max_time"]) == (10, 110)
    opened = Store.open(store.path)
    assert (arrays(opened), opened.manifest, opened.num_parts) == (arrays(grown), grown.manifest, 1)
    unchanged = {name: digest for name, digest in digests(store.path).items() if name in files}
    assert unchanged == files | {"manifest.json": unchanged["manifest.json"]}
    assert arrays(opened.as_of(0)) == before
    assert opened.as_of(0).manifest == store.manifest


def test_days_that_follow_each_other(make_store) -> None:
    grown = grow(grow(make_store(FIRST), SECOND), [("d", 8, 70), ("a", 5, 40), ("c", 9, 6)])
    assert grown.user_ids.to_list() == ["b", "d", "a", "c"]
    assert grown.offsets.tolist() == [0, 5, 8, 11, 12]
    assert grown.item[:].tolist() == [1, 2, 3, 4, 1, 1, 5, 4, 1, 5, 1, 5]
    assert grown.as_of(1).item[:].tolist() == [1, 2, 3, 4, 1, 1, 5, 1, 5]
    assert grown.catalogue_sizes == [3, 5, 5]


def test_every_column_and_new_items(tmp_path: Path) -> None:
    events = pl.DataFrame(
        {
            "user_id": [1, 1],
            "item_id": [10, 20],
            "timestamp": [5, 6],
            "dwell": [7, 8],
            "weight": [0.5, 1],
            "uniform": [True, False],
            "shop": ["x"] * 2,
        }
    )
    items = pl.DataFrame({"item_id": [10, 20], "category": ["c", "d"], "title": ["Ten", "Twenty"]})
    prepare(events, items, tmp_path / "store", console=QUIET)
    day = pl.DataFrame(
        {
            "user_id": [1, 2, 1],
            "item_id": [30, 99, 20],
            "timestamp": [9, 9, 8],
            "dwell": [1, 2, 3],
            "weight": [2.0, 2, 4],
            "uniform": [0, 0, 1],
            "shop": ["y", "x", None],
            "weather": ["sun"] * 3,
        }
    )
    more = pl.DataFrame({"item_id": [20, 30], "title": ["Other", "Thirty"], "category": ["e", "d"]})
    grown = append(tmp_path / "store", day, more, console=QUIET)
    c, d, x, y = stable_keys(["c", "d", "x", "y"]).tolist()
    assert grown.items["title"].to_list() == ["Ten", "Twenty", "Thirty"]  # what is there stays as it is
    assert grown.item_features.tolist() == [[0, 0], [11, c], [21, d], [31, d]]
    assert grown.item[:].tolist() == [1, 2, 2, 3]
    assert grown.dwell[:].tolist() == [7, 8, 3, 1]
    assert grown.weight[:].tolist() == [0.5, 1, 4, 2]
    assert grown.uniform[:].tolist() == [True, False, True, False]
    whole = Store.open(compact(grown, tmp_path / "whole"))
    assert whole.uniform.tolist() == [True, False, True, False]
    assert grown.context[:].tolist() == [[x], [x], [0], [y]]
    assert grown.manifest["dropped"] == {"item_not_in_catalogue": 1}


def test_events_that_come_late(make_store) -> None:
    store = make_store(FIRST)
    files = digests(store.path)
    with pytest.raises(DataError, match=r"column 'timestamp', row 2: expected a moment after the user's newest event"):
        grow(store, [("a", 5, 1), ("b", 8, 30), ("b", 8, 31)])
    assert {name: digest for name, digest in digests(store.path).items() if name in files} == files
    grown = grow(store, [("a", 5, 1), ("b", 8, 30), ("b", 8, 31)], late="drop")
    assert grown.manifest["dropped"] == {"late": 1}
    assert grown.time[:].tolist() == [10, 20, 30, 31, 40, 1]


def test_a_day_cannot_be_appended_twice(make_store) -> None:
    grown = grow(make_store(FIRST), SECOND)
    with pytest.raises(DataError, match="row 1: expected a moment after"):
        grow(grown, SECOND)
    with pytest.raises(DataError, match=r"all 5 were left out: 5 \(late\)"):
        grow(grown, SECOND, late="drop")
    assert Store.open(grown.path).manifest == grown.manifest


def test_repeats_of_items_bought_before(make_store) -> None:
    grown = grow(make_store(FIRST, repeats="drop"), [("b", 6, 40), ("b", 8, 50), ("b", 8, 60), ("e", 6, 1)])
    assert grown.item[:].tolist() == [1, 2, 3, 4, 1, 2]
    assert grown.manifest["dropped"] == {"repeated_item": 2}


def test_new_users_need_enough_events(make_store) -> None:
    store = make_store(FIRST[:3], min_user_events=2)
    grown = grow(store, [("b", 6, 40), ("e", 6, 1), ("f", 6, 1), ("f", 6, 1), ("g", 6, 1), ("g", 6, 2)])
    assert grown.user_ids.to_list() == ["b", "g"]
    assert grown.manifest["dropped"] == {"user_with_few_events": 3}


def test_a_second_event_that_was_for_training_stays_so(make_store) -> None:
    grown = grow(make_store([("a", 1, 1), ("a", 2, 2), ("b", 1, 1)]), [("a", 3, 3), ("b", 2, 2), ("b", 3, 3)])
    # a: two for training, one for testing; b: one each, since its second was not for training before
    assert (grown.offsets.tolist(), grown.valid_start.tolist(), grown.test_start.tolist()) == (
        [0, 3, 6],
        [2, 4],
        [2, 5],
    )


MOMENTS = {"split": "global_time", "valid_from": 20, "test_from": 30}


def test_moments_stay_unless_others_are_given(make_store) -> None:
    rows = [("a", 1, 10), ("a", 2, 20), ("a", 3, 30), ("b", 1, 15)]
    grown = grow(make_store(rows, **MOMENTS), [("a", 4, 40), ("c", 1, 5)])
    assert (grown.valid_start.tolist(), grown.test_start.tolist()) == ([1, 5, 6], [2, 5, 6])
    grown = grow(grown, [("b", 4, 50)], valid_from=30, test_from=45)
    assert (grown.valid_start.tolist(), grown.test_start.tolist()) == ([2, 5, 7], [4, 5, 7])
    assert grown.manifest["settings"]["valid_from"] == 30


def test_moments_that_make_training_events_validation_are_refused(make_store) -> None:
    store = make_store([("a", 1, 10), ("a", 2, 20), ("a", 3, 30)], **MOMENTS)
    with pytest.raises(DataError, match="found 1 users of whom some would be for validation"):
        grow(store, [("a", 4, 40)], valid_from=10, test_from=30)
    assert not list((store.path / "parts").iterdir())
    with pytest.raises(ConfigError, match="valid_from=30 must be before test_from=30"):
        grow(store, [("a", 4, 40)], valid_from=30)


def test_shares_are_of_all_events(make_store) -> None:
    rows = [("a", item, item) for item in range(1, 7)]
    store = make_store(rows, split="global_time", valid_share=0.2, test_share=0.2)
    grown = grow(store, [("b", item, item) for item in range(7, 11)])
    assert (grown.valid_start.tolist(), grown.test_start.tolist()) == ([6, 6], [6, 8])


@pytest.mark.parametrize(
    ("day", "message"),
    [
        (pl.DataFrame({"user_id": ["a"], "item_id": [1]}), "expected a column 'timestamp'"),
        (pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [1]}), "expected String ids as in the store"),
        (pl.DataFrame({"user_id": ["a"], "item_id": ["1"], "timestamp": [1]}), "column 'item_id': expected Int64 ids"),
        (pl.DataFrame({"user_id": ["a"], "item_id": [1], "timestamp": [-1]}), "row 1: expected seconds from 0 up"),
    ],
)
def test_tables_that_do_not_fit(make_store, day: pl.DataFrame, message: str) -> None:
    store = make_store(FIRST)
    with pytest.raises(DataError, match=message):
        append(store.path, day, console=QUIET)
    assert Store.open(store.path).manifest == store.manifest


def test_names_of_columns_and_text_in_csv_are_as_prepared(tmp_path: Path) -> None:
    for name, text in (("first", "007,x,5\n008,y,6\n"), ("second", "007,y,7\n")):
        (tmp_path / f"{name}.csv").write_text(f"customer,sku,at\n{text}")
    config = PrepareConfig(columns={"user": "customer", "item": "sku", "time": "at"})
    prepare(tmp_path / "first.csv", None, tmp_path / "store", config, QUIET)
    grown = append(tmp_path / "store", tmp_path / "second.csv", console=QUIET)
    assert (grown.user_ids.to_list(), grown.item[:].tolist()) == (["007", "008"], [1, 2, 2])


def test_part_by_part_is_the_same(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files, in parts across them, of which the last loses all its rows."""
    day = [("d", 9, 60), ("b", 5, 100), ("b", 6, 101), ("a", 5, 30), ("a", 9, 35), ("b", 8, 110), ("d", 7, 40)]
    at_once = grow(make_store(FIRST, repeats="drop"), day, late="drop")
    (tmp_path / "day").mkdir()
    for number, rows in enumerate((day[:4], day[4:])):
        table(rows).write_parquet(tmp_path / "day" / f"{number}.parquet")
    whole = make_store(FIRST, repeats="drop")
    monkeypatch.setattr(sequences, "_PART_EVENTS", 2)
    monkeypatch.setattr(sequences, "_BUCKET_EVENTS", 3)
    grown = append(whole.path, tmp_path / "day", late="drop", console=QUIET)
    assert grown.user_ids.to_list() == ["b", "d", "a"]
    assert grown.time[:].tolist() == [10, 20, 30, 110, 40, 60, 30, 35]
    assert grown.manifest["dropped"] == {"late": 1, "repeated_item": 2}
    assert (arrays(grown), grown.manifest) == (arrays(at_once), at_once.manifest)
    assert sorted(path.name for path in (grown.path / "parts" / "000001").iterdir()) == [
        "item.npy",
        "item_features.npy",
        "items.parquet",
        "offsets.npy",
        "time.npy",
        "user.npy",
        "users.parquet",
    ]


EVENTS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 6), st.integers(0, 29)), min_size=4, max_size=60)


@settings(max_examples=30, deadline=None)
@given(
    events=EVENTS,
    repeats=st.sampled_from(["keep", "drop"]),
    split=st.sampled_from(["leave_last_two_out", "global_time"]),
)
def test_days_make_the_store_of_all_events(tmp_path_factory, events, repeats, split) -> None:
    """Histories, splits and targets of every user, whatever the order of rows."""
    days = [[event for event in events if first <= event[2] < first + 10] for first in (0, 10, 20)]
    days = [day for day in days if day]
    folder = tmp_path_factory.mktemp("days")
    last = max(time for _, _, time in events)
    config = PrepareConfig(repeats=repeats, split=split)
    if split == "global_time":
        kept = {event[:2] if repeats == "drop" else event: event[2] for event in sorted(days[0], key=lambda e: -e[2])}
        early = sorted(set(kept.values()))  # of the first event of each pair, if the others are dropped
        if len(early) < 3:
            return
        config = config.model_copy(update={"valid_from": early[1], "test_from": early[2]})
    grown = prepare(table(days[0]), None, folder / "store", config, QUIET)
    known = {event[:2] for event in days[0]}
    for day in days[1:]:
        if repeats == "drop" and known.issuperset(event[:2] for event in day):
            with pytest.raises(DataError, match=r"were left out: \d+ \(repeated item\)$"):
                append(folder / "store", table(day), console=QUIET)
        else:
            grown = append(folder / "store", table(day), console=QUIET)
        known |= {event[:2] for event in day}
    whole = prepare(table(events), None, folder / "whole", config, QUIET)
    assert grown.manifest["max_time"] <= last
    assert read(grown, split) == read(whole, split)
    assert read(Store.open(compact(grown, folder / "compact")), split) == read(whole, split)


def read(store: Store, split: str) -> dict:
    """What a store says of each user, in original ids."""
    items = np.array([0, *store.item_ids.to_list()])
    targets = {new: find_targets(store, before_target_time=True, new_only=new) for new in (False, True)}
    found = {}
    for row, user in enumerate(store.user_ids.to_list()):
        first, last = store.offsets[row], store.offsets[row + 1]
        found[user] = [items[store.item[first:last]].tolist(), store.time[first:last].tolist()]
        if split == "global_time":  # in the other split, a second event that was for training stays so
            found[user] += [int(store.valid_start[row] - first), int(store.test_start[row] - first)]
            for each in targets.values():
                mine = (each.position >= first) & (each.position < last)
                found[user] += [(each.position[mine] - first).tolist(), (each.end[mine] - first).tolist()]
    return found


def test_compaction_keeps_rows_and_positions(make_store, tmp_path: Path) -> None:
    grown = grow(grow(make_store(FIRST), SECOND), [("c", 9, 6)])
    expected, files = arrays(grown), grown.manifest["files"]
    for out in (tmp_path / "other", grown.path):
        whole = Store.open(compact(grown, out))
        assert (arrays(whole), whole.num_parts) == (expected, 0)
        assert (whole.users.rows(), whole.items.rows()) == (grown.users.rows(), grown.items.rows())
        assert whole.manifest["compacted"] == files
        assert not (out / "parts").exists()
    again = grow(whole, [("c", 5, 7)])
    assert again.offsets.tolist() == [0, 5, 7, 9, 11]


def test_what_was_for_training_stays_so_after_compaction(make_store) -> None:
    store = make_store([("a", 5, 10), ("a", 6, 20), ("b", 5, 10)])
    grown = grow(store, [("a", 7, 40)])
    assert grown.valid_start.tolist() == [2, 4]  # a's first two were all there was
    compact(grown, store.path)
    again = grow(store, [("b", 6, 50)])
    assert (again.valid_start.tolist(), again.test_start.tolist()) == ([2, 5], [2, 5])


APPEND_UNTIL_KILLED = """
import os, signal, sys
from pathlib import Path

store, events, event, name = sys.argv[1:]

def watch(happened, arguments):
    path = arguments[1] if happened == "os.rename" else arguments[0] if arguments else ""
    if happened == event and isinstance(path, (str, bytes, os.PathLike)) and name in os.fsdecode(path):
        if happened != "open" or "r" not in str(arguments[1]):
            os.kill(os.getpid(), signal.SIGKILL)

from rich.console import Console
from prismrec.data.append import append
sys.addaudithook(watch)
append(Path(store), Path(events), console=Console(quiet=True))
"""


@pytest.mark.parametrize(
    ("event", "name", "done"),
    [
        ("os.mkdir", "parts/000002", False),
        ("open", "000002/item.npy", False),
        ("open", "000002/user.npy", False),
        ("open", "000002/item_features.npy", False),
        ("open", ".manifest.json", False),
        ("os.rename", "manifest.json", False),
        ("os.remove", ".manifest.json", True),  # after it was put in place
    ],
)
def test_killed_at_any_moment(make_store, tmp_path: Path, event: str, name: str, done: bool) -> None:
    before = grow(make_store(FIRST), SECOND)
    events = tmp_path / "day.parquet"
    table([("d", 8, 70), ("c", 9, 6)]).write_parquet(events)
    program = [sys.executable, "-c", APPEND_UNTIL_KILLED, str(before.path), str(events), event, name]
    assert subprocess.run(program, timeout=120).returncode == -signal.SIGKILL
    found = Store.open(before.path)
    assert found.num_parts == 1 + done
    if not done:
        assert (found.manifest, arrays(found)) == (before.manifest, arrays(before))
        found = append(before.path, events, console=QUIET)
    assert arrays(found) == arrays(Store.open(before.path))
    assert found.offsets.tolist() == [0, 5, 8, 10, 11]
    assert sorted(os.listdir(before.path / "parts")) == ["000001", "000002"]


def test_one_at_a_time(make_store) -> None:
    store = make_store(FIRST)
    with alone(store.path, "store"), pytest.raises(ArtifactError, match="nobody is changing, but another process is"):
        grow(store, SECOND)
    assert grow(store, SECOND).num_parts == 1


def test_no_store_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a store directory, could not open it"):
        append(tmp_path / "none", table(FIRST), console=QUIET)
    with pytest.raises(ArtifactError, match=r"expected a store directory, found no manifest\.json"):
        append(tmp_path, table(FIRST), console=QUIET)
