"""What `soak.py` sees: answers beside the faults of the moment, events sent and acknowledged, and what is an error.

Nothing is forgiven but what the documentation says of a fault that was going on: see `EXCUSED`.
"""

import datetime as dt
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

BROKEN = 0
"""In place of a status: the connection was refused or lost, or there was no answer."""
GRACE = 1.0  # seconds after a fault that still count as it
EXCUSED = {
    "burst": {(429, "too_many_requests"), (503, "overloaded")},
    "Redis down": {(503, "store_unavailable")},
    "PostgreSQL down": {(503, "index_unavailable")},
    "server restarted": {(BROKEN, "")},
}
"""By fault, the statuses and codes that a request may have during it, beside what is expected of it."""
OTHERS = {"bundle changed"}
"""Faults that excuse nothing."""


class Event(NamedTuple):
    """One event as clients send it; the time tells it from all others of a user."""

    user: int
    item: int
    time: int
    dwell: int


@dataclass
class Window:
    """A fault and when it was."""

    fault: str
    start: float
    end: float = float("inf")


@dataclass
class Record:
    """All that happened around one server."""

    windows: list[Window] = field(default_factory=list)
    counts: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    """Answers by route, or by what a client did that is no customer, status and code."""
    latencies: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Milliseconds that customers waited for answers that are no refusals, by the fault of the moment."""
    errors: list[str] = field(default_factory=list)
    sent: set[Event] = field(default_factory=set)
    acknowledged: set[Event] = field(default_factory=set)

    @contextmanager
    def during(self, fault: str) -> Iterator[None]:
        """A fault as long as the block lasts, and a little longer."""
        assert fault in EXCUSED or fault in OTHERS
        window = Window(fault, time.monotonic())
        self.windows.append(window)
        try:
            yield
        finally:
            window.end = time.monotonic() + GRACE

    def active(self, start: float, end: float) -> set[str]:
        """The faults of a time."""
        return {window.fault for window in self.windows if window.start <= end and start <= window.end}

    def answered(self, route: str, start: float, status: int, code: str, expected: set[tuple[int, str]]) -> None:
        """Count an answer that has just come; an error if it is neither expected nor excused."""
        end = time.monotonic()
        active = self.active(start, end)
        self.counts[route, status, code] += 1
        if status == 200 and route.startswith("/"):  # others are slow by intent
            phase = "several faults" if len(active) > 1 else next(iter(active), "no fault")
            self.latencies[phase].append(1000 * (end - start))
        if (status, code) not in expected.union(*(EXCUSED.get(fault, set()) for fault in active)):
            during = ", ".join(sorted(active)) or "no fault"
            self.fail(f"{route}: {status or 'broken connection'} {code} during {during}")

    def fail(self, error: str) -> None:
        """Count an error, and say it at once: the log of then helps."""
        self.errors.append(error)
        print(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {error}", file=sys.stderr, flush=True)


class Kept(NamedTuple):
    """Acknowledged events against those read back at the end."""

    acknowledged: int
    unacknowledged: int
    """Sent, and never answered with success; they may be there."""
    lost: int
    """Acknowledged, not there."""
    doubled: int
    """There more than once."""
    foreign: int
    """There, never sent."""


def compare(sent: set[Event], acknowledged: set[Event], found: list[Event]) -> Kept:
    """Count what is wrong with the events that were read back."""
    times = Counter(found)
    return Kept(
        acknowledged=len(acknowledged),
        unacknowledged=len(sent - acknowledged),
        lost=len(acknowledged - times.keys()),
        doubled=sum(count > 1 for count in times.values()),
        foreign=len(times.keys() - sent),
    )
