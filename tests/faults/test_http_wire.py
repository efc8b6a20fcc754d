"""What is wrong below the requests: malformed and never-ending HTTP, compression, paths, keys, slow clients.

A server that is a process, asked through sockets, byte by byte.
"""

import contextlib
import gzip
import http.client
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pytest

from ..serve.processes import RECOMMEND, Server
from .http_server import EVERYWHERE, KEY, check_refusal, unharmed_server

BODY = b'{"user_id": 4}'
CHUNKED = (b"transfer-encoding: chunked",)
PATIENCE = 1.0  # seconds that one of the servers waits


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool
    """Whether the server ended the connection after it."""


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with unharmed_server(bundle, tmp_path_factory.mktemp("wire")) as server:
        yield server


@pytest.fixture(scope="module")
def impatient_server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with unharmed_server(bundle, tmp_path_factory.mktemp("slow"), f"--set=max_body_seconds={PATIENCE}") as server:
        yield server


@pytest.fixture
def send(server: Server, tried: Callable[..., None]) -> Callable[[bytes], Answer]:
    """Send bytes over a connection of their own and read one answer."""

    def send(data: bytes) -> Answer:
        tried("raw HTTP requests")
        with server.connect() as connection:
            with contextlib.suppress(ConnectionError):  # the server may have had enough
                connection.sendall(data)
            return _read(connection.makefile("rb"))

    return send


def _read(received: BinaryIO) -> Answer:
    """The next answer."""
    status = int(received.readline().split()[1])
    headers = {name.lower(): value for name, value in http.client.parse_headers(received).items()}
    body = received.read(int(headers["content-length"]))
    closed = headers.get("connection") == "close"
    if closed:
        with contextlib.suppress(ConnectionError):
            assert received.read(1) == b""
    return Answer(status, headers, body, closed)


def _request(
    *lines: bytes,
    body: bytes = BODY,
    path: bytes = RECOMMEND.encode(),
    method: bytes = b"POST",
    key: bytes = KEY.encode(),
) -> bytes:
    """A request with these header lines besides the key and the content type; none of them is the length."""
    head = [
        method + b" " + path + b" HTTP/1.1",
        b"host: test",
        b"x-api-key: " + key,
        b"content-type: application/json",
    ]
    return b"\r\n".join([*head, *lines, b"", body])


def _length(body: bytes = BODY) -> bytes:
    return b"content-length: %d" % len(body)


def test_what_is_right(send: Callable[[bytes], Answer]) -> None:
    whole = send(_request(_length()))
    chunked = send(_request(*CHUNKED, body=b"4\r\n" + BODY[:4] + b"\r\na;x=y\r\n" + BODY[4:] + b"\r\n0\r\n\r\n"))
    assert whole.status == chunked.status == 200
    assert whole.body == chunked.body
    assert not whole.closed


# Malformed

