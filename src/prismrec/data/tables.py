"""Tables that users bring: found, opened lazily, their columns renamed, their faults located.

Takes Parquet or CSV files or a frame in memory; gives a `Table`. Nothing is read before it is needed,
and then in a stream, so that a table may be larger than memory.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from prismrec.data.columns import LATEST, Column
from prismrec.data.files import find_files
from prismrec.data.parquet import check_parquet
from prismrec.errors import DataError, listed_names, shown

Source = Path | str | pl.DataFrame | pl.LazyFrame | Any
"""A file, a folder or glob of files, a Polars frame, or a pandas frame (`Any`: pandas need not be installed)."""

UNREADABLE = (pl.exceptions.PolarsError, ValueError, TypeError, OverflowError, NotImplementedError)  # of Arrow, too
_DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)  # Polars panics at some Parquet
_EARLIEST = -62_135_596_800  # the first second of the year 1
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x78\x01", b"\x78\x9c", b"\x78\xda")  # gzip, Zstandard, zlib
_LONGEST = 500  # characters of another library's message
_INTEGER = r"^(0|-?[1-9]\d{0,17})$"  # no leading zeros: "007" is a name


@dataclass(frozen=True)
class Table:
    """A lazy table, and what it is called in messages."""

    name: str
    frame: pl.LazyFrame
    files: tuple[Path, ...] = ()
    file_names: tuple[str, ...] = ()
    """What the files are called in messages."""
    steps: tuple[Callable[[pl.LazyFrame], pl.LazyFrame], ...] = ()
    """What made the frame out of the files' columns."""
    first_row: int = 0
    """Where the frame begins, if it is a part."""

    def then(self, step: Callable[[pl.LazyFrame], pl.LazyFrame]) -> "Table":
        """The table after a further step."""
        return replace(self, frame=step(self.frame), steps=(*self.steps, step))

    @property
    def is_csv(self) -> bool:
        """Whether types of columns were guessed."""
        return bool(self.files) and self.file_names[0].endswith(".csv")

    @cached_property
    def lengths(self) -> list[int]:
        """Rows of each file, or of the frame.

        Raises:
            DataError: a file cannot be read, or its columns are not those of the first.
        """
        if not self.files:
            return [int(self.collect(self.frame.select(pl.len())).item())]
        with self.reading():
            expected = _scan(self.files[0]).collect_schema()
            for file, name in zip(self.files, self.file_names, strict=True):
                if dict(_scan(file).collect_schema()) != dict(expected):
                    raise DataError(
                        f"{self.name}: could not be read (expected columns and types as in {self.file_names[0]}, "
                        f"found others in {name})"
                    )
            return [int(_scan(file).select(pl.len()).collect().item()) for file in self.files]

    def part(self, start: int, rows: int) -> "Table":
        """Some consecutive rows, read from the files that hold them."""
        if not self.files:
            return replace(self, frame=self.frame.slice(start, rows), first_row=start)
        ends = list(itertools.accumulate(self.lengths))
        begins = [end - length for end, length in zip(ends, self.lengths, strict=True)]
        held = [place for place, end in enumerate(ends) if end > start and begins[place] < start + rows]
        frame = _scan(tuple(self.files[place] for place in held)).slice(start - begins[held[0]], rows)
        for step in self.steps:
            frame = step(frame)
        return replace(self, frame=frame, first_row=start)

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Names and types, in order."""
        with self.reading():
            return dict(self.frame.collect_schema())

    def collect(self, query: pl.LazyFrame) -> pl.DataFrame:
        """Run a query on this table as a stream."""
        with self.reading():
            return query.collect(engine="streaming")

    def checked(self, rows: pl.DataFrame, columns: list[Column]) -> None:
        """Refuse the rows of the frame, which were read, at their first bad value; see `check`."""
        replace(self, frame=rows.lazy()).check(columns)

    def check(self, columns: list[Column]) -> int:
        """Refuse the table at its first bad value; gives the number of rows.

        Raises:
            DataError: a value is not as expected (file, column and row are named), or there are no rows.
        """
        faults = [column.invalid.fill_null(True).sum().alias(str(i)) for i, column in enumerate(columns)]
        rows, *found = self.collect(self.frame.select(pl.len(), *faults)).row(0)
        if not rows:
            raise DataError(f"{self.name}: expected at least one row, found an empty table")
        for column, number in zip(columns, found, strict=True):
            if number:
                self._refuse(column)
        return int(rows)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turn errors of reading into one that names the file."""
        try:
            yield
        except _DAMAGE as error:
            raise DataError(f"{self._culprit()}: could not be read ({first_line(error)})") from error

    def _refuse(self, column: Column) -> None:
        invalid = column.invalid.fill_null(True)
        row = int(self.collect(self.frame.select(pl.arg_where(invalid).first())).item())
        found = _found(self.collect(self.frame.select(column.name).slice(row, 1)).to_series())
        name, row = self._locate(row)
        raise DataError(
            f"{name}: column {shown(column.name)}, row {row + 1}: expected {column.expected}, found {found}"
        )

    def _locate(self, row: int) -> tuple[str, int]:
        """The file that holds a row of the table, and which row it is there."""
        row += self.first_row
        for name, length in zip(self.file_names, self.lengths if self.files else (), strict=True):
            if row < length:
                return name, row
            row -= length
        return self.name, row

    def _culprit(self) -> str:
        for file, name in zip(self.files, self.file_names, strict=True):
            try:
                _check(file)
                _scan(file).select(pl.all().null_count()).collect(engine="streaming")
            except _DAMAGE:
                return name
        return self.name


