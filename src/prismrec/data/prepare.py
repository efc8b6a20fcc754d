"""From tables of events and items to a store.

Takes Parquet or CSV files or frames in memory, larger than memory if need be; writes the directory
that `store.py` describes. Bad values are refused with their file, column and row; what is left out is
counted by reason.
"""

import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from prismrec.artifact import replacing_artifact, write_manifest
from prismrec.config import PrepareConfig
from prismrec.data.catalogue import KEY, Catalogue, catalogue_of, read_catalogue
from prismrec.data.columns import column_keys
from prismrec.data.events import EVENT_COLUMNS, event_columns, open_source, same_ids, source_files
from prismrec.data.schema import ITEM, USER
from prismrec.data.sequences import Sequences, survey, write_sequences
from prismrec.data.split import count_splits, split_starts
from prismrec.data.store import KIND, Store
from prismrec.data.tables import Source, Table, renamed, with_text
from prismrec.engine import Engine, LocalEngine
from prismrec.errors import ConfigError, DataError, listed_names
from prismrec.locations import fingerprint, stamp
from prismrec.workspace import Workshop, workshop


def prepare(
    events: Source,
    items: Source | None,
    out: Path,
    config: PrepareConfig = PrepareConfig(),  # noqa: B008 (frozen)
    console: Console | None = None,
    engine: Engine | None = None,
) -> Store:
    """Write a store of events and items, and open it.

    What is done is kept beside `out` until all is done: killed, the same call goes on with what is left, if both tables
    are files that have not changed.

    Args:
        events: `user_id`, `item_id`, `timestamp`, optional `dwell`, `weight` and `uniform`, and context features.
        items: `item_id`, features and columns to show; None makes a catalogue of the events' items.
        out: the store; an earlier one there is replaced, and stays as it is if anything fails.
        config: names of columns, split, what to leave out.
        console: where progress and the summary are shown; standard error by default.
        engine: where the parts are worked on; here by default.

    Raises:
        DataError: a table cannot be read or breaks the schema; the message names file, column and row.
        ConfigError: the settings name a column that is not there or not allowed.
        ArtifactError: `out` exists and is not a store, or another process is writing it.
    """
    console = console or Console(stderr=True)
    started = time.perf_counter()
    made_of = _fingerprint(events, items, config)
    with (
        workshop(out, made_of, engine or LocalEngine(), console) as shop,
        replacing_artifact(out, KIND, within=shop.work) as directory,
    ):
        event_table, item_table = _open_tables(events, items, config, shop)
        columns, schema = event_columns(event_table, config)
        surveyed = survey(event_table, columns, item_table is None, shop)
        catalogue = read_catalogue(item_table, config) if item_table else catalogue_of(surveyed.items)
        table = same_ids(event_table.then(lambda frame: frame.select(one.values for one in columns)), catalogue)
        schema = schema.model_copy(update={"item_features": catalogue.features})
        sequences = write_sequences(table, catalogue, schema, directory, config, surveyed.bounds, shop)
        dropped = _dropped(table.name, surveyed.total, sequences)
        _write_tables(directory, catalogue, sequences.users)
        counts = _write_splits(directory, sequences.offsets, config)
        moments = np.load(directory / "time.npy", mmap_mode="r")
        write_manifest(
            directory,
            KIND,
            schema=schema.model_dump(mode="json"),
            schema_hash=schema.fingerprint,
            settings=config.model_dump(mode="json"),
            counts={"users": len(sequences.users), "items": len(catalogue.items), **counts},
            dropped=dropped,
            min_time=int(moments.min()),
            max_time=int(moments.max()),
        )
    store = Store.open(out)
    _print_summary(console, store, surveyed.total, time.perf_counter() - started)
    return store


