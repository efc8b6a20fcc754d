"""Further items for the catalogue of a store: read, and checked against what the catalogue holds.

Takes a table with the columns that `prepare` was given; gives a `Catalogue` of its items alone. What does not fit
is refused with its file, column and row.
"""

import logging

import numpy as np
import polars as pl

from prismrec.config import PrepareConfig
from prismrec.data.catalogue import KEY, Catalogue, read_catalogue
from prismrec.data.columns import Column, item_feature_column
from prismrec.data.schema import ITEM
from prismrec.data.store import Store
from prismrec.data.tables import Table, renamed, with_text
from prismrec.errors import DataError, listed_names

_log = logging.getLogger(__name__)


def read_more_items(table: Table, store: Store) -> tuple[Table, Catalogue]:
    """Read an open table of items that could be in the store's catalogue; some may be there already.

    Columns may have the names they had when the store was prepared. A feature that the table lacks is none for all
    its items, with a warning.

    Returns:
        The table under our names of columns, and its items, in the types of the catalogue.

    Raises:
        DataError: the table cannot be read or is empty; a column is missing, unknown or of another type than in the
            catalogue; an id is null or comes twice; a list is longer than the model has room for.
    """
    config = PrepareConfig.model_validate(store.manifest["settings"])
    table = _named_and_typed(table, store.items, config)
    _check_names(table, store)
    read = read_catalogue(table, config)
    _check_types(table, read, store.items)
    table.check(_lists_that_fit(table, store))
    with table.reading():  # a number may be too large for the column it joins
        items = read.items.cast({name: store.items.schema[name] for name in read.items.columns})
    return table, Catalogue(items, read.names)


def aligned_keys(read: Catalogue, store: Store) -> np.ndarray:
    """Keys [N, F] of the items, in the columns of the store's `item_features`; 0 where there is no value."""
    keys, given = read.feature_keys()[1:], np.array(read.features)
    wanted = np.array(store.schema.item_features)
    aligned = np.zeros((len(keys), len(wanted)), np.int64)
    for name in read.names:
        columns = np.flatnonzero(wanted == name)
        aligned[:, columns[: (given == name).sum()]] = keys[:, given == name]
    return aligned


def _named_and_typed(table: Table, items: pl.DataFrame, config: PrepareConfig) -> Table:
    """The table under our names of columns; in CSV files, what is text in the catalogue is text."""
    columns = {ours: given for ours, given in config.columns.items() if ours in items.columns}
    table = renamed(table, columns)
    for name, dtype in items.schema.items():
        table = with_text(table, name) if dtype == pl.String else table
    empty = [name for name, dtype in table.columns.items() if dtype in (pl.Null, pl.List(pl.Null))]
    typed = [pl.col(name).cast(items.schema[name]) for name in empty if name in items.columns]
    return table.then(lambda frame: frame.with_columns(typed))


def _check_names(table: Table, store: Store) -> None:
    found, known = table.columns, [name for name in store.items.columns if name != KEY]
    unknown = [name for name in found if name not in known]
    if ITEM not in found:
        raise DataError(
            f"{table.name}: expected a column {ITEM!r}, found only {listed_names(found)}; rename the column"
        )
    if unknown:
        raise DataError(
            f"{table.name}: expected the columns of the catalogue, {listed_names(known)}, found besides "
            f"{listed_names(unknown)}; leave these out, or prepare and train with them"
        )
    missing = [name for name in dict.fromkeys(store.schema.item_features) if name not in found]
    if missing:
        _log.warning("%s: without %s, which count as none for all new items", table.name, ", ".join(missing))


def _check_types(table: Table, read: Catalogue, items: pl.DataFrame) -> None:
    """Ids of another type have other keys, whatever they look like."""
    for name in read.names:
        given, wanted = read.items.schema[name], items.schema[name]
        if not _alike(given, wanted):
            raise DataError(
                f"{table.name}: column {name!r}: expected {wanted} ids as in the catalogue, found {given}; "
                "convert the column"
            )


def _alike(given: pl.DataType, wanted: pl.DataType) -> bool:
    if isinstance(given, pl.List) and isinstance(wanted, pl.List):
        return _alike(given.inner, wanted.inner)  # type: ignore[arg-type]
    return given == wanted or (given.is_integer() and wanted.is_integer())


def _lists_that_fit(table: Table, store: Store) -> list[Column]:
    """Refuse lists longer than the longest that the model was built for."""
    columns = []
    for name, dtype in table.columns.items():
        width = store.schema.item_features.count(name)
        if width and isinstance(dtype, pl.List):
            values = item_feature_column(table.name, name, dtype, "leave it out").values
            fault = (values.list.len() > width).fill_null(False)
            columns.append(Column(name, values, fault, f"at most {width} values, which the model was built for"))
    return columns
