"""Loading into servers, opening what they hold, and what happens when they go away."""

import gc
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from pymilvus import MilvusClient

from prismrec.errors import SearchIndexError
from prismrec.index import milvus
from prismrec.index.base import Index
from prismrec.index.engines import load_index, open_index
from prismrec.index.postgres import Database

VECTORS = np.random.default_rng(5).normal(size=(800, 8)).astype(np.float32)
QUERIES = np.random.default_rng(6).normal(size=(5, 8)).astype(np.float32)
_NUMBERS = count()
CATEGORIES = np.arange(800)[:, None] % 7

# Loads three blocks of 100, says so and waits.
LOADER = """
import sys, time
import numpy as np
from prismrec.index.engines import load_index

def blocks():
    for start in range(0, 800, 100):
        if start == 300:
            print("loaded", flush=True)
            time.sleep(600)
        yield np.random.default_rng(5).normal(size=(800, 8)).astype(np.float32)[start : start + 100]

load_index(sys.argv[1], sys.argv[2], blocks(), np.arange(800)[:, None] % 7, fingerprint="f")
"""


@pytest.fixture(params=["postgres_url", "milvus_url"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def name() -> str:
    """One that no other test uses."""
    return f"servers_{next(_NUMBERS)}"


def _blocks(size: int = 100, stop: int = 800) -> Iterator[np.ndarray]:
    for start in range(0, stop, size):
        yield VECTORS[start : min(start + size, stop)]


def _broken() -> Iterator[np.ndarray]:
    yield from _blocks(stop=300)
    raise OSError("the disk is gone")


def _open(url: str, name: str, **changes: Any) -> Index:
    return open_index(url, name, **{"fingerprint": "f", "num_vectors": 800, "dimension": 8, **changes})


def _check_whole(index: Index) -> None:
    np.testing.assert_array_equal(index.vectors(np.arange(1, 801)), VECTORS)
    _, rows = index.search(QUERIES, 10)
    np.testing.assert_array_equal(rows, np.argsort(-QUERIES @ VECTORS.T, axis=1)[:, :10] + 1)


def test_loading_goes_on_where_it_stopped(url: str, name: str) -> None:
    progress: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        load_index(url, name, _broken(), CATEGORIES, fingerprint="f", progress=progress.append)
    assert progress == [100, 200, 300]
    with pytest.raises(SearchIndexError, match=r"load .* again to go on"):
        _open(url, name)
    progress.clear()
    load_index(url, name, _blocks(250), CATEGORIES, fingerprint="f", progress=progress.append)
    assert progress == [500, 750, 800]
    _check_whole(_open(url, name))


def test_what_is_loaded_is_not_loaded_again(url: str, name: str) -> None:
    progress: list[int] = []
    load_index(url, name, VECTORS, CATEGORIES, fingerprint="f", progress=progress.append)
    assert progress == [800]
    load_index(url, name, VECTORS, CATEGORIES, fingerprint="f", progress=progress.append)
    assert progress == [800]
    _check_whole(_open(url, name))


@pytest.mark.parametrize("url", ["postgres_url", "milvus_file"], indirect=True)
def test_loading_goes_on_after_the_loader_was_killed(url: str, name: str) -> None:
    with subprocess.Popen([sys.executable, "-c", LOADER, url, name], stdout=subprocess.PIPE, text=True) as loader:
        assert loader.stdout is not None
        assert loader.stdout.readline() == "loaded\n"
        loader.send_signal(signal.SIGKILL)
    progress: list[int] = []
    load_index(url, name, _blocks(), CATEGORIES, fingerprint="f", progress=progress.append)
    assert progress == [400, 500, 600, 700, 800]
    _check_whole(_open(url, name))


@pytest.fixture
def milvus_file(tmp_path: Path) -> str:
    """A file of its own: it belongs to one process at a time."""
    return f"milvus:{tmp_path}/killed.db"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "g"}, "expected fingerprint g, found fingerprint f; "),
        ({"dimension": 16}, "expected dimension 16, found dimension 8; "),
        ({"num_vectors": 801}, "expected num_vectors 801, found num_vectors 800; "),
    ],
)
def test_opening_other_vectors_is_refused(url: str, changes: dict[str, Any], message: str) -> None:
    load_index(url, "servers_others", VECTORS, fingerprint="f")
    with pytest.raises(SearchIndexError, match=message):
        _open(url, "servers_others", **changes)


