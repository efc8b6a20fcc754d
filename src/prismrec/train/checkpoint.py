"""Checkpoints: everything that decides the next step, written atomically, so that training resumes bit-identically.

Tables are whole, however many processes trained: any other number of them can go on.

Random numbers are drawn from seed and step alone, and need not be kept.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from prismrec.artifact import replacing_file
from prismrec.errors import ArtifactError

CHECKPOINT = "checkpoint.pt"


@dataclass
class Progress:
    """Where training stands."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_recall: float = -1.0
    best_step: int = 0
    """Step of the weights to keep; 0 before there are any."""
    validations_without_gain: int = 0
    log_bytes: int = 0
    """Length of metrics.jsonl, so that lines written after the checkpoint are dropped on resume."""
    finished: bool = False


@dataclass
class Checkpoint:
    """The state of a training run."""

    progress: Progress
    modules: list[dict[str, Tensor]]
    optimizers: list[dict[str, Any]]
    queue: Tensor
    """[Q], or [ranks, Q] if each had its own."""
    store: dict[str, Any]
    """Sizes and checksums of the store's files: the position in the data means nothing in another store."""


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; a crash leaves the earlier one."""
    content = vars(checkpoint) | {"progress": asdict(checkpoint.progress)}
    with replacing_file(run / CHECKPOINT) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what it makes of a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load_checkpoint(run: Path) -> Checkpoint | None:
    """Read the latest checkpoint; None if there is none yet. Tensors stay on disk until they are used.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = run / CHECKPOINT
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        content["progress"] = Progress(**content["progress"])
        return Checkpoint(**content)
    except (RuntimeError, OSError, KeyError, TypeError, EOFError, ValueError, UnpicklingError) as error:
        raise ArtifactError(f"{path}: expected a checkpoint, could not read it; train again ({error})") from error
