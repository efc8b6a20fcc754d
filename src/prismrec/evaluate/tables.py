"""The tables of a report as plain text cells, shared by the terminal and the HTML page."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prismrec.evaluate.bootstrap import Estimate
from prismrec.evaluate.findings import Method, Report
from prismrec.evaluate.metrics.propensity import LARGEST, POWERS

NONE = "–"


class Table(NamedTuple):
    """A titled table; the first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def summary(report: Report) -> Table:
    """One row per method: recall at every k, then the headline metrics."""
    k = report.headline_k
    names = [*(f"recall@{k}" for k in report.ks), f"ndcg@{k}", f"hit_rate@{k}", f"mrr@{k}", f"tail_recall@{k}"]
    columns: dict[str, Callable[[Method], str]] = {name: _metric(name) for name in names}
    columns[f"recall@{k}"] = lambda method: interval(method.metrics.get(f"recall@{k}"))
    columns[f"coverage@{k}"] = lambda method: _number(method.catalogue[f"coverage@{k}"])
    columns["advantage"] = lambda method: interval(method.advantage)
    return Table(
        title=f"{report.settings['split']}: {report.counts['users_evaluated']:,} users, full catalogue",
        header=["method", *columns],
        rows=[[method.name, *(cell(method) for cell in columns.values())] for method in report.methods],
        note=f"Means over users, 95 % bootstrap intervals in brackets. Advantage: recall@{k} of the first method minus"
        " this one's, on the same users. Tail: targets outside the items that hold the first half of all interactions.",
    )


def all_metrics(report: Report, k: int) -> Table:
    """Every metric at one k, with intervals."""
    quality = ["recall", "hit_rate", "ndcg", "mrr", "tail_recall", "category_diversity"]
    catalogue = ["coverage", "gini", "mean_popularity"]
    rows = [
        [
            method.name,
            *(interval(method.metrics.get(f"{name}@{k}")) for name in quality),
            *(_number(method.catalogue[f"{name}@{k}"]) for name in catalogue),
        ]
        for method in report.methods
    ]
    return Table(f"All metrics at {k}", ["method", *quality, *catalogue], rows)


def deciles(report: Report) -> Table:
    """Recall by popularity decile of the target at the headline k."""
    rows = [[m.name, *map(_number, m.recall_by_decile[report.headline_k])] for m in report.methods]
    return Table(
        title=f"Recall@{report.headline_k} by popularity of the target",
        header=["method", *(str(decile) for decile in range(1, 11))],
        rows=rows,
        note="Deciles hold equal shares of the training interactions: 1 is the head, 10 the long tail.",
    )


def debiased(report: Report) -> Table:
    """Recall at the headline k as if everything had been shown alike, under each model of propensity."""
    k = report.headline_k
    names = [f"{kind}_recall_{model}@{k}" for model in POWERS for kind in ("ips", "snips")]
    names = [f"recall@{k}", *names, f"uniform_recall@{k}", f"uniform_ndcg@{k}"]
    present = [name for name in names if any(name in method.metrics for method in report.methods)]
    rows = [[method.name, *(interval(method.metrics.get(name)) for name in present)] for method in report.methods]
    note = (
        "Targets weighted by 1 / propensity: a power of popularity, sqrt or linear; no weight above "
        f"{LARGEST:g} average ones. snips is normalised by the weights of all targets. What was exposed at random "
        "needs no model: uniform."
    )
    return Table("As if everything had been shown alike", ["method", *present], rows, note)


def dial(report: Report) -> Table:
    """Accuracy and spread at each position of the dial of popularity."""
    k = report.headline_k
    rows = [
        [f"{each.popularity:g}", interval(each.recall), *map(_number, (each.coverage, each.gini))]
        for each in report.trade_offs
        if each.popularity is not None
    ]
    header = ["popularity", f"recall@{k}", f"coverage@{k}", f"gini@{k}"]
    return Table("The dial of popularity", header, rows)


def diagnostics(report: Report) -> Table:
    """What each model does with its heads and vectors."""
    header = ["model", "head usage", "entropy", "dead heads", "mean cosine", "max cosine"]
    header += ["found by vector", "vectors in use", "recall lost without", "AUC"]
    rows = [
        [
            method.name,
            _join(f"{share:.2f}" for share in found.head_usage),
            _number(found.head_entropy),
            _join(map(str, found.dead_heads)),
            _number(found.cosine_mean),
            _number(found.cosine_max),
            _join(f"{share:.2f}" for share in found.found),
            f"{found.vectors_used:.2f}",
            _join(f"{vector + 1}: {lost.value:.4f}" for vector, lost in enumerate(found.recall_lost)),
            _number(found.auc),
        ]
        for method in report.methods
        if (found := method.diagnostics) is not None
    ]
    note = (
        f"Cosines are between vectors of the same user; of lists of {report.headline_k}, the share of items that each "
        "vector found, how many vectors found any of a user's, and the recall lost when one is removed."
    )
    return Table("Heads and vectors", header, rows, note)


def data(report: Report) -> Table:
    """The data set in a few numbers."""
    found = report.data
    if found is None:
        return Table("Data", ["", ""], [])
    quartiles = " · ".join
    rows = [
        ["days", f"{found.first_day} to {found.last_day}"],
        ["users", f"{report.counts.get('users', 0):,}"],
        ["items", f"{report.counts.get('items', 0):,}"],
        ["categories", NONE if found.categories is None else f"{found.categories:,}"],
        ["events of training", f"{found.train_events:,}"],
        ["events of validation", f"{found.valid_events:,}"],
        ["events of testing", f"{found.test_events:,}"],
        ["events per user: least, quartiles, most", quartiles(f"{count:,}" for count in found.events_per_user)],
        ["training events per item, likewise", quartiles(f"{count:,}" for count in found.events_per_item)],
        ["items without a training event", f"{found.items_without_events:,}"],
        ["items that hold each tenth of them", quartiles(f"{count:,}" for count in found.items_by_decile)],
    ]
    return Table("The data", ["", ""], rows)


def interval(estimate: Estimate | None) -> str:
    """An estimate with its interval, for example `0.0512 [0.0480, 0.0541]`."""
    if estimate is None:
        return NONE
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _metric(name: str) -> Callable[[Method], str]:
    return lambda method: _number(method.metrics[name].value if name in method.metrics else None)


def _number(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4f}"


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts) or NONE
