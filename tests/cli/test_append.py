"""A new day through the command line: appended, learned, exported, and made one piece again."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from prismrec.data.store import Store


def test_a_new_day(made: Any, call: Any, tmp_path: Path) -> None:
    store, newer, bundle = (
        Path(shutil.copytree(made.store, tmp_path / "store")),
        tmp_path / "newer",
        tmp_path / "bundle",
    )
    day, items = tmp_path / "day.parquet", tmp_path / "items.parquet"
    users = made.shop.frame["user_id"].unique(maintain_order=True)
    pl.DataFrame({"item_id": ["item 61"], "category": [3], "title": ["Title 61"]}).write_parquet(items)
    pl.DataFrame(
        {
            "customer": [*users, "user new"],
            "item_id": "item 61",
            "timestamp": made.shop.frame["timestamp"].max() + 1,
            "shop": "shop 9",
        }
    ).write_parquet(day)
    appended = call("append", store, "--events", day, "--items", items)
    assert appended.out == f"{store}\n"
    assert "41 new events, 1 new users, 1 new items; now 441 events" in appended.err
    few = ("--set", "train.max_steps=2")
    trained = call("train", store, "--out", newer, "--continue-from", made.run, *few)
    assert (trained.status, trained.out) == (0, f"{newer}\n")
    assert "on 40 targets that are new to it" in trained.err
    assert call("export", newer, "--out", bundle).status == 0
    found = call("recommend", bundle, "--k=5", "--out", tmp_path / "recs.parquet")
    assert found.out.endswith("41 users, 205 recommendations\n")
    assert call("evaluate", newer, "--against", made.run, "--k=5").status == 1  # the other run is on the store it had
    assert call("compact", store, "--out", store).out == f"{store}\n"
    assert (Store.open(store).num_parts, Store.open(store).num_events) == (0, 441)
