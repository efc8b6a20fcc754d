"""What each part is worth: PrismRec with one thing changed at a time, beside itself with the same seeds.

    python benchmarks/accuracy/ablations.py --dataset amazon_beauty --seeds 0,1,2 --work /tmp/accuracy

Runs, through `run.py`, whatever of CHANGES is not among the results yet, so that work may be spread over
processes and days; then prints a table of all and writes it beside the results.
"""

import argparse
import datetime as dt
import itertools
import statistics
import sys
from collections.abc import Sequence

import run
from datasets import DATASETS
from peers.prismrec_model import prismrec_settings, without_seed
from records import Result, read, result_key
from report import half_width, number

from prismrec.errors import ConfigError, PrismRecError

METRICS = ("hit_rate@10", "ndcg@10", "tail_recall@50", "coverage@10")
CHANGES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "V = 1": ("model.num_interests=1", "model.num_heads=1"),
    "V = 2": ("model.num_interests=2", "model.num_heads=2"),
    "V = 8": ("model.num_interests=8", "model.num_heads=8"),
    "fewer vectors for short histories": ("model.adaptive_interests=true",),
    "encoder: HSTU": ("model.encoder.kind=hstu",),
    "encoder: none, as Multi-CLRec": ("model.encoder.kind=none",),
    "encoder: 1 layer": ("model.encoder.num_layers=1",),
    "reading: maximum": ("loss.reading=maximum",),
    "reading: expectation": ("loss.reading=expectation",),
    "negatives: in batch alone": ("loss.uniform_negatives=0",),
    "negatives: uniform alone": ("loss.in_batch_negatives=0",),
    "negatives: a queue of 4096": ("loss.queue_size=4096", "loss.uniform_negatives=0", "loss.in_batch_negatives=0"),
    "log_q = 0": ("loss.log_q=0",),
    "log_q = 0, popularity = 0.5": ("loss.log_q=0", "popularity=0.5"),
    "with duplicates": ("loss.deduplicate=false",),
    "no usage loss": ("loss.usage_weight=0",),
    "no diversity loss": ("loss.diversity_weight=0",),
    "neither usage nor diversity loss": ("loss.usage_weight=0", "loss.diversity_weight=0"),
    "losses of the reference": ("loss.balance_weight=1", "loss.sharpness_weight=1", "loss.semantic_weight=1"),
    "temperature 0.1": ("loss.temperature=0.1", "model.temperature=0.1"),
}
"""A name -> settings that differ from the configuration's."""


def table(by_change: dict[str, list[Result]]) -> str:
    """Means over seeds, and the mean difference to the first row with its 95 % interval (Student's t).

    Args:
        by_change: results of each change, the same seeds in the same order; the first is what others are compared to.
    """
    base, *_ = by_change.values()
    lines = [
        f"| change | {' | '.join(f'{metric} | difference' for metric in METRICS)} | training, CPU s |",
        f"| --- |{' ---: |' * (2 * len(METRICS) + 1)}",
    ]
    for change, results in by_change.items():
        cells = []
        for metric in METRICS:
            values = [each.metrics[metric]["value"] for each in results]
            apart = [a - b.metrics[metric]["value"] for a, b in zip(values, base, strict=True)]
            cells += [number(statistics.fmean(values)), "" if results is base else _difference(apart)]
        seconds = statistics.fmean(each.train_cpu_seconds for each in results)
        lines.append(f"| {change} | {' | '.join(cells)} | {seconds:,.0f} |")
    return "\n".join(lines)


def _difference(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    text = f"{'-' if mean < 0 else '+'}{number(abs(mean))}"
    return f"{text} ± {number(half_width(values))}" if len(values) > 1 else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write and print the table; errors of the kind that a user can mend are one line."""
    options = _parser().parse_args(arguments)
    try:
        return ablate(options)
    except PrismRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def ablate(options: argparse.Namespace) -> int:
    """Run what is missing, then write and print the table; 0, or the status of a run that failed."""
    method, dataset, seeds = options.method, options.dataset, run.parse_seeds(options.seeds)
    split = run.parse_splits(options.split)[-1]
    path = options.out / f"{dataset}.jsonl"

    def known() -> dict[tuple[str, ...], Result]:
        return {result.key: result for result in read(path)} if path.exists() else {}

    def key(change: str, seed: int) -> tuple[str, ...]:
        settings = prismrec_settings(method, DATASETS[dataset], seed, CHANGES[change])
        return result_key(dataset, method, without_seed(settings), seed, split)

    for seed, change in itertools.product(seeds, _changes(options.changes)):
        if key(change, seed) in known():
            continue
        print(f"\n{change}, seed {seed}", flush=True)
        settings = [f"--set={method}.{setting}" for setting in CHANGES[change]]
        common = [f"--{name}={getattr(options, name)}" for name in ("dataset", "split", "data", "work", "out")]
        if status := run.main([*common, f"--methods={method}", f"--seeds={seed}", *settings]):
            return status
    results = known()
    found = {change: [results.get(key(change, seed)) for seed in seeds] for change in CHANGES}
    text = table({change: [each for each in every if each] for change, every in found.items() if all(every)})
    title = f"# Ablations of {method} on {dataset}, {split}, seeds {options.seeds}"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    (options.out / f"{dataset}-{today}.md").write_text(f"{title}\n\n{text}\n")
    print(text)
    return 0


def _changes(text: str) -> list[str]:
    changes = text.split(";") if text else list(CHANGES)
    if unknown := set(changes) - set(CHANGES):
        raise ConfigError(f"--changes {'; '.join(sorted(unknown))}: expected some of {'; '.join(CHANGES)}")
    return changes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run.add_common(parser, seeds="0,1,2", split="valid,test", out="benchmarks/results/accuracy/ablations")
    parser.add_argument("--method", default="prismrec", help="prismrec, or prismrec-NAME")
    parser.add_argument("--changes", default="", help=f"with semicolons, of {'; '.join(CHANGES)}; all by default")
    return parser


if __name__ == "__main__":
    sys.exit(main())
