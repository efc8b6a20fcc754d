"""Every file of every artifact cut short, with one bit changed, emptied, gone, or of another version: it is never read.

What is not in a manifest, since it grows or is for people, has cases of its own below.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from prismrec import Retriever
from prismrec.artifact import MANIFEST, manifest_content, write_manifest
from prismrec.config import Config
from prismrec.data.append import append
from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.export.reader import USER_VECTORS, open_bundle
from prismrec.export.user_encoder import stored_vectors
from prismrec.export.vectors import write_user_vectors
from prismrec.model.run import load_run, tie_to_store
from prismrec.toml import override
from prismrec.train.continuation import open_earlier_run
from prismrec.train.trainer import train

QUIET = Console(quiet=True)
SETTINGS = {
    "model.embedding_dim": 8,
    "model.num_heads": 2,
    "model.num_interests": 2,
    "model.encoder.num_layers": 1,
    "history.max_length": 5,
    "loss.queue_size": 16,
    "train.batch_size": 16,
    "train.max_steps": 6,
    "train.device": "cpu",
}


def events(seed: int, start: int = 1_600_000_000) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(20), 6),
            "item_id": rng.integers(0, 30, 120),
            "timestamp": start + rng.permutation(120),
            "dwell": rng.integers(0, 60, 120),
            "shop": rng.integers(0, 3, 120),
        }
    )


def items(seed: int) -> pl.DataFrame:
    return pl.DataFrame({"item_id": range(30), "category": np.random.default_rng(seed).integers(0, 5, 30)})


class World(NamedTuple):
    """One of each artifact."""

    store: Path
    run: Path
    bundle: Path
    retriever: Path


def make(folder: Path, seed: int) -> World:
    """A retriever, for which one training and one export are enough, and what is in it, each with more to damage."""
    config = override(Config(), {**SETTINGS, "train.seed": seed})
    retriever = Retriever(config, console=QUIET).fit(events(seed), items(seed)).save(folder / "retriever")
    store, run, bundle = (shutil.copytree(retriever / name, folder / name) for name in ("store", "run", "bundle"))
    append(store, events(seed, 1_700_000_000), console=QUIET)
    tie_to_store(run, str(retriever / "store"))
    opened = open_bundle(bundle)
    vectors = stored_vectors(opened.store, opened.encoder, opened.config.history, range(opened.store.num_users))
    write_user_vectors(bundle / USER_VECTORS, vectors)
    write_manifest(bundle, "bundle", **manifest_content(opened.manifest))
    return World(store, run, bundle, retriever)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> list[World]:
    """Two of the same shape, of different data and seeds."""
    return [make(tmp_path_factory.mktemp(f"world-{seed}"), seed) for seed in (0, 1)]


def open_run(path: Path) -> None:
    load_run(path)
    open_earlier_run(path)


def open_retriever(path: Path) -> None:
    """All of it: `load` leaves store and run to `update`."""
    Retriever.load(path)
    Store.open(path / "store")
    open_run(path / "run")


OPEN: dict[str, Callable[[Path], object]] = {
    "store": Store.open,
    "run": open_run,
    "bundle": open_bundle,
    "retriever": open_retriever,
}
UNCHECKED = ("metrics.jsonl", "tensorboard")  # logs of a run
NUM_FILES = {"store": 20, "run": 5, "bundle": 19, "retriever": 35}


def flip(path: Path) -> None:
    """Change one bit, of any."""
    content = bytearray(path.read_bytes())
    place = int(np.random.default_rng(len(content)).integers(8 * len(content)))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "a bit changed": flip,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


def files_of(artifact: Path) -> list[Path]:
    """Those that are checked, from `artifact` on."""
    found = [path.relative_to(artifact) for path in sorted(artifact.rglob("*")) if path.is_file()]
    return [path for path in found if not set(path.parts) & set(UNCHECKED)]


def refuse_each(artifact: Path, files: list[Path], work: Path, spoil: Callable[[Path], object]) -> None:
    """Each file alone is spoilt, in a copy, and the copy is not opened."""
    name = artifact.name
    for file in files:
        copy = Path(shutil.copytree(artifact, work / name))
        spoil(copy / file)
        with pytest.raises(ArtifactError) as raised:
            OPEN[name](copy)
        message = str(raised.value)
        assert str(work / name) in message, file
        assert "\n" not in message, file
        shutil.rmtree(copy)
    shutil.copytree(artifact, work / name)
    OPEN[name](work / name)  # or all this says nothing


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", OPEN)
def test_no_damaged_file_is_read(worlds: list[World], tmp_path: Path, name: str, damage: str) -> None:
    artifact = getattr(worlds[0], name)
    files = files_of(artifact)
    assert len(files) == NUM_FILES[name]
    refuse_each(artifact, files, tmp_path, DAMAGE[damage])


@pytest.mark.parametrize("name", OPEN)
def test_no_file_of_another_version_is_read(worlds: list[World], tmp_path: Path, name: str) -> None:
    ours, theirs = (getattr(world, name) for world in worlds)
    differ = [file for file in files_of(ours) if (ours / file).read_bytes() != (theirs / file).read_bytes()]
    assert MANIFEST in map(str, differ)
    assert len(differ) > NUM_FILES[name] // 2
    refuse_each(ours, differ, tmp_path, lambda path: shutil.copyfile(theirs / path.relative_to(tmp_path / name), path))


def test_a_run_on_another_store_of_the_same_shape_does_not_go_on(worlds: list[World], tmp_path: Path) -> None:
    run = Path(shutil.copytree(worlds[0].run, tmp_path / "run"))
    with pytest.raises(ArtifactError, match=r"expected the store that .* was started on, found other data"):
        train(worlds[1].retriever / "store", run, resume=True, console=QUIET)


def test_changed_settings_stop_what_would_resume(worlds: list[World], tmp_path: Path) -> None:
    """No manifest has them before there are weights to keep; the checkpoint does."""
    run = Path(shutil.copytree(worlds[0].run, tmp_path / "run"))
    (run / "manifest.json").unlink()
    settings = (run / "config.toml").read_text()
    assert "learning_rate = 0.002" in settings
    (run / "config.toml").write_text(settings.replace("learning_rate = 0.002", "learning_rate = 0.006"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ArtifactError, match=r"config\.toml: expected the settings that the run was started with"):
        train(worlds[0].retriever / "store", run, resume=True, console=QUIET)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_that_is_gone_is_no_reason_to_begin_anew(worlds: list[World], tmp_path: Path) -> None:
    run = Path(shutil.copytree(worlds[0].run, tmp_path / "run"))
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(ArtifactError, match="checkpoint: expected the checkpoint of this run, found none"):
        train(worlds[0].retriever / "store", run, resume=True, console=QUIET)
    load_run(run)


def test_a_checkpoint_that_cannot_be_read_stops_what_would_resume(worlds: list[World], tmp_path: Path) -> None:
    run = Path(shutil.copytree(worlds[0].run, tmp_path / "run"))
    flip(run / "checkpoint" / "6.safetensors")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ArtifactError, match=r"6\.safetensors: does not match its checksum"):
        train(worlds[0].retriever / "store", run, resume=True, console=QUIET)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
