"""A tiny world with something to learn, and settings small enough to learn it in seconds.

64 items in 8 groups; each user meets 7 of the 8 items of one group, in random order. Whoever has learned
the groups finds the next item among the few that are left; at random it is one in sixty.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from prismrec.config import Config, PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.toml import load_config

GROUPS, GROUP_SIZE, USERS, EVENTS = 8, 8, 160, 7
REFERENCE = Path(__file__).parents[2] / "benchmarks" / "accuracy" / "configs" / "reference.toml"
TINY = [
    "history.max_length=6",
    "history.recent_events=2",
    "model.embedding_dim=16",
    "model.num_heads=4",
    "model.num_interests=2",
    "model.hashing.num_hashes=2",
    "loss.queue_size=64",
    "train.batch_size=32",
    "train.epochs=4",
    "train.learning_rate=0.01",
    "train.table_learning_rate=0.3",
    "train.warmup_steps=5",
    "train.validate_k=4",
    "train.checkpoint_every=1000",
    "train.log_every=1",
    "train.device=cpu",
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """The reference at tiny sizes, with `key=value` overrides."""
    return lambda *overrides: load_config(REFERENCE, [*TINY, *overrides])


def group_events(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    items = [rng.permutation(GROUP_SIZE)[:EVENTS] + GROUP_SIZE * (user % GROUPS) for user in range(USERS)]
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS), EVENTS),
            "item_id": np.concatenate(items),
            "timestamp": 1_600_000_000 + rng.integers(0, 100_000, USERS * EVENTS).cumsum(),
            "dwell": rng.integers(1, 300, USERS * EVENTS),
            "weight": rng.choice([0.5, 1.0, 2.0], USERS * EVENTS),
            "shop": rng.integers(0, 5, USERS * EVENTS),
        }
    )


def group_items() -> pl.DataFrame:
    ids = np.arange(GROUPS * GROUP_SIZE)
    return pl.DataFrame({"item_id": ids, "category": ids // GROUP_SIZE})


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    """Prepare a store; by default the tiny world's."""

    def build(events: pl.DataFrame | None = None, items: pl.DataFrame | None = None) -> Store:
        events = group_events() if events is None else events
        path = tmp_path_factory.mktemp("data") / "store"
        return prepare(events, items, path, PrepareConfig(), Console(quiet=True))

    return build


@pytest.fixture(scope="session")
def store(make_store: Callable[..., Store]) -> Store:
    return make_store(items=group_items())


@pytest.fixture
def said() -> Console:
    """A console whose text a test can read with `export_text`."""
    return Console(record=True, width=200, file=io.StringIO())
