"""Serving with databases: the same answers, and what happens when one holds something else, or is away."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from rich.console import Console

from prismrec.errors import SearchIndexError
from prismrec.export.reader import open_bundle
from prismrec.index.engines import load_index
from prismrec.serve.host import Host
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import load_vectors, open_host, table_name
from prismrec.serve.settings import ServeConfig

from .conftest import NUM_ITEMS, NUM_USERS, START, with_other_items, without_categories

RECOMMEND = "/v1/recommend"
EVENTS = [{"item_id": "item 3", "timestamp": START + 9000, "shop": 2}, {"item_id": "item 8", "timestamp": START}]
QUERIES: list[tuple[str, dict[str, Any]]] = [
    *[(RECOMMEND, {"user_id": user, "k": 5}) for user in range(NUM_USERS)],
    (RECOMMEND, {"user_id": 4, "k": 1000, "include_seen": True}),
    (RECOMMEND, {"events": EVENTS}),
    (RECOMMEND, {"user_id": 700, "only_categories": ["category 1"]}),
    (RECOMMEND, {"user_id": 4, "only_categories": ["category 1", "category 3", "none such"]}),
    (RECOMMEND, {"user_id": 4, "exclude_categories": ["category 1", "category 3"], "exclude_items": ["item 0"]}),
    (RECOMMEND, {"user_id": 4, "only_items": [f"item {number}" for number in range(0, NUM_ITEMS, 2)]}),
    (RECOMMEND, {"user_id": 4, "only_items": []}),
    (RECOMMEND, {"user_id": 4, "merge": "quota", "k": 8}),
    (RECOMMEND, {"user_id": 4, "merge": "reciprocal_rank_fusion", "k": 8}),
    *[(RECOMMEND, {"user_id": 4, "diversity": share, "k": 5}) for share in (0.3, 1)],
    (RECOMMEND, {"user_id": 4, "diversity": 0.5, "merge": "quota", "exclude_categories": ["category 0"]}),
    ("/v1/similar", {"item_id": "item 7", "k": NUM_ITEMS}),
    ("/v1/similar", {"item_id": "item 7", "only_categories": ["category 2"], "exclude_items": ["item 2"]}),
]


@pytest.fixture(scope="module", params=["postgres_url", "milvus_url"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def loaded(url: str, bundle: Path) -> str:
    """A database that holds the bundle's vectors."""
    load_vectors(bundle, url, Console(quiet=True))
    return url


def _close_to(expected: Any) -> Any:
    """The same, but for the last digits of fractions."""
    if isinstance(expected, dict):
        return {name: _close_to(value) for name, value in expected.items()}
    if isinstance(expected, list):
        return [_close_to(value) for value in expected]
    return pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected


@pytest.mark.parametrize(("path", "query"), QUERIES, ids=[json.dumps(query) for _, query in QUERIES])
def test_answers_are_those_of_the_bundles_own_index(path: str, query: dict[str, Any], client, in_database) -> None:
    status, expected = client.ask(path, **query)
    assert status == 200
    assert in_database.ask(path, **query) == (200, _close_to(expected))


@pytest.fixture(scope="module")
def in_database(bundle: Path, loaded: str, make_client) -> Any:
    return make_client(bundle, index=loaded)


def _open(bundle: Path, url: str, folder: Path) -> Host:
    return open_host(bundle, ServeConfig(), Metrics(), index=url, events=str(folder / "events"))


def test_only_the_bundles_own_vectors_are_searched(url: str, bundle: Path, tmp_path: Path) -> None:
    mine = open_bundle(with_other_items(bundle, tmp_path / "bundle", shift=2))
    name, theirs = table_name(mine), open_bundle(bundle)
    # refused a second time for the same reason: the first has let go of the events
    for _ in range(2):
        with pytest.raises(SearchIndexError, match=f"index '{name}': expected item vectors, found none.*; load the"):
            _open(mine.path, url, tmp_path)
    vectors = theirs.index.vectors(np.arange(1, NUM_ITEMS + 1))
    load_index(url, name, vectors, theirs.store.item_categories, fingerprint=theirs.fingerprint)
    different = f"expected fingerprint {mine.fingerprint}, found fingerprint {theirs.fingerprint}; load under another"
    with pytest.raises(SearchIndexError, match=different):
        _open(mine.path, url, tmp_path)
    with pytest.raises(SearchIndexError, match=different):
        load_vectors(mine.path, url, Console(quiet=True))


