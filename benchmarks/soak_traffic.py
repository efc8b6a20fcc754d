"""The clients of `soak.py` that wait for their answers: customers who ask rightly or wrongly, and reporters of events.

Takes servers with records; whatever is answered goes into the record of its server.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from soak_bundles import CATEGORIES, START, YEAR
from soak_client import Answer, BrokenError, Connection, as_json
from soak_processes import KEY, Server
from soak_record import BROKEN, Event, Record

MAX_CONCURRENT, MAX_PER_CLIENT, MAX_BODY_SECONDS = 32, 16, 5
SETTINGS = (
    f"max_concurrent={MAX_CONCURRENT}",
    f"max_concurrent_per_client={MAX_PER_CLIENT}",
    f"max_body_seconds={MAX_BODY_SECONDS}",
)
"""Of the servers: low, so that a crowd or a slow client soon meets them."""
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
    with closing(Connection(site.server.port)) as connection:
        for question in questions(site, rng):
            await asyncio.sleep(rng.uniform(0, 2) * period)
            await site.ask(connection, question)


async def reporter(site: Site, rng: random.Random, period: float, seconds: Iterator[int]) -> None:
    """Send events until they are acknowledged, or for the last time; now and then again what has been."""
    with closing(Connection(site.server.port)) as connection:
        while True:
            users = [some_user(site, rng, known=0.5) for _ in range(rng.choice((1, 1, 1, 4)))]
            sent = [
                Event(user, _item(site, rng), START + YEAR + next(seconds), rng.randrange(300))
                for user in users
                for _ in range(rng.randint(1, 3))
            ]
            site.record.sent.update(sent)
            for _ in range(TRIES):
                await asyncio.sleep(rng.uniform(0, 2) * period)
                answer = await site.ask(connection, _events(sent))
                if answer and answer.status == 200:
                    site.record.acknowledged.update(sent)
                    if rng.random() < 0.9:
                        break


def questions(site: Site, rng: random.Random) -> Iterator[Question]:
    """What customers ask, without end."""
    often: dict[Callable[[Site, random.Random], Question], int] = {
        _recommend: 10,
        _look: 3,
        batch: 2,
        _similar: 2,
        _refused: 1,
    }
    while True:
        (kind,) = rng.choices(list(often), list(often.values()))
        yield kind(site, rng)


def some_user(site: Site, rng: random.Random, known: float = 0.8) -> int:
    """Of the bundle, as often as `known` says, or one of as many that came later."""
    return rng.randrange(site.users) if rng.random() < known else NEW_USER + rng.randrange(site.users)


def _item(site: Site, rng: random.Random) -> int:
    """One in twenty is not of the first bundle, and perhaps of none."""
    return rng.randrange(site.items + site.items // 20)


def _query(site: Site, rng: random.Random) -> dict[str, Any]:
    categories = [f"category {number}" for number in rng.sample(range(CATEGORIES), 3)]
    items = [rng.randrange(site.items) for _ in range(10)]
    events = [{"item_id": item, "timestamp": START + rng.randrange(YEAR)} for item in items]
    query: dict[str, Any] = {"user_id": some_user(site, rng), "k": rng.choice((5, 20, 50))}
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


def batch(site: Site, rng: random.Random) -> Question:
    """Eight users in one request."""
    return Question("POST", f"{RECOMMEND}/batch", as_json({"queries": [_query(site, rng) for _ in range(8)]}))


def _similar(site: Site, rng: random.Random) -> Question:
    queries = [{"item_id": rng.randrange(site.items), "k": 20} for _ in range(4)]
    if rng.random() < 0.5:
        return Question("POST", SIMILAR, as_json(queries[0]))
    return Question("POST", f"{SIMILAR}/batch", as_json({"queries": queries}))


def _look(site: Site, rng: random.Random) -> Question:
    """At the explorer, and at what watches the server."""
    user, item = str(some_user(site, rng)), rng.randrange(site.items)
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
