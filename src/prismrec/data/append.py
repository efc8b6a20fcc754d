"""A new day of events, appended to a store as a part (see `store.py`); nothing that is there is rewritten.

Takes a store and tables like those that `prepare` had; leaves the store that `prepare` would have made of all events
together, up to the order of rows: new users and items follow the old ones. Splits move on as the store's settings
say, of all events: what was for validation and testing becomes training, and the newest takes its place; what was
for training stays so, even a user's second event of two when a third comes. Each event must be newer than its user's
newest in the store, so that sequences grow at their end only and a day that is appended twice is refused.

Work and disk grow with the new part, besides small arrays with one entry per user or item; only a split by shares
reads the times of all events. A part is complete on disk before the manifest, replaced at one stroke, names it: a
crash at any moment leaves the store as before or as after.
"""

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from prismrec.artifact import alone, describe_files, manifest_content, replace_manifest
from prismrec.atomic import naming_full_disk, synchronize
from prismrec.config import PrepareConfig
from prismrec.data.catalogue import KEY, Catalogue, catalogue_of
from prismrec.data.columns import column_keys
from prismrec.data.events import event_columns, open_source, same_ids
from prismrec.data.more_items import aligned_keys, read_more_items
from prismrec.data.newer import without_left_out
from prismrec.data.prepare import listed, of_future
from prismrec.data.schema import DWELL, ITEM, TIME, UNIFORM, USER, WEIGHT
from prismrec.data.sequences import Sequences, Survey, survey, write_sequences
from prismrec.data.split import count_splits, split_moments
from prismrec.data.store import KIND, PARTS, Store, part_name
from prismrec.data.tables import Source, Table, renamed, require, with_text
from prismrec.engine import LocalEngine
from prismrec.errors import ConfigError, DataError
from prismrec.toml import parse_prepare_config
from prismrec.workspace import Workshop, workshop


def append(
    store: Path,
    events: Source,
    items: Source | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    valid_from: int | None = None,
    test_from: int | None = None,
    late: str = "refuse",
    console: Console | None = None,
) -> Store:
    """Append events, and perhaps items, to a store.

    Args:
        store: the directory; it stays as it is if anything fails.
        events: a table with the columns that the store was prepared with; others are passed over.
        items: new items, with the columns of the catalogue; items that are there already stay as they are. Without
            it, events of unknown items are left out, but a catalogue of bare ids takes them in.
        columns: our names of columns -> those of these tables; by default as when the store was prepared.
        valid_from: new first moment of validation, seconds; with `test_from`, for a split by time.
        test_from: new first moment of testing, seconds.
        late: what to do with events that are not newer than their user's newest in the store: refuse the table, or
            drop them.
        console: where progress and the summary are shown; standard error by default.

    Returns:
        The store with the new part; its older files are checked by size only.

    Raises:
        DataError: a table cannot be read, does not fit the store, or holds late events or none to keep; the message
            names file, column and row.
        ConfigError: the moments do not fit the store's kind of split, or `late` is something else.
        ArtifactError: the store is missing or damaged, or someone else is appending.
    """
    if late not in ("refuse", "drop"):
        raise ConfigError(f"--late: expected refuse or drop, found {late!r}")
    console = console or Console(stderr=True)
    started = time.perf_counter()
    with alone(store, KIND), naming_full_disk(store):
        opened = Store.open(store, checksums=False)
        config = _settings(opened, columns, valid_from, test_from)
        with _new_part(opened) as directory:
            with workshop(directory / "work", None, LocalEngine(), console) as shop:
                dropped, new_users, new_items = _write_part(directory, opened, events, items, config, late, shop)
            manifest = _grown_manifest(opened, directory, config, dropped, new_users, new_items)  # names the part
        replace_manifest(store, manifest)
    grown = Store.view(store, manifest)
    _print_summary(console, opened, grown, dropped, time.perf_counter() - started)
    return grown


