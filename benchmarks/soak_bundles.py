"""Two small bundles of one made shop for `soak.py`, to take turns under a server: a trained one, and it with new items.

Users buy mostly from two of the categories; ids are integers, items have titles and categories, events a dwell time.
"""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from prismrec.data.prepare import prepare
from prismrec.export.bundle import export
from prismrec.export.extend import extend
from prismrec.toml import load_config
from prismrec.train.trainer import train

START, YEAR = 1_700_000_000, 365 * 86_400
CATEGORIES = 20
NEW_ITEMS = 100
EVENTS_PER_USER = 30
MODEL = ("model.embedding_dim=32", "model.num_interests=4", "history.max_length=50", "train.epochs=1")


def make_bundles(work: Path, users: int, items: int) -> list[Path]:
    """Make what is missing of the store, the run and the two bundles in `work`."""
    first, second = work / "bundle", work / "bundle-extended"
    if not first.exists():
        quiet = Console(quiet=True)
        shutil.rmtree(work / "run", ignore_errors=True)
        store = prepare(_events(users, items), _items(0, items), work / "store", console=quiet)
        train(store.path, work / "run", load_config(None, MODEL), console=quiet)
        export(work / "run", first)
    if not second.exists():
        extend(first, _items(items, items + NEW_ITEMS), second)
    return [first, second]


def _events(users: int, items: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(users), EVENTS_PER_USER)
    liked = rng.integers(0, CATEGORIES, (users, 2))[user, rng.integers(0, 2, len(user))]
    item = liked + CATEGORIES * (rng.random(len(user)) ** 2 * (items // CATEGORIES)).astype(np.int64)
    time, dwell = START + rng.integers(0, YEAR, len(user)), rng.integers(1, 300, len(user))
    return pl.DataFrame({"user_id": user, "item_id": item, "timestamp": time, "dwell": dwell})


def _items(start: int, stop: int) -> pl.DataFrame:
    category = pl.format("category {}", pl.col("item_id") % CATEGORIES)
    items = pl.DataFrame({"item_id": np.arange(start, stop)})
    return items.with_columns(title=pl.format("Item {}", "item_id"), category=category)
