"""The clients of `soak.py`: those that ask as they should, wrongly, slowly, and far too many at once.

Takes servers with records; whatever is answered goes into the record of its server.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from soak_bundles import CATEGORIES, START, YEAR
from soak_client import Answer, BrokenError, Connection, as_json, head
from soak_processes import KEY, Server
from soak_record import BROKEN, Event, Record

MAX_CONCURRENT, MAX_PER_CLIENT, MAX_BODY_SECONDS = 32, 16, 3
SETTINGS = (
    f"max_concurrent={MAX_CONCURRENT}",
    f"max_concurrent_per_client={MAX_PER_CLIENT}",
    f"max_body_seconds={MAX_BODY_SECONDS}",
)
"""Of the servers: low, so that a crowd or a slow client soon meets them."""
CROWDS = {"one": {"127.0.0.2": MAX_PER_CLIENT + 8}, "many": {f"127.0.0.{n}": MAX_PER_CLIENT - 2 for n in (2, 3, 4)}}
"""Requests begun at once by address: too many of one client, or of all together."""
HELD = 1.0  # seconds that a crowd stays
TRIES = 5  # of events that are not acknowledged
NEW_USER = 10_000_000
RECOMMEND, EVENTS, SIMILAR, EXPLORE = "/v1/recommend", "/v1/events", "/v1/similar", "/explorer/user"
OK = (200, "")


class Question(NamedTuple):
    """A request, and the status and code it should have."""

    method: str
    path: str
    body: bytes = b""
    expected: tuple[int, str] = OK
    key: str = KEY

    @property
    def route(self) -> str:
        """The path without what is asked there; refusals that are meant stand apart."""
        path = self.path.partition("?")[0]
        return path if self.expected == OK else f"{path}, to be refused"


@dataclass
class Site:
    """A server, what happens around it, and the shop it serves."""

    name: str
    server: Server
    users: int
    items: int
    record: Record = field(default_factory=Record)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by who stops the server or changes its bundle."""

    async def ask(self, connection: Connection, question: Question) -> Answer | None:
        """Ask and write down; no answer if the connection broke."""
        start = time.monotonic()
        try:
            answer = await connection.ask(question.method, question.path, question.body, question.key)
        except BrokenError:
            answer = Answer(BROKEN, b"")
        self.record.answered(question.route, start, answer.status, answer.code, {question.expected})
        return answer if answer.status else None


async def customer(site: Site, rng: random.Random, period: float) -> None:
    """Ask one question after the other, on average one in a period."""
    connection = Connection(site.server.port)
    for question in questions(site, rng):
        await asyncio.sleep(rng.uniform(0, 2) * period)
        await site.ask(connection, question)


