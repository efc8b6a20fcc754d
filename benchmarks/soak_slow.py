"""The clients of `soak.py` that are a burden: slow ones, deaf ones, those that go away, and far too many at once.

Takes servers with records; what is answered goes into the records, beside the name of what the client did.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from soak_client import TIMEOUT, Answer, BrokenError, Connection, as_json, head
from soak_processes import HOST
from soak_record import BROKEN
from soak_traffic import MAX_BODY_SECONDS, MAX_PER_CLIENT, OK, RECOMMEND, Site, batch, some_user

CROWDS = {"one": {"127.0.0.2": MAX_PER_CLIENT + 8}, "many": {f"127.0.0.{n}": MAX_PER_CLIENT - 2 for n in (2, 3, 4)}}
"""Requests begun at once by address: too many of one client, or of all together."""
CUT = (BROKEN, "")
HELD = 1.0  # seconds that a crowd stays


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


@dataclass
class _Call:
    """A connection, and what for."""

    site: Site
    purpose: str
    connection: Connection
    start: float

    async def receive(self, expected: tuple[int, str]) -> None:
        """Wait for the answer and write it down."""
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await self.connection.receive()
        except (BrokenError, TimeoutError):
            answer = Answer(BROKEN, b"")
        self.site.record.answered(self.purpose, self.start, answer.status, answer.code, {expected})


@asynccontextmanager
async def _calling(site: Site, purpose: str, address: str = HOST, buffer: int | None = None) -> AsyncIterator[_Call]:
    """A call that ends with a reset; where it breaks off, that is written down."""
    call = _Call(site, purpose, Connection(site.server.port, address, buffer), time.monotonic())
    try:
        yield call
    except BrokenError:
        site.record.answered(purpose, call.start, BROKEN, "", set())
    finally:
        call.connection.close(reset=True)


async def _hold(site: Site, address: str) -> None:
    """A request whose body takes a second; it may be refused at once."""
    body = as_json({"user_id": 1})
    async with _calling(site, "of a crowd", address) as call:
        await call.connection.send(head("POST", RECOMMEND, len(body)) + body[:1])
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(call.receive(OK))
            await asyncio.wait([receiving], timeout=HELD)
            if not receiving.done():
                with suppress(BrokenError):
                    await call.connection.send(body[1:])


async def _dribble(site: Site, _: random.Random) -> None:
    """A byte of the body a second, for longer than the server waits."""
    async with _calling(site, "a byte a second") as call:
        await call.connection.send(head("POST", RECOMMEND, 1000))
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(call.receive((408, "request_timeout")))
            while not receiving.done():
                with suppress(BrokenError):
                    await call.connection.send(b" ")
                await asyncio.wait([receiving], timeout=1)


async def _be_patient(site: Site, _: random.Random) -> None:
    """A body in pieces, slow but in time."""
    body = as_json({"user_id": 1})
    async with _calling(site, "in pieces") as call:
        await call.connection.send(head("POST", RECOMMEND, len(body)))
        for place in range(0, len(body), 5):
            await asyncio.sleep(0.4)
            await call.connection.send(body[place : place + 5])
        await call.receive(OK)


async def _be_deaf(site: Site, rng: random.Random) -> None:
    """Read nothing of a long answer for a while, and then all of it; or for longer than the server waits."""
    body = as_json({"queries": [{"user_id": some_user(site, rng), "k": 100} for _ in range(50)]})
    async with _calling(site, "not reading", buffer=4096) as call:
        await call.connection.send(head("POST", f"{RECOMMEND}/batch", len(body)) + body)
        in_time = rng.random() < 0.5
        await asyncio.sleep(MAX_BODY_SECONDS * (0.3 if in_time else 2))
        await call.receive(OK if in_time else CUT)


async def _say_nothing(site: Site, _: random.Random) -> None:
    async with _calling(site, "saying nothing") as call:
        await call.connection.send(b"")
        await asyncio.sleep(MAX_BODY_SECONDS)


async def _stop_midway(site: Site, _: random.Random) -> None:
    async with _calling(site, "half a head") as call:
        await call.connection.send(head("POST", RECOMMEND, 100)[:40])
        await asyncio.sleep(MAX_BODY_SECONDS)


async def _leave(site: Site, rng: random.Random) -> None:
    """Ask much, and do not wait for it."""
    question = batch(site, rng)
    async with _calling(site, "leaving") as call:
        await call.connection.send(head("POST", question.path, len(question.body)) + question.body)
