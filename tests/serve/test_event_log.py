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
from prismrec.serve.event_segments import header_bytes, read_segment, record_bytes
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
        assert caplog.messages == [f"{three / SEGMENT}: cut off {torn} bytes that are no whole events"]
        log.append(1, events(4))
    assert items(three) == [1, 2, 4]
    assert len(caplog.messages) == 1
    assert not list(three.glob("*.torn"))


@pytest.mark.parametrize("tail", [bytes(RECORD), bytes(3 * RECORD + 5), b"\x01" * RECORD + bytes(RECORD)])
def test_what_a_power_failure_leaves_is_cut_off(three: Path, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with (three / SEGMENT).open("ab") as file:
        file.write(tail)
    assert items(three) == [1, 2, 3]
    assert f"cut off {len(tail)} bytes" in caplog.text
    assert (three / "events-000001.torn").read_bytes() == tail
    assert (three / SEGMENT).stat().st_size == HEADER + 3 * RECORD


def test_a_damaged_last_event_is_kept_elsewhere(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was acknowledged, though the same bytes might come of a machine that failed before that."""
    content = bytearray((three / SEGMENT).read_bytes())
    content[-20] ^= 1
    (three / SEGMENT).write_bytes(content)
    assert items(three) == [1, 2]
    assert (three / "events-000001.torn").read_bytes() == content[-RECORD:]
    assert "events-000001.torn: keeps what is cut off; it was never acknowledged if the machine failed" in caplog.text


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


def write(directory: Path, number: int, features: tuple[str, ...], *rows: tuple[int, ...]) -> Path:
    """A file of a log, as a process that was killed may have left it beside others."""
    path = directory / f"events-{number:06d}.log"
    path.write_bytes(header_bytes(features) + (record_bytes(np.array(rows, np.int64)) if rows else b""))
    return path


def test_only_the_last_file_may_be_torn(three: Path) -> None:
    write(three, 2, ("page",))
    os.truncate(three / SEGMENT, HEADER + 2 * RECORD + 1)
    with pytest.raises(ArtifactError, match=rf"{SEGMENT}: damaged at byte {HEADER + 2 * RECORD}: .* not whole"):
        EventLog(three, ["page"])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def rows(directory: Path, *features: str) -> list[list[int]]:
    with closing(EventLog(directory, features)) as log:
        return log.read([1])[0].rows.tolist()


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Three files: events of user 1 in one second, two of them the same but for a feature, and some that came twice."""
    write(tmp_path, 1, ("page",), (1, 9, 100, 0, 71), (1, 5, 100, 0, 71), (1, 5, 100, 0, 72))
    write(tmp_path, 2, ("shop", "page"), (1, 5, 100, 0, 0, 72), (1, 7, 100, 0, 81, 0), (1, 9, 100, 0, 0, 71))
    write(tmp_path, 3, (), (1, 8, 100, 0), (1, 6, 90, 0), (1, 6, 90, 0))
    return tmp_path


# with the features shop and page
OF_SEVERAL = [[6, 90, 0, 0, 0], [9, 100, 0, 0, 71], [5, 100, 0, 0, 71], [5, 100, 0, 0, 72], [7, 100, 0, 81, 0]]
OF_SEVERAL += [[8, 100, 0, 0, 0]]


def test_several_files_become_one_with_all_features(several: Path) -> None:
    assert rows(several) == [[6, 90, 0], [9, 100, 0], [5, 100, 0], [7, 100, 0], [8, 100, 0]]
    assert names(several) == ["events-000004.log", "lock"]
    segment = read_segment(several / "events-000004.log")
    assert segment.context_features == ("page", "shop")
    assert len(segment.rows) == len(OF_SEVERAL)
    assert rows(several, "shop", "page") == OF_SEVERAL
    assert names(several) == ["events-000004.log", "lock"]


def test_a_file_of_more_features_is_written_on(several: Path) -> None:
    rows(several)
    with closing(EventLog(several, ["shop"])) as log:
        log.append(1, Events.of_rows(np.array([[4, 110, 3, 83]])))
    assert names(several) == ["events-000004.log", "lock"]
    assert rows(several, "shop", "page") == [*OF_SEVERAL, [4, 110, 3, 83, 0]]


def test_another_feature_is_a_new_file(several: Path) -> None:
    rows(several)
    assert rows(several, "town", "page")[-1] == [8, 100, 0, 0, 0]
    assert names(several) == ["events-000005.log", "lock"]
    assert rows(several, "shop", "page") == OF_SEVERAL


def test_a_file_is_written_anew_when_most_of_it_is_of_no_use(tmp_path: Path) -> None:
    """Of 20,000 events the newest 10,000 are half; one more is more than half."""

    def append(*times: int) -> None:
        with opened(tmp_path) as log:
            log.append(1, Events.of_rows(np.array([[7, time, 0] for time in times])))

    append(*range(20_000))
    assert items(tmp_path) == [7] * 10_000
    assert names(tmp_path) == [SEGMENT, "lock"]
    append(20_000)
    with opened(tmp_path) as log:
        assert log.read([1])[0].time.tolist() == list(range(10_001, 20_001))
    assert names(tmp_path) == ["events-000002.log", "lock"]
    assert (tmp_path / "events-000002.log").stat().st_size == HEADER + 10_000 * RECORD
    append(20_001)
    assert names(tmp_path) == ["events-000002.log", "lock"]


def test_a_log_that_keeps_few_events_leaves_the_others_in_the_file(tmp_path: Path) -> None:
    with closing(EventLog(tmp_path, [], max_events=2)) as log:
        log.append(1, events(*range(1, 10)))
    with closing(EventLog(tmp_path, [], max_events=2)) as log:
        assert log.read([1])[0].item.tolist() == [8, 9]
    assert items(tmp_path) == list(range(1, 10))
    assert names(tmp_path) == [SEGMENT, "lock"]


KILL_AT_EVERY_STEP = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from prismrec.serve.event_log import EventLog

STEPS = {"open", "write", "close", "truncate", "fsync", "fdatasync", "replace", "unlink"}
folder = Path(sys.argv[1])

def kill_before(step):
    count = itertools.count()
    def at_call(frame, event, called):
        if event == "c_call" and called.__name__ in STEPS and next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(at_call)

for step in itertools.count():
    directory = folder / f"killed-{step}"
    shutil.copytree(folder / "log", directory)
    child = os.fork()
    if child == 0:
        kill_before(step)
        EventLog(directory, sys.argv[2:])
        os._exit(0)
    if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        break
"""


def test_a_process_that_is_killed_while_it_writes_anew_loses_nothing(several: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "log").mkdir()
    for path in several.glob("events-*"):
        path.rename(folder / "log" / path.name)
    os.truncate(folder / "log" / "events-000003.log", HEADER + 2 * RECORD + 7)  # what was written last is torn
    command = [sys.executable, "-c", KILL_AT_EVERY_STEP, str(folder), "page"]
    assert subprocess.run(command, capture_output=True, text=True).stderr.count("Traceback") == 0
    states = sorted(folder.glob("killed-*"))
    found = {tuple(name for name in names(state) if name.endswith("log")) for state in states}
    old, new = ("events-000001.log", "events-000002.log", "events-000003.log"), "events-000004.log"
    assert found == {old, (*old, new), (*old[:2], new), (*old[:1], new), (new,)}
    assert any(name.endswith(".tmp") for state in states for name in names(state))
    for state in states:
        assert rows(state, "shop", "page") == OF_SEVERAL
        with closing(EventLog(state, ["page"])) as log:
            log.append(1, Events.of_rows(np.array([[4, 110, 0, 73]])))
        assert rows(state, "shop", "page") == [*OF_SEVERAL, [4, 110, 0, 0, 73]]
        [log_file] = [name for name in names(state) if name != "lock"]
        assert log_file > "events-000003.log"


OPEN_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import Events

resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
for features in ([], ["page"]):
    try:
        log = EventLog(Path(sys.argv[1]), features)
        print(log.read([1])[0].item.tolist())
        log.close()
    except OSError as error:
        print(error.strerror)
"""


def test_a_full_disk_does_not_keep_a_log_from_being_opened(three: Path) -> None:
    """Only where the file lacks a feature it must be written anew."""
    last = write(three, 2, (), (1, 4, 104, 0))
    done = subprocess.run([sys.executable, "-c", OPEN_ON_A_FULL_DISK, str(three)], capture_output=True, text=True)
    assert done.stdout == "[1, 2, 3, 4]\nFile too large\n"
    assert "went on with the files there are, as no new one could be written: " in done.stderr
    assert names(three) == [SEGMENT, last.name, "lock"]
    assert items(three) == [1, 2, 3, 4]
    assert names(three) == ["events-000003.log", "lock"]


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
