"""Files and directories are replaced whole or not at all."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from safetensors import SafetensorError

from prismrec.atomic import naming_full_disk, replacing_directory, replacing_file, write_json
from prismrec.errors import RankError


def write(destination: Path, content: str) -> None:
    with replacing_directory(destination) as directory:
        (directory / "data.txt").write_text(content)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "recs.txt"
    with replacing_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()

    def fail() -> None:
        with replacing_file(path) as temporary:
            temporary.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["recs.txt"]


def test_json_is_sorted(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": tmp_path})
    assert (tmp_path / "x.json").read_text() == f'{{\n  "a": "{tmp_path}",\n  "b": 1\n}}\n'


KILLED = """
import os, signal, sys
from pathlib import Path
from prismrec import atomic

destination, exchanges, event, times = sys.argv[1:]
left = int(times)

def watch(happened, arguments):
    global left
    if happened == event:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if exchanges == "no":
    atomic._exchange = lambda one, other: False
with atomic.replacing_directory(Path(destination)) as directory:
    (directory / "data.txt").write_text("two")
    sys.addaudithook(watch)
"""


@pytest.mark.parametrize(
    ("exchanges", "event", "times", "found"),
    [
        ("yes", "os.chmod", 1, "one"),
        ("yes", "os.remove", 1, "two"),
        ("no", "os.rename", 1, "one"),
        ("no", "os.rename", 2, None),
        ("no", "os.remove", 1, "two"),
    ],
)
def test_killed_while_it_is_put_in_place(
    tmp_path: Path, exchanges: str, event: str, times: int, found: str | None
) -> None:
    """Where directories cannot trade places there is a moment without either; what was there comes back."""
    destination = tmp_path / "store"
    write(destination, "one")
    program = [sys.executable, "-c", KILLED, str(destination), exchanges, event, str(times)]
    assert subprocess.run(program, timeout=60).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2
    assert (destination / "data.txt").exists() == (found is not None)
    with replacing_directory(destination) as directory:
        assert (destination / "data.txt").read_text() == (found or "one")
        assert {path.name for path in tmp_path.iterdir()} == {"store", directory.name}
    assert os.listdir(tmp_path) == ["store"]


def test_what_another_process_is_writing_is_no_leftover(tmp_path: Path) -> None:
    destination, file = tmp_path / "store", tmp_path / "recs.txt"
    (tmp_path / ".recs.txt.1234567.tmp").write_text("of a killed process")
    (tmp_path / ".store.abcdefgh.tmp").mkdir()
    others = [".store.notes", ".store.abcdefgh", ".recs.txt.old.tmp", ".store.more.abcdefgh.tmp"]
    for name in others:
        (tmp_path / name).touch()
    program = "import sys; from pathlib import Path; from prismrec.atomic import *\n"
    program += "with replacing_file(Path(sys.argv[1])) as file, replacing_directory(Path(sys.argv[2])) as new:\n"
    program += "    file.write_text('other'); (new / 'other').touch(); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(file), str(destination)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with replacing_file(file) as temporary:
            temporary.write_text("mine")
        write(destination, "mine")
        assert file.read_text() == "mine"
        shutil.rmtree(destination)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert file.read_text() == "other"
    assert os.listdir(destination) == ["other"]
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "recs.txt", "store"])


FULL = {
    "polars": pl.exceptions.ComputeError("underlying IO error: No space left on device (os error 28)"),
    "safetensors": SafetensorError("I/O error: No space left on device (os error 28)"),
    "arrow": OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device"),
    "copied": shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")]),
    "named otherwise": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a"),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_full_disk_has_one_error(error: Exception) -> None:
    with (
        pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: 'store'$"),
        naming_full_disk(Path("store")),
    ):
        raise error


def test_what_another_rank_has_said_stays_so() -> None:
    with pytest.raises(RankError), naming_full_disk(Path("store")):
        raise RankError("rank 0: [Errno 28] No space left on device: 'store'")


def test_numpy_does_not_say_why_it_wrote_too_little() -> None:
    with pytest.raises(OSError, match=r"^store: not all could be written"), naming_full_disk(Path("store")):
        raise OSError("4000 requested and 312 written")


@pytest.mark.parametrize("error", [ValueError("28"), OSError(errno.EACCES, "Permission denied", "a"), OSError("28")])
def test_other_errors_stay(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, naming_full_disk(Path("store")):
        raise error
    assert raised.value is error