LENGTHS = [b"-1", b"abc", b"1e3", b"+14", b"0x0e", b"14, 14", b"14 14", b"", b" ", b"\xc2\xb2", b"1_4"]
MALFORMED = {
    **{f"length {length!r}": _request(b"content-length: " + length) for length in LENGTHS},
    "length 2^64": _request(b"content-length: %d" % 2**64),
    "length 10^400": _request(b"content-length: 1" + 400 * b"0"),
    "two lengths": _request(_length(), b"content-length: 3"),
    "two equal lengths": _request(_length(), _length()),
    "length and chunks": _request(_length(), *CHUNKED),
    "chunks and length": _request(*CHUNKED, _length()),
    "chunked twice": _request(*CHUNKED, b"transfer-encoding: identity", body=b"0\r\n\r\n"),
    "chunk of no number": _request(*CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"),
    "chunk below 0": _request(*CHUNKED, body=b"-1\r\nabc\r\n0\r\n\r\n"),
    "chunk of 2^72 - 1": _request(*CHUNKED, body=18 * b"f" + b"\r\nabc\r\n0\r\n\r\n"),
    "chunk that is longer than it says": _request(*CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n"),
    "NUL in a header": _request(_length(), b"x-a: a\x00b"),
    "bare line feed in a header": _request(_length(), b"x-a: a\nx-b: b"),
    "bare carriage return in a header": _request(_length(), b"x-a: a\rx-b: b"),
    "folded header": _request(_length(), b"x-a: a", b" b"),
    "blank before the colon": _request(_length(), b"x-a : a"),
    "header without a name": _request(_length(), b": a"),
    "header without a colon": _request(_length(), b"abc"),
    "address not ASCII": _request(_length(), path=b"/\xff\xfe"),
    "address with a blank": _request(_length(), path=b"/health x"),
    "address of no form": _request(_length(), path=b"health"),
    "address with a bad port": _request(_length(), path=b"http://test:port/health"),
    "unknown method": _request(_length(), method=b"STEAL"),
    "tunnel": b"CONNECT elsewhere:80 HTTP/1.1\r\nhost: elsewhere\r\n\r\n",
    "unknown version": b"GET /health HTTP/7.3\r\nhost: test\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "noise": bytes(range(255, -1, -1)),
    "websocket with a body": _request(_length(), b"connection: upgrade", b"upgrade: websocket"),
    "HTTP/2 upgrade with a body": _request(_length(), b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c"),
    "upgrade with chunks": _request(*CHUNKED, b"connection: upgrade", b"upgrade: x", body=b"0\r\n\r\n"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed(what: str, send: Callable[[bytes], Answer]) -> None:
    answer = send(MALFORMED[what])
    assert (answer.status, answer.closed) == (400, True)
    message = check_refusal(answer.status, answer.headers, answer.body, "bad_request")
    assert message.startswith(
        "expected no header Upgrade" if "upgrade" in what or "websocket" in what else "expected a"
    )


def test_a_body_is_no_further_request(server: Server, tried: Callable[..., None]) -> None:
    """Neither that of an upgrade, which the parser takes for the next request, nor what is longer than its length."""
    hidden = _request(_length(), body=BODY)
    upgrade = _request(_length(hidden), b"connection: upgrade", b"upgrade: h2c", body=b"")
    with server.connect() as connection:
        connection.sendall(upgrade)
        answer = _read(connection.makefile("rb"))
        assert (answer.status, answer.closed) == (400, True)
        with contextlib.suppress(ConnectionError):
            connection.sendall(hidden)
            assert connection.recv(1) == b""
    with server.connect() as connection:
        connection.sendall(_request(_length(), body=BODY + b"abc\r\n\r\n"))
        received = connection.makefile("rb")
        assert _read(received).status == 200
        assert received.read() == b""
    tried("raw HTTP requests", 2)


def test_requests_sent_together_are_answered_in_order(server: Server, tried: Callable[..., None]) -> None:
    with server.connect() as connection:
        requests = [_request(_length(), b"x-request-id: %d" % number) for number in range(20)]
        connection.sendall(b"".join(requests))
        received = connection.makefile("rb")
        assert [_read(received).headers["x-request-id"] for _ in requests] == [str(each) for each in range(20)]
    tried("raw HTTP requests", len(requests))


def test_who_sends_requests_together_and_leaves(server: Server, tried: Callable[..., None]) -> None:
    """Nothing is written to a connection that is gone: the log of the server shows it at the end."""
    for number in range(30):
        with server.connect() as connection:
            connection.sendall(20 * _request(_length()))
            time.sleep(0.002 * (number % 5))
        tried("raw HTTP requests", 20)


def test_too_many_requests_sent_together(server: Server, tried: Callable[..., None]) -> None:
    """What came before is answered, and the connection ends."""
    with server.connect() as connection:
        connection.sendall(2000 * b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n")
        answers = connection.makefile("rb").read().count(b"HTTP/1.1 200 OK")
        assert 101 <= answers < 2000
    tried("raw HTTP requests", 2000)


def test_trailers_are_no_headers(send: Callable[[bytes], Answer]) -> None:
    body = b"e\r\n" + BODY + b"\r\n0\r\nx-request-id: mine\r\ncontent-encoding: gzip\r\n\r\n"
    answer = send(_request(*CHUNKED, body=body))
    assert answer.status == 200
    assert answer.headers["x-request-id"] != "mine"


def test_an_upgrade_without_a_body_is_ignored(send: Callable[[bytes], Answer]) -> None:
    answer = send(_request(b"connection: upgrade", b"upgrade: websocket", body=b"", path=b"/health", method=b"GET"))
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "ok")


# Too large

TOO_LARGE = {
    "long address": _request(path=b"/" + 70_000 * b"a", method=b"GET", body=b""),
    "long question": _request(path=b"/explorer/users?search=" + 70_000 * b"a", method=b"GET", body=b""),
    "long header": _request(_length(), b"x-a: " + 70_000 * b"a"),
    "long name": _request(_length(), 70_000 * b"a" + b": a"),
    "many headers": _request(_length(), *(b"x-%d: %d" % (number, number) for number in range(8000))),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_too_much_before_the_body(what: str, send: Callable[[bytes], Answer]) -> None:
    answer = send(TOO_LARGE[what])
    assert (answer.status, answer.closed) == (431, True)
    check_refusal(answer.status, answer.headers, answer.body, "headers_too_large")


def test_what_is_just_not_too_long(send: Callable[[bytes], Answer]) -> None:
    assert send(_request(_length(), b"x-a: " + 60_000 * b"a")).status == 200


ENDLESS = {
    "header": _request(b"x-a: ", body=b"")[:-4],
    "headers": _request(body=b"")[:-2],
    "address": b"GET /",
    "trailers": _request(*CHUNKED, body=b"e\r\n" + BODY + b"\r\n0\r\nx-a: "),
    "chunk extension": _request(*CHUNKED, body=b"e;"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends(what: str, server: Server, tried: Callable[..., None]) -> None:
    """The parser keeps it whole, in time that grows with the square: 100 MB hold everybody up for seconds."""
    piece = 2**10 * b"x-a: b\r\n" if what == "headers" else 2**13 * b"a"
    with server.connect() as connection:
        connection.sendall(ENDLESS[what])
        with contextlib.suppress(ConnectionError):
            for sent in itertools.count():
                assert sent < 10_000
                connection.sendall(piece)
    tried("raw HTTP requests")


@pytest.mark.parametrize("length", [2**20 + 1, 2**31, 2**63, 10**19])
def test_the_length_of_a_large_body_is_enough_to_refuse_it(length: int, send: Callable[[bytes], Answer]) -> None:
    answer = send(_request(b"content-length: %d" % length, body=b""))
    assert answer.status == 413
    check_refusal(answer.status, answer.headers, answer.body, "body_too_large")


# Compressed

WINDOW_BITS = {b"gzip": 31, b"deflate": 15}


def _compressed(encoding: bytes) -> bytes:
    """200 MiB of zeros, more than memory may grow; what is of no such encoding is small."""
    bits = WINDOW_BITS.get(encoding)
    if bits is None:
        return gzip.compress(BODY)
    compressor = zlib.compressobj(1, wbits=bits)
    return b"".join(compressor.compress(bytes(2**20)) for _ in range(200)) + compressor.flush()


ENCODINGS = [
    b"gzip",
    b"GZIP",
    b"x-gzip",
    b"deflate",
    b"compress",
    b"br",
    b"zstd",
    b"gzip, gzip",
    b"identity, gzip",
    b"\xff",
]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nothing_is_inflated(encoding: bytes, send: Callable[[bytes], Answer]) -> None:
    body = _compressed(encoding)
    answer = send(_request(_length(body), b"content-encoding: " + encoding, body=body))
    assert answer.status == 415
    message = check_refusal(answer.status, answer.headers, answer.body, "unsupported_encoding")
    assert (
        message
        == f"expected a body that is not compressed, found Content-Encoding: {encoding.decode('latin-1').lower()}"
    )


@pytest.mark.parametrize("encoding", [b"identity", b"Identity", b""])
def test_what_is_not_compressed(encoding: bytes, send: Callable[[bytes], Answer]) -> None:
    assert send(_request(_length(), b"content-encoding: " + encoding)).status == 200


def test_compressed_and_not_said(send: Callable[[bytes], Answer]) -> None:
    for coding in (b"chunked", b"gzip, chunked"):
        body = gzip.compress(BODY)
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = send(_request(b"transfer-encoding: " + coding, body=chunk))
        assert answer.status == 400
        check_refusal(answer.status, answer.headers, answer.body, "bad_request")


# Paths

AWAY = [
    b"../gate.py", b"..%2fgate.py", b"%2e%2e/gate.py", b"..%2f..%2f..%2f..%2fetc/passwd", b"..%5c..%5cgate.py",
    b"/etc/passwd", b"%2fetc%2fpasswd", b"%00", b"explorer.html%00", b"explorer.html%00.js", b"explorer.html/",
    b"..%252fgate.py", b"%ff", b"%c0%ae%c0%ae/gate.py", b".", b"..", b"", b"%", b"%zz", b"EXPLORER.HTML",
    b"../users", b"..%2fusers", b"../../v1/admin/reload", 60_000 * b"a",
]  # fmt: skip


@pytest.mark.parametrize("name", AWAY, ids=lambda name: repr(name[:40]))
def test_no_other_file_is_given_away(name: bytes, send: Callable[[bytes], Answer]) -> None:
    """Nor anything that needs the key, which the page's own files do not."""
    answer = send(_request(path=b"/explorer/page/" + name, method=b"GET", body=b"", key=b""))
    assert answer.status == 404
    check_refusal(answer.status, answer.headers, answer.body, "not_found")


@pytest.mark.parametrize(
    "path", [b"//explorer/users", b"/./explorer/users", b"/v1/recommend/", b"/EXPLORER/users", b"*"]
)
def test_no_other_spelling_is_the_path(path: bytes, send: Callable[[bytes], Answer]) -> None:
    answer = send(_request(path=path, method=b"OPTIONS" if path == b"*" else b"GET", body=b""))
    assert answer.status == 404
    check_refusal(answer.status, answer.headers, answer.body, "not_found")


# The key

KEYS = [
    b"",
    b" ",
    b"\xff",
    "ключ".encode(),
    KEY.encode()[:-1],
    KEY.encode() + b"x",
    KEY.upper().encode(),
    60_000 * b"a",
]
GUARDED = [b"/metrics", b"/docs", b"/openapi.json", b"/explorer/users", b"/v1/admin/reload", b"/nowhere"]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key[:20]))
def test_other_keys(key: bytes, send: Callable[[bytes], Answer]) -> None:
    for lines in ([], [b"authorization: Bearer " + key[:100]], [b"authorization: Basic " + KEY.encode()]):
        for path in GUARDED:
            answer = send(_request(*lines, path=path, method=b"GET", body=b"", key=key))
            assert answer.status == 401
            check_refusal(answer.status, answer.headers, answer.body, "unauthorized")


def test_no_key(send: Callable[[bytes], Answer]) -> None:
    for path in GUARDED:
        assert send(b"GET " + path + b" HTTP/1.1\r\nhost: test\r\n\r\n").status == 401


PUBLIC = {b"/": "no-cache", b"/explorer/page/explorer.js": "no-cache", b"/health": "no-store", b"/ready": "no-store"}


@pytest.mark.parametrize("path", [*PUBLIC, *GUARDED])
def test_the_headers_of_every_answer(path: bytes, send: Callable[[bytes], Answer]) -> None:
    answer = send(_request(path=path, method=b"GET", body=b""))
    assert {name: answer.headers[name] for name in EVERYWHERE} == EVERYWHERE
    assert answer.headers["cache-control"] == PUBLIC.get(path, "no-store")
    assert "server" not in answer.headers
    assert "x-request-id" in answer.headers


# Slow

SLOW = {
    "head": b"GET /health HTTP/1.1\r\nhost: te",
    "address": b"G",
    "body": _request(_length())[:-1],
    "body that is shorter than it says": _request(b"content-length: 1000"),
    "chunks": _request(*CHUNKED, body=b"e\r\n" + BODY),
    "trailers": _request(*CHUNKED, body=b"e\r\n" + BODY + b"\r\n0\r\nx-a: b\r\n"),
}


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n"], ids=["first", "second"])
@pytest.mark.parametrize("what", SLOW)
def test_who_does_not_finish(what: str, before: bytes, impatient_server: Server, tried: Callable[..., None]) -> None:
    with impatient_server.connect() as connection:
        received = connection.makefile("rb")
        if before:
            connection.sendall(before)
            assert _read(received).status == 200
        connection.sendall(SLOW[what])
        answer = _read(received)
        assert (answer.status, answer.closed) == (408, True)
        check_refusal(answer.status, answer.headers, answer.body, "request_timeout")
    tried("raw HTTP requests")


def test_a_head_that_comes_byte_by_byte(impatient_server: Server, tried: Callable[..., None]) -> None:
    """The time is for the whole head, not for each of its bytes."""
    with impatient_server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            for byte in itertools.chain(b"GET / HTTP/1.1\r\nx-a: ", itertools.repeat(ord("a"), 10_000)):
                connection.sendall(bytes([byte]))
                time.sleep(0.01)
        answer = _read(connection.makefile("rb"))
        assert (answer.status, answer.closed) == (408, True)
    tried("raw HTTP requests")


def test_who_does_not_read(impatient_server: Server, tried: Callable[..., None]) -> None:
    """The place among the requests in progress becomes free, and the connection is cut."""
    with impatient_server.connect() as connection, impatient_server.client() as client:
        connection.sendall(40 * b"GET /explorer/page/echarts.common.min.js HTTP/1.1\r\nhost: test\r\n\r\n")
        deadline, alone = time.monotonic() + 60, 0
        while alone < 10:  # between two of its answers it has no place either
            assert time.monotonic() < deadline
            text = client.get("/metrics").text
            alone = alone + 1 if "prismrec_requests_in_progress 1.0" in text else 0  # which is the question itself
            time.sleep(0.05)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(2**20):
                received += piece
        assert received.count(b"HTTP/1.1 200 OK") < 40
    tried("raw HTTP requests", 40)


def test_what_needs_no_key_waits_for_no_body(impatient_server: Server, tried: Callable[..., None]) -> None:
    with impatient_server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\n")
        assert _read(connection.makefile("rb")).status == 405
    tried("raw HTTP requests")


def test_who_says_nothing(impatient_server: Server, tried: Callable[..., None]) -> None:
    with impatient_server.connect() as connection:
        assert connection.recv(1) == b""
    tried("raw HTTP requests")
