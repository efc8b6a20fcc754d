"""Files that are not what their names say, damaged ones, and small ones that hold more than memory."""

import gzip
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prismrec.config import Config
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.errors import DataError, PrismRecError
from prismrec.model.run import load_run
from prismrec.toml import override
from prismrec.train.trainer import train

from .strange import TIMES, call, fuzzed, leaves_nothing, nested, outcome

QUIET = Console(quiet=True)
HEADER = b"user_id,item_id,timestamp\n"
EVENTS = pl.DataFrame(
    {
        "user_id": [f"user {number % 7}" for number in range(60)],
        "item_id": [number % 11 for number in range(60)],
        "timestamp": range(60),
        "dwell": [float(number) for number in range(60)],
        "shop": ["a", "b", None] * 20,
    }
)


def parquet(**options) -> bytes:
    file = io.BytesIO()
    pq.write_table(EVENTS.to_arrow(compat_level=pl.CompatLevel.oldest()), file, **options)
    return file.getvalue()


def of_polars() -> bytes:
    file = io.BytesIO()
    EVENTS.write_parquet(file)
    return file.getvalue()


WHOLE = [of_polars(), parquet(), parquet(compression="none", use_dictionary=False), EVENTS.write_csv().encode()]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, the end cut off, bytes of the footer replaced, or a stretch."""
    damaged, kind = bytearray(content), chance.randrange(4)
    if kind == 0:
        for _ in range(chance.choice([1, 3, 10])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del damaged[chance.randrange(len(damaged)) :]
    elif kind == 2:
        for _ in range(chance.choice([1, 2, 4])):
            damaged[len(damaged) - 1 - chance.randrange(len(damaged) // 3)] = chance.randrange(256)
    else:
        start = chance.randrange(len(damaged))
        damaged[start : start + chance.randrange(20)] = chance.randbytes(chance.randrange(20))
    return bytes(damaged)


def test_damaged_files(tmp_path: Path, tried) -> None:
    """Parquet has no checksums here, so that some damage is other data; the rest is refused with the file's name."""
    chance, number = random.Random(0 if TIMES == 1 else None), 300 * TIMES
    refused = 0
    for place in range(number):
        content = WHOLE[place % len(WHOLE)]
        file = tmp_path / ("events.csv" if content is WHOLE[-1] else "events.parquet")
        file.write_bytes(damaged(content, chance))
        found = outcome(lambda file=file: prepare(file, None, tmp_path / "store", console=QUIET))
        if isinstance(found, PrismRecError):
            refused += 1
            assert str(found).startswith(f"{file}: "), found
            assert not (tmp_path / "store").exists()
        else:
            assert found.num_events + sum(found.manifest["dropped"].values()) <= len(EVENTS) + 20
            shutil.rmtree(tmp_path / "store")
        file.unlink()
        assert leaves_nothing(tmp_path)
    tried("damaged files of events", number)
    assert number // 2 < refused < number


