"""Speed and peak memory of `train`: a generated store, trained on for some steps in a process of its own.

    python benchmarks/train.py --steps 200 --events 2000000 [--set train.batch_size=512 ...] [--out benchmarks/results]

Users and items are drawn with frequency falling as 1 / rank, 40 events a user on average, 200,000 items
with brands and two levels of categories. Examples per second are the median over windows of ten steps,
by the times in the run's own TensorBoard log, so validation and start-up do not count. Threads wait
passively: on a busy machine those that spin, as is the default, have been twenty times slower. Prints a
table, and with --out also writes it to train-<date>.md there.
"""

import argparse
import datetime as dt
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import psutil
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from prismrec.config import Config
from prismrec.data.prepare import prepare
from prismrec.toml import load_config

ITEMS, EVENTS_PER_USER, WINDOW = 200_000, 40, 10
YEAR, START = 365 * 86_400, 1_700_000_000
GIB = 1024**3
CASES: dict[str, list[str]] = {
    "as configured by default": [],
    "a quarter of the queue hard": ["loss.hard_queue_size=1024"],
    "one vector": ["model.num_interests=1"],
}

TRAIN = """
import resource, sys
from pathlib import Path
from prismrec.toml import load_config
from prismrec.train.trainer import train
store, out, *settings = sys.argv[1:]
train(Path(store), Path(out), load_config(None, settings))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


class Measured(NamedTuple):
    """One training."""

    case: str
    config: Config
    rates: list[float]
    """Examples a second of each window."""
    peak_bytes: int


def main() -> None:
    """Generate, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder to write the table to")
    parser.add_argument("--scratch", type=Path, help="folder for the generated data; the system's by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        scratch = Path(name)
        generate(scratch / "store", arguments.events)
        measured = [
            measure(scratch, case, [*settings, *arguments.settings, f"train.max_steps={arguments.steps}"])
            for case, settings in CASES.items()
        ]
    text = report(measured, arguments.events)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"train-{dt.date.today().isoformat()}.md").write_text(text + "\n")


def generate(store: Path, events: int) -> None:
    """Prepare a store of so many events."""
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "user_id": rng.integers(0, max(events // EVENTS_PER_USER, 1), events),
            "item_id": np.exp(rng.random(events) * np.log(ITEMS)).astype(np.int64) - 1,
            "timestamp": START + rng.integers(0, YEAR, events),
            "dwell": rng.integers(1, 600, events),
        }
    )
    ids = np.arange(ITEMS)
    items = pl.DataFrame(
        {"item_id": ids, "brand": ids % 5000, "category": ids % 1000, "top_category": ids % 1000 // 50}
    )
    prepare(table, items, store)


def measure(scratch: Path, case: str, settings: list[str]) -> Measured:
    """Train in a process of its own, and read its speed from its log."""
    fixed = [f"train.log_every={WINDOW}", "train.validate_every=1000000", "train.validate_users=100"]
    run = scratch / case.replace(" ", "-")
    command = [sys.executable, "-c", TRAIN, str(scratch / "store"), str(run), *fixed, *settings]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    times = [event.wall_time for event in log.Scalars("train/loss")]
    config = load_config(run / "config.toml")
    rates = [WINDOW * config.train.batch_size / (later - earlier) for earlier, later in itertools.pairwise(times)]
    return Measured(case, config, rates, int(done.stdout))


def report(measured: list[Measured], events: int) -> str:
    """The table, with the machine and the date."""
    memory = psutil.virtual_memory().total / GIB
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        f"`train`, {dt.date.today().isoformat()}, {platform.processor() or platform.machine()}, "
        f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, PyTorch "
        f"{torch.__version__} on {device}, load average {psutil.getloadavg()[0]:.1f} at the end",
        "",
        f"{events:,} events, {ITEMS:,} items with three features; B examples a step, Q negatives, V vectors of D from "
        "H heads, T clicks.",
        "",
        "| case | B | Q | D | V | H | T | examples/s, median | slowest window | fastest window | peak memory, GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, config, rates, peak in measured:
        model = config.model
        sizes = (config.train.batch_size, config.loss.queue_size, model.embedding_dim, model.num_interests)
        lines.append(
            f"| {case} | {' | '.join(f'{size:,}' for size in (*sizes, model.num_heads, config.history.max_length))} "
            f"| {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} | {peak / GIB:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
