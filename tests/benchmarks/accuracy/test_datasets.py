"""Data sets are read, prepared and split as the protocol says; the store is made once."""

import numpy as np
import polars as pl
import pytest
from datasets import DATASETS, open_store
from protocol import split_queries

from prismrec.errors import DataError


@pytest.fixture
def data(tmp_path):
    """Two users of five events and one of three, as MovieLens-1M and MovieTweetings come."""
    events = pl.DataFrame(
        {
            "user_id": [1] * 5 + [2] * 5 + [3] * 3,
            "item_id": [10, 20, 30, 40, 50, 50, 40, 30, 20, 10, 10, 20, 30],
            "timestamp": [*range(5), *range(5), *range(3)],
            "rating": [5] * 13,
        }
    )
    items = pl.DataFrame(
        {
            "item_id": [50, 10, 20, 30, 40, 60],
            "title": [f"film {name}" for name in "abcdef"],
            "category": ["Drama|War", "Drama", "War", None, "Drama", "War"],
            "top_category": ["Drama", "Drama", "War", None, "Drama", "War"],
            "decade": ["1990s"] * 6,
            "year": [1991, 1992, 1993, 1994, 1995, 1996],
        }
    )
    for name in ("ml1m", "movietweetings"):
        (tmp_path / "data" / name).mkdir(parents=True)
        events.write_parquet(tmp_path / "data" / name / "interactions.parquet")
        items.write_parquet(tmp_path / "data" / name / "items.parquet")
    return tmp_path / "data"


def test_a_store_holds_the_protocol(data, tmp_path) -> None:
    store = open_store(DATASETS["ml1m"], data, tmp_path / "work")
    assert store.item_ids.to_list() == [50, 10, 20, 30, 40]  # nobody ever chose 60
    assert store.schema.item_features == ("item_id", "category", "category", "top_category", "decade", "year")
    assert store.schema.context_features == ()  # the rating is not one
    queries = split_queries(DATASETS["ml1m"], store, "test")
    np.testing.assert_array_equal(queries.end - queries.start, [4, 4, 2])
    np.testing.assert_array_equal(queries.targets.item, [1, 2, 4])


def test_users_with_few_events_are_left_out_where_the_data_set_says(data, tmp_path) -> None:
    assert open_store(DATASETS["movietweetings"], data, tmp_path / "work").user_ids.to_list() == [1, 2]


def test_sessions_are_runs_of_four_of_one_user(data, tmp_path) -> None:
    store = open_store(DATASETS["sessions"], data, tmp_path / "work")
    assert store.num_users == 2  # one run of each user of five events, none of three
    assert store.item_ids[store.item - 1].to_list() == [10, 20, 30, 40, 50, 40, 30, 20]
    queries = split_queries(DATASETS["sessions"], store, "test")
    np.testing.assert_array_equal(queries.end - queries.start, [3, 3])


def test_long_watches_are_those_before_and_those_of_the_log(tmp_path) -> None:
    folder = tmp_path / "kuairand_pure_part"
    folder.mkdir()
    earlier = pl.DataFrame({"user_id": [1, 2], "long_watch_seq": [[7, 8, 9], None]})
    earlier.write_parquet(folder / "history_meta.parquet")
    shown = {"user_id": [1, 1, 1, 2], "item_id": [6, 5, 4, 5], "timestamp": [30, 20, 10, 10], "long_view": [1, 1, 0, 1]}
    pl.DataFrame(shown).write_parquet(folder / "interactions.parquet")
    store = open_store(DATASETS["long_watches"], tmp_path, tmp_path / "work")
    assert store.user_ids.to_list() == [1]  # the other has fewer than five
    assert store.item_ids[store.item - 1].to_list() == [7, 8, 9, 5, 6]
    assert store.schema.item_features == ("item_id",)


def test_the_store_is_made_once(data, tmp_path) -> None:
    made = open_store(DATASETS["ml1m"], data, tmp_path / "work").path / "manifest.json"
    before = made.stat().st_mtime_ns
    open_store(DATASETS["ml1m"], tmp_path / "not there", tmp_path / "work")
    assert made.stat().st_mtime_ns == before


def test_a_missing_table_is_said(tmp_path) -> None:
    with pytest.raises(DataError, match=r"interactions\.parquet: expected a table of ml1m"):
        open_store(DATASETS["ml1m"], tmp_path, tmp_path / "work")


def test_baskets_are_kept_together() -> None:
    journey = DATASETS["complete_journey"]
    assert journey.before_target_time
    assert (journey.prepare.split, journey.prepare.repeats) == ("global_time", "drop")
