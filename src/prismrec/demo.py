"""The demo: a year of real grocery purchases, from raw tables to explained recommendations.

Takes a directory; leaves a store, two runs, a report and a bundle in it, and prints what three
households bought, the interests found in it, and what is recommended under each. It is also the
shortest complete program that uses PrismRec.
"""

import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismrec.config import PrepareConfig
from prismrec.data.datasets import complete_journey
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.evaluate.evaluator import evaluate
from prismrec.evaluate.report import print_report, write_report
from prismrec.export.bundle import export
from prismrec.serve.recommender import Recommender
from prismrec.toml import load_config
from prismrec.train.trainer import train

PREPARE = PrepareConfig(split="global_time", repeats="drop", valid_share=0.07, test_share=0.07)
"""The newest purchases are for testing, those before for validation; the task is the next *new* product."""
SETTINGS = (
    "popularity=0.75",
    "history.before_target_time=true",
    "model.num_heads=8",
    "model.item_norm=free",
    "model.temperature=0.1",
    "loss.temperature=0.1",
    "loss.queue_size=4096",
    "loss.in_batch_negatives=0",
    "loss.uniform_negatives=0",
    "loss.log_q=0",
    "train.epochs=1",
    "train.validate_every=175",
)
"""Chosen by validation recall; debiased in training (`log_q=0`), so that the dial of popularity is free at serving."""
HOUSEHOLDS = 3
K = (10, 50, 100)


def run_demo(out: Path, console: Console | None = None) -> Path:
    """Run every step, replacing what an earlier demo left in `out`.

    Returns:
        The bundle, ready for `prismrec recommend` and `prismrec serve`.

    Raises:
        DataError: the package with the data is not installed.
        ArtifactError: `out` holds something that no demo made.
    """
    console = console or Console()
    started = time.perf_counter()
    events, items = complete_journey()
    _heading(console, "1  Prepare", f"{len(events):,} purchases, {len(items):,} products")
    store = prepare(events, items, out / "store", PREPARE, console)

    _heading(console, "2  Train", "four vectors per household, then one for comparison")
    multi, single = _fresh(out / "multi"), _fresh(out / "single")
    train(store.path, multi, load_config(None, SETTINGS), console=console)
    train(store.path, single, load_config(None, [*SETTINGS, "model.num_interests=1"]), console=console)

    _heading(console, "3  Evaluate", "products a household had never bought, from the whole catalogue")
    report = evaluate(multi, "test", K, [single], console=console)
    write_report(report, multi)

    _heading(console, "4  Export", "a bundle that serves without PyTorch")
    bundle = export(multi, out / "bundle")
    console.print(bundle, markup=False)

    _heading(console, "5  Recommend", f"{HOUSEHOLDS} households")
    _show_households(Recommender.open(bundle), store, console)
    print_report(report, console)
    console.print(f"\nReport: {multi / 'report.html'}    Serve it: prismrec serve {bundle}", markup=False)
    console.print(f"{time.perf_counter() - started:,.0f} s in all")
    return bundle


def _heading(console: Console, step: str, what: str) -> None:
    console.print(f"\n[bold cyan]{step}[/]  {what}")


def _fresh(run: Path) -> Path:
    """Remove an earlier demo's run."""
    if run.exists():
        if not (run / "config.toml").exists():
            raise ArtifactError(f"{run}: expected a run of an earlier demo; choose another --out")
        shutil.rmtree(run)
    return run


def _show_households(recommender: Recommender, store: Store, console: Console) -> None:
    users = _chosen_households(store)
    shown = store.items.select("item_id", "title", "category")
    formed = recommender.interests(users).join(shown, on="item_id", how="left", maintain_order="left")
    found = recommender.recommend(users, k=K[-1]).join(shown, on="item_id", how="left", maintain_order="left")
    for user in users["user_id"]:
        _show_household(user, formed.filter(user_id=user), found.filter(user_id=user), console)


def _chosen_households(store: Store) -> pl.DataFrame:
    """Households of ordinary history, drawn by a fixed seed."""
    length = np.diff(store.offsets)
    ordinary = np.flatnonzero((length > np.quantile(length, 0.4)) & (length < np.quantile(length, 0.8)))
    chosen = np.sort(np.random.default_rng(0).choice(ordinary, HOUSEHOLDS, replace=False))
    return store.user_ids[chosen].to_frame()


def _show_household(user: int, formed: pl.DataFrame, found: pl.DataFrame, console: Console) -> None:
    """What was bought lately; each interest named by the categories it leads to, with the purchases close to it."""
    newest = formed.unique(["item_id", "timestamp"], maintain_order=True).sort("timestamp", descending=True)
    console.print(f"\n[bold]Household {user}[/], lately: {', '.join(_names(newest['title'].head(8)))}")
    table = Table(show_lines=True, expand=True)
    table.add_column("interest", ratio=2)
    table.add_column("like these purchases", ratio=3)
    table.add_column("recommended, with the rank among all", ratio=3)
    for (interest,), best in found.group_by("interest", maintain_order=True):
        categories = best["category"].drop_nulls().value_counts(sort=True, name="count")["category"].head(3)
        close = formed.filter(interest=interest).sort("closeness", descending=True)["title"].unique(maintain_order=True)
        table.add_row(
            "\n".join(_names(categories.str.to_titlecase())),
            "\n".join(_names(close.head(4))),
            "\n".join(f"{escape(title)} ({rank})" for title, rank in best.head(4).select("title", "rank").iter_rows()),
        )
    console.print(table)


def _names(titles: pl.Series) -> list[str]:
    return [escape(title) for title in titles]
