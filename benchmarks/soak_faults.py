"""The faults of `soak.py`: a plan drawn from a seed, and those who carry it out.

Each lane of the plan is about one thing, and takes one fault after the other: no two of a lane overlap, those of
different lanes may.
"""

import asyncio
import json
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from soak_client import Answer, Connection
from soak_processes import Stoppable
from soak_slow import crowd
from soak_traffic import Site

STOPS = ("stop", "kill")
CHANGES = ("swap", "same", "back", "damaged")
CROWDS = ("one", "many")
_PATIENCE = 30.0


class Lane(NamedTuple):
    """What is done to something, how often, and until which share of the time."""

    kinds: tuple[str, ...]
    every: float
    until: float = 1.0


LANES = {
    "server A": Lane(STOPS, 60, 1 / 3),
    "bundle of A": Lane(CHANGES, 30),
    "bundle of B": Lane(CHANGES, 30),
    "crowd at A": Lane(CROWDS, 45),
    "crowd at B": Lane(CROWDS, 45),
    "Redis": Lane(STOPS, 90),
    "PostgreSQL": Lane(STOPS, 90),
}
"""A is left alone after a third, so that what it holds can be watched for long."""


class Fault(NamedTuple):
    """One of the plan."""

    time: float
    """Seconds after the start."""
    kind: str
    lasts: float
    """Seconds that what is stopped stays down."""


def plan(seed: int, seconds: float) -> dict[str, list[Fault]]:
    """Faults of each lane, every kind of them once at least and all equally often."""
    rng = random.Random(seed)
    longest = min(4, seconds / 15)
    faults = {}
    for name, lane in LANES.items():
        rounds = max(1, int(seconds * lane.until / lane.every / len(lane.kinds)))
        kinds = [kind for _ in range(rounds) for kind in rng.sample(lane.kinds, len(lane.kinds))]
        every = seconds * lane.until / len(kinds)
        faults[name] = [
            Fault((place + rng.uniform(0.2, 0.8)) * every, kind, rng.uniform(0.25, 1) * longest)
            for place, kind in enumerate(kinds)
        ]
    return faults


async def carry_out(faults: list[Fault], start: float, do: Callable[[Fault], Awaitable[None]]) -> None:
    """Each at its time, or right after the one before."""
    for fault in faults:
        await asyncio.sleep(max(0, start + fault.time - time.monotonic()))
        await do(fault)


async def interrupt(what: Stoppable, name: str, sites: list[Site], fault: Fault) -> None:
    """Stop or kill, and start again a little later."""
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(site.record.during(name))
        await asyncio.to_thread(what.kill if fault.kind == "kill" else what.stop)
        await asyncio.sleep(fault.lasts)
        await asyncio.to_thread(what.start)


async def restart(site: Site, fault: Fault) -> None:
    """Stop or kill a server, and start it again."""
    async with site.changing:
        await interrupt(site.server, "server restarted", [site], fault)


async def gather_crowd(site: Site, fault: Fault) -> None:
    """Far too many requests at once."""
    await crowd(site, fault.kind)


class Changes:
    """Changes the bundle of a server, and sees that it does as documented."""

    def __init__(self, site: Site, bundles: list[Path]) -> None:
        self._site, self._bundles = site, bundles
        self._items = [json.loads((path / "manifest.json").read_text())["counts"]["items"] for path in bundles]
        self._served = 0
        self._damaged = site.server.link.with_name("damaged")
        shutil.copytree(bundles[1], self._damaged)
        (self._damaged / "config.toml").write_text("popularity = 0.5")

    async def make(self, fault: Fault) -> None:
        """One change; whatever it was, the link means what is served afterwards."""
        async with self._site.changing:
            await self._make(fault)

    async def _make(self, fault: Fault) -> None:
        server, other = self._site.server, 1 - self._served
        with self._site.record.during("bundle changed"):
            if fault.kind == "damaged":
                server.point_to(self._damaged)
                await self._admin("reload", {(409, "bundle_unusable")})
            elif fault.kind == "back":
                server.point_to(self._bundles[other])
                if await self._admin("reload", {(200, "")}):
                    self._served = other
                    if await self._admin("rollback", {(200, "")}):
                        self._served = 1 - other
            else:
                self._served = other if fault.kind == "swap" else self._served
                server.point_to(self._bundles[self._served])
                await self._signal()
            server.point_to(self._bundles[self._served])
            await self._check()

    async def _signal(self) -> None:
        """Tell the server by SIGHUP, and wait until it has changed; where a database was down, ask once more."""
        before, asked = await self._swaps(), time.monotonic()
        self._site.server.signal_change()
        while time.monotonic() < asked + _PATIENCE:
            await asyncio.sleep(0.1)
            if await self._swaps() > before:
                return
            if time.monotonic() > asked + _PATIENCE / 10 and self._database_was_down(asked):
                break
        else:
            self._site.record.fail("SIGHUP: the bundle did not change")
        for _ in range(10):
            if await self._admin("reload", {(200, "")}):
                return
            await asyncio.sleep(1)

    async def _admin(self, verb: str, expected: set[tuple[int, str]]) -> bool:
        """Ask for a change, until it is not refused for a crowd; whether it was made."""
        while True:
            start = time.monotonic()
            answer = await self._ask("POST", f"/v1/admin/{verb}")
            if self._database_was_down(start):
                expected = expected | {(409, "bundle_unusable")}
            self._site.record.answered(f"/v1/admin/{verb}", start, answer.status, answer.code, expected)
            if answer.status not in (429, 503):
                return answer.status == 200
            await asyncio.sleep(1)

    async def _check(self) -> None:
        found = json.loads((await self._ask("GET", "/health")).body)["items"]
        if found != self._items[self._served]:
            self._site.record.fail(f"expected {self._items[self._served]} items to be served, found {found}")

    async def _swaps(self) -> float:
        while (answer := await self._ask("GET", "/metrics")).status != 200:  # a crowd is there
            await asyncio.sleep(0.2)
        return float(answer.body.partition(b"\nprismrec_swaps_total ")[2].split()[0])

    def _database_was_down(self, since: float) -> bool:
        return bool(self._site.record.active(since, time.monotonic()) & {"Redis down", "PostgreSQL down"})

    async def _ask(self, method: str, path: str) -> Answer:
        connection = Connection(self._site.server.port)
        try:
            return await connection.ask(method, path)
        finally:
            connection.close()
