"""The HTTP application against the recommender, and every way in which a request can be wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from prismrec.serve.recommender import Recommender
from prismrec.serve.service import Service

from .conftest import ITEMS, with_store

START, NUM_USERS, NUM_ITEMS = 1_600_000_000, 12, 30
RECOMMEND = "/v1/recommend"


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.open(bundle)


def _event(item: str = "item 3", timestamp: int = START, **further: object) -> dict[str, object]:
    return {"item_id": item, "timestamp": timestamp, **further}


def _ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health(client, bundle: Path, path: str) -> None:
    response = client.send("GET", path)
    health = response.json()
    weights = json.loads((bundle / "manifest.json").read_text())["files"]["model.safetensors"]
    assert response.status_code == 200
    assert (health["status"], health["users"], health["items"]) == ("ok", NUM_USERS, NUM_ITEMS)
    assert weights["sha256"].startswith(health["model"])
    assert len(health["model"]) == 12


def test_a_known_user_gets_what_the_recommender_gives(client, recommender: Recommender) -> None:
    status, answer = client.ask(RECOMMEND, user_id=4, k=7)
    expected = recommender.recommend(pl.DataFrame({"user_id": [4]}), k=7)
    assert (status, answer["fallback"]) == (200, None)
    for row, item in zip(expected.to_dicts(), answer["items"], strict=True):
        number = int(row["item_id"].removeprefix("item "))
        assert item == {
            **{name: row[name] for name in ("item_id", "rank", "interest")},
            "score": pytest.approx(row["score"]),
            "title": f"The {row['item_id']}",
            "category": f"category {number % 5}",
        }


def test_interests_say_the_five_events_of_largest_share(client, recommender: Recommender) -> None:
    _, answer = client.ask(RECOMMEND, user_id=4)
    expected = recommender.interests(pl.DataFrame({"user_id": [4]}))
    assert [one["interest"] for one in answer["interests"]] == [0, 1, 2, 3]
    for one in answer["interests"]:
        rows = expected.filter(interest=one["interest"]).head(5)
        assert [event["item_id"] for event in one["events"]] == rows["item_id"].to_list()
        assert [event["title"] for event in one["events"]] == [f"The {name}" for name in rows["item_id"]]
        assert [event["timestamp"] for event in one["events"]] == rows["timestamp"].to_list()
        assert [event["weight"] for event in one["events"]] == pytest.approx(rows["weight"].to_list())
        assert [event["closeness"] for event in one["events"]] == pytest.approx(rows["closeness"].to_list(), abs=1e-5)


def test_interests_say_where_they_lead(client) -> None:
    """With all items asked for, each interest leads to all that is not seen; five categories, three are shown."""
    _, answer = client.ask(RECOMMEND, user_id=4, k=NUM_ITEMS)
    left = [item["category"] for item in answer["items"]]
    shares = sorted(((left.count(name) / len(left), name) for name in set(left)), reverse=True)
    for one in answer["interests"]:
        found = [each["share"] for each in one["categories"]]
        assert found == pytest.approx([share for share, _ in shares[:3]])
        assert all(left.count(each["category"]) == round(each["share"] * len(left)) for each in one["categories"])


def test_options(client, recommender: Recommender) -> None:
    user = pl.DataFrame({"user_id": [4]})
    assert len(client.ask(RECOMMEND, user_id=4)[1]["items"]) == 20
    assert len(client.ask(RECOMMEND, user_id=4, k=1000, include_seen=True)[1]["items"]) == NUM_ITEMS
    earlier = recommender.recommend(user, k=5, now=START + 3000)["item_id"].to_list()
    assert _ids(client.ask(RECOMMEND, user_id=4, k=5, now=START + 3000)[1]) == earlier
    assert earlier != recommender.recommend(user, k=5)["item_id"].to_list()


def test_restrictions(client) -> None:
    every = client.ask(RECOMMEND, user_id=4, k=NUM_ITEMS)[1]["items"]
    categories = {item["item_id"]: item["category"] for item in every}
    first, second = list(categories)[:2]

    def found(**restriction: object) -> list[str]:
        return _ids(client.ask(RECOMMEND, user_id=4, k=NUM_ITEMS, **restriction)[1])

    assert found(exclude_items=[first, "no such item"]) == [name for name in categories if name != first]
    assert found(only_items=[second, first, "no such item"]) == [first, second]
    assert found(only_items=[]) == []
    only = [name for name in categories if categories[name] in ("category 1", "category 3")]
    assert found(only_categories=["category 1", "category 3", "no such category"]) == only
    assert found(exclude_categories=["category 1", "category 3"]) == [n for n in categories if n not in only]
    both = found(only_categories=["category 1"], exclude_items=[only[0]], only_items=only)
    assert both == [name for name in only[1:] if categories[name] == "category 1"]


def test_categories_may_be_true_or_false(bundle: Path, make_client, tmp_path: Path) -> None:
    items = ITEMS.with_columns(category=pl.int_range(NUM_ITEMS) < 3)
    client = make_client(with_store(bundle, tmp_path / "bundle", items))
    _, answer = client.ask(RECOMMEND, user_id=4, include_seen=True, only_categories=[True])
    assert sorted(_ids(answer)) == ["item 0", "item 1", "item 2"]


@pytest.mark.parametrize("path", [RECOMMEND, "/v1/similar"])
def test_half_a_character_is_no_category_of_other_types(bundle: Path, make_client, tmp_path: Path, path: str) -> None:
    client = make_client(
        with_store(bundle, tmp_path / "bundle", ITEMS.with_columns(category=pl.int_range(NUM_ITEMS) < 3))
    )
    who = {"user_id": 4} if path == RECOMMEND else {"item_id": "item 1"}
    for name in ("exclude_categories", "only_categories"):
        status, answer = client.ask(path, **who, **{name: ["\ud800"]})
        assert (status, answer["error"]["code"]) == (422, "invalid_request")


def test_an_only_item_that_was_seen_stays_away(client) -> None:
    every = set(_ids(client.ask(RECOMMEND, user_id=4, k=NUM_ITEMS)[1]))
    seen = next(name for name in (f"item {number}" for number in range(NUM_ITEMS)) if name not in every)
    assert _ids(client.ask(RECOMMEND, user_id=4, only_items=[seen])[1]) == []
    assert _ids(client.ask(RECOMMEND, user_id=4, only_items=[seen], include_seen=True)[1]) == [seen]


def test_quota_shares_the_places_among_interests(client) -> None:
    items = client.ask(RECOMMEND, user_id=4, k=8, merge="quota")[1]["items"]
    assert sorted(item["interest"] for item in items) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_reciprocal_rank_fusion_scores_by_ranks(client) -> None:
    items = client.ask(RECOMMEND, user_id=4, k=8, merge="reciprocal_rank_fusion")[1]["items"]
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)
    assert items[0]["score"] <= 4 / 61 + 1e-6


def test_diversity_changes_what_comes_after_the_first(client) -> None:
    plain, diverse = (_ids(client.ask(RECOMMEND, user_id=4, k=5, diversity=value)[1]) for value in (0, 1))
    assert plain[0] == diverse[0]
    assert plain != diverse


@pytest.mark.parametrize("name", [{}, {"user_id": 700}])
def test_a_new_user_is_who_the_events_say(client, recommender: Recommender, name: dict[str, int]) -> None:
    given = [_event("item 3", START + 9000, shop=2), _event("item 8", START + 9060, dwell=30), _event("no such item")]
    table = pl.DataFrame({"user_id": 700, "item_id": ["item 3", "item 8"], "timestamp": [START + 9000, START + 9060]})
    expected = recommender.recommend(table.with_columns(shop=pl.Series([2, None]), dwell=pl.Series([0, 30])), k=6)
    _, answer = client.ask(RECOMMEND, events=given, k=6, **name)
    assert _ids(answer) == expected["item_id"].to_list()
    assert {event["item_id"] for event in answer["interests"][0]["events"]} == {"item 3", "item 8"}


def test_given_events_add_to_a_known_users(client) -> None:
    _, answer = client.ask(RECOMMEND, user_id=4, events=[_event("item 3", START + 9000)], k=1000)
    assert "item 3" not in _ids(answer)


@pytest.mark.parametrize("query", [{}, {"user_id": 700}, {"events": [_event("no such item")]}])
def test_who_is_not_known_gets_what_is_popular(client, bundle: Path, query: dict[str, object]) -> None:
    counts = Recommender.open(bundle).bundle.store.item_counts[1:]
    _, answer = client.ask(RECOMMEND, k=4, exclude_items=["item 0"], only_categories=["category 0"], **query)
    expected = sorted(range(5, NUM_ITEMS, 5), key=lambda number: -counts[number])[:4]
    assert (answer["fallback"], answer["interests"]) == ("popular", [])
    assert _ids(answer) == [f"item {number}" for number in expected]
    assert {item["interest"] for item in answer["items"]} == {None}


def test_without_a_fallback_there_is_nothing(bundle: Path, make_client) -> None:
    client = make_client(bundle, fallback="none")
    assert client.ask(RECOMMEND, user_id=700) == (200, {"items": [], "interests": [], "fallback": "none"})


def test_events_are_remembered(bundle: Path, make_client) -> None:
    client = make_client(bundle)
    events = [_event("item 3", START + 9000, shop=2), _event("item 8", START + 9060), _event("from tomorrow", START)]
    assert client.ask("/v1/events", user_id=700, events=events) == (200, {"events": 3, "unknown_items": 1})
    remembered = client.ask(RECOMMEND, user_id=700, k=6)
    assert remembered == client.ask(RECOMMEND, events=events, k=6)
    assert remembered[1]["fallback"] is None
    client.ask("/v1/events", user_id=700, events=events)  # once more changes nothing
    assert client.ask(RECOMMEND, user_id=700, k=6) == remembered


def test_events_of_a_known_user_come_after_those_of_the_bundle(bundle: Path, make_client) -> None:
    client = make_client(bundle)
    event = _event("item 3", START + 9000, shop=1)
    expected = client.ask(RECOMMEND, user_id=4, events=[event])
    assert expected != client.ask(RECOMMEND, user_id=4)
    client.ask("/v1/events", user_id=4, events=[event])
    assert client.ask(RECOMMEND, user_id=4) == expected


def test_similar_items_by_cosine(client, recommender: Recommender) -> None:
    _, answer = client.ask("/v1/similar", item_id="item 7", k=NUM_ITEMS)
    rows = pl.Series(range(1, NUM_ITEMS + 1)).to_numpy()
    every = recommender.bundle.index.vectors(rows)
    cosines = every @ every[7]
    expected = sorted((n for n in range(NUM_ITEMS) if n != 7), key=lambda n: -cosines[n])
    assert _ids(answer) == [f"item {number}" for number in expected]
    assert [item["score"] for item in answer["items"]] == pytest.approx(cosines[expected].tolist(), abs=1e-6)
    assert {item["interest"] for item in answer["items"]} == {None}


def test_similar_items_within_restrictions(client) -> None:
    _, answer = client.ask(
        "/v1/similar", item_id="item 7", k=3, only_categories=["category 2"], exclude_items=["item 2"]
    )
    assert len(answer["items"]) == 3
    assert {item["category"] for item in answer["items"]} == {"category 2"}
    assert not {"item 7", "item 2"} & set(_ids(answer))


def test_batches_give_what_single_queries_give(client) -> None:
    queries = [{"user_id": 4, "k": 3}, {"user_id": 700}, {"user_id": 5, "k": 9, "only_categories": ["category 2"]}]
    single = [client.ask(RECOMMEND, **query)[1] for query in queries]
    assert client.ask(f"{RECOMMEND}/batch", queries=queries) == (200, {"answers": single})
    similar = [{"item_id": "item 7", "k": 3}, {"item_id": "item 8", "k": 2}]
    single = [client.ask("/v1/similar", **query)[1] for query in similar]
    assert client.ask("/v1/similar/batch", queries=similar)[1] == {"answers": single}


def test_a_batch_of_events(bundle: Path, make_client) -> None:
    client = make_client(bundle)
    users = [{"user_id": 701 + place, "events": [_event(f"item {place}", START + 9000)]} for place in range(2)]
    answers = [{"events": 1, "unknown_items": 0}] * 2
    assert client.ask("/v1/events/batch", queries=users) == (200, {"answers": answers})
    assert client.ask(RECOMMEND, user_id=702) == client.ask(RECOMMEND, events=users[1]["events"])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "text for an integer": ({"user_id": "4"}, "user_id: Input should be a valid integer"),
    "truth for an integer": ({"user_id": True}, "user_id: Input should be a valid integer"),
    "too large": ({"user_id": 2**63}, "user_id: Input should be less than or equal to 9223372036854775807"),
    "k of 0": ({"user_id": 4, "k": 0}, "k: Input should be greater than or equal to 1"),
    "k of 1001": ({"user_id": 4, "k": 1001}, "k: expected at most 1000, found 1001"),
    "unknown field": ({"user_id": 4, "top": 3}, "top: Extra inputs are not permitted"),
    "negative now": ({"user_id": 4, "now": -1}, "now: Input should be greater than or equal to 0"),
    "unknown policy": ({"user_id": 4, "merge": "best"}, "merge: Input should be 'maximum', 'quota' or"),
    "text for a share": ({"user_id": 4, "diversity": "0.5"}, "diversity: Input should be a valid number"),
    "too diverse": ({"user_id": 4, "diversity": 1.5}, "diversity: Input should be less than or equal to 1"),
    "a category of another type": ({"only_categories": [3]}, "only_categories.0: Input should be a valid string"),
    "integer for an item": ({"events": [{"item_id": 3, "timestamp": 1}]}, "events.0.item_id: Input should be a valid"),
    "no time": ({"events": [{"item_id": "item 3"}]}, "events.0.timestamp: Field required"),
    "milliseconds": ({"events": [_event(timestamp=10**12)]}, "events.0.timestamp: Input should be less than or equal"),
    "unknown context": ({"events": [_event(shp=1)]}, "events: 'shp' is not a column of context; this model has shop"),
    "fraction": ({"events": [_event(shop=1.5)]}, "events: shop: expected an integer or text, found '1.5'"),
    "list": ({"events": [_event(shop=[1])]}, "events: shop: expected an integer or text, found '[1]'"),
    "half a character": ({"events": [_event("\ud800")]}, "Input should be a valid string"),
    "half a character of a column": ({"events": [_event(**{"\ud800": 1})]}, "Input should be a valid string"),
    "half a character of a field": ({"\ud800": 1}, "valid string"),
    "half a character of a shop": ({"events": [_event(shop="\ud800")]}, "shop: expected an integer or text"),
    "a very large shop": ({"events": [_event(shop=2**200)]}, "shop: expected an integer or text"),
    "a list too long": ({"only_items": ["item 3"] * 10_001}, "only_items: expected at most 10000, found 10001"),
    "too many events": ({"events": [_event()] * 10_001}, "events: expected at most 10000, found 10001"),
}


@pytest.mark.parametrize(("query", "message"), WRONG.values(), ids=WRONG)
def test_wrong_requests(client, query: dict[str, Any], message: str) -> None:
    status, answer = client.ask(RECOMMEND, **query)
    assert (status, answer["error"]["code"], list(answer)) == (422, "invalid_request", ["error"])
    assert message in answer["error"]["message"]


def test_what_is_wrong_in_a_batch_has_its_place(client) -> None:
    status, answer = client.ask(f"{RECOMMEND}/batch", queries=[{"user_id": 4}, {"user_id": "4"}])
    assert (status, answer["error"]["message"]) == (422, "queries.1.user_id: Input should be a valid integer")
    _, answer = client.ask(f"{RECOMMEND}/batch", queries=[{"user_id": 4}] * 101)
    assert answer["error"]["message"] == "queries: List should have at most 100 items after validation, not 101"
    _, answer = client.ask(f"{RECOMMEND}/batch", queries=[])
    assert answer["error"]["message"].startswith("queries: List should have at least 1 item")


@pytest.mark.parametrize("name", ["exclude_items", "exclude_categories", "only_items", "only_categories"])
@pytest.mark.parametrize(("path", "query"), [(RECOMMEND, {"user_id": 4}), ("/v1/similar", {"item_id": "item 7"})])
def test_lists_have_a_limit(bundle: Path, make_client, path: str, query: dict[str, Any], name: str) -> None:
    client = make_client(bundle, max_listed=2)
    assert client.ask(path, **query, **{name: ["item 3", "item 4"]})[0] == 200
    status, answer = client.ask(path, **query, **{name: ["item 3", "item 4", "item 3"]})
    assert (status, answer["error"]["message"]) == (422, f"{name}: expected at most 2, found 3")
    status, _ = client.ask(f"{path}/batch", queries=[query, {**query, name: ["item 3"] * 3}])
    assert status == 422


def test_all_queries_of_a_request_share_a_limit_of_results(bundle: Path, make_client) -> None:
    client = make_client(bundle, max_results=50)
    known, diverse = {"user_id": 4, "k": 10}, {"user_id": 4, "k": 10, "diversity": 0.5}
    for queries in ([known] * 5, [diverse, known]):
        assert client.ask(f"{RECOMMEND}/batch", queries=queries)[0] == 200
    for queries, found in (([known] * 5 + [{"k": 1}], 51), ([diverse, known, {"k": 1}], 51), ([{"k": 51}], 51)):
        status, answer = client.ask(f"{RECOMMEND}/batch", queries=queries)
        assert (status, answer["error"]["code"]) == (422, "invalid_request")
        assert f"k: expected at most 50 items for all queries together, found {found} " in answer["error"]["message"]
    assert client.ask(RECOMMEND, user_id=4, k=13, diversity=0.5)[0] == 422  # 52
    assert client.ask("/v1/similar/batch", queries=[{"item_id": "item 7", "k": 26}] * 2)[0] == 422
    assert client.ask("/v1/similar/batch", queries=[{"item_id": "item 7", "k": 25}] * 2)[0] == 200


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (RECOMMEND, {"only_items": [1] * 3}),
        (RECOMMEND, {"exclude_categories": [1] * 3}),
        ("/v1/events", {"user_id": 4, "events": [1] * 3}),
        (f"{RECOMMEND}/batch", {"queries": [1] * 3}),
    ],
)
def test_one_fault_of_a_list_is_enough(client, path: str, query: Any) -> None:
    """A body may hold hundreds of thousands, and to collect them all would hold up everybody else for seconds."""
    [route] = [route for route in client.app._app.routes if route.path == path]
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(route.body_field.field_info.annotation).validate_python(query)
    assert raised.value.error_count() == 1


def test_nothing_is_remembered_of_a_wrong_batch(bundle: Path, make_client) -> None:
    client = make_client(bundle)
    users = [{"user_id": 700, "events": [_event()]}, {"user_id": 701, "events": [_event(shp=1)]}]
    assert client.ask("/v1/events/batch", queries=users)[0] == 422
    assert client.ask(RECOMMEND, user_id=700)[1]["fallback"] == "popular"


def test_an_unknown_item_has_nothing_similar(client) -> None:
    status, answer = client.ask("/v1/similar", item_id="item 99")
    assert (status, answer["error"]["code"]) == (404, "unknown_item")
    assert answer["error"]["message"] == "item_id: 'item 99' is not in the catalogue"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"user_id": ' + b"9" * 5000 + b"}", b"\xff"])
def test_bodies_that_are_no_object(client, content: bytes) -> None:
    response = client.send("POST", RECOMMEND, content)
    assert response.status_code in (400, 422)
    assert response.json()["error"]["code"] in ("bad_request", "invalid_request")


def test_wrong_paths_and_methods(client) -> None:
    answer = client.send("GET", "/v2").json()
    assert (answer["error"]["code"], answer["error"]["message"]) == ("not_found", "Not Found")
    assert client.send("GET", RECOMMEND).json()["error"]["code"] == "method_not_allowed"


def test_a_defect_is_not_described(client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Service, "_search", fail)
    response = client.send("POST", RECOMMEND, b'{"user_id": 4}', x_request_id="abc")
    message = "the server could not answer; its log says why"
    error = {"code": "internal_server_error", "message": message, "request_id": "abc"}
    assert (response.status_code, response.json()) == (500, {"error": error})


def test_the_description_has_this_bundles_types_and_true_examples(client) -> None:
    description = client.send("GET", "/openapi.json").json()
    schemas = description["components"]["schemas"]
    assert schemas["RecommendQuery"]["properties"]["user_id"]["anyOf"][0]["type"] == "integer"
    assert schemas["Event"]["properties"]["item_id"]["type"] == "string"
    assert "catalogue" in schemas["RecommendQuery"]["properties"]["events"]["description"]
    assert all(name.isidentifier() for name in schemas)
    for path in (RECOMMEND, "/v1/similar", "/v1/events"):
        operation = description["paths"][path]["post"]
        assert {"200", "401", "413", "422", "429", "503"} <= set(operation["responses"])
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            assert client.ask(path, **example["value"])[0] == 200


def test_serving_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from prismrec.serve.app import create_app\n"
        "from prismrec.serve.metrics import Metrics\n"
        "from prismrec.serve.opening import open_host\n"
        "from prismrec.serve.settings import ServeConfig\n"
        "host = open_host(Path(sys.argv[1]), ServeConfig(), Metrics(), events=sys.argv[2])\n"
        "create_app(host, ServeConfig(), Metrics())\n"
        "print(host.current.model)\n"
        "host.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bundle), str(tmp_path / "events")], capture_output=True, text=True
    )
    assert (len(done.stdout.strip()), done.stderr) == (12, "")
