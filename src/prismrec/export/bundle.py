"""From a trained run to a bundle that serves without PyTorch (see `reader` for what it holds).

Takes a run directory; gives a bundle directory, written whole or not at all, whose ONNX encoder was
compared with PyTorch and whose index was measured, both on the store's own users.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from prismrec.artifact import replacing_directory, write_manifest
from prismrec.config import HistoryConfig
from prismrec.data.store import Store
from prismrec.export.onnx import OPSET, check_user_encoder, export_user_encoder
from prismrec.export.reader import CONFIG, INDEX, ITEM_VECTORS, KIND, STORE, USER_ENCODER, USER_VECTORS, WEIGHTS
from prismrec.export.user_encoder import OnnxUserEncoder, stored_histories
from prismrec.export.vectors import write_item_vectors, write_user_vectors
from prismrec.index.faiss_index import FaissIndex
from prismrec.model import run as runs
from prismrec.model.encode import encode_items
from prismrec.toml import dump_toml

_SAMPLE_USERS = 1000  # on whom the encoder is checked and the index measured
_USERS_PER_BATCH = 256


def export(run: Path, out: Path, *, user_vectors: bool = False, popularity: float | None = None) -> Path:
    """Write the bundle of a trained run.

    Args:
        run: a run directory.
        out: the bundle directory; an earlier bundle there is replaced.
        user_vectors: also write the vectors of every known user.
        popularity: another position of this dial than the configured one.

    Returns:
        `out`.

    Raises:
        ArtifactError: the run or its store is missing or damaged, or ONNX and PyTorch do not agree.
        SearchIndexError: no index reaches the required recall.
    """
    trained = runs.load_run(run, popularity=popularity)
    store, config = trained.store, trained.config
    with replacing_directory(out, KIND) as directory:
        (directory / CONFIG).write_text(dump_toml(config))
        shutil.copyfile(run / runs.WEIGHTS, directory / WEIGHTS)
        shutil.copytree(store.path, directory / STORE)

        export_user_encoder(trained.model, directory / USER_ENCODER)
        encoder = OnnxUserEncoder(directory / USER_ENCODER)
        users = np.random.default_rng(config.train.seed).permutation(store.num_users)[:_SAMPLE_USERS]
        histories = stored_histories(store, np.sort(users), store.manifest["max_time"], config.history)
        interests, difference = check_user_encoder(trained.model, encoder, histories, store.item_features)

        vectors = encode_items(trained.model, store)
        write_item_vectors(directory / ITEM_VECTORS, store.item_ids, vectors)
        index = FaissIndex.build(vectors, interests.reshape(-1, vectors.shape[1]), config.train.seed)
        index.save(directory / INDEX)
        if user_vectors:
            write_user_vectors(directory / USER_VECTORS, _user_vectors(store, encoder, config.history))
        write_manifest(
            directory,
            KIND,
            settings=config.model_dump(mode="json"),
            schema=store.schema.model_dump(mode="json"),
            counts={"users": store.num_users, "items": store.num_items, "events": store.num_events},
            index=index.description,
            onnx={"opset": OPSET, "max_difference": difference, "users_compared": len(users)},
        )
    return out


def _user_vectors(
    store: Store, encoder: OnnxUserEncoder, config: HistoryConfig
) -> Iterator[tuple[pl.Series, np.ndarray]]:
    """Ids and interests [B, V, D] of every known user at the newest event's time, in batches."""
    for start in range(0, store.num_users, _USERS_PER_BATCH):
        users = np.arange(start, min(start + _USERS_PER_BATCH, store.num_users))
        histories = stored_histories(store, users, store.manifest["max_time"], config)
        yield store.user_ids[users], encoder.encode(histories, store.item_features).vectors
