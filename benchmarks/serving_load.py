"""Load on a server from a process of its own: clients that ask again as soon as they are answered.

    python benchmarks/serving_load.py HOST PORT BODIES CLIENTS SECONDS

BODIES is a file of JSON lines, one request each, used over and over. Prints latencies in milliseconds and
statuses as one JSON object. Speaks just enough HTTP to cost little beside the server that it measures.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import uvloop

_HEADERS = b"POST /v1/recommend HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Load:
    """What all clients share: the requests, the end, and what was found."""

    def __init__(self, bodies: Iterator[bytes], seconds: float) -> None:
        self.bodies, self.end = bodies, time.perf_counter() + seconds
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()


class Client(asyncio.Protocol):
    """One connection; `done` when the time is over or the connection is lost."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first time."""
        self.transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again when an answer is whole."""
        self.answer += data
        head = self.answer.find(b"\r\n\r\n")
        length = _LENGTH.search(self.answer, 0, head)
        if head < 0 or length is None or len(self.answer) < head + 4 + int(length[1]):
            return
        self.load.latencies.append(1000 * (time.perf_counter() - self.start))
        self.load.statuses[self.answer[9:12].decode()] += 1
        if self.start < self.load.end:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Say so, unless the time is over."""
        self.load.statuses["lost"] += error is not None or self.start < self.load.end
        self.done.set_result(None)

    def _ask(self) -> None:
        body = next(self.load.bodies)
        self.answer, self.start = b"", time.perf_counter()
        self.transport.write(_HEADERS % len(body) + body)


async def run(host: str, port: int, bodies: Iterator[bytes], clients: int, seconds: float) -> dict[str, object]:
    """Ask until the time is over; gives the latency and the status of each request."""
    loop, begun, load = asyncio.get_running_loop(), time.perf_counter(), Load(bodies, seconds)
    connected = [await loop.create_connection(lambda: Client(load), host, port) for _ in range(clients)]
    await asyncio.gather(*(client.done for _, client in connected))
    lasted = time.perf_counter() - begun
    return {"latencies": load.latencies, "statuses": +load.statuses, "seconds": lasted}


if __name__ == "__main__":
    host, port, path, clients, seconds = sys.argv[1:]
    bodies = itertools.cycle(Path(path).read_bytes().splitlines())
    print(json.dumps(uvloop.run(run(host, int(port), bodies, int(clients), float(seconds)))))