def test_a_bundle_follows_once_it_is_loaded(
    loaded: str, bundle: Path, other_bundle: Path, make_client: Any, tmp_path: Path
) -> None:
    (tmp_path / "current").symlink_to(bundle)
    client = make_client(tmp_path / "current", key="sesam", index=loaded)
    first = client.send("GET", "/health").json()["model"]
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(other_bundle)
    answer = client.send("POST", "/v1/admin/reload", x_api_key="sesam")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "bundle_unusable")
    assert "expected item vectors, found none" in answer.json()["error"]["message"]
    assert client.send("GET", "/health").json()["model"] == first
    load_vectors(other_bundle, loaded, Console(quiet=True))
    assert client.send("POST", "/v1/admin/reload", x_api_key="sesam").json()["model"] != first
    query = b'{"user_id": 4}'
    found = client.send("POST", RECOMMEND, query, x_api_key="sesam").json()
    assert found == _close_to(make_client(other_bundle).send("POST", RECOMMEND, query).json())


def test_a_catalogue_without_categories(url: str, bundle: Path, make_client: Any, tmp_path: Path) -> None:
    mine = without_categories(bundle, tmp_path / "bundle")
    load_vectors(mine, url, Console(quiet=True))
    own, client = make_client(mine), make_client(mine, index=url)
    for query in ({}, {"only_categories": ["category 1"]}, {"exclude_categories": ["category 1"]}):
        status, expected = own.ask(RECOMMEND, user_id=4, **query)
        assert (status, bool(expected["items"])) == (200, "only_categories" not in query)
        assert client.ask(RECOMMEND, user_id=4, **query) == (200, _close_to(expected))


def test_a_database_that_comes_back_is_searched_again(postgres: Any, bundle: Path, make_client: Any) -> None:
    load_vectors(bundle, postgres.url, Console(quiet=True))
    client = make_client(bundle, index=postgres.url)
    expected = client.ask(RECOMMEND, user_id=4)
    assert expected[0] == 200
    for down in (False, True):
        postgres.kill()
        try:
            if down:
                assert client.ask(RECOMMEND, user_id=4)[0] == 503
                assert client.ask("/v1/events", user_id=900, events=EVENTS)[0] == 200
        finally:
            postgres.start()
        assert client.ask(RECOMMEND, user_id=4) == expected


@pytest.mark.parametrize("path", [RECOMMEND, "/v1/similar"])
def test_what_is_wrong_with_the_database_is_for_the_log(
    path: str, postgres: Any, bundle: Path, make_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.url.replace("postgres@", "postgres:secret@")
    load_vectors(bundle, url, Console(quiet=True))
    client = make_client(bundle, index=url)
    query = {RECOMMEND: {"user_id": 4}, "/v1/similar": {"item_id": "item 7"}}[path]
    postgres.kill()
    try:
        answer = client.send("POST", path, json.dumps(query).encode(), x_request_id="abc")
    finally:
        postgres.start()
    message = "the vector database cannot be reached; try again"
    error = {"code": "index_unavailable", "message": message, "request_id": "abc"}
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, {"error": error}, "1")
    [line] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert f"PostgreSQL at {postgres.data}: " in line.getMessage()
    assert line.fields == {"request_id": "abc"}
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("path", "query"), [(RECOMMEND, {"user_id": 4}), ("/v1/events", {"user_id": 4, "events": EVENTS})]
)
def test_what_is_wrong_with_redis_is_for_the_log(
    path: str, query: Any, own_redis_server: Any, bundle: Path, make_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(bundle, events=own_redis_server.url)
    own_redis_server.kill()
    answer = client.ask(path, **query)
    assert answer[0] == 503
    assert answer[1]["error"]["code"] == "store_unavailable"
    assert answer[1]["error"]["message"] == "the events cannot be reached; try again"
    assert f"Redis at 127.0.0.1:{own_redis_server.port}: " in caplog.text
    own_redis_server.start()
    assert client.ask(path, **query)[0] == 200


def test_a_database_that_hangs_is_given_up(postgres_url: str, bundle: Path, make_client: Any) -> None:
    table = load_vectors(bundle, postgres_url, Console(quiet=True))
    client = make_client(bundle, index=f"{postgres_url}&options=-c%20statement_timeout%3D200")
    assert client.ask(RECOMMEND, user_id=4)[0] == 200
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"LOCK TABLE {table}")
        status, answer = client.ask(RECOMMEND, user_id=4)
        assert (status, answer["error"]["code"]) == (503, "index_unavailable")
        assert "PostgreSQL" not in answer["error"]["message"]
    assert client.ask(RECOMMEND, user_id=4)[0] == 200
