"""Servers killed at random moments: acknowledged events are there once, bundles change as a whole or not at all."""

import contextlib
import itertools
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from prismrec.artifact import read_manifest
from prismrec.data.columns import column_keys
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import EventStore
from prismrec.serve.redis_events import RedisEvents

from ..processes import Server, wait_for
from .shop import NUM_ITEMS, SEED, START, Shop, share

Event = tuple[int, int]
"""User and moment; no two events have both in common."""


def post(client: httpx.Client, user: int, moments: list[int]) -> httpx.Response:
    events = [{"item_id": item(moment), "timestamp": START + moment, "shop": moment % 4} for moment in moments]
    return client.post("/v1/events", json={"user_id": user, "events": events})


def item(moment: Any) -> Any:
    """What was bought at a moment."""
    return 1 + moment % NUM_ITEMS


def keys(values: Any) -> list[int]:
    return column_keys(pl.Series(values)).to_list()


def stored(store: EventStore) -> Counter[Event]:
    """What is in a store whose server is not running; users from 1000 to 1003."""
    users, found = range(1000, 1004), Counter[Event]()
    with contextlib.closing(store):
        for user, events in zip(users, store.read(keys(users)), strict=True):
            moments = events.time - START
            assert events.item.tolist() == keys(item(moments))
            assert events.context[:, 0].tolist() == keys(moments % 4)
            found.update((user, moment) for moment in moments.tolist())
    return found


def append_until_killed(server: Server, seconds: float, first: int) -> tuple[set[Event], set[Event]]:
    """Post events of four users from four threads; gives what was acknowledged, and what was under way."""
    acknowledged: set[Event] = set()
    begun: set[Event] = set()
    with server.client() as client:
        assert post(client, 1000, [first]).status_code == 200  # the first request is slower
    acknowledged.add((1000, first))

    def append(user: int) -> None:
        chance = random.Random(user)
        with server.client() as client, contextlib.suppress(httpx.TransportError):
            for number in itertools.count(first + 1, 4):
                moments = [number + place for place in range(chance.randint(1, 4))]
                events = {(user, moment) for moment in moments}
                begun.update(events)
                answer = post(client, user, moments)
                assert answer.json() == {"events": len(moments), "unknown_items": 0}
                acknowledged.update(events)

    with ThreadPoolExecutor(4) as pool:
        appending = [pool.submit(append, user) for user in range(1000, 1004)]
        time.sleep(seconds)
        server.process.kill()
        for one in appending:
            one.result()
    return acknowledged, begun


@pytest.mark.parametrize("where", ["log", "redis"])
def test_acknowledged_events(
    where: str, shop: Shop, tmp_path: Path, request: pytest.FixtureRequest, tried: Callable[[str, int], None]
) -> None:
    chance, folder = random.Random(f"{SEED} events"), tmp_path / "events"
    redis = request.getfixturevalue("own_redis_server") if where == "redis" else None
    kept_at = f"{redis.url}?socket_timeout=30" if redis else folder  # a busy disk may take more than the usual second
    acknowledged: set[Event] = set()
    begun: set[Event] = set()
    for number in range(share("events")):
        seconds = chance.uniform(0, 1)
        with Server(shop.path("bundle"), tmp_path, f"--events={kept_at}") as server:
            if acknowledged:
                with server.client() as client:
                    user, moment = max(acknowledged)
                    assert post(client, user, [moment]).status_code == 200  # again, as clients do that were not told
            more = append_until_killed(server, seconds, 1_000_000 * number)
        acknowledged |= more[0]
        begun |= more[1]
        if redis:
            redis.kill()
            redis.start()
        found = stored(RedisEvents(redis.url, ["shop"]) if redis else EventLog(folder, ["shop"]))
        told = f"PRISMREC_FAULT_SEED={SEED}, events, round {number + 1}: killed after {seconds:.3f} s"
        assert set(found.values()) == {1}, told
        assert acknowledged <= found.keys() <= acknowledged | begun, told
        if not redis:
            assert [path.name for path in sorted(folder.iterdir())] == ["events-000001.log", "lock"], told
    tried(f"kills of events (seed {SEED})", share("events"))


def test_a_change_of_bundles(shop: Shop, tmp_path: Path, tried: Callable[[str, int], None]) -> None:
    """The link changes and the server is told; killed meanwhile, it serves what the link means when it is back."""
    chance, link = random.Random(f"{SEED} swap"), tmp_path / "current"
    bundles = [tmp_path / name for name in ("bundle", "extended")]
    for bundle in bundles:
        shutil.copytree(shop.path(bundle.name), bundle)
    counts = {bundle: read_manifest(bundle, "bundle")["counts"]["items"] for bundle in bundles}
    link.symlink_to(bundles[0])

    def items(client: httpx.Client) -> int:
        """How many items the served catalogue has: of all of them, none is left to recommend to a new user."""
        answer = client.post("/v1/recommend", json={"user_id": -1, "k": 1000})
        assert answer.status_code == 200
        return len(answer.json()["items"])

    def change_to(bundle: Path, server: Server) -> None:
        following = tmp_path / "next"
        following.symlink_to(bundle)
        following.replace(link)
        server.process.send_signal(signal.SIGHUP)

    now, killed, duration = 0, 0, None
    while killed < share("swap"):
        with Server(link, tmp_path, f"--events={tmp_path / 'events'}") as server, server.client() as client:
            where = f"PRISMREC_FAULT_SEED={SEED}, swap, round {killed}"
            assert items(client) == counts[bundles[now]], where
            if duration is None:  # undisturbed
                began, now = time.monotonic(), 1 - now
                change_to(bundles[now], server)
                wait_for(lambda: items(client) == counts[bundles[now]])  # noqa: B023 (called here)
                duration = time.monotonic() - began
            now = 1 - now
            change_to(bundles[now], server)
            ends = time.monotonic() + chance.uniform(0, duration)
            while time.monotonic() < ends:
                assert items(client) in counts.values(), where
            server.process.kill()
            killed += 1
    with Server(link, tmp_path, f"--events={tmp_path / 'events'}") as server, server.client() as client:
        assert items(client) == counts[bundles[now]]
    tried(f"kills of swap (seed {SEED})", killed)
