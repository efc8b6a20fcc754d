"""The processes of `soak.py`: servers of bundles, Redis and PostgreSQL, each to be stopped, killed and started again.

Tests use the databases. All of them listen on this machine's loopback or on a socket in a directory, and nowhere else.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

HOST = "127.0.0.1"
KEY = "soak"
_PATIENCE = 60.0


class Stoppable(Protocol):
    """What faults are done to."""

    def start(self) -> None:
        """Return when it answers."""

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""

    def kill(self) -> None:
        """With SIGKILL."""


class Sample(NamedTuple):
    """What a process holds at a moment."""

    time: float
    pid: int
    rss: float
    """MiB, with what is mapped from files."""
    anonymous: float
    """MiB, without."""
    files: int
    threads: int


class Server:
    """`prismrec serve` of a link to a bundle; at the same port after each start."""

    def __init__(self, folder: Path, bundle: Path, *arguments: str) -> None:
        self.link, self._folder, self._arguments = folder / "current", folder, arguments
        folder.mkdir()
        self.point_to(bundle)
        self.port, self._lives = 0, 0
        self.exits: list[int] = []
        """Statuses of those that were asked to stop."""

    def point_to(self, bundle: Path) -> None:
        """Let the link mean a bundle; the server is not told."""
        other = self.link.with_name("next")
        other.symlink_to(bundle.resolve())
        other.replace(self.link)

    def start(self) -> None:
        self._lives += 1
        said = self._folder / f"said-{self._lives}.jsonl"
        command = [sys.executable, "-m", "prismrec", "serve", self.link, f"--port={self.port}", *self._arguments]
        environment = {**os.environ, "PRISMREC_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
        with said.open("w") as log:
            self.process = subprocess.Popen(list(map(str, command)), stderr=log, env=environment)
        deadline = time.monotonic() + _PATIENCE
        while "until Ctrl-C" not in said.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(said.read_text())
            time.sleep(0.05)
        self.port = int(said.read_text().partition(f"http://{HOST}:")[2].partition(",")[0])

    def stop(self) -> None:
        self.process.terminate()
        self.exits.append(self.process.wait(_PATIENCE))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def signal_change(self) -> None:
        """Tell it to look at the link."""
        self.process.send_signal(signal.SIGHUP)

    def sample(self) -> Sample | None:
        """What it holds now; nothing while it is down."""
        pid = self.process.pid
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in rollup}
            process = psutil.Process(pid)
            return Sample(
                time.monotonic(), pid, sizes["Rss"], sizes["Anonymous"], process.num_fds(), process.num_threads()
            )
        except (psutil.Error, OSError):
            return None

    def logged(self) -> list[dict[str, Any]]:
        """Lines of all lives, whole ones only, without the first of each, which is not JSON."""
        lines = []
        for said in sorted(self._folder.glob("said-*.jsonl")):
            lines += [line for line in said.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]
        return [json.loads(line) for line in lines]


class Redis:
    """redis-server; without options, what it has acknowledged is on the disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._options = options or ("--appendonly", "yes", "--appendfsync", "always")
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://{HOST}:{self.port}"

    def start(self) -> None:
        place = ["--bind", HOST, "--port", str(self.port), "--dir", str(self._folder), "--save", ""]
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(["redis-server", *place, *self._options], stdout=log)
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "redis.log").read_text())
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(_PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        """Whether it is up and has read its file."""
        try:
            with socket.create_connection((HOST, self.port), timeout=10) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100) == b"+PONG\r\n"
        except OSError:
            return False


class Postgres:
    """PostgreSQL with pgvector, of the package pgserver, on a socket in its data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = f"postgresql://postgres@/postgres?host={data}"
        package = importlib.util.find_spec("pgserver")  # not imported: as root it adds a user to the machine
        assert package is not None
        assert package.origin is not None
        self._programs = Path(package.origin).parent / "pginstall" / "bin"
        self._user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
        if self._user:
            shutil.chown(data, self._user)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync")

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-l", f"{self.data}/log", "-o", f"-h '' -k {self.data} -c fsync=off", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "fast", "stop")

    def kill(self) -> None:
        lock = self.data / "postmaster.pid"
        postmaster = psutil.Process(int(lock.read_text().split()[0]))
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, _PATIENCE)
        lock.unlink()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self.data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self._user, cwd=self.data)
