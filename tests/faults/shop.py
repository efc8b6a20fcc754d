"""A tiny shop and what each verb makes of it when nobody disturbs it; how many processes are killed, and where.

`PRISMREC_FAULT_ROUNDS` is the number of kills, `PRISMREC_FAULT_SEED` what their moments are drawn from.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ..commands import Commands, Outcome

ROUNDS = int(os.environ.get("PRISMREC_FAULT_ROUNDS", "12"))
SEED = int(os.environ.get("PRISMREC_FAULT_SEED", "0"))
KINDS = {"prepare": 4, "append": 2, "train": 3, "export": 1, "events": 1, "swap": 1}
"""Shares of the rounds."""
NUM_USERS, NUM_ITEMS, START = 40, 60, 1_600_000_000
SETTINGS = (
    "model.embedding_dim=16",
    "model.encoder.num_layers=1",
    "loss.queue_size=64",
    "train.batch_size=32",
    "train.max_steps=30",
    "train.checkpoint_every=3",
    "train.validate_every=5",
    "train.validate_k=5",  # of which later validations find more, so that weights are replaced
    "train.log_every=1",
    "train.device=cpu",
)


def share(kind: str) -> int:
    """Rounds of a kind, at least one."""
    return max(1, round(ROUNDS * KINDS[kind] / sum(KINDS.values())))


@dataclass(frozen=True)
class Shop:
    """Tables, a store, the same with a day appended, a run, a bundle, and one with a new item."""

    folder: Path
    commands: Commands
    outcomes: dict[str, Outcome]

    def path(self, name: str) -> Path:
        return self.folder / name

    def prepare(self, out: Path, events: str = "events.parquet") -> list[object]:
        return ["prepare", "--events", self.path(events), "--items", self.path("items.parquet"), "--out", out]

    def append(self, store: Path) -> list[object]:
        return ["append", store, "--events", self.path("day.parquet")]

    def train(self, out: Path) -> list[object]:
        """Begin, or go on with what has begun."""
        has_begun = (out / "config.toml").exists()
        settings = ["--resume"] if has_begun else [f"--set={setting}" for setting in SETTINGS]
        return ["train", self.path("store"), "--out", out, *settings]

    def export(self, out: Path) -> list[object]:
        return ["export", self.path("run"), "--out", out]

    def extend(self, out: Path) -> list[object]:
        return ["extend", self.path("bundle"), "--items", self.path("new.parquet"), "--out", out]


def make_shop(folder: Path, commands: Commands) -> Shop:
    """Run every verb once."""
    rng = np.random.default_rng(0)
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(NUM_USERS), 10),
            "item_id": 1 + np.concatenate([rng.permutation(NUM_ITEMS)[:10] for _ in range(NUM_USERS)]),
            "timestamp": START + 3600 * rng.permutation(10 * NUM_USERS),
            "shop": rng.integers(0, 4, 10 * NUM_USERS),
        }
    )
    events.write_parquet(folder / "events.parquet")
    events[:300].write_parquet(folder / "earlier.parquet")
    later = pl.col("timestamp") + 10_000_000
    events[::3].with_columns(later).write_parquet(folder / "day.parquet")
    items = pl.DataFrame({"item_id": range(1, NUM_ITEMS + 2)}).with_columns(category=pl.col("item_id") % 5)
    items[:-1].write_parquet(folder / "items.parquet")
    items[-1:].write_parquet(folder / "new.parquet")
    shop, outcomes = Shop(folder, commands, {}), {}
    for name, command in {
        "prepare": shop.prepare(folder / "store"),
        "earlier": shop.prepare(folder / "earlier-store", "earlier.parquet"),
        "another": shop.prepare(folder / "grown"),
        "append": shop.append(folder / "grown"),
        "train": shop.train(folder / "run"),
        "export": shop.export(folder / "bundle"),
        "extend": shop.extend(folder / "extended"),
    }.items():
        outcomes[name] = commands.succeed(*command)
    return Shop(folder, commands, outcomes)
