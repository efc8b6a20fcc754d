"""The prepared data set: each user's events once, sorted by time, as memory-mapped arrays.

store/
manifest.json       settings, schema, counts, rows dropped, checksums
users.parquet       user_id (original), key; row u is user u
items.parquet       item_id (original), key, feature columns as given; row i is catalogue row i + 1
item_features.npy   int64 [I + 1, F], keys of schema.item_features; row 0 is padding, all zero
offsets.npy         int64 [U + 1], user u owns events offsets[u]:offsets[u + 1], oldest first
valid_start.npy     int64 [U], first validation event of each user
test_start.npy      int64 [U], first test event of each user
item.npy            int32 [N], catalogue row of each event
time.npy            int64 [N], seconds
dwell.npy           int32 [N], seconds, if given       weight.npy  float32 [N], if given
context.npy         int64 [N, C], keys of schema.context_features, if any
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from prismrec.artifact import read_manifest
from prismrec.data.ranges import flat_ranges
from prismrec.data.schema import ITEM, USER, Schema

KIND = "store"
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Store:
    """Read-only view of a prepared data set; arrays are memory-mapped."""

    path: Path
    manifest: dict[str, Any]
    schema: Schema
    item_features: np.ndarray
    offsets: np.ndarray
    valid_start: np.ndarray
    test_start: np.ndarray
    item: np.ndarray
    time: np.ndarray
    dwell: np.ndarray | None
    weight: np.ndarray | None
    context: np.ndarray | None

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open and check a store.

        Raises:
            ArtifactError: the directory is not a store of this format, or a file is missing or damaged.
        """
        manifest = read_manifest(path, KIND)
        schema = Schema.model_validate(manifest["schema"])

        def array(name: str, present: bool = True) -> Any:
            # as a plain view: slices of np.memmap itself cost several times as much
            return np.asarray(np.load(path / f"{name}.npy", mmap_mode="r")) if present else None

        return cls(
            path=path,
            manifest=manifest,
            schema=schema,
            item_features=array("item_features"),
            offsets=array("offsets"),
            valid_start=array("valid_start"),
            test_start=array("test_start"),
            item=array("item"),
            time=array("time"),
            dwell=array("dwell", schema.has_dwell),
            weight=array("weight", schema.has_weight),
            context=array("context", bool(schema.context_features)),
        )

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        return len(self.item_features) - 1

    @property
    def num_events(self) -> int:
        return len(self.item)

    @cached_property
    def users(self) -> pl.DataFrame:
        """Original user ids and keys, in store order."""
        return pl.read_parquet(self.path / "users.parquet")

    @cached_property
    def items(self) -> pl.DataFrame:
        """Original item ids, keys and features, in catalogue order (row 0 here is catalogue row 1)."""
        return pl.read_parquet(self.path / "items.parquet")

    @property
    def user_ids(self) -> pl.Series:
        return self.users[USER]

    @property
    def item_ids(self) -> pl.Series:
        return self.items[ITEM]

    @cached_property
    def item_categories(self) -> np.ndarray:
        """Category keys of every item, coarse and fine, int64 [I, C]; 0 is none."""
        return np.ascontiguousarray(self.item_features[1:, self.schema.category_positions])

    def split_bounds(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """First and one-past-last event of each user in a split, int64 [U] each."""
        starts = {"train": self.offsets[:-1], "valid": self.valid_start, "test": self.test_start}
        ends = {"train": self.valid_start, "valid": self.test_start, "test": self.offsets[1:]}
        return np.asarray(starts[split]), np.asarray(ends[split])

    @cached_property
    def item_counts(self) -> np.ndarray:
        """Training events of each catalogue row, int64 [I + 1]; row 0 is padding."""
        return np.bincount(self.item[flat_ranges(*self.split_bounds("train"))], minlength=self.num_items + 1)
