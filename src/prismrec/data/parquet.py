"""Parquet files, opened by their own names and only if their columns are not nested without end.

Polars by itself takes `[`, `*` and `?` in a path for a pattern, which may mean another file, and overflows the stack of
the process at columns some thousands of levels deep; PyArrow refuses more than 100 levels.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq


def scan_parquet(files: Path | Sequence[Path]) -> pl.LazyFrame:
    """Open files lazily, one after the other.

    Raises:
        OSError: a file is missing, or its columns are nested too deep.
        PolarsError: it is no Parquet file.
    """
    paths = [files] if isinstance(files, Path) else list(files)
    for path in paths:
        try:
            pq.read_metadata(path)
        except pa.ArrowException:
            break  # Polars says what it is instead
    return pl.scan_parquet(paths, glob=False)


def read_parquet(files: Path | Sequence[Path]) -> pl.DataFrame:
    """Read files, one after the other; see `scan_parquet`."""
    return scan_parquet(files).collect()
