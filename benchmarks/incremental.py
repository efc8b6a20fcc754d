"""A new week of events: training that goes on, beside retraining from scratch and beside doing nothing.

    python benchmarks/incremental.py --weeks 4 [--set train.epochs=2 ...] [--out benchmarks/results]

A year of grocery purchases (Complete Journey, as in the demo; the next new products of a household) is cut at its
end. The first store ends `weeks` weeks before the data does; its newest week is for testing, the one before for
validation. Then one week after another is appended: what was for validation becomes training, what was for testing
validation, and the appended week is for testing. After each,

- `not retrained` is the model of the first store;
- `continued` goes on from itself of the week before, on the week that has become training (--set: its settings);
- `from scratch` trains anew on all of it, with the settings of the first.

All three answer the same queries: households in the appended week, their histories up to it, the whole catalogue.
With --try "key=value key=value", which may be repeated, nothing is tested: after the first week, each of these
settings of `continued` is judged by recall in validation. Prints a table, and with --out also writes it to
incremental-<date>.md there.
"""

import argparse
import datetime as dt
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from rich.console import Console

from prismrec.data.append import append
from prismrec.data.datasets import complete_journey
from prismrec.data.prepare import prepare
from prismrec.data.store import Split, Store
from prismrec.demo import PREPARE, SETTINGS
from prismrec.evaluate.bootstrap import bootstrap
from prismrec.evaluate.candidates import find_candidates
from prismrec.evaluate.metrics.ranking import hits, ndcg, recall
from prismrec.evaluate.queries import make_queries
from prismrec.model.run import CONFIG, load_run
from prismrec.toml import load_config
from prismrec.train.trainer import train

WEEK, K = 7 * 86_400, 50
QUIET = Console(quiet=True)
FIRST, CONTINUED, SCRATCH = "not retrained", "continued", "from scratch"


class Measured(NamedTuple):
    """One model after one week."""

    recall: np.ndarray
    """@K of each household, [U]."""
    ndcg: np.ndarray
    seconds: float
    """Of training, process and store already open."""


