"""Limits, key, request ids, metrics and logs, around an application that only waits."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from prismrec.serve.gate import Gate
from prismrec.serve.logs import JsonFormatter
from prismrec.serve.metrics import Metrics
from prismrec.serve.settings import ServeConfig


class Waiting:
    """Answers with the body it got, once it may."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.inside += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def _gate(app: Any, key: str | None = None, **settings: float) -> tuple[Gate, Metrics]:
    metrics = Metrics()
    return Gate(app, ServeConfig(**settings), metrics, key), metrics


def _client(gate: Gate, address: str = "1.2.3.4") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate, client=(address, 1)), base_url="http://test")


async def _crowd(gate: Gate, app: Waiting, addresses: list[str]) -> list[httpx.Response]:
    """One request of each address, all in progress at once."""
    clients = [_client(gate, address) for address in addresses]
    tasks = [asyncio.ensure_future(client.post("/", content=b"hello")) for client in clients]
    while app.inside + sum(task.done() for task in tasks) < len(tasks):
        await asyncio.sleep(0.001)
    app.go.set()
    answers = list(await asyncio.gather(*tasks))
    for client in clients:
        await client.aclose()
    return answers


def test_too_many_requests_are_turned_away_and_the_next_is_let_in() -> None:
    async def crowd() -> None:
        app = Waiting()
        gate, _ = _gate(app, max_concurrent=2)
        answers = await _crowd(gate, app, ["1.1.1.1", "2.2.2.2", "3.3.3.3"])
        assert [answer.status_code for answer in answers] == [200, 200, 503]
        assert answers[2].json()["error"]["code"] == "overloaded"
        assert answers[2].headers["retry-after"] == "1"
        assert [answer.status_code for answer in await _crowd(gate, app, ["1.1.1.1"])] == [200]

    asyncio.run(crowd())


def test_one_client_may_not_take_all_places() -> None:
    async def crowd() -> None:
        app = Waiting()
        gate, _ = _gate(app, max_concurrent_per_client=1)
        answers = await _crowd(gate, app, ["1.1.1.1", "1.1.1.1", "2.2.2.2"])
        assert [answer.status_code for answer in answers] == [200, 429, 200]
        assert answers[1].json()["error"]["code"] == "too_many_requests"

    asyncio.run(crowd())


def _send(gate: Gate, app: Waiting, path: str = "/asked", **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        app.go.set()
        async with _client(gate) as client:
            return await client.post(path, **request)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "wrong"}, 401),
        ({"x-api-key": "sesam"}, 200),
        ({"authorization": "Bearer sesam"}, 200),
        ({"authorization": "Bearer sesa"}, 401),
    ],
)
def test_the_key(headers: dict[str, str], status: int) -> None:
    app = Waiting()
    gate, _ = _gate(app, key="sesam")
    assert _send(gate, app, headers=headers).status_code == status
    assert app.inside == (status == 200)


@pytest.mark.parametrize("key", ["ключ", "cl\udcff\u00e9"])
def test_a_key_of_any_bytes(key: str) -> None:
    """As Python has them of an environment that is not UTF-8."""
    app = Waiting()
    gate, _ = _gate(app, key=key)
    sent = key.encode(errors="surrogateescape")
    assert _send(gate, app, headers={"x-api-key": sent}).status_code == 200
    assert _send(gate, app, headers={"x-api-key": sent[:-1]}).status_code == 401


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, identity"])
def test_compressed_bodies(encoding: str) -> None:
    app = Waiting()
    gate, _ = _gate(app)
    answer = _send(gate, app, headers={"content-encoding": encoding})
    assert (answer.status_code, answer.json()["error"]["code"], app.inside) == (415, "unsupported_encoding", 0)


