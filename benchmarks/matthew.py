"""The Matthew effect: a loop in which every model is trained on what the model before it has shown.

    python benchmarks/matthew.py --data DATA [--dataset movietweetings] [--out benchmarks/results]
        [--figure docs/matthew.svg] [--users 1500] [--rounds 6] [--k 20] [--seeds 0 1] [--qualities 0 0.5]
        [--methods likelihood debiased dialled popular random oracle]

A loop starts from real events of a sample of users. In every round a model is trained from scratch on the log so far,
shows every user k items that are new to the user, users choose some of them (`matthew_world.py`), and what was chosen,
and nothing else, is added to the log. `likelihood` is trained with the defaults, `debiased` with DEBIASED and shown at
popularity 0, `dialled` likewise and shown at DIAL, all with SHARED; `popular`, `random` and `oracle` (which knows the
preferences) are bounds. All start alike and users draw the
same random numbers. For each quality (the share of preferences that popularity stands for) there is a world, and for
each seed a sample, a loop of every method and its own random numbers. Prints tables, and with --out also writes them
and the numbers of each seed to matthew-<date>.{md,json} there.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from matthew_report import draw, report
from matthew_world import World, choose, likings, make_world, places
from prismrec.atomic import replacing_file
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.evaluate.baselines.popular import popularity_scorer
from prismrec.evaluate.candidates import find_candidates
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.metrics.exposure import coverage, exposure, gini
from prismrec.evaluate.queries import Queries
from prismrec.evaluate.retrieval import Scorer, ranked_lists
from prismrec.model.run import load_run
from prismrec.toml import load_config
from prismrec.train.trainer import train
from saying import header

sys.path.insert(0, str(Path(__file__).parent / "accuracy"))

from datasets import DATASETS

SHARED = (
    "history.max_length=50",
    "train.batch_size=512",
    "train.epochs=2",
    "train.warmup_steps=20",
    "train.validate_users=500",
)
"""So small a log gives some 50 steps an epoch; the recall of both models in validation at the start is best after two
or three epochs."""
DEBIASED = (
    "loss.queue_size=4096",
    "loss.in_batch_negatives=0",
    "loss.uniform_negatives=0",
    "loss.log_q=0",
    "loss.deduplicate=false",
)
"""The queue alone, without correction; each item as often as it came up: a queue longer than the catalogue holds
popular items many times, and what counts once however often it came up is no longer weighed by its propensity."""
METHODS = ("likelihood", "debiased", "dialled", "popular", "random", "oracle")
DIAL = "popularity=0.5"
"""Of `dialled`: the middle of the dial."""
DAY = 86_400
QUIET = Console(quiet=True)

Method = Callable[[Store, Queries, int], np.ndarray]
"""From the store of a round, its queries and k to catalogue rows [U, k]."""


def main() -> None:
    """Run every loop, print the tables and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="parent of the data sets' folders")
    parser.add_argument("--dataset", default="movietweetings", choices=list(DATASETS))
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--qualities", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument(
        "--set", nargs="*", default=[], help="further settings of all models, for example train.epochs=1"
    )
    parser.add_argument("--out", type=Path, help="folder to write the tables and numbers to")
    parser.add_argument("--figure", type=Path, help="file to draw the curves in")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    results = simulate(options)
    text = report(results)
    print(text)
    if options.out:
        name = options.out / f"matthew-{dt.date.today().isoformat()}"
        write(name.with_suffix(".md"), text)
        write(name.with_suffix(".json"), json.dumps(results, indent=1) + "\n")
    if options.figure:
        write(options.figure, draw(results))


def simulate(options: argparse.Namespace) -> dict[str, Any]:
    """All loops: what was run, the worlds and the rounds."""
    events, items = DATASETS[options.dataset].read(options.data)
    worlds, rounds = [], []
    total = len(options.qualities) * len(options.seeds) * len(options.methods) * options.rounds
    started = time.perf_counter()
    with bar() as progress:
        task = progress.add_task("", total=total)
        for quality in options.qualities:
            for seed in options.seeds:
                world = make_world(events, items, options.users, quality, seed)
                worlds.append({"quality": quality, "seed": seed, **describe(world)})
                for name in options.methods:
                    progress.update(task, description=f"quality {quality:g}, seed {seed}, {name}")
                    method = make_method(name, world, seed, options.set)
                    for number, measured in enumerate(loop(world, method, options.rounds, options.k, seed), start=1):
                        head = {"quality": quality, "seed": seed, "method": name, "round": number}
                        rounds.append(head | measured)
                        progress.advance(task)
    return {
        "header": header("matthew", f"{torch.get_num_threads()} threads, {time.perf_counter() - started:.0f} s"),
        "command": command(options),
        "dataset": options.dataset,
        "k": options.k,
        "settings": {"all": [*SHARED, *options.set], "debiased": list(DEBIASED), "dialled": [*DEBIASED, DIAL]},
        "worlds": worlds,
        "rounds": rounds,
    }