@pytest.mark.parametrize(
    ("vectors", "categories", "fingerprint", "message"),
    [
        (VECTORS, None, "g", "expected fingerprint g, found fingerprint f; load under another name"),
        (VECTORS[:, :4], None, "f", "expected dimension 4, found dimension 8; load under another name"),
        (VECTORS, CATEGORIES, "f", "expected categories True, found categories False; load under another name"),
    ],
)
def test_loading_over_other_vectors_is_refused(
    url: str, vectors: np.ndarray, categories: np.ndarray | None, fingerprint: str, message: str
) -> None:
    load_index(url, "servers_others", VECTORS, fingerprint="f")
    with pytest.raises(SearchIndexError, match=message):
        load_index(url, "servers_others", vectors, categories, fingerprint=fingerprint)
    _check_whole(_open(url, "servers_others"))


def test_going_on_with_fewer_vectors_than_are_there_is_refused(url: str, name: str) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        load_index(url, name, _broken(), fingerprint="f")
    with pytest.raises(SearchIndexError, match="expected items 200, found items 300; load under another name"):
        load_index(url, name, _blocks(stop=200), fingerprint="f")


def test_opening_what_was_never_loaded_is_refused(url: str) -> None:
    with pytest.raises(SearchIndexError, match=r"index 'nothing': expected item vectors, found none.*load the index"):
        _open(url, "nothing")


def test_several_threads_search_one_index(url: str, name: str) -> None:
    load_index(url, name, VECTORS, fingerprint="f")
    index = _open(url, name)
    expected = index.search(QUERIES, 10)[1]
    with ThreadPoolExecutor(4) as pool:
        for _, rows in pool.map(lambda _: index.search(QUERIES, 10), range(12)):
            np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("scheme", ["postgresql", "milvus+http"])
def test_a_server_that_cannot_be_reached_is_named_without_the_password(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus, "_CONNECT_SECONDS", 1)
    with pytest.raises(SearchIndexError, match=r"at 127\.0\.0\.1.*; start it, or correct the index URL") as caught:
        _open(f"{scheme}://someone:secret@127.0.0.1:1/items", "items")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://someone:%zzsecret@host/items", "milvus:secret", "milvus+tcp://secret"])
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(SearchIndexError, match=r"^index URL: expected ") as caught:
        _open(url, "items")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("url", "found"), [("redis://host", "redis:"), ("items.faiss", "none")])
def test_another_engine_is_refused(url: str, found: str) -> None:
    with pytest.raises(SearchIndexError, match=rf"begins with postgresql:, .*, milvus\+https:; found {found}$"):
        _open(url, "items")


