"""`prismrec serve` as a process of its own, and clients of several kinds."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from .conftest import START

RECOMMEND = "/v1/recommend"


class Server:
    """A process that serves, until the block ends."""

    def __init__(self, bundle: Path, folder: Path, *arguments: object, key: str = "") -> None:
        command = [sys.executable, "-m", "prismrec", "serve", bundle, "--port=0", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PRISMREC_API_KEY": key}
        self._said = folder / "said.txt"
        with self._said.open("w") as said:
            self.process = subprocess.Popen(list(map(str, command)), stderr=said, env=environment)
        self.key = key

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @cached_property
    def url(self) -> str:
        """Its address, once it has one."""
        wait_for(lambda: "until Ctrl-C" in self.said() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()
        return self.said().partition("served at ")[2].partition(",")[0]

    def said(self) -> str:
        return self._said.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """What it logged: all but the first line, whole lines only."""
        return [json.loads(line) for line in self.said().splitlines(keepends=True)[1:] if line.endswith("\n")]

    def client(self, **headers: str) -> httpx.Client:
        # certificates are not needed and take long to read
        return httpx.Client(base_url=self.url, timeout=60, verify=False, headers={"x-api-key": self.key, **headers})

    def connect(self) -> socket.socket:
        url = httpx.URL(self.url)
        return socket.create_connection((url.host, url.port), timeout=60)

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Values by name and labels."""
        with self.client() as client:
            families = text_string_to_metric_families(client.get("/metrics").text)
            samples = [sample for family in families for sample in family.samples]
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}

    def health(self) -> dict[str, Any]:
        with self.client() as client:
            return client.get("/health").json()


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class HeldRequest:
    """A request that has begun: the server has its head and waits for its body."""

    def __init__(self, server: Server, query: dict[str, Any], path: str = RECOMMEND) -> None:
        self._body = json.dumps(query).encode()
        self.socket = server.connect()
        headers = {
            "host": "test",
            "x-api-key": server.key,
            "content-type": "application/json",
            "content-length": len(self._body),
            "expect": "100-continue",
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.socket.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        assert self.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"

    def send(self, size: int | None = None) -> None:
        self.socket.sendall(self._body[:size])

    def status(self) -> int:
        """Of the whole answer."""
        with self.socket, contextlib.closing(http.client.HTTPResponse(self.socket)) as answer:
            answer.begin()
            json.loads(answer.read())
            return answer.status


QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    (RECOMMEND, {"user_id": 4}),
    (f"{RECOMMEND}/batch", {"queries": [{"user_id": 5}, {"events": [{"item_id": "item 3", "timestamp": START}]}]}),
    ("/v1/similar", {"item_id": "item 7"}),
    ("/v1/events", {"user_id": 900, "events": [{"item_id": "item 3", "timestamp": START}]}),
]


@contextlib.contextmanager
def crowd(server: Server) -> Iterator[None]:
    """All questions from several threads as long as the block lasts, every one of them answered with 200."""
    questions = 2 * QUESTIONS
    # one of them with a new connection for every request
    connections = ("close", *["keep-alive"] * (len(questions) - 1))
    done, statuses = threading.Event(), [[] for _ in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        asking = [
            pool.submit(_ask_until, done, server, *question)
            for question in zip(connections, questions, statuses, strict=True)
        ]
        try:
            wait_for(lambda: all(statuses) or any(one.done() for one in asking))
            yield
        finally:
            done.set()
    for one in asking:
        one.result()
    assert [set(each) for each in statuses] == [{200}] * len(questions)


def _ask_until(
    done: threading.Event, server: Server, connection: str, question: tuple[str, Any], statuses: list[int]
) -> None:
    path, query = question
    with server.client(connection=connection) as client:
        while not done.is_set():
            statuses.append(client.post(path, json=query).status_code)
