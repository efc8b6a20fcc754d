"""Servers that are real and shared by the whole session: PostgreSQL with pgvector, Milvus in a file."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


class Postgres:
    """A PostgreSQL server that listens on a socket in its data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = f"postgresql://postgres@/postgres?host={data}"
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
        import pgserver

        getattr(pgserver, program)([*arguments], pgdata=self.data, user=self._user, cwd=self.data)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("pgserver")
    # not in pytest's own directory: the user who runs the server may not look into it
    with tempfile.TemporaryDirectory(prefix="prismrec-") as data:
        server = Postgres(Path(data))
        server.start()
        yield server
        server.stop()
