"""The catalogue of a store: every item once, its feature columns as given and as keys.

Takes a table of items, or else the items that events name; gives a `Catalogue`.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from prismrec.config import PrepareConfig
from prismrec.data.columns import Column, column_keys, id_column, item_feature_column, shown_column
from prismrec.data.ranges import flat_ranges
from prismrec.data.schema import ITEM, KNOWN_ITEM_FEATURES
from prismrec.data.tables import Table, require
from prismrec.errors import DataError

KEY = "key"
ROW = "__item"


@dataclass(frozen=True)
class Catalogue:
    """Items in catalogue order."""

    items: pl.DataFrame
    """`item_id`, `key`, features and columns to show; row i is catalogue row i + 1."""
    names: tuple[str, ...]
    """`item_id`, then the features known, then others."""

    @property
    def features(self) -> tuple[str, ...]:
        """The names, those of lists as often as the longest list has values."""
        return tuple(name for name in self.names for _ in range(_width(self.items[name])))

    @property
    def rows(self) -> pl.DataFrame:
        """`item_id` and `ROW`, its catalogue row, int32."""
        return self.items.select(ITEM, pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias(ROW))

    def feature_keys(self) -> np.ndarray:
        """Keys of the features, int64 [I + 1, F]; row 0 is padding, all zero."""
        keys = np.zeros((len(self.items) + 1, len(self.features)), np.int64)
        keys[1:, 0] = self.items[KEY]
        position = 1
        for values in (self.items[name] for name in self.names[1:]):
            row, place, flat = _flat(values)
            keys[1 + row, position + place] = column_keys(flat)
            position += _width(values)
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
        *(item_feature_column(table.name, name, found[name], "name it in display_columns") for name in features),
    ]
    repeated = Column(ITEM, columns[0].values, ~pl.col(ITEM).is_first_distinct(), "each item once")
    for name in shown:
        shown_column(table.name, name, found[name])
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


def _width(values: pl.Series) -> int:
    if not isinstance(values.dtype, pl.List):
        return 1
    return max(1, int(values.list.len().max() or 0))  # type: ignore[arg-type]


def _flat(values: pl.Series) -> tuple[np.ndarray, np.ndarray, pl.Series]:
    """Row, place in its list and value of every value of a column; of one without lists, each is the first."""
    if not isinstance(values.dtype, pl.List):
        rows = np.arange(len(values))
        return rows, np.zeros_like(rows), values
    sizes = values.list.len().fill_null(0).to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(sizes)), sizes)
    return row, flat_ranges(np.zeros_like(sizes), sizes), values.filter(sizes > 0).explode()
