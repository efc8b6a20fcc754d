"""From tables of events and items to a store.

Takes Parquet or CSV files or frames in memory, larger than memory if need be; writes the directory
that `store.py` describes. Bad values are refused with their file, column and row; what is left out is
counted by reason.
"""

import hashlib
import time
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from prismrec.artifact import replacing_directory, write_manifest
from prismrec.config import PrepareConfig
from prismrec.data.catalogue import KEY, Catalogue, catalogue_of, read_catalogue
from prismrec.data.columns import column_keys, dwell_column, feature_column, id_column, time_column, weight_column
from prismrec.data.schema import DWELL, ITEM, TIME, USER, WEIGHT, Schema
from prismrec.data.sequences import write_sequences
from prismrec.data.split import split_starts
from prismrec.data.store import KIND, Store
from prismrec.data.tables import Source, Table, open_table, require
from prismrec.errors import DataError


def prepare(
    events: Source,
    items: Source | None,
    out: Path,
    config: PrepareConfig = PrepareConfig(),  # noqa: B008 (frozen)
    console: Console | None = None,
) -> Store:
    """Write a store of events and items, and open it.

    Args:
        events: `user_id`, `item_id`, `timestamp`, optional `dwell` and `weight`, and context features.
        items: `item_id`, features and columns to show; None makes a catalogue of the events' items.
        out: the store; an earlier one there is replaced, and stays as it is if anything fails.
        config: names of columns, split, what to leave out.
        console: where progress and the summary are shown; standard error by default.

    Raises:
        DataError: a table cannot be read or breaks the schema; the message names file, column and row.
        ArtifactError: `out` exists and is not a store.
    """
    console = console or Console(stderr=True)
    started = time.perf_counter()
    with replacing_directory(out, KIND) as directory, console.status("reading the tables") as status:
        table, schema, total = _read_events(open_table(events, "events", config.columns), config)
        catalogue = _read_catalogue(items, table, config)
        table, schema = _same_ids(table, catalogue), schema.model_copy(update={"item_features": catalogue.features})

        def advance(done: int, of: int) -> None:
            status.update(f"sorting events: {done:,} of {of:,}")

        sequences = write_sequences(table, catalogue, schema, directory, config, advance)
        unknown = total - int(sequences.offsets[-1]) - sequences.dropped.total()
        dropped = {"items not in the catalogue": unknown, **sequences.dropped}
        if not len(sequences.users):
            raise DataError(f"{table.name}: expected events to keep, but all {total:,} were left out: {dropped}")
        status.update("writing the catalogue, the users and the splits")
        _write_tables(directory, catalogue, sequences.users)
        counts = _write_splits(directory, sequences.offsets, config)
        moments = np.load(directory / "time.npy", mmap_mode="r")
        write_manifest(
            directory,
            KIND,
            schema=schema.model_dump(mode="json"),
            schema_hash=hashlib.sha256(schema.model_dump_json().encode()).hexdigest(),
            settings=config.model_dump(mode="json"),
            counts={"users": len(sequences.users), "items": len(catalogue.items), **counts},
            dropped=dropped,
            min_time=int(moments.min()),
            max_time=int(moments.max()),
        )
    store = Store.open(out)
    _print_summary(console, store, total, time.perf_counter() - started)
    return store


def _read_events(table: Table, config: PrepareConfig) -> tuple[Table, Schema, int]:
    """The events with checked columns in the store's types, the features they bring, and their number."""
    require(table, (USER, ITEM, TIME))
    found, name = table.columns, table.name
    further = tuple(column for column in found if column not in (USER, ITEM, TIME, DWELL, WEIGHT))
    context = further if config.context_features is None else config.context_features
    require(table, context)
    columns = [id_column(name, USER, found[USER]), id_column(name, ITEM, found[ITEM])]
    columns.append(time_column(name, TIME, found[TIME]))
    if DWELL in found:
        columns.append(dwell_column(name, DWELL, found[DWELL]))
    if WEIGHT in found:
        columns.append(weight_column(name, WEIGHT, found[WEIGHT]))
    remedy = "leave it out of context_features"
    columns += [feature_column(name, column, found[column], remedy) for column in context]
    total = table.check(columns)
    schema = Schema(
        item_features=(ITEM,), context_features=context, has_dwell=DWELL in found, has_weight=WEIGHT in found
    )
    return Table(name, table.frame.select(column.values for column in columns), table.files), schema, total


def _read_catalogue(items: Source | None, events: Table, config: PrepareConfig) -> Catalogue:
    if items is not None:
        return read_catalogue(open_table(items, "items", config.columns), config)
    return catalogue_of(events.collect(events.frame.select(pl.col(ITEM).unique())).to_series().sort())


def _same_ids(events: Table, catalogue: Catalogue) -> Table:
    """The events with item ids of the catalogue's type."""
    given, wanted = events.columns[ITEM], catalogue.items[ITEM].dtype
    if given != wanted and not (given.is_integer() and wanted.is_integer()):
        raise DataError(
            f"{events.name}: column {ITEM!r}: expected {wanted} ids as in the catalogue, found {given}; convert one"
        )
    return Table(events.name, events.frame.with_columns(pl.col(ITEM).cast(wanted, strict=False)), events.files)


def _write_tables(directory: Path, catalogue: Catalogue, users: pl.Series) -> None:
    catalogue.items.write_parquet(directory / "items.parquet")
    np.save(directory / "item_features.npy", catalogue.feature_keys())
    pl.DataFrame({USER: users, KEY: column_keys(users)}).write_parquet(directory / "users.parquet")


def _write_splits(directory: Path, offsets: np.ndarray, config: PrepareConfig) -> dict[str, int]:
    """Write the bounds of users and splits; gives the numbers of events."""
    valid_start, test_start = split_starts(offsets, np.load(directory / "time.npy", mmap_mode="r"), config)
    for name, bounds in (("offsets", offsets), ("valid_start", valid_start), ("test_start", test_start)):
        np.save(directory / f"{name}.npy", bounds)
    return {
        "events": int(offsets[-1]),
        "train_events": int((valid_start - offsets[:-1]).sum()),
        "valid_events": int((test_start - valid_start).sum()),
        "test_events": int((offsets[1:] - test_start).sum()),
        "users_only_in_training": int((valid_start == offsets[1:]).sum()),
    }


def _print_summary(console: Console, store: Store, total: int, seconds: float) -> None:
    counts = store.manifest["counts"]
    console.print(
        f"{store.path}: {counts['users']:,} users, {counts['items']:,} items, {counts['events']:,} events "
        f"({counts['train_events']:,} train, {counts['valid_events']:,} valid, {counts['test_events']:,} test)"
    )
    if counts["users_only_in_training"]:
        console.print(f"  users without validation or test events: {counts['users_only_in_training']:,}")
    for reason, number in store.manifest["dropped"].items():
        if number:
            console.print(f"  left out, {reason}: {number:,}")
    console.print(f"  {total:,} events read in {seconds:.1f} s, {total / seconds:,.0f} a second")
