"""Half an hour of `prismrec serve` under mixed traffic and faults: is memory flat, is every acknowledged event kept?

    python benchmarks/soak.py --minutes 30 [--rate 30] [--seed 0] [--work FOLDER] [--out soak.json]

Two servers, on this machine's loopback only: A keeps events in a log of its own, searches the bundle's index, and is
stopped and killed in the first third; B keeps events in Redis (`appendfsync always`: acknowledged is on the disk),
searches in PostgreSQL, and lives on while both are stopped and killed. Bundles change, crowds come, clients are slow
(`soak_faults.py`, `soak_slow.py`). At the end A and Redis are killed once more, and all events are read back.

Prints a table. Ends with status 1 if an acknowledged event is lost or one is doubled, if anything but what is
documented was answered (`soak_record.py`), or if a server that lived for seven minutes grew more than `soak_report.py`
says. Needs Linux, redis-server and the package pgserver.
"""

import argparse
import asyncio
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from prismrec.data.schema import stable_keys
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import EventStore
from prismrec.serve.opening import load_vectors
from prismrec.serve.redis_events import RedisEvents
from saying import header, say
from soak_bundles import make_bundles
from soak_faults import Changes, Fault, carry_out, gather_crowd, interrupt, plan, restart
from soak_processes import Postgres, Redis, Sample, Server, Stoppable
from soak_record import Event, compare
from soak_report import page, summary
from soak_slow import slow_client
from soak_traffic import NEW_USER, SETTINGS, Site, customer, reporter

CUSTOMERS, REPORTERS, SLOW = 4, 2, 2
"""Clients of each server."""
SAMPLED = 2.0  # seconds between two looks at memory


def main() -> None:
    """Run, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=30, help="requests a second, of both servers together")
    parser.add_argument("--seed", type=int, default=0, help="of the faults' plan and of what clients ask")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--work", type=Path, help="folder where the bundles are kept, or already are")
    parser.add_argument("--out", type=Path, help="file for all numbers")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end what was started
    with ExitStack() as stack:
        bundles = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundles.mkdir(parents=True, exist_ok=True)
        # PostgreSQL may run as a user who cannot look into any other folder
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-postgres-")))
        found = run(make_bundles(bundles, options.users, options.items), work, data, options, stack)
    lines = [header("soak.py", f"{options.minutes:g} minutes, {options.rate:g} requests/s, seed {options.seed}"), ""]
    for line in [*lines, *page(found)]:
        say(line)
    errors = [f"{name}: {error}" for name, site in found["servers"].items() for error in site["errors"]]
    if options.out:
        options.out.write_text(json.dumps({"machine": lines[0], **found}, indent=1) + "\n")
    for error in errors[:20]:
        print(error, file=sys.stderr)
    sys.exit(1 if errors else 0)


def run(bundles: list[Path], work: Path, data: Path, options: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """Start everything, let it run, and read the events back."""
    redis, postgres = Redis(work / "redis"), Postgres(data)
    settings = [f"--set={setting}" for setting in SETTINGS]
    servers = {
        "A": Server(work / "A", bundles[0], f"--events={work / 'events'}", *settings),
        "B": Server(work / "B", bundles[0], f"--events={redis.url}", f"--index={postgres.url}", *settings),
    }
    for process in (redis, postgres):
        process.start()
        stack.callback(_end, process)
    for bundle in bundles:
        load_vectors(bundle, postgres.url, Console(quiet=True))
    for server in servers.values():
        stack.callback(_end, server)
    with ThreadPoolExecutor() as pool:
        list(pool.map(Server.start, servers.values()))
    sites = {name: Site(name, server, options.users, options.items) for name, server in servers.items()}
    samples = asyncio.run(_soak(sites, redis, postgres, bundles, options))
    servers["B"].stop()
    servers["A"].kill()
    redis.kill()
    redis.start()
    stores: dict[str, EventStore] = {"A": EventLog(work / "events", ()), "B": RedisEvents(redis.url, ())}
    found: dict[str, Any] = {}
    for name, site in sites.items():
        kept = compare(site.record.sent, site.record.acknowledged, read_back(site, stores[name]))
        stores[name].close()
        found[name] = summary(site.record, samples[name], kept, site.server.logged())
        found[name]["errors"] += [f"ended with status {status}" for status in site.server.exits if status]
    return {"servers": found}


def read_back(site: Site, store: EventStore) -> list[Event]:
    """All events of everybody who may have some, as the product reads them."""
    users = [*range(site.users), *range(NEW_USER, NEW_USER + site.users)]
    item_of = {key: item for item, key in enumerate(stable_keys(range(2 * site.items)).tolist())}
    return [
        Event(user, item_of[item], time, dwell)
        for user, events in zip(users, store.read(stable_keys(users).tolist()), strict=True)
        for item, time, dwell in events.rows.tolist()
    ]


async def _soak(
    sites: dict[str, Site], redis: Redis, postgres: Postgres, bundles: list[Path], options: argparse.Namespace
) -> dict[str, list[Sample]]:
    """Clients until the time is over and all faults have been; gives what the servers held."""
    a, b = sites.values()
    start, seconds = time.monotonic(), 60 * options.minutes
    samples: dict[str, list[Sample]] = {name: [] for name in sites}
    clients: list[asyncio.Future[None]] = [asyncio.create_task(_watch(sites, samples))]
    period = (CUSTOMERS + REPORTERS) * len(sites) / options.rate
    for place, site in enumerate(sites.values()):
        drawn, numbers = random.Random(2 * options.seed + place), itertools.count()
        rngs = (random.Random(drawn.random()) for _ in itertools.count())
        waiting = [
            *(customer(site, next(rngs), period) for _ in range(CUSTOMERS)),
            *(reporter(site, next(rngs), period, numbers) for _ in range(REPORTERS)),
            *(slow_client(site, next(rngs)) for _ in range(SLOW)),
        ]
        clients += map(asyncio.create_task, waiting)
    doing: dict[str, Callable[[Fault], Awaitable[None]]] = {
        "server A": partial(restart, a),
        "bundle of A": Changes(a, bundles).make,
        "bundle of B": Changes(b, bundles).make,
        "crowd at A": partial(gather_crowd, a),
        "crowd at B": partial(gather_crowd, b),
        "Redis": partial(interrupt, redis, "Redis down", [b]),
        "PostgreSQL": partial(interrupt, postgres, "PostgreSQL down", [b]),
    }
    lanes = [carry_out(faults, start, doing[lane]) for lane, faults in plan(options.seed, seconds).items()]
    faults: asyncio.Future[Any] = asyncio.gather(*lanes, asyncio.sleep(seconds))
    # a client ends only by a defect of its own, which must not go unseen
    await asyncio.wait([faults, *clients], return_when=asyncio.FIRST_COMPLETED)
    for client in clients:
        client.cancel()
    faults.cancel()
    results = await asyncio.gather(faults, *clients, return_exceptions=True)
    await asyncio.sleep(0.1)  # until their connections are closed
    for result in results:
        if isinstance(result, Exception):
            raise result
    return samples


async def _watch(sites: dict[str, Site], samples: dict[str, list[Sample]]) -> None:
    while True:
        for name, site in sites.items():
            if sample := site.server.sample():
                samples[name].append(sample)
        await asyncio.sleep(SAMPLED)


def _end(process: Stoppable) -> None:
    """Whatever its state."""
    with suppress(Exception):
        process.kill()


if __name__ == "__main__":
    main()
