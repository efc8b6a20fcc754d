"""What grows with the data: speed and memory of training, preparing and exporting, one size varied at a time.

    python benchmarks/scale.py --work /tmp/prismrec-scale [--out benchmarks/results]

Varied are the rows of the item id's tables, the items, the events and the processes that train; all other sizes stay
at their --base. Every number is of a process of its own, the command line's where it has the verb. Users are drawn
evenly, 40 events each, items with frequency falling as 1 / rank, ids scattered over 61 bits, with brands and two
levels of categories. Training takes `--steps` steps, of which the first 20 do not count, with histories of 50 and
batches of 512, one thread for each process except where said; it validates once at the end. Speeds are medians over
windows of five steps, over all `--rounds`, which go through all cases in turn, so that a busy minute is not all of
one case. Memory is what processes have of their own (resident, without mapped files), all of them together, looked at
every 50 ms. Stores are made once and kept in --work. Prints tables; with --out also writes them to scale-<date>.md
there, all raw numbers to scale-<date>.json, and with --curves a drawing of them.
"""

import argparse
import datetime as dt
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import psutil
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from prismrec.model.embeddings import primes_from
from scale_report import draw, report

EVENTS_PER_USER, TABLES, WINDOW, WARM_UP = 40, 4, 5, 20
YEAR, START, SCATTER = 365 * 86_400, 1_700_000_000, 0x9E3779B97F4A7C15
SETTINGS = ("history.max_length=50", "model.embedding_dim=64", "train.batch_size=512", "train.validate_users=100")
STAGES = str(Path(__file__).with_name("scale_stages.py"))


class Case(NamedTuple):
    """One training."""

    rows: int
    """Of all tables of the item id together."""
    items: int
    events: int
    ranks: int = 1
    threads: int = 1
    """Of each process."""


class Ended(NamedTuple):
    """A process that has done its work."""

    began: float
    """Unix seconds."""
    seconds: float
    output: str
    memory: list[tuple[float, int]]
    """When, and bytes."""

    def peak(self, after: float = 0.0, before: float = float("inf")) -> int:
        """Most memory between two moments, bytes."""
        return max((size for moment, size in self.memory if after <= moment <= before), default=0)


