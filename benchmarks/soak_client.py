"""Just enough HTTP for `soak.py`: connections that ask, are slow, go deaf or break off."""

import asyncio
import json
import re
import socket
import struct
from typing import Any, NamedTuple

from soak_processes import HOST, KEY

TIMEOUT = 60.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes

    @property
    def code(self) -> str:
        """That of the refusal; none in an answer, and the text itself where it has not the form of a refusal."""
        if self.status < 400:
            return ""
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError):
            return repr(self.body[:100])


class BrokenError(Exception):
    """There was no whole answer."""


class Connection:
    """A connection to a server, opened anew when it is needed and lost."""

    def __init__(self, port: int, address: str = HOST, buffer: int | None = None) -> None:
        """Open nothing yet.

        Args:
            port: of the server.
            address: to come from, 127.x.x.x.
            buffer: bytes that are received before they are asked for; the system's choice by default.
        """
        self._port, self._address, self._buffer = port, address, buffer
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"", key: str = KEY) -> Answer:
        """Send a request, over a new connection if the server has closed this one, and wait for the answer.

        Raises:
            BrokenError: the connection is refused or lost, or the answer takes too long.
        """
        if self._writer and (self._writer.is_closing() or self._reader.at_eof() or self._reader.exception()):
            self.close()
        try:
            async with asyncio.timeout(TIMEOUT):
                await self.send(head(method, path, len(body), key) + body)
                return await self.receive()
        except (BrokenError, TimeoutError) as error:
            self.close()
            raise BrokenError from error

    async def send(self, data: bytes) -> None:
        """Write, over a new connection if there has been none."""
        try:
            if self._writer is None:
                await self._open()
            assert self._writer is not None
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise BrokenError from error

    async def receive(self) -> Answer:
        """Read an answer."""
        try:
            start = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(start)
            body = await self._reader.readexactly(int(length[1]) if length else 0)
        except (OSError, EOFError) as error:
            raise BrokenError from error
        return Answer(int(start[9:12]), body)

    def close(self, *, reset: bool = False) -> None:
        """Close; by a reset, as when a client is killed."""
        if self._writer is None:
            return
        if reset and not self._writer.is_closing():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()
        self._writer = None

    async def _open(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if self._buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        try:
            self._socket.bind((self._address, 0))
            await asyncio.get_running_loop().sock_connect(self._socket, (HOST, self._port))
        except BaseException:
            self._socket.close()
            raise
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=self._buffer or 2**16)


def head(method: str, path: str, length: int, key: str = KEY) -> bytes:
    """The head of a request with a body of so many bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {HOST}", f"x-api-key: {key}", f"content-length: {length}"]
    return "\r\n".join([*lines, "content-type: application/json", "", ""]).encode()


def as_json(value: Any) -> bytes:
    """The body of a request."""
    return json.dumps(value).encode()
