"""What the explorer's page is answered, against the service itself; and who may ask."""

import asyncio
import json
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from prismrec.export.reader import open_bundle
from prismrec.serve.app import create_app
from prismrec.serve.item_map import ItemMap
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import open_host
from prismrec.serve.recommender import Recommender
from prismrec.serve.settings import ServeConfig

from .conftest import EVENTS, ITEMS, NUM_ITEMS, NUM_USERS, START, with_store

USER = "/explorer/user"


def _get(client, path: str, **headers: str):
    response = client.send("GET", path, **headers)
    return response.status_code, response.json()


def _history(answer) -> list[tuple[str, int]]:
    return [(event["item_id"], event["timestamp"]) for event in answer["history"]]


def _of(user: int) -> list[tuple[str, int]]:
    rows = EVENTS.filter(user_id=user).sort("timestamp", descending=True)
    return list(zip(rows["item_id"].to_list(), rows["timestamp"].to_list(), strict=True))


def test_users_are_found_by_a_part_of_their_ids(client) -> None:
    status, found = _get(client, "/explorer/users?search=1")
    assert status == 200
    assert [user["user_id"] for user in found["users"]] == ["1", "10", "11"]
    assert [user["events"] for user in found["users"]] == [3, 12, 13]
    assert (found["matching"], found["total"]) == (3, NUM_USERS)
    assert _get(client, "/explorer/users")[1]["matching"] == NUM_USERS
    assert _get(client, "/explorer/users?search=.*")[1]["users"] == []


def test_items_are_found_by_title_or_id_the_most_popular_first(client, bundle: Path) -> None:
    _, found = _get(client, "/explorer/items?search=THE%20ITEM%202")
    counts = dict(zip(NAMES_OF_2, (open_bundle(bundle).store.item_counts[[3, *range(21, 31)]]).tolist(), strict=True))
    assert {item["item_id"]: item["events"] for item in found["items"]} == counts
    assert [item["events"] for item in found["items"]] == sorted(counts.values(), reverse=True)
    assert found["items"][0]["title"].startswith("The item 2")
    assert (found["matching"], found["total"]) == (11, NUM_ITEMS)
    assert _get(client, "/explorer/items?search=%28")[1] == {"items": [], "matching": 0, "total": NUM_ITEMS}


NAMES_OF_2 = ["item 2", *(f"item {number}" for number in range(20, 30))]


def test_a_user_is_shown_as_the_service_answers(client, bundle: Path) -> None:
    status, shown = client.ask(USER, user_id="11", k=6, merge="quota")
    _, answer = client.ask("/v1/recommend", user_id=11, k=6, merge="quota")
    assert status == 200
    for name in ("item_id", "title", "category", "rank", "score", "interest"):
        assert [item[name] for item in shown["items"]] == [item[name] for item in answer["items"]]
    for name in ("interest", "share", "categories"):
        assert [each[name] for each in shown["interests"]] == [each[name] for each in answer["interests"]]
    assert sum(each["share"] for each in shown["interests"]) == pytest.approx(1, abs=1e-5)
    assert _history(shown) == _of(11)[:8]  # the model reads eight
    table = Recommender.open(bundle).interests(pl.DataFrame({"user_id": [11]}))
    for place in range(4):
        of_interest = table.filter(interest=place)
        weights = dict(zip(of_interest["timestamp"], of_interest["weight"], strict=True))
        assert [event["weights"][place] for event in shown["history"]] == pytest.approx(
            [weights[event["timestamp"]] for event in shown["history"]]
        )


def test_an_interest_shows_its_own_closest_items(client) -> None:
    _, shown = client.ask(USER, user_id="11", k=NUM_ITEMS)
    _, answer = client.ask("/v1/recommend", user_id=11, k=NUM_ITEMS)
    by_interest: dict[int, list[str]] = {}
    for item in answer["items"]:
        by_interest.setdefault(item["interest"], []).append(item["item_id"])
    for interest in shown["interests"]:
        closest = [item["item_id"] for item in interest["closest"]]
        found = by_interest.get(interest["interest"], [])
        assert len(closest) == 5
        # what it found stands in its own list in the same order
        assert [name for name in closest if name in found] == [name for name in found if name in closest]


def test_what_would_be_without_an_event_or_with_another(client) -> None:
    (item, time), *others = _of(5)
    removed = [{"item_id": item, "timestamp": time}]
    added = [{"item_id": "item 3", "timestamp": time + 60}]
    _, shown = client.ask(USER, user_id="5", removed=removed, added=added, k=NUM_ITEMS)
    assert _history(shown) == [("item 3", time + 60), *others]
    names = [found["item_id"] for found in shown["items"]]
    assert "item 3" not in names
    assert (item in names) == (item not in [name for name, _ in others])
    assert _history(client.ask(USER, user_id="5")[1]) == _of(5)  # nothing of it is kept