def loop(world: World, method: Method, rounds: int, k: int, seed: int) -> Iterator[dict[str, float]]:
    """Show, let choose and add to the log, round by round; gives what each round showed and left in the log."""
    log, users = world.events, world.events["user_id"].unique().sort()
    head = most_frequent(catalogue_rows(log, world), len(world.items))
    first = int(log["timestamp"].max())  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, rounds + 1):
            started, now = time.perf_counter(), first + number * DAY
            store = prepare(log, world.items, Path(folder) / "store", console=QUIET)
            shown = method(store, everybody(store, now), k)
            liked = likings(shown, world.preference)
            chosen = choose(liked, np.random.default_rng([seed, number]).random(shown.shape))
            user, place = chosen.nonzero()
            new = {"user_id": users.gather(user), "item_id": world.items["item_id"].gather(shown[chosen] - 1)}
            log = pl.concat([log, pl.DataFrame({**new, "timestamp": now + place})], how="vertical_relaxed")
            yield {
                **concentration(shown, len(world.items), head),
                "log_gini": gini(catalogue_rows(log, world), len(world.items)),
                "log_events": len(log),
                "preference": float(liked[shown > 0].mean()),
                "chosen": float(chosen[shown > 0].mean()),
                "seconds": time.perf_counter() - started,
            }


def everybody(store: Store, now: int) -> Queries:
    """What every user is to be shown, knowing all that the log has of the user, as of `now`."""
    everyone, item = np.arange(store.num_users), np.asarray(store.item[:])
    start, end = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
    seen = ItemSets.from_pairs(np.repeat(everyone, end - start), item, store.num_users)
    nothing = ItemSets.from_lists([[]] * store.num_users)
    return Queries(everyone, start, end, np.full(store.num_users, now), nothing, seen, {})


def catalogue_rows(log: pl.DataFrame, world: World) -> np.ndarray:
    """Catalogue row of each event, int64 [N]."""
    return places(log["item_id"], world.items["item_id"]) + 1


def most_frequent(rows: np.ndarray, num_items: int) -> np.ndarray:
    """Catalogue rows of the tenth of the items that are most often among the rows given."""
    return np.argsort(-exposure(rows, num_items), kind="stable")[: -(-num_items // 10)] + 1


def concentration(shown: np.ndarray, num_items: int, head: np.ndarray) -> dict[str, float]:
    """How unequally lists [U, k] show the items; `head` are catalogue rows of the most frequent at the start."""
    times = exposure(shown, num_items)
    most = np.sort(times)[::-1][: -(-num_items // 100)]
    return {
        "gini": gini(shown, num_items),
        "coverage": coverage(shown, num_items),
        "top_share": float(most.sum() / times.sum()),
        "head_share": float(times[head - 1].sum() / times.sum()),
    }


def make_method(name: str, world: World, seed: int, settings: list[str]) -> Method:
    """The method of this name."""
    rng = torch.Generator().manual_seed(seed)
    scorers: dict[str, Callable[[Store], Scorer]] = {
        "popular": lambda store: popularity_scorer(np.bincount(store.item[:], minlength=store.num_items + 1)[1:]),
        "random": lambda store: lambda users: torch.rand(users.stop - users.start, 1, store.num_items, generator=rng),
        "oracle": lambda store: lambda users: torch.tensor(world.preference[users, None]),  # a copy, to overwrite
    }
    if name in scorers:
        return lambda store, queries, k: ranked_lists(scorers[name](store), queries.seen, store.num_items, k)[0][:, 0]
    own = {"likelihood": (), "debiased": DEBIASED, "dialled": (*DEBIASED, DIAL)}
    return partial(show_trained, [*SHARED, *own[name], *settings, f"train.seed={seed}"])


def show_trained(settings: list[str], store: Store, queries: Queries, k: int) -> np.ndarray:
    """Train from scratch on a store, and show what the model finds."""
    run = store.path.with_name("run")
    shutil.rmtree(run, ignore_errors=True)
    opened = load_run(train(store.path, run, load_config(None, settings), console=QUIET))
    return find_candidates(opened.model, opened.store, queries, opened.config.history, k).merged()


def describe(world: World) -> dict[str, float]:
    """Sizes of the start, and how unequal it is."""
    rows, (users, items) = catalogue_rows(world.events, world), world.preference.shape
    return {"users": users, "items": items, "events": len(rows), "log_gini": gini(rows, items)}


def command(options: argparse.Namespace) -> str:
    """What to type to run this again."""
    given = {"users": options.users, "rounds": options.rounds, "k": options.k}
    lists = {"seeds": options.seeds, "qualities": options.qualities, "set": options.set}
    if options.methods != list(METHODS):
        lists["methods"] = options.methods
    parts = [f"--{name} {value}" for name, value in given.items()]
    parts += [f"--{name} {' '.join(f'{value}' for value in values)}" for name, values in lists.items() if values]
    return f"python benchmarks/matthew.py --data DATA --dataset {options.dataset} {' '.join(parts)}"


def bar() -> Progress:
    """Rounds of all loops, with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rounds"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replacing_file(path) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
