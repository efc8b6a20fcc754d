"""A bundle's items as vectors, and the items that are like them.

Takes items in original ids, or new ones by their features; gives Polars frames. Nothing here imports torch.
"""

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track

from prismrec.data.schema import ITEM
from prismrec.errors import ConfigError, DataError, shown
from prismrec.export.extend import new_vectors
from prismrec.export.new_items import read_new_items
from prismrec.export.reader import Bundle
from prismrec.export.vectors import item_table
from prismrec.index.base import NO_ROW
from prismrec.index.exact import ExactIndex
from prismrec.serve.answers import unit_vectors
from prismrec.serve.requests import read_ids

TARGET = "target_item_id"
_ITEMS_PER_BATCH = 1024
_PROGRESS_FROM = 10_000  # items


class ItemVectors:
    """The item vectors of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def encode(self, items: pl.DataFrame | None = None) -> pl.DataFrame:
        """Vectors of items.

        Args:
            items: None for the whole catalogue; a table of `item_id` for these; or a table of items that the catalogue
                lacks, with features, by which alone they are encoded (see `extend`).

        Returns:
            `item_id, vector`: float32 [D], or [D + 1] where popularity counts; the inner product with a user's vector
            is the item's score.

        Raises:
            DataError: an id is not in the catalogue, or new items do not fit it.
        """
        if items is not None and items.columns != [ITEM]:
            new = read_new_items(items, self.bundle.store)
            return _frame(new.items[ITEM], new_vectors(self.bundle, new))
        rows = self._rows(items)
        return _frame(self.bundle.store.item_ids[rows - 1], self.bundle.index.vectors(rows))

    def similar(self, items: pl.DataFrame | None = None, *, k: int) -> pl.DataFrame:
        """The k items of the largest cosine with each item, itself left out.

        Args:
            items: a table of `item_id`; None for the whole catalogue.
            k: neighbours of an item; fewer only where the catalogue has no more.

        Returns:
            `target_item_id, item_id, rank, score`: the item asked for, its neighbour, rank from 1, the cosine; best
            first.

        Raises:
            ConfigError: k is below 1.
            DataError: an id is not in the catalogue.
        """
        if k < 1:
            raise ConfigError(f"k={k}: expected at least 1")
        rows = self._rows(items)
        starts: Iterable[int] = range(0, len(rows), _ITEMS_PER_BATCH)
        if len(rows) >= _PROGRESS_FROM:
            starts = track(starts, "similar", console=Console(stderr=True))
        return pl.concat(self._nearest(rows[start : start + _ITEMS_PER_BATCH], k) for start in starts)

    def closeness(self, items: pl.Series, others: pl.Series) -> np.ndarray:
        """The cosine of each item with another, ids [N] and ids [N] -> float32 [N]."""
        index, dim = self.bundle.index, self.bundle.config.model.embedding_dim
        left, right = (unit_vectors(index, self._rows(ids.alias(ITEM).to_frame()), dim) for ids in (items, others))
        return np.einsum("nd,nd->n", left, right)

    def _nearest(self, rows: np.ndarray, k: int) -> pl.DataFrame:
        """What `similar` gives, of some rows."""
        item_ids = self.bundle.store.item_ids
        score, found = self._cosines.search(self._cosines.vectors(rows), k + 1)
        itself = found == rows[:, None]
        itself[~itself.any(axis=1), -1] = True  # so many are as near as itself that it is not among them
        place = ~itself & (found != NO_ROW)
        return pl.DataFrame(
            {
                TARGET: item_ids[rows[np.nonzero(place)[0]] - 1],
                ITEM: item_ids[found[place] - 1],
                "rank": np.cumsum(place, axis=1)[place].astype(np.int32),
                "score": score[place],
            }
        )

    @cached_property
    def _cosines(self) -> ExactIndex:
        rows = np.arange(1, self.bundle.store.num_items + 1)
        return ExactIndex(unit_vectors(self.bundle.index, rows, self.bundle.config.model.embedding_dim))

    def _rows(self, items: pl.DataFrame | None) -> np.ndarray:
        """Catalogue rows of a table of ids, int64 [N]."""
        store = self.bundle.store
        if items is None:
            return np.arange(1, store.num_items + 1)
        asked = read_ids(items, ITEM, store.item_ids, table="items")
        catalogue = pl.DataFrame({ITEM: store.item_ids, "row": np.arange(1, store.num_items + 1)})
        row = asked.to_frame().join(catalogue, on=ITEM, how="left", maintain_order="left")["row"]
        unknown = asked.filter(row.is_null())
        if len(unknown):
            raise DataError(
                f"items: expected items of the catalogue, found {len(unknown)} unknown, the first {shown(unknown[0])}; "
                "leave them out"
            )
        return row.to_numpy()


def _frame(item_ids: pl.Series, vectors: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(item_table(item_ids, vectors))
