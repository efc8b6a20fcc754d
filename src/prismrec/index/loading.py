"""What loading item vectors into a server needs, whatever the engine.

Takes item vectors whole or in blocks; gives the rows that the server lacks, so that loading goes on
where it stopped, and refuses to go on with, or to search, what belongs to another bundle.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

import numpy as np

from prismrec.errors import SearchIndexError
from prismrec.index.base import NO_CATEGORY

Progress = Callable[[int], None]
"""Called after each block with the number of items that are loaded by then."""

_ROWS_PER_BLOCK = 10_000
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # PostgreSQL cuts names at 63 bytes; its indexes' have a suffix


class Block(NamedTuple):
    """Consecutive items."""

    rows: np.ndarray
    """int64 [N], catalogue rows."""
    vectors: np.ndarray
    """float32 [N, D]."""
    categories: list[list[int]]
    """Keys of each item's categories; none where they are not known."""


class ItemBlocks:
    """Item vectors in catalogue order, read once."""

    def __init__(self, vectors: np.ndarray | Iterable[np.ndarray], categories: np.ndarray | None) -> None:
        """Read the first block, for the dimension.

        Args:
            vectors: float32 [I, D], whole or in blocks [N, D] of any size.
            categories: keys of each item's categories, int64 [I, C], 0 for none.

        Raises:
            SearchIndexError: there are no vectors, or they are not [N, D].
        """
        blocks = _slices(vectors) if isinstance(vectors, np.ndarray) else iter(vectors)
        first = next(blocks, None)
        if first is None or first.ndim != 2 or first.shape[1] == 0:
            found = "none" if first is None else list(first.shape)
            raise SearchIndexError(f"item vectors: expected shape [I, D] with I, D >= 1, found {found}")
        self._blocks = chain([first], blocks)
        self._categories = categories
        self.dimension: int = first.shape[1]
        self.num_read = 0
        """Items read so far; after `beyond` is exhausted, the size of the catalogue."""

    def record(self, fingerprint: str) -> dict[str, object]:
        """What a server must know of these items before it takes more of them."""
        return {"fingerprint": fingerprint, "dimension": self.dimension, "categories": self._categories is not None}

    def beyond(self, row: int) -> Iterator[Block]:
        """The items after catalogue row `row`.

        Raises:
            SearchIndexError: a block has another dimension, or there are not as many categories as vectors.
        """
        for vectors in self._blocks:
            if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
                raise SearchIndexError(
                    f"item vectors: expected shape [N, {self.dimension}], found {list(vectors.shape)}"
                )
            start = max(self.num_read, row)
            self.num_read += len(vectors)
            if start < self.num_read:
                new = np.asarray(vectors[start - self.num_read :], np.float32)
                yield Block(np.arange(start, self.num_read) + 1, new, self._keys(start, self.num_read))
        if self._categories is not None and len(self._categories) != self.num_read:
            raise SearchIndexError(
                f"categories: expected shape [{self.num_read}, C], found {list(self._categories.shape)}"
            )

    def _keys(self, start: int, stop: int) -> list[list[int]]:
        if self._categories is None:
            return [[] for _ in range(start, stop)]
        return [[key for key in keys if key != NO_CATEGORY] for keys in self._categories[start:stop].tolist()]


def check_name(name: str) -> None:
    """Refuse names that a server would change, or that need quoting."""
    if not _NAME.fullmatch(name):
        raise SearchIndexError(
            f"index name: expected a lower-case letter, then at most 39 letters, digits and underscores, found {name!r}"
        )


def check_same(place: str, expected: Mapping[str, object], found: Mapping[str, object], advice: str) -> None:
    """Refuse contents that differ from those expected, naming what differs."""
    different = [key for key in expected if expected[key] != found[key]]
    if different:
        wanted = ", ".join(f"{key} {expected[key]}" for key in different)
        had = ", ".join(f"{key} {found[key]}" for key in different)
        raise SearchIndexError(f"{place}: expected {wanted}, found {had}; {advice}")


def _slices(vectors: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), _ROWS_PER_BLOCK):
        yield vectors[start : start + _ROWS_PER_BLOCK]
