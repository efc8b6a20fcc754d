"""Parquet files, opened by their own names and only if their columns are what Polars can take.

Polars by itself takes `[`, `*` and `?` in a path for a pattern, which may mean another file. It overflows the stack of
the process at columns some thousands of levels deep, of which PyArrow refuses more than 100, and panics at time zones
without a name.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prismrec.errors import shown


def check_parquet(file: Path) -> None:
    """Refuse a file at which Polars would fail badly; what else is wrong with it, Polars says.

    Raises:
        OSError: the file is missing, or its columns are nested too deep.
        PolarsError: it has a column of a zone without a name.
    """
    try:
        schema = pq.read_schema(file)
    except pa.ArrowException:
        return
    for field in schema:
        zone = field.type.tz if pa.types.is_timestamp(field.type) else None
        if zone and zone.startswith(("+", "-")):
            raise pl.exceptions.ComputeError(f"column {shown(field.name)} is of the zone {zone}; convert it to UTC")


def scan_parquet(files: Path | Sequence[Path]) -> pl.LazyFrame:
    """Check files, and open them lazily, one after the other."""
    paths = [files] if isinstance(files, Path) else list(files)
    for path in paths:
        check_parquet(path)
    return pl.scan_parquet(paths, glob=False)


def read_parquet(files: Path | Sequence[Path]) -> pl.DataFrame:
    """Read files, one after the other; see `scan_parquet`."""
    return scan_parquet(files).collect()
