"""Items that a bundle's catalogue lacks: read, checked against the catalogue, their features as the model knows them.

Takes a table with the columns that `prepare` was given; gives `NewItems`. What the catalogue cannot hold is refused
with its file, column and row; what the model cannot know is left out of the features, with a warning.
"""

import logging
from dataclasses import dataclass

import numpy as np
import polars as pl

from prismrec.data.catalogue import Catalogue
from prismrec.data.columns import Column
from prismrec.data.more_items import aligned_keys, read_more_items
from prismrec.data.schema import ITEM
from prismrec.data.store import Store
from prismrec.data.tables import Source, open_table
from prismrec.errors import DataError, shown

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewItems:
    """Items to append to a catalogue."""

    items: pl.DataFrame
    """The columns of the store's `items`."""
    features: np.ndarray
    """int64 [N, F], keys as in the store's `item_features`. The key of the id is 0, and so is that of a value which no
    item of the catalogue has: neither was trained, and the rows they are hashed to belong to others."""


def read_new_items(source: Source, store: Store) -> NewItems:
    """Read a table of items that are not in the store's catalogue; see `read_more_items`.

    Raises:
        DataError: the table is refused there; an id is in the catalogue; an item has no feature that the model knows.
    """
    table, read = read_more_items(open_table(source, "items"), store)
    table.check([_not_in(store.item_ids)])
    return NewItems(
        items=pl.concat([store.items.clear(), read.items], how="diagonal"),
        features=_features(table.name, read, store),
    )


def _not_in(item_ids: pl.Series) -> Column:
    given = pl.col(ITEM).cast(item_ids.dtype, strict=False)
    return Column(ITEM, given, given.is_in(item_ids.implode()), "an item that is not in the catalogue yet")


def _features(table: str, read: Catalogue, store: Store) -> np.ndarray:
    """Keys [N, F] in the columns of the store; 0 where the model knows no such value."""
    features, wanted = aligned_keys(read, store), np.array(store.schema.item_features)
    features[:, 0] = 0
    for name in read.names[1:]:
        columns = wanted == name
        known = np.isin(features[:, columns], store.item_features[:, columns])  # 0, none, is in its first row
        if not known.all():
            _log.warning(
                "%s: column %r: %d values that no item of the catalogue has count as none", table, name, (~known).sum()
            )
        features[:, columns] = np.where(known, features[:, columns], 0)
    _refuse_unplaced(table, read.items[ITEM], features)
    return features


def _refuse_unplaced(table: str, item_ids: pl.Series, features: np.ndarray) -> None:
    unplaced = np.flatnonzero(~features.any(axis=1))
    if len(unplaced):
        raise DataError(
            f"{table}: expected of each new item a feature that the model knows, found none of {len(unplaced)} items, "
            f"the first {shown(item_ids[int(unplaced[0])])}; leave these out, or prepare and train with them"
        )
