"""Lists of recommendations as files: `user_id, item_id, rank` with original ids, ranks from 1.

The one form in which methods hand over what they recommend, wherever they ran. Reading checks all
that the evaluator relies on.
"""

from pathlib import Path

import numpy as np
import polars as pl

from prismrec.data.store import Store
from prismrec.errors import DataError
from prismrec.evaluate.queries import Queries


def write_lists(path: Path, store: Store, user: np.ndarray, rows: np.ndarray) -> None:
    """Write catalogue rows int64 [U, K], best first, 0 where there is none, of the store's users [U]."""
    query, rank = np.nonzero(rows)
    table = pl.DataFrame(
        {
            "user_id": store.user_ids[user[query]],
            "item_id": store.item_ids[rows[query, rank] - 1],
            "rank": rank.astype(np.int32) + 1,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)


def read_lists(path: Path, store: Store, queries: Queries, k: int) -> np.ndarray:
    """Catalogue rows int64 [U, k] of the queries' users in their order, 0 where a list is shorter.

    Raises:
        DataError: the file is missing or lacks a column, or a list is not one of unseen items of the
            catalogue, each once, for a user that was asked about, with ranks 1, 2, 3, ...
    """
    if not path.is_file():
        raise DataError(f"{path}: expected lists of recommendations, found no file; the method did not write them")
    table = pl.read_parquet(path)
    missing = [name for name in ("user_id", "item_id", "rank") if name not in table.columns]
    if missing:
        raise DataError(f"{path}: expected columns user_id, item_id and rank, found no {', '.join(missing)}")
    users = pl.DataFrame({"user_id": store.user_ids[queries.user]}).with_row_index("query")
    items = pl.DataFrame({"item_id": store.item_ids}).with_row_index("row", offset=1)
    placed = table.join(users, on="user_id", how="left").join(items, on="item_id", how="left")
    _refuse(path, placed, pl.col("query").is_null(), "users that were asked about")
    _refuse(path, placed, pl.col("row").is_null(), "items of the catalogue")
    _refuse(path, placed, ~pl.struct("query", "row").is_first_distinct(), "each item once in a list")
    _refuse(path, placed, ~pl.struct("query", "rank").is_first_distinct(), "each rank once in a list")
    too_high = (pl.col("rank") < 1) | (pl.col("rank") > pl.len().over("query"))
    _refuse(path, placed, too_high, "ranks from 1 without gaps")
    query, row, rank = (placed[name].to_numpy().astype(np.int64) for name in ("query", "row", "rank"))
    seen = pl.Series(queries.seen.contains(row, query), dtype=pl.Boolean)
    _refuse(path, placed, seen, "no items that the user had before")
    rows = np.zeros((queries.num_users, k), np.int64)
    kept = rank <= k
    rows[query[kept], rank[kept] - 1] = row[kept]
    return rows


def _refuse(path: Path, table: pl.DataFrame, wrong: pl.Expr | pl.Series, expected: str) -> None:
    found = table.filter(wrong)
    if len(found):
        user, item, rank = found.row(0, named=True)["user_id"], found["item_id"][0], found["rank"][0]
        raise DataError(
            f"{path}: expected {expected}, but {len(found):,} of {len(table):,} rows differ, first "
            f"user_id={user!r}, item_id={item!r}, rank={rank}"
        )