def _settings(
    store: Store, columns: Mapping[str, str] | None, valid_from: int | None, test_from: int | None
) -> PrepareConfig:
    """The store's settings, with what is given."""
    moments = {"valid_from": valid_from, "test_from": test_from}
    given = {name: moment for name, moment in moments.items() if moment is not None}
    settings = store.manifest["settings"] | given | ({} if columns is None else {"columns": dict(columns)})
    return parse_prepare_config(settings, "append").model_copy(
        update={"context_features": store.schema.context_features}
    )


def _write_part(
    directory: Path,
    store: Store,
    events: Source,
    items: Source | None,
    config: PrepareConfig,
    late: str,
    shop: Workshop,
) -> tuple[Counter[str], int, int]:
    """Write the files of a part; gives the numbers of events left out by reason, of new users and of new items."""
    table, surveyed = _read_table(events, store, config, items is None, shop)
    more, features = _more_items(items, surveyed.items, store, shop)
    catalogue = Catalogue(pl.concat([store.items, more], how="diagonal"), store.schema.item_features)
    table, dropped = without_left_out(same_ids(table, catalogue), store, config, late)
    read = table.collect(table.frame.select(pl.len())).item()
    of_part = config.model_copy(update={"min_user_events": 1})  # of users' events together, seen to above
    sequences = write_sequences(table, catalogue, store.schema, directory, of_part, surveyed.bounds, shop)
    dropped += sequences.dropped
    dropped["item_not_in_catalogue"] += read - int(sequences.offsets[-1]) - sequences.dropped.total()
    if not len(sequences.users):
        raise DataError(
            f"{table.name}: expected events to keep, but all {surveyed.total:,} were left out: {listed(+dropped)}"
        )
    more.write_parquet(directory / "items.parquet")
    np.save(directory / "item_features.npy", features)
    return +dropped, _write_users(directory, store, sequences), len(more)


def _read_table(
    events: Source, store: Store, config: PrepareConfig, with_items: bool, shop: Workshop
) -> tuple[Table, Survey]:
    """The events with the columns of the store, in its types, and what is known of all of them."""
    schema = store.schema
    wanted = [USER, ITEM, TIME, *schema.context_features]
    optional = ((DWELL, schema.has_dwell), (WEIGHT, schema.has_weight), (UNIFORM, schema.has_uniform))
    wanted += [name for name, present in optional if present]
    table = renamed(open_source(events, "events", shop), config.columns)
    for name, ids in ((USER, store.user_ids), (ITEM, store.item_ids)):
        table = with_text(table, name) if ids.dtype == pl.String else table
    require(table, tuple(wanted))
    table = table.then(lambda frame: frame.select(wanted))
    columns, _ = event_columns(table, config)
    surveyed = survey(table, columns, with_items, shop)
    table = table.then(lambda frame: frame.select(column.values for column in columns))
    given, ours = table.columns[USER], store.user_ids.dtype
    if given != ours and not (given.is_integer() and ours.is_integer()):
        raise DataError(
            f"{table.name}: column {USER!r}: expected {ours} ids as in the store, found {given}; convert it"
        )
    table = table.then(lambda frame: frame.with_columns(pl.col(USER).cast(ours)))
    return table, replace(surveyed, bounds=surveyed.bounds.cast(ours))


def _more_items(
    items: Source | None, of_events: pl.Series, store: Store, shop: Workshop
) -> tuple[pl.DataFrame, np.ndarray]:
    """Items that the catalogue lacks, with its columns, and their keys [N, F]."""
    known = store.item_ids
    if items is not None:
        _, read = read_more_items(open_source(items, "items", shop), store)
    elif store.items.columns == [ITEM, KEY]:
        read = catalogue_of(of_events.cast(known.dtype, strict=of_events.dtype.is_integer()))
    else:
        return store.items.clear(), np.zeros((0, len(store.schema.item_features)), np.int64)
    new = ~read.items[ITEM].is_in(known.implode())
    added = pl.concat([store.items.clear(), read.items.filter(new)], how="diagonal")
    return added, aligned_keys(read, store)[new.to_numpy()]


