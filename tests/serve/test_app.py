"""The HTTP application against the recommender it wraps, and every way in which a request can be wrong."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import torch
from fastapi import FastAPI
from rich.console import Console

from prismrec.config import Config, HashingConfig, HistoryConfig, ModelConfig, PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.errors import ArtifactError
from prismrec.export.bundle import export
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes
from prismrec.model.run import save_run
from prismrec.serve.app import create_app
from prismrec.serve.recommender import Recommender

NUM_USERS, NUM_ITEMS, START = 12, 30, 1_600_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users 0 to 11 with eight events each, items `item 0` to `item 29`, the column of context `shop`."""
    folder, rng = tmp_path_factory.mktemp("app"), np.random.default_rng(0)
    names = pl.Series([f"item {number}" for number in range(NUM_ITEMS)])
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(NUM_USERS), 8),
            "item_id": names[rng.integers(0, NUM_ITEMS, 8 * NUM_USERS)],
            "timestamp": START + 60 * rng.permutation(8 * NUM_USERS),
            "shop": rng.integers(0, 4, 8 * NUM_USERS),
        }
    )
    items = pl.DataFrame({"item_id": names, "category": range(NUM_ITEMS), "title": [f"The {name}" for name in names]})
    store = prepare(events, items, folder / "store", PrepareConfig(), Console(quiet=True))
    torch.manual_seed(0)
    hashing = resolve_primes(HashingConfig(), {"item_id": NUM_ITEMS, "category": NUM_ITEMS, "shop": 4})
    config = Config(history=HistoryConfig(max_length=10), model=ModelConfig(embedding_dim=16, hashing=hashing))
    save_run(folder / "run", config, store, MultiInterestModel(config.model, store.schema, 10))
    return export(folder / "run", folder / "bundle")


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.open(bundle)


@pytest.fixture(scope="module")
def app(bundle: Path) -> FastAPI:
    return create_app(bundle)


def _send(app: FastAPI, method: str, path: str, content: bytes | None = None) -> tuple[int, Any]:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=content, headers={"content-type": "application/json"})

    response = asyncio.run(send())
    return response.status_code, response.json()


def _ask(app: FastAPI, **query: object) -> tuple[int, Any]:
    return _send(app, "POST", "/v1/recommend", json.dumps(query).encode())


def _event(item: str = "item 3", timestamp: int = START, **further: object) -> dict[str, object]:
    return {"item_id": item, "timestamp": timestamp, **further}


def test_health(app: FastAPI, bundle: Path) -> None:
    status, health = _send(app, "GET", "/health")
    weights = json.loads((bundle / "manifest.json").read_text())["files"]["model.safetensors"]
    assert status == 200
    assert (health["status"], health["users"], health["items"]) == ("ok", NUM_USERS, NUM_ITEMS)
    assert weights["sha256"].startswith(health["model"])
    assert len(health["model"]) == 12


def test_a_known_user_gets_what_the_recommender_gives(app: FastAPI, recommender: Recommender) -> None:
    status, answer = _ask(app, user_id=4, k=7)
    expected = recommender.recommend(pl.DataFrame({"user_id": [4]}), k=7)
    assert status == 200
    for row, item in zip(expected.to_dicts(), answer["items"], strict=True):
        assert item == {
            **{name: row[name] for name in ("item_id", "rank", "interest")},
            "score": pytest.approx(row["score"]),
            "title": f"The {row['item_id']}",
            "category": int(row["item_id"].removeprefix("item ")),
        }


def test_interests_say_the_five_events_of_largest_share(app: FastAPI, recommender: Recommender) -> None:
    _, answer = _ask(app, user_id=4)
    expected = recommender.interests(pl.DataFrame({"user_id": [4]}))
    assert [one["interest"] for one in answer["interests"]] == [0, 1, 2, 3]
    for one in answer["interests"]:
        rows = expected.filter(interest=one["interest"]).head(5)
        assert [event["item_id"] for event in one["events"]] == rows["item_id"].to_list()
        assert [event["timestamp"] for event in one["events"]] == rows["timestamp"].to_list()
        assert [event["weight"] for event in one["events"]] == pytest.approx(rows["weight"].to_list())
        assert [event["closeness"] for event in one["events"]] == pytest.approx(rows["closeness"].to_list(), abs=1e-5)


def test_options(app: FastAPI, recommender: Recommender) -> None:
    user = pl.DataFrame({"user_id": [4]})
    assert len(_ask(app, user_id=4)[1]["items"]) == 20
    assert len(_ask(app, user_id=4, k=1000, include_seen=True)[1]["items"]) == NUM_ITEMS
    earlier = recommender.recommend(user, k=5, now=START + 3000)["item_id"].to_list()
    assert [item["item_id"] for item in _ask(app, user_id=4, k=5, now=START + 3000)[1]["items"]] == earlier
    assert earlier != recommender.recommend(user, k=5)["item_id"].to_list()


@pytest.mark.parametrize("name", [{}, {"user_id": 700}])
def test_a_new_user_is_who_the_events_say(app: FastAPI, recommender: Recommender, name: dict[str, int]) -> None:
    given = [_event("item 3", START + 9000, shop=2), _event("item 8", START + 9060, dwell=30), _event("no such item")]
    table = pl.DataFrame({"user_id": 700, "item_id": ["item 3", "item 8"], "timestamp": [START + 9000, START + 9060]})
    expected = recommender.recommend(table.with_columns(shop=pl.Series([2, None]), dwell=pl.Series([0, 30])), k=6)
    _, answer = _ask(app, events=given, k=6, **name)
    assert [item["item_id"] for item in answer["items"]] == expected["item_id"].to_list()
    assert {event["item_id"] for event in answer["interests"][0]["events"]} == {"item 3", "item 8"}


