"""Frames and ids as notebooks have them, pandas or Polars: in as Polars, and back as they came.

pandas is touched only where something of it is given or wanted.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from prismrec.data.tables import UNREADABLE, first_line, is_pandas, read_table
from prismrec.errors import DataError, shown

Frame = Any
"""A Polars frame, or a pandas frame (`Any`: pandas need not be installed)."""
Ids = Any
"""A list, array or series of ids, or a frame."""


def column_names(source: Any) -> list[str]:
    """Names of a frame's columns; none of what is no frame, such as a path."""
    if isinstance(source, pl.LazyFrame):
        return source.collect_schema().names()
    return list(getattr(source, "columns", ()))


def as_frame(given: Ids, column: str, name: str) -> pl.DataFrame:
    """A frame as a Polars frame, or ids as its only `column`; `name` is what it is called in messages.

    Raises:
        DataError: it is neither.
    """
    if isinstance(given, pl.DataFrame | pl.LazyFrame) or (is_pandas(given) and hasattr(given, "columns")):
        return read_table(given, name)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise DataError(
            f"{name}: expected a list, array or series of ids, or a frame, found {shown(given)}; put a single id in "
            "a list"
        )
    if isinstance(given, pl.Series):
        return pl.DataFrame({column: given})
    if is_pandas(given):
        series: Any = given
        try:
            return pl.DataFrame({column: pl.from_pandas(series)})
        except UNREADABLE as error:
            raise DataError(f"{name}: could not be read ({first_line(error)})") from error
    values = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if len({isinstance(value, str) for value in values if value is not None}) > 1:
        raise DataError(f"{name}: expected ids of one type, found text and others; convert them")
    try:
        return pl.DataFrame({column: values})
    except (*UNREADABLE, pl.exceptions.PanicException) as error:
        raise DataError(f"{name}: expected ids of one type ({first_line(error)})") from error


def as_given(frame: pl.DataFrame, pandas: bool) -> Frame:
    """The frame, or one of pandas, in which vectors are NumPy arrays."""
    if not pandas:
        return frame
    vectors = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Array)]
    table = frame.drop(vectors).to_pandas()
    return table.assign(**{name: list(frame[name].to_numpy(writable=True)) for name in vectors})
