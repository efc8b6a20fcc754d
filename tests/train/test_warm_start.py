"""A new run takes over what fits of an older one, matched by name, and says what it could not take."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.train.trainer import train
from prismrec.train.warm_start import open_older_run

MakeConfig = Callable[..., Config]


def group_events() -> pl.DataFrame:
    users, events = 40, 5
    return pl.DataFrame(
        {
            "user_id": [user for user in range(users) for _ in range(events)],
            "item_id": [(user + event) % 20 for user in range(users) for event in range(events)],
            "timestamp": range(users * events),
        }
    )


def items(**columns: int) -> pl.DataFrame:
    """20 items with features that have so many distinct values."""
    return pl.DataFrame(
        {"item_id": range(20)} | {name: [i % size for i in range(20)] for name, size in columns.items()}
    )


@pytest.fixture(scope="module")
def older_store(make_store: Callable[..., Store]) -> Store:
    return make_store(group_events(), items(category=5))


@pytest.fixture(scope="module")
def older(older_store: Store, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("older") / "run"
    return train(older_store.path, out, make_config("train.max_steps=3"), console=Console(quiet=True))


STILL = ("train.max_steps=1", "train.learning_rate=1e-30", "train.table_learning_rate=1e-30")
"""One step that moves nothing, so that a run's weights are those it started with."""


def test_everything_fits_the_same_world(
    older_store: Store, older: Path, make_config: MakeConfig, tmp_path: Path, said: Console
) -> None:
    train(older_store.path, tmp_path / "run", make_config(*STILL), warm_start=older, console=said)
    old, new = (load_file(next(run.glob("model-*.safetensors"))) for run in (older, tmp_path / "run"))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    text = said.export_text()
    assert f"{len(old)} of {len(old)} tensors fit" in text
    assert "starts afresh: objective.router.prototypes" in text
    assert "left out" not in text


def test_features_are_matched_by_name_and_the_rest_is_named(
    make_store: Callable[..., Store], older: Path, make_config: MakeConfig, tmp_path: Path, said: Console
) -> None:
    """The new store has brands, which come before categories; without care their table would get the categories'."""
    store = make_store(group_events(), items(category=5, brand=5))
    assert store.schema.item_features == ("item_id", "brand", "category")
    config = make_config(*STILL, "model.num_heads=6")
    train(store.path, tmp_path / "run", config, warm_start=older, console=said)
    old, new = (load_file(next(run.glob("model-*.safetensors"))) for run in (older, tmp_path / "run"))
    assert torch.equal(new["items.embeddings.2.tables.0.weight"], old["items.embeddings.1.tables.0.weight"])
    assert not torch.equal(new["items.embeddings.1.tables.0.weight"], old["items.embeddings.1.tables.0.weight"])
    text = said.export_text()
    for name in ("items.embeddings.brand.tables.0.weight", "users.disentangle.router.prototypes"):
        assert f"starts afresh: {name}" in text
    assert "left out: users.disentangle.router.prototypes" in text
    assert "items.embeddings.category" not in text


def test_a_larger_catalogue_keeps_the_tables(
    make_store: Callable[..., Store], older: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    more = pl.concat(
        [group_events(), pl.DataFrame({"user_id": [1] * 30, "item_id": range(20, 50), "timestamp": range(30)})]
    )
    store = make_store(more)
    train(store.path, tmp_path / "run", make_config(*STILL), warm_start=older, console=Console(quiet=True))
    old, new = (load_file(next(run.glob("model-*.safetensors"))) for run in (older, tmp_path / "run"))
    assert torch.equal(new["items.embeddings.0.tables.1.weight"], old["items.embeddings.0.tables.1.weight"])


def test_the_older_store_need_not_be_there(older: Path, older_store: Store) -> None:
    hidden = older_store.path.with_name("hidden")
    older_store.path.rename(hidden)
    try:
        assert "items.embeddings.category.tables.0.weight" in open_older_run(older).weights
    finally:
        hidden.rename(older_store.path)


def test_a_missing_run_is_refused(older_store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a run directory"):
        train(older_store.path, tmp_path / "run", make_config(), warm_start=tmp_path / "none")
    assert not (tmp_path / "run").exists()
