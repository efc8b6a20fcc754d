"""The accuracy benchmark: methods trained on identical splits, judged by one evaluator.

    python benchmarks/accuracy/run.py --dataset ml1m --methods popularity,esasrec,prismrec --seeds 0,1,2 \
        --split test --data ../shared/data --work /tmp/accuracy --out benchmarks/results/accuracy

Trains every method once per seed, writes its lists to --work, judges them, and appends the results to
DATASET.jsonl in --out; `report.py` makes tables of them. README.md says what is compared and how.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from datasets import DATASETS, open_store
from methods import METHODS, WITHOUT_SEED, find_method, is_prismrec
from peers.prismrec_model import prismrec_settings, without_seed
from protocol import Fitted, Settings, Task, split_queries
from records import Result, append, environment, plain
from score import score
from settings import check_assignments, method_settings, overrides_of

from prismrec.data.store import Split
from prismrec.errors import ConfigError, PrismRecError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; errors of the kind that a user can mend are one line."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except PrismRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Train, ask, judge and record every method and seed."""
    methods, splits = _listed(options.methods), parse_splits(options.split)
    seeds = parse_seeds(options.seeds)
    dataset = DATASETS[options.dataset]
    chosen = {name: find_method(name, dataset.name) for name in methods}
    check_assignments(options.set, methods)
    configured = {
        (name, seed): _settings(name, dataset.name, seed, options.set)
        for name in methods
        for seed in (seeds[:1] if name in WITHOUT_SEED else seeds)
    }
    store = open_store(dataset, options.data, options.work)
    queries = {split: split_queries(dataset, store, split) for split in splits}
    for (name, seed), settings in configured.items():
        folder = options.work / dataset.name / f"{name}-{_digest(settings)}-seed{seed}"
        task = Task(dataset, store, queries, seed, settings, folder, options.peers_python)
        print(f"\n{dataset.name}, {name}, seed {seed}: {folder}", flush=True)
        fitted = chosen[name](task)
        results = [_result(task, name, split, fitted) for split in splits]
        append(options.out, results)
        for result in results:
            value, seconds = result.metrics[dataset.headline]["value"], result.train_cpu_seconds
            print(f"  {result.split} {dataset.headline} {value:.4f}, {seconds:,.0f} s of processor time", flush=True)


def _result(task: Task, name: str, split: Split, fitted: Fitted) -> Result:
    queries, store = task.queries[split], task.store
    return Result(
        dataset=task.dataset.name,
        method=name,
        seed=task.seed,
        split=split,
        metrics=plain(score(task.lists_path(split), store, queries)),
        parameters=fitted.parameters,
        train_seconds=round(fitted.train_seconds, 1),
        train_cpu_seconds=round(fitted.train_cpu_seconds, 1),
        settings=without_seed(task.settings) if is_prismrec(name) else task.settings,
        notes=fitted.notes,
        counts={"users": store.num_users, "items": store.num_items, "events": store.num_events, **queries.counts},
        store=_digest(store.manifest["files"]),
        **environment(),
    )


def _settings(name: str, dataset: str, seed: int, assignments: Sequence[str]) -> Settings:
    overrides = overrides_of(name, assignments)
    if is_prismrec(name):
        return prismrec_settings(name, DATASETS[dataset], seed, overrides)
    return method_settings(name, dataset, overrides)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def parse_splits(text: str) -> list[Split]:
    """Splits with commas.

    Raises:
        ConfigError: another than valid and test, or none.
    """
    splits = _listed(text)
    if not splits or not set(splits) <= {"valid", "test"}:
        raise ConfigError(f"--split {text}: expected valid, test or valid,test")
    return cast("list[Split]", splits)


def parse_seeds(text: str) -> list[int]:
    """Seeds with commas.

    Raises:
        ConfigError: one is no whole number, or there is none.
    """
    seeds = _listed(text)
    if not seeds or not all(seed.isdecimal() for seed in seeds):
        raise ConfigError(f"--seeds {text}: expected numbers from 0 up, separated by commas")
    return [int(seed) for seed in seeds]


def add_common(parser: argparse.ArgumentParser, *, seeds: str, split: str, out: str) -> None:
    """Options of every script that trains, with these defaults."""
    parser.add_argument("--dataset", required=True, choices=list(DATASETS))
    parser.add_argument("--seeds", default=seeds, help="with commas")
    parser.add_argument("--split", default=split, help="valid, test, or valid,test to judge one training on both")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets' folders")
    parser.add_argument("--work", type=Path, required=True, help="folder for stores, runs and lists")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the results")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser, seeds="0", split="valid", out="benchmarks/results/accuracy")
    parser.add_argument("--methods", required=True, help=f"with commas, of {', '.join(METHODS)}, prismrec-NAME")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.KEY=VALUE", help="a hyper-parameter")
    parser.add_argument(
        "--peers-python",
        type=Path,
        default=Path(".venv-peers/bin/python"),
        help="Python of the environment with requirements.txt",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
