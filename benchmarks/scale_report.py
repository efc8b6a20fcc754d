"""What `scale.py` measured, as tables in Markdown and as curves in SVG.

Takes its results, as they are in its JSON file; gives text.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

MIB, BATCH = 1024**2, 512
NAMES = {"rows": "table rows", "items": "items", "events": "events"}
PANEL, MARGIN, GAP, STYLE = (250, 170), 62, 30, 'font-family="system-ui, sans-serif" font-size="12"'


class Curve(NamedTuple):
    """One panel of the drawing."""

    title: str
    unit: str
    points: list[tuple[float, float]]


def report(results: dict[str, Any]) -> str:
    """The tables, with the machine and the date."""
    lines = [
        f"`scale`, {results['date']}, {results['machine']}",
        "",
        f"    {results['command']}",
        "",
        f"The machine was shared with other work. Training with {', '.join(results['settings'])}; examples a second "
        "are medians over windows of five steps of all rounds, the slowest and fastest window beside them. Memory, in "
        "MiB, is what processes have of their own, all together: before the first step, during steps, and while "
        "validating and writing. Start, validation of 100 users and writing are in seconds, the shortest of all.",
        "",
        "| varied | rows | items | events | processes x threads | examples/s | slowest | fastest | start s "
        "| validation s | writing s | at start | in steps | at end | checkpoint | weights |",
        f"| --- |{' ---: |' * 15}",
        *map(_training, results["train"]),
        "",
        "`prepare`, with as many threads as there are cores:",
        "",
        "| items | events | seconds | events/s | peak memory, MiB | store, MiB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
        *map(_preparing, results["prepare"]),
        "",
        "Export of those runs, whose models have hardly learned, with as many threads as there are cores:",
        "",
        "| items | whole export s | peak memory, MiB | item vectors/s | index s | index | vectors, MiB | index, MiB "
        "| user vectors/s | users recommended to/s | recommendations/s |",
        "| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
        *map(_exporting, results["export"]),
    ]
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> str:
    """Curves over every size that was varied, both axes logarithmic, as an SVG file."""
    usual = statistics.mode(run["items"] for run in results["prepare"])
    prepared = [run for run in results["prepare"] if run["items"] == usual]
    rows = [_speeds(results, varied) for varied in ("rows", "items", "events")]
    rows.append(
        [
            _curve("index, s", "items", results["export"], "items", lambda run: run["index_s"]),
            _curve(
                "item vectors/s", "items", results["export"], "items", lambda run: run["items"] / run["item_vectors_s"]
            ),
            _curve("prepare, s", "events", prepared, "events", lambda run: run["seconds"]),
        ]
    )
    rows = [[curve for curve in row if curve.points] for row in rows]
    width, height = 3 * (PANEL[0] + MARGIN) + GAP, len(rows) * (PANEL[1] + MARGIN) + GAP
    panels = [
        _panel(curve, MARGIN + column * (PANEL[0] + MARGIN), GAP + row * (PANEL[1] + MARGIN))
        for row, curves in enumerate(rows)
        for column, curve in enumerate(curves)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {STYLE} role="img"'
    return "\n".join(
        [
            f'{head} aria-label="Speed and memory against sizes">',
            f'  <rect width="{width}" height="{height}" fill="#ffffff"/>',
            *panels,
            "</svg>",
            "",
        ]
    )


def _training(run: dict[str, Any]) -> str:
    rates = [BATCH / seconds for seconds in run["step_s"]]
    sizes = [f"{run[name]:,}" for name in ("rows", "items", "events")]
    seconds = [f"{run[name]:.1f}" for name in ("start_s", "validate_s", "write_s")]
    memory = [f"{run[name] / MIB:,.0f}" for name in ("start_bytes", "steps_bytes", "end_bytes")]
    written = [f"{run[name] / MIB:,.0f}" for name in ("checkpoint_bytes", "weights_bytes")]
    speeds = [f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))]
    return _line(run["varied"], *sizes, f"{run['ranks']} x {run['threads']}", *speeds, *seconds, *memory, *written)


def _preparing(run: dict[str, Any]) -> str:
    rate, memory, store = run["events"] / run["seconds"], run["peak_bytes"] / MIB, run["store_bytes"] / MIB
    return _line(
        f"{run['items']:,}",
        f"{run['events']:,}",
        f"{run['seconds']:.1f}",
        f"{rate:,.0f}",
        f"{memory:,.0f}",
        f"{store:,.0f}",
    )


def _exporting(run: dict[str, Any]) -> str:
    kind = " ".join([run["index"]["kind"], *(f"{key}={value}" for key, value in run["index"]["parameters"].items())])
    sizes = [run["item_vectors.parquet_bytes"] / MIB, run["index.faiss_bytes"] / MIB]
    rates = [
        run["users"] / run["user_vectors_s"],
        run["users"] / run["recommend_s"],
        run["recommended"] / run["recommend_s"],
    ]
    return _line(
        f"{run['items']:,}",
        f"{run['export_s']:.1f}",
        f"{run['peak_bytes'] / MIB:,.0f}",
        f"{run['items'] / run['item_vectors_s']:,.0f}",
        f"{run['index_s']:.1f}",
        kind,
        *(f"{number:,.0f}" for number in (*sizes, *rates)),
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _speeds(results: dict[str, Any], varied: str) -> list[Curve]:
    runs = [run for run in results["train"] if run["varied"] == varied]
    name = NAMES[varied]
    return [
        _curve("examples/s", name, runs, varied, lambda run: BATCH / statistics.median(run["step_s"])),
        _curve("memory in steps, MiB", name, runs, varied, lambda run: run["steps_bytes"] / MIB),
        _curve("start, s", name, runs, varied, lambda run: run["start_s"]),
    ]


def _curve(title: str, unit: str, runs: Sequence[dict[str, Any]], size: str, value: Any) -> Curve:
    return Curve(title, unit, sorted((run[size], value(run)) for run in runs))


def _panel(curve: Curve, left: float, top: float) -> str:
    """Axes from one power of ten to another, a line through the points, and their values."""
    width, height = PANEL
    across, up = (_decades([point[axis] for point in curve.points]) for axis in (0, 1))

    def right_of(size: float) -> float:
        return round(left + width * (math.log10(size) - across[0]) / (across[1] - across[0]), 1)

    def below(value: float) -> float:
        return round(top + height * (up[1] - math.log10(value)) / (up[1] - up[0]), 1)

    line = " ".join(f"{right_of(size)},{below(value)}" for size, value in curve.points)
    parts = [
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#d0d7de"/>',
        f'<text x="{left}" y="{top - 8}" fill="#1f2328" font-weight="600">{curve.title}, by {curve.unit}</text>',
        f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>',
    ]
    for size, value in curve.points:
        x, y, shown = right_of(size), below(value), f"{value:,.{0 if value >= 10 else 1}f}"
        parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="#1f6feb"/>')
        parts.append(f'<text x="{x}" y="{y - 8:.1f}" text-anchor="middle" fill="#1f6feb">{shown}</text>')
    for power in range(across[0], across[1] + 1):
        place = f'x="{right_of(10.0**power)}" y="{top + height + 16}"'
        parts.append(f'<text {place} text-anchor="middle" fill="#57606a">1e{power}</text>')
    for power in range(up[0], up[1] + 1):
        place = f'x="{left - 6}" y="{below(10.0**power) + 4:.1f}"'
        parts.append(f'<text {place} text-anchor="end" fill="#57606a">1e{power}</text>')
    return "\n".join(f"  {part}" for part in parts)


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
