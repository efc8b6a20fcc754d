"""A small store and untrained models on it: export must carry any weights, trained or not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from prismrec.config import Config, HashingConfig, HistoryConfig, ModelConfig, PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.export.bundle import export
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes
from prismrec.model.run import build_model, save_run
from prismrec.model.sequence import RelativeBias

MAX_LENGTH = 6


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(0)
    size = 400
    events = pl.DataFrame(
        {
            "user_id": rng.integers(100, 130, size),
            "item_id": [f"item {i}" for i in rng.integers(0, 40, size)],
            "timestamp": rng.integers(1_600_000_000, 1_600_500_000, size),
            "dwell": rng.integers(0, 300, size),
            "shop": rng.integers(0, 5, size),
        }
    )
    items = pl.DataFrame(
        {"item_id": [f"item {i}" for i in range(40)], "category": [f"category {i % 7}" for i in range(40)]}
    )
    return prepare(events, items, tmp_path_factory.mktemp("store") / "store", PrepareConfig())


@pytest.fixture(scope="session")
def make_model(store: Store) -> Callable[..., tuple[Config, MultiInterestModel]]:
    """Build a configuration and an untrained model; arguments are the dial, and settings of the model."""

    def make(popularity: float = 0.0, **settings: object) -> tuple[Config, MultiInterestModel]:
        torch.manual_seed(0)
        distinct = {"item_id": store.num_items, "category": 7, "shop": 5, "user_id": store.num_users}
        hashing = resolve_primes(HashingConfig(), distinct)
        model = ModelConfig.model_validate({"embedding_dim": 16, "hashing": hashing, **settings})
        history = HistoryConfig(max_length=MAX_LENGTH, recent_events=3)
        config = Config(history=history, model=model, popularity=popularity)
        built = build_model(config, store.schema).eval()
        for module in built.modules():
            if isinstance(module, RelativeBias):  # zero before training, which would hide what is looked up
                torch.nn.init.normal_(module.distance)
                torch.nn.init.normal_(module.elapsed)
        return config, built

    return make


@pytest.fixture(scope="session")
def run(
    store: Store, make_model: Callable[..., tuple[Config, MultiInterestModel]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    config, model = make_model()
    save_run(path, config, store, model.state_dict())
    return path


@pytest.fixture(scope="session")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("bundle") / "bundle", user_vectors=True)
