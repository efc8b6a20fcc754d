"""The catalogue of a store: every item once, its feature columns as given and as keys.

Takes a table of items, or else the items that events name; gives a `Catalogue`.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from prismrec.config import PrepareConfig
from prismrec.data.columns import Column, column_keys, feature_column, id_column
from prismrec.data.schema import ITEM, KNOWN_ITEM_FEATURES
from prismrec.data.tables import Table, require
from prismrec.errors import DataError

KEY = "key"


@dataclass(frozen=True)
class Catalogue:
    """Items in catalogue order."""

    items: pl.DataFrame
    """`item_id`, `key`, features and columns to show; row i is catalogue row i + 1."""
    features: tuple[str, ...]
    """`item_id`, then those known, then others."""

    @property
    def rows(self) -> pl.DataFrame:
        """`item_id` and its catalogue row, int32."""
        return self.items.select(ITEM, row=pl.int_range(1, pl.len() + 1, dtype=pl.Int32))

    def feature_keys(self) -> np.ndarray:
        """Keys of the features, int64 [I + 1, F]; row 0 is padding, all zero."""
        keys = np.zeros((len(self.items) + 1, len(self.features)), np.int64)
        keys[1:, 0] = self.items[KEY]
        for position, name in enumerate(self.features[1:], start=1):
            keys[1:, position] = column_keys(self.items[name])
        return keys


def read_catalogue(table: Table, config: PrepareConfig) -> Catalogue:
    """Read a table of items; its order is the catalogue's.

    Raises:
        DataError: a column is missing or of a type that cannot be used, an id is null or comes twice.
    """
    require(table, (ITEM,))
    found = table.columns
    if KEY in found:
        raise DataError(
            f"{table.name}: column {KEY!r}: this name is PrismRec's own; rename it, for example --columns code={KEY}"
        )
    shown = [name for name in config.display_columns if name in found and name != ITEM]
    known = [name for name in KNOWN_ITEM_FEATURES if name in found and name not in shown]
    features = known + [name for name in found if name not in (ITEM, *known, *shown)]
    columns = [
        id_column(table.name, ITEM, found[ITEM]),
        *(feature_column(table.name, name, found[name], "name it in display_columns") for name in features),
    ]
    repeated = Column(ITEM, columns[0].values, ~pl.col(ITEM).is_first_distinct(), "each item once")
    table.check(columns)
    table.check([repeated])
    values = [column.values for column in columns]
    return _catalogue(table.collect(table.frame.select(*values, *map(pl.col, shown))), features)


def catalogue_of(ids: pl.Series) -> Catalogue:
    """A catalogue of bare ids, in their order."""
    return _catalogue(ids.alias(ITEM).to_frame(), [])


def _catalogue(items: pl.DataFrame, features: list[str]) -> Catalogue:
    keyed = items.insert_column(1, column_keys(items[ITEM]).alias(KEY))
    return Catalogue(keyed, (ITEM, *features))
