"""A real Redis server, for the tests that need one."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class RedisServer:
    """A redis-server process that writes every command to its file before it answers."""

    def __init__(self, directory: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._directory = directory
        self._options = options or ("--appendonly", "yes", "--appendfsync", "always")
        self.start()

    def start(self) -> None:
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory), "--save", ""]
        self._log = self._directory / "redis.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(["redis-server", *place, *self._options], stdout=log)
        while self.process.poll() is None:
            if self._answers():
                return
            time.sleep(0.01)
        raise AssertionError(self._log.read_text())

    def _answers(self) -> bool:
        """Whether the server is up and has read its file."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100) == b"+PONG\r\n"
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def redis_program() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("needs the program redis-server on the PATH")


@pytest.fixture(scope="session")
def redis_server(redis_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that leave it up."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_redis_server(redis_program: None, tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which may kill it."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()