class Week(NamedTuple):
    """What was appended, and the models after it."""

    events: int
    targets: int
    """Events that became training."""
    seconds: float
    """Of appending."""
    models: dict[str, Measured]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=4)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--try", dest="tried", action="append", default=[], metavar="KEY=VALUE ...")
    parser.add_argument("--out", type=Path, help="folder to write the table to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), arguments.weeks)
        if arguments.tried:
            print(world.try_settings(["", *arguments.tried]))
            return
        weeks = [world.advance(arguments.settings) for _ in range(arguments.weeks)]
    text = report(world, weeks, arguments.settings)
    print(text)
    if arguments.out:
        (arguments.out / f"incremental-{dt.datetime.now(dt.UTC):%Y-%m-%d}.md").write_text(text)


class World:
    """The data, the store so far, and the runs on it."""

    def __init__(self, folder: Path, weeks: int) -> None:
        events, self.items = complete_journey()
        self.events = events.with_columns(pl.col("timestamp").dt.epoch("s"))
        self.folder, self.store = folder, folder / "store"
        self.now = int(self.events["timestamp"].max()) + 1 - weeks * WEEK  # type: ignore[arg-type]
        moments = {"valid_from": self.now - 2 * WEEK, "test_from": self.now - WEEK}
        config = PREPARE.model_copy(update=moments)
        prepare(self.events.filter(pl.col("timestamp") < self.now), self.items, self.store, config, QUIET)
        self.first, self.newest = folder / "first", folder / "first"
        self.first_seconds = timed(lambda: train(self.store, self.first, load_config(None, SETTINGS), console=QUIET))

    def append_week(self) -> tuple[Store, float]:
        """Append the next week, and move the splits."""
        week = pl.col("timestamp").is_between(self.now, self.now + WEEK, closed="left")
        events = self.events.filter(week)
        started = time.perf_counter()
        store = append(self.store, events, valid_from=self.now - WEEK, test_from=self.now, console=QUIET)
        self.now += WEEK
        return store, time.perf_counter() - started

    def go_on(self, out: Path, settings: list[str]) -> float:
        """Continue the newest run; gives the seconds."""
        config = load_config(self.newest / CONFIG, ["train.warmup_steps=0", *settings])
        return timed(lambda: train(self.store, out, config, continue_from=self.newest, console=QUIET))

    def try_settings(self, choices: list[str]) -> str:
        """Recall in validation of each choice after the first week, as a table."""
        self.append_week()
        lines = [f"| {FIRST} | {measure(self.first, 'valid', 0).recall.mean():.4f} | |"]
        for number, settings in enumerate(choices):
            seconds = self.go_on(self.folder / f"try-{number}", settings.split())
            found = measure(self.folder / f"try-{number}", "valid", seconds)
            lines.append(f"| {settings or 'as before'} | {found.recall.mean():.4f} | {seconds:.1f} |")
            print(lines[-1], flush=True)
        return "\n".join([f"| settings | recall@{K} in validation | s |", "| --- | ---: | ---: |", *lines])

    def advance(self, settings: list[str]) -> Week:
        """Append a week, train both ways, and test all three models."""
        before = Store.open(self.store)
        store, seconds = self.append_week()
        continued, scratch = (self.folder / f"{name}-{store.num_parts}" for name in ("continued", "scratch"))
        times = {FIRST: 0.0, CONTINUED: self.go_on(continued, settings)}
        times[SCRATCH] = timed(lambda: train(self.store, scratch, load_config(None, SETTINGS), console=QUIET))
        self.newest = continued
        runs = {FIRST: self.first, CONTINUED: continued, SCRATCH: scratch}
        counts = [one.manifest["counts"]["train_events"] for one in (before, store)]
        models = {name: measure(run, "test", times[name]) for name, run in runs.items()}
        week = Week(store.num_events - before.num_events, counts[1] - counts[0], seconds, models)
        print({name: round(float(found.recall.mean()), 4) for name, found in models.items()}, times, flush=True)
        return week


def timed(work: object) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def measure(path: Path, split: Split, seconds: float) -> Measured:
    """Recall and NDCG of each household with a target in the split."""
    run = load_run(path)
    history = run.config.history
    queries = make_queries(run.store, split, exclude_seen=True, before_target_time=history.before_target_time)
    found = hits(find_candidates(run.model, run.store, queries, history, K).merged(), queries.targets)
    sizes = queries.targets.sizes
    return Measured(recall(found, sizes, K), ndcg(found, sizes, K), seconds)


def report(world: World, weeks: list[Week], settings: list[str]) -> str:
    """The table, and what it was measured on."""
    head = (
        f"`incremental`, {dt.datetime.now(dt.UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__} on CPU, {torch.get_num_threads()} threads, load "
        f"average {os.getloadavg()[0]:.1f} at the end"
    )
    command = " ".join(["python benchmarks/incremental.py", f"--weeks {len(weeks)}", *(f"--set {s}" for s in settings)])
    lines = [
        head,
        "",
        f"    {command}",
        "",
        f"Complete Journey; the first model took {world.first_seconds:.0f} s of training. Seconds of a model are those "
        "of its training after the week; intervals are of 95 %, of the difference to `from scratch`, over households.",
        "",
        f"| week | events appended, in s | new to training | model | recall@{K} | less than from scratch | NDCG@{K} | "
        "less than from scratch | training, s |",
        "| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number, week in enumerate(weeks, start=1):
        for name, found in week.models.items():
            scratch = week.models[SCRATCH]
            lines.append(
                f"| {number} | {week.events:,}, {week.seconds:.1f} | {week.targets:,} | {name} | "
                f"{found.recall.mean():.4f} | {difference(scratch.recall, found.recall)} | "
                f"{found.ndcg.mean():.4f} | {difference(scratch.ndcg, found.ndcg)} | {found.seconds:.1f} |"
            )
    return "\n".join(lines) + "\n"


def difference(more: np.ndarray, less: np.ndarray) -> str:
    """Mean difference with its interval, or nothing of a model with itself."""
    if more is less:
        return ""
    estimate = bootstrap((more - less)[:, None], seed=0)[0]
    assert estimate is not None  # every household has a value
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


if __name__ == "__main__":
    main()
