"""Appended events in files of one directory, for one process; nothing acknowledged is lost when it is killed.

Takes events of users; gives them back from memory. Files are only ever appended to, and a call returns when its events
are on the disk. Threads that append at once share one wait for the disk. The directory holds

lock                 held by the process that has the log open; its process id
events-000001.log    see `event_segments.py`; another is begun when the log is opened for other context features

Nothing is ever taken out of the files, events that are no longer kept to read included.
"""

import contextlib
import errno
import fcntl
import io
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prismrec.artifact import replacing_file
from prismrec.errors import ArtifactError
from prismrec.serve.event_segments import Segment, damage, header_bytes, read_segment, record_bytes
from prismrec.serve.events import MAX_EVENTS, TIME, Events, arranged, check_context, firsts

_SEGMENTS = "events-" + 6 * "[0-9]" + ".log"
_synchronize = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync

_log = logging.getLogger(__name__)


class EventLog:
    """The `EventStore` of a single process.

    Args:
        directory: made if missing.
        context_features: names of the columns of `Events.context`.
        max_events: newest events of each user kept in memory.

    Raises:
        ArtifactError: the directory cannot be written, another process has it open, or a file is damaged.
    """

    def __init__(self, directory: Path, context_features: Sequence[str], max_events: int = MAX_EVENTS) -> None:
        self._features = tuple(context_features)
        self._max_events = max_events
        self._lock = _lock_directory(directory)
        try:
            self._open(directory)
        except BaseException:
            self._lock.close()
            raise

    def read(self, users: Sequence[int]) -> list[Events]:
        start, stop = (np.searchsorted(self._opened.users, users, side) for side in ("left", "right"))
        opened = (self._opened.rows[first:end] for first, end in zip(start, stop, strict=True))
        return [Events.of_rows(self._appended.get(user, rows)) for user, rows in zip(users, opened, strict=True)]

    def append(self, user: int, events: Events) -> None:
        check_context(events, self._features)
        known = self.read([user])[0].rows
        rows = np.concatenate([known, events.rows])
        fresh = rows[len(known) :][firsts(rows)[len(known) :]]
        if not len(fresh):
            return
        mine = _Append(user, fresh, record_bytes(np.insert(fresh, 0, user, axis=1)))
        with self._queue_lock:
            self._queue.append(mine)
        with self._file_lock:
            self._commit_with(mine)
        if mine.failure:
            raise OSError(mine.failure.errno, mine.failure.strerror, self._file.name) from mine.failure

    def close(self) -> None:
        with self._file_lock:
            self._file.close()
            self._lock.close()

    def _open(self, directory: Path) -> None:
        paths = sorted(directory.glob(_SEGMENTS))
        segments = [_read_whole(path, is_last=path == paths[-1]) for path in paths]
        if not segments or segments[-1].context_features != self._features:
            number = int(paths[-1].stem[-6:]) + 1 if paths else 1
            paths.append(directory / f"events-{number:06d}.log")
            _begin(paths[-1], self._features)
        rows = [_columns(segment, self._features) for segment in segments]
        rows.append(np.zeros((0, 4 + len(self._features)), np.int64))
        self._opened = _by_user(np.concatenate(rows), self._max_events)
        self._appended: dict[int, np.ndarray] = {}
        self._queue: list[_Append] = []
        self._queue_lock, self._file_lock = threading.Lock(), threading.Lock()
        self._file = paths[-1].open("ab", buffering=0)
        self._size = paths[-1].stat().st_size

    def _commit_with(self, mine: "_Append") -> None:
        """Write whatever waits, `mine` among it, unless the thread before this one has done so."""
        with self._queue_lock:
            if mine not in self._queue:
                return
            group, self._queue = self._queue, []
        try:
            self._write(b"".join(append.records for append in group))
        except OSError as error:
            for append in group:
                append.failure = error
            return
        for append in group:
            known = self.read([append.user])[0].rows
            rows = arranged(np.concatenate([known, append.rows]), self._max_events)
            rows.setflags(write=False)
            self._appended[append.user] = rows
            append.failure = None

    def _write(self, records: bytes) -> None:
        """Bring records to the disk, all or none."""
        if os.fstat(self._file.fileno()).st_size != self._size:  # an earlier failure could not be cut off
            self._file.truncate(self._size)
        try:
            rest = memoryview(records)
            while rest:
                rest = rest[self._file.write(rest) :]
            _synchronize(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(records)


@dataclass(eq=False)
class _Append:
    """A call of `append` that waits for the disk."""

    user: int
    rows: np.ndarray
    records: bytes
    failure: OSError | None = field(default_factory=lambda: OSError(errno.EINTR, os.strerror(errno.EINTR)))
    """None once the records are on the disk."""


@dataclass(frozen=True, eq=False)
class _Opened:
    """The events that were in the files: `users` int64 [N], sorted; and `Events.rows` of each."""

    users: np.ndarray
    rows: np.ndarray


def _by_user(rows: np.ndarray, max_events: int) -> _Opened:
    """Sort rows of many users (user, then `Events.rows`), as `arranged` does those of one."""
    rows = rows[np.lexsort((rows[:, 1 + TIME], rows[:, 0]))]
    same = (rows[1:, [0, 1 + TIME]] == rows[:-1, [0, 1 + TIME]]).all(axis=1)
    tied, kept = np.zeros(len(rows), bool), np.ones(len(rows), bool)
    tied[1:] |= same
    tied[:-1] |= same
    # only events of one user and second can be equal, and they are few
    kept[tied] = firsts(rows[tied])
    rows = _limited(rows[kept], max_events)
    rows.setflags(write=False)
    return _Opened(rows[:, 0].copy(), rows[:, 1:])


def _limited(rows: np.ndarray, max_events: int) -> np.ndarray:
    """The newest rows of each user, of rows sorted by user."""
    start = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))  # keys are from 0 up
    count = np.diff(start, append=len(rows))
    kept = np.ones(len(rows), bool)
    for first, size in zip(start[count > max_events], count[count > max_events], strict=True):
        rows[first : first + max_events, 1:] = arranged(rows[first : first + size, 1:], max_events)
        kept[first + max_events : first + size] = False
    return rows[kept]


