"""A store with parts, written out as one without: the plain rewrite that appending puts off.

Takes a store; gives a store of the same events, users and items in the same order, so that a run of the one goes on
with the other. Columns are copied some million events at a time.
"""

from pathlib import Path

import numpy as np

from prismrec.artifact import manifest_content, replacing_artifact, write_manifest
from prismrec.data.sequences import GrowingArray
from prismrec.data.store import KIND, Store

_EVENTS_PER_COPY = 4_000_000


def compact(store: Store, out: Path) -> Path:
    """Write a store as one piece.

    The manifest remembers the files of the state that it is made of ("compacted"), by which runs on that state are
    recognised; earlier states are lost.

    Args:
        store: an open store, with parts or without; where it is replaced, keep others from appending (`alone`).
        out: the store to write, perhaps in place of the other.

    Returns:
        `out`.

    Raises:
        ArtifactError: `out` exists and is not a store.
    """
    with replacing_artifact(out, KIND) as directory:
        store.users.write_parquet(directory / "users.parquet")
        store.items.write_parquet(directory / "items.parquet")
        for name in ("item_features", "offsets", "valid_start", "test_start"):
            np.save(directory / f"{name}.npy", getattr(store, name))
        for name in ("item", "time", "dwell", "weight", "uniform", "context"):
            if (column := getattr(store, name)) is not None:
                array = GrowingArray(directory / f"{name}.npy", column.dtype.str, column.shape[1:])
                for start in range(0, store.num_events, _EVENTS_PER_COPY):
                    array.append(column[start : start + _EVENTS_PER_COPY])
                array.close()
        content = {name: value for name, value in manifest_content(store.manifest).items() if name != "states"}
        write_manifest(directory, KIND, **content | {"compacted": store.manifest["files"]})
    return out
