"""A small bundle with an untrained model, the whole service on it, and a real Redis server."""

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from prismrec.config import Config, HashingConfig, HistoryConfig, ModelConfig, PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.export.bundle import export
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes
from prismrec.model.run import save_run
from prismrec.serve.app import create_app
from prismrec.serve.gate import Gate
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import open_host
from prismrec.serve.settings import ServeConfig

NUM_USERS, NUM_ITEMS, START = 12, 30, 1_600_000_000
NAMES = [f"item {number}" for number in range(NUM_ITEMS)]


def make_bundle(folder: Path, seed: int = 0, **feature: object) -> Path:
    """Users 0 to 11 with eight events each, 30 items in five categories, the column of context `shop`."""
    rng = np.random.default_rng(0)
    names = pl.Series(NAMES)
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(NUM_USERS), 8),
            "item_id": names[rng.integers(0, NUM_ITEMS, 8 * NUM_USERS)],
            "timestamp": START + 60 * rng.permutation(8 * NUM_USERS),
            "shop": rng.integers(0, 4, 8 * NUM_USERS),
        }
    ).with_columns(**feature)
    items = pl.DataFrame(
        {
            "item_id": names,
            "category": [f"category {number % 5}" for number in range(NUM_ITEMS)],
            "title": [f"The {name}" for name in names],
        }
    )
    store = prepare(events, items, folder / "store", PrepareConfig(), Console(quiet=True))
    torch.manual_seed(seed)
    counts = dict.fromkeys((*store.schema.item_features, *store.schema.context_features), 8)
    hashing = resolve_primes(HashingConfig(), {**counts, "item_id": NUM_ITEMS})
    config = Config(history=HistoryConfig(max_length=10), model=ModelConfig(embedding_dim=16, hashing=hashing))
    save_run(folder / "run", config, store, MultiInterestModel(config.model, store.schema, 10))
    return export(folder / "run", folder / "bundle")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


class Client:
    """Asks an application without a network."""

    def __init__(self, app: Gate, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    def send(self, method: str, path: str, content: bytes | None = None, **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                given = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(
                    method, path, content=content, headers={"content-type": "application/json", **given}
                )

        return asyncio.run(send())

    def ask(self, path: str, **query: object) -> tuple[int, Any]:
        response = self.send("POST", path, json.dumps(query).encode())
        return response.status_code, response.json()


@pytest.fixture(scope="module")
def make_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Client]]:
    """Serve a bundle with settings, events in a folder of their own."""
    hosts = []

    def make(path: Path, key: str | None = None, **settings: object) -> Client:
        serving, metrics = ServeConfig.model_validate(settings), Metrics()
        host = open_host(path, serving, metrics, events=str(tmp_path_factory.mktemp("events")))
        hosts.append(host)
        return Client(create_app(host, serving, metrics, key), metrics)

    yield make
    for host in hosts:
        host.close()


@pytest.fixture(scope="module")
def client(bundle: Path, make_client: Callable[..., Client]) -> Client:
    return make_client(bundle)


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
