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
uniform.npy         bool [N], whether an event came of exposure at random, if given
parts/000001/       what was appended first, if anything; nothing above changes but for the manifest
  user.npy          int64 [P], rows of the users with events in this part, old or new
  offsets.npy       int64 [P + 1], the events of user[p] in this part, newer than those of all earlier parts
  users.parquet, items.parquet, item_features.npy      only those that are new; their rows follow the old ones
  item.npy, time.npy and so on      of the events of this part

`Store` shows all of it as one: with parts, `offsets`, `valid_start` and `test_start` are worked out on opening, and
columns of events are `SplicedArray`s. The manifest then also lists what it said after each part, from the first
state, without parts, on ("states"), and `as_of` shows an earlier one. Positions of events mean something in one
state only; rows of users and items stay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from prismrec.artifact import fitting_parts, listed_file, read_manifest
from prismrec.data.columns import LATEST
from prismrec.data.parquet import read_parquet
from prismrec.data.ranges import flat_ranges
from prismrec.data.schema import ITEM, USER, Schema
from prismrec.data.spliced import EventArray, SplicedArray, pieces_of, splice
from prismrec.data.split import starts_at
from prismrec.errors import ArtifactError, shown

KIND = "store"
PARTS = "parts"
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Store:
    """Read-only view of a prepared data set; arrays are memory-mapped, but for small ones of a store with parts."""

    path: Path
    manifest: dict[str, Any]
    schema: Schema
    item_features: np.ndarray
    offsets: np.ndarray
    valid_start: np.ndarray
    test_start: np.ndarray
    item: EventArray
    time: EventArray
    dwell: EventArray | None
    weight: EventArray | None
    context: EventArray | None
    uniform: EventArray | None = None

    @classmethod
    def open(cls, path: Path, *, checksums: bool = True) -> "Store":
        """Open and check a store.

        Args:
            path: the directory.
            checksums: check them, see `read_manifest`; otherwise only sizes.

        Raises:
            ArtifactError: the directory is not a store of this format, or a file is missing or damaged.
        """
        manifest = read_manifest(path, KIND, checksums=checksums)
        with fitting_parts(path, KIND):
            store = cls.view(path, manifest)
            if checksums:
                _check_events(store)
            return store

    @classmethod
    def view(cls, path: Path, manifest: dict[str, Any]) -> "Store":
        """The store that a manifest describes, without a check."""
        schema = Schema.model_validate(manifest["schema"])
        if not isinstance(newest := manifest["max_time"], int) or not 0 <= newest <= LATEST:
            raise ArtifactError(f"{path}: expected seconds as max_time, found {shown(newest)}; make the store again")
        folders = _folders(path, manifest)
        small, column = _plain(folders[0]) if len(folders) == 1 else _spliced(path, folders, manifest)
        return cls(
            path=path,
            manifest=manifest,
            schema=schema,
            **small,
            item=column("item"),
            time=column("time"),
            dwell=column("dwell") if schema.has_dwell else None,
            weight=column("weight") if schema.has_weight else None,
            context=column("context") if schema.context_features else None,
            uniform=column("uniform") if schema.has_uniform else None,
        )

    @property
    def num_parts(self) -> int:
        """How often something was appended."""
        return len(_folders(self.path, self.manifest)) - 1

    def as_of(self, num_parts: int) -> "Store":
        """The store as it was when it had so many parts."""
        if num_parts == self.num_parts:
            return self
        return Store.view(self.path, earlier_manifest(self.manifest, num_parts))

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        return len(self.item_features) - 1

    @property
    def catalogue_sizes(self) -> list[int]:
        """Number of items, at first and after each part; compaction does not forget them."""
        return list(self.manifest.get("catalogue_sizes", [self.num_items]))

    @property
    def num_events(self) -> int:
        return len(self.item)

    @cached_property
    def users(self) -> pl.DataFrame:
        """Original user ids and keys, in store order."""
        return self._table("users")

    @cached_property
    def items(self) -> pl.DataFrame:
        """Original item ids, keys and features, in catalogue order (row 0 here is catalogue row 1)."""
        return self._table("items")

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

    def _table(self, name: str) -> pl.DataFrame:
        return read_parquet([folder(f"{name}.parquet") for folder in _folders(self.path, self.manifest)])


def part_name(number: int) -> str:
    """Where the n-th part is in a store, from 1 on."""
    return f"{PARTS}/{number:06d}"


