"""What no one would wish to train on, trained, exported and served: finite at every step, and right where it can be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from prismrec.config import Config, PrepareConfig
from prismrec.data.history import HistoryBatch
from prismrec.data.prepare import prepare
from prismrec.errors import TrainingError
from prismrec.export.bundle import export
from prismrec.export.reader import open_bundle
from prismrec.serve.messages import AnyRecommendQuery, Recommendations
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import open_host
from prismrec.serve.settings import ServeConfig
from prismrec.toml import override
from prismrec.train.trainer import train

QUIET = Console(quiet=True)
USERS, EVENTS, ITEMS = 24, 6, 30
POOLED = {"model.encoder.kind": "none"}
SETTINGS: dict[str, Any] = {
    "model.embedding_dim": 8,
    "model.num_heads": 2,
    "model.num_interests": 2,
    "model.encoder.num_layers": 1,
    "history.max_length": 5,
    "loss.full_softmax_items": 0,
    "loss.queue_size": 64,
    "train.batch_size": 16,
    "train.max_steps": 12,
    "train.log_every": 1,
    "train.warmup_steps": 0,
    "train.device": "cpu",
}


def tables(num_items: int = ITEMS, categories: int = 5, events: int = EVENTS) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(0)
    size = USERS * events
    clicks = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS), events),
            "item_id": rng.permutation(size) % num_items,
            "timestamp": 1_600_000_000 + rng.permutation(size),
        }
    )
    ids = np.arange(num_items)
    return clicks, pl.DataFrame({"item_id": ids, "category": ids % categories})


def learn(folder: Path, frames: tuple[pl.DataFrame, pl.DataFrame], settings: dict[str, Any]) -> Path:
    """Prepare, train and export; every number that training wrote is finite."""
    store = prepare(*frames, folder / "store", PrepareConfig(), console=QUIET)
    run = train(store.path, folder / "run", override(Config(), {**SETTINGS, **settings}), console=QUIET)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 12
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all()
    return export(run, folder / "bundle")


def serve(bundle: Path, queries: list[AnyRecommendQuery]) -> list[Recommendations]:
    host = open_host(bundle, ServeConfig(), Metrics())
    try:
        return host.current.service.recommend(queries)
    finally:
        host.close()


ENCODERS = {"transformer": {}, "pooled": POOLED, "hstu": {"model.encoder.kind": "hstu"}}
EXTREMES: dict[str, dict[str, Any]] = {
    "cold loss": {"loss.temperature": 1e-4},
    "hot loss": {"loss.temperature": 1e4},
    "cold routing": {"model.temperature": 1e-4},
    "hot routing": {"model.temperature": 1e4},
    "one vector, one head": {"model.num_heads": 1, "model.num_interests": 1},
    "a queue larger than the data": {"loss.queue_size": 10_000, "loss.hard_queue_size": 5_000},
    "a batch larger than the data": {"train.batch_size": 10_000, "train.epochs": 12, "train.patience": 12},
    "histories of one": {"history.max_length": 1, "history.recent_events": 1},
    "all losses": {
        "loss.balance_weight": 1.0,
        "loss.sharpness_weight": 1.0,
        "loss.semantic_weight": 1.0,
        "loss.hard_queue_size": 32,
        "loss.in_batch_negatives": 8,
        "loss.uniform_negatives": 8,
    },
}


# all 27 were tried; an export takes seconds
@pytest.mark.parametrize(("name", "encoder"), [(name, [*ENCODERS][n % 3]) for n, name in enumerate(EXTREMES)])
def test_extreme_settings(tmp_path: Path, name: str, encoder: str) -> None:
    bundle = learn(tmp_path, tables(), {**EXTREMES[name], **ENCODERS[encoder]})
    for answer in serve(bundle, [AnyRecommendQuery(user_id=user, k=10) for user in range(USERS)]):
        scores = [item.score for item in answer.items]
        assert len({item.item_id for item in answer.items}) == 10
        assert scores == sorted(scores, reverse=True)
        assert np.isfinite(scores).all()


@pytest.mark.parametrize("encoder", ["transformer"])
def test_one_category_for_all(tmp_path: Path, encoder: str) -> None:
    bundle = learn(tmp_path, tables(categories=1), {**EXTREMES["all losses"], **ENCODERS[encoder]})
    (answer,) = serve(bundle, [AnyRecommendQuery(user_id=3, k=24)])
    assert len(answer.items) == 24  # of 30, of which 6 are seen


def test_one_item_has_nothing_new_to_teach(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training event has an earlier one of the same user with another item"):
        learn(tmp_path, tables(num_items=1), {})


@pytest.mark.parametrize("encoder", ["pooled"])
def test_one_item_again_and_again(tmp_path: Path, encoder: str) -> None:
    bundle = learn(tmp_path, tables(num_items=1), {"exclude_seen": False, **ENCODERS[encoder]})
    queries = [AnyRecommendQuery(user_id=3, k=5, include_seen=seen) for seen in (True, False)]
    again, new = serve(bundle, queries)
    assert [item.item_id for item in again.items] == [0]
    assert new.items == []


@pytest.mark.parametrize("encoder", ENCODERS)
def test_histories_of_nothing_but_padding(tmp_path: Path, encoder: str) -> None:
    bundle = open_bundle(learn(tmp_path, tables(), ENCODERS[encoder]))
    length, context = 5, len(bundle.store.schema.context_features)
    nothing = np.zeros((3, length), np.int64)
    batch = HistoryBatch(
        item=nothing,
        time=nothing,
        dwell=nothing,
        recent=nothing.astype(bool),
        context=np.zeros((3, length, context), np.int64),
        now=np.array([0, 1, 2**62]),
        user=np.array([0, 1, 2**63 - 1]),
    )
    for output in bundle.encoder.encode(batch, bundle.store.item_features):
        assert np.isfinite(output).all()
