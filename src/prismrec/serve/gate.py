"""The gate before the application: request ids, the key, limits, a line of log and metrics for every request.

Takes an ASGI application and settings; gives an ASGI application. It is plain ASGI and not FastAPI's middleware,
which would cost a task per request.
"""

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from prismrec.serve.messages import Problem, Refusal
from prismrec.serve.metrics import Metrics
from prismrec.serve.settings import ServeConfig

PAGE = "/explorer/page/"
"""Where the files of the explorer are: they and `/` show nothing of the bundle, and are there without the key."""
OPEN = ("/health", "/ready")
"""For those that watch the service: without key, limits and lines of log."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_OTHER = "other"  # paths that do not exist are one to the metrics, whatever they are called
_HEADERS = {408: {"connection": "close"}, 429: {"retry-after": "1"}, 503: {"retry-after": "1"}}
_ALWAYS = (
    (b"cache-control", b"no-store"),  # answers say what people did
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_LONGEST = 1000  # characters of a message
_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """Lets requests through, or refuses them in the form of every other error."""

    def __init__(self, app: Application, settings: ServeConfig, metrics: Metrics, key: str | None) -> None:
        """Guard `app`.

        Args:
            app: the application.
            settings: the limits.
            metrics: count what passes.
            key: what clients must send as `X-API-Key`, or as a bearer token; none, or an empty one, lets everybody in.
        """
        self._app, self._settings, self._metrics = app, settings, metrics
        self._key = key.encode(errors="surrogateescape") if key else None  # any bytes, as the environment has them
        self._in_progress: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        scope["request_id"] = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        client = str((scope.get("client") or ("",))[0])
        started, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = completed(message["headers"], scope["request_id"])
            await send(message)

        if scope["path"] in OPEN:
            await self._app(scope, receive, answer)
            return
        self._in_progress[client] += 1
        self._metrics.in_progress.inc()
        try:
            await self._pass(scope, headers, client, receive, answer)
        finally:
            self._in_progress[client] -= 1
            if not self._in_progress[client]:
                del self._in_progress[client]
            self._metrics.in_progress.dec()
            self._record(scope, status, time.perf_counter() - started)

    async def _pass(self, scope: Scope, headers: dict[bytes, bytes], client: str, receive: Receive, send: Send) -> None:
        if self._in_progress.total() > self._settings.max_concurrent:
            await refusal(503, "overloaded", "too many requests in progress; try again", scope)(scope, receive, send)
        elif self._in_progress[client] > self._settings.max_concurrent_per_client:
            await refusal(429, "too_many_requests", "too many requests of this client in progress; try again", scope)(
                scope, receive, send
            )
        elif scope["path"] == "/" or scope["path"].startswith(PAGE):
            await self._app(scope, receive, send)  # which reads no body there
        elif not self._admits(headers):
            await refusal(401, "unauthorized", "expected the key in the header X-API-Key", scope)(scope, receive, send)
        elif (encoding := headers.get(b"content-encoding", b"").strip().lower()) not in (b"", b"identity"):
            message = f"expected a body that is not compressed, found Content-Encoding: {encoding.decode('latin-1')}"
            await refusal(415, "unsupported_encoding", message, scope)(scope, receive, send)
        else:
            await self._pass_body(scope, headers, receive, send)

    async def _pass_body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        most, seconds = self._settings.max_body_bytes, self._settings.max_body_seconds
        try:
            async with asyncio.timeout(seconds):
                body = await _read(headers, receive, most)
        except TimeoutError:
            message = f"expected the whole body within {seconds:g} s"
            await refusal(408, "request_timeout", message, scope)(scope, receive, send)
            return
        except ConnectionError:  # nobody is there to read it, but it is counted
            await refusal(400, "bad_request", "expected the whole body", scope)(scope, receive, send)
            return
        if body is None:
            message = f"expected a body of at most {most} bytes"
            await refusal(413, "body_too_large", message, scope)(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)

    def _admits(self, headers: dict[bytes, bytes]) -> bool:
        if self._key is None:
            return True
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        return hmac.compare_digest(given, self._key)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = getattr(route, "path", _OTHER)
        self._metrics.requests.labels(path, status).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        fields = {"request_id": scope["request_id"], "path": path, "status": status, "ms": round(1000 * seconds, 3)}
        _log.info("request", extra={"fields": fields})


def refusal(
    status: int, code: str, message: str, scope: Scope, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The one form of everything that is not a success; of a message that quotes a long request, the beginning."""
    text = message[:_LONGEST].encode(errors="replace").decode()  # a request may hold half a surrogate pair
    problem = Problem(code=code, message=text, request_id=scope.get("request_id", ""))
    return JSONResponse(Refusal(error=problem).model_dump(), status, {**_HEADERS.get(status, {}), **(headers or {})})


def completed(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those of every answer, as far as it has no others of the name."""
    own = list(headers)
    names = {name for name, _ in own}
    return [*own, *(each for each in _ALWAYS if each[0] not in names), (b"x-request-id", request_id.encode())]


def success(answer: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """The one form of what is one, serialised once; a response model would have it checked again."""
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


async def _read(headers: dict[bytes, bytes], receive: Receive, most: int) -> bytes | None:
    """The whole body, or None if it is too large.

    Raises:
        ConnectionError: the client left before its end.
    """
    if int(headers.get(b"content-length", b"0")) > most:
        return None
    body, more = bytearray(), True
    while more and len(body) <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body) if len(body) <= most else None


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()  # only a disconnection can follow
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
