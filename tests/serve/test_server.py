"""`prismrec serve` as a process: told to change its bundle or to stop, asked wrongly, and asked too much."""

import contextlib
import ctypes
import http.client
import itertools
import json
import shutil
import signal
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from ..processes import Server, wait_for
from .processes import QUESTIONS, RECOMMEND, HeldRequest, crowd

KEY = "sesam"


# Told to change


class Site:
    """A link to a bundle, and a server of what the link means."""

    def __init__(self, link: Path, server: Server) -> None:
        self.link, self.server = link, server

    def change_to(self, bundle: Path) -> None:
        """Let the link mean another bundle, and tell the server."""
        other = self.link.with_name("next")
        other.symlink_to(bundle)
        other.replace(self.link)
        self.server.process.send_signal(signal.SIGHUP)

    def wait_for(self, bundle: Path) -> None:
        """Until the server serves the bundle."""
        wait_for(lambda: self.server.health()["model"] == _model(bundle))


def _model(bundle: Path) -> str:
    return json.loads((bundle / "manifest.json").read_text())["files"]["model.safetensors"]["sha256"][:12]


@pytest.fixture(scope="module")
def site(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "current").symlink_to(bundle)
    with Server(folder / "current", folder) as server:
        yield Site(folder / "current", server)


def test_no_request_fails_while_the_bundle_changes(site: Site, bundle: Path, other_bundle: Path) -> None:
    with site.server.client() as client, crowd(site.server):
        before = client.post(RECOMMEND, json={"user_id": 4}).json()
        for new in (other_bundle, bundle, other_bundle, bundle, other_bundle):
            site.change_to(new)
            site.wait_for(new)
        assert client.post(RECOMMEND, json={"user_id": 4}).json()["items"] != before["items"]
    metrics = site.server.metrics()
    assert metrics["prismrec_swaps_total",] == 5
    assert {key: value for key, value in metrics.items() if key[0] == "prismrec_bundle"} == {
        ("prismrec_bundle", _model(other_bundle)): 1
    }


def test_a_damaged_bundle_changes_nothing(site: Site, bundle: Path, tmp_path: Path) -> None:
    model = site.server.health()["model"]
    shutil.copytree(bundle, tmp_path / "damaged")
    (tmp_path / "damaged" / "config.toml").write_text("popularity = 0.5")
    with crowd(site.server):
        site.change_to(tmp_path / "damaged")
        wait_for(lambda: any(line["level"] == "error" for line in site.server.lines()))
    errors = [line["message"] for line in site.server.lines() if line["level"] == "error"]
    assert len(errors) == 1
    assert errors[0].startswith("still serving ")
    assert "config.toml: does not match its checksum in the manifest" in errors[0]
    assert site.server.health()["model"] == model


def test_a_signal_during_the_start_waits_for_its_end(bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    with Server(tmp_path / "current", tmp_path) as server:
        site = Site(tmp_path / "current", server)
        wait_for((tmp_path / "current.events" / "lock").exists)  # it is opening the bundle
        site.change_to(other_bundle)
        site.wait_for(other_bundle)


# Told to stop


def test_what_has_begun_is_answered_before_the_server_stops(bundle: Path, tmp_path: Path) -> None:
    with Server(bundle, tmp_path, f"--events={tmp_path / 'events'}") as server:
        held = [HeldRequest(server, query, path) for path, query in QUESTIONS]
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: _refuses(server) and "Waiting for connections to close" in server.said())
        for request in held:
            request.send()
        assert [request.status() for request in held] == [200] * len(held)
        assert server.process.wait(timeout=60) == 0
    assert server.lines()[-1]["message"].startswith("Finished server process")


