"""The benchmark's modules on the path, as its scripts have them, and small data sets."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "accuracy"))

import datasets
from datasets import Dataset
from protocol import Settings, Task, split_queries

from prismrec.config import PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Store

MakeTask = Callable[..., Task]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other take minutes on a busy machine, where one takes seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """400 users with two of ten groups of twelve items each; every event is from one of the two."""
    rng = np.random.default_rng(0)
    groups = np.array([rng.choice(10, 2, replace=False) for _ in range(400)])
    chosen = np.stack([rng.permuted(np.arange(24)) for _ in range(400)])[:, :16]  # places among both groups' items
    item = groups[np.arange(400)[:, None], chosen // 12] * 12 + chosen % 12
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(400), 16) + 1000,
            "item_id": item.ravel() + 5,
            "timestamp": np.tile(np.arange(16), 400),
        }
    )
    return prepare(events, None, tmp_path_factory.mktemp("shop") / "store", PrepareConfig(), Console(quiet=True))


@pytest.fixture
def shop_by_name(shop: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shop among the data sets that scripts know, its items with a category."""
    users = shop.user_ids[np.repeat(np.arange(shop.num_users), np.diff(shop.offsets))]
    events = pl.DataFrame({"user_id": users, "item_id": shop.item_ids[shop.item - 1], "timestamp": shop.time})
    items = shop.items.select("item_id", category=pl.col("item_id") // 12)
    dataset = Dataset("shop", lambda data: (events, items), PrepareConfig(), "ndcg@10", validate_k=10)
    monkeypatch.setitem(datasets.DATASETS, "shop", dataset)


@pytest.fixture
def make_task(shop: Store, tmp_path: Path) -> MakeTask:
    """A task on the shop, with the settings given."""

    def make(settings: Settings | None = None, seed: int = 0) -> Task:
        dataset = Dataset("shop", lambda data: (pl.DataFrame(), pl.DataFrame()), PrepareConfig(), "ndcg@10", 10)
        queries = {"test": split_queries(dataset, shop, "test")}
        return Task(dataset, shop, queries, seed, settings or {}, tmp_path / "method", tmp_path / "nowhere/python")

    return make