def earlier_manifest(manifest: dict[str, Any], num_parts: int) -> dict[str, Any]:
    """What a store's manifest was when the store had so many parts."""
    states = manifest["states"][: num_parts + 1]
    left = tuple(f"{part_name(number)}/" for number in range(num_parts + 1, len(manifest["states"])))
    files = {name: described for name, described in manifest["files"].items() if not name.startswith(left)}
    written = {"kind": manifest["kind"], "format_version": manifest["format_version"], "files": files}
    return written | states[-1] | ({"states": states} if num_parts else {})


def _check_events(store: Store) -> None:
    """Refuse arrays that are each as written, but not of one store: none of its readers looks again."""
    bounds = (store.offsets[:-1], store.valid_start, store.test_start, store.offsets[1:])
    in_order = store.offsets[0] == 0 and all(bool((before <= after).all()) for before, after in pairwise(bounds))
    columns = (store.time, store.dwell, store.weight, store.context, store.uniform)
    lengths = {int(store.offsets[-1]), store.num_events, *(len(column) for column in columns if column is not None)}
    pieces = [piece for piece in pieces_of(store.item) if len(piece)]
    known = all(piece.min() >= 1 and piece.max() <= store.num_items for piece in pieces)
    if not in_order or len(lengths) > 1 or not known:
        raise ArtifactError(
            f"{store.path}: expected each user's events, of items of its catalogue, found others; make it again"
        )


_Folder = Callable[[str], Path]
"""Gives the file of a name in the store, or in one of its parts, that the manifest lists."""


def _folders(path: Path, manifest: dict[str, Any]) -> list[_Folder]:
    """The directory of the store, then those of its parts."""
    num_parts = max(len(manifest.get("states", ())) - 1, 0)
    names = ["", *(f"{part_name(number)}/" for number in range(1, num_parts + 1))]

    def folder(prefix: str) -> _Folder:
        return lambda name: listed_file(path, manifest, prefix + name)

    return [folder(name) for name in names]


def _array(folder: _Folder, name: str) -> np.ndarray:
    # as a plain view: slices of np.memmap itself cost several times as much
    return np.asarray(np.load(folder(f"{name}.npy"), mmap_mode="r"))


def _plain(folder: _Folder) -> tuple[dict[str, np.ndarray], Callable[[str], EventArray]]:
    """The small arrays of a store without parts, and what gives its columns."""
    small = {name: _array(folder, name) for name in ("item_features", "offsets", "valid_start", "test_start")}
    return small, partial(_array, folder)


def _spliced(
    path: Path, folders: list[_Folder], manifest: dict[str, Any]
) -> tuple[dict[str, np.ndarray], Callable[[str], EventArray]]:
    """Likewise of a store with parts."""
    bounds = [_array(folder, "offsets") for folder in folders]
    users = [np.arange(len(bounds[0]) - 1), *(_array(folder, "user") for folder in folders[1:])]
    num_users, most = manifest["counts"]["users"], sum(map(len, users))
    if not max(int(each.max(initial=-1)) for each in users) + 1 == num_users <= most:  # before memory is taken for them
        raise ArtifactError(f"{path}: expected the users of its parts, found {shown(num_users)}; make it again")
    order, offsets = splice(users, bounds, num_users)

    def column(name: str) -> EventArray:
        return SplicedArray([_array(folder, name) for folder in folders], order)

    trained = _trained(users, bounds, _array(folders[0], "valid_start"), len(offsets) - 1)
    valid_start, test_start = starts_at(offsets, column("time"), manifest["moments"], trained)
    features = np.concatenate([_array(folder, "item_features") for folder in folders])
    small = {"item_features": features, "offsets": offsets, "valid_start": valid_start, "test_start": test_start}
    return small, column


def _trained(
    users: list[np.ndarray], bounds: list[np.ndarray], first_valid_start: np.ndarray, num_users: int
) -> np.ndarray:
    """Events of each user that were for training before the last part came, int64 [U], where the last two are left out.

    A user's second event of two is, though it would be the one for validation as soon as a third follows. What was
    for training before the store was compacted is known from where validation begins in its first piece.
    """
    events, trained = np.zeros((2, num_users), np.int64)
    trained[: len(first_valid_start)] = first_valid_start - bounds[0][:-1]
    for user, offsets in zip(users[:-1], bounds[:-1], strict=True):
        events[user] += np.diff(offsets)
        now = np.where(events[user] < 3, events[user], events[user] - 2)
        trained[user] = np.maximum(trained[user], now)
    return trained
