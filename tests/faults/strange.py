"""What the tests of bad input share: how many examples, strange columns, and what must be true of every outcome.

PRISMREC_FUZZ=N, from 2 on, tries N times as many examples, other ones each time; without it they are always the same.
"""

import contextlib
import io
import os
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from prismrec.cli import main
from prismrec.errors import PrismRecError

TIMES = int(os.environ.get("PRISMREC_FUZZ", "1"))
LONGEST_MESSAGE = 1500

integers = st.sampled_from([0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 10**12]) | st.integers(-(2**63), 2**63 - 1)
floats = st.sampled_from([0.0, -0.0, 1e308, -1e308, 3.5e38, 5e-324]) | st.floats()
texts = st.sampled_from(
    ["", "\0", "a\0b", "\u202egnp.exe", "\u0627\u0628", "\ufeff7", "nan", "-1", "007", "1e5", "2024-02-30", "x" * 10**6]
) | st.text(st.characters(codec="utf-8"), max_size=6)
moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
days = st.dates(date(1, 1, 1), date(9999, 12, 31))


def _of(values: st.SearchStrategy, *dtypes: pl.DataType) -> st.SearchStrategy:
    """Columns of such values, some of them null, in one of these types."""
    lists = st.lists(st.none() | values, min_size=4, max_size=4)
    return st.builds(lambda given, dtype: pl.Series(given, dtype=dtype, strict=False), lists, st.sampled_from(dtypes))


def _moments_of(unit: str) -> st.SearchStrategy:
    """Also of years for which Python has no date."""
    return _of(integers, pl.Int64()).map(lambda series: series.cast(pl.Datetime(unit)))


COLUMNS = st.one_of(
    _of(integers, pl.Int64(), pl.Int8(), pl.UInt64(), pl.Int128(), pl.Float64()),
    _of(st.integers(2**63, 2**64 - 1), pl.UInt64()),
    _of(floats, pl.Float64(), pl.Float32()),
    _of(texts, pl.String(), pl.Categorical()),
    _of(st.booleans(), pl.Boolean()),
    _of(st.sampled_from(["a", "b"]), pl.Enum(["a", "b"])),
    _of(st.binary(max_size=3), pl.Binary()),
    _of(moments, pl.Datetime("us"), pl.Datetime("us", "Asia/Kathmandu")),
    _of(days, pl.Date()),
    st.sampled_from(["ms", "us", "ns"]).flatmap(_moments_of),
    _of(st.timedeltas(timedelta(-9), timedelta(9)), pl.Duration("us")),
    _of(st.times(time(0), time(23)), pl.Time()),
    _of(st.decimals(-9, 9, places=2), pl.Decimal(10, 2)),
    _of(st.lists(integers, max_size=3), pl.List(pl.Int64())),
    _of(st.lists(texts.filter(lambda text: len(text) < 9), max_size=3), pl.List(pl.String())),
    _of(st.lists(floats, max_size=3), pl.List(pl.Float64())),
    _of(st.fixed_dictionaries({"a": integers}), pl.Struct({"a": pl.Int64()})),
    st.just(pl.Series([None] * 4)),
    st.just(pl.Series([object()] * 4, dtype=pl.Object)),
)
"""A column of four rows of any type that a frame can have."""
NAMES = st.sampled_from(["row", "key", "__row", "__item", "__bucket", "len", "literal", "a\0b", "\u202e", "x" * 5000])

MIXED = st.lists(
    st.none()
    | integers
    | texts
    | floats
    | st.sampled_from([2**70, "\ud800", b"\xff", 1j, Decimal("NaN"), date(2024, 1, 1), {"a": 1}, [1], {2}, object()]),
    min_size=4,
    max_size=4,
)
"""Values of a column of Python objects, as pandas has them."""


def nested(levels: int) -> pa.DataType:
    """A column so many levels deep."""
    kind = pa.int64()
    for _ in range(levels):
        kind = pa.struct([("a", kind)])
    return kind


def fuzzed(examples: int) -> settings:
    """Settings of Hypothesis."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(work: Callable[[], object], *named: str) -> object | PrismRecError:
    """What work gives, or the error by which it refused; its message is short and names all these."""
    try:
        return work()
    except PrismRecError as error:
        message = str(error)
        assert len(message) <= LONGEST_MESSAGE
        assert all(name in message for name in named), message
        return error


def call(*arguments: object) -> tuple[int, str, str]:
    """Run the command line: status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("the command line ended without a status")


def leaves_nothing(folder: Path) -> bool:
    """Whether a refusal left the folder as it was, empty."""
    return not list(folder.iterdir())
