"""What no one would wish to train on, trained, exported and served: finite at every step, and right where it can be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from prismrec.config import Config, PrepareConfig
from prismrec.data.history import HistoryBatch, stored_histories
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.errors import TrainingError
from prismrec.export.bundle import export
from prismrec.export.reader import open_bundle
from prismrec.model.encode import encode_users
from prismrec.model.run import load_run
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
    """Prepare and train; every number that training wrote, and every vector of the model, is finite."""
    store = prepare(*frames, folder / "store", PrepareConfig(), console=QUIET)
    path = train(store.path, folder / "run", override(Config(), {**SETTINGS, **settings}), console=QUIET)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 12
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all()
    run = load_run(path)
    stored = stored_histories(store, np.arange(store.num_users), store.manifest["max_time"], run.config.history)
    for batch in (stored, padding(store, run.config)):
        for output in encode_users(run.model, batch, store.item_features):
            assert np.isfinite(output).all()
    return path


def padding(store: Store, config: Config) -> HistoryBatch:
    """Histories without an event: training never sees them, since no store has any; new users are served with them."""
    nothing = np.zeros((3, config.history.max_length), np.int64)
    return HistoryBatch(
        item=nothing,
        time=nothing,
        dwell=nothing,
        recent=nothing.astype(bool),
        context=np.zeros((*nothing.shape, len(store.schema.context_features)), np.int64),
        now=np.array([0, 1, 2**62]),
        user=np.array([0, 1, 2**63 - 1]),
    )


def export_run(run: Path) -> Path:
    """Export beside the run; what the bundle makes of histories without an event is finite."""
    path = export(run, run.with_name("bundle"))
    bundle = open_bundle(path)
    for output in bundle.encoder.encode(padding(bundle.store, bundle.config), bundle.store.item_features):
        assert np.isfinite(output).all()
    return path


def serve(bundle: Path, queries: list[AnyRecommendQuery]) -> list[Recommendations]:
    host = open_host(bundle, ServeConfig(), Metrics())
    try:
        return host.current.service.recommend(queries)
    finally:
        host.close()


ENCODERS = {"transformer": {}, "pooled": POOLED, "hstu": {"model.encoder.kind": "hstu"}}
OF_TRAINING: dict[str, dict[str, Any]] = {
    "cold loss": {"loss.temperature": 1e-4},
    "hot loss": {"loss.temperature": 1e4},
    "a queue larger than the data": {"loss.queue_size": 10_000, "loss.hard_queue_size": 5_000},
    "a batch larger than the data": {"train.batch_size": 10_000, "train.epochs": 12, "train.patience": 12},
    "all losses": {
        "loss.balance_weight": 1.0,
        "loss.sharpness_weight": 1.0,
        "loss.semantic_weight": 1.0,
        "loss.hard_queue_size": 32,
        "loss.in_batch_negatives": 8,
        "loss.uniform_negatives": 8,
    },
}
"""They change weights, but not the graph that is exported."""
OF_GRAPHS: dict[str, tuple[str, dict[str, Any]]] = {
    "cold routing": ("hstu", {"model.temperature": 1e-4}),
    "hot routing": ("transformer", {"model.temperature": 1e4}),
    "one vector, one head": ("hstu", {"model.num_heads": 1, "model.num_interests": 1}),
    "histories of one": ("pooled", {"history.max_length": 1, "history.recent_events": 1}),
}
"""Each with one encoder: an export takes seconds, and all twelve were tried."""


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", OF_TRAINING)
def test_extremes_of_training(tmp_path: Path, name: str, encoder: str) -> None:
    learn(tmp_path, tables(), {**OF_TRAINING[name], **ENCODERS[encoder]})


@pytest.mark.parametrize("name", OF_GRAPHS)
def test_extremes_of_graphs(tmp_path: Path, name: str) -> None:
    encoder, settings = OF_GRAPHS[name]
    bundle = export_run(learn(tmp_path, tables(), {**settings, **ENCODERS[encoder]}))
    for answer in serve(bundle, [AnyRecommendQuery(user_id=user, k=10) for user in range(USERS)]):
        scores = [item.score for item in answer.items]
        assert len({item.item_id for item in answer.items}) == 10
        assert scores == sorted(scores, reverse=True)
        assert np.isfinite(scores).all()


def test_one_category_for_all(tmp_path: Path) -> None:
    bundle = export_run(learn(tmp_path, tables(categories=1), OF_TRAINING["all losses"]))
    (answer,) = serve(bundle, [AnyRecommendQuery(user_id=3, k=24)])
    assert len(answer.items) == 24  # of 30, of which 6 are seen


def test_one_item_has_nothing_new_to_teach(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training event has an earlier one of the same user with another item"):
        learn(tmp_path, tables(num_items=1), {})


def test_one_item_again_and_again(tmp_path: Path) -> None:
    bundle = export_run(learn(tmp_path, tables(num_items=1), {"exclude_seen": False, **POOLED}))
    queries = [AnyRecommendQuery(user_id=3, k=5, include_seen=seen) for seen in (True, False)]
    again, new = serve(bundle, queries)
    assert [item.item_id for item in again.items] == [0]
    assert new.items == []