@contextlib.contextmanager
def _new_part(store: Store) -> Iterator[Path]:
    """Yield the directory of the store's next part; what the block writes is on disk if it ends without an error."""
    parts, directory = store.path / PARTS, store.path / part_name(store.num_parts + 1)
    parts.mkdir(exist_ok=True)
    shutil.rmtree(directory, ignore_errors=True)  # of a process that was killed: no manifest names it
    directory.mkdir()
    try:
        yield directory
        for path in (*directory.iterdir(), directory, parts):
            synchronize(path)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _write_users(directory: Path, store: Store, sequences: Sequences) -> int:
    """Write whose events the part has, and which of them are new users; gives the number of these."""
    known = store.user_ids.to_frame().with_row_index("row")
    row = sequences.users.to_frame().join(known, on=USER, how="left", maintain_order="left")["row"].cast(pl.Int64)
    new, rows = sequences.users.filter(row.is_null()), row.fill_null(-1).to_numpy(writable=True)
    rows[rows < 0] = store.num_users + np.arange(len(new))
    np.save(directory / "user.npy", rows)
    np.save(directory / "offsets.npy", sequences.offsets)
    pl.DataFrame({USER: new, KEY: column_keys(new)}).write_parquet(directory / "users.parquet")
    return len(new)


def _grown_manifest(
    store: Store, part: Path, config: PrepareConfig, dropped: Counter[str], new_users: int, new_items: int
) -> dict[str, Any]:
    """The manifest of the store with a further part, which is in its place."""
    before = store.manifest
    content = {name: value for name, value in manifest_content(before).items() if name != "states"}
    lasting = {name: value for name, value in content.items() if name != "compacted"}  # that is of the state before
    written = {name: before[name] for name in ("kind", "format_version")}
    settings = {**before["settings"], "valid_from": config.valid_from, "test_from": config.test_from}
    times = np.load(part / "time.npy", mmap_mode="r")
    state = lasting | {
        "settings": settings,
        "moments": None,
        "counts": {"users": store.num_users + new_users, "items": store.num_items + new_items},
        "catalogue_sizes": [*store.catalogue_sizes, store.num_items + new_items],
        "dropped": dict(Counter(before["dropped"]) + dropped),
        "min_time": min(before["min_time"], int(times.min())),
        "max_time": max(before["max_time"], int(times.max())),
    }
    states = before.get("states", [content])
    files = before["files"] | describe_files(store.path, part.iterdir())

    def manifest() -> dict[str, Any]:
        return written | {"files": files, **state, "states": [*states, state]}

    state["moments"] = split_moments(Store.view(store.path, manifest()).time, config)
    grown = Store.view(store.path, manifest())
    _refuse_untraining(store, grown)
    state["counts"] |= count_splits(grown.offsets, grown.valid_start, grown.test_start, config)
    return manifest()


def _refuse_untraining(store: Store, grown: Store) -> None:
    """What was for training must not be for validation or testing now: models have seen it."""
    before = store.valid_start - store.offsets[:-1]
    fewer = (grown.valid_start - grown.offsets[:-1])[: store.num_users] < before
    if fewer.any():
        raise DataError(
            f"{store.path}: expected a split in which training events stay so, found {int(fewer.sum()):,} users of "
            "whom some would be for validation; give later moments as --valid-from and --test-from"
        )


def _print_summary(console: Console, before: Store, store: Store, dropped: Counter[str], seconds: float) -> None:
    counts = store.manifest["counts"]
    lines = [
        f"{store.path}: {store.num_events - before.num_events:,} new events, "
        f"{store.num_users - before.num_users:,} new users, {store.num_items - before.num_items:,} new items; "
        f"now {store.num_events:,} events ({counts['train_events']:,} train, {counts['valid_events']:,} valid, "
        f"{counts['test_events']:,} test) in {store.num_parts + 1} pieces",
        f"  new events left out: {listed(dropped)}",
        f"  {seconds:.1f} s",
        *of_future(store.manifest["max_time"]),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
