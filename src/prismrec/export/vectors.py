"""Vectors as Parquet with original ids, for vector databases and notebooks.

Takes ids and float32 arrays; gives files whose vectors are fixed-size lists. Search them by inner product:
with the dial of popularity they have one dimension more and are no unit vectors.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prismrec.atomic import replacing_file
from prismrec.data.schema import ITEM, USER
from prismrec.parts import write_tables


def write_item_vectors(path: Path, item_ids: pl.Series, vectors: np.ndarray) -> None:
    """Write `item_id, vector`: vectors [I, D] as fixed_size_list<float>[D], in catalogue order."""
    with replacing_file(path) as temporary:
        pq.write_table(item_table(item_ids, vectors), temporary)


def write_user_vectors(path: Path, batches: Iterable[tuple[pl.Series, np.ndarray]]) -> None:
    """Write `user_id, vectors` batch by batch: ids [B] and vectors [B, V, D] as V fixed-size lists of D floats."""
    write_tables(((user_table(ids, vectors), len(ids)) for ids, vectors in batches), str(path))


def item_table(item_ids: pl.Series, vectors: np.ndarray) -> pa.Table:
    """`item_id` [I] and `vector` [I, D]."""
    return pa.table({ITEM: _ids(item_ids), "vector": _fixed_size_lists(vectors)})


def user_table(user_ids: pl.Series, vectors: np.ndarray) -> pa.Table:
    """`user_id` [B] and `vectors` [B, V, D]."""
    return pa.table({USER: _ids(user_ids), "vectors": _fixed_size_lists(vectors)})


def _ids(ids: pl.Series) -> pa.Array:
    return ids.to_arrow(compat_level=pl.CompatLevel.oldest())


def _fixed_size_lists(array: np.ndarray) -> pa.Array:
    """Nest an array [N, ..., D] in fixed-size lists, innermost last."""
    values = pa.array(np.ascontiguousarray(array, np.float32).reshape(-1))
    for size in reversed(array.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return values