def _columns(segment: Segment, features: tuple[str, ...]) -> np.ndarray:
    """The rows of a segment with the context features of the log; 0 where the segment has none of that name."""
    rows = np.zeros((len(segment.rows), 4 + len(features)), np.int64)
    rows[:, :4] = segment.rows[:, :4]
    for place, name in enumerate(features):
        if name in segment.context_features:
            rows[:, 4 + place] = segment.rows[:, 4 + segment.context_features.index(name)]
    return rows


def _read_whole(path: Path, *, is_last: bool) -> Segment:
    """Read a segment, and cut off what is torn; only the last one may be."""
    segment = read_segment(path)
    torn = path.stat().st_size - segment.size
    if not is_last:
        if torn:
            raise damage(path, segment.size, "a record that is not whole, though another file follows")
        return segment
    with path.open("r+b") as file:
        if torn:
            _log.warning("%s: cut off %d bytes of events that were never acknowledged", path, torn)
            file.truncate(segment.size)
        # What a killed process wrote may not be on the disk yet; it counts as known from now on, so it must be.
        _synchronize(file.fileno())
    return segment


def _begin(path: Path, features: tuple[str, ...]) -> None:
    with replacing_file(path) as temporary:
        temporary.write_bytes(header_bytes(features))
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lock_directory(directory: Path) -> io.FileIO:
    """Make the directory if need be, and keep other processes out of it until the file is closed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("ab+", buffering=0)
    except OSError as error:
        raise ArtifactError(f"{directory}: expected a directory that can be written, for events ({error})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().decode(errors="replace").strip()
        lock.close()
        raise ArtifactError(
            f"{directory}: expected events that no other process has open, found process {holder} using them; stop it, "
            "or give each server a directory of its own"
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n".encode())
    return lock