def open_table(source: Source, name: str) -> Table:
    """Open a table; see `open_files` for those in files.

    Args:
        source: a Parquet or CSV file, a folder or glob of such files, or a Polars or pandas frame.
        name: what to call a frame in messages.

    Raises:
        DataError: there is no such file, or none that can be read.
    """
    if not isinstance(source, str | Path):
        return Table(name, _lazy(source, name))
    files = find_files(Path(source))
    return open_files(files, str(source), tuple(map(str, files)))


def open_files(files: tuple[Path, ...], name: str, file_names: tuple[str, ...]) -> Table:
    """Open Parquet or CSV files; in CSV, a column in which every value is an integer holds integers, any other text.

    Args:
        files: all of the same kind and columns.
        name: what to call the table in messages.
        file_names: what to call each file; Parquet files whose name is one of CSV hold its text.

    Raises:
        DataError: a file cannot be read.
    """
    table = Table(name, _scan(files), files, file_names)
    with table.reading():
        for file in files:
            _check(file)
    return _with_integers(table) if table.is_csv else table


def read_table(source: Source, name: str = "table") -> pl.DataFrame:
    """Read a whole table that fits in memory; see `open_table`."""
    table = open_table(source, name)
    return table.collect(table.frame)


def is_pandas(source: Any) -> bool:
    """Whether this is a frame, a series or an index of pandas, which need not be installed."""
    return type(source).__module__.partition(".")[0] == "pandas"


def from_pandas(frame: Any, name: str) -> pl.DataFrame:
    """A pandas frame as a Polars frame.

    Raises:
        DataError: a column holds values of several types, or of one that Arrow does not have; it is named.
    """
    try:
        return pl.from_pandas(frame)
    except UNREADABLE as error:
        raise DataError(f"{name}: {_unreadable(frame)}could not be read ({first_line(error)})") from error


def _unreadable(frame: Any) -> str:
    """Which column of a pandas frame cannot be read by itself."""
    for place, column in enumerate(frame.columns):
        try:
            pl.from_pandas(frame.iloc[:, [place]])
        except UNREADABLE:
            return f"column {shown(column)}: "
    return ""


def renamed(table: Table, columns: Mapping[str, str]) -> Table:
    """The table with our names of columns.

    Args:
        table: as given.
        columns: our name of a column -> its name in the table; those the table lacks are passed over. A
            column that has one of our names already gives way to the one that was named.
    """
    found = table.columns
    given = {name: ours for ours, name in columns.items() if name in found}
    replaced = [ours for name, ours in given.items() if ours in found and ours != name and ours not in given]
    return table.then(lambda frame: frame.drop(replaced).rename(given))


def with_text(table: Table, name: str) -> Table:
    """The table with the text of a column of a CSV file that was taken for integers; others as they are."""
    if not table.is_csv or name not in table.columns:
        return table
    return table.then(lambda frame: frame.with_columns(pl.col(name).cast(pl.String)))


def require(table: Table, names: tuple[str, ...]) -> None:
    """Refuse a table without these columns, or with one that has none.

    Raises:
        DataError: says which column is missing, which there are, and how to name it.
    """
    found = table.columns
    for place, name in enumerate(found, 1):
        if not name or "\0" in name:  # Arrow has no names with NUL
            raise DataError(
                f"{table.name}: expected a name for every column, found {shown(name)} for column {place}; rename it, "
                "or leave it out (pandas: to_csv(..., index=False))"
            )
    for name in names:
        if name not in found:
            other = listed_names(list(found)[:1]) or "other"
            raise DataError(
                f"{table.name}: expected a column {shown(name)}, found only {listed_names(found)}; say which one it "
                f"is, for example --columns {name}={other}"
            )


def csv_to_parquet(file: Path, name: str, out: Path) -> None:
    """Write a CSV file as Parquet, every column text, in a stream; it has this name in messages."""
    with Table(name, _scan(file), (file,), (name,)).reading():
        _check(file)
        _scan(file).sink_parquet(out, compression="lz4")


def _scan(files: Path | tuple[Path, ...]) -> pl.LazyFrame:
    paths = [files] if isinstance(files, Path) else list(files)
    if paths[0].suffix == ".csv":
        return pl.scan_csv(paths, infer_schema=False, glob=False)
    return pl.scan_parquet(paths, glob=False)


def _check(path: Path) -> None:
    """Refuse a file at which Polars would fail badly; of CSV, a compressed one, which it would unpack all at once."""
    if path.suffix != ".csv":
        check_parquet(path)
        return
    with path.open("rb") as file:
        begins = file.read(4)
    if begins.startswith(_PACKED):
        raise pl.exceptions.ComputeError("expected text, found a compressed file; unpack it first")


def _with_integers(table: Table) -> Table:
    """The table with integers where every value of a column of text is one."""
    found = table.collect(table.frame.select(pl.all().str.contains(_INTEGER).all())).row(0, named=True)
    integers = [pl.col(name).cast(pl.Int64) for name, all_integers in found.items() if all_integers]
    return table.then(lambda frame: frame.with_columns(integers))


def _lazy(source: Any, name: str) -> pl.LazyFrame:
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return source.lazy()
    if is_pandas(source) and hasattr(source, "columns"):
        return from_pandas(source, name).lazy()
    raise DataError(f"{name}: expected a path, a Polars frame or a pandas frame, found {type(source).__name__}")


def _found(value: pl.Series) -> str:
    """A value as a message shows it; Python has no dates after the year 9999, and Polars panics where it is asked."""
    if isinstance(value.dtype, pl.Datetime | pl.Date):
        seconds = value.dt.epoch("s").item()
        if seconds is not None and not _EARLIEST <= seconds <= LATEST:
            return f"{seconds} seconds from 1970 on"
    return shown(value.item())


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().partition("\n")[0][:_LONGEST] or type(error).__name__