def _fingerprint(events: Source, items: Source | None, config: PrepareConfig) -> str | None:
    """Of files and settings; None for frames, of which nobody can say whether they are the same."""
    stamps = []
    for source in (events, items):
        if isinstance(source, str | Path):
            stamps.append([(file, stamp(file)) for file in source_files(source)])
        elif source is not None:
            return None
    return fingerprint(stamps, config, version("prismrec"))


def _open_tables(
    events: Source, items: Source | None, config: PrepareConfig, shop: Workshop
) -> tuple[Table, Table | None]:
    """Both tables with our names of columns; in CSV files, item ids are text if those of the other table are."""
    event_table = open_source(events, "events", shop)
    item_table = None if items is None else open_source(items, "items", shop)
    found = list(event_table.columns) + (list(item_table.columns) if item_table else [])
    for ours, given in config.columns.items():
        if given not in found:
            raise ConfigError(f"--columns {ours}={given}: expected one of the columns {listed_names(found)}")
    of_items = {ours: given for ours, given in config.columns.items() if ours not in EVENT_COLUMNS or ours == ITEM}
    event_table = renamed(event_table, config.columns)
    if item_table is None:
        return event_table, None
    item_table = renamed(item_table, of_items)
    if pl.String in (event_table.columns.get(ITEM), item_table.columns.get(ITEM)):
        return with_text(event_table, ITEM), with_text(item_table, ITEM)
    return event_table, item_table


def _dropped(table: str, total: int, sequences: Sequences) -> dict[str, int]:
    """Numbers of events left out, by reason; leaving out all of them is an error."""
    kept = int(sequences.offsets[-1])
    unknown = total - kept - sequences.dropped.total()
    dropped = {reason: number for reason, number in sequences.dropped.items() if number}
    if unknown:
        dropped["item_not_in_catalogue"] = unknown
    if not kept:
        raise DataError(
            f"{table}: expected events to keep, but all {total:,} were left out: {listed(dropped)}; "
            "check that both tables name items alike, and the settings"
        )
    return dropped


def _write_tables(directory: Path, catalogue: Catalogue, users: pl.Series) -> None:
    catalogue.items.write_parquet(directory / "items.parquet")
    np.save(directory / "item_features.npy", catalogue.feature_keys())
    pl.DataFrame({USER: users, KEY: column_keys(users)}).write_parquet(directory / "users.parquet")


def _write_splits(directory: Path, offsets: np.ndarray, config: PrepareConfig) -> dict[str, int]:
    """Write the bounds of users and splits; gives the numbers of events."""
    valid_start, test_start = split_starts(offsets, np.load(directory / "time.npy", mmap_mode="r"), config)
    for name, bounds in (("offsets", offsets), ("valid_start", valid_start), ("test_start", test_start)):
        np.save(directory / f"{name}.npy", bounds)
    return count_splits(offsets, valid_start, test_start, config)


def _print_summary(console: Console, store: Store, total: int, seconds: float) -> None:
    counts, dropped = store.manifest["counts"], store.manifest["dropped"]
    lines = [
        f"{store.path}: {counts['users']:,} users, {counts['items']:,} items, {counts['events']:,} events "
        f"({counts['train_events']:,} train, {counts['valid_events']:,} valid, {counts['test_events']:,} test)",
        f"  {counts['users_only_in_training']:,} users have events for training only",
        f"  events left out: {listed(dropped)}",
        f"  {total:,} events read in {seconds:.1f} s, {total / seconds:,.0f} a second",
        *of_future(store.manifest["max_time"]),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def of_future(newest: int) -> list[str]:
    """A warning, if the newest event is of after tomorrow: it is the present of every user's recommendations."""
    days = (newest - time.time()) / 86_400
    if days < 1:
        return []
    return [
        f"  warning: the newest event is {days:,.0f} days in the future, from where all histories are seen; leave it "
        "out if it is a mistake"
    ]


def listed(dropped: dict[str, int]) -> str:
    """Numbers of events left out as text."""
    return ", ".join(f"{number:,} ({reason.replace('_', ' ')})" for reason, number in dropped.items()) or "nothing"
