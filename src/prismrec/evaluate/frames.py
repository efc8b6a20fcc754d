"""The figures of a report as plain data: one tidy Polars frame for each, a row for each thing that is drawn.

from prismrec.api import evaluate, frames

report = evaluate(Path("run"), "test")
frames.metrics(report).filter(metric="recall", k=50)
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import polars as pl

from prismrec.evaluate.bootstrap import Estimate
from prismrec.evaluate.findings import Diagnostics, Method, Report
from prismrec.evaluate.metrics.exposure import SHARES

EVENTS = "training events"
SEVERAL = pl.len().over("method") > 1
"""Rows of `vectors` of models that have several."""
DRAWN = (pl.col("kind") == "valid") | pl.col("metric").str.ends_with("loss")
"""Rows of `curves` that are drawn: losses and validations, not learning rates and the like."""
_TEXT, _REAL, _WHOLE = pl.String, pl.Float64, pl.Int64


def metrics(report: Report) -> pl.DataFrame:
    """`method, kind, metric, k, value, low, high, users`: every metric at every k, those of users with intervals."""
    rows: list[Sequence[Any]] = []
    for method in report.methods:
        for name, estimate in method.metrics.items():
            metric, k = name.split("@")
            rows.append((method.name, method.kind, metric, int(k), *_interval(estimate), estimate.users))
        for name, value in method.catalogue.items():
            metric, k = name.split("@")
            rows.append((method.name, method.kind, metric, int(k), value, None, None, None))
    kinds = {"method": _TEXT, "kind": _TEXT, "metric": _TEXT, "k": _WHOLE, "value": _REAL, "low": _REAL, "high": _REAL}
    return _frame(rows, **kinds, users=_WHOLE)


def deciles(report: Report) -> pl.DataFrame:
    """`method, decile, recall, exposure`: at headline_k, of targets and recommended items by popularity."""
    return _frame(
        [
            (method.name, decile, recall, exposure)
            for method in report.methods
            for decile, (recall, exposure) in enumerate(
                zip_longest(_at_k(report, method.recall_by_decile), _at_k(report, method.exposure_by_decile)), 1
            )
        ],
        method=_TEXT,
        decile=_WHOLE,
        recall=_REAL,
        exposure=_REAL,
    )


def concentration(report: Report) -> pl.DataFrame:
    """`method, items, exposure`: share of the recommendations that the most shown share of the items has.

    `EVENTS` stands where a method does for the training events: what people chose by themselves.
    """
    curves = [(method.name, _at_k(report, method.concentration)) for method in report.methods]
    chosen = [] if report.data is None else report.data.concentration
    return _frame(
        [
            (name, items, exposure)
            for name, curve in [*curves, (EVENTS, chosen)]
            for items, exposure in zip(SHARES, curve, strict=False)
        ],
        method=_TEXT,
        items=_REAL,
        exposure=_REAL,
    )


def trade_offs(report: Report) -> pl.DataFrame:
    """`method, popularity, recall, low, high, ndcg, tail_recall, coverage, gini`, popularity null off the dial."""
    return _frame(
        [
            (
                each.method,
                each.popularity,
                *_interval(each.recall),
                each.ndcg.value,
                None if each.tail_recall is None else each.tail_recall.value,
                each.coverage,
                each.gini,
            )
            for each in report.trade_offs
        ],
        method=_TEXT,
        popularity=_REAL,
        recall=_REAL,
        low=_REAL,
        high=_REAL,
        ndcg=_REAL,
        tail_recall=_REAL,
        coverage=_REAL,
        gini=_REAL,
    )


def heads(report: Report) -> pl.DataFrame:
    """`method, head, share`: how the attention is spread over the heads, counted from 1."""
    return _of_models(
        report,
        lambda found: [(head, share) for head, share in enumerate(found.head_usage, 1)],
        head=_WHOLE,
        share=_REAL,
    )


def vectors(report: Report) -> pl.DataFrame:
    """`method, vector, found, recall_lost, low, high`: what each vector finds, and the recall lost without it."""

    def rows(found: Diagnostics) -> list[Sequence[Any]]:
        lost: Sequence[Estimate | None] = found.recall_lost or [None] * len(found.found)
        return [
            (vector, share, *_interval(estimate))
            for vector, (share, estimate) in enumerate(zip(found.found, lost, strict=True), 1)
        ]

    return _of_models(report, rows, vector=_WHOLE, found=_REAL, recall_lost=_REAL, low=_REAL, high=_REAL)


def cosines(report: Report) -> pl.DataFrame:
    """`method, vector, other, cosine`: how alike two vectors of a user are, mean over users; each pair once."""
    return _of_models(
        report,
        lambda found: [
            (vector, other, cosine)
            for vector, row in enumerate(found.cosines, 1)
            for other, cosine in enumerate(row, 1)
            if vector < other
        ],
        vector=_WHOLE,
        other=_WHOLE,
        cosine=_REAL,
    )


def curves(report: Report) -> pl.DataFrame:
    """`method, kind, metric, step, value`: the course of each training."""
    return _frame(
        [
            (curve.method, curve.kind, curve.metric, step, value)
            for curve in report.curves
            for step, value in zip(curve.steps, curve.values, strict=True)
        ],
        method=_TEXT,
        kind=_TEXT,
        metric=_TEXT,
        step=_WHOLE,
        value=_REAL,
    )


def examples(report: Report) -> pl.DataFrame:
    """`user_id, recall, role, rank, item_id, title, category, interest, is_target`: ids as text.

    A role is `history`, newest first, `target` (rank null if it was not found), or `recommended`.
    """
    rows: list[Sequence[Any]] = []
    for example in report.examples:
        user = str(example.user_id), example.recall
        for place, item in enumerate(example.history, 1):
            rows.append((*user, "history", place, str(item.item_id), item.title, item.category, None, None))
        for target in example.targets:
            rows.append((*user, "target", target.rank, str(target.item_id), target.title, target.category, None, True))
        for found in example.recommended:
            shown = str(found.item_id), found.title, found.category
            rows.append((*user, "recommended", found.rank, *shown, found.interest, found.is_target))
    kinds = {"user_id": _TEXT, "recall": _REAL, "role": _TEXT, "rank": _WHOLE, "item_id": _TEXT, "title": _TEXT}
    return _frame(rows, **kinds, category=_TEXT, interest=_WHOLE, is_target=pl.Boolean)


def _at_k(report: Report, by_k: dict[int, Any]) -> Sequence[Any]:
    return by_k.get(report.headline_k, [])


def _of_models(
    report: Report, rows: Callable[[Diagnostics], Sequence[Sequence[Any]]], **columns: type[pl.DataType]
) -> pl.DataFrame:
    models: list[tuple[Method, Diagnostics]] = [
        (method, method.diagnostics) for method in report.methods if method.diagnostics is not None
    ]
    return _frame([(method.name, *row) for method, found in models for row in rows(found)], method=_TEXT, **columns)


def _interval(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _frame(rows: Sequence[Sequence[Any]], **columns: type[pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=columns, orient="row")
