"""The other environment's side of `peers/elsewhere.py`: tables in, lists out, NumPy and pandas only.

Items are numbered by their place in items.parquet, from 0; users of a question by their place in its
history table.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
_USERS_PER_BLOCK = 512


class Folder:
    """What the benchmark handed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.task = json.loads((path / "task.json").read_text())
        self.settings = self.task["settings"]
        self.items = pd.Index(pd.read_parquet(path / "items.parquet")["item_id"])

    def train(self) -> pd.DataFrame:
        """Training events: user_id, item (a number), timestamp; by user, oldest first."""
        table = pd.read_parquet(self.path / "train.parquet")
        return table.assign(item=self.items.get_indexer(table["item_id"]))

    def questions(self, name: str) -> "Questions":
        """The questions of "validation" or of a split."""
        history = pd.read_parquet(self.path / f"{name}_history.parquet")
        user, users = pd.factorize(history["user_id"])
        index = pd.Index(users)

        def pairs(table: pd.DataFrame) -> tuple[Ints, Ints]:
            return index.get_indexer(table["user_id"]), self.items.get_indexer(table["item_id"])

        targets = self.path / f"{name}_targets.parquet"
        return Questions(
            users=index,
            history=(user, self.items.get_indexer(history["item_id"])),
            seen=pairs(pd.read_parquet(self.path / f"{name}_seen.parquet")),
            targets=pairs(pd.read_parquet(targets)) if targets.exists() else None,
        )

    def write(self, split: str, questions: "Questions", best: Ints) -> None:
        """Write the lists of a split: item numbers [U, k], best first, -1 where there is none."""
        user, rank = np.nonzero(best >= 0)
        table = pd.DataFrame(
            {"user_id": questions.users[user], "item_id": self.items[best[user, rank]], "rank": rank + 1}
        )
        table.to_parquet(self.path / f"{split}_lists.parquet", index=False)

    def finish(self, parameters: int, taken: dict[str, float], **notes: object) -> None:
        """Write what is known of the training."""
        content = {"parameters": parameters, **taken, "notes": notes}
        (self.path / "fitted.json").write_text(json.dumps(content))


@dataclass(frozen=True)
class Questions:
    """Users to recommend to; pairs are (user's place [M], item number [M]), sorted by user."""

    users: pd.Index
    history: tuple[Ints, Ints]
    seen: tuple[Ints, Ints]
    targets: tuple[Ints, Ints] | None

    def best(self, users: Floats, items: Floats, k: int) -> Ints:
        """The k unseen items of highest inner product, [U, k]; items whose vector is NaN are never among them."""
        known = ~np.isnan(items[:, 0])
        vectors = np.nan_to_num(items)
        found = np.full((len(users), k), -1, np.int64)
        user, item = self.seen
        for start in range(0, len(users), _USERS_PER_BLOCK):
            block = slice(start, start + _USERS_PER_BLOCK)
            scores = users[block] @ vectors.T
            scores[:, ~known] = -np.inf
            first, last = np.searchsorted(user, [start, start + len(scores)])
            scores[user[first:last] - start, item[first:last]] = -np.inf
            top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            values = np.take_along_axis(scores, top, 1)
            order = np.argsort(-values, axis=1, kind="stable")
            values = np.take_along_axis(values, order, 1)
            found[block] = np.where(np.isneginf(values), -1, np.take_along_axis(top, order, 1))
        return found

    def recall(self, best: Ints) -> float:
        """Mean recall of lists of item numbers [U, k]; of the validation, which has targets."""
        if self.targets is None:
            raise ValueError("only the validation has targets")
        user, item = self.targets
        hit = (best[user] == item[:, None]).any(axis=1)
        total = np.bincount(user, minlength=len(best))
        return float(np.mean(np.bincount(user, hit, len(best)) / np.maximum(total, 1)))


class Stopwatch:
    """Time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def cpu(self) -> float:
        """Processor seconds of this process, all threads together."""
        return time.process_time() - self._cpu

    def read(self) -> dict[str, float]:
        """As the benchmark names them."""
        return {"train_seconds": time.perf_counter() - self._wall, "train_cpu_seconds": self.cpu()}
