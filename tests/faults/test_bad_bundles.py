"""Stores, runs and bundles whose checksums are right but whose content is not: opened, or refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from prismrec.toml import override
from prismrec.train.continuation import open_earlier_run
from prismrec.train.trainer import train
from prismrec.train.warm_start import open_older_run

from ..serve.conftest import EVENTS
from .strange import fuzzed, outcome

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