def test_given_events_add_to_a_known_users(app: FastAPI) -> None:
    _, answer = _ask(app, user_id=4, events=[_event("item 3", START + 9000)], k=1000)
    assert "item 3" not in {item["item_id"] for item in answer["items"]}


def test_nothing_for_a_user_of_whom_nothing_is_known(app: FastAPI) -> None:
    assert _ask(app, events=[_event("no such item")]) == (200, {"items": [], "interests": []})


WRONG = {
    "neither": ({}, "expected user_id or events, found neither"),
    "text for an integer": ({"user_id": "4"}, "user_id: Input should be a valid integer"),
    "truth for an integer": ({"user_id": True}, "user_id: Input should be a valid integer"),
    "too large": ({"user_id": 2**63}, "user_id: Input should be less than or equal to 9223372036854775807"),
    "k of 0": ({"user_id": 4, "k": 0}, "k: Input should be greater than or equal to 1"),
    "k of 1001": ({"user_id": 4, "k": 1001}, "k: Input should be less than or equal to 1000"),
    "unknown field": ({"user_id": 4, "top": 3}, "top: Extra inputs are not permitted"),
    "negative now": ({"user_id": 4, "now": -1}, "now: Input should be greater than or equal to 0"),
    "integer for an item": (
        {"events": [{"item_id": 3, "timestamp": 1}]},
        "events.0.item_id: Input should be a valid",
    ),
    "no time": ({"events": [{"item_id": "item 3"}]}, "events.0.timestamp: Field required"),
    "milliseconds": ({"events": [_event(timestamp=10**12)]}, "events.0.timestamp: Input should be less than or equal"),
    "unknown context": ({"events": [_event(shp=1)]}, "events: 'shp' is not a column of context; this model has shop"),
    "fraction": ({"events": [_event(shop=1.5)]}, "column 'shop', row 1: expected integers or text as ids"),
    "list": ({"events": [_event(shop=[1])]}, "column 'shop': expected integers or text as ids"),
    "mixed": (
        {"events": [_event(shop=1), _event(shop="a")]},
        "shop: expected integers or text, the same in",
    ),
    "half a character": ({"events": [_event("\ud800")]}, "Input should be a valid string"),
    "half a character of a column": ({"events": [_event(**{"\ud800": 1})]}, "Input should be a valid string"),
    "half a character of a field": ({"\ud800": 1}, "valid string"),
    "half a character of a shop": ({"events": [_event(shop="\ud800")]}, "shop: expected integers or text"),
    "a very large shop": ({"events": [_event(shop=2**200)]}, "shop: expected integers or text"),
    "too many events": ({"events": [_event()] * 10_001}, "events: List should have at most 10000 items"),
}


@pytest.mark.parametrize(("query", "message"), WRONG.values(), ids=WRONG)
def test_wrong_requests(app: FastAPI, query: dict[str, Any], message: str) -> None:
    status, answer = _ask(app, **query)
    assert (status, answer["error"]["code"], list(answer)) == (422, "invalid_request", ["error"])
    assert message in answer["error"]["message"]


def test_an_unknown_user_without_events(app: FastAPI) -> None:
    message = "user_id: 700 is not known; give the user's events"
    assert _ask(app, user_id=700) == (404, {"error": {"code": "unknown_user", "message": message}})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"user_id": ' + b"9" * 5000 + b"}", b"\xff"])
def test_bodies_that_are_no_object(app: FastAPI, content: bytes) -> None:
    status, answer = _send(app, "POST", "/v1/recommend", content)
    assert status in (400, 422)
    assert answer["error"]["code"] in ("bad_request", "invalid_request")


def test_wrong_paths_and_methods(app: FastAPI) -> None:
    assert _send(app, "GET", "/v2")[1] == {"error": {"code": "not_found", "message": "Not Found"}}
    assert _send(app, "GET", "/v1/recommend")[1]["error"]["code"] == "method_not_allowed"


def test_a_defect_is_not_described(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Recommender, "recommend", fail)
    message = "the server could not answer; its log says why"
    assert _ask(app, user_id=4) == (500, {"error": {"code": "internal_server_error", "message": message}})


def test_the_description_has_this_bundles_types_and_true_examples(app: FastAPI) -> None:
    description = _send(app, "GET", "/openapi.json")[1]
    schemas = description["components"]["schemas"]
    assert schemas["Query"]["properties"]["user_id"]["anyOf"][0]["type"] == "integer"
    assert schemas["Event"]["properties"]["item_id"]["type"] == "string"
    assert "catalogue" in schemas["Query"]["properties"]["events"]["description"]
    operation = description["paths"]["/v1/recommend"]["post"]
    assert {"200", "404", "422"} == set(operation["responses"])
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        assert len(_ask(app, **example["value"])[1]["items"]) == 10


def test_only_bundles_are_served(bundle: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a bundle"):
        create_app(bundle / "store")


def test_serving_needs_no_torch(bundle: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from prismrec.serve.app import create_app\n"
        "print(create_app(Path(sys.argv[1])).title)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(bundle)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("PrismRec\n", "")
