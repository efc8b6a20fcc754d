"""Going on from an earlier run after its store has grown: what is taken over, and which events are new to it.

Takes a store and a run that was trained on an earlier state of it, or on this one; gives the settings, the state
and the first event of each user that the run has not learned from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from prismrec.artifact import fitting_parts, listed_file, read_manifest
from prismrec.config import Config
from prismrec.data.store import Store, earlier_manifest
from prismrec.errors import ArtifactError, ConfigError
from prismrec.model.run import CONFIG, KIND, weights_file
from prismrec.toml import load_config
from prismrec.train.checkpoint import Checkpoint, load_checkpoint


class EarlierRun(NamedTuple):
    """A run to go on from."""

    path: Path
    config: Config
    weights: dict[str, Tensor]
    """Those it kept, which validation found best."""
    checkpoint: Checkpoint
    """Its latest: the state of the optimisers, the queue and the objective."""


def open_earlier_run(path: Path) -> EarlierRun:
    """Read all that a run leaves for another to go on with.

    Raises:
        ArtifactError: the run is missing or damaged, or has no checkpoint.
    """
    manifest = read_manifest(path, KIND)
    checkpoint = load_checkpoint(path)
    if checkpoint is None:
        raise ArtifactError(f"{path}: expected a checkpoint to go on from, found none; use it as a warm start")
    with fitting_parts(path, KIND):
        config = load_config(listed_file(path, manifest, CONFIG))
        return EarlierRun(path, config, load_file(weights_file(path, manifest)), checkpoint)


def continued_settings(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The settings to go on from a run with: its own, but without another warm-up of the learning rates.

    Args:
        path: the run.
        overrides: other settings, `section.key=value`.

    Raises:
        ArtifactError: the run is missing or damaged.
        ConfigError: a key or value is not valid.
    """
    read_manifest(path, KIND, checksums=False)
    return load_config(path / CONFIG, ["train.warmup_steps=0", *overrides])


def with_new_targets(config: Config, store: Store, earlier: EarlierRun) -> Config:
    """The settings, with only those events as targets that are new to the run.

    Raises:
        ArtifactError: the store is not a later state of the one that the run was trained on.
    """
    train = config.train.model_copy(update={"new_since": _known_parts(store, earlier)})
    return config.model_copy(update={"train": train})


def check_same_model(config: Config, earlier: EarlierRun) -> None:
    """Refuse settings under which the weights and the optimisers' state have no place.

    Raises:
        ConfigError: names the setting.
    """
    for name, ours, theirs in (
        ("model", config.model, earlier.config.model),
        ("history.max_length", config.history.max_length, earlier.config.history.max_length),
        ("loss.queue_size", config.loss.queue_size, earlier.config.loss.queue_size),
        ("train.table_optimizer", config.train.table_optimizer, earlier.config.train.table_optimizer),
    ):
        if ours != theirs:
            raise ConfigError(
                f"--continue-from: {name} is not that of {earlier.path}; leave it as it is, or start anew with "
                "--warm-start"
            )


def first_new_events(store: Store, known_parts: int) -> np.ndarray:
    """Of each user, the first event that was not for training when the store had so many parts, int64 [U].

    Raises:
        ArtifactError: the store has no such earlier state.
    """
    if known_parts > store.num_parts:
        raise ArtifactError(
            f"{store.path}: expected at least {known_parts} parts, as train.new_since has it, found {store.num_parts}"
        )
    known = store.as_of(known_parts)
    first = np.array(store.offsets[:-1])
    first[: known.num_users] += known.valid_start - known.offsets[:-1]
    return first


def _known_parts(store: Store, earlier: EarlierRun) -> int:
    """How many parts the store had when the run was trained on it."""
    files = earlier.checkpoint.store
    for number in range(store.num_parts, -1, -1):
        manifest = store.manifest if number == store.num_parts else earlier_manifest(store.manifest, number)
        if files in (manifest["files"], manifest.get("compacted")):
            return number
    raise ArtifactError(
        f"{store.path}: expected the store that {earlier.path} was trained on, with or without later parts, found "
        "other data; start a new run with this one as its warm start"
    )