@pytest.mark.parametrize(
    ("url", "module", "package", "extra"),
    [
        ("postgresql://host/items", "pgvector_index", "psycopg", "pgvector"),
        ("milvus:items.db", "milvus_index", "pymilvus", "milvus"),
    ],
)
def test_a_client_that_is_not_installed_is_named(
    url: str, module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (module, module.removesuffix("_index"), "postgres"):
        monkeypatch.delitem(sys.modules, f"prismrec.index.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SearchIndexError, match=rf"package {package} .* pip install 'prismrec\[{extra}\]'"):
        _open(url, "items")


def test_pgvector_does_not_index_long_vectors(postgres_url: str, name: str) -> None:
    with pytest.raises(SearchIndexError, match=r"expected at most 2000 dimensions, .* found 2001"):
        load_index(postgres_url, name, np.zeros((1, 2001), np.float32), fingerprint="f")


def test_pgvector_searches_on_after_a_restart(postgres: Any, postgres_url: str, name: str) -> None:
    load_index(postgres_url, name, VECTORS, fingerprint="f")
    index = _open(postgres_url, name)
    _check_whole(index)
    postgres.kill()
    try:
        with pytest.raises(SearchIndexError, match=r"PostgreSQL at .* expected a server that lets us in"):
            index.search(QUERIES, 10)
    finally:
        postgres.start()
    _check_whole(index)
    postgres.kill()
    postgres.start()
    _check_whole(index)


def test_pgvector_searches_the_graph_and_closes_its_connections(postgres_url: str, name: str) -> None:
    load_index(postgres_url, name, VECTORS, fingerprint="f")
    index = _open(postgres_url, name)
    index.search(QUERIES, 10)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        assert connection.execute(others).fetchone() != (0,)
        del index
        gc.collect()
        _wait_for(lambda: connection.execute(others).fetchone() == (0,))
        scans = f"SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = '{name}_graph'"
        # the server counts when a connection ends
        _wait_for(lambda: connection.execute(scans).fetchone() == (len(QUERIES),))


@pytest.mark.parametrize("server", ["postgres_url", "milvus_url"])
def test_what_was_opened_leaves_nothing_behind(server: str, name: str, request: pytest.FixtureRequest) -> None:
    """A server opens an index at every change of its bundle, for weeks; psycopg kept 40 objects of each time.

    What is kept is kept every time: one of three rounds has to grow by less than an object for each index opened, so
    that what a library's own thread makes meanwhile (Milvus in this process, an answer in the log) does not count.
    """
    url, times = request.getfixturevalue(server), 10
    load_index(url, name, VECTORS, fingerprint="f")

    def objects_afterwards() -> int:
        for _ in range(times):
            _open(url, name).search(QUERIES, 10)
        gc.collect()
        return len(gc.get_objects())

    counts = [objects_afterwards() for _ in range(4)]
    growth = [after - before for before, after in pairwise(counts)]
    assert min(growth) < times, growth


def test_a_table_that_is_gone_is_reported(postgres_url: str, name: str) -> None:
    load_index(postgres_url, name, VECTORS, fingerprint="f")
    index = _open(postgres_url, name)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"DROP TABLE {name}")
    with pytest.raises(SearchIndexError, match=f'expected an answer, found: relation "{name}" does not exist'):
        index.search(QUERIES, 10)


def test_milvus_loads_again_what_arrived_in_part(milvus_url: str, name: str) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        load_index(milvus_url, name, _broken(), fingerprint="f")
    MilvusClient(milvus_url.removeprefix("milvus:")).delete(name, filter="row > 120 and row <= 150")
    load_index(milvus_url, name, _blocks(), fingerprint="f")
    _check_whole(_open(milvus_url, name))


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_machine_that_is_gone_without_a_word_is_noticed(postgres_url: str) -> None:
    def parameters(url: str) -> dict[str, str]:
        with Database(url).connection() as connection:
            return connection.info.get_parameters()

    found = parameters(postgres_url)
    assert (found["keepalives_idle"], found["tcp_user_timeout"], found["connect_timeout"]) == ("10", "25000", "10")
    separator = "&" if "?" in postgres_url else "?"
    found = parameters(f"{postgres_url}{separator}keepalives_idle=60")
    assert (found["keepalives_idle"], found["keepalives_count"]) == ("60", "3")


def _with_timeout(url: str, milliseconds: int) -> str:
    return f"{url}{'&' if '?' in url else '?'}options=-c%20statement_timeout%3D{milliseconds}"


def test_a_search_that_hangs_is_given_up(postgres_url: str, name: str) -> None:
    load_index(postgres_url, name, VECTORS, fingerprint="f")
    index = _open(_with_timeout(postgres_url, 200), name)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"LOCK TABLE {name}")
        for search in (lambda: index.search(QUERIES, 10), lambda: index.vectors(np.array([1]))):
            with pytest.raises(SearchIndexError, match="expected an answer, found: canceling statement due to"):
                search()
    _check_whole(index)


def test_who_says_for_how_long_to_wait(postgres_url: str) -> None:
    def seconds(database: Database) -> str:
        return database.run(lambda connection: connection.execute("SHOW statement_timeout").fetchone())[0]

    assert seconds(Database(postgres_url)) == "30s"
    assert seconds(Database(_with_timeout(postgres_url, 5000))) == "5s"
    assert seconds(Database(_with_timeout(postgres_url, 0))) == "0"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER ROLE postgres SET statement_timeout = 7000")
        try:
            assert seconds(Database(postgres_url)) == "7s"
        finally:
            connection.execute("ALTER ROLE postgres RESET statement_timeout")
    with Database(postgres_url).connection() as connection:  # to load and index a table takes long
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_wrong_parameter_of_a_url_is_said(postgres_url: str) -> None:
    separator = "&" if "?" in postgres_url else "?"
    with pytest.raises(SearchIndexError, match=r"that lets us in, found: .*connect_timeout"):
        open_index(f"{postgres_url}{separator}connect_timeout=soon", "any", fingerprint="f", num_vectors=1, dimension=8)
