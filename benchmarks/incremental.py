"""A new week of events: training that goes on, beside retraining from scratch and beside doing nothing.

    python benchmarks/incremental.py --weeks 4 [--out benchmarks/results] [--folder kept]

A year of grocery purchases (Complete Journey, as in the demo; the next new products of a household) is cut at its
end. The first store ends `weeks` weeks before the data does; its newest week is for testing, the one before for
validation. Then one week after another is appended: what was for validation becomes training, what was for testing
validation, and the appended week is for testing. After each,

- `not retrained` is the model of the first store;
- `continued` goes on from itself of the week before, on the week that has become training, with those of CHOICES
  that recall in validation is best with after the first week;
- `from scratch`, after the last week only, trains anew on all of it, with the settings of the first.

All answer the same queries: households in the appended week, their histories up to it, the whole catalogue. With
--folder, the first store and model are kept there and taken again. Prints tables, and with --out also writes them
to incremental-<date>.md there.
"""

import argparse
import datetime as dt
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from rich.console import Console

from prismrec.artifact import MANIFEST
from prismrec.data.append import append
from prismrec.data.datasets import complete_journey
from prismrec.data.prepare import prepare
from prismrec.data.store import Split, Store
from prismrec.demo import PREPARE, SETTINGS
from prismrec.evaluate.bootstrap import bootstrap
from prismrec.evaluate.candidates import find_candidates
from prismrec.evaluate.metrics.ranking import hits, ndcg, recall
from prismrec.evaluate.queries import make_queries
from prismrec.model.run import load_run
from prismrec.toml import load_config
from prismrec.train.continuation import continued_settings
from prismrec.train.trainer import train

