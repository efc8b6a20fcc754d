"""Events turned into the store's arrays: one sequence per user, sorted by time, part by part.

Takes a table of events; writes the arrays of a directory. A part is some millions of consecutive events. Each is
surveyed (checked, and a sample of its users drawn), then dealt: its events go to buckets of users, whose bounds in the
order of ids come from the samples. Then each bucket is sorted. Memory grows neither with the number of parts nor of
buckets; every part and bucket is one file of the workspace, so what is done stays done. They take 20 to 60 bytes an
event beside the store while it is written.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from prismrec.config import PrepareConfig
from prismrec.data.catalogue import ROW, Catalogue
from prismrec.data.columns import Column, column_keys
from prismrec.data.parquet import read_parquet
from prismrec.data.schema import DWELL, ITEM, TIME, UNIFORM, USER, WEIGHT, Schema
from prismrec.data.tables import Table
from prismrec.errors import DataError, shown
from prismrec.workspace import Workshop

_PART_EVENTS = _BUCKET_EVENTS = 4_000_000
_SAMPLE = 1000  # users of a bucket's worth of events
_USER_EVENTS = 5 * _BUCKET_EVENTS  # all of a user are sorted in one bucket
_USER, _BUCKET, _ROW = "__user", "__bucket", "__row"
_REASONS = ("duplicate", "repeated_item", "user_with_few_events")


@dataclass(frozen=True)
class Survey:
    """What must be known of all parts before the first is dealt."""

    total: int
    """Events."""
    bounds: pl.Series
    """First id of every bucket but the first, rising."""
    items: pl.Series
    """Distinct items of the events, rising; none if they were not asked for."""


@dataclass(frozen=True)
class Sequences:
    """What was written besides the arrays of events."""

    users: pl.Series
    """Original ids of the users that have events, rising [U]."""
    offsets: np.ndarray
    """int64 [U + 1]."""
    dropped: Counter[str]
    """Events of items of the catalogue that were left out, by reason."""


def survey(events: Table, columns: list[Column], with_items: bool, shop: Workshop) -> Survey:
    """Check every event.

    Args:
        events: as given, under our names of columns.
        columns: what to check, user_id and item_id the first two.
        with_items: whether to gather the items.
        shop: where and by whom.

    Raises:
        DataError: a value is not as expected (file, column and row are named), there are no rows, or too many of one
            user.
    """
    total, stride = sum(events.lengths), max(1, _BUCKET_EVENTS // _SAMPLE)
    if not total:
        raise DataError(f"{events.name}: expected at least one row, found an empty table")

    def survey_one(place: int, out: Path) -> None:
        part = events.part(place * _PART_EVENTS, _PART_EVENTS)
        frame = part.collect(part.frame.select(column.name for column in columns))
        part.checked(frame, columns)
        ids = frame.select(column.values for column in columns[:2])
        chosen = np.random.default_rng(place).integers(0, len(ids), -(-len(ids) // stride))
        items = ids[ITEM].unique() if with_items else ids[ITEM].clear()
        ids[USER].gather(chosen).implode().to_frame().with_columns(items.implode()).write_parquet(out)

    files = shop.make_numbered("survey", _count(total, _PART_EVENTS), lambda: survey_one)
    found = read_parquet(files)
    users = found[USER].explode(empty_as_null=False).sort()
    _refuse_many(events.name, users, stride)
    buckets = _count(total, _BUCKET_EVENTS)
    bounds = users.gather(np.arange(1, buckets) * len(users) // buckets).unique(maintain_order=True)
    return Survey(total, bounds, found[ITEM].explode(empty_as_null=False).unique().sort())


def _refuse_many(table: str, sample: pl.Series, stride: int) -> None:
    """Refuse more events of one user than memory has room for, as a sample shows them that has one of each `stride`."""
    [most] = sample.value_counts().top_k(1, by="count").rows(named=True)
    events = most["count"] * stride
    if events > _USER_EVENTS:
        raise DataError(
            f"{table}: column {USER!r}: expected at most {_USER_EVENTS:,} events of a user, found about {events:,} of "
            f"{shown(most[USER])}; leave out this user, who may stand for all that are unknown"
        )


def write_sequences(
    events: Table,
    catalogue: Catalogue,
    schema: Schema,
    directory: Path,
    config: PrepareConfig,
    bounds: pl.Series,
    shop: Workshop,
) -> Sequences:
    """Sort events by user, then time, then place in the table; write `item.npy`, `time.npy` and the schema's others.

    Events of items outside the catalogue, exact repetitions, and what the settings exclude are left out.

    Args:
        events: user_id, item_id, timestamp and the columns of the schema, in the store's types.
        catalogue: the items.
        schema: which columns to write.
        directory: where to.
        config: what to leave out.
        bounds: of the buckets.
        shop: where the parts are kept, and by whom they are dealt and sorted.
    """
    buckets = len(bounds) + 1
    rows_file = shop.work / "rows"
    catalogue.rows.write_parquet(rows_file)

    def open_deal() -> Callable[[int, Path], None]:
        rows = read_parquet(rows_file)

        def deal(place: int, out: Path) -> None:
            part = events.part(place * _PART_EVENTS, _PART_EVENTS)
            _write_batches(_deal(part.collect(part.frame), rows, schema, bounds), buckets, out)

        return deal

    parts = max(1, _count(sum(events.lengths), _PART_EVENTS))  # one may hold no events
    dealt = shop.make_numbered("deal", parts, open_deal)

    def sort(bucket: int, out: Path) -> None:
        kept, dropped = _sort(_read_batches(dealt, bucket), config)
        users = kept[USER].rle()
        arrays = {name: _array(kept, columns, dtype) for name, dtype, _, columns in _layout(schema)}
        ids = io.BytesIO()
        users.struct["value"].alias(USER).to_frame().write_parquet(ids)
        arrays |= {"lengths": users.struct["len"].to_numpy(), "dropped": np.array(dropped)}
        with out.open("wb") as file:
            np.savez(file, allow_pickle=False, users=np.frombuffer(ids.getbuffer(), np.uint8), **arrays)

    return _assemble(shop.make_numbered("sort", buckets, lambda: sort), schema, directory)


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


def _assemble(files: list[Path], schema: Schema, directory: Path) -> Sequences:
    """Join the buckets' arrays."""
    users, lengths, dropped = [], [np.zeros(1, np.int64)], Counter[str]()
    with _arrays(directory, schema) as arrays:
        for file in files:
            with np.load(file) as sorted_events:
                users.append(pl.read_parquet(io.BytesIO(sorted_events["users"].tobytes())))
                for name, array in arrays.items():
                    array.append(sorted_events[name])
                lengths.append(sorted_events["lengths"])
                dropped.update(dict(zip(_REASONS, sorted_events["dropped"].tolist(), strict=True)))
    return Sequences(pl.concat(users)[USER], np.cumsum(np.concatenate(lengths), dtype=np.int64), dropped)


