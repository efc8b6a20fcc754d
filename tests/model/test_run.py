import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from prismrec.config import Config, HistoryConfig, PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.model.encode import encode_items
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.run import load_run, save_run


def make_store(path: Path, num_items: int = 9) -> Store:
    events = pl.DataFrame(
        {"user_id": [1, 1, 1, 2, 2, 2], "item_id": [1, 2, 3, 4, 5, 6], "timestamp": range(6), "dwell": 3, "shop": 1}
    )
    items = pl.DataFrame({"item_id": range(num_items), "category": np.arange(num_items) % 3})
    return prepare(events, items, path, PrepareConfig(), Console(quiet=True))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


@pytest.fixture
def saved(tmp_path: Path, store: Store, make_model: Callable[..., MultiInterestModel]) -> tuple[Path, Config]:
    model = make_model()
    config = Config(model=model.config, history=HistoryConfig(max_length=6))
    save_run(tmp_path / "run", config, store, model.state_dict(), best_step=7)
    return tmp_path / "run", config


def test_a_run_is_read_back_as_it_was(
    saved: tuple[Path, Config], store: Store, make_model: Callable[..., MultiInterestModel]
) -> None:
    run = load_run(saved[0])
    assert run.config == saved[1]
    assert run.manifest["best_step"] == 7
    assert run.manifest["schema"] == store.schema.model_dump(mode="json")
    assert not run.model.training
    original = make_model().state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in run.model.state_dict().items())
    np.testing.assert_array_equal(encode_items(run.model, run.store), encode_items(make_model(), store))


def test_a_store_that_was_moved_can_be_named(saved: tuple[Path, Config], store: Store, tmp_path: Path) -> None:
    moved = Path(shutil.move(store.path, tmp_path / "elsewhere"))
    with pytest.raises(ArtifactError, match="store"):
        load_run(saved[0])
    assert load_run(saved[0], store=moved).store.path == moved


def test_another_store_is_refused(saved: tuple[Path, Config], tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", num_items=10)
    with pytest.raises(ArtifactError, match=r"expected the store that .* was trained on"):
        load_run(saved[0], store=other.path)


@pytest.mark.parametrize("name", ["config.toml", "model-7.safetensors", "manifest.json"])
def test_a_missing_file_is_named(saved: tuple[Path, Config], name: str) -> None:
    (saved[0] / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load_run(saved[0])
