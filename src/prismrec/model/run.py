"""A trained run on disk, and how to read it back: configuration, best weights, the store it was trained on.

run/
manifest.json        path of the store (absolute, or from here) and its schema, counts, best validation, checksums
config.toml          the whole configuration, hash moduli included
model-60.safetensors  the weights with the best validation recall, here those of step 60
metrics.jsonl        training and validation metrics, one JSON object a line
tensorboard/         the same for TensorBoard
checkpoint/          the latest state, to resume from (see `prismrec.train.checkpoint`)
report.json, .html   written by `prismrec evaluate`
"""

import contextlib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from prismrec.artifact import MANIFEST, fitting_parts, listed_file, read_manifest, replace_manifest, write_manifest
from prismrec.atomic import replacing_file
from prismrec.config import Config
from prismrec.data.schema import Schema
from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.toml import dump_toml, load_config, parse_config

KIND = "run"
CONFIG, METRICS = "config.toml", "metrics.jsonl"
_WEIGHTS = "model*.safetensors"


@dataclass(frozen=True)
class Run:
    """A trained model with what it was trained on; the model is in evaluation mode."""

    path: Path
    manifest: dict[str, Any]
    config: Config
    store: Store
    model: MultiInterestModel


def write_config(path: Path, config: Config) -> None:
    """Write the configuration of a run, the first of its files."""
    path.mkdir(parents=True, exist_ok=True)
    with replacing_file(path / CONFIG) as temporary:
        temporary.write_text(dump_toml(config))


def save_run(
    path: Path, config: Config, store: Store, weights: Mapping[str, Tensor], best_step: int = 0, **content: Any
) -> None:
    """Write configuration, weights and manifest of a run, each atomically.

    Weights have a name of their own until the manifest, replaced at one stroke, names them; earlier ones go after that.

    Args:
        path: the run directory.
        config: the full configuration, with resolved hash moduli.
        store: what the model was trained on.
        weights: state of the model.
        best_step: which step they are of.
        content: further fields of the manifest, for example the best validation.
    """
    write_config(path, config)
    kept = path / f"model-{best_step}.safetensors"
    save_tensors(kept, weights)
    write_manifest(
        path,
        KIND,
        files=[path / CONFIG, kept],
        store=str(store.path.resolve()),
        schema=store.schema.model_dump(mode="json"),
        schema_hash=store.manifest["schema_hash"],
        num_items=store.num_items,
        best_step=best_step,
        **content,
    )
    discard(earlier for earlier in path.glob(_WEIGHTS) if earlier != kept)


def weights_file(path: Path, manifest: dict[str, Any]) -> Path:
    """The weights of a run.

    Raises:
        ArtifactError: the manifest does not list them.
    """
    names = fnmatch.filter(manifest["files"], _WEIGHTS)
    if len(names) != 1:
        raise ArtifactError(f"{path}: expected weights in {MANIFEST}, which does not list them; make the run again")
    return path / names[0]


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of tensors, atomically."""
    with replacing_file(path) as temporary:
        mode = temporary.stat().st_mode
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        temporary.chmod(mode)  # safetensors writes another file, which nobody else may read


def discard(files: Iterable[Path]) -> None:
    """Remove files that a manifest no longer names, as far as that goes: nobody misses what is left."""
    for file in files:
        with contextlib.suppress(OSError):  # NFS keeps a file that is still open, under a name of its own
            file.unlink()


def tie_to_store(path: Path, store: str) -> None:
    """Let a run find its store by a path from its own directory, so that both can be moved together."""
    replace_manifest(path, {**read_manifest(path, KIND, checksums=False), "store": store})


def build_model(config: Config, schema: Schema) -> MultiInterestModel:
    """A new model for a full configuration."""
    popularity_weight = config.loss.temperature * config.popularity
    return MultiInterestModel(config.model, schema, config.history.max_length, popularity_weight)


def load_run(path: Path, store: Path | None = None, popularity: float | None = None) -> Run:
    """Read a run and open its store, with whatever was appended to it since.

    Args:
        path: the run directory.
        store: where the store is now, if it was moved since training.
        popularity: another position of this dial than the configured one.

    Raises:
        ConfigError: the dial is not between 0 and 1.
        ArtifactError: the run or its store is missing or damaged, or the store is another one.
    """
    manifest = read_manifest(path, KIND)
    config = load_config(listed_file(path, manifest, CONFIG))
    with fitting_parts(path, KIND):
        return _put_together(path, manifest, config, store or path / manifest["store"], popularity)


def _put_together(path: Path, manifest: dict[str, Any], config: Config, store: Path, popularity: float | None) -> Run:
    opened = Store.open(store)
    is_same_schema = opened.manifest["schema_hash"] == manifest["schema_hash"]
    if not is_same_schema or manifest["num_items"] not in opened.catalogue_sizes:
        raise ArtifactError(f"{opened.path}: expected the store that {path} was trained on; it has another schema")
    if popularity is not None:
        config = parse_config({**config.model_dump(mode="json"), "popularity": popularity}, "popularity")
    model = build_model(config, opened.schema)
    model.load_state_dict(load_file(weights_file(path, manifest)))
    return Run(path, manifest, config, opened, model.eval())
