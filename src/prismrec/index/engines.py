"""Which server a URL means: the one place that knows them all.

Takes a URL and what `PgvectorIndex` or `MilvusIndex` take; gives the index. The clients of servers
are optional packages and imported only when a URL asks for them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from prismrec.errors import SearchIndexError
from prismrec.index.base import Index
from prismrec.index.loading import Progress

if TYPE_CHECKING:
    from prismrec.index.milvus_index import MilvusIndex
    from prismrec.index.pgvector_index import PgvectorIndex

_PGVECTOR = ("postgresql", "postgres")
_MILVUS = ("milvus", "milvus+http", "milvus+https")


def open_index(url: str, name: str, *, fingerprint: str, num_vectors: int, dimension: int) -> Index:
    """Open item vectors that `load_index` has written, checking that they are these.

    Raises:
        SearchIndexError: the URL is of no known server, its client is not installed, the server cannot be
            reached, or holds no or other vectors.
    """
    return _engine(url).open(url, name, fingerprint=fingerprint, num_vectors=num_vectors, dimension=dimension)


def load_index(
    url: str,
    name: str,
    vectors: np.ndarray | Iterable[np.ndarray],
    categories: np.ndarray | None = None,
    *,
    fingerprint: str,
    progress: Progress = lambda _: None,
) -> None:
    """Write item vectors to a server; a second call goes on where the first one stopped.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, `milvus:FILE.db` or `milvus+http://HOST:PORT`.
        name: what the server shall call them; lower-case letters, digits and underscores.
        vectors: float32 [I, D], whole or in blocks [N, D] in catalogue order.
        categories: keys of each item's categories for filters, int64 [I, C], 0 for none.
        fingerprint: tells these vectors from all others, such as a checksum.
        progress: called after each block with the number of items loaded by then.

    Raises:
        SearchIndexError: the URL is of no known server, its client is not installed, the server cannot be
            reached or refuses the work, or holds other vectors of this name.
    """
    _engine(url).load(url, name, vectors, categories, fingerprint=fingerprint, progress=progress)


def _engine(url: str) -> "type[PgvectorIndex] | type[MilvusIndex]":
    scheme, colon, _ = url.partition(":")
    extra = "pgvector" if scheme in _PGVECTOR else "milvus"
    try:
        if scheme in _PGVECTOR:
            from prismrec.index.pgvector_index import PgvectorIndex

            return PgvectorIndex
        if scheme in _MILVUS:
            from prismrec.index.milvus_index import MilvusIndex

            return MilvusIndex
    except ImportError as error:
        raise SearchIndexError(
            f"index URL: expected the package {error.name} for {scheme}:, found none; pip install 'prismrec[{extra}]'"
        ) from error
    known = ", ".join(f"{name}:" for name in (*_PGVECTOR, *_MILVUS))
    found = f"{scheme}:" if colon else "none"
    raise SearchIndexError(f"index URL: expected one that begins with {known}; found {found}")
