from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("damage", ["empty", "short", "text", "another object"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, checkpoint())
    path = tmp_path / CHECKPOINT
    if damage == "another object":
        torch.save({"weights": 3}, path)
    else:
        path.write_bytes({"empty": b"", "short": path.read_bytes()[:500], "text": b"not a checkpoint"}[damage])
    with pytest.raises(ArtifactError, match=r"checkpoint\.pt: expected a checkpoint, could not read it"):
        load_checkpoint(tmp_path)
