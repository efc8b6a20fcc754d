"""A connection as uvicorn serves it, with bounds on all that comes before a request's body, and on a client's patience.

Takes bytes from a client; gives requests to the application, and refusals to what is no request. Uvicorn by itself
reads a head of any size for as long as it takes, any number of requests sent together, waits for ever for a client that
does not read its answer, and refuses in a form of its own.
"""

import asyncio
import logging
import secrets
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from prismrec.serve.gate import completed, refusal

MAX_HEAD_BYTES = 2**16
"""Of a request's address and headers together, and of trailers and whatever else is not its body."""
_MOST_TOGETHER = 100
_LEAST_READ = 2**16  # bytes of a long answer within `max_head_seconds`
_TOO_LARGE = (431, "headers_too_large", f"expected at most {MAX_HEAD_BYTES} bytes of address and headers")
_MALFORMED = (400, "bad_request", "expected a request of HTTP/1.1")
_UPGRADE = (400, "bad_request", "expected no header Upgrade with a body: let the client speak HTTP/1.1 from the start")
_log = logging.getLogger(__name__)


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *arguments: Any, max_head_seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seconds = max_head_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes since the last of a body, or of a whole head
        self._problem = _MALFORMED
        self._running: RequestResponseCycle | None = None  # uvicorn knows the newest of those sent together

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # tell of whatever is not taken at once
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect_nothing()
        self._read_on()
        if self._running is not None:
            self._running.disconnected = True  # or its answer would be written, and fail
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.response_complete:
            self._expect_head()
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MAX_HEAD_BYTES:  # the parser holds it all, at a cost that grows with its square
            self._refuse(*_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._expect_nothing()
        self._unread = 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._problem = _TOO_LARGE
        elif self.parser.should_upgrade() and {b"content-length", b"transfer-encoding"} & dict(self.headers).keys():
            self._problem = _UPGRADE  # the parser would take the body for another request
        elif len(self.pipeline) < _MOST_TOGETHER:  # else the connection ends after these, and nobody is told
            super().on_headers_complete()
            self.headers = []  # what follows are trailers, which are not for the application
            if not self.pipeline:
                self._running = self.cycle
            return
        raise ValueError(self._problem)  # told by the parser to whom feeds it: `send_400_response` follows

    def on_response_complete(self) -> None:
        self._running = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        self._refuse(*self._problem)

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._seconds, self._give_up)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _watch_reader(self) -> None:
        self._stuck = self.loop.call_later(self._seconds, self._look_after, self.transport.get_write_buffer_size())

    def _look_after(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() > unread - _LEAST_READ:
            self.transport.abort()
        else:
            self._watch_reader()

    def _read_on(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _give_up(self) -> None:
        if self._unread:
            self._refuse(408, "request_timeout", f"expected address and headers within {self._seconds:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer and close, or close after the answer to what came before."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:
                self.cycle.keep_alive = False
                self.flow.pause_reading()
                return
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
        request_id = secrets.token_hex(8)
        answer = refusal(status, code, message, {"request_id": request_id}, {"connection": "close"})
        headers = [*self.server_state.default_headers, *completed(answer.raw_headers, request_id)]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        self.transport.write(head + lines + b"\r\n" + bytes(answer.body))
        self.transport.close()
        _log.info("refused: %s", message, extra={"fields": {"request_id": request_id, "status": status}})
