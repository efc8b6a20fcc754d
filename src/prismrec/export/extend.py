"""From a bundle and a table of new items to a bundle that also recommends these, without training and without torch.

Takes a bundle and items with features; gives another bundle, written whole or not at all, in which the new items
follow the old ones: rows, vectors and histories of before stay as they are. A new item's vector is that of its
features; where popularity counts, its part is that of an item never bought.
"""

from pathlib import Path

import numpy as np
import polars as pl

from prismrec.artifact import copy_files, manifest_content, replacing_artifact, write_manifest
from prismrec.data import store as stores
from prismrec.data.parquet import read_parquet
from prismrec.data.schema import ITEM
from prismrec.data.store import Store
from prismrec.data.tables import Source
from prismrec.export.item_encoder import OnnxItemEncoder
from prismrec.export.new_items import NewItems, read_new_items
from prismrec.export.reader import ITEM_ENCODER, ITEM_VECTORS, KIND, STORE, Bundle, manifest_checksum, open_bundle
from prismrec.export.search import write_search
from prismrec.export.user_encoder import sample_histories


def extend(bundle: Path, items: Source, out: Path) -> Path:
    """Write a bundle with further items in its catalogue.

    Args:
        bundle: a bundle directory; it may have been extended before.
        items: a table of items that its catalogue lacks; see `read_new_items`.
        out: the bundle directory to write; an earlier bundle there is replaced.

    Returns:
        `out`.

    Raises:
        ArtifactError: the bundle is missing or damaged.
        DataError: the table cannot be read, or does not fit the catalogue.
        SearchIndexError: the index needs user vectors to measure its recall, and there are none.
    """
    opened = open_bundle(bundle)
    store, config, manifest = opened.store, opened.config, opened.manifest
    new = read_new_items(items, store)
    vectors = read_parquet(bundle / ITEM_VECTORS)["vector"].to_numpy()
    vectors = np.concatenate([vectors, new_vectors(opened, new)])
    histories = sample_histories(store, config)
    interests = opened.encoder.encode(histories, store.item_features).vectors
    with replacing_artifact(out, KIND) as directory:
        copy_files(bundle, manifest, directory)  # those that change are written over
        _write_store(directory / STORE, store, new)
        item_ids = pl.concat([store.item_ids, new.items[ITEM]])
        changed = {
            "counts": _more_items(manifest["counts"], new),
            "index": write_search(directory, item_ids, vectors, interests, config.train.seed),
            "extended": {
                "items": len(new.items) + manifest.get("extended", {"items": 0})["items"],
                "from": manifest_checksum(bundle),
            },
        }
        write_manifest(directory, KIND, **manifest_content(manifest) | changed)
    return out


def new_vectors(bundle: Bundle, new: NewItems) -> np.ndarray:
    """Vectors of new items by their features, [N, D], or [N, D + 1] with popularity."""
    vectors, config = OnnxItemEncoder(bundle.path / ITEM_ENCODER).encode(new.features), bundle.config
    if not config.popularity:
        return vectors
    # w log((n + 1) / mean) with n = 0, out of an item's whose n is known: the mean stays that of the old items
    weight, count = config.loss.temperature * config.popularity, bundle.store.item_counts[1]
    never_bought = bundle.index.vectors(np.array([1]))[0, -1] - weight * np.log(count + 1)
    return np.column_stack([vectors, np.full(len(vectors), never_bought, np.float32)])


def _write_store(directory: Path, store: Store, new: NewItems) -> None:
    """Write the catalogue, the features and the manifest of a copy of the store."""
    pl.concat([store.items, new.items]).write_parquet(directory / "items.parquet")
    np.save(directory / "item_features.npy", np.concatenate([store.item_features, new.features]))
    counts = _more_items(store.manifest["counts"], new)
    write_manifest(directory, stores.KIND, **manifest_content(store.manifest) | {"counts": counts})


def _more_items(counts: dict[str, int], new: NewItems) -> dict[str, int]:
    return {**counts, "items": counts["items"] + len(new.items)}
