"""Tables of events on their way into a store: opened where work on them may go on, and their columns checked.

Takes what a user gave to `prepare` or `append`, and its workshop; gives tables of which `sequences.py` can read any
part, and the columns that the store makes of them.
"""

from pathlib import Path

import polars as pl

from prismrec.config import PrepareConfig
from prismrec.data.catalogue import Catalogue
from prismrec.data.columns import (
    Column,
    dwell_column,
    feature_column,
    id_column,
    time_column,
    uniform_column,
    weight_column,
)
from prismrec.data.files import find_files
from prismrec.data.schema import DWELL, ITEM, TIME, UNIFORM, USER, WEIGHT, Schema
from prismrec.data.tables import Source, Table, csv_to_parquet, open_files, open_table, require
from prismrec.errors import ConfigError, DataError, listed_names, shown
from prismrec.locations import fetch, find_tables, is_url, local
from prismrec.workspace import Workshop

EVENT_COLUMNS = (USER, ITEM, TIME, DWELL, WEIGHT, UNIFORM)
_RESERVED = ("request", "item", "time")
_OURS = "__"  # names that begin so are of columns that work needs


def source_files(source: Path | str) -> list[str]:
    """Paths or URLs of the files of a table."""
    return find_tables(str(source)) if is_url(source) else [str(file) for file in find_files(local(source))]


def open_source(source: Source, name: str, shop: Workshop) -> Table:
    """Open a table; what is elsewhere, CSV or a query becomes Parquet files in the workspace first."""
    if isinstance(source, pl.LazyFrame):
        query = Table(name, source)
        with query.reading():
            source.sink_parquet(shop.work / f"{name}.parquet")
        return open_files((shop.work / f"{name}.parquet",), name, (name,))
    if not isinstance(source, str | Path):
        return open_table(source, name)
    file_names = source_files(source)
    files = [Path(file) for file in file_names]
    if is_url(source):
        files = [shop.work / name / f"{place:05d}{file.suffix}" for place, file in enumerate(files)]
        shop.make(files, lambda: lambda place, out: fetch(file_names[place], out), f"fetch {name}")
    if files[0].suffix == ".csv":
        texts = [shop.work / name / f"{place:05d}.text" for place in range(len(files))]
        tables, files = files, texts
        shop.make(texts, lambda: lambda place, out: csv_to_parquet(tables[place], file_names[place], out), "CSV")
    return open_files(tuple(files), str(source), tuple(file_names))


def event_columns(table: Table, config: PrepareConfig) -> tuple[list[Column], Schema]:
    """The columns of the store, user_id and item_id first, and the features they bring."""
    require(table, (USER, ITEM, TIME))
    found, name = table.columns, table.name
    context = _context_features(table, config)
    columns = [id_column(name, USER, found[USER]), id_column(name, ITEM, found[ITEM])]
    columns.append(time_column(name, TIME, found[TIME]))
    if DWELL in found:
        columns.append(dwell_column(name, DWELL, found[DWELL]))
    if WEIGHT in found:
        columns.append(weight_column(name, WEIGHT, found[WEIGHT]))
    if UNIFORM in found:
        columns.append(uniform_column(name, UNIFORM, found[UNIFORM]))
    columns += [feature_column(name, one, found[one], "list only others in context_features") for one in context]
    return columns, Schema(
        item_features=(ITEM,),
        context_features=context,
        has_dwell=DWELL in found,
        has_weight=WEIGHT in found,
        has_uniform=UNIFORM in found,
    )


def _context_features(table: Table, config: PrepareConfig) -> tuple[str, ...]:
    further = tuple(name for name in table.columns if name not in EVENT_COLUMNS)
    chosen = further if config.context_features is None else config.context_features
    require(table, chosen)
    for name in chosen:
        if name in (*EVENT_COLUMNS, *_RESERVED) or name.startswith(_OURS):
            short = listed_names([name])
            raise ConfigError(
                f"context_features: {shown(name)} is a name that PrismRec uses itself; list only others, or rename the "
                f"column, for example --columns event_{short}={short}"
            )
    return chosen


def same_ids(events: Table, catalogue: Catalogue) -> Table:
    """The events with item ids of the catalogue's type."""
    given, wanted = events.columns[ITEM], catalogue.items[ITEM].dtype
    if given != wanted and not (given.is_integer() and wanted.is_integer()):
        raise DataError(
            f"{events.name}: column {ITEM!r}: expected {wanted} ids as in the catalogue, found {given}; convert one"
        )
    return events.then(lambda frame: frame.with_columns(pl.col(ITEM).cast(wanted, strict=False)))
