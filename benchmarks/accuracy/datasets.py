"""The data sets of the benchmark: how each is read, prepared and judged.

Takes a folder of Parquet tables (Complete Journey comes from PyPI); gives a store that every method
trains on and is judged by, made once and kept.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from prismrec.config import PrepareConfig
from prismrec.data.datasets import complete_journey
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.demo import PREPARE as COMPLETE_JOURNEY
from prismrec.errors import ArtifactError, DataError

Tables = tuple[pl.DataFrame, pl.DataFrame]
KS = (10, 50)
"""Lengths of the lists that are judged."""


@dataclass(frozen=True)
class Dataset:
    """One data set and its protocol; items of a user's history are never targets, nor recommended."""

    name: str
    read: Callable[[Path], Tables]
    """From the folder of all data sets to events and items."""
    prepare: PrepareConfig
    headline: str
    """The metric that tables are sorted by."""
    validate_k: int
    """Every method that validates keeps the weights of the best validation recall at this k."""
    before_target_time: bool = False
    """Histories end before the moment of the first target (baskets)."""


def _interactions(name: str, *features: str | pl.Expr) -> Callable[[Path], Tables]:
    """A reader of `interactions.parquet` and `items.parquet`; the catalogue is the items that were ever chosen."""

    def read(data: Path) -> Tables:
        folder = data / name
        for file in ("interactions.parquet", "items.parquet"):
            if not (folder / file).is_file():
                raise DataError(f"{folder / file}: expected a table of {name}, found none; --data names its parent")
        events = pl.read_parquet(folder / "interactions.parquet").select("user_id", "item_id", "timestamp")
        items = pl.read_parquet(folder / "items.parquet").select("item_id", "title", *features)
        return events, items.join(events, on="item_id", how="semi", maintain_order="left")

    return read


_GENRES = pl.col("category").str.split("|")

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "ml1m",
            _interactions("ml1m", _GENRES, "top_category", "decade", "year"),
            PrepareConfig(),
            "ndcg@10",
            validate_k=10,
        ),
        Dataset(
            "amazon_beauty",
            _interactions("amazon_beauty", "category", "top_category", "attribute_ids"),
            PrepareConfig(),
            "ndcg@10",
            validate_k=10,
        ),
        Dataset(
            "movietweetings",
            _interactions("movietweetings", _GENRES, "top_category", "year"),
            PrepareConfig(min_user_events=5),
            "ndcg@10",
            validate_k=10,
        ),
        Dataset(
            "complete_journey",
            lambda data: complete_journey(),
            COMPLETE_JOURNEY,
            "recall@50",
            validate_k=50,
            before_target_time=True,
        ),
    )
}


def open_store(dataset: Dataset, data: Path, work: Path) -> Store:
    """The store of a data set, made if it is not there or was made with other settings.

    Raises:
        DataError: a table is missing or cannot be used.
    """
    path = work / dataset.name / "store"
    wanted: dict[str, Any] = dataset.prepare.model_dump(mode="json")
    with suppress(ArtifactError):
        store = Store.open(path)
        if store.manifest["settings"] == wanted:
            return store
    return prepare(*dataset.read(data), path, dataset.prepare)
