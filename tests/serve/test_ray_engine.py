"""Both engines give the same, on a real cluster of two workers; all that needs Ray is here, since it starts slowly."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from prismrec.data import sequences
from prismrec.data.prepare import prepare
from prismrec.engine import Engine, LocalEngine, open_engine
from prismrec.errors import DataError
from prismrec.export import vector_parts
from prismrec.export.vector_parts import write_vector_parts
from prismrec.serve import bulk
from prismrec.serve.bulk import recommend_parts

from .conftest import EVENTS, NUM_USERS

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray[.].*"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # of a start that was given up
]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    for attempts_left in (2, 1, 0):
        try:
            ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
            break
        except Exception:  # Ray gives its node 30 s to start, whatever else the machine is doing
            ray.shutdown()
            gc.collect()
            if not attempts_left:
                raise
    yield open_engine("ray")
    ray.shutdown()


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the driver, which tells the workers what their parts are."""
    monkeypatch.setattr(bulk, "_USERS_PER_PART", 5)
    monkeypatch.setattr(sequences, "_PART_EVENTS", 20)
    monkeypatch.setattr(sequences, "_BUCKET_EVENTS", 30)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_store(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    for part in range(3):
        EVENTS[part::3].write_parquet(tmp_path / "events" / f"{part}.parquet")
    here = prepare(tmp_path / "events", None, tmp_path / "here", console=QUIET)
    there = prepare(tmp_path / "events", None, tmp_path / "there", console=QUIET, engine=engine)
    assert here.num_events == len(EVENTS)
    assert contents(here.path) == contents(there.path)


def test_the_same_fault(engine: Engine, tmp_path: Path) -> None:
    EVENTS.with_columns(timestamp=pl.when(pl.int_range(pl.len()) == 70).then(-5).otherwise("timestamp")).write_parquet(
        tmp_path / "events.parquet"
    )
    message = f"{tmp_path}/events.parquet: column 'timestamp', row 71: expected seconds from 0 up"
    for one in (engine, None):
        with pytest.raises(DataError, match=re.escape(message)):
            prepare(tmp_path / "events.parquet", None, tmp_path / "store", console=QUIET, engine=one)
    assert [path.name for path in tmp_path.iterdir()] == ["events.parquet"]


def test_the_same_recommendations(engine: Engine, bundle: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert recommend_parts(bundle, str(here), k=4, console=QUIET) == (NUM_USERS, 4 * NUM_USERS)
    assert recommend_parts(bundle, str(there), k=4, console=QUIET, engine=engine) == (NUM_USERS, 4 * NUM_USERS)
    assert contents(here) == contents(there)
    assert len(contents(here)) == 4


def test_the_same_recommendations_to_users_in_files(engine: Engine, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    for part in range(3):
        EVENTS.filter(pl.col("user_id") % 3 == part).write_parquet(tmp_path / "users" / f"{part}.parquet")
    for name, one in {"here": None, "there": engine}.items():
        recommend_parts(bundle, str(tmp_path / name), str(tmp_path / "users"), k=4, console=QUIET, engine=one)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_the_same_vectors(engine: Engine, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_parts, "_USERS_PER_PART", 5)
    monkeypatch.setattr(vector_parts, "_ITEMS_PER_PART", 20)
    for name, one in {"here": LocalEngine(), "there": engine}.items():
        write_vector_parts(bundle, str(tmp_path / name), one, QUIET)
    for name, parts in {"items": 2, "users": 3}.items():
        assert contents(tmp_path / "here" / name) == contents(tmp_path / "there" / name)
        assert len(contents(tmp_path / "here" / name)) == parts + 1
