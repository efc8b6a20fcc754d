"""Clients of several kinds for `prismrec serve` as a process of its own."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..processes import Server, wait_for
from .conftest import START

RECOMMEND = "/v1/recommend"


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
