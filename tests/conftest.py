"""Servers that are real and shared by the whole session: PostgreSQL with pgvector, Milvus in a file.

And the last line of the session, which says how much bad input was tried.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest


class Postgres:
    """A PostgreSQL server that listens on a socket in its data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = f"postgresql://postgres@/postgres?host={data}"
        package = importlib.util.find_spec("pgserver")  # not imported: as root it adds a user to the machine
        assert package is not None
        assert package.origin is not None
        self._programs = Path(package.origin).parent / "pginstall" / "bin"
        # PostgreSQL refuses to run as root
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(data, self._user)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync")

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-l", f"{self.data}/log", "-o", f"-h '' -k {self.data} -c fsync=off", "start")

    def stop(self) -> None:
        """Stop as a crash does: no connection is told."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self.data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self._user, cwd=self.data)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # not in pytest's own directory: the user who runs the server may not look into it
    with tempfile.TemporaryDirectory(prefix="prismrec-") as data:
        server = Postgres(Path(data))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    return postgres.url


@pytest.fixture(scope="module")  # Milvus Lite breaks connections that have been idle for minutes
def milvus_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"milvus:{tmp_path_factory.mktemp('milvus') / 'items.db'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what `tests/faults` tried; here, since only this file is read by the process that has the terminal."""
    tried: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            tried.update(dict(getattr(report, "user_properties", ())).get("tried", {}))
    if tried:
        counts = ", ".join(f"{number:,} {what}" for what, number in sorted(tried.items()))
        terminalreporter.write_line(f"bad input tried: {counts}")