@pytest.mark.parametrize("seed", [352, 399, 522, 1584, 1587])
def test_where_polars_panics(tmp_path: Path, seed: int) -> None:
    (tmp_path / "events.parquet").write_bytes(damaged(WHOLE[0], random.Random(seed)))
    with pytest.raises(DataError, match=r"events\.parquet: "):
        prepare(tmp_path / "events.parquet", None, tmp_path / "store", console=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["events.parquet"]


CSV = {
    "an index of pandas": (
        b",user_id,item_id,timestamp\n0,1,2,3\n",
        "expected a name for every column, found '' for column 1",
    ),
    "UTF-16": ("user_id,item_id,timestamp\n1,2,3\n".encode("utf-16"), "expected a name for every column, found "),
    "a quote that stays open": (HEADER + b'"1,2,3\n4,5,6\n', "could not be read ("),
    "half a character": (HEADER + b"\xed\xa0\x80,2,3\n", "could not be read (invalid utf-8 sequence)"),
    "Parquet": (WHOLE[0], "could not be read ("),
    "a moment beyond 64 bits": (HEADER + b"1,2,99999999999999999999\n", "column 'timestamp', row 1: expected seconds"),
    "JSON": (b'[{"user_id": 1}]', "expected a column 'user_id', found only [{"),
    "gzip": (
        gzip.compress(HEADER + b"1,2,3\n"),
        "could not be read (expected text, found a compressed file; unpack it",
    ),
    "zlib": (
        zlib.compress(HEADER + b"1,2,3\n"),
        "could not be read (expected text, found a compressed file; unpack it",
    ),
    "a word among seconds": (
        HEADER + b"1,2,1700000000\n1,3,oops\n",
        "column 'timestamp', row 1: expected seconds from 0 up (not milliseconds) in every row, or a datetime",
    ),
    "an empty line": (HEADER + b"1,2,3\n\n", "column 'user_id', row 2: expected an id, found None"),
}


@pytest.mark.parametrize(("content", "message"), CSV.values(), ids=CSV)
def test_what_is_no_csv(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "events.csv").write_bytes(content)
    with pytest.raises(DataError) as refused:
        prepare(tmp_path / "events.csv", None, tmp_path / "store", console=QUIET)
    assert message in str(refused.value)


@fuzzed(150)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"1,2,3\n", b'"', b"\n", b"\0", b","]), max_size=6))
def test_any_bytes_as_csv(tmp_path_factory, tried, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    (folder / "events.csv").write_bytes(HEADER + b"".join(lines))
    found = outcome(lambda: prepare(folder / "events.csv", None, folder / "store", console=QUIET), "events.csv: ")
    assert isinstance(found, PrismRecError) or found.num_events > 0
    tried("damaged files of events", 1)


def whole(path: Path) -> None:
    path.write_bytes(WHOLE[0])


def folder_of(make):
    """A folder of a good file and of what is made under another name."""

    def write(path: Path) -> None:
        path.mkdir()
        whole(path / "a.parquet")
        make(path / "b.parquet")

    return write


PLACES = {
    "an empty file": (Path.touch, "could not be read ("),
    "JSON": (lambda path: path.write_text('{"user_id": 1}'), "could not be read ("),
    "CSV": (lambda path: path.write_bytes(HEADER + b"1,2,3\n"), "could not be read ("),
    "a folder": (Path.mkdir, "expected Parquet or CSV files, found none"),
    "a pipe": (os.mkfifo, "expected a Parquet or CSV file, found something else there"),
    "a link to itself": (lambda path: path.symlink_to(path), "expected a Parquet or CSV file, found nothing there"),
    "a pipe among files": (folder_of(os.mkfifo), "b.parquet: expected a Parquet or CSV file, found something else"),
    "a link to itself among files": (
        folder_of(lambda path: path.symlink_to(path)),
        "b.parquet: expected a Parquet or CSV file, found nothing there",
    ),
    "a link to nothing among files": (
        folder_of(lambda path: path.symlink_to("nothing")),
        "b.parquet: expected a Parquet or CSV file, found nothing there",
    ),
}


@pytest.mark.parametrize(("make", "message"), PLACES.values(), ids=PLACES)
def test_what_is_no_file(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "events.parquet")
    status, out, err = call("prepare", "--events", tmp_path / "events.parquet", "--out", tmp_path / "store")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"prismrec: {tmp_path / 'events.parquet'}")
    assert message in err
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_named_like_a_file(tmp_path: Path) -> None:
    """As Spark and Dask write them."""
    (tmp_path / "events" / "day.parquet").mkdir(parents=True)
    whole(tmp_path / "events" / "day.parquet" / "part-0.parquet")
    assert prepare(tmp_path / "events", None, tmp_path / "store", console=QUIET).num_events == 60