def test_without_events_of_the_public_answer(client) -> None:
    (item, time), *_ = _of(5)
    _, without = client.ask("/v1/recommend", user_id=5, without_events=[{"item_id": item, "timestamp": time}])
    _, shown = client.ask(USER, user_id="5", removed=[{"item_id": item, "timestamp": time}])
    assert [each["item_id"] for each in without["items"]] == [each["item_id"] for each in shown["items"]]
    _, other_time = client.ask("/v1/recommend", user_id=5, without_events=[{"item_id": item, "timestamp": time + 1}])
    assert other_time == client.ask("/v1/recommend", user_id=5)[1]
    everything = [{"item_id": name, "timestamp": moment} for name, moment in _of(5)]
    assert client.ask("/v1/recommend", user_id=5, without_events=everything)[1]["fallback"] == "popular"


def test_nobody_is_shown_what_is_popular(client) -> None:
    status, shown = client.ask(USER, k=3)
    assert (status, shown["fallback"], shown["history"], shown["interests"]) == (200, "popular", [], [])
    assert [item["interest"] for item in shown["items"]] == [None] * 3


def test_an_item_with_its_neighbours_and_the_users_closest_to_it(client, bundle: Path) -> None:
    _, view = _get(client, "/explorer/item?item_id=item%207")
    assert view["item"] | {"events": 0} == {
        "item_id": "item 7",
        "title": "The item 7",
        "category": "category 2",
        "events": 0,
    }
    _, similar = client.ask("/v1/similar", item_id="item 7", k=10)
    assert [each["item_id"] for each in view["neighbours"]] == [each["item_id"] for each in similar["items"]]
    assert [each["cosine"] for each in view["neighbours"]] == [each["score"] for each in similar["items"]]
    users = pl.read_parquet(bundle / "user_vectors.parquet")
    scores = users["vectors"].to_numpy() @ open_bundle(bundle).index.vectors(np.array([8]))[0]  # [U, V]
    order = np.argsort(-scores.max(axis=1))
    assert [fan["user_id"] for fan in view["fans"]] == [str(users["user_id"][int(user)]) for user in order]
    assert [fan["interest"] for fan in view["fans"]] == scores[order].argmax(axis=1).tolist()
    assert [fan["score"] for fan in view["fans"]] == pytest.approx(scores.max(axis=1)[order].tolist(), abs=1e-5)
    had = set(EVENTS.filter(item_id="item 7")["user_id"].to_list())
    assert {int(fan["user_id"]) for fan in view["fans"] if fan["had"]} == had
    assert (view["looked_at"], view["users"]) == (NUM_USERS, NUM_USERS)


def test_the_map_has_the_places_that_users_and_items_are_shown_at(client) -> None:
    _, shown = _get(client, "/explorer/map")
    places = dict(zip(shown["item_ids"], shown["positions"], strict=True))
    assert (len(places), shown["total"]) == (NUM_ITEMS, NUM_ITEMS)
    assert set(shown["categories"]) == {f"category {number}" for number in range(5)}
    assert 0 < shown["spread"] <= 1
    _, user = client.ask(USER, user_id="4")
    assert all(places[item["item_id"]] == item["position"] for item in (*user["items"], *user["history"]))
    _, view = _get(client, "/explorer/item?item_id=item%207")
    assert view["position"] == places["item 7"]


def test_a_plane_shows_what_differs_most() -> None:
    """Items at 2, -2 and 0 of the second axis and one at .4 of the first; the third axis tells nothing."""
    vectors = np.array([[0, 2, 0], [0, -2, 0], [0, 0, 0], [0.4, 0, 0]], np.float32)
    plane = ItemMap.of(vectors)
    first, second = zip(*plane.place(vectors), strict=True)
    assert first == pytest.approx([1, -1, 0, 0])
    assert np.abs(second) == pytest.approx([0.05, 0.05, 0.05, 0.15])
    assert plane.spread == pytest.approx(1)
    assert plane.place(np.array([[0, 1, 5]], np.float32))[0][0] == pytest.approx(0.5)


def test_a_plane_of_one_item() -> None:
    plane = ItemMap.of(np.array([[0.6, 0.8]], np.float32))
    assert plane.place(np.array([[0.6, 0.8]], np.float32)) == [(0, 0)]


