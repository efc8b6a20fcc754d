"""A disk that is full, a file that may grow no more, a disk that is read-only: one line, and nothing half written.

The disk is a small one in memory, which only root may mount; to limit the size of files, everybody can.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from prismrec.artifact import read_manifest
from prismrec.data.store import Store
from prismrec.export.reader import open_bundle
from prismrec.model.run import load_run
from prismrec.serve.event_log import EventLog

from ..commands import Outcome
from ..processes import Server
from .shop import Shop
from .test_kill_server import post, stored

MEGABYTES = 8
Arguments = list[Any]


class Case:
    """A command that writes `out` on a disk, where an earlier one may be."""

    def __init__(self, name: str, shop: Shop, disk: Path) -> None:
        self._name, self._shop = name, shop
        self.out = disk / {"recommend": "recs.parquet", "parts": "recs"}.get(name, "out")
        earlier = {"prepare": "earlier-store", "append": "store", "export": "extended", "evaluate": "run"}.get(name)
        if earlier:
            shutil.copytree(shop.path(earlier), self.out)
        if name == "recommend":
            pl.DataFrame({"earlier": [1]}).write_parquet(self.out)

    @property
    def arguments(self) -> Arguments:
        match self._name:
            case "recommend":
                return ["recommend", self._shop.path("bundle"), "--out", self.out]
            case "parts":
                return ["recommend", self._shop.path("bundle"), "--out", f"{self.out}/"]
            case "evaluate":
                return ["evaluate", self.out, "--k=5"]
            case _:
                return getattr(self._shop, self._name)(self.out)

    def state(self) -> Any:
        """What a reader finds, which checks that all of it is whole."""
        if not self.out.exists():
            return None
        match self._name:
            case "prepare" | "append":
                return Store.open(self.out).manifest
            case "export":
                return open_bundle(self.out).manifest
            case "recommend":
                return pl.read_parquet(self.out).columns
            case "parts":
                return [(path.name, len(pl.read_parquet(path))) for path in self.out.glob("part*")] or None
            case "evaluate":
                return {path.name: path.read_bytes() for path in self.out.glob("report.*")}
            case _:
                return load_run(self.out).manifest if (self.out / "manifest.json").exists() else None

    def check_done(self) -> None:
        match self._name:
            case "recommend":
                assert self.state() == ["user_id", "item_id", "rank", "score", "interest"]
            case "parts":
                assert [name for name, _ in self.state()] == ["part-00000.parquet"]
                assert (self.out / "_SUCCESS").exists()
            case "evaluate":
                assert set(self.state()) == {"report.json", "report.html"}
            case name:
                made = {"prepare": "store", "append": "grown", "train": "run", "export": "bundle"}[name]
                kind = {"prepare": "store", "append": "store", "train": "run", "export": "bundle"}[name]
                assert self.state() == read_manifest(self._shop.path(made), kind)
        assert list(self.out.parent.rglob(".*")) == []


def check_refused(outcome: Outcome, where: Path, reason: str) -> None:
    assert outcome.status == 1, outcome.said
    assert "Traceback" not in outcome.said
    *_, line = outcome.said.splitlines()
    assert re.fullmatch(rf"prismrec: {re.escape(str(where.parent))}/\S+: .*{reason}.*", line), outcome.said
    assert outcome.said.count("prismrec: ") == 1


NAMES = ("prepare", "append", "train", "recommend", "parts", "evaluate", "export")


LARGEST = {
    "prepare": (150, 1500),  # bytes
    "append": (150, 1500),
    "train": (150, 9000, 100_000),
    "recommend": (150,),
    "parts": (150,),
    "evaluate": (9000, 100_000),
    "export": (1000,),
}


@pytest.mark.parametrize("name", NAMES)
def test_files_that_may_not_grow(name: str, shop: Shop, tmp_path: Path) -> None:
    case = Case(name, shop, tmp_path)
    before = case.state()
    for largest in LARGEST[name]:
        outcome = shop.commands(*case.arguments, largest_file=largest)
        check_refused(outcome, case.out, "(File too large|is the disk full)")
        assert case.state() == before or name == "evaluate"  # of its two files the first may be whole
    if name != "export":  # that takes long; see below
        shop.commands.succeed(*case.arguments)
        case.check_done()


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A small disk; the test is skipped where it cannot be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", disk], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"needs to mount a disk in memory, as root: {made.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path) as disk:
        yield disk


def fill(disk: Path, left: int) -> Path:
    """Leave so many bytes."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    status = os.statvfs(disk)
    with filler.open("wb") as file:
        file.write(bytes(status.f_bavail * status.f_frsize - left))
    return filler


ROOM = {
    "prepare": (0, 4, 12, 20, 28, 36),  # KiB
    "append": (0, 8, 16, 24, 40, 52),
    "train": (0, 28, 100, 160),
    "recommend": (0, 4),
    "parts": (0, 4),
    "evaluate": (0, 80),
    "export": (0, 100),
}


@pytest.mark.parametrize("name", NAMES)
def test_full(name: str, shop: Shop, disk: Path) -> None:
    case = Case(name, shop, disk)
    before = case.state()
    for kilobytes in ROOM[name]:
        fill(disk, 1024 * kilobytes)
        check_refused(shop.commands(*case.arguments), case.out, "No space left on device")
        assert case.state() == before or name == "evaluate"
    (disk / "filler").unlink()
    shop.commands.succeed(*case.arguments)
    case.check_done()


def test_a_server_goes_on_when_there_is_room_again(shop: Shop, disk: Path, tmp_path: Path) -> None:
    with Server(shop.path("bundle"), tmp_path, f"--events={disk / 'events'}") as server, server.client() as client:
        assert post(client, 1000, [1, 2]).status_code == 200
        filler = fill(disk, 0)
        refused = False
        acknowledged = {(1000, 1), (1000, 2)}
        for moment in range(3, 400):
            answer = post(client, 1000, [moment])
            if answer.status_code == 200:
                acknowledged.add((1000, moment))
            else:
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
                refused = True
                break
        assert refused
        assert client.post("/v1/recommend", json={"user_id": 4}).status_code == 200
        filler.unlink()
        assert post(client, 1001, [moment]).status_code == 200
        server.process.kill()
    assert stored(EventLog(disk / "events", ["shop"])) == dict.fromkeys(acknowledged | {(1001, moment)}, 1)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A folder `disk`, and a call that lets nobody write there: root needs a disk for that, others its mode."""
    if os.geteuid():
        (tmp_path / "disk").mkdir()
        yield lambda: (tmp_path / "disk").chmod(0o555)
        (tmp_path / "disk").chmod(0o755)
        return
    with mounted(tmp_path) as disk:
        yield lambda: subprocess.run(["mount", "-o", "remount,ro", disk], check=True) and None


@pytest.mark.parametrize("name", NAMES)
def test_read_only(name: str, shop: Shop, tmp_path: Path, read_only: Callable[[], None]) -> None:
    case = Case(name, shop, tmp_path / "disk")
    before = case.state()
    read_only()
    check_refused(shop.commands(*case.arguments), case.out, "(Read-only file system|Permission denied)")
    assert case.state() == before


def test_events_on_a_read_only_disk(shop: Shop, tmp_path: Path, read_only: Callable[[], None]) -> None:
    read_only()
    outcome = shop.commands("serve", shop.path("bundle"), "--port=0", "--events", tmp_path / "disk" / "events")
    check_refused(outcome, tmp_path / "disk" / "events", "expected a directory that can be written, for events")
