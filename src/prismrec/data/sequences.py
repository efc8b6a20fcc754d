"""Events turned into the store's arrays: one sequence per user, sorted by time.

Takes a table of checked events; writes the arrays of a directory. Users are dealt into buckets of a
few million events on disk, which are then sorted one after another: memory grows with the users, not
with the events. The buckets take about 30 bytes an event beside the store while it is written.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
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
    """Events of items of the catalogue that were left out, by reason."""


def write_sequences(
    events: Table,
    catalogue: Catalogue,
    schema: Schema,
    directory: Path,
    config: PrepareConfig,
    advance: Callable[[int, int], None],
) -> Sequences:
    """Sort events by user, then time, then place in the table; write `item.npy`, `time.npy` and the schema's others.

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
    lengths = np.zeros(len(users), np.int64)
    dropped: Counter[str] = Counter()
    done, total = 0, int(users["len"].sum())
    with tempfile.TemporaryDirectory(dir=directory) as temporary, _arrays(directory, schema) as arrays:
        _deal(events, catalogue, schema, users, Path(temporary))
        for bucket in range(users[_BUCKET].n_unique()):
            dealt = pl.read_parquet(Path(temporary, f"{_BUCKET}={bucket}", "*.parquet"), hive_partitioning=False)
            kept = _sort(dealt, config, dropped)
            lengths += np.bincount(kept[_USER], minlength=len(users))
            for array, columns in arrays:
                array.append(kept.select(columns).to_numpy())
            done += len(dealt)
            advance(done, total)
    present = lengths > 0
    offsets = np.concatenate([[0], np.cumsum(lengths[present])])
    return Sequences(users[USER].filter(pl.Series(present)), offsets, dropped)


class GrowingArray:
    """An .npy file written piece by piece, so that no array is ever whole in memory."""

    def __init__(self, path: Path, dtype: str, row: tuple[int, ...]) -> None:
        self._file = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._row = row
        self._length = 0
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Add rows, [n, ...]; each holds as many numbers as a row of the array."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self._length += len(rows)

    def close(self) -> None:
        """Complete the file; until then its header says that it is empty."""
        self._file.seek(0)
        self._write_header()  # of the same size: NumPy leaves room for the length to grow
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextlib.contextmanager
def _arrays(directory: Path, schema: Schema) -> Iterator[list[tuple[GrowingArray, list[str]]]]:
    """The arrays of events, and the columns that each is made of."""
    width = len(schema.context_features)
    wanted = [
        ("item", "<i4", (), [_ITEM], True),
        ("time", "<i8", (), [TIME], True),
        ("dwell", "<i4", (), [DWELL], schema.has_dwell),
        ("weight", "<f4", (), [WEIGHT], schema.has_weight),
        ("context", "<i8", (width,), list(schema.context_features), width > 0),
    ]
    with contextlib.ExitStack() as stack:
        arrays = []
        for name, dtype, row, columns, present in wanted:
            if present:
                array = GrowingArray(directory / f"{name}.npy", dtype, row)
                arrays.append((stack.enter_context(contextlib.closing(array)), columns))
        yield arrays


def _count_users(events: Table, catalogue: Catalogue) -> pl.DataFrame:
    """Users with events of the catalogue's items by rising id: number of events (`len`), position and bucket."""
    known = events.frame.join(catalogue.rows.lazy(), on=ITEM, how="semi")
    counts = events.collect(known.group_by(USER).agg(pl.len().cast(pl.Int64))).sort(USER)
    earlier = pl.col("len").cum_sum() - pl.col("len")
    return counts.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int32).alias(_USER),
        (earlier // _BUCKET_EVENTS).rank("dense").cast(pl.Int32).sub(1).alias(_BUCKET),
    )


def _deal(events: Table, catalogue: Catalogue, schema: Schema, users: pl.DataFrame, directory: Path) -> None:
    """Write the events of each bucket to a folder, as integers, with their place in the table."""
    frame = (
        events.frame.with_row_index(_ORDER)
        .join(catalogue.rows.lazy().rename({"row": _ITEM}), on=ITEM)
        .join(users.lazy().select(USER, _USER, _BUCKET), on=USER)
    )
    for name in schema.context_features:
        distinct = events.collect(events.frame.select(pl.col(name).unique())).to_series()
        keys = pl.LazyFrame({name: distinct, f"__{name}": column_keys(distinct)})
        frame = frame.join(keys, on=name, how="left", nulls_equal=True)
    given = [name for name, present in ((DWELL, schema.has_dwell), (WEIGHT, schema.has_weight)) if present]
    context = [pl.col(f"__{name}").alias(name) for name in schema.context_features]
    chosen = frame.select(_USER, _BUCKET, _ITEM, TIME, *given, *context, _ORDER)
    with events.reading():
        target = pl.PartitionBy(directory, key=_BUCKET, include_key=False)
        chosen.sink_parquet(target, compression="uncompressed", mkdir=True)


def _sort(events: pl.DataFrame, config: PrepareConfig, dropped: Counter[str]) -> pl.DataFrame:
    """One bucket in the store's order, without what is left out."""
    ordered = events.sort(_USER, TIME, _ORDER).drop(_ORDER)
    kept = ordered.unique(maintain_order=True, keep="first")
    dropped["duplicate"] += len(ordered) - len(kept)
    if config.repeats == "drop":
        first = kept.unique([_USER, _ITEM], maintain_order=True, keep="first")
        dropped["repeated_item"] += len(kept) - len(first)
        kept = first
    if config.min_user_events > 1:
        enough = kept.filter(pl.len().over(_USER) >= config.min_user_events)
        dropped["user_with_few_events"] += len(kept) - len(enough)
        kept = enough
    return kept
