"""What a bundle is searched by: the item vectors as Parquet and the index over them, always written together.

Takes the vectors of a whole catalogue; writes both files. Nothing here imports torch.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prismrec.export.reader import INDEX, ITEM_VECTORS
from prismrec.export.vectors import write_item_vectors
from prismrec.index.faiss_index import FaissIndex


def write_search(
    directory: Path, item_ids: pl.Series, vectors: np.ndarray, interests: np.ndarray, seed: int
) -> dict[str, Any]:
    """Write item vectors [I, D] and the index over them, measured on users' interests [B, V, D].

    Returns:
        The index's description, for the manifest.

    Raises:
        SearchIndexError: the index needs user vectors to measure its recall, and there are none.
    """
    write_item_vectors(directory / ITEM_VECTORS, item_ids, vectors)
    index = FaissIndex.build(vectors, interests, seed)
    index.save(directory / INDEX)
    return index.description