def _layout(schema: Schema) -> list[tuple[str, str, tuple[int, ...], list[str]]]:
    """The arrays of events: name, type, shape of a row, and the columns that each is made of."""
    width = len(schema.context_features)
    wanted = [
        ("item", "<i4", (), [ROW], True),
        ("time", "<i8", (), [TIME], True),
        ("dwell", "<i4", (), [DWELL], schema.has_dwell),
        ("weight", "<f4", (), [WEIGHT], schema.has_weight),
        ("uniform", "|b1", (), [UNIFORM], schema.has_uniform),
        ("context", "<i8", (width,), list(schema.context_features), width > 0),
    ]
    return [(name, dtype, row, columns) for name, dtype, row, columns, present in wanted if present]


@contextlib.contextmanager
def _arrays(directory: Path, schema: Schema) -> Iterator[dict[str, GrowingArray]]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(contextlib.closing(GrowingArray(directory / f"{name}.npy", dtype, row)))
            for name, dtype, row, _ in _layout(schema)
        }


def _array(events: pl.DataFrame, columns: list[str], dtype: str) -> np.ndarray:
    values = events.select(columns).to_numpy() if len(columns) > 1 else events[columns[0]].to_numpy()
    return np.ascontiguousarray(values, dtype)


def _count(events: int, each: int) -> int:
    return -(-events // each)


def _deal(events: pl.DataFrame, rows: pl.DataFrame, schema: Schema, bounds: pl.Series) -> pl.DataFrame:
    """The events of one part as integers, those of unknown items left out, with their buckets."""
    placed = events.join(rows, on=ITEM, how="left", maintain_order="left")
    known = placed.drop(ITEM).drop_nulls(ROW)
    keys = [column_keys(known[name]).alias(name) for name in schema.context_features]
    return known.with_columns(*keys, bounds.search_sorted(known[USER], side="right").alias(_BUCKET))


def _write_batches(events: pl.DataFrame, buckets: int, out: Path) -> None:
    """Write an Arrow file whose n-th batch holds the events of bucket n."""
    parts = events.partition_by(_BUCKET, as_dict=True, include_key=False)
    none = events.drop(_BUCKET).clear()
    schema = none.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for bucket in range(buckets):
            table = parts.get((bucket,), none).to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
            writer.write_batch(pa.RecordBatch.from_struct_array(table.to_struct_array().combine_chunks()))


def _read_batches(files: list[Path], bucket: int) -> pl.DataFrame:
    """The events of a bucket in all files, in their order."""
    batches = []
    for file in files:
        with pa.memory_map(str(file)) as source:
            batches.append(pa.ipc.open_file(source).get_batch(bucket))
    return pl.DataFrame(pa.Table.from_batches(batches))


def _sort(events: pl.DataFrame, config: PrepareConfig) -> tuple[pl.DataFrame, list[int]]:
    """One bucket in the store's order without what is left out, and how much that is for each of `_REASONS`."""
    ordered = _by_user_and_time(events)
    kept = _without_repetitions(ordered)
    dropped = [len(ordered) - len(kept), 0, 0]
    if config.repeats == "drop":
        first = kept.unique([USER, ROW], maintain_order=True, keep="first")
        dropped[1], kept = len(kept) - len(first), first
    if config.min_user_events > 1:
        enough = kept.filter(pl.len().over(USER) >= config.min_user_events)
        dropped[2], kept = len(kept) - len(enough), enough
    return kept, dropped


def _by_user_and_time(events: pl.DataFrame) -> pl.DataFrame:
    """Sort, events of one moment in the order they have; text is compared once for each user, not for each event."""
    if events.schema[USER] != pl.String:
        return events.sort(USER, TIME, maintain_order=True)
    users = events[USER].unique().sort().to_frame().with_row_index(_USER)
    return (
        events.join(users, on=USER, how="left", maintain_order="left")
        .sort(_USER, TIME, maintain_order=True)
        .drop(_USER)
    )


def _without_repetitions(ordered: pl.DataFrame) -> pl.DataFrame:
    """Sorted events, each once; only those of a user's same moment need be compared."""
    again = ((pl.col(USER) == pl.col(USER).shift()) & (pl.col(TIME) == pl.col(TIME).shift())).fill_null(False)
    numbered = ordered.with_row_index(_ROW)
    tied = numbered.filter(again | again.shift(-1, fill_value=False))
    first = tied.unique(ordered.columns, keep="first")
    repeated = tied[_ROW].filter(~tied[_ROW].is_in(first[_ROW].implode()))
    mask = np.ones(len(ordered), bool)
    mask[repeated.to_numpy()] = False
    return ordered.filter(mask)
