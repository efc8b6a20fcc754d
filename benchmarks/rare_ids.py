"""What rare ids are worth: fewer rows for all of them, beside an admission filter that gives them no rows of their own.

    python benchmarks/rare_ids.py [--out benchmarks/results] [--seed 0] [--max-steps 700]

A year of grocery purchases (Complete Journey, as in the demo; the next new products of a household), one epoch each
with the demo's settings but a smaller model (SMALLER), and one seed. Variants differ in `model.hashing.rows_per_id`, or
in the store: there the ids of items with fewer training events than a threshold are replaced by one id that they share,
as a table with admission by frequency would do; the items stay in the catalogue with all of their other features.
Recall is in validation: the mean over households, with the interval of its difference to the first variant, and the
share of targets found whose items have so many training events. Prints tables, and with --out also writes them to
rare-ids-<date>.md there.
"""

import argparse
import datetime as dt
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console

from prismrec.artifact import manifest_content, replacing_artifact, write_manifest
from prismrec.data.datasets import complete_journey
from prismrec.data.prepare import prepare
from prismrec.data.store import KIND, Store
from prismrec.demo import PREPARE, SETTINGS
from prismrec.evaluate.bootstrap import bootstrap
from prismrec.evaluate.candidates import find_candidates
from prismrec.evaluate.metrics.ranking import hits, recall
from prismrec.evaluate.queries import make_queries
from prismrec.model.embeddings import SPARE_ROWS
from prismrec.model.run import load_run
from prismrec.toml import load_config
from prismrec.train.trainer import train
from saying import header, say

K = 50
SMALLER = (
    "model.num_interests=1",
    "history.max_length=50",
    "loss.queue_size=1024",
    "train.validate_every=1000000",
    "train.validate_users=100",
)
"""Than the demo's model, for speed; one vector has the better recall there too."""
DIALS = (0.0, 0.75)
"""Of popularity: without it rare items come up, with it recall is best."""
GROUPS = {"< 5": (0, 5), "5 to 19": (5, 20), ">= 20": (20, 10**9)}
QUIET = Console(quiet=True)


class Variant(NamedTuple):
    """One training."""

    rows_per_id: float
    admitted_from: int
    """Training events of an item from which its id has rows of its own."""


VARIANTS = (
    Variant(1.0, 0),
    Variant(0.5, 0),
    Variant(0.25, 0),
    Variant(0.1, 0),
    Variant(1.0, 5),
    Variant(1.0, 20),
)


class Measured(NamedTuple):
    """One variant at one position of the dial."""

    recall: np.ndarray
    """@K of each household, [U]."""
    found: dict[str, float]
    """Share of the targets of each group that are in the lists."""


def main() -> None:
    """Train and measure every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=10_000, help="of each training, at most an epoch")
    parser.add_argument("--out", type=Path, help="folder to write the tables to")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(*complete_journey(), Path(folder) / "store", PREPARE, QUIET)
        lines = list(tables(store, Path(folder), options.seed, options.max_steps))
    command = f"python benchmarks/rare_ids.py --seed {options.seed} --max-steps {options.max_steps}"
    top = header("rare_ids", f"{torch.get_num_threads()} threads")
    text = "\n".join([top, "", f"    {command}", "", describe(store), "", *lines, ""])
    if options.out is not None:
        (options.out / f"rare-ids-{dt.date.today().isoformat()}.md").write_text(text)


def tables(store: Store, folder: Path, seed: int, max_steps: int) -> Iterator[str]:
    """The lines of the table, each printed as soon as it is known."""
    columns = ["rows_per_id", "ids with rows", "rows of item_id", "dial", f"recall@{K}", "difference to the first"]
    titles = [*columns, *(f"found, {name} events" for name in GROUPS), "training, s"]
    yield say(f"| {' | '.join(titles)} |\n|{' ---: |' * len(titles)}")
    firsts: dict[float, np.ndarray] = {}
    for place, variant in enumerate(VARIANTS):
        run = folder / f"run-{place}"
        trained_on = store if not variant.admitted_from else with_admission(store, folder / "admitted", variant)
        settings = [*SETTINGS, *SMALLER, f"train.seed={seed}", f"train.max_steps={max_steps}"]
        started = time.perf_counter()
        train(
            trained_on.path,
            run,
            load_config(None, [*settings, f"model.hashing.rows_per_id={variant.rows_per_id}"]),
            console=QUIET,
        )
        seconds = time.perf_counter() - started
        rows = sum(prime + SPARE_ROWS for prime in load_run(run).config.model.hashing.primes["item_id"])
        for dial in DIALS:
            measured = measure(run, store, dial)
            difference = bootstrap((measured.recall - firsts.setdefault(dial, measured.recall))[:, None], seed)[0]
            assert difference is not None
            cells = [
                f"{variant.rows_per_id:g}",
                f"of {variant.admitted_from} events or more" if variant.admitted_from else "all",
                f"{rows:,}",
                f"{dial:g}",
                f"{np.mean(measured.recall):.4f}",
                f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})" if place else "",
                *(f"{share:.4f}" for share in measured.found.values()),
                f"{seconds:.0f}",
            ]
            yield say(f"| {' | '.join(cells)} |")


def with_admission(store: Store, path: Path, variant: Variant) -> Store:
    """A copy of a store in which the ids of rare items are one id."""
    shutil.rmtree(path, ignore_errors=True)
    with replacing_artifact(path, KIND) as directory:
        shutil.copytree(store.path, directory, dirs_exist_ok=True)
        features = np.array(store.item_features)
        rare = np.flatnonzero(store.item_counts < variant.admitted_from)[1:]  # row 0 is padding
        features[rare, 0] = features[rare[0], 0]
        np.save(directory / "item_features.npy", features)
        write_manifest(directory, KIND, **manifest_content(store.manifest))
    return Store.open(path)


def measure(run: Path, store: Store, dial: float) -> Measured:
    """Recall in validation; the lists are of catalogue rows, which all variants share."""
    opened = load_run(run, popularity=dial)
    history = opened.config.history
    queries = make_queries(store, "valid", exclude_seen=True, before_target_time=history.before_target_time)
    lists = find_candidates(opened.model, opened.store, queries, history, K).merged()
    listed = np.zeros((queries.num_users, store.num_items + 1), bool)
    np.put_along_axis(listed, lists, values=True, axis=1)
    is_found = listed[queries.targets.user, queries.targets.item]
    counts = store.item_counts[queries.targets.item]
    found = {name: float(is_found[(counts >= low) & (counts < high)].mean()) for name, (low, high) in GROUPS.items()}
    return Measured(recall(hits(lists, queries.targets), queries.targets.sizes, K), found)


def describe(store: Store) -> str:
    """How many items and targets there are of each group."""
    counts = store.item_counts
    targets = make_queries(store, "valid", exclude_seen=True, before_target_time=True).targets.item
    parts = [
        f"{((counts[1:] >= low) & (counts[1:] < high)).sum():,} items and "
        f"{((counts[targets] >= low) & (counts[targets] < high)).sum():,} targets with {name} training events"
        for name, (low, high) in GROUPS.items()
    ]
    return f"{store.num_events:,} events; {'; '.join(parts)}."


if __name__ == "__main__":
    main()
