"""Warm start: what a new model can take over from an older run, whose store need not be there any more.

Features are matched by name, not by their place in the schema: the third table of one store may be the
second of another.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from prismrec.artifact import fitting_parts, listed_file, read_manifest
from prismrec.config import Config
from prismrec.data.schema import Schema
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.run import CONFIG, KIND, weights_file
from prismrec.toml import load_config


class OlderRun(NamedTuple):
    """What is left of a run without its store."""

    path: Path
    config: Config
    weights: dict[str, Tensor]
    """By name, features by theirs."""


class Fit(NamedTuple):
    """What became of the weights of an older run."""

    loaded: list[str]
    afresh: list[str]
    """Weights of the new model that keep their initialisation."""
    left_out: list[str]
    """Weights of the older run that the new model has no place for."""


def open_older_run(path: Path) -> OlderRun:
    """Read configuration and weights.

    Raises:
        ArtifactError: the run is missing or damaged.
    """
    manifest = read_manifest(path, KIND)
    with fitting_parts(path, KIND):
        schema = Schema.model_validate(manifest["schema"])
        config = load_config(listed_file(path, manifest, CONFIG))
        return OlderRun(path, config, _by_feature(load_file(weights_file(path, manifest)), schema))


def take_over(older: OlderRun, model: MultiInterestModel, objective: nn.Module, console: Console) -> None:
    """Load what fits of an older run and name what does not."""
    fit = load_what_fits(model, older)
    console.print(f"warm start from {older.path}: {len(fit.loaded)} of {len(older.weights)} tensors fit", markup=False)
    for name in (*fit.afresh, *(f"objective.{name}" for name, _ in objective.named_parameters())):
        console.print(f"  starts afresh: {name}", soft_wrap=True, markup=False)
    for name in fit.left_out:
        console.print(f"  left out: {name}", soft_wrap=True, markup=False)


@torch.no_grad()
def load_what_fits(model: MultiInterestModel, older: OlderRun) -> Fit:
    """Copy the weights whose name and shape match; equal shapes of tables mean equal hash moduli."""
    own = _by_feature(model.state_dict(), model.schema)
    loaded = sorted(
        name for name, tensor in own.items() if name in older.weights and older.weights[name].shape == tensor.shape
    )
    for name in loaded:
        own[name].copy_(older.weights[name])
    return Fit(loaded, sorted(own.keys() - loaded), sorted(older.weights.keys() - loaded))


def _by_feature(state: dict[str, Tensor], schema: Schema) -> dict[str, Tensor]:
    lists = {"items.embeddings": tuple(dict.fromkeys(schema.item_features)), "users.context": schema.context_features}
    names = {f"{path}.{place}.": f"{path}.{name}." for path, all_ in lists.items() for place, name in enumerate(all_)}

    def renamed(key: str) -> str:
        prefix = next((prefix for prefix in names if key.startswith(prefix)), None)
        return key if prefix is None else names[prefix] + key.removeprefix(prefix)

    return {renamed(key): tensor for key, tensor in state.items()}