WEEK, K = 7 * 86_400, 50
SLOW = "train.learning_rate=0.0006 train.table_learning_rate=0.015"
CHOICES = (
    "train.epochs=1",
    "train.epochs=2",
    f"train.epochs=1 {SLOW}",
    f"train.epochs=2 {SLOW}",
)
"""Settings of `continued`, other than those of the first model: which has one epoch, and rates of 0.002 and 0.05."""
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
    parser.add_argument("--out", type=Path, help="folder to write the tables to")
    parser.add_argument("--folder", type=Path, help="where the first store and model are kept; nowhere by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), arguments.folder or Path(name), arguments.weeks)
        weeks = [world.advance(is_last=number == arguments.weeks) for number in range(1, arguments.weeks + 1)]
    text = report(world, weeks)
    print(text)
    if arguments.out:
        (arguments.out / f"incremental-{dt.datetime.now(dt.UTC):%Y-%m-%d}.md").write_text(text)


class World:
    """The data, the store so far, and the runs on it."""

    def __init__(self, folder: Path, kept: Path, weeks: int) -> None:
        events, self.items = complete_journey()
        self.events = events.with_columns(pl.col("timestamp").dt.epoch("s"))
        self.now = int(self.events["timestamp"].max()) + 1 - weeks * WEEK  # type: ignore[arg-type]
        self.folder, self.store, self.first = folder, folder / "store", kept / "first"
        self.choice, self.tried = "", list[str]()
        if not (self.first / MANIFEST).exists():
            config = PREPARE.model_copy(update={"valid_from": self.now - 2 * WEEK, "test_from": self.now - WEEK})
            prepare(self.events.filter(pl.col("timestamp") < self.now), self.items, kept / "base", config, QUIET)
            train(kept / "base", self.first, load_config(None, SETTINGS), console=QUIET)
        shutil.copytree(kept / "base", self.store)
        self.newest = self.first

    def append_week(self) -> tuple[Store, float]:
        """Append the next week, and move the splits."""
        week = pl.col("timestamp").is_between(self.now, self.now + WEEK, closed="left")
        events = self.events.filter(week)
        started = time.perf_counter()
        store = append(self.store, events, valid_from=self.now - WEEK, test_from=self.now, console=QUIET)
        self.now += WEEK
        return store, time.perf_counter() - started

    def go_on(self, out: Path, settings: str) -> float:
        """Continue the newest run; gives the seconds."""
        config = continued_settings(self.newest, settings.split())
        return timed(lambda: train(self.store, out, config, continue_from=self.newest, console=QUIET))

    def choose(self) -> None:
        """Try the choices, and take the one of the best recall in validation."""
        found = {FIRST: self.measure(self.first, "valid")}
        self.tried.append(f"| {FIRST} | {found[FIRST].recall.mean():.4f} | |")
        for number, choice in enumerate(CHOICES):
            seconds = self.go_on(self.folder / f"try-{number}", choice)
            found[choice] = self.measure(self.folder / f"try-{number}", "valid")
            self.tried.append(f"| {choice} | {found[choice].recall.mean():.4f} | {seconds:.1f} |")
            print(self.tried[-1], flush=True)
        self.choice = max(CHOICES, key=lambda choice: found[choice].recall.mean())

    def advance(self, is_last: bool) -> Week:
        """Append a week, go on with it, and test the models there are."""
        before = Store.open(self.store)
        store, seconds = self.append_week()
        if not self.choice:
            self.choose()
        continued, scratch = (self.folder / f"{name}-{store.num_parts}" for name in ("continued", "scratch"))
        times = {FIRST: 0.0, CONTINUED: self.go_on(continued, self.choice)}
        self.newest = continued
        runs = {FIRST: self.first, CONTINUED: continued}
        if is_last:
            times[SCRATCH] = timed(lambda: train(self.store, scratch, load_config(None, SETTINGS), console=QUIET))
            runs[SCRATCH] = scratch
        counts = [one.manifest["counts"]["train_events"] for one in (before, store)]
        models = {name: self.measure(run, "test", times[name]) for name, run in runs.items()}
        print(
            {name: (round(float(found.recall.mean()), 4), round(found.seconds, 1)) for name, found in models.items()},
            flush=True,
        )
        return Week(store.num_events - before.num_events, counts[1] - counts[0], seconds, models)

    def measure(self, path: Path, split: Split, seconds: float = 0.0) -> Measured:
        """Recall and NDCG of each household with a target in the split."""
        run = load_run(path, self.store)
        history = run.config.history
        queries = make_queries(run.store, split, exclude_seen=True, before_target_time=history.before_target_time)
        found = hits(find_candidates(run.model, run.store, queries, history, K).merged(), queries.targets)
        sizes = queries.targets.sizes
        return Measured(recall(found, sizes, K), ndcg(found, sizes, K), seconds)


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(world: World, weeks: list[Week]) -> str:
    """The tables, and what they were measured on."""
    lines = [
        f"`incremental`, {dt.datetime.now(dt.UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__} on CPU, {torch.get_num_threads()} threads, load "
        f"average {os.getloadavg()[0]:.1f} at the end",
        "",
        f"    python benchmarks/incremental.py --weeks {len(weeks)}",
        "",
        f"Recall in validation after the first week, and seconds of training; `{world.choice}` is taken.",
        "",
        f"| settings | recall@{K} | s |",
        "| --- | ---: | ---: |",
        *world.tried,
        "",
        "Tests in the appended week. Differences are to `not retrained`, with intervals of 95 % over households.",
        "",
        f"| week | appended | in s | new to training | model | recall@{K} | difference | NDCG@{K} | difference | "
        "training, s |",
        "| ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number, week in enumerate(weeks, start=1):
        head = f"| {number} | {week.events:,} | {week.seconds:.1f} | {week.targets:,} |"
        for name, found in week.models.items():
            lines.append(f"{head} {name} | {columns(found, week.models[FIRST])} | {found.seconds:.1f} |")
    last = weeks[-1].models
    lines += [
        "",
        f"After the last week, `continued` less `from scratch`: recall@{K} "
        f"{difference(last[CONTINUED].recall, last[SCRATCH].recall)}, NDCG@{K} "
        f"{difference(last[CONTINUED].ndcg, last[SCRATCH].ndcg)}.",
    ]
    return "\n".join(lines) + "\n"


def columns(found: Measured, other: Measured) -> str:
    """Means, and mean differences to another model."""
    pairs = ((found.recall, other.recall), (found.ndcg, other.ndcg))
    return " | ".join(f"{mine.mean():.4f} | {difference(mine, theirs)}" for mine, theirs in pairs)


def difference(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Mean difference with its interval; nothing of a model and itself."""
    if mine is theirs:
        return ""
    estimate = bootstrap((mine - theirs)[:, None], seed=0)[0]
    assert estimate is not None  # every household has a value
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


if __name__ == "__main__":
    main()
