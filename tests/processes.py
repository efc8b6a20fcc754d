"""`prismrec serve` as a process of its own, for all tests that need a real server."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families


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
