"""What a bundle holds, and how to open one without torch.

bundle/
manifest.json          settings, schema, counts, index, measured ONNX differences, checksums; what `extend` added
config.toml            the run's configuration
model.safetensors      the PyTorch weights
user_encoder.onnx      histories -> interests, without PyTorch
item_encoder.onnx      features -> item vectors, without PyTorch; only `extend` reads it
item_vectors.parquet   item_id, vector; row i is catalogue row i + 1
user_vectors.parquet   user_id, vectors; on request
index.faiss            the search index over the item vectors
store/                 a copy of the prepared store: catalogue, and histories of known users
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from prismrec.artifact import MANIFEST, fitting_parts, listed_file, read_manifest, sha256
from prismrec.config import Config
from prismrec.data.history import stored_histories
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, shown
from prismrec.export.user_encoder import OnnxUserEncoder
from prismrec.index.faiss_index import FaissIndex
from prismrec.index.merge import retrieve
from prismrec.toml import load_config

KIND = "bundle"
CONFIG, WEIGHTS = "config.toml", "model.safetensors"
USER_ENCODER, ITEM_ENCODER = "user_encoder.onnx", "item_encoder.onnx"
ITEM_VECTORS, USER_VECTORS, INDEX, STORE = "item_vectors.parquet", "user_vectors.parquet", "index.faiss", "store"
_TRIED = 8  # users


@dataclass(frozen=True)
class Bundle:
    """Everything that serving needs."""

    path: Path
    manifest: dict[str, Any]
    config: Config
    store: Store
    encoder: OnnxUserEncoder
    index: FaissIndex

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the item vectors: what an index elsewhere must have been made of."""
        return str(self.manifest["files"][ITEM_VECTORS]["sha256"])


def open_bundle(path: Path, threads: int | None = None) -> Bundle:
    """Open and check a bundle, its store included.

    Args:
        path: the bundle directory.
        threads: for the user encoder; all cores by default.

    Raises:
        ArtifactError: the directory is not a bundle of this format, a file is missing or damaged, or
            its parts do not belong together.
        SearchIndexError: the index is not the one that the manifest describes.
    """
    manifest = read_manifest(path, KIND)
    with fitting_parts(path, KIND):
        return _put_together(path, manifest, threads)


def _put_together(path: Path, manifest: dict[str, Any], threads: int | None) -> Bundle:
    listed = partial(listed_file, path, manifest)
    store = Store.open(listed(f"{STORE}/{MANIFEST}").parent)
    config = load_config(listed(CONFIG))
    index = FaissIndex.load(listed(INDEX), manifest["index"], store.item_categories)
    for name in (WEIGHTS, ITEM_ENCODER, *(data.name for data in path.glob("*.onnx.data"))):
        listed(name)  # what is opened later, or by ONNX Runtime
    items = manifest["counts"]["items"]
    found = {
        "items in the store": (store.num_items, items),
        "items": (store.items.height, items),
        "item vectors": (pq.read_metadata(listed(ITEM_VECTORS)).num_rows, items),
        "vectors in the index": (index.num_vectors, items),
        "users": (store.users.height, store.num_users),
        "numbers in a vector": (manifest["index"]["dimension"], config.model.embedding_dim + bool(config.popularity)),
    }
    for name, (count, expected) in found.items():
        if count != expected:
            raise ArtifactError(f"{path}: expected {shown(expected)} {name}, found {shown(count)}; export again")
    bundle = Bundle(path, manifest, config, store, OnnxUserEncoder(listed(USER_ENCODER), threads), index)
    _try(bundle)
    return bundle


def _try(bundle: Bundle) -> None:
    """Recommend something to somebody, so that parts that do not fit one another are found now and not by a user."""
    store, users = bundle.store, np.arange(min(_TRIED, bundle.store.num_users))
    histories = stored_histories(store, users, store.manifest["max_time"], bundle.config.history)
    retrieve(bundle.index, bundle.encoder.encode(histories, store.item_features).vectors, 1)


def open_once(path: Path) -> Bundle:
    """The same as `open_bundle`, but a process that asks again gets what it got, as long as the bundle is the same."""
    return _opened(path, manifest_checksum(path))


def manifest_checksum(path: Path) -> str:
    """SHA-256 of a bundle's manifest, and so of all its files; empty if there is none."""
    manifest = path / MANIFEST
    return sha256(manifest) if manifest.is_file() else ""


@lru_cache(maxsize=1)
def _opened(path: Path, _checksum: str) -> Bundle:
    return open_bundle(path)
