"""What every method is given and gives back, so that all are trained, chosen and asked alike.

A method is a function from a `Task` to a `Fitted`: it trains on the training events of the store,
may choose its best epoch by recall on the validation queries, and writes one list of recommendations
per query to a file. Nothing else leaves a method; `score.py` judges the files.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import KS, Dataset
from lists import write_lists

from prismrec.data.store import Split, Store
from prismrec.evaluate.measure import recall_of
from prismrec.evaluate.queries import Queries, make_queries
from prismrec.evaluate.retrieval import Scorer, merge_interests, ranked_lists

K = max(KS)
"""Length of every list."""
VALIDATE_USERS = 10_000
"""Users of a validation during training, at most; the same for every method of one seed."""

Settings = dict[str, Any]
MakeScorer = Callable[[Queries], Scorer]


@dataclass(frozen=True)
class Task:
    """One training: the data, the questions, and how."""

    dataset: Dataset
    store: Store
    queries: Mapping[Split, Queries]
    """The questions to answer, by split."""
    seed: int
    settings: Settings
    folder: Path
    """The method's own: its lists, and whatever else it writes."""
    peers_python: Path
    """Interpreter of the environment that holds packages PrismRec cannot live with."""

    def lists_path(self, split: Split) -> Path:
        """Where the lists of a split go."""
        return self.folder / f"{split}_lists.parquet"

    def validation(self) -> Queries:
        """The questions that choose the best epoch: a sample of the validation split."""
        return split_queries(self.dataset, self.store, "valid", VALIDATE_USERS, self.seed)


@dataclass(frozen=True)
class Fitted:
    """What is known of a method after it wrote its lists."""

    parameters: int
    """Numbers that training chose."""
    train_seconds: float
    """Of training and its validations; neither preparation nor ranking."""
    train_cpu_seconds: float
    """The same by processor time, which other work on the machine does not lengthen."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Epochs, the best one, its validation recall; versions of packages of another environment."""


Method = Callable[[Task], Fitted]


class Stopwatch:
    """Time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def cpu(self) -> float:
        """Processor seconds of this process, all threads together."""
        return time.process_time() - self._cpu

    def read(self) -> tuple[float, float]:
        """Seconds and processor seconds, as a `Fitted` has them."""
        return time.perf_counter() - self._wall, self.cpu()


def split_queries(dataset: Dataset, store: Store, split: Split, max_users: int | None = None, seed: int = 0) -> Queries:
    """The questions of a split under the data set's protocol."""
    return make_queries(
        store,
        split,
        exclude_seen=True,
        before_target_time=dataset.before_target_time,
        max_users=max_users,
        seed=seed,
    )


def rank(scorer: Scorer, queries: Queries, num_items: int, k: int, num_interests: int = 1) -> np.ndarray:
    """The k best unseen items of each query, catalogue rows int64 [U, k]; an item's score is its best vector's."""
    return merge_interests(*ranked_lists(scorer, queries.seen, num_items, min(k, num_items), num_interests))


def answer(task: Task, make_scorer: MakeScorer, num_interests: int = 1) -> None:
    """Rank the catalogue for every question of a task and write the lists."""
    for split, queries in task.queries.items():
        rows = rank(make_scorer(queries), queries, task.store.num_items, K, num_interests)
        write_lists(task.lists_path(split), task.store, queries.user, rows)


def validation_recall(task: Task, queries: Queries, scorer: Scorer, num_interests: int = 1) -> float:
    """Mean recall at the data set's k, by which epochs are compared."""
    k = min(task.dataset.validate_k, task.store.num_items)
    rows = rank(scorer, queries, task.store.num_items, k, num_interests)
    return float(np.mean(recall_of(rows, queries.targets, k)))
