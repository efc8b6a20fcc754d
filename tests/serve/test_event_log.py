"""The event log under real faults: killed processes, torn and damaged files, a full disk, a second process."""

import errno
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from prismrec.errors import ArtifactError
from prismrec.serve import event_log as module
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import Events

SEGMENT = "events-000001.log"

APPEND_UNTIL_KILLED = """
import itertools, os, sys, threading
from pathlib import Path
import numpy as np
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import Events

log = EventLog(Path(sys.argv[1]), ["page"])
first = int(sys.argv[2])

def append(thread):
    for turn in itertools.count(first):
        rows = np.array([[thread, turn, 0, place] for place in range(turn % 3 + 1)])
        log.append(turn % 5, Events.of_rows(rows))
        os.write(1, f"{thread} {turn}\\n".encode())

for thread in range(4):
    threading.Thread(target=append, args=[thread]).start()
"""


def events(*items: int) -> Events:
    return Events.of_rows(np.array([[item, 100 + item, 0] for item in items], np.int64))


@contextmanager
def opened(directory: Path) -> Iterator[EventLog]:
    with closing(EventLog(directory, [])) as log:
        yield log


def items(directory: Path, user: int = 1) -> list[int]:
    with opened(directory) as log:
        return log.read([user])[0].item.tolist()


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    chance = random.Random(5)
    acknowledged = set()
    for turn in range(5):
        command = [sys.executable, "-c", APPEND_UNTIL_KILLED, str(tmp_path), str(100_000 * turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 300))]
            process.kill()
            lines += process.stdout.read().splitlines()
        assert process.returncode == -signal.SIGKILL
        acknowledged |= {tuple(map(int, line.split())) for line in lines}
        with closing(EventLog(tmp_path, ["page"])) as log:
            found = {(user, *row) for user, read in enumerate(log.read(range(5))) for row in read.rows.tolist()}
        expected = {
            (turn % 5, thread, turn, 0, place) for thread, turn in acknowledged for place in range(turn % 3 + 1)
        }
        assert len(acknowledged) > turn
        assert expected <= found


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A log of three appends: items 1, 2 and 3 of user 1."""
    with opened(tmp_path) as log:
        for item in (1, 2, 3):
            log.append(1, events(item))
    return tmp_path


RECORD = 4 * 8 + 4
HEADER = 20 + len("[]")


def test_the_file_is_as_wide_as_its_records(three: Path) -> None:
    assert (three / SEGMENT).stat().st_size == HEADER + 3 * RECORD


@pytest.mark.parametrize("torn", range(1, RECORD))
def test_a_torn_record_is_cut_off(three: Path, torn: int, caplog: pytest.LogCaptureFixture) -> None:
    os.truncate(three / SEGMENT, HEADER + 2 * RECORD + torn)
    with opened(three) as log:
        assert log.read([1])[0].item.tolist() == [1, 2]
        assert caplog.messages == [f"{three / SEGMENT}: cut off {torn} bytes of events that were never acknowledged"]
        log.append(1, events(4))
    assert items(three) == [1, 2, 4]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("tail", [bytes(RECORD), bytes(3 * RECORD + 5), b"\x01" * RECORD + bytes(RECORD)])
def test_what_a_power_failure_leaves_is_cut_off(three: Path, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with (three / SEGMENT).open("ab") as file:
        file.write(tail)
    assert items(three) == [1, 2, 3]
    assert f"cut off {len(tail)} bytes" in caplog.text
    assert (three / SEGMENT).stat().st_size == HEADER + 3 * RECORD


@pytest.mark.parametrize("place", range(HEADER + 2 * RECORD))
def test_a_flipped_bit_is_refused(three: Path, place: int) -> None:
    content = bytearray((three / SEGMENT).read_bytes())
    content[place] ^= 1 << place % 8
    (three / SEGMENT).write_bytes(content)
    offset = 0 if place < HEADER else place - (place - HEADER) % RECORD
    with pytest.raises(
        ArtifactError, match=rf"{SEGMENT}: damaged at byte {offset}: .* put back a copy of the file, or"
    ):
        EventLog(three, [])
    assert (three / SEGMENT).read_bytes() == content


def test_only_the_last_file_may_be_torn(three: Path) -> None:
    with closing(EventLog(three, ["page"])):
        assert sorted(path.name for path in three.iterdir()) == [SEGMENT, "events-000002.log", "lock"]
    os.truncate(three / SEGMENT, HEADER + 2 * RECORD + 1)
    with pytest.raises(ArtifactError, match=rf"{SEGMENT}: damaged at byte {HEADER + 2 * RECORD}: .* not whole"):
        EventLog(three, ["page"])


def test_a_later_format_is_refused(three: Path) -> None:
    later = struct.pack("<II", 2, 2) + b"[]"
    (three / SEGMENT).write_bytes(b"PRISMLOG" + later[:8] + struct.pack("<I", zlib.crc32(later)) + b"[]")
    with pytest.raises(ArtifactError, match=r"expected an event log of format 1, found 2; serve it with the version"):
        EventLog(three, [])


def test_a_directory_has_one_process(tmp_path: Path) -> None:
    open_it = "import sys; from pathlib import Path; from prismrec.serve.event_log import EventLog\n"
    open_it += "EventLog(Path(sys.argv[1]), [])"
    with opened(tmp_path / "events"):
        done = subprocess.run([sys.executable, "-c", open_it, str(tmp_path / "events")], capture_output=True, text=True)
        assert done.returncode == 1
        assert f"ArtifactError: {tmp_path / 'events'}: expected events that no other process has open" in done.stderr
        assert f"found process {os.getpid()} using them; stop it" in done.stderr
        with pytest.raises(ArtifactError, match=f"found process {os.getpid()} using them"):
            EventLog(tmp_path / "events", [])
    assert items(tmp_path / "events") == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"file: expected a directory that can be written, for events"):
        EventLog(tmp_path / "file", [])


FILL_THE_DISK = """
import resource, sys, threading
from pathlib import Path
import numpy as np
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import Events

