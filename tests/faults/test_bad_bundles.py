"""Stores, runs and bundles whose checksums are right but whose content is not: opened, or refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prismrec.artifact import MANIFEST, describe_files, replace_manifest
from prismrec.config import Config
from prismrec.data.append import append
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, PrismRecError
from prismrec.export.reader import open_bundle
from prismrec.model.run import load_run, tie_to_store
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import open_host
from prismrec.serve.settings import ServeConfig
from prismrec.toml import override
from prismrec.train.continuation import open_earlier_run
from prismrec.train.trainer import train
from prismrec.train.warm_start import open_older_run

from ..serve.conftest import EVENTS, NUM_ITEMS
from .strange import fuzzed, nested, outcome

QUIET = Console(quiet=True)
SETTINGS = {
    "model.embedding_dim": 8,
    "model.encoder.kind": "none",
    "loss.queue_size": 16,
    "train.batch_size": 16,
    "train.max_steps": 2,
    "train.device": "cpu",
}


def open_run(path: Path) -> None:
    load_run(path)
    open_earlier_run(path)
    open_older_run(path)


OPEN: dict[str, Callable[[Path], object]] = {
    "store": Store.open,
    "grown": Store.open,
    "run": open_run,
    "bundle": open_bundle,
}


@pytest.fixture(scope="module")
def folder(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each, which the tests change and put right again."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(bundle, folder / "bundle")
    for name in ("store", "grown"):
        shutil.copytree(bundle / "store", folder / name)
    later = EVENTS.with_columns(timestamp=EVENTS["timestamp"] + 10**7)
    append(folder / "grown", later, console=QUIET)
    train(folder / "store", folder / "run", override(Config(), SETTINGS), console=QUIET)
    tie_to_store(folder / "run", "../store")
    return folder


def draw_place(data: st.DataObject, manifest: dict[str, Any]) -> tuple[Any, Any]:
    """A mapping or list anywhere in a manifest, and one of its keys; not where files and checksums are."""
    section, key = manifest, data.draw(st.sampled_from([key for key in manifest if key not in ("files", "sha256")]))
    while isinstance(section[key], dict | list) and section[key] and data.draw(st.booleans()):
        section = section[key]
        key = data.draw(st.sampled_from([*section] if isinstance(section, dict) else range(len(section))))
    return section, key


TEXTS = ["", ".", "..", "/", "\0", "a\nb", "\ud800", "\u202e", "x" * 10**6, "flat", "ivf_pq", "item_id", "../bundle"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2, 2**31, 2**63, 10**12, 2**70, 10**400])
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(TEXTS)
    | st.text(st.characters(), max_size=6)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def check(open_it: Callable[[Path], object], path: Path) -> None:
    found = outcome(lambda: open_it(path))
    if isinstance(found, PrismRecError):
        assert "\n" not in str(found)
        assert str(path.parent) in str(found)


@pytest.mark.parametrize("name", OPEN)
@fuzzed(100)
@given(st.data())
def test_a_manifest_with_anything_in_one_place(folder: Path, tried, name: str, data: st.DataObject) -> None:
    directory = folder / name
    before = (directory / MANIFEST).read_text()
    manifest = json.loads(before)
    section, key = draw_place(data, manifest)
    if data.draw(st.integers(0, 9)) == 0:
        del section[key]
    else:
        section[key] = data.draw(VALUES)
    try:
        replace_manifest(directory, manifest)
        check(OPEN[name], directory)
    finally:
        (directory / MANIFEST).write_text(before)
    tried("changed manifests")


@pytest.mark.parametrize("users", [3, 10**7, 10**12])
def test_no_memory_is_taken_for_users_that_no_part_has(folder: Path, tmp_path: Path, users: int) -> None:
    store = Path(shutil.copytree(folder / "grown", tmp_path / "store"))
    manifest = json.loads((store / MANIFEST).read_text())
    replace_manifest(store, {**manifest, "counts": {**manifest["counts"], "users": users}})
    with pytest.raises(ArtifactError, match=f"store: expected the users of its parts, found {users}"):
        Store.open(store)


def describe_anew(directory: Path, file: Path) -> None:
    """Let all manifests that have a file, innermost first, have its size and checksum."""
    for above in file.parents:
        if (above / MANIFEST).is_file() and above.is_relative_to(directory):
            manifest = json.loads((above / MANIFEST).read_text())
            files = [above / name for name in manifest["files"]]
            replace_manifest(above, {**manifest, "files": describe_files(above, files)})


@pytest.mark.parametrize("name", OPEN)
@fuzzed(60)
@given(st.data())
def test_a_file_of_other_content(folder: Path, tried, name: str, data: st.DataObject) -> None:
    directory = folder / name
    manifests = {path: path.read_bytes() for path in directory.rglob(MANIFEST)}
    listed = [path.parent / file for path, content in manifests.items() for file in json.loads(content)["files"]]
    files = sorted({file for file in listed if file.name != MANIFEST})
    others = sorted(path for path in folder.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    before = file.read_bytes()
    other = st.sampled_from(others).map(Path.read_bytes)
    content = data.draw(other | st.binary(max_size=300) | st.just(before[: len(before) // 2]))
    try:
        file.unlink()  # what was mapped into memory stays as it was
        file.write_bytes(content)
        describe_anew(directory, file)
        check(OPEN[name], directory)
    finally:
        file.write_bytes(before)
        for path, content in manifests.items():
            path.write_bytes(content)
    tried("files of other content")


def read_store(path: Path) -> None:
    store = Store.open(path)
    assert store.users.height
    assert store.items.height


READ = {**OPEN, "store": read_store, "grown": read_store}


@pytest.mark.parametrize("name", READ)
def test_nothing_is_opened_that_the_manifest_does_not_list(folder: Path, tmp_path: Path, name: str) -> None:
    """Nobody has checked it, and it may be a link to anywhere."""
    elsewhere = tmp_path / "elsewhere"
    directory = Path(shutil.copytree(folder / name, tmp_path / name))
    if name == "run":
        shutil.copytree(folder / "store", tmp_path / "store")
    manifest = json.loads((directory / MANIFEST).read_text())
    unread = ("user_vectors.parquet", "test_start.npy" if name == "grown" else "")
    needed = [file for file in manifest["files"] if not file.startswith("store/") and file not in unread]
    needed += [f"store/{MANIFEST}"] * (name == "bundle")
    assert len(needed) >= 2
    for file in needed:
        listed = {other: described for other, described in manifest["files"].items() if other != file}
        replace_manifest(directory, {**manifest, "files": listed})
        (directory / file).rename(elsewhere)
        (directory / file).symlink_to(elsewhere)
        with pytest.raises(ArtifactError, match=r"expected (weights )?in manifest\.json, which does not list"):
            READ[name](directory)
        elsewhere.replace(directory / file)


def serve(path: Path) -> None:
    open_host(path, ServeConfig(), Metrics(), events=str(path.with_suffix(".events"))).close()


def save(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(file, change(np.load(file)))


def describe(directory: Path, **content: object) -> None:
    """Change what a manifest says, and let all above it have its checksum."""
    manifest = json.loads((directory / MANIFEST).read_text())
    replace_manifest(directory, {**manifest, **content})


def by_distance(bundle: Path) -> None:
    vectors = open_bundle(bundle).index.vectors(np.arange(1, NUM_ITEMS + 1))
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    (bundle / "index.faiss").unlink()
    faiss.write_index(index, str(bundle / "index.faiss"))


def of_cells(bundle: Path) -> None:
    index = json.loads((bundle / MANIFEST).read_text())["index"]
    describe(bundle, index={**index, "kind": "ivf_pq"})


def other_dimension(bundle: Path) -> None:
    text = (bundle / "config.toml").read_text()
    (bundle / "config.toml").write_text(text.replace("embedding_dim = 16", "embedding_dim = 8"))


def nested_items(bundle: Path) -> None:
    file = bundle / "store" / "items.parquet"
    table = pl.read_parquet(file).to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(table.append_column("deep", pa.nulls(NUM_ITEMS, nested(3000))), file, store_schema=False)


def without_keys(bundle: Path) -> None:
    file = bundle / "store" / "items.parquet"
    pl.read_parquet(file).drop("item_id").write_parquet(file)


def fewer_users(bundle: Path) -> None:
    file = bundle / "store" / "users.parquet"
    pl.read_parquet(file)[:-1].write_parquet(file)


STORED = "store: expected each user's events, of items of its catalogue, found others"
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "distances": (by_distance, r"index\.faiss: index: expected flat for inner products, found IndexFlatL2"),
    "cells": (of_cells, r"index\.faiss: index: expected ivf_pq for inner products, found IndexFlatIP"),
    "another dimension": (other_dimension, "bundle: expected 8 numbers in a vector, found 16; export again"),
    "items of no row": (lambda path: save(path / "store/item.npy", lambda rows: rows * 0 + 10**6), STORED),
    "items of row 0": (lambda path: save(path / "store/item.npy", lambda rows: rows * 0), STORED),
    "users backwards": (lambda path: save(path / "store/offsets.npy", lambda offsets: offsets[::-1]), STORED),
    "fewer moments": (lambda path: save(path / "store/time.npy", lambda times: times[1:]), STORED),
    "moments of text": (lambda path: describe(path / "store", max_time="x"), "expected seconds as max_time, found 'x'"),
    "a moment past all": (lambda path: describe(path / "store", max_time=2**62), "expected seconds as max_time, found"),
    "items without ids": (without_keys, "bundle: expected a whole bundle, could not put its parts together"),
    "fewer users": (fewer_users, "bundle: expected 12 users, found 11; export again"),
    "endless columns": (nested_items, "Parquet schema too deeply nested"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_bundle_that_cannot_be_served_is_refused_when_opened(
    folder: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    path = Path(shutil.copytree(folder / "bundle", tmp_path / "bundle"))
    change(path)
    describe_anew(path, path / "store" / "item.npy")
    with pytest.raises(PrismRecError, match=message):
        serve(path)
