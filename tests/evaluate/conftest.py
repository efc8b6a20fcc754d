"""A store in memory from literal sequences, and a literal report."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prismrec.data.schema import Schema
from prismrec.data.store import Store
from prismrec.evaluate.bootstrap import Estimate
from prismrec.evaluate.findings import (
    Curve,
    DataSummary,
    Diagnostics,
    Example,
    ItemName,
    Method,
    Recommended,
    Report,
    Target,
    TradeOff,
)
from prismrec.evaluate.metrics.exposure import SHARES

Sequences = list[list[tuple[int, int]]]
MakeStore = Callable[..., Store]


@pytest.fixture
def make_store() -> MakeStore:
    """Build a store from each user's (catalogue row, time) events; the last `valid` and `test` events are split off."""

    def build(sequences: Sequences, num_items: int, valid: int = 1, test: int = 1) -> Store:
        lengths = np.array([len(sequence) for sequence in sequences])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        test_start = np.maximum(offsets[1:] - test, offsets[:-1])
        events = [event for sequence in sequences for event in sequence]
        return Store(
            path=Path("store"),
            manifest={},
            schema=Schema(item_features=("item_id",)),
            item_features=np.arange(num_items + 1)[:, None],
            offsets=offsets,
            valid_start=np.maximum(test_start - valid, offsets[:-1]),
            test_start=test_start,
            item=np.array([item for item, _ in events], np.int32),
            time=np.array([time for _, time in events], np.int64),
            dwell=None,
            weight=None,
            context=None,
        )

    return build


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, users=7)


def method(name: str, recall: float, **fields: object) -> Method:
    metrics = ("recall", "hit_rate", "ndcg", "mrr", "tail_recall")
    return Method(
        name=name,
        kind="baseline",
        metrics={f"{metric}@{k}": estimate(recall) for metric in metrics for k in (5, 10)},
        catalogue={f"{metric}@{k}": 0.25 for metric in ("coverage", "gini", "mean_popularity") for k in (5, 10)},
        recall_by_decile={k: [recall, None, *[0.0] * 8] for k in (5, 10)},
    ).model_copy(update=fields)


@pytest.fixture
def report() -> Report:
    found = Diagnostics(
        head_usage=[0.99, 0.01],
        head_entropy=0.08,
        dead_heads=[1],
        cosines=[[1.0, 0.31], [0.31, 1.0]],
        cosine_mean=0.31,
        cosine_max=0.62,
        found=[0.8, 0.2],
        vectors_used=1.5,
        recall_lost=[estimate(0.044), estimate(0.0)],
        auc=0.7654,
    )
    return Report(
        settings={"run": "runs/<first>", "split": "test", "seed": 3, "date": "2024-05-06T07:08:09+00:00"},
        counts={"users": 1234, "users_evaluated": 1000},
        ks=[5, 10],
        headline_k=10,
        methods=[
            method(
                "<first> & best",
                0.5,
                kind="model",
                diagnostics=found,
                exposure_by_decile={10: [0.7, 0.3, *[0.0] * 8]},
                concentration={10: SHARES},
            ),
            method("popular", 0.4, advantage=estimate(0.1)),
        ],
        trade_offs=[
            _trade_off("<first> & best", 0.0, 0.3, 0.8),
            _trade_off("<first> & best", 1.0, 0.5, 0.2),
            _trade_off("popular", None, 0.4, 0.1),
        ],
        curves=[
            Curve(method="first", kind="train", metric="loss", steps=[1, 2], values=[3.0, 2.0]),
            Curve(method="first", kind="train", metric="learning_rate", steps=[1, 2], values=[0.1, 0.2]),
            Curve(method="first", kind="valid", metric="recall@10", steps=[2], values=[0.5]),
        ],
        examples=[
            Example(
                user_id=7,
                recall=0.5,
                history=[ItemName(item_id=1, title="One", category="odd")],
                targets=[Target(item_id=2, title=None, category=None, rank=1), Target(**_THREE, rank=None)],
                recommended=[Recommended(item_id=2, title=None, category=None, rank=1, interest=1, is_target=True)],
            )
        ],
        data=DataSummary(
            first_day="2024-01-02",
            last_day="2024-03-04",
            train_events=100,
            valid_events=10,
            test_events=20,
            events_per_user=[1, 2, 3, 4, 5],
            events_per_item=[0, 0, 1, 2, 30],
            items_without_events=9,
            items_by_decile=[1, 1, 1, 2, 2, 2, 3, 3, 3, 20],
            concentration=SHARES,
            categories=None,
        ),
    )


_THREE = {"item_id": 3, "title": "Three", "category": "odd"}


def _trade_off(name: str, popularity: float | None, recall: float, coverage: float) -> TradeOff:
    return TradeOff(
        method=name,
        popularity=popularity,
        recall=estimate(recall),
        ndcg=estimate(recall / 2),
        tail_recall=None,
        coverage=coverage,
        gini=0.9,
    )
