"""Files of an event log and values in Redis that nobody wrote so: an error that names the file, or what is whole."""

import json
import logging
import os
import random
import struct
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.errors import ArtifactError
from prismrec.serve.event_log import EventLog
from prismrec.serve.event_segments import header_bytes, read_segment, record_bytes
from prismrec.serve.events import Events

from .strange import TIMES, fuzzed, outcome

ROWS = np.arange(4 * 6, dtype=np.int64).reshape(4, 6)
WHOLE = header_bytes(("page", "shop")) + record_bytes(ROWS)
SEGMENT = "events-000001.log"


def signed(names: bytes, length: int | None = None) -> bytes:
    """A header of any names, with the checksum that it should have."""
    checked = struct.pack("<II", 1, len(names) if length is None else length) + names
    return b"PRISMLOG" + checked[:8] + struct.pack("<I", zlib.crc32(checked)) + names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / SEGMENT


def read(path: Path, content: bytes):
    path.write_bytes(content)
    return outcome(lambda: read_segment(path), f"{path}: ")


@fuzzed(400)
@given(content=st.binary(max_size=200), begins=st.sampled_from([b"", b"PRISMLOG", WHOLE[:12], WHOLE[:20], WHOLE]))
def test_any_bytes(tmp_path_factory, tried, content: bytes, begins: bytes) -> None:
    found = read(tmp_path_factory.getbasetemp() / SEGMENT, begins + content)
    if begins == WHOLE:  # what follows is torn, unless a checksum came out by chance
        assert found.rows.tolist() == ROWS.tolist()
    else:
        assert isinstance(found, ArtifactError)
    tried("files of event logs", 1)


def test_damage_is_never_other_events(path: Path, tried) -> None:
    chance, number = random.Random(0 if TIMES == 1 else None), 800 * TIMES
    for _ in range(number):
        content = bytearray(WHOLE)
        for _ in range(chance.choice([1, 1, 2, 5])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        found = read(path, bytes(content[: chance.choice([len(content), chance.randrange(len(content))])]))
        if not isinstance(found, ArtifactError):
            assert found.context_features == ("page", "shop")
            assert found.rows.tolist() == ROWS[: len(found.rows)].tolist()
    tried("files of event logs", number)


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 10**6])
def test_a_header_that_claims_more_than_there_is(path: Path, length: int) -> None:
    assert "damaged at byte 0" in str(read(path, signed(b'["page"]', length)))


NAMES = {
    "no JSON": (b"[", "names of context features that are no JSON"),
    "bytes": (b'["\xff"]', "names of context features that are no JSON"),
    "lists in lists": (b"[" * 100_000, "names of context features that are no JSON"),
    "many digits": (b"[" + b"9" * 5000 + b"]", "names of context features that are no JSON"),
    "a number": (b"5", "names of context features that are no list of text"),
    "nothing": (b"null", "names of context features that are no list of text"),
    "text": (b'"page"', "names of context features that are no list of text"),
    "an object": (b'{"page": 1}', "names of context features that are no list of text"),
    "numbers": (b"[1, 2]", "names of context features that are no list of text"),
    "lists": (b'[["page"]]', "names of context features that are no list of text"),
    "a name twice": (b'["page", "page"]', "a context feature that is named twice"),
}


@pytest.mark.parametrize(("names", "message"), NAMES.values(), ids=NAMES)
def test_names_that_are_no_list_of_text(path: Path, tried, names: bytes, message: str) -> None:
    content = signed(names)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{SEGMENT}: damaged at byte 20: {message}; put back a copy of the file"):
        EventLog(path.parent, [])
    assert path.read_bytes() == content
    tried("files of event logs", 1)


@fuzzed(100)
@given(rows=st.lists(st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=4), max_size=6))
def test_any_numbers_in_whole_records(tmp_path_factory, tried, rows: list[list[int]]) -> None:
    """What was written is read: user, item, time and dwell."""
    path = tmp_path_factory.mktemp("rows") / SEGMENT
    path.write_bytes(header_bytes(()) + (record_bytes(np.array(rows, np.int64)) if rows else b""))
    with closing(EventLog(path.parent, [])) as log:
        for user in {row[0] for row in rows}:
            found = map(tuple, log.read([user])[0].rows.tolist())
            assert sorted(found) == sorted({tuple(row[1:]) for row in rows if row[0] == user})
    tried("files of event logs", 1)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file(path: Path, make) -> None:
    make(path)
    with pytest.raises(ArtifactError, match=f"{SEGMENT}: expected a file of events"):
        EventLog(path.parent, [])


STRANGE = [b"", b"a", b"12345678", b"x" * 23, b"x" * 25, b"x" * 32, b"x" * 39, b"\xff" * 41, json.dumps([1]).encode()]


def test_values_in_redis_that_are_no_events(redis_server, caplog, tried) -> None:
    redis = pytest.importorskip("redis")
    from prismrec.serve.redis_events import RedisEvents

    caplog.set_level(logging.WARNING)
    with closing(RedisEvents(redis_server.url, ["page"], prefix="strange")) as store:
        store.append(5, Events.of_rows(np.array([[7, 100, 0, 71]])))
        client = redis.Redis.from_url(redis_server.url)
        client.zadd("strange:5", {value: 200 + place for place, value in enumerate(STRANGE)})
        assert [events.rows.tolist() for events in store.read([5, 6])] == [[[7, 100, 0, 71]], []]
        assert "strange:5: left out 9 values that are no events" in caplog.text
        client.set("strange:8", "text")
        with pytest.raises(
            Exception, match=r"expected an answer to a request for events, found ResponseError: .*WRONGTYPE"
        ):
            store.read([8])
        client.close()
    tried("values in Redis", len(STRANGE) + 1)