def events(*items):
    return Events.of_rows(np.array([[item, 100 + item, 0] for item in items]))

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

log = EventLog(Path(sys.argv[1]), [])
path = Path(sys.argv[1]) / "events-000001.log"
log.append(1, events(1))
size = path.stat().st_size
limit(size + 2 * 36 + 7)  # room for two records and a part
failed = 0
for attempt in (events(2, 3, 4), events(2, 3, 4)):
    try:
        log.append(1, attempt)
    except OSError as error:
        failed += 1
        print(type(error).__name__, error.strerror, error.filename == str(path), flush=True)
    assert path.stat().st_size == size
    assert log.read([1])[0].item.tolist() == [1]
log.append(1, events(5))  # there is room for one
assert path.stat().st_size == size + 36

outcomes = []
def try_append(item):
    try:
        log.append(2, events(item))
        outcomes.append(item)
    except OSError:
        outcomes.append(-item)
threads = [threading.Thread(target=try_append, args=[item]) for item in range(1, 9)]
for thread in threads: thread.start()
for thread in threads: thread.join()
stored = sorted(item for item in outcomes if item > 0)
assert len(outcomes) == 8 and len(stored) <= 1, outcomes
assert log.read([2])[0].item.tolist() == stored
assert path.stat().st_size == size + 36 + 36 * len(stored)

limit(resource.RLIM_INFINITY)
log.append(1, events(2, 3, 4))
log.append(2, events(*range(1, 9)))
"""


def test_a_full_disk_refuses_events_and_loses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = subprocess.run([sys.executable, "-c", FILL_THE_DISK, str(tmp_path)], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == 2 * "OSError File too large True\n"
    assert items(tmp_path, 1) == [1, 2, 3, 4, 5]
    assert items(tmp_path, 2) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert caplog.messages == []


def test_events_sent_again_take_no_space(three: Path) -> None:
    with opened(three) as log:
        log.append(1, events(1, 2, 3))
        log.append(1, events(3, 3, 4, 4))
    assert (three / SEGMENT).stat().st_size == HEADER + 4 * RECORD


def test_threads_share_a_wait_for_the_disk_and_return_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first append holds the disk until eight others wait; one more wait is enough for all of these."""
    synchronize, waits = module._synchronize, []
    begun, may_end = threading.Event(), threading.Event()

    def hold(file: int) -> None:
        waits.append(file)
        begun.set()
        assert may_end.wait(60)
        synchronize(file)

    with opened(tmp_path) as log:
        monkeypatch.setattr(module, "_synchronize", hold)
        with ThreadPoolExecutor(9) as pool:
            appends = [pool.submit(log.append, 1, events(0))]
            assert begun.wait(60)
            appends += [pool.submit(log.append, 1, events(item)) for item in range(1, 9)]
            while len(log._queue) < 8:
                time.sleep(0.001)
            assert not any(append.done() for append in appends)
            assert len(log.read([1])[0]) == 0
            may_end.set()
            for append in appends:
                append.result(60)
        assert len(waits) == 2
        assert log.read([1])[0].item.tolist() == list(range(9))


def test_what_the_disk_did_not_take_is_not_acknowledged(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the disk keeps what it reported as failed is anybody's guess, so the file must not."""

    def fail(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with opened(three) as log:
        with monkeypatch.context() as patch:
            patch.setattr(module, "_synchronize", fail)
            with pytest.raises(OSError, match=rf"Input/output error: .*{SEGMENT}"):
                log.append(1, events(4))
        assert (three / SEGMENT).stat().st_size == HEADER + 3 * RECORD
        log.append(1, events(5))
        assert log.read([1])[0].item.tolist() == [1, 2, 3, 5]
    assert items(three) == [1, 2, 3, 5]


def test_a_failure_that_could_not_be_cut_off_is_cut_off_by_the_next_append(three: Path) -> None:
    with opened(three) as log:
        with (three / SEGMENT).open("ab") as file:
            file.write(bytes(50))
        log.append(1, events(4))
    assert (three / SEGMENT).stat().st_size == HEADER + 4 * RECORD
    assert items(three) == [1, 2, 3, 4]


def test_a_closed_log_takes_no_events(three: Path) -> None:
    with opened(three) as log:
        pass
    with pytest.raises(ValueError, match="closed file"):
        log.append(1, events(4))
    assert items(three) == [1, 2, 3]