def _refuses(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


# Asked wrongly


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with Server(bundle, folder, f"--events={folder / 'events'}", key=KEY) as server:
        yield server


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_threads_share_memory(server: Server) -> None:
    """An arena of glibc beside the first begins at a multiple of 64 MiB, and the rest of that is reserved for it."""
    with crowd(server):
        pass
    whole = 2**26
    lines = Path(f"/proc/{server.process.pid}/maps").read_text().splitlines()
    maps = [(*(int(end, 16) for end in line.split()[0].split("-")), line.split()[1]) for line in lines]
    arenas = [
        start
        for (start, end, access), (reserved, last, none) in itertools.pairwise(maps)
        if (access, none) == ("rw-p", "---p") and end == reserved and last - start >= whole and start % whole == 0
    ]
    assert len(arenas) <= 1  # none is seen where the system has joined it with its neighbour


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/v1/events", "/nowhere"])
def test_without_the_key_nothing_is_answered(server: Server, path: str) -> None:
    with server.client() as client:
        answer = client.get(path, headers={"x-api-key": "", "x-request-id": "abc"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (401, "abc")
        assert answer.json() == {
            "error": {
                "code": "unauthorized",
                "message": "expected the key in the header X-API-Key",
                "request_id": "abc",
            }
        }


def test_the_key_opens_and_those_that_watch_need_none(server: Server) -> None:
    with server.client() as client:
        for headers in ({"x-api-key": KEY}, {"x-api-key": "", "authorization": f"Bearer {KEY}"}):
            assert client.post(RECOMMEND, json={"user_id": 4}, headers=headers).status_code == 200
        for path in ("/ready", "/health"):
            assert client.get(path, headers={"x-api-key": ""}).json()["status"] == "ok"


def test_every_line_of_the_log_is_an_object(server: Server, bundle: Path) -> None:
    with server.connect() as connection:
        connection.sendall(b"no HTTP\r\n\r\n")
        assert b" 400 " in connection.recv(1000)
    asked = {"a": ({"user_id": 4}, RECOMMEND, 200), "b": ({}, "other", 404), "c": ({"k": 0}, RECOMMEND, 422)}
    with server.client() as client:
        for name, (query, path, _) in asked.items():
            answer = client.post(path, json=query, headers={"x-request-id": name})
            assert answer.headers["x-request-id"] == name
    wait_for(lambda: [line for line in server.lines() if line.get("request_id") == "c"])
    assert server.said().startswith(f"{bundle}: served at {server.url}, until Ctrl-C\n")
    for line in server.lines():
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["level"] in ("info", "warning")
        assert {"logger", "message"} <= set(line)
    for name, (_, path, status) in asked.items():
        [line] = [line for line in server.lines() if line.get("request_id") == name]
        assert (line["message"], line["path"], line["status"]) == ("request", path, status)
        assert line["ms"] > 0
    assert KEY not in server.said()


def test_metrics(server: Server) -> None:
    before = server.metrics()
    with server.client() as client:
        client.post(RECOMMEND, json={"user_id": 4, "k": 7})
        client.post(RECOMMEND, json={"user_id": 901, "only_items": []})
        client.post("/v1/events", json=QUESTIONS[-1][1])
    after = server.metrics()
    assert after["prismrec_requests_in_progress",] == 1  # this one
    changed = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key)}
    expected = {
        ("prismrec_requests_total", RECOMMEND, "200"): 2,
        ("prismrec_request_seconds_count", RECOMMEND): 2,
        ("prismrec_encoder_batch_size_sum",): 2,
        ("prismrec_candidates_sum",): 7,
        ("prismrec_empty_answers_total",): 1,
        ("prismrec_fallback_answers_total",): 1,
        ("prismrec_events_appended_total",): 1,
        **{("prismrec_stage_seconds_count", stage): 2 for stage in ("histories", "encode", "search", "answer")},
    }
    assert {key: changed.get(key) for key in expected} == expected
    assert after["prismrec_bundle", server.health()["model"]] == 1


# Asked too much


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(server: Server, chunked: bool) -> None:
    piece = b" " * 2**20
    with server.client() as client, crowd(server):
        answer = client.post(RECOMMEND, content=iter([piece] * 30) if chunked else 30 * piece)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert client.post(RECOMMEND, json={"user_id": 4}).status_code == 200


def test_too_many_requests_are_told_when_to_come_back(bundle: Path, tmp_path: Path) -> None:
    with Server(bundle, tmp_path, f"--events={tmp_path / 'events'}", "--set=max_concurrent=1") as server:
        held = HeldRequest(server, {"user_id": 4})

        def ask(_: object) -> httpx.Response:
            with server.client() as client:
                return client.post(RECOMMEND, json={"user_id": 4})

        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(ask, range(8)):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.json()["error"]["code"] == "overloaded"
            assert server.health()["status"] == "ok"
            held.send()
            assert held.status() == 200
            wait_for(lambda: ask(None).status_code == 200)
            statuses = {answer.status_code for answer in pool.map(ask, range(40))}
            assert 200 in statuses
            assert statuses <= {200, 503}
        wait_for(lambda: ask(None).status_code == 200)


def test_who_takes_forever_to_send_loses_the_place(bundle: Path, tmp_path: Path) -> None:
    settings = ("--set=max_concurrent=1", "--set=max_body_seconds=0.5")
    with Server(bundle, tmp_path, f"--events={tmp_path / 'events'}", *settings) as server:
        for size in (0, 5):
            held = HeldRequest(server, {"user_id": 4})
            held.send(size)
            with contextlib.closing(http.client.HTTPResponse(held.socket)) as answer:
                answer.begin()
                assert (answer.status, answer.headers["connection"]) == (408, "close")
                error = json.loads(answer.read())["error"]
            assert error["code"] == "request_timeout"
            assert error["message"] == "expected the whole body within 0.5 s"
            assert error["request_id"] == answer.headers["x-request-id"]
            assert held.socket.recv(1) == b""  # closed
            held.socket.close()
            with server.client() as client:
                wait_for(lambda client=client: client.post(RECOMMEND, json={"user_id": 4}).status_code == 200)
    assert not [line for line in server.lines() if line["level"] != "info"]


def test_clients_that_leave_disturb_nobody(server: Server) -> None:
    with crowd(server):
        for size in [10, None] * 10:
            request = HeldRequest(server, {"queries": [{"user_id": 4}] * 100}, f"{RECOMMEND}/batch")
            request.send(size)
            # closed by a reset, as when a client is killed
            request.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.socket.close()
    wait_for(lambda: server.metrics()["prismrec_requests_in_progress",] == 1)
    assert not [line for line in server.lines() if line["level"] == "error"]