def test_ids_larger_than_a_browser_can_count(bundle: Path, make_client, tmp_path: Path) -> None:
    number = 2**62 + 1
    folder = with_store(bundle, tmp_path / "bundle", user_id=EVENTS["user_id"] + number)
    client = make_client(folder)
    assert _get(client, f"/explorer/users?search={number + 4}")[1]["users"][0]["user_id"] == str(number + 4)
    assert _history(client.ask(USER, user_id=str(number + 4))[1]) == _of(4)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"user_id": "four"}, "user_id: expected an integer, found 'four'"),
        ({"user_id": "1_0"}, "user_id: expected an integer, found '1_0'"),
        ({"user_id": "\u0661"}, "user_id: expected an integer, found"),
        ({"user_id": " 1\n"}, "user_id: expected an integer, found"),
        ({"k": True}, "k: Input should be a valid integer"),
        ({"user_id": str(2**64)}, f"user_id: expected an integer, found '{2**64}'"),
        ({"k": 1001}, "k: expected at most 1000, found 1001"),
        ({"k": 0}, "k: Input should be greater than or equal to 1"),
        ({"added": [{"item_id": "item 1", "timestamp": -1}]}, "added.0.timestamp: Input should be"),
        ({"further": 1}, "further: Extra inputs are not permitted"),
    ],
)
def test_wrong_questions(client, query: dict[str, object], message: str) -> None:
    status, answer = client.ask(USER, **query)
    assert (status, answer["error"]["code"]) == (422, "invalid_request")
    assert answer["error"]["message"].startswith(message)


def test_an_unknown_item(client) -> None:
    status, answer = _get(client, "/explorer/item?item_id=nothing")
    assert (status, answer["error"]["code"]) == (404, "unknown_item")


def test_the_page_and_its_files(client) -> None:
    page = client.send("GET", "/")
    policy = page.headers["content-security-policy"]
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for name, kind in (("explorer.js", "text/javascript"), ("explorer.css", "text/css"), ("prism.svg", "image/svg")):
        file = client.send("GET", f"/explorer/page/{name}")
        assert (file.status_code, file.headers["content-type"].startswith(kind)) == (200, True)
        again = client.send("GET", f"/explorer/page/{name}", if_none_match=file.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "../explorer.py", "%2e%2e/explorer.py", "echarts.LICENSE"):
        assert client.send("GET", f"/explorer/page/{name}").status_code == 404


def test_what_it_shows_of_users_is_not_stored(client) -> None:
    assert client.send("GET", "/explorer/users").headers["cache-control"] == "no-store"


def test_a_key_guards_all_but_the_page(bundle: Path, make_client) -> None:
    client = make_client(bundle, key="secret")
    assert client.send("GET", "/").status_code == 200
    assert client.send("GET", "/explorer/page/ask.js").status_code == 200
    for path in ("/explorer/users", "/explorer/items", "/explorer/map", "/explorer/item?item_id=item%207"):
        assert client.send("GET", path).status_code == 401
        assert client.send("GET", path, x_api_key="secret").status_code == 200
    assert client.send("POST", USER, json.dumps({"user_id": "4"}).encode()).status_code == 401


def test_those_who_look_keep_no_events_waiting(bundle: Path, tmp_path: Path) -> None:
    serving, metrics = ServeConfig(), Metrics()
    host = open_host(bundle, serving, metrics, events=str(tmp_path / "events"))
    transport = httpx.ASGITransport(create_app(host, serving, metrics))

    async def ask() -> tuple[int, set[int]]:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            with host.current.explorer._encoding:  # as while the interests of users are made
                looking = [asyncio.create_task(client.get("/explorer/item?item_id=item%207")) for _ in range(50)]
                await asyncio.sleep(0.1)  # until they are where they wait
                event = {"item_id": "item 3", "timestamp": START}
                async with asyncio.timeout(10):
                    answer = await client.post("/v1/events", json={"user_id": 900, "events": [event]})
            return answer.status_code, {each.status_code for each in await asyncio.gather(*looking)}

    assert asyncio.run(ask()) == (200, {200})
    host.close()


def test_it_can_be_left_out(bundle: Path, make_client) -> None:
    client = make_client(bundle, explorer=False)
    assert {client.send("GET", path).status_code for path in ("/", "/explorer/users", "/explorer/map")} == {404}
    assert client.ask("/v1/recommend", user_id=4)[0] == 200


def test_a_catalogue_of_ids_alone(bundle: Path, make_client, tmp_path: Path) -> None:
    client = make_client(with_store(bundle, tmp_path / "bundle", ITEMS.select("item_id", "category")))
    _, found = _get(client, "/explorer/items?search=item%2029")
    assert [(item["item_id"], item["title"]) for item in found["items"]] == [("item 29", None)]
    assert set(_get(client, "/explorer/map")[1]["titles"]) == {None}
    assert client.ask(USER, user_id="4")[1]["history"][0]["timestamp"] > START
