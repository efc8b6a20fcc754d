"""Load on a server from a process of its own: clients that ask again as soon as they are answered.

    python benchmarks/serving_load.py HOST PORT BODIES CLIENTS SECONDS

BODIES is a file of JSON lines, one request each, used over and over. Prints latencies in milliseconds and
statuses as one JSON object. Speaks just enough HTTP to cost little beside the server that it measures.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_HEADERS = b"POST /v1/recommend HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


async def load(host: str, port: int, bodies: Iterator[bytes], clients: int, seconds: float) -> dict[str, object]:
    """Ask until the time is over; gives the latency and the status of each request."""
    latencies: list[float] = []
    statuses: dict[str, int] = {}
    end = time.perf_counter() + seconds

    async def ask_on() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while (start := time.perf_counter()) < end:
            body = next(bodies)
            writer.write(_HEADERS % len(body) + body)
            status = await _read_answer(reader)
            latencies.append(1000 * (time.perf_counter() - start))
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(ask_on() for _ in range(clients)))
    return {"latencies": latencies, "statuses": statuses, "seconds": time.perf_counter() - begun}


async def _read_answer(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.lower().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return head.split(" ", 2)[1]


if __name__ == "__main__":
    host, port, path, clients, seconds = sys.argv[1:]
    bodies = itertools.cycle(Path(path).read_bytes().splitlines())
    print(json.dumps(asyncio.run(load(host, int(port), bodies, int(clients), float(seconds)))))
