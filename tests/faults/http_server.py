"""A server with a key, what its refusals look like, and that whatever was asked did it no harm."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..serve.processes import RECOMMEND, Server

KEY = "open-sesame-66"
MAX_GROWTH = 100 * 2**20
"""Bytes of memory that bad input may cost at any moment, generously."""
EVERYWHERE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
"""Headers of every answer."""


@contextlib.contextmanager
def unharmed_server(bundle: Path, folder: Path, *settings: str) -> Iterator[Server]:
    """Serve as long as the block lasts; then the server must be as well as before, and have kept the key to itself."""
    with Server(bundle, folder, f"--events={folder / 'events'}", *settings, key=KEY) as server:
        _check_answers(server)
        before = _peak_since(server.process.pid)
        yield server
        _check_answers(server)
        assert _peak(server.process.pid) - before < MAX_GROWTH
        harm = [line for line in server.lines() if line["level"] == "error" or "trace" in line]
        assert not harm, harm
        assert "Traceback" not in server.said()
        assert KEY not in server.said()


def _peak_since(pid: int) -> int:
    """Let the peak of a process's memory count from now on; gives what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak(pid)


def _peak(pid: int) -> int:
    """The most memory that a process had, bytes."""
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found) * 1024


def _check_answers(server: Server) -> None:
    with server.client() as client:
        assert client.post(RECOMMEND, json={"user_id": 4}).status_code == 200


def check_refusal(status: int, headers: Mapping[str, str], body: bytes, code: str | None = None) -> str:
    """The one form of all that is no success; gives the message."""
    assert 400 <= status < 500
    assert headers["content-type"] == "application/json"
    assert {name: headers[name] for name in EVERYWHERE} == EVERYWHERE
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    answer: Any = json.loads(body)
    assert list(answer) == ["error"]
    error = answer["error"]
    assert list(error) == ["code", "message", "request_id"]
    assert re.fullmatch("[0-9a-f]{16}", error["request_id"])
    assert headers["x-request-id"] == error["request_id"]
    assert code in (None, error["code"])
    assert 0 < len(error["message"]) <= 1000
    assert KEY not in error["message"]
    return str(error["message"])
