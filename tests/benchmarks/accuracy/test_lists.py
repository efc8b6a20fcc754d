"""Lists go to a file and come back; whatever the evaluator could not trust is refused."""

import numpy as np
import polars as pl
import pytest
from lists import read_lists, write_lists

from prismrec.errors import DataError


@pytest.fixture
def asked(make_task):
    task = make_task()
    return task, task.queries["test"], task.lists_path("test")


def unseen(queries, query):
    seen = set(queries.seen[query : query + 1].item)
    return [row for row in range(1, 121) if row not in seen]


def test_lists_come_back_as_they_were(asked) -> None:
    task, queries, path = asked
    rows = np.zeros((queries.num_users, 3), np.int64)
    rows[0], rows[5, :2] = unseen(queries, 0)[:3], unseen(queries, 5)[:2]
    write_lists(path, task.store, queries.user, rows)
    assert pl.read_parquet(path).columns == ["user_id", "item_id", "rank"]
    np.testing.assert_array_equal(read_lists(path, task.store, queries, 3), rows)
    np.testing.assert_array_equal(read_lists(path, task.store, queries, 2), rows[:, :2])


def test_a_missing_file_is_said(asked) -> None:
    task, queries, path = asked
    with pytest.raises(DataError, match="found no file"):
        read_lists(path, task.store, queries, 3)


def test_missing_columns_are_said(asked, tmp_path) -> None:
    task, queries, _ = asked
    pl.DataFrame({"user_id": [1000]}).write_parquet(tmp_path / "short.parquet")
    with pytest.raises(DataError, match="found no item_id, rank"):
        read_lists(tmp_path / "short.parquet", task.store, queries, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": 7}, "users that were asked about"),
        ({"item_id": 9999}, "items of the catalogue"),
        ({"rank": 3}, "ranks from 1 without gaps"),
        ({"rank": 0}, "ranks from 1 without gaps"),
        ({"rank": 1}, "each rank once"),
    ],
)
def test_a_wrong_row_is_refused(asked, tmp_path, change, message) -> None:
    task, queries, _ = asked
    good = [task.store.item_ids[row - 1] for row in unseen(queries, 0)[:2]]
    rows = [{"user_id": 1000, "item_id": good[0], "rank": 1}, {"user_id": 1000, "item_id": good[1], "rank": 2} | change]
    pl.DataFrame(rows).write_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match=message):
        read_lists(tmp_path / "wrong.parquet", task.store, queries, 3)


def test_repeated_and_seen_items_are_refused(asked, tmp_path) -> None:
    task, queries, _ = asked
    path, good = tmp_path / "wrong.parquet", task.store.item_ids[unseen(queries, 0)[0] - 1]
    pl.DataFrame({"user_id": [1000, 1000], "item_id": [good, good], "rank": [1, 2]}).write_parquet(path)
    with pytest.raises(DataError, match="each item once"):
        read_lists(path, task.store, queries, 3)
    seen = task.store.item_ids[int(queries.seen[0:1].item[0]) - 1]
    pl.DataFrame({"user_id": [1000], "item_id": [seen], "rank": [1]}).write_parquet(path)
    with pytest.raises(DataError, match="no items that the user had before"):
        read_lists(path, task.store, queries, 3)
