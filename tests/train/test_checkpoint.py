from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prismrec.artifact import write_manifest
from prismrec.errors import ArtifactError
from prismrec.train.checkpoint import CHECKPOINT, Checkpoint, Progress, load_checkpoint, save_checkpoint


def checkpoint() -> Checkpoint:
    return Checkpoint(
        progress=Progress(step=7, epoch=1, step_in_epoch=2, best_recall=0.25, best_step=5, log_bytes=99),
        modules=[{"weight": torch.tensor([1.5, 2.5])}],
        optimizers=[{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}],
        queue=torch.tensor([0, 4, 2]),
        store={"item.npy": {"bytes": 3, "sha256": "abc"}},
    )


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.progress == checkpoint().progress
    assert loaded.modules[0]["weight"].tolist() == [1.5, 2.5]
    assert loaded.optimizers[0]["param_groups"] == [{"lr": 0.1}]
    assert loaded.queue.tolist() == [0, 4, 2]
    assert loaded.store == checkpoint().store


def test_none_yet(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    later = checkpoint()
    later.progress.step = 8
    save_checkpoint(tmp_path, later)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.progress.step == 8
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert {path.name for path in (tmp_path / CHECKPOINT).iterdir()} == {"manifest.json", "8.safetensors"}


def test_what_cannot_be_removed_stays(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT / ".nfs0001").mkdir(parents=True)
    save_checkpoint(tmp_path, checkpoint())
    assert load_checkpoint(tmp_path) is not None


def test_others_may_read_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    (tmp_path / "mine").touch()
    modes = {path.stat().st_mode for path in (tmp_path / CHECKPOINT).iterdir()}
    assert modes == {(tmp_path / "mine").stat().st_mode}


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: bytes | None) -> None:
    save_checkpoint(tmp_path, checkpoint())
    tensors = tmp_path / "checkpoint" / "7.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?" if damage is None else damage)
    with pytest.raises(ArtifactError, match=r"7\.safetensors: does not match its checksum"):
        load_checkpoint(tmp_path)


def test_a_changed_setting_of_an_optimiser_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    manifest = tmp_path / "checkpoint" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.1", "0.7"))
    with pytest.raises(ArtifactError, match=r"manifest\.json: does not match its own checksum"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("changed", ["state", "tensors"])
def test_another_content_is_refused(tmp_path: Path, changed: str) -> None:
    save_checkpoint(tmp_path, checkpoint())
    directory = tmp_path / "checkpoint"
    if changed == "tensors":
        (directory / "7.safetensors").write_bytes(b"no tensors at all")
    write_manifest(directory, "checkpoint", state={"pairs": [["weights", 3]]})
    with pytest.raises(ArtifactError, match="expected a whole checkpoint, could not put its parts together"):
        load_checkpoint(tmp_path)


_STATES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.lists(st.floats(width=32, allow_nan=False), max_size=3).map(torch.tensor),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 20) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(state=_STATES)
def test_any_state_comes_back(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    """Numbers exactly, keys that are numbers as such."""
    run = tmp_path_factory.mktemp("run")
    save_checkpoint(run, replace(checkpoint(), optimizers=[{"state": state}]))
    loaded = load_checkpoint(run)
    assert loaded is not None
    assert_same(loaded.optimizers[0]["state"], state)


def assert_same(mine: Any, theirs: Any) -> None:
    assert type(mine) is type(theirs)
    if isinstance(mine, torch.Tensor):
        assert torch.equal(mine, theirs)
    elif isinstance(mine, dict):
        assert [*mine] == [*theirs]
        for key in mine:
            assert_same(mine[key], theirs[key])
    elif isinstance(mine, list):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    else:
        assert mine == theirs
