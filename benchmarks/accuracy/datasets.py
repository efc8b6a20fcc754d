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


def _interactions(
    name: str, *features: str | pl.Expr, change: Callable[[pl.DataFrame], pl.DataFrame] = lambda events: events
) -> Callable[[Path], Tables]:
    """A reader of `interactions.parquet` and `items.parquet`; the catalogue is the items that were ever chosen.

    Args:
        name: the data set's folder.
        features: columns of its items.
        change: what is made of its events.
    """

    def read(data: Path) -> Tables:
        events = change(_table(data, name, "interactions.parquet").select("user_id", "item_id", "timestamp"))
        items = _table(data, name, "items.parquet").select("item_id", "title", *features)
        return events, items.join(events, on="item_id", how="semi", maintain_order="left")

    return read


def _table(data: Path, name: str, file: str) -> pl.DataFrame:
    path = data / name / file
    if not path.is_file():
        raise DataError(f"{path}: expected a table of {name}, found none; --data names its parent")
    return pl.read_parquet(path)


def _sessions_of_four(events: pl.DataFrame) -> pl.DataFrame:
    """Each user's events cut into runs of four, each a user of its own; what is left over is dropped."""
    place = pl.int_range(pl.len()).over("user_id")
    ordered = events.sort("user_id", "timestamp", maintain_order=True)
    runs = ordered.with_columns(pl.struct("user_id", place // 4).rank("dense").alias("user_id"))
    return runs.filter(pl.len().over("user_id") == 4)


def _long_watches(data: Path) -> Tables:
    """Videos that users of KuaiRand-Pure watched long, in order, and nothing known of them but their ids."""
    name = "kuairand_pure_part"
    earlier = _table(data, name, "history_meta.parquet").select("user_id", item_id="long_watch_seq")
    shown = _table(data, name, "interactions.parquet").filter(pl.col("long_view") == 1)
    later = shown.sort("timestamp", maintain_order=True).select("user_id", "item_id")
    watched = pl.concat([earlier.explode("item_id").drop_nulls(), later])
    events = watched.with_columns(timestamp=pl.int_range(pl.len()).over("user_id"))
    return events, events.select("item_id").unique(maintain_order=True)


_GENRES = pl.col("category").str.split("|")
_MOVIELENS = (_GENRES, "top_category", "decade", "year")
_TWEETED = (_GENRES, "top_category", "year")

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "ml1m",
            _interactions("ml1m", *_MOVIELENS),
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
            _interactions("movietweetings", *_TWEETED),
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
        Dataset(
            "sessions",
            _interactions("movietweetings", *_TWEETED, change=_sessions_of_four),
            PrepareConfig(),
            "ndcg@10",
            validate_k=10,
        ),
        Dataset("long_watches", _long_watches, PrepareConfig(min_user_events=5), "ndcg@10", validate_k=10),
        Dataset(
            "long_histories",
            _interactions("ml1m", *_MOVIELENS),
            PrepareConfig(min_user_events=300),
            "ndcg@10",
            validate_k=10,
        ),
    )
}
"""The last three chose nothing: they show what the defaults are worth on data that nobody tuned them for."""


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