def main() -> None:
    """Generate, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores, which are kept, and for runs")
    parser.add_argument("--out", type=Path, help="folder to write the results to")
    parser.add_argument("--curves", type=Path, help="the SVG file to draw")
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 5_000_000, 20_000_000, 50_000_000])
    parser.add_argument("--items", type=int, nargs="*", default=[100_000, 1_000_000, 4_000_000])
    parser.add_argument("--events", type=int, nargs="*", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--exported", type=int, nargs="*", default=[100_000, 1_000_000], help="items to export")
    parser.add_argument("--base", type=int, nargs=3, default=[5_000_000, 1_000_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--users", type=int, default=4000, help="to export the vectors of, and to recommend to")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = measure(arguments)
    text = report(results)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        name = f"scale-{results['date']}"
        (arguments.out / f"{name}.md").write_text(text + "\n")
        (arguments.out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    if arguments.curves:
        arguments.curves.write_text(draw(results))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as they go into the JSON file."""
    work, base = arguments.work, Case(*arguments.base)
    cores = max(arguments.ranks, default=1)
    series = {
        "rows": [base._replace(rows=rows) for rows in arguments.rows],
        "items": [base._replace(items=items) for items in arguments.items],
        "events": [base._replace(events=events) for events in arguments.events],
        "ranks": [base._replace(ranks=ranks, threads=cores // ranks) for ranks in arguments.ranks],
    }
    exports = [base._replace(items=items) for items in arguments.exported]
    cases = list(dict.fromkeys(itertools.chain(*series.values(), exports)))
    prepared = [prepared_store(work, items, events) for items, events in dict.fromkeys(case[1:3] for case in cases)]
    trained: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(arguments.rounds):
        for case in cases:
            trained[case].append(train(work, case, arguments.steps))
            if case not in exports:
                shutil.rmtree(run_of(work, case))
    return {
        "date": dt.date.today().isoformat(),
        "command": " ".join(["python", "benchmarks/scale.py", *sys.argv[1:]]),
        "machine": f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 1024**3:.0f} GiB, Python {platform.python_version()}, PyTorch "
        f"{torch.__version__}, load average {psutil.getloadavg()[0]:.1f} at the end",
        "settings": [*SETTINGS, f"{EVENTS_PER_USER} events a user", f"{arguments.steps} steps"],
        "prepare": prepared,
        "train": [
            {"varied": varied, **case._asdict(), **summary(trained[case])}
            for varied, chosen in series.items()
            for case in chosen
        ],
        "export": [export(work, case, arguments.users) for case in exports],
    }


def prepared_store(work: Path, items: int, events: int) -> dict[str, Any]:
    """Make a store and measure that, or what was measured when it was made."""
    store, kept = store_of(work, items, events), store_of(work, items, events).with_suffix(".json")
    if not kept.exists():
        table, catalogue = work / "events.parquet", work / "items.parquet"
        generate(table, catalogue, items, events)
        verb = ["prepare", "--events", str(table), "--items", str(catalogue), "--out", str(store)]
        done = prismrec(*verb, threads=os.cpu_count() or 1)
        sizes = {
            name: sum(path.stat().st_size for path in store.glob(pattern))
            for name, pattern in (("item_bytes", "item*s.*"), ("store_bytes", "*"))
        }
        content = {"items": items, "events": events, "seconds": done.seconds, "peak_bytes": done.peak(), **sizes}
        kept.write_text(json.dumps(content))
        table.unlink()
        catalogue.unlink()
    return dict(json.loads(kept.read_text()))


def store_of(work: Path, items: int, events: int) -> Path:
    """Where a store is."""
    return work / f"store-{items}-{events}"


def generate(events: Path, catalogue: Path, num_items: int, num_events: int) -> None:
    """Write tables of events and items."""
    rng = np.random.default_rng(0)
    item = np.minimum(np.exp(rng.random(num_events) * np.log(num_items + 1)).astype(np.int64) - 1, num_items - 1)
    pl.DataFrame(
        {
            "user_id": rng.integers(0, max(num_events // EVENTS_PER_USER, 1), num_events),
            "item_id": scattered(item),
            "timestamp": START + rng.integers(0, YEAR, num_events),
        }
    ).write_parquet(events)
    number = np.arange(num_items)
    pl.DataFrame(
        {
            "item_id": scattered(number),
            "brand": number % 5000,
            "category": number % 1000,
            "top_category": number % 1000 // 50,
        }
    ).write_parquet(catalogue)


def scattered(number: np.ndarray) -> np.ndarray:
    """Ids that are far apart, so that popular items are not neighbours in a table."""
    return (number.astype(np.uint64) * np.uint64(SCATTER) >> np.uint64(3)).astype(np.int64)


def train(work: Path, case: Case, steps: int) -> dict[str, Any]:
    """Train once: seconds of each window and phase, memory in each phase, bytes written."""
    run = run_of(work, case)
    shutil.rmtree(run, ignore_errors=True)
    settings = [
        *SETTINGS,
        f"model.hashing.primes.item_id={list(primes_from(case.rows // TABLES, TABLES))}",
        f"train.max_steps={steps}",
        f"train.log_every={WINDOW}",
        "train.checkpoint_every=1000000",
        "train.validate_every=1000000",
    ]
    options = [f"--set={setting}" for setting in settings]
    store = store_of(work, case.items, case.events)
    done = prismrec("train", str(store), "--out", str(run), "--nproc", str(case.ranks), *options, threads=case.threads)
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    logged = [(event.step, event.wall_time) for event in log.Scalars("train/loss")]
    validated = log.Scalars("valid/recall@50")[0].wall_time
    windows = [
        later - earlier for (_, earlier), (step, later) in itertools.pairwise(logged) if step > min(WARM_UP, steps // 2)
    ]
    first, last, end = logged[0][1], logged[-1][1], done.began + done.seconds
    found = {
        "step_s": [seconds / WINDOW for seconds in windows],
        "start_s": first - done.began,
        "validate_s": validated - last,
        "write_s": end - validated,
        "start_bytes": done.peak(before=first),
        "steps_bytes": done.peak(first, last),
        "end_bytes": done.peak(after=last),
        "checkpoint_bytes": sum(path.stat().st_size for path in (run / "checkpoint").iterdir()),
        "weights_bytes": next(run.glob("model-*.safetensors")).stat().st_size,
    }
    print(f"{case}: {1000 * statistics.median(found['step_s']):.0f} ms a step", file=sys.stderr, flush=True)
    return found


def run_of(work: Path, case: Case) -> Path:
    """Where a run is."""
    return work / "-".join(["run", *map(str, case)])


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Windows of all rounds; of phases the shortest, since other work only adds to them, and the most memory."""
    steps = [seconds for found in rounds for seconds in found["step_s"]]
    rest = {
        key: (min if key.endswith("_s") else max)(found[key] for found in rounds)
        for key in rounds[0]
        if key != "step_s"
    }
    return {"step_s": steps, **rest}


def export(work: Path, case: Case, users: int) -> dict[str, Any]:
    """Export a run that was trained, and measure the stages of that and of recommending."""
    bundle, out = work / "bundle", work / "lists"
    out.mkdir(exist_ok=True)
    threads = os.cpu_count() or 1
    whole = prismrec("export", str(run_of(work, case)), "--out", str(bundle), threads=threads)
    stages = run_process([STAGES, str(run_of(work, case)), str(bundle), str(out), str(users)], threads)
    sizes = {f"{name}_bytes": (bundle / name).stat().st_size for name in ("item_vectors.parquet", "index.faiss")}
    shutil.rmtree(bundle)
    found = {"items": case.items, "export_s": whole.seconds, "peak_bytes": whole.peak(), **sizes}
    return {**found, **json.loads(stages.output.splitlines()[-1])}


def prismrec(*arguments: str, threads: int) -> Ended:
    """Run the command line."""
    return run_process(["-m", "prismrec", *arguments], threads)


def run_process(arguments: list[str], threads: int) -> Ended:
    """Run Python, and look at the memory of the process and its children until it ends.

    Raises:
        CalledProcessError: it did not end well; it has said why.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, *arguments]
    began, memory = time.time(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            memory.append((time.time(), own_memory(watched)))
            time.sleep(0.05)
        seconds = time.time() - began
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Ended(began, seconds, output, memory)


def own_memory(process: psutil.Process) -> int:
    """Bytes that a process and its children have resident, without what they share or map."""
    total = 0
    for each in (process, *_children(process)):
        try:
            memory = each.memory_info()
            total += memory.rss - memory.shared
        except psutil.Error:  # it has just ended
            continue
    return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
