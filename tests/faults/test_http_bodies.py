"""What is wrong within the body of a request: numbers, texts, depths, keys and counts that a schema does not know.

Written by hand and drawn by Hypothesis, asked of a server that is a process. The environment variable PRISMREC_FUZZ=N
draws N times as many, other ones each time.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..serve.conftest import START
from ..serve.processes import RECOMMEND, Server
from .http_server import check_refusal, unharmed_server
from .strange import fuzzed

EVENTS, SIMILAR, EXPLORE = "/v1/events", "/v1/similar", "/explorer/user"
EXAMPLES = 150
LAST_SECOND = 253_402_300_799  # of the year 9999
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with unharmed_server(bundle, tmp_path_factory.mktemp("bodies")) as server:
        yield server


@pytest.fixture(scope="module")
def ask(server: Server, tried: Callable[..., None]) -> Iterator[Ask]:
    """Send a body; what comes back is JSON without NaN, and in the one form if it is a refusal."""
    with server.client() as client:

        def ask(path: str, body: str | bytes, content_type: str | None = "application/json") -> httpx.Response:
            tried("HTTP requests")
            content = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
            headers = {} if content_type is None else {"content-type": content_type.encode("latin-1")}
            answer = client.post(path, content=content, headers=headers)
            if answer.status_code == 200:
                json.loads(answer.content, parse_constant=_refuse_constant)
            else:
                check_refusal(answer.status_code, answer.headers, answer.content)
            return answer

        yield ask


def _refuse_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def _error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]["message"]


# Numbers

NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"]
FIELDS = {
    "user_id": (RECOMMEND, '{"user_id": %s}'),
    "k": (RECOMMEND, '{"user_id": 4, "k": %s}'),
    "now": (RECOMMEND, '{"user_id": 4, "now": %s}'),
    "diversity": (RECOMMEND, '{"user_id": 4, "diversity": %s}'),
    "timestamp": (RECOMMEND, '{"events": [{"item_id": "item 3", "timestamp": %s}]}'),
    "dwell": (RECOMMEND, '{"events": [{"item_id": "item 3", "timestamp": 5, "dwell": %s}]}'),
    "context": (RECOMMEND, '{"events": [{"item_id": "item 3", "timestamp": 5, "shop": %s}]}'),
    "user_id of events": (EVENTS, '{"user_id": %s, "events": [{"item_id": "item 3", "timestamp": 5}]}'),
    "k of similar": (SIMILAR, '{"item_id": "item 3", "k": %s}'),
    "k of the explorer": (EXPLORE, '{"user_id": "4", "k": %s}'),
    "diversity of the explorer": (EXPLORE, '{"user_id": "4", "diversity": %s}'),
    "timestamp of the explorer": (EXPLORE, '{"added": [{"item_id": "item 3", "timestamp": %s}]}'),
}
HUGE = [str(sign * number) for number in (2**64, 2**63 + 2**64, 10**400, 10**4000) for sign in (1, -1)]


@pytest.mark.parametrize("field", FIELDS)
def test_what_is_no_number_or_out_of_every_range(field: str, ask: Ask) -> None:
    path, body = FIELDS[field]
    for number in (*NO_NUMBERS, *HUGE):
        assert ask(path, body % number).status_code == 422


@pytest.mark.parametrize("field", FIELDS)
def test_more_digits_than_a_number_may_have(field: str, ask: Ask) -> None:
    path, body = FIELDS[field]
    assert ask(path, body % ("1" + 100_000 * "0")).status_code == 400


@pytest.mark.parametrize(
    ("field", "number", "status"),
    [
        ("user_id", 2**63 - 1, 200),
        ("user_id", 2**63, 422),
        ("user_id", -(2**63), 200),
        ("user_id", -(2**63) - 1, 422),
        ("user_id of events", -(2**63), 200),
        ("user_id of events", 2**63, 422),
        ("context", 2**64 - 1, 200),
        ("context", -(2**63), 200),
        ("context", -(2**63) - 1, 422),
        ("timestamp", 0, 200),
        ("timestamp", -1, 422),
        ("timestamp", LAST_SECOND, 200),
        ("timestamp", LAST_SECOND + 1, 422),
        ("timestamp of the explorer", LAST_SECOND + 1, 422),
        ("now", -1, 422),
        ("now", LAST_SECOND, 200),
        ("dwell", 2**31 - 1, 200),
        ("dwell", 2**31, 422),
        ("dwell", -1, 422),
        ("k", 0, 422),
        ("k", 1000, 200),
        ("k", 1001, 422),
        ("k", 2**63, 422),
        ("k of similar", 1001, 422),
        ("k of the explorer", 1001, 422),
        ("diversity", "-0", 200),
        ("diversity", "-0.0", 200),
        ("diversity", "1e-400", 200),
        ("diversity", "1.0000000000000002", 422),
        ("user_id", "-0", 200),
        ("user_id", "4.0", 422),
        ("user_id", "4e0", 422),
        ("context", "-0.0", 200),
        ("context", "0.5", 422),
        ("context", "1e300", 422),
    ],
)
def test_numbers_at_the_bounds(field: str, number: object, status: int, ask: Ask) -> None:
    path, body = FIELDS[field]
    assert ask(path, body % number).status_code == status


# Texts

TEXTS = {
    "nothing": "",
    "NUL": "\\u0000",
    "control characters": "\\u0001\\u001f\\u007f\\u0085",
    "turned": "\u202eabc\u2066\u200f",
    "no characters": "\uffff\ufffe\ufdd0",
    "composed": "e\u0301\u212b\ufb01",
    "beyond the first plane": "\U0001f600\U0010ffff",
    "long": 1_000_000 * "a",
    "long in bytes": 250_000 * "\U0001f600",
    "long when escaped": 170_000 * "\\u0001",
    "path": "../../etc/passwd",
    "markup": "<script>alert(1)</script>",
    "format": "%s%n{0}{}${jndi:ldap://x}",
}


@pytest.mark.parametrize("what", TEXTS)
def test_ids_of_no_item(what: str, ask: Ask) -> None:
    text = TEXTS[what]
    unknown = ask(SIMILAR, f'{{"item_id": "{text}"}}')
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "unknown_item"
    event = f'{{"item_id": "{text}", "timestamp": 5}}'
    answer = ask(RECOMMEND, f'{{"events": [{event}], "k": 1}}')
    assert (answer.status_code, answer.json()["fallback"]) == (200, "popular")
    answer = ask(EVENTS, f'{{"user_id": 7000, "events": [{event}]}}')
    assert answer.json() == {"events": 1, "unknown_items": 1}
    for field in ("exclude_items", "exclude_categories", "only_items", "only_categories"):
        assert ask(RECOMMEND, f'{{"user_id": 4, "{field}": ["{text}"]}}').status_code == 200
    explored = ask(EXPLORE, f'{{"added": [{event}]}}')
    assert explored.status_code == (422 if "long" in what else 200)


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "a\\udfffb", "\\udc00\\ud800"])
def test_half_a_character(half: str, ask: Ask) -> None:
    for path, body in (
        (SIMILAR, '{"item_id": "%s"}'),
        (RECOMMEND, '{"user_id": 4, "exclude_categories": ["%s"]}'),
        (RECOMMEND, '{"%s": 4}'),
        (RECOMMEND, '{"events": [{"item_id": "item 3", "timestamp": 5, "shop": "%s"}]}'),
        (RECOMMEND, '{"events": [{"item_id": "item 3", "timestamp": 5, "%s": 1}]}'),
        (EVENTS, '{"user_id": 7000, "events": [{"item_id": "%s", "timestamp": 5}]}'),
        (EXPLORE, '{"user_id": "%s"}'),
        (EXPLORE, '{"added": [{"item_id": "%s", "timestamp": 5}]}'),
    ):
        assert ask(path, body % half).status_code == 422
    raw = json.dumps({"item_id": json.loads(f'"{half}"')}, ensure_ascii=False)  # three bytes that are not UTF-8
    assert ask(SIMILAR, raw).status_code == 422


def test_a_message_does_not_grow_with_what_it_quotes(ask: Ask) -> None:
    key = 900_000 * "k"
    for path, body in (
        (RECOMMEND, f'{{"{key}": 1}}'),
        (RECOMMEND, f'{{"events": [{{"item_id": "item 3", "timestamp": 5, "{key}": 1}}]}}'),
        (SIMILAR, f'{{"item_id": "{key}"}}'),
    ):
        answer = ask(path, body)
        assert answer.status_code in (404, 422)
        assert len(answer.content) < 2000


# Depth and keys


@pytest.mark.parametrize("depth", [90, 900, 930, 940, 950, 960, 970, 980, 990, 1000, 1010, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depths(depth: int, opening: str, closing: str, ask: Ask) -> None:
    deep = depth * opening + "1" + depth * closing
    for path, body in (
        (RECOMMEND, "%s"),
        (RECOMMEND, '{"user_id": %s}'),
        (RECOMMEND, '{"only_items": %s}'),
        (RECOMMEND, '{"events": [{"item_id": "item 3", "timestamp": 5, "shop": %s}]}'),
        (EVENTS, '{"user_id": 7000, "events": %s}'),
        (f"{RECOMMEND}/batch", '{"queries": %s}'),
        (EXPLORE, '{"added": %s}'),
    ):
        if len(deep) < 2**20 - 100:
            assert ask(path, body % deep).status_code in (400, 422)
            assert ask(path, depth * opening).status_code in (400, 422)  # never closed


def test_a_key_that_comes_twice_counts_as_it_came_last(ask: Ask) -> None:
    twice = ask(RECOMMEND, '{"user_id": 5, "k": "x", "user_id": 4, "k": 3}')
    assert twice.json() == ask(RECOMMEND, '{"user_id": 4, "k": 3}').json()


MANY = ",".join(f'"{number}":0' for number in range(90_000))


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        (RECOMMEND, "{%s}", "body"),
        (RECOMMEND, '{"without_events": [{%s}]}', "body"),
        (RECOMMEND, '{"events": [{%s}]}', "body"),
        (f"{RECOMMEND}/batch", '{"queries": [{%s}]}', "body"),
        (f"{RECOMMEND}/batch", '{"queries": [{"events": [{%s}]}]}', "queries.0"),
        (SIMILAR, "{%s}", "body"),
        (EVENTS, '{"user_id": 1, "events": [{%s}]}', "body"),
        (EXPLORE, "{%s}", "body"),
        (EXPLORE, '{"removed": [{%s}]}', "body"),
    ],
)
def test_very_many_keys(path: str, body: str, where: str, ask: Ask) -> None:
    """Not all of them are looked at."""
    assert _error(ask(path, body % MANY)) == (422, f"{where}: expected at most 100 fields, found 90000")


# Counts and order


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        (f"{RECOMMEND}/batch", {"queries": 101 * [{}]}, "queries: List should have at most 100 items after validation"),
        (f"{RECOMMEND}/batch", {"queries": 250_000 * [{}]}, "queries: List should have at most 100 items"),
        (f"{RECOMMEND}/batch", {"queries": []}, "queries: List should have at least 1 item"),
        (f"{RECOMMEND}/batch", {"queries": 11 * [{"k": 1000}]}, "k: expected at most 10000 items for all queries"),
        (RECOMMEND, {"events": 10_001 * [{"item_id": "a", "timestamp": 1}]}, "events: expected at most 10000"),
        (RECOMMEND, {"exclude_items": 10_001 * ["a"]}, "exclude_items: expected at most 10000, found 10001"),
        (EVENTS, {"user_id": 1, "events": 10_001 * [{"item_id": "a", "timestamp": 1}]}, "events: expected at most"),
        (EVENTS, {"user_id": 1, "events": []}, "events: List should have at least 1 item"),
        (EXPLORE, {"added": 10_001 * [{"item_id": "a", "timestamp": 1}]}, "events: expected at most 10000"),
        (EXPLORE, {"removed": 10_001 * [{"item_id": "a", "timestamp": 1}]}, "without_events: expected at most 10000"),
    ],
)
def test_too_many(path: str, query: dict[str, Any], message: str, ask: Ask) -> None:
    status, found = _error(ask(path, json.dumps(query, separators=(",", ":"))))
    assert status == 422
    assert found.startswith(message)


def test_events_in_any_order_and_more_than_once(ask: Ask) -> None:
    events = [{"item_id": f"item {number}", "timestamp": START + 60 * number, "shop": 1} for number in range(6)]
    right = ask(RECOMMEND, json.dumps({"events": events, "k": 5}))
    wrong = ask(RECOMMEND, json.dumps({"events": [*events[::-1], *events], "k": 5}))
    assert right.status_code == wrong.status_code == 200
    assert right.json() == wrong.json()


@pytest.mark.parametrize("now", ["null", "0", str(START), str(LAST_SECOND)])
@pytest.mark.parametrize("time", [0, START, 2**31, 2**32, LAST_SECOND])
def test_events_of_the_future_and_of_the_beginning(time: int, now: str, ask: Ask) -> None:
    events = f'"events": [{{"item_id": "item 3", "timestamp": {time}}}]'
    assert len(ask(RECOMMEND, f'{{"user_id": 4, "now": {now}, {events}}}').json()["items"]) == 20
    user = 8000 + time
    assert ask(EVENTS, f'{{"user_id": {user}, {events}}}').json() == {"events": 1, "unknown_items": 0}
    answer = ask(RECOMMEND, f'{{"user_id": {user}, "now": {now}}}').json()
    known = now == "null" or int(now) >= time
    assert answer["fallback"] == (None if known else "popular")


# What is no JSON, or not said to be

NO_JSON = [b"\xff", b"\0", b"{", b"]", b"'a'", b"{'k': 4}", b'{"k": 4,}', b"// a\n{}", b"\x1f\x8b\x08", b"{}{}"]
FORMS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data"]
TYPES = ["text/plain", *FORMS, "application/xml", "application/jsonp", "x", ";", "\xff"]


@pytest.mark.parametrize("body", NO_JSON)
def test_what_is_no_json(body: bytes, ask: Ask) -> None:
    for path in (RECOMMEND, SIMILAR, EVENTS, EXPLORE, f"{EVENTS}/batch"):
        assert ask(path, body).status_code in (400, 422)


@pytest.mark.parametrize("body", [b"", b"null", b"4", b'"a"', b"[]", b"true", b"NaN"])
def test_what_is_no_object(body: bytes, ask: Ask) -> None:
    for path in (RECOMMEND, SIMILAR, EVENTS, EXPLORE, f"{EVENTS}/batch"):
        assert ask(path, body).status_code == 422


@pytest.mark.parametrize("content_type", [None, "", *TYPES])
def test_other_types_of_content(content_type: str | None, ask: Ask) -> None:
    status, message = _error(ask(RECOMMEND, '{"user_id": 4}', content_type))
    assert (status, message) == (422, "body: expected JSON, and the header Content-Type: application/json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_text(encoding: str, ask: Ask) -> None:
    assert ask(RECOMMEND, '{"user_id": 4}'.encode(encoding)).status_code == 200


# Drawn


def _json(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    )


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**31, 2**53 + 1, 2**63, 2**64, 10**400, START, -1, 0, 1])
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["item 3", "category 1", "4", "maximum", "\ud800", "\0"])
)
NAMES = [
    "user_id", "item_id", "events", "without_events", "k", "now", "merge", "diversity", "include_seen", "exclude_items",
    "exclude_categories", "only_items", "only_categories", "queries", "timestamp", "dwell", "shop", "added", "removed",
]  # fmt: skip
PATHS = [RECOMMEND, SIMILAR, EVENTS, EXPLORE, *(f"{path}/batch" for path in (RECOMMEND, SIMILAR, EVENTS))]
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from(NAMES), _json(LEAVES), max_size=6),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), LEAVES | inner | st.lists(inner, max_size=3), max_size=6),
)


@fuzzed(EXAMPLES)
@given(st.sampled_from(PATHS), OBJECTS | _json(LEAVES))
def test_any_json(ask: Ask, path: str, value: Any) -> None:
    assert ask(path, json.dumps(value)).status_code in (200, 400, 404, 422)


VALID = {
    RECOMMEND: {"user_id": 4, "k": 3, "events": [{"item_id": "item 3", "timestamp": START}], "only_items": ["item 7"]},
    SIMILAR: {"item_id": "item 3", "k": 3, "exclude_categories": ["category 1"]},
    EVENTS: {"user_id": 9000, "events": [{"item_id": "item 3", "timestamp": START, "shop": 1}]},
    EXPLORE: {"user_id": "4", "added": [{"item_id": "item 3", "timestamp": START}]},
}


@fuzzed(EXAMPLES)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_one_value_in_place_of_another(ask: Ask, path: str, data: st.DataObject) -> None:
    query = json.loads(json.dumps(VALID[path]))
    within = data.draw(st.sampled_from([query, *(query.get("events") or query.get("added") or [])]))
    within[data.draw(st.sampled_from([*within, *NAMES]))] = data.draw(_json(LEAVES))
    assert ask(path, json.dumps(query)).status_code in (200, 400, 404, 422)


@fuzzed(EXAMPLES)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_one_byte_in_place_of_another(ask: Ask, path: str, data: st.DataObject) -> None:
    body = bytearray(json.dumps(VALID[path]).encode())
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=3)):
        body[place] = data.draw(st.integers(0, 255))
    assert ask(path, bytes(body)).status_code in (200, 400, 404, 422)


@fuzzed(EXAMPLES)
@given(st.sampled_from(["users", "items", "item"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_search(server: Server, tried: Callable[..., None], what: str, text: str) -> None:
    name = "item_id" if what == "item" else "search"
    with server.client() as client:
        answer = client.get(f"/explorer/{what}", params={name: text})
    tried("HTTP requests")
    assert answer.status_code in (200, 404)
    if answer.status_code == 404:
        check_refusal(404, answer.headers, answer.content, "unknown_item")
