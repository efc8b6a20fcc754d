"""What a store gives back, and that a damaged one does not open."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prismrec.data.store import Store
from prismrec.errors import ArtifactError

ROWS = [("a", 5, 1), ("a", 6, 2), ("a", 5, 3), ("a", 7, 4), ("b", 7, 5), ("c", 5, 6), ("c", 6, 7), ("c", 7, 8)]


@pytest.fixture
def store(make_store) -> Store:
    return make_store(ROWS)


def test_sizes_and_ids(store: Store) -> None:
    assert (store.num_users, store.num_items, store.num_events) == (3, 3, 8)
    assert store.user_ids.to_list() == ["a", "b", "c"]
    assert store.item_ids.to_list() == [5, 6, 7]


def test_bounds_of_splits(store: Store) -> None:
    bounds = {split: [bound.tolist() for bound in store.split_bounds(split)] for split in ("train", "valid", "test")}
    assert bounds == {
        "train": [[0, 4, 5], [2, 5, 6]],
        "valid": [[2, 5, 6], [3, 5, 7]],
        "test": [[3, 5, 7], [4, 5, 8]],
    }


def test_arrays_are_mapped_not_read(store: Store) -> None:
    for array in (store.item, store.time, store.offsets, store.item_features):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable
    assert (store.dwell, store.weight, store.context) == (None, None, None)


def test_files_are_those_of_the_docstring(make_store) -> None:
    events = pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [3], "dwell": [4], "weight": [5], "shop": [6]})
    wanted = {"manifest.json", "users.parquet", "items.parquet", "item_features.npy", "offsets.npy", "valid_start.npy"}
    wanted |= {"test_start.npy", "item.npy", "time.npy"}
    assert {file.name for file in make_store(ROWS).path.iterdir()} == wanted
    assert {file.name for file in make_store(events).path.iterdir()} == wanted | {
        "dwell.npy",
        "weight.npy",
        "context.npy",
    }


def test_a_changed_file_is_found(store: Store) -> None:
    item = np.load(store.path / "item.npy")
    item[0] += 1
    np.save(store.path / "item.npy", item)
    with pytest.raises(ArtifactError, match=r"item\.npy: does not match its checksum in the manifest; make the store"):
        Store.open(store.path)


def test_a_missing_file_is_found(store: Store) -> None:
    (store.path / "time.npy").unlink()
    with pytest.raises(ArtifactError, match=r"time\.npy: expected by the store's manifest, but missing"):
        Store.open(store.path)


def test_another_format_is_refused(store: Store) -> None:
    manifest = store.manifest | {"format_version": 99}
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="expected a store of format 2, found store of 99"):
        Store.open(store.path)


def test_no_store_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected a store directory, found no manifest\.json"):
        Store.open(tmp_path)