@pytest.mark.parametrize("name", ["x" * 5000 + ".parquet", "a\0b.parquet", "\udcff.parquet"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    if name.startswith("\udcff"):
        whole(tmp_path / name)
    found = outcome(lambda: prepare(tmp_path / name, None, tmp_path / "store", console=QUIET))
    assert isinstance(found, DataError)


def write_events(path: Path, users: np.ndarray, times: np.ndarray, repeats: int = 1) -> None:
    """Events of item 1, in as many equal row groups."""
    columns = {"user_id": users, "item_id": np.ones(len(users), np.int64), "timestamp": times}
    table = pa.table(columns)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(repeats):
            writer.write_table(table, row_group_size=len(users))


PREPARE = """
import resource, sys
from pathlib import Path
from rich.console import Console
from prismrec.data.prepare import prepare
from prismrec.errors import PrismRecError

resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    found = prepare(Path(sys.argv[1]), None, Path(sys.argv[2]), console=Console(quiet=True))
    print(found.num_events, found.manifest["dropped"])
except PrismRecError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def prepared(folder: Path) -> tuple[str, int]:
    """What a process says that prepares the events, and how many MiB it took."""
    command = [sys.executable, "-c", PREPARE, str(folder / "events.parquet"), str(folder / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    said, taken = done.stdout.splitlines()
    return said, int(taken)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="needs limits of memory")
def test_a_user_with_a_million_events(tmp_path: Path) -> None:
    write_events(tmp_path / "events.parquet", np.ones(10**6, np.int64), np.arange(10**6))
    said, taken = prepared(tmp_path)
    assert said == "1000000 {}"
    assert taken < 1024
    assert Store.open(tmp_path / "store").time[-1] == 10**6 - 1
    settings = {
        "exclude_seen": False,  # or nothing could be learned of one item
        "model.embedding_dim": 8,
        "model.encoder.num_layers": 1,
        "history.max_length": 20,
        "train.batch_size": 16,
        "train.max_steps": 2,
        "train.device": "cpu",
    }
    run = load_run(train(tmp_path / "store", tmp_path / "run", override(Config(), settings), console=QUIET))
    assert run.store.num_events == 10**6
    assert run.manifest["num_items"] == 1


def test_a_small_file_of_endless_events_of_a_user(tmp_path: Path) -> None:
    """40 million events in a file of less than 1 MiB, which would take 4 GiB to sort."""
    write_events(tmp_path / "events.parquet", np.ones(10**6, np.int64), np.ones(10**6, np.int64), repeats=40)
    assert (tmp_path / "events.parquet").stat().st_size < 2**20
    said, taken = prepared(tmp_path)
    assert said == (
        f"{tmp_path / 'events.parquet'}: column 'user_id': expected at most 20,000,000 events of a user, found about "
        "40,000,000 of 1; leave out this user, who may stand for all that are unknown"
    )
    assert taken < 1024
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="needs limits of memory")
def test_a_small_file_of_endless_ids(tmp_path: Path) -> None:
    """4,000 times an id of 1 MiB, in a file of 12 KiB that would take 8 GiB to sort."""
    users = pa.DictionaryArray.from_arrays(np.zeros(4000, np.int32), ["x" * 2**20])
    table = pa.table({"user_id": users, "item_id": np.ones(4000, np.int64), "timestamp": np.arange(4000)})
    pq.write_table(table, tmp_path / "events.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "events.parquet").stat().st_size < 2**15
    said, taken = prepared(tmp_path)
    assert "column 'user_id', row 1: expected an id of at most 1,000 bytes, found 'xxxx" in said
    assert taken < 1024


@pytest.mark.parametrize("levels", [400, 3000])
@pytest.mark.parametrize("verb", ["--events", "--items"])
def test_columns_nested_without_end(tmp_path: Path, levels: int, verb: str) -> None:
    """At 400 levels Python would give up, at 3,000 Polars, which ends the process."""
    whole(tmp_path / "events.parquet")
    deep = pa.table({"user_id": [1], "item_id": [2], "timestamp": [3], "deep": pa.nulls(1, nested(levels))})
    pq.write_table(deep, tmp_path / "deep.parquet", store_schema=False)
    tables = {"--events": tmp_path / "events.parquet"} | {verb: tmp_path / "deep.parquet"}
    arguments = [part for pair in tables.items() for part in pair]
    status, out, err = call("prepare", *arguments, "--out", tmp_path / "store")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"{tmp_path / 'deep.parquet'}: could not be read (Parquet schema too deeply nested" in err


def test_a_zone_without_a_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Polars panics, and says so on standard error whoever catches it."""
    times = pa.array([1, 2, 3], pa.timestamp("us", "+05:45"))
    table = pa.table({"user_id": [1, 1, 1], "item_id": [1, 2, 3], "timestamp": times})
    pq.write_table(table, tmp_path / "events.parquet")
    with pytest.raises(
        DataError, match=r"events\.parquet: .*column 'timestamp' is of the zone \+05:45; convert it to UTC"
    ):
        prepare(tmp_path / "events.parquet", None, tmp_path / "store", console=QUIET)
    assert capfd.readouterr().err == ""


def test_a_path_is_no_pattern_and_no_markup(tmp_path: Path) -> None:
    """By themselves Polars takes `[1]` for a pattern, which here is another store, and Rich `[/x]` for markup."""
    folder = tmp_path / "a[/x]"
    folder.mkdir(parents=True)
    prepare(EVENTS.with_columns(pl.lit("somebody").alias("user_id")), None, folder / "store1", console=QUIET)
    EVENTS.write_parquet(folder / "events.parquet")
    settings = ["model.embedding_dim=8", "train.max_steps=1", "train.batch_size=8", "train.device=cpu"]
    train_settings = [part for setting in settings for part in ("--set", setting)]
    for verb, *arguments in (
        ("prepare", "--events", folder / "events.parquet", "--out", folder / "store[1]"),
        ("train", folder / "store[1]", "--out", folder / "run[*?]", *train_settings),
        ("train", folder / "store[1]", "--out", folder / "r2", "--warm-start", folder / "run[*?]", *train_settings),
        ("export", folder / "run[*?]", "--out", folder / "bundle[1]"),
        ("recommend", folder / "bundle[1]", "--out", folder / "recs.parquet", "--k", 3),
    ):
        status, _, err = call(verb, *arguments)
        assert status == 0, err
    assert set(Store.open(folder / "store[1]").user_ids) == set(EVENTS["user_id"])
    assert set(pl.read_parquet(folder / "recs.parquet", glob=False)["user_id"]) == set(EVENTS["user_id"])
