"""Tables by URL: in memory, from a web server, and in an S3 server if moto and s3fs are installed."""

import functools
import http.server
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import polars as pl
import pytest
from rich.console import Console

from prismrec.data.append import append
from prismrec.data.prepare import prepare
from prismrec.errors import ArtifactError, DataError
from prismrec.locations import names, remove
from prismrec.parts import Written
from prismrec.serve.bulk import recommend_parts
from prismrec.serve.recommender import Recommender, write_recommendations

from .conftest import EVENTS

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    if not all(map(importlib.util.find_spec, ("moto", "s3fs"))):
        pytest.skip("needs moto[server] and s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("shop")
        yield "s3://shop"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of its own for every test."""
    return f"{request.getfixturevalue('s3') if request.param == 's3' else 'memory://shop'}/{tmp_path.name}"


def put(url: str, frame: pl.DataFrame) -> None:
    with fsspec.open(url, "wb") as file:
        frame.write_csv(file) if url.endswith(".csv") else frame.write_parquet(file)


def get(folder: str) -> list[pl.DataFrame]:
    frames = []
    for name in names(folder):
        if name.endswith(".parquet"):
            with fsspec.open(f"{folder}/{name}", "rb") as file:
                frames.append(pl.read_parquet(file.read()))
    return frames


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_store_of_tables_elsewhere(root: str, tmp_path: Path, ending: str) -> None:
    items = EVENTS.select("item_id").unique(maintain_order=True)
    put(f"{root}/events/0.{ending}", EVENTS[:30])
    put(f"{root}/events/deeper/1.{ending}", EVENTS[30:])
    put(f"{root}/items.{ending}", items)
    expected = prepare(EVENTS, items, tmp_path / "expected", console=QUIET).manifest
    assert prepare(f"{root}/events", f"{root}/items.{ending}", tmp_path / "store", console=QUIET).manifest == expected
    assert prepare(f"{root}/events/*.{ending}", None, tmp_path / "part", console=QUIET).num_events == 30
    put(f"{root}/events/deeper/1.{ending}", EVENTS[30:].with_columns(timestamp=pl.lit(-1, pl.Int64)))
    with pytest.raises(DataError, match=rf"{root}/events/deeper/1\.{ending}: column 'timestamp', row 1: expected sec"):
        prepare(f"{root}/events/", None, tmp_path / "store", console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "part", "store"]


def test_a_day_of_tables_elsewhere(root: str, tmp_path: Path) -> None:
    day = pl.DataFrame({"user_id": [1, 1000], "item_id": ["item 1", "new"], "timestamp": [2 * 10**9] * 2})
    put(f"{root}/monday/events.csv", day)
    put(f"{root}/monday/items.parquet", day.select("item_id"))
    stores = [prepare(EVENTS[:, :3], None, tmp_path / name, console=QUIET).path for name in ("there", "here")]
    there = append(stores[0], f"{root}/monday/*.csv", f"{root}/monday/items.parquet", console=QUIET)
    here = append(stores[1], day, console=QUIET)
    assert there.num_events == len(EVENTS) + 2
    assert there.manifest == here.manifest


def test_recommendations_of_and_to_elsewhere(root: str, bundle: Path, tmp_path: Path) -> None:
    folders = {"there": root, "here": str(tmp_path)}
    for folder in folders.values():
        for part in range(2):
            users = EVENTS.filter(pl.col("user_id") % 2 == part).select("user_id")
            if folder == str(tmp_path):
                (tmp_path / "users").mkdir(exist_ok=True)
                users.write_parquet(tmp_path / "users" / f"{part}.parquet")
            else:
                put(f"{folder}/users/{part}.parquet", users)
    for _ in range(2):
        written = [
            recommend_parts(bundle, f"{folder}/recs/", f"{folder}/users/", k=3, console=QUIET)
            for folder in folders.values()
        ]
        assert written == [Written(12, 36)] * 2
    there, here = get(f"{root}/recs"), get(f"{tmp_path}/recs")
    assert [one.equals(other) for one, other in zip(there, here, strict=True)] == [True, True]
    assert names(f"{root}/recs") == ["_SUCCESS", "part-00000.parquet", "part-00001.parquet"]

    with fsspec.open(f"{root}/recs/part-00001.parquet", "wb") as file:
        file.write(b"half a file")
    recommend_parts(bundle, f"{root}/recs/", f"{root}/users/", k=3, console=QUIET)
    assert get(f"{root}/recs")[1].equals(here[1])
    put(f"{root}/recs/other.parquet", EVENTS)
    with pytest.raises(ArtifactError, match=r"expected an empty folder or one of earlier parts, found other\.parquet"):
        recommend_parts(bundle, f"{root}/recs/", k=3, console=QUIET)
    remove(f"{root}/recs/other.parquet")
    remove(f"{root}/recs/other.parquet")
    assert len(names(f"{root}/recs")) == 3


def test_one_file_elsewhere(root: str, bundle: Path) -> None:
    recommender = Recommender.open(bundle)
    assert write_recommendations(recommender.stream(k=2), f"{root}/alone/recs.parquet") == (12, 24)
    assert get(f"{root}/alone")[0].equals(recommender.recommend(k=2))


def test_nothing_there(root: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: expected a Parquet or CSV file, found nothing there"):
        prepare(f"{root}/none", None, tmp_path / "store", console=QUIET)
    with pytest.raises(DataError, match=r"nowhere://x/: could not be read or written \(Protocol not known: nowhere"):
        prepare("nowhere://x/", None, tmp_path / "store", console=QUIET)


def test_a_file_of_a_web_server(tmp_path: Path) -> None:
    """And one that is a path in the form of a URL."""
    EVENTS.write_parquet(tmp_path / "events.parquet")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *given: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/events.parquet"
        found = prepare(url, None, tmp_path / "there", console=QUIET)
        server.shutdown()
    here = prepare(f"file://{tmp_path}/events.parquet", None, tmp_path / "here", console=QUIET)
    assert found.manifest == here.manifest
