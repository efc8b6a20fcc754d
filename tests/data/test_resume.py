"""Preparation that is killed, really and at any moment, goes on with what is left, to the same bytes."""

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from prismrec.artifact import read_manifest
from prismrec.data import sequences
from prismrec.data.prepare import prepare
from prismrec.errors import ArtifactError, DataError

QUIET = Console(quiet=True)
ITEMS = pl.DataFrame(
    {"item_id": [f"item {number}" for number in range(50)], "brand": [number % 3 for number in range(50)]}
)
ROW = pl.int_range(600, eager=True)
EVENTS = pl.DataFrame(
    {
        "user_id": "user " + (ROW * 7 % 41).cast(pl.String),
        "item_id": "item " + (ROW * 13 % 53).cast(pl.String),
        "timestamp": 1_600_000_000 + ROW * 31 % 600 // 4,
        "shop": ROW % 5,
    }
)

PREPARE = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
from prismrec.data import prepare as module, sequences

events, items, out, name = sys.argv[1:]

def watch(event, arguments):
    if event == "os.rename" and os.fsdecode(arguments[1]).endswith("/" + name):
        os.kill(os.getpid(), signal.SIGKILL)

sequences._PART_EVENTS, sequences._BUCKET_EVENTS = 150, 200
sys.addaudithook(watch)
module.prepare(Path(events), Path(items), Path(out), console=Console(quiet=True))
"""

# Two files of 300 events make four parts and three buckets.
MOMENTS = {
    "before anything": ("parquet", ["made-of"]),
    "while dealing": ("parquet", ["deal/00001"]),
    "while sorting": ("parquet", ["sort/00002"]),
    "when about to be put in place": ("parquet", ["store"]),
    "again and again": ("csv", ["events/00001.text", "survey/00003", "sort/00001", "manifest.json"]),
}


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path, "parquet")


def write(folder: Path, ending: str) -> tuple[Path, Path]:
    (folder / "events").mkdir()
    for part in range(2):
        rows, path = EVENTS[300 * part : 300 * (part + 1)], folder / "events" / f"{part}.{ending}"
        rows.write_parquet(path) if ending == "parquet" else rows.write_csv(path)
    ITEMS.write_parquet(folder / "items.parquet")
    return folder / "events", folder / "items.parquet"


def kill(tables: tuple[Path, Path], out: Path, moment: str) -> None:
    """Prepare in a process of its own that dies when a file is about to be put in place."""
    arguments = [*map(str, tables), str(out), moment]
    assert subprocess.run([sys.executable, "-c", PREPARE, *arguments], check=False).returncode == -signal.SIGKILL


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "_PART_EVENTS", 150)
    monkeypatch.setattr(sequences, "_BUCKET_EVENTS", 200)


@pytest.mark.parametrize(("ending", "moments"), MOMENTS.values(), ids=MOMENTS)
def test_killed_and_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, moments: list[str]
) -> None:
    tables = write(tmp_path, ending)
    expected = prepare(EVENTS, ITEMS, tmp_path / "expected", console=QUIET).manifest  # one part, one bucket
    out = tmp_path / "store"
    for moment in moments:
        kill(tables, out, moment)
    work = tmp_path / ".store.parts"
    done = {path: path.stat().st_mtime_ns for path in work.glob("*/0000?")}
    small(monkeypatch)
    again = []
    monkeypatch.setattr(sequences, "_deal", lambda *given, deal=sequences._deal: again.append(1) or deal(*given))
    assert prepare(*tables, out, console=QUIET).manifest == expected
    assert len(again) == 4 - len([path for path in done if path.parent.name == "deal"])
    assert {path.name for path in tmp_path.iterdir()} == {"events", "items.parquet", "expected", "store"}


@pytest.mark.parametrize("name", ["survey", "deal", "sort"])
def test_what_was_damaged_meanwhile_is_made_again(
    tables: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = prepare(EVENTS, ITEMS, tmp_path / "expected", console=QUIET).manifest
    kill(tables, tmp_path / "store", "manifest.json")
    files = [file for file in (tmp_path / ".store.parts" / name).iterdir() if not file.suffix]
    assert len(files) >= 3
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    small(monkeypatch)
    assert prepare(*tables, tmp_path / "store", console=QUIET).manifest == expected


def test_other_input_or_settings_begin_anew(
    tables: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(tables, tmp_path / "store", "manifest.json")
    small(monkeypatch)
    ITEMS[:20].write_parquet(tables[1])
    expected = prepare(EVENTS, ITEMS[:20], tmp_path / "expected", console=QUIET).manifest
    assert prepare(*tables, tmp_path / "store", console=QUIET).manifest == expected


def test_a_store_that_is_being_written_is_left_to_that_process(tables: tuple[Path, Path], tmp_path: Path) -> None:
    """A mistake of the user leaves nothing; neither does it touch what another process does."""
    program = PREPARE.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(flush=True), sys.stdin.read()")
    arguments = [*map(str, tables), str(tmp_path / "store"), "deal/00001"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, *arguments], **pipes) as process:
        process.stdout.readline()
        with pytest.raises(ArtifactError, match="store: another process is writing it; wait for it to end"):
            prepare(*tables, tmp_path / "store", console=QUIET)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert read_manifest(tmp_path / "store", "store")["counts"]["users"] == 41
    with pytest.raises(DataError, match="expected a column 'user_id'"):
        prepare(tables[1], None, tmp_path / "store", console=QUIET)
    assert {path.name for path in tmp_path.iterdir()} == {"events", "items.parquet", "store"}
