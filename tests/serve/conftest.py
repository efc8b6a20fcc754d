"""The store of the session's small bundle, others made of that, and the whole service on them."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from prismrec.artifact import read_manifest, write_manifest
from prismrec.config import PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.export.reader import KIND, STORE, WEIGHTS, open_bundle
from prismrec.export.search import write_search
from prismrec.serve.app import create_app
from prismrec.serve.gate import Gate
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import open_host
from prismrec.serve.settings import ServeConfig

NUM_USERS, NUM_ITEMS, START = 12, 30, 1_600_000_000
_BY_ITSELF = ("format_version", "files")  # what `write_manifest` adds
NAMES = [f"item {number}" for number in range(NUM_ITEMS)]


def _events() -> pl.DataFrame:
    """Users 0 to 11; user u has 2 + u events, one a minute, all times distinct."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(NUM_USERS), np.arange(2, 2 + NUM_USERS))
    return pl.DataFrame(
        {
            "user_id": users,
            "item_id": [NAMES[number] for number in rng.integers(0, NUM_ITEMS, len(users))],
            "timestamp": START + 60 * rng.permutation(len(users)),
            "dwell": rng.integers(1, 300, len(users)),
            "shop": rng.integers(0, 4, len(users)),
        }
    )


EVENTS = _events()


ITEMS = pl.DataFrame(
    {
        "item_id": NAMES,
        "category": [f"category {number % 5}" for number in range(NUM_ITEMS)],
        "title": [f"The {name}" for name in NAMES],
    }
)
"""30 items in five categories."""


def make_store(path: Path, items: pl.DataFrame = ITEMS, **columns: object) -> Store:
    """`EVENTS`, with other columns or more."""
    return prepare(EVENTS.with_columns(**columns), items, path, PrepareConfig(), Console(quiet=True))


def make_bundle(folder: Path, items: pl.DataFrame = ITEMS, **columns: object) -> Path:
    """A bundle of an untrained model, with the vectors of users."""
    import torch

    from prismrec.config import Config, HashingConfig, HistoryConfig, ModelConfig
    from prismrec.export.bundle import export
    from prismrec.model.multi_interest import MultiInterestModel, resolve_primes
    from prismrec.model.run import save_run

    store = make_store(folder / "store", items, **columns)
    torch.manual_seed(0)
    counts = dict.fromkeys((*store.schema.item_features, *store.schema.context_features), 8)
    hashing = resolve_primes(HashingConfig(), {**counts, "item_id": NUM_ITEMS})
    config = Config(
        history=HistoryConfig(max_length=8, recent_events=3), model=ModelConfig(embedding_dim=16, hashing=hashing)
    )
    save_run(folder / "run", config, store, MultiInterestModel(config.model, store.schema, 8).state_dict())
    return export(folder / "run", folder / "bundle", user_vectors=True)


def with_other_items(bundle: Path, out: Path, shift: int = 1) -> Path:
    """A bundle whose items have each other's vectors, so that it answers otherwise."""
    shutil.copytree(bundle, out)
    opened = open_bundle(bundle)
    vectors = opened.index.vectors(np.roll(np.arange(1, NUM_ITEMS + 1), shift))
    index = write_search(out, opened.store.item_ids, vectors, vectors[:, None], seed=0)
    weights = out / WEIGHTS
    weights.write_bytes(weights.read_bytes()[::-1])  # serving reads nothing of them but the checksum, the model's name
    _describe(out, opened.manifest | {"index": index})
    return out


def with_store(bundle: Path, out: Path, items: pl.DataFrame = ITEMS, **columns: object) -> Path:
    """A bundle of other items, or whose events have other columns or more; good enough to open."""
    shutil.copytree(bundle, out)
    make_store(out / STORE, items, **columns)
    _describe(out, open_bundle(bundle).manifest)
    return out


def without_categories(bundle: Path, out: Path) -> Path:
    """A bundle with vectors of its own, in which what was the category is a feature like any other."""
    manifest = open_bundle(with_other_items(bundle, out, shift=3)).store.manifest
    features = [{"category": "colour"}.get(name, name) for name in manifest["schema"]["item_features"]]
    _describe(out / STORE, manifest | {"schema": manifest["schema"] | {"item_features": features}})
    _describe(out, read_manifest(bundle, KIND))
    return out


def _describe(directory: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with the checksums of what is there now."""
    write_manifest(directory, **{name: value for name, value in manifest.items() if name not in _BY_ITSELF})


@pytest.fixture(scope="session")
def other_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same store."""
    return with_other_items(bundle, tmp_path_factory.mktemp("other") / "bundle")


class Client:
    """Asks an application without a network."""

    def __init__(self, app: Gate, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    def send(self, method: str, path: str, content: bytes | None = None, **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                given = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(
                    method, path, content=content, headers={"content-type": "application/json", **given}
                )

        return asyncio.run(send())

    def ask(self, path: str, **query: object) -> tuple[int, Any]:
        response = self.send("POST", path, json.dumps(query).encode())
        return response.status_code, response.json()


@pytest.fixture(scope="module")
def make_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Client]]:
    """Serve a bundle with settings, events in a folder of their own."""
    hosts = []

    def make(
        path: Path, key: str | None = None, index: str | None = None, events: str | None = None, **settings: object
    ) -> Client:
        serving, metrics = ServeConfig.model_validate(settings), Metrics()
        events = events or str(tmp_path_factory.mktemp("events"))
        host = open_host(path, serving, metrics, index=index, events=events)
        hosts.append(host)
        return Client(create_app(host, serving, metrics, key), metrics)

    yield make
    for host in hosts:
        host.close()


@pytest.fixture(scope="module")
def client(bundle: Path, make_client: Callable[..., Client]) -> Client:
    return make_client(bundle)
