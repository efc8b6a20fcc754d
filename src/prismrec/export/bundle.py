"""From a trained run to a bundle that serves without PyTorch (see `reader` for what it holds).

Takes a run directory; gives a bundle directory, written whole or not at all, whose ONNX encoders were
compared with PyTorch and whose index was measured, on the store's own users and items.
"""

import shutil
from pathlib import Path

import numpy as np
from rich.console import Console

from prismrec.artifact import copy_files, replace_manifest, replacing_artifact, write_manifest
from prismrec.data.compact import compact
from prismrec.data.store import Store
from prismrec.engine import Engine, LocalEngine
from prismrec.export.item_encoder import OnnxItemEncoder
from prismrec.export.onnx import OPSET, check_item_encoder, check_user_encoder, export_item_encoder, export_user_encoder
from prismrec.export.reader import CONFIG, ITEM_ENCODER, KIND, STORE, USER_ENCODER, USER_VECTORS, WEIGHTS
from prismrec.export.search import write_search
from prismrec.export.user_encoder import OnnxUserEncoder, sample_histories, stored_vectors
from prismrec.export.vector_parts import write_vector_parts
from prismrec.export.vectors import write_user_vectors
from prismrec.model import run as runs
from prismrec.model.encode import encode_items
from prismrec.toml import dump_toml

_SAMPLE_ITEMS = 10_000  # on which the item encoder is checked


def export(
    run: Path,
    out: Path,
    *,
    user_vectors: bool = False,
    int8: bool = False,
    popularity: float | None = None,
    vectors: str | None = None,
    engine: Engine | None = None,
    console: Console | None = None,
) -> Path:
    """Write the bundle of a trained run.

    Args:
        run: a run directory.
        out: the bundle directory; an earlier bundle there is replaced.
        user_vectors: also write the vectors of every known user.
        int8: let the sequence encoder multiply in 8 bits; see `export_user_encoder`.
        popularity: another position of this dial than the configured one.
        vectors: a folder or URL for the vectors of all items and known users, part by part; see `write_vector_parts`.
        engine: where these parts are worked on; here by default.
        console: where their progress is shown; standard error by default.

    Returns:
        `out`.

    Raises:
        ArtifactError: the run or its store is missing or damaged, or ONNX and PyTorch do not agree.
        ConfigError: `int8` for a model without a sequence encoder.
        SearchIndexError: the index needs user vectors to measure its recall, and there are none.
    """
    trained = runs.load_run(run, popularity=popularity)
    store, config = trained.store, trained.config
    with replacing_artifact(out, KIND) as directory:
        (directory / CONFIG).write_text(dump_toml(config))
        shutil.copyfile(runs.weights_file(run, trained.manifest), directory / WEIGHTS)
        _copy_store(store, directory / STORE)

        export_user_encoder(trained.model, directory / USER_ENCODER, int8=int8)
        encoder = OnnxUserEncoder(directory / USER_ENCODER)
        histories = sample_histories(store, config)
        interests, difference = check_user_encoder(trained.model, encoder, histories, store.item_features, int8=int8)

        item_vectors = encode_items(trained.model, store)
        export_item_encoder(trained.model, directory / ITEM_ENCODER)
        items = np.random.default_rng(config.train.seed).permutation(store.num_items)[:_SAMPLE_ITEMS]
        item_difference = check_item_encoder(
            OnnxItemEncoder(directory / ITEM_ENCODER),
            store.item_features[1 + items],
            item_vectors[items, : config.model.embedding_dim],  # what follows it is popularity
        )
        index = write_search(directory, store.item_ids, item_vectors, interests, config.train.seed)
        if user_vectors:
            every_user = range(store.num_users)
            write_user_vectors(directory / USER_VECTORS, stored_vectors(store, encoder, config.history, every_user))
        write_manifest(
            directory,
            KIND,
            settings=config.model_dump(mode="json"),
            schema=store.schema.model_dump(mode="json"),
            counts={"users": store.num_users, "items": store.num_items, "events": store.num_events},
            index=index,
            onnx={
                "opset": OPSET,
                "int8": int8,
                "max_difference": difference,
                "users_compared": len(histories.now),
                "max_item_difference": item_difference,
                "items_compared": len(items),
            },
        )
    if vectors is not None:
        write_vector_parts(out, vectors, engine or LocalEngine(), console or Console(stderr=True))
    return out


def _copy_store(store: Store, destination: Path) -> None:
    """A copy without parts, so that serving reads histories at one place."""
    if store.num_parts:
        compact(store, destination)
    else:
        copy_files(store.path, store.manifest, destination)
        replace_manifest(destination, store.manifest)
