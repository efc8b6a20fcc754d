"""Tables of results: one per data set and split, in Markdown, dated.

    python benchmarks/accuracy/report.py --results benchmarks/results/accuracy [--split test]

Reads every DATASET.jsonl of the folder and writes `accuracy-<date>.md` there. A row is a method with its
settings, averaged over seeds; runs of one method with different settings are rows of their own, named
by what differs from most of them.
"""

import argparse
import datetime as dt
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DATASETS
from records import Result, read

from prismrec.errors import DataError, PrismRecError

COLUMNS = ("hit_rate@10", "ndcg@10", "recall@50", "tail_recall@50", "coverage@10", "gini@10")
"""Best is high, except for the Gini of exposure."""
LOW_IS_BEST = ("gini@10",)
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Mean:
    """One metric of one row."""

    value: float
    """Mean over seeds."""
    low: float | None
    high: float | None
    """95 % interval over users, ends averaged over seeds; None for metrics of the whole catalogue."""
    over_seeds: float | None
    """Half width of the 95 % interval over seeds (Student's t); None for one seed."""


@dataclass(frozen=True)
class Row:
    """One method with one choice of settings."""

    name: str
    results: list[Result]

    def mean(self, metric: str) -> Mean | None:
        """None if the data set does not have the metric."""
        found = [result.metrics[metric] for result in self.results if metric in result.metrics]
        if not found:
            return None
        values = [each["value"] for each in found]
        bounded = "low" in found[0]
        return Mean(
            value=statistics.fmean(values),
            low=statistics.fmean(each["low"] for each in found) if bounded else None,
            high=statistics.fmean(each["high"] for each in found) if bounded else None,
            over_seeds=half_width(values) if len(values) > 1 else None,
        )


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of a few values, by Student's t."""
    quantile = T_QUANTILES[min(len(values) - 2, len(T_QUANTILES) - 1)]
    return quantile * statistics.stdev(values) / len(values) ** 0.5


def rows(results: Sequence[Result]) -> list[Row]:
    """Results of one data set and split, grouped by method and settings."""
    by_method: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        by_method.setdefault(result.method, {}).setdefault(str(_flat(result.settings)), []).append(result)
    grouped = []
    for method, variants in by_method.items():
        settings = [_flat(variant[0].settings) for variant in variants.values()]
        keys = sorted({key for each in settings for key in each})
        usual = {key: Counter(str(each.get(key)) for each in settings).most_common(1)[0][0] for key in keys}
        for variant, each in zip(variants.values(), settings, strict=True):
            differing = [key for key in keys if str(each.get(key)) != usual[key]]
            shown = ", ".join(f"{key}={each.get(key, 'unset')}" for key in differing)
            grouped.append(Row(f"{method} ({shown})" if shown else method, variant))
    return grouped


def table(results: Sequence[Result], headline: str) -> str:
    """The table of one data set and split, best first by the headline metric, best values bold."""
    found = sorted(rows(results), key=lambda row: -_value(row, headline))
    best = {metric: _best(found, metric) for metric in COLUMNS}
    lines = [
        f"| method | {' | '.join(COLUMNS)} | seeds | parameters | training, CPU s | epochs (best) |",
        f"| --- |{' ---: |' * (len(COLUMNS) + 4)}",
    ]
    for row in found:
        cells = [_cell(row.mean(metric), bold=_value(row, metric) == best[metric]) for metric in COLUMNS]
        seconds = statistics.fmean(result.train_cpu_seconds for result in row.results)
        notes = row.results[-1].notes
        epochs = f"{notes['epochs']} ({notes['best_epoch']})" if "epochs" in notes else ""
        cells += [str(len(row.results)), f"{row.results[-1].parameters:,}", f"{seconds:,.0f}", epochs]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(results: Sequence[Result], splits: Sequence[str], date: dt.date) -> str:
    """The whole report.

    Raises:
        DataError: there is no result, or results of one table rest on different data.
    """
    parts = [
        f"# Accuracy, {date.isoformat()}",
        "Means over users with 95 % bootstrap intervals in brackets; ± is the 95 % interval over seeds. Lists come from"
        " the whole catalogue without items of the user's history; tail recall is over targets in the less popular half"
        " of the training events; a low Gini is an even exposure; training is in processor seconds, validations"
        " included. How: `benchmarks/accuracy/README.md`.",
    ]
    for dataset in dict.fromkeys(result.dataset for result in results):
        for split in splits:
            chosen = [result for result in results if (result.dataset, result.split) == (dataset, split)]
            if chosen:
                parts += _section(dataset, split, chosen)
    if len(parts) == 2:
        raise DataError(f"expected results of {' or '.join(splits)}, found none; run benchmarks/accuracy/run.py first")
    return "\n\n".join(parts) + "\n"


def _section(dataset: str, split: str, results: Sequence[Result]) -> list[str]:
    if len({result.store for result in results}) > 1:
        raise DataError(f"{dataset}, {split}: expected results on one prepared store, found several; run all again")
    counts = results[0].counts
    sizes = " · ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in ("users", "items", "events", "targets"))
    machines = {"{cpu}, {device}, {threads} threads".format_map(result.machine) for result in results}
    dates = sorted(result.date[:10] for result in results)
    commits = sorted({result.versions["commit"] for result in results})
    return [
        f"## {dataset}, {split}",
        f"{sizes}; {counts['users_evaluated']:,} users evaluated. {'; '.join(sorted(machines))}. "
        f"Run {dates[0]} to {dates[-1]}, commits {', '.join(commits)}.",
        table(results, DATASETS[dataset].headline),
    ]


def _cell(mean: Mean | None, *, bold: bool) -> str:
    if mean is None:
        return ""
    text = f"**{number(mean.value)}**" if bold else number(mean.value)
    if mean.over_seeds is not None:
        text += f" ± {number(mean.over_seeds)}"
    if mean.low is not None and mean.high is not None:
        text += f" [{number(mean.low)}, {number(mean.high)}]"
    return text


def number(value: float) -> str:
    """Four decimals; below one, without the zero."""
    return f"{value:.4f}".replace("0.", ".", 1) if value < 1 else f"{value:.3f}"


def _value(row: Row, metric: str) -> float:
    mean = row.mean(metric)
    return float("nan") if mean is None else mean.value


def _best(found: Sequence[Row], metric: str) -> float:
    values = [value for row in found if (value := _value(row, metric)) == value]
    return (min if metric in LOW_IS_BEST else max)(values, default=float("nan"))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in sorted(settings.items()):
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def main(arguments: Sequence[str] | None = None) -> int:
    """Write and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/accuracy"))
    parser.add_argument("--split", default="test,valid", help="with commas")
    options = parser.parse_args(arguments)
    today = dt.datetime.now(dt.UTC).date()
    try:
        results = [result for path in sorted(options.results.glob("*.jsonl")) for result in read(path)]
        text = report(results, options.split.split(","), today)
    except PrismRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (options.results / f"accuracy-{today.isoformat()}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
