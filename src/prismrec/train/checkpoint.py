"""Checkpoints: everything that decides the next step, written atomically, so that training resumes bit-identically.

Takes the state of a training; leaves a directory in the run, and gives the state back.

    checkpoint/
    manifest.json       progress, settings of the optimisers, where each tensor belongs, checksums
    60.safetensors      the tensors of step 60

A checkpoint is complete before the manifest, replaced at one stroke, names its tensors; those of the checkpoint before
are removed after that. Tables are whole, however many processes trained: any other number of them can go on.

Random numbers are drawn from seed and step alone, and need not be kept.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from prismrec.artifact import MANIFEST, fitting_parts, read_manifest, write_manifest
from prismrec.errors import TrainingError
from prismrec.model.run import discard, save_tensors
from prismrec.train.watch import SLOWER, LossWatch

CHECKPOINT = "checkpoint"
KIND = "checkpoint"
_TENSOR, _PAIRS = "tensor", "pairs"


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
    watch: LossWatch = field(default_factory=LossWatch)
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
    config: dict[str, Any] = field(default_factory=dict)
    """The settings of the run, which no manifest has before there are weights to keep; empty if it is an older one."""


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; a crash leaves the earlier one."""
    directory = run / CHECKPOINT
    tensors: dict[str, Tensor] = {}
    state = _without_tensors(vars(checkpoint) | {"progress": asdict(checkpoint.progress)}, "", tensors)
    kept = directory / f"{checkpoint.progress.step}.safetensors"
    save_tensors(kept, tensors)
    write_manifest(directory, KIND, files=[kept], state=state)
    discard(path for path in directory.iterdir() if path.name not in (MANIFEST, kept.name))


def load_checkpoint(run: Path, *, checksums: bool = True) -> Checkpoint | None:
    """Read the latest checkpoint; None if there is none yet. Tensors stay on disk until they are used.

    Args:
        run: the run directory.
        checksums: see `read_manifest`; one of several processes is enough.

    Raises:
        ArtifactError: it is damaged.
    """
    directory = run / CHECKPOINT
    if not (directory / MANIFEST).exists():
        return None
    manifest = read_manifest(directory, KIND, checksums=checksums)
    with fitting_parts(directory, KIND):
        (name,) = manifest["files"]
        content = _with_tensors(manifest["state"], load_file(directory / name))
        progress = content["progress"] | {"watch": LossWatch(**content["progress"]["watch"])}
        return Checkpoint(**content | {"progress": Progress(**progress)})


def check_finite(modules: list[dict[str, Tensor]], step: int) -> None:
    """Refuse to keep weights that the last update has spoilt: no loss has told of it yet.

    Raises:
        TrainingError: names one of them.
    """
    for name, tensor in (pair for module in modules for pair in module.items()):
        if not torch.isfinite(tensor.sum()):  # a sum needs no memory, and nothing that is not finite leaves it so
            raise TrainingError(f"step {step}: the update has left {name} with numbers that are not finite; {SLOWER}")


def remove_leftovers(run: Path) -> None:
    """Remove what a process that was killed has left of files that it wrote; safetensors has names of its own."""
    for leftover in (*run.glob(".*.tmp"), *run.glob(".tmp??????")):
        leftover.unlink(missing_ok=True)


def _without_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON can hold it; its tensors go to `tensors`, under their paths."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {_TENSOR: path}
    if isinstance(value, dict):  # of which keys may be numbers
        return {_PAIRS: [[key, _without_tensors(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, f"{path}/{place}", tensors) for place, item in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_without_tensors` took apart; tuples come back as lists."""
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    return {key: _with_tensors(item, tensors) for key, item in value[_PAIRS]}
