"""What each column of a table must hold, and how it becomes what the store holds.

Takes the name and type of a column; gives a `Column`: an expression for the values wanted and one
for the values that are refused. A type that can never do is refused at once.
"""

from dataclasses import dataclass

import polars as pl

from prismrec.data.schema import TITLE, stable_keys
from prismrec.errors import DataError, shortened, shown

MAX_VALUES = 64
MAX_ID = 1_000  # bytes
LATEST = 253_402_300_799  # the last second of the year 9999; later ones are milliseconds
_DATE, _ZONE = r"^\d{4}-\d\d-\d\d$", r"(Z|[+-]\d\d(:?\d\d)?)$"
_OF_TEXT = f" of at most {MAX_ID:,} bytes"
_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")


@dataclass(frozen=True)
class Column:
    """A column as the store wants it."""

    name: str
    values: pl.Expr
    invalid: pl.Expr
    """True where the given value must be refused."""
    expected: str
    """What a refused value should have been."""


def id_column(table: str, name: str, dtype: pl.DataType) -> Column:
    """Ids: integers of up to 64 bits, or text of up to 1,000 bytes; never null."""
    column = pl.col(name)
    if isinstance(dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    elif not (_is_integer(dtype) or dtype in (pl.String, pl.Null)):
        raise DataError(
            f"{table}: column {shown(name)}: expected integer or text ids, found {shortened(dtype)}; convert the column"
        )
    return Column(name, column, is_no_id(column, dtype), f"an id{_OF_TEXT if dtype == pl.String else ''}")


def is_no_id(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether there is none, or text so long that a small file of it, repeated, would not fit memory."""
    return column.is_null() | (column.str.len_bytes() > MAX_ID) if dtype == pl.String else column.is_null()


def time_column(table: str, name: str, dtype: pl.DataType) -> Column:
    """Moments as whole seconds of Unix time: integers, dates, datetimes (without a zone: UTC) or ISO 8601 text."""
    column = pl.col(name)
    if dtype == pl.String:
        seconds = _iso_seconds(column)
    elif isinstance(dtype, pl.Datetime | pl.Date):
        seconds = column.dt.epoch("s")
    elif dtype.is_integer():
        seconds = column.cast(pl.Int64, strict=False)
    else:
        raise DataError(
            f"{table}: column {shown(name)}: expected whole seconds, datetimes or ISO 8601 text, found "
            f"{shortened(dtype)}; convert the column"
        )
    everywhere = " in every row" if dtype == pl.String else ""  # one that is none makes a column of CSV text
    expected = f"seconds from 0 up (not milliseconds){everywhere}, or a datetime from 1970 on"
    return Column(name, seconds.alias(name), ~seconds.is_between(0, LATEST), expected)


def dwell_column(table: str, name: str, dtype: pl.DataType) -> Column:
    """Seconds, rounded; null is 0, unknown."""
    seconds = _number(table, name, dtype)
    known = seconds.fill_nan(None).fill_null(0)
    values = known.round().cast(pl.Int32, strict=False).alias(name)
    return Column(name, values, ~known.is_between(0, 2**31 - 1) | _unread(name, seconds), "seconds from 0 up")


def weight_column(table: str, name: str, dtype: pl.DataType) -> Column:
    """Finite numbers from 0 up, float32."""
    weight = _number(table, name, dtype)
    values = weight.cast(pl.Float32)
    return Column(name, values, ~(values.is_finite() & (weight >= 0)), "a number from 0 to 3e38")


def uniform_column(table: str, name: str, dtype: pl.DataType) -> Column:
    """Whether an event came of exposure at random: booleans, or 0 and 1, or either as text; null is not."""
    given = pl.col(name).cast(pl.Float64) if dtype in (pl.Boolean, pl.Null) else _number(table, name, dtype)
    if dtype == pl.String:  # as CSV has them
        given = pl.col(name).str.to_lowercase().replace({"true": "1", "false": "0"}).cast(pl.Float64, strict=False)
    mark = given.fill_nan(None).fill_null(0)
    return Column(
        name, (mark == 1).alias(name), ~mark.is_in([0.0, 1.0]) | _unread(name, given), "true or false, or 1 or 0"
    )


def feature_column(table: str, name: str, dtype: pl.DataType, remedy: str) -> Column:
    """Ids of a feature: integers, text or booleans; null is "none".

    Floats are read as integers, since pandas turns integers with gaps into floats; any with a fraction is refused.

    Args:
        table: its name in messages.
        name: of the column.
        dtype: its type.
        remedy: how to leave the column out, for the message.
    """
    column = pl.col(name)
    expected = f"integers or text as ids; make buckets of numbers, or {remedy}"
    if isinstance(dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    elif dtype.is_float():
        number = column.cast(pl.Float64).fill_nan(None)
        whole = number.cast(pl.Int64, strict=False)
        fraction = number.is_not_null() & (whole.cast(pl.Float64) != number).fill_null(True)
        return Column(name, whole.alias(name), fraction, expected)
    elif dtype == pl.Null:
        column = column.cast(pl.Int64)
    elif not (_is_integer(dtype) or dtype in (pl.String, pl.Boolean)):
        raise DataError(f"{table}: column {shown(name)}: expected {expected}, found {shortened(dtype)}")
    return Column(name, column, pl.lit(False), expected)


def item_feature_column(table: str, name: str, dtype: pl.DataType, remedy: str) -> Column:
    """A feature of items: one id, or a list of up to `MAX_VALUES` ids, each counted once; as in `feature_column`."""
    if not isinstance(dtype, pl.List):
        return feature_column(table, name, dtype, remedy)
    inner = dtype.inner
    if isinstance(inner, pl.Categorical | pl.Enum):
        inner = pl.String()
    if not (_is_integer(inner) or inner in (pl.String, pl.Null)):  # type: ignore[arg-type]
        raise DataError(
            f"{table}: column {shown(name)}: expected lists of integers or text as ids, found {shortened(dtype)}; "
            f"convert, or {remedy}"
        )
    inner = pl.Int64() if inner == pl.Null else inner
    values = pl.col(name).cast(pl.List(inner)).list.drop_nulls().list.unique(maintain_order=True)
    return Column(
        name, values, (values.list.len() > MAX_VALUES).fill_null(False), f"at most {MAX_VALUES} values, or {remedy}"
    )


def shown_column(table: str, name: str, dtype: pl.DataType) -> None:
    """Refuse a column that answers cannot show: `title` is one value of JSON, others may be anything in a file."""
    one_value = dtype.is_integer() or dtype.is_float() or isinstance(dtype, pl.Categorical | pl.Enum)
    if name == TITLE and not (one_value or dtype in (pl.String, pl.Boolean, pl.Null)):
        raise DataError(
            f"{table}: column {shown(name)}: expected text to show, found {shortened(dtype)}; convert the column"
        )
    if dtype in (pl.Object, pl.Int128, pl.UInt128):
        raise DataError(
            f"{table}: column {shown(name)}: expected values to write to a file, found {shortened(dtype)}; convert them"
        )


def column_keys(values: pl.Series) -> pl.Series:
    """Stable keys of a column of ids, int64; each distinct value is hashed once."""
    distinct = values.unique()
    keys = values.replace_strict(distinct, stable_keys(distinct.to_list()), return_dtype=pl.Int64)
    return keys.cast(pl.Int64)  # where there are no values, Polars keeps their type


def _iso_seconds(text: pl.Expr) -> pl.Expr:
    """ISO 8601 text, with or without time of day and zone, as seconds; null if it is not."""
    full = text.str.strip_chars().str.replace(_DATE, "${0}T00:00").str.replace(" ", "T", literal=True)
    zoned = pl.when(full.str.contains(_ZONE)).then(full).otherwise(full + "Z")
    moments = [zoned.str.to_datetime(form, strict=False, time_unit="us") for form in _FORMATS]
    return pl.coalesce(moments).dt.epoch("s")


def _is_integer(dtype: pl.DataType) -> bool:
    """Whether it has at most 64 bits, as Arrow and NumPy have them."""
    return dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128)


def _number(table: str, name: str, dtype: pl.DataType) -> pl.Expr:
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Null)):
        raise DataError(
            f"{table}: column {shown(name)}: expected numbers, found {shortened(dtype)}; convert the column"
        )
    return pl.col(name).cast(pl.Float64, strict=False)


def _unread(name: str, number: pl.Expr) -> pl.Expr:
    return number.is_null() & pl.col(name).is_not_null()
