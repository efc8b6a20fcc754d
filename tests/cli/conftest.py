"""A tiny shop on disk, the command line in this process or in one of its own, and what it makes of the shop."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from prismrec.cli import main

NUM_USERS, NUM_ITEMS, START = 40, 60, 1_600_000_000


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


class Shop(NamedTuple):
    """Tables on disk, and the events as they should be read."""

    events: Path
    items: Path
    frame: pl.DataFrame


Call = Callable[..., Outcome]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def call() -> Call:
    """Run the command line in this process, which saves its start."""

    def call(*arguments: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Outcome(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def start() -> Start:
    """Start `python -m prismrec`."""

    def start(*arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "prismrec", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    return start


@pytest.fixture(scope="session")
def call_process(start: Start) -> Call:
    """Run the command line in a process of its own."""

    def call_process(*arguments: object) -> Outcome:
        process = start(*arguments)
        out, err = process.communicate(timeout=120)
        return Outcome(process.returncode, out, err)

    return call_process


@pytest.fixture(scope="session")
def write_shop() -> Callable[[Path, bool, str], Shop]:
    """Write a shop whose users have ten events each, with ids 100 and 1 or `user 100` and `item 1`."""

    def write(folder: Path, text: bool, form: str) -> Shop:
        rng = np.random.default_rng(0)
        events = pl.DataFrame(
            {
                "customer": 100 + np.repeat(np.arange(NUM_USERS), 10),
                "item_id": 1 + np.concatenate([rng.permutation(NUM_ITEMS)[:10] for _ in range(NUM_USERS)]),
                "timestamp": START + 3600 * rng.permutation(10 * NUM_USERS),
                "shop": [f"shop {number}" for number in rng.integers(0, 4, 10 * NUM_USERS)],
            }
        )
        items = pl.DataFrame({"item_id": range(1, NUM_ITEMS + 1)})
        if text:
            events = events.with_columns(pl.format("user {}", "customer").alias("customer"))
            events, items = (
                one.with_columns(pl.format("item {}", "item_id").alias("item_id")) for one in (events, items)
            )
        items = items.with_columns(category=pl.int_range(NUM_ITEMS) % 5, title=pl.format("Title {}", "item_id"))
        paths = folder / f"events.{form}", folder / f"items.{form}"
        for path, frame in zip(paths, (events, items), strict=True):
            frame.write_csv(path) if form == "csv" else frame.write_parquet(path)
        return Shop(*paths, events.rename({"customer": "user_id"}))

    return write


class Made(NamedTuple):
    """A shop, what each verb wrote of it, and what it said."""

    shop: Shop
    folder: Path
    said: dict[str, Outcome]

    def __getattr__(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="session")
def make(write_shop: Callable[[Path, bool, str], Shop]) -> Callable[..., Made]:
    """Take a new shop through every verb up to `recommend`."""

    def make(folder: Path, call: Call, *, text: bool, form: str) -> Made:
        shop = write_shop(folder, text, form)
        store, run, bundle = folder / "store", folder / "run", folder / "bundle"
        settings = folder / "settings.toml"
        settings.write_text("[model]\nembedding_dim = 16\n\n[loss]\nqueue_size = 64\n")
        few = [f"--set={setting}" for setting in ("train.batch_size=32", "train.max_steps=8", "train.device=cpu")]
        said = {
            "prepare": call(
                "prepare", "--events", shop.events, "--items", shop.items, "--columns=user=customer", "--out", store
            ),
            "train": call("train", store, "--out", run, "--config", settings, *few),
            "evaluate": call("evaluate", run, "--split=valid", "--k=5,20"),
            "export": call("export", run, "--out", bundle),
            "recommend": call("recommend", bundle, "--k=7", "--out", folder / "recs.parquet"),
        }
        return Made(shop, folder, said)

    return make


@pytest.fixture(scope="session")
def shops(make: Callable[..., Made], call: Call, call_process: Call, tmp_path_factory: pytest.TempPathFactory):
    """A shop with text as ids, from Parquet; at the same time one with integers, from CSV, by one process a verb."""
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(make, tmp_path_factory.mktemp("processes"), call_process, text=False, form="csv")
        shop = make(tmp_path_factory.mktemp("made"), call, text=True, form="parquet")
        return {"text, Parquet": shop, "integers, CSV, processes": other.result()}


@pytest.fixture(scope="session")
def made(shops: dict[str, Made]) -> Made:
    """The first of them."""
    return shops["text, Parquet"]


@pytest.fixture(scope="session")
def made_in_processes(shops: dict[str, Made]) -> Made:
    """The second."""
    return shops["integers, CSV, processes"]