@pytest.mark.parametrize("path", ["/asked", "/health"])
def test_every_answer_is_private_unless_it_says_otherwise(path: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-cache")]})
        await send({"type": "http.response.body"})

    waiting = Waiting()
    (private, _), (cached, _) = _gate(waiting), _gate(app)
    answers = [_send(gate, waiting, path).headers for gate in (private, cached)]
    assert [answer.get_list("cache-control") for answer in answers] == [["no-store"], ["no-cache"]]
    assert [answer["x-content-type-options"] for answer in answers] == ["nosniff"] * 2
    assert [answer["referrer-policy"] for answer in answers] == ["no-referrer"] * 2
    assert all(len(answer["x-request-id"]) == 16 for answer in answers)


def test_a_client_that_leaves_before_the_end_of_its_body_asked_nothing() -> None:
    app = Waiting()
    gate, metrics = _gate(app)
    messages = iter([{"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        pass

    asyncio.run(gate({"type": "http", "path": "/asked", "headers": []}, receive, send))
    assert app.inside == 0
    assert 'prismrec_requests_total{path="other",status="400"} 1.0' in metrics.text().decode()


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_those_that_watch_need_no_key(path: str) -> None:
    app = Waiting()
    gate, _ = _gate(app, key="sesam")
    assert _send(gate, app, path).status_code == 200


async def _pieces(size: int) -> Any:
    for _ in range(size):
        yield b"x" * 100


@pytest.mark.parametrize("size", [10, 11])
@pytest.mark.parametrize("declared", [True, False])
def test_the_size_of_a_body(size: int, declared: bool) -> None:
    app = Waiting()
    gate, _ = _gate(app, max_body_bytes=1024)
    answer = _send(gate, app, content=b"x" * 100 * size if declared else _pieces(size))
    if size == 10:
        assert (answer.status_code, len(answer.content)) == (200, 1000)
    else:
        assert (answer.status_code, answer.json()["error"]["code"], app.inside) == (413, "body_too_large", 0)


def test_a_body_that_comes_byte_by_byte() -> None:
    """The time is for the whole body, not for each of its pieces."""
    app = Waiting()
    gate, metrics = _gate(app, max_body_seconds=0.05)

    async def forever() -> Any:
        while True:
            yield b"x"
            await asyncio.sleep(0.001)

    answer = _send(gate, app, content=forever())
    assert (answer.status_code, answer.json()["error"]["code"], app.inside) == (408, "request_timeout", 0)
    assert "prismrec_requests_in_progress 0.0" in metrics.text().decode()


@pytest.mark.parametrize(("given", "kept"), [("order-66.a_b", True), ("no spaces", False), ("x" * 65, False)])
def test_request_ids_are_echoed_if_they_are_harmless(given: str, kept: bool) -> None:
    app = Waiting()
    gate, _ = _gate(app)
    answer = _send(gate, app, headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) == kept
    assert len(answer.headers["x-request-id"]) == (len(given) if kept else 16)


def test_requests_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Waiting()
    gate, metrics = _gate(app, key="sesam")
    with caplog.at_level(logging.INFO, "prismrec.serve.gate"):
        _send(gate, app, "/nowhere", headers={"x-request-id": "abc"})
    (record,) = (record for record in caplog.records if record.name == "prismrec.serve.gate")
    line = json.loads(JsonFormatter().format(record))
    assert {name: line[name] for name in ("level", "message", "request_id", "path", "status")} == {
        "level": "info",
        "message": "request",
        "request_id": "abc",
        "path": "other",
        "status": 401,
    }
    text = metrics.text().decode()
    assert 'prismrec_requests_total{path="other",status="401"} 1.0' in text
    assert "prismrec_requests_in_progress 0.0" in text


def test_a_defect_is_logged_with_its_trace() -> None:
    try:
        raise RuntimeError("why")
    except RuntimeError as error:
        record = logging.LogRecord("name", logging.ERROR, "file", 1, "failed %d", (3,), (type(error), error, None))
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"], line["trace"]) == ("error", "failed 3", "RuntimeError: why")
