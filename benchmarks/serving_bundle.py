"""A bundle of a million items whose vectors are those of a trained model and perturbed copies of them.

Takes a folder for what takes long (store, run, bundles: each made once and kept); gives the bundle. The
model is trained on a year of grocery purchases with the sizes that `serving.py` names.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from prismrec.artifact import MANIFEST, manifest_content, replacing_artifact, write_manifest
from prismrec.data.datasets import complete_journey
from prismrec.data.history import stored_histories
from prismrec.data.prepare import prepare
from prismrec.data.store import KIND as STORE_KIND
from prismrec.data.store import Store
from prismrec.demo import PREPARE
from prismrec.export.bundle import export
from prismrec.export.reader import INDEX, ITEM_VECTORS, KIND, STORE, USER_ENCODER, open_bundle
from prismrec.export.vectors import write_item_vectors
from prismrec.index.faiss_index import FaissIndex
from prismrec.toml import load_config
from prismrec.train.trainer import train

MODEL = (
    "history.max_length=50",
    "history.before_target_time=true",
    "model.embedding_dim=128",
    "model.num_interests=8",
    "model.num_heads=8",
    "train.epochs=2",
)
"""The defaults otherwise: the model learns what is likely, as a service would want it."""
NOISE = 0.3
"""Length of what is added to a unit vector before it is scaled to length one again: a cosine of .96 to the original."""
_ID_STEP = 10**10  # between the ids of an item and its copies
_USERS = 2000


def million_bundle(work: Path, num_items: int) -> Path:
    """The bundle, from the work folder or made now."""
    out = work / f"bundle-{num_items}"
    if not (out / MANIFEST).exists():
        widen(_trained_bundle(work), out, num_items)
    return out


def in_8_bits(work: Path, bundle: Path) -> Path:
    """The same bundle with an encoder in 8 bits."""
    if not (work / "bundle-int8" / MANIFEST).exists():
        export(work / "run", work / "bundle-int8", int8=True)
    out = bundle.with_name(f"{bundle.name}-int8")
    opened = open_bundle(bundle)
    with replacing_artifact(out, KIND) as directory:
        shutil.copytree(bundle, directory, copy_function=os.link, dirs_exist_ok=True)
        (directory / USER_ENCODER).unlink()
        shutil.copyfile(work / "bundle-int8" / USER_ENCODER, directory / USER_ENCODER)
        (directory / MANIFEST).unlink()
        write_manifest(directory, KIND, **manifest_content(opened.manifest))
    return out


def widen(bundle: Path, out: Path, num_items: int) -> None:
    """Write a bundle whose catalogue is that of `bundle` and perturbed copies of it, cut at `num_items`."""
    opened, rng = open_bundle(bundle), np.random.default_rng(0)
    store = opened.store
    source = np.arange(num_items) % store.num_items
    vectors = opened.index.vectors(1 + source)
    noise = rng.normal(size=(num_items - store.num_items, vectors.shape[1])).astype(np.float32)
    vectors[store.num_items :] += NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    users = np.sort(rng.permutation(store.num_users)[:_USERS])
    histories = stored_histories(store, users, store.manifest["max_time"], opened.config.history)
    interests = opened.encoder.encode(histories, store.item_features).vectors
    index = FaissIndex.build(vectors, interests)
    with replacing_artifact(out, KIND) as directory:
        shutil.copytree(bundle, directory, dirs_exist_ok=True)
        ids = _widen_store(store, directory / STORE, source)
        write_item_vectors(directory / ITEM_VECTORS, ids, vectors)
        index.save(directory / INDEX)
        content = manifest_content(opened.manifest)
        counts = {**content["counts"], "items": num_items}
        write_manifest(directory, KIND, **{**content, "counts": counts, "index": index.description})


def _widen_store(store: Store, directory: Path, source: np.ndarray) -> pl.Series:
    copy = np.arange(len(source)) // store.num_items
    ids = store.item_ids[source] + _ID_STEP * copy
    keys = ids.to_numpy() + 1  # see `stable_keys`
    store.items[source].with_columns(item_id=ids, key=keys).write_parquet(directory / "items.parquet")
    features = np.concatenate([store.item_features[:1], store.item_features[1 + source]])
    features[1:, 0] = keys
    np.save(directory / "item_features.npy", features)
    write_manifest(directory, STORE_KIND, **manifest_content(store.manifest))
    return ids


def _trained_bundle(work: Path) -> Path:
    if not (work / "bundle" / MANIFEST).exists():
        if not (work / "store" / MANIFEST).exists():
            events, items = complete_journey()
            prepare(events, items, work / "store", PREPARE)
        if not (work / "run" / MANIFEST).exists():
            shutil.rmtree(work / "run", ignore_errors=True)
            train(work / "store", work / "run", load_config(None, MODEL))
        export(work / "run", work / "bundle")
    return work / "bundle"