async def reporter(site: Site, rng: random.Random, period: float, seconds: Iterator[int]) -> None:
    """Send events until they are acknowledged, or for the last time; now and then again what has been."""
    connection, record = Connection(site.server.port), site.record
    while True:
        users = [_user(site, rng, known=0.5) for _ in range(rng.choice((1, 1, 1, 4)))]
        sent = [
            Event(user, rng.randrange(site.items + site.items // 20), START + YEAR + next(seconds), rng.randrange(300))
            for user in users
            for _ in range(rng.randint(1, 3))
        ]
        record.sent.update(sent)
        question = _events(sent)
        for _ in range(TRIES):
            await asyncio.sleep(rng.uniform(0, 2) * period)
            answer = await site.ask(connection, question)
            if answer and answer.status == 200:
                record.acknowledged.update(sent)
                if rng.random() < 0.9:
                    break


async def slow_client(site: Site, rng: random.Random) -> None:
    """Be slow, deaf or gone, in turns."""
    while True:
        kinds = [_dribble, _be_patient, _be_deaf, _say_nothing, _stop_midway, _leave]
        for kind in rng.sample(kinds, len(kinds)):
            await kind(site, rng)
            await asyncio.sleep(rng.uniform(0, 2))


async def crowd(site: Site, kind: str) -> None:
    """Begin many requests, and end them a second later."""
    with site.record.during("burst"):
        await asyncio.gather(*(_hold(site, address) for address, size in CROWDS[kind].items() for _ in range(size)))


def questions(site: Site, rng: random.Random) -> Iterator[Question]:
    """What customers ask, without end."""
    kinds = [
        *itertools.repeat(_recommend, 10),
        *itertools.repeat(_look, 3),
        _batch,
        _batch,
        _similar,
        _similar,
        _refused,
    ]
    while True:
        kind: Callable[[Site, random.Random], Question] = rng.choice(kinds)
        yield kind(site, rng)


def _user(site: Site, rng: random.Random, known: float = 0.8) -> int:
    return rng.randrange(site.users) if rng.random() < known else NEW_USER + rng.randrange(site.users)


def _query(site: Site, rng: random.Random) -> dict[str, Any]:
    categories = [f"category {number}" for number in rng.sample(range(CATEGORIES), 3)]
    items = [rng.randrange(site.items) for _ in range(10)]
    events = [{"item_id": item, "timestamp": START + rng.randrange(YEAR)} for item in items]
    query: dict[str, Any] = {"user_id": _user(site, rng), "k": rng.choice((5, 20, 50))}
    choices: list[dict[str, Any]] = [
        {},
        {"merge": rng.choice(("maximum", "quota", "reciprocal_rank_fusion"))},
        {"diversity": rng.random()},
        {"exclude_categories": categories, "exclude_items": items},
        {"only_categories": categories},
        {"only_items": items},
        {"events": events},
        {"without_events": events, "include_seen": True},
        {"now": START + YEAR},
    ]
    return query | rng.choice(choices)


def _recommend(site: Site, rng: random.Random) -> Question:
    return Question("POST", RECOMMEND, as_json(_query(site, rng)))


def _batch(site: Site, rng: random.Random) -> Question:
    return Question("POST", f"{RECOMMEND}/batch", as_json({"queries": [_query(site, rng) for _ in range(8)]}))


def _similar(site: Site, rng: random.Random) -> Question:
    queries = [{"item_id": rng.randrange(site.items), "k": 20} for _ in range(4)]
    if rng.random() < 0.5:
        return Question("POST", SIMILAR, as_json(queries[0]))
    return Question("POST", f"{SIMILAR}/batch", as_json({"queries": queries}))


def _look(site: Site, rng: random.Random) -> Question:
    """At the explorer, and at what watches the server."""
    user, item = str(_user(site, rng)), rng.randrange(site.items)
    added = [{"item_id": str(item), "timestamp": START}]
    choices = [
        *itertools.repeat(Question("POST", EXPLORE, as_json({"user_id": user, "added": added})), 3),
        Question("GET", f"/explorer/users?search={user[:2]}"),
        Question("GET", f"/explorer/items?search=item+{item}"),
        Question("GET", f"/explorer/item?item_id={item}"),
        Question("GET", "/explorer/map"),
        Question("GET", "/"),
        Question("GET", "/metrics"),
        Question("GET", "/ready"),
    ]
    return rng.choice(choices)


def _refused(_: Site, rng: random.Random) -> Question:
    """What must be refused, and how."""
    choices = [
        Question("POST", RECOMMEND, b'{"user_id": ', (422, "invalid_request")),
        Question("POST", RECOMMEND, b"\xff", (400, "bad_request")),
        Question("POST", RECOMMEND, as_json({"user_id": 1, "k": 0}), (422, "invalid_request")),
        Question("POST", RECOMMEND, as_json({"user_id": "one"}), (422, "invalid_request")),
        Question("POST", RECOMMEND, as_json({"user_id": 1}), (401, "unauthorized"), "wrong"),
        Question("POST", EVENTS, as_json({"user_id": 1, "events": []}), (422, "invalid_request")),
        Question("POST", SIMILAR, as_json({"item_id": -1}), (404, "unknown_item")),
        Question("GET", RECOMMEND, b"", (405, "method_not_allowed")),
        Question("GET", "/nowhere", b"", (404, "not_found")),
        Question("POST", RECOMMEND, b" " * (2**20 + 1), (413, "body_too_large")),
        Question("POST", EXPLORE, as_json({"user_id": "one"}), (422, "invalid_request")),
    ]
    return rng.choice(choices)


def _events(sent: list[Event]) -> Question:
    queries = [
        {
            "user_id": user,
            "events": [{"item_id": one.item, "timestamp": one.time, "dwell": one.dwell} for one in events],
        }
        for user, events in itertools.groupby(sent, lambda event: event.user)
    ]
    if len(queries) == 1:
        return Question("POST", EVENTS, as_json(queries[0]))
    return Question("POST", f"{EVENTS}/batch", as_json({"queries": queries}))


async def _receive(site: Site, connection: Connection, route: str, start: float, *expected: tuple[int, str]) -> None:
    try:
        async with asyncio.timeout(60):
            answer = await connection.receive()
    except (BrokenError, TimeoutError):
        answer = Answer(BROKEN, b"")
    site.record.answered(route, start, answer.status, answer.code, set(expected))
    connection.close()


async def _open(
    site: Site, data: bytes, route: str, address: str = "127.0.0.1", buffer: int | None = None
) -> Connection | None:
    """A connection with something sent; none, and that written down, if there is no server."""
    connection, start = Connection(site.server.port, address, buffer), time.monotonic()
    try:
        await connection.send(data)
    except BrokenError:
        site.record.answered(route, start, BROKEN, "", set())
        return None
    return connection


async def _hold(site: Site, address: str) -> None:
    """A request whose body takes a second; it may be refused at once."""
    body, start = as_json({"user_id": 1}), time.monotonic()
    connection = await _open(site, head("POST", RECOMMEND, len(body)) + body[:1], "of a crowd", address)
    if connection is None:
        return
    receiving = asyncio.create_task(_receive(site, connection, "of a crowd", start, OK))
    await asyncio.wait([receiving], timeout=HELD)
    if not receiving.done():
        with suppress(BrokenError):
            await connection.send(body[1:])
    await receiving


async def _dribble(site: Site, _: random.Random) -> None:
    """A byte of the body a second, for longer than the server waits."""
    route, start = "a byte a second", time.monotonic()
    connection = await _open(site, head("POST", RECOMMEND, 1000), route)
    if connection is None:
        return
    receiving = asyncio.create_task(_receive(site, connection, route, start, (408, "request_timeout")))
    while not receiving.done():
        try:
            await connection.send(b" ")
        except BrokenError:
            break
        await asyncio.wait([receiving], timeout=1)
    await receiving


async def _be_patient(site: Site, _: random.Random) -> None:
    """A body in pieces, slow but in time."""
    route, start, body = "in pieces", time.monotonic(), as_json({"user_id": 1})
    connection = await _open(site, head("POST", RECOMMEND, len(body)), route)
    if connection is None:
        return
    for place in range(0, len(body), 5):
        await asyncio.sleep(MAX_BODY_SECONDS / 6)
        try:
            await connection.send(body[place : place + 5])
        except BrokenError:
            break
    await _receive(site, connection, route, start, OK)


async def _be_deaf(site: Site, rng: random.Random) -> None:
    """Read nothing of a long answer for a while; then all of it, or leave."""
    route, start = "not reading", time.monotonic()
    body = as_json({"queries": [{"user_id": _user(site, rng), "k": 100} for _ in range(50)]})
    connection = await _open(site, head("POST", f"{RECOMMEND}/batch", len(body)) + body, route, buffer=4096)
    if connection is None:
        return
    await asyncio.sleep(2 * MAX_BODY_SECONDS)
    if rng.random() < 0.5:
        await _receive(site, connection, route, start, OK)
    connection.close(reset=True)


async def _say_nothing(site: Site, _: random.Random) -> None:
    await _linger(site, b"")


async def _stop_midway(site: Site, _: random.Random) -> None:
    await _linger(site, head("POST", RECOMMEND, 100)[:40])


async def _leave(site: Site, rng: random.Random) -> None:
    """Ask much, and do not wait for it."""
    question = _batch(site, rng)
    connection = await _open(site, head("POST", question.path, len(question.body)) + question.body, "left")
    if connection:
        connection.close(reset=True)


async def _linger(site: Site, data: bytes) -> None:
    """Leave a connection open with nothing or little said, then break it off."""
    connection = await _open(site, data, "left open")
    if connection:
        await asyncio.sleep(MAX_BODY_SECONDS)
        connection.close(reset=True)
