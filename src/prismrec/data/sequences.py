"""Events turned into the store's arrays: one sequence per user, sorted by time.

Takes a lazy frame of checked events; writes the arrays of a directory. Users are dealt into buckets
of a few million events, which are sorted one after another, so memory does not grow with the events.
"""

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from prismrec.config import PrepareConfig
from prismrec.data.catalogue import Catalogue
from prismrec.data.columns import column_keys
from prismrec.data.schema import DWELL, ITEM, TIME, USER, WEIGHT, Schema
from prismrec.data.tables import Table

_BUCKET_EVENTS = 4_000_000
_USER, _ITEM, _ORDER, _BUCKET = "__user", "__item", "__order", "__bucket"


@dataclass(frozen=True)
class Sequences:
    """What was written besides the arrays of events."""

    users: pl.Series
    """Original ids of the users that have events, rising [U]."""
    offsets: np.ndarray
    """int64 [U + 1]."""
    dropped: Counter[str]
    """Events left out, by reason."""


def write_sequences(
    events: Table,
    catalogue: Catalogue,
    schema: Schema,
    directory: Path,
    config: PrepareConfig,
    advance: Callable[[int, int], None],
) -> Sequences:
    """Sort events by user and time and write `item.npy`, `time.npy` and what else the schema names.

    Events of items outside the catalogue, exact repetitions, and what the settings exclude are left out.

    Args:
        events: user_id, item_id, timestamp and the columns of the schema, in the store's types.
        catalogue: the items.
        schema: which columns to write.
        directory: where to.
        config: what to leave out.
        advance: is told after each bucket how many events are sorted, of how many.
    """
    users = _count_users(events, catalogue)
    kept = np.zeros(len(users), np.int64)
    dropped: Counter[str] = Counter()
    total, done = int(users["len"].sum()), 0
    columns = {_ITEM: ("item", "<i4"), TIME: ("time", "<i8")}
    if schema.has_dwell:
        columns[DWELL] = ("dwell", "<i4")
    if schema.has_weight:
        columns[WEIGHT] = ("weight", "<f4")
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        _deal(events, catalogue, schema, users, Path(temporary))
        files = {name: GrowingArray(directory / f"{file}.npy", dtype) for name, (file, dtype) in columns.items()}
        context = GrowingArray(directory / "context.npy", "<i8", len(schema.context_features))
        for bucket in range(int(users[_BUCKET][-1]) + 1 if len(users) else 0):
            dealt = pl.read_parquet(Path(temporary) / f"{_BUCKET}={bucket}" / "*.parquet")
            done += len(dealt)
            sorted_events = _sort(dealt, config, dropped)
            kept += np.bincount(sorted_events[_USER], minlength=len(users))
            for name, file in files.items():
                file.append(sorted_events[name].to_numpy())
            context.append(sorted_events.select(schema.context_features).to_numpy())
            advance(done, total)
        for file in (*files.values(), context):
            file.close()
    if not schema.context_features:
        (directory / "context.npy").unlink()
    present = kept > 0
    return Sequences(users[USER].filter(pl.Series(present)), np.concatenate([[0], np.cumsum(kept[present])]), dropped)


class GrowingArray:
    """An .npy file written piece by piece, so that no array is ever whole in memory."""

    def __init__(self, path: Path, dtype: str, width: int | None = None) -> None:
        self._file = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._row = () if width is None else (width,)
        self._length = 0
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Add rows, [n] or [n, width]."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self._length += len(rows)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()  # NumPy leaves room in it for the length to grow
        self._file.close()

    def _write_header(self) -> None:
        description = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, description)


def _count_users(events: Table, catalogue: Catalogue) -> pl.DataFrame:
    """Users by rising id, with their number of events (`len`), position and bucket."""
    known = events.frame.join(catalogue.rows.lazy(), on=ITEM, how="semi")
    counts = events.collect(known.group_by(USER).agg(pl.len().cast(pl.Int64))).sort(USER)
    return counts.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int32).alias(_USER),
        ((pl.col("len").cum_sum() - pl.col("len")) // _BUCKET_EVENTS).alias(_BUCKET),
    ).with_columns(pl.col(_BUCKET).rank("dense").cast(pl.Int32) - 1)


def _deal(events: Table, catalogue: Catalogue, schema: Schema, users: pl.DataFrame, directory: Path) -> None:
    """Write the events of each bucket to a folder, as integers, with their place in the input."""
    frame = (
        events.frame.with_row_index(_ORDER)
        .join(catalogue.rows.lazy().rename({"row": _ITEM}), on=ITEM, how="inner")
        .join(users.lazy().select(USER, _USER, _BUCKET), on=USER, how="inner")
    )
    for name in schema.context_features:
        distinct = events.collect(events.frame.select(pl.col(name).unique())).to_series()
        keys = pl.LazyFrame({name: distinct, f"__{name}": column_keys(distinct)})
        frame = frame.join(keys, on=name, how="left", nulls_equal=True)
    given = [name for name, present in ((DWELL, schema.has_dwell), (WEIGHT, schema.has_weight)) if present]
    context = [pl.col(f"__{name}").alias(name) for name in schema.context_features]
    chosen = frame.select(_USER, _BUCKET, _ITEM, TIME, *given, *context, _ORDER)
    with events.reading():
        chosen.sink_parquet(
            pl.PartitionBy(directory, key=_BUCKET, include_key=False), compression="uncompressed", mkdir=True
        )


def _sort(events: pl.DataFrame, config: PrepareConfig, dropped: Counter[str]) -> pl.DataFrame:
    """One bucket in the store's order, without what is left out."""
    ordered = events.sort(_USER, TIME, _ORDER).drop(_ORDER)
    distinct = ordered.unique(maintain_order=True, keep="first")
    dropped["duplicates"] += len(ordered) - len(distinct)
    if config.repeats == "drop":
        first = distinct.unique([_USER, _ITEM], maintain_order=True, keep="first")
        dropped["repeats"] += len(distinct) - len(first)
        distinct = first
    enough = distinct.filter(pl.len().over(_USER) >= config.min_user_events)
    dropped["users with too few events"] += len(distinct) - len(enough)
    return enough
