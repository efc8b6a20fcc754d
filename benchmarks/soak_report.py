"""What `soak.py` found, as numbers and as a page; and whether it is a failure.

Takes samples of processes, records of servers and events read back; gives a dictionary for JSON, and lines.
"""

import statistics
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np

from soak_processes import Sample
from soak_record import Kept, Record

WARM_UP = 120.0  # seconds of a process's life that do not count
WATCHED = 300.0  # seconds after that which it takes to judge
MOST_GROWTH, MOST_MIB = 0.05, 8.0
"""From the first third to the last, the larger of the two: a share of what there was, or so many MiB."""
MOST_HANDLES = 4
"""File descriptors, or threads, that may be more in the last third."""


class Trend(NamedTuple):
    """A number of one process over its life without the warm-up."""

    first: float
    """Mean of the first third. Memory has two levels, of one bundle and of two at a change: a median jumps between."""
    middle: float
    last: float
    slope: float
    """By least squares, an hour."""


def trend(times: list[float], values: list[float]) -> Trend:
    """That of at least three values."""
    third = len(values) // 3
    slope = float(np.polyfit(np.array(times) / 3600, values, 1)[0])
    first, middle, last = map(statistics.fmean, (values[:third], values[third:-third], values[-third:]))
    return Trend(first, middle, last, slope)


def watched(samples: list[Sample]) -> dict[str, Trend]:
    """Trends of the process that lived longest; none if it did not live long enough to tell."""
    lives = defaultdict(list)
    for sample in samples:
        lives[sample.pid].append(sample)
    life = max(lives.values(), key=lambda life: life[-1].time - life[0].time)
    life = [sample for sample in life if sample.time >= life[0].time + WARM_UP]
    if not life or life[-1].time - life[0].time < WATCHED:
        return {}
    times = [sample.time for sample in life]
    return {name: trend(times, [getattr(sample, name) for sample in life]) for name in Sample._fields[2:]}


def growth_errors(trends: dict[str, Trend]) -> list[str]:
    """What has grown more than it may."""
    errors = []
    for name, found in trends.items():
        memory = name in ("rss", "anonymous")
        most = max(MOST_MIB, MOST_GROWTH * found.first) if memory else MOST_HANDLES
        if found.last - found.first > most:
            errors.append(f"{name}: grew from {found.first:.1f} to {found.last:.1f}, expected at most {most:.1f} more")
    return errors


def log_errors(lines: list[dict[str, Any]]) -> list[str]:
    """Lines of a server's log that tell of a defect: those with a trace."""
    return [f"log: {line['message']}: {line['trace'].splitlines()[-1]}" for line in lines if "trace" in line]


def summary(record: Record, samples: list[Sample], kept: Kept, logged: list[dict[str, Any]]) -> dict[str, Any]:
    """All that was found of one server."""
    trends = watched(samples)
    errors = [*record.errors, *growth_errors(trends), *log_errors(logged)]
    for name in ("lost", "doubled", "foreign"):
        if count := getattr(kept, name):
            errors.append(f"events: {count} {name}")
    if not kept.acknowledged:
        errors.append("events: none was acknowledged")
    routes = [
        {"route": route, "status": status, "code": code, "count": count}
        for (route, status, code), count in sorted(record.counts.items())
    ]
    return {
        "answers": routes,
        "latencies": {phase: _latency(found) for phase, found in sorted(record.latencies.items())},
        "faults": Counter(window.fault for window in record.windows),
        "events": kept._asdict(),
        "trends": {name: found._asdict() for name, found in trends.items()},
        "samples": [dict(zip(Sample._fields, sample, strict=True)) for sample in samples[::5]],
        "log": Counter(f"{line['level']}: {line['logger']}" for line in logged),
        "errors": errors,
    }


def page(found: dict[str, Any]) -> list[str]:
    """The short table."""
    sites = found["servers"]
    lines = [f"| | {' | '.join(sites)} |", f"| --- |{' ---: |' * len(sites)}"]

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    row("requests", [f"{sum(one['count'] for one in site['answers']):,}" for site in sites.values()])
    for name, statuses in {
        "answered": (200,),
        "refused as they should be": (400, 401, 404, 405, 408, 409, 413, 422),
        "429": (429,),
        "503": (503,),
        "no connection": (0,),
    }.items():
        counts = [sum(one["count"] for one in site["answers"] if one["status"] in statuses) for site in sites.values()]
        row(name, [f"{count:,}" for count in counts])
    for fault in sorted({fault for site in sites.values() for fault in site["faults"]}):
        row(f"times: {fault}", [str(site["faults"].get(fault, 0)) for site in sites.values()])
    for name in ("acknowledged", "unacknowledged", "lost", "doubled", "foreign"):
        row(f"events {name}", [f"{site['events'][name]:,}" for site in sites.values()])
    for name in Sample._fields[2:]:
        cells = []
        for site in sites.values():
            seen = site["trends"].get(name)
            cells.append(
                f"{seen['first']:.1f}, {seen['middle']:.1f}, {seen['last']:.1f} ({seen['slope']:+.1f} an hour)"
                if seen
                else "too short"
            )
        row(f"{name}{', MiB' * (name in ('rss', 'anonymous'))}", cells)
    for phase in sorted({phase for site in sites.values() for phase in site["latencies"]}):
        cells = []
        for site in sites.values():
            one = site["latencies"].get(phase)
            cells.append(f"{one['p50']:.1f} / {one['p99']:.1f} of {one['count']:,}" if one else "")
        row(f"ms, p50 / p99: {phase}", cells)
    row("errors", [str(len(site["errors"])) for site in sites.values()])
    return lines


def _latency(found: list[float]) -> dict[str, float]:
    return {
        "count": len(found),
        "p50": round(float(np.median(found)), 2),
        "p99": round(float(np.quantile(found, 0.99)), 2),
    }
