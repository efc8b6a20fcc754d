"""Appended events in files of one directory, for one process; nothing acknowledged is lost when it is killed.

Takes events of users; gives them back from memory. Files are only ever appended to, and a call returns when its events
are on the disk. Threads that append at once share one wait for the disk. The directory holds

lock                 held by the process that has the log open; its process id
events-000001.log    see `event_segments.py`

A log that is opened has one file. It is written anew, under the next number, if there are more of them, if it lacks a
context feature, or if most of its events are of no more use: those that came twice, and those older than the newest
`MAX_EVENTS` of a user. Nothing else is ever taken out, also not what the bundle of today does not read: the next may.
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
from itertools import chain
from pathlib import Path

import numpy as np

from prismrec.atomic import replacing_file, synchronize
from prismrec.errors import ArtifactError
from prismrec.serve.event_rows import by_user, lasting, with_features
from prismrec.serve.event_segments import Segment, damage, header_bytes, read_segment, record_bytes
from prismrec.serve.events import MAX_EVENTS, Events, arranged, check_context, firsts

_SEGMENTS = "events-" + 6 * "[0-9]" + ".log"
_BLOCK = 100_000  # rows written at a time
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
        written = with_features(np.insert(fresh, 0, user, axis=1), self._features, self._file_features)
        mine = _Append(user, fresh, record_bytes(written))
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
        for unfinished in directory.glob(f".{_SEGMENTS}.*"):  # of a process that was killed
            unfinished.unlink()
        paths = sorted(directory.glob(_SEGMENTS))
        segments = [_read_whole(path, is_last=path == paths[-1]) for path in paths]
        found = [segment.context_features for segment in segments]
        features = tuple(dict.fromkeys(chain(*found, self._features)))
        rows = [with_features(segment.rows, segment.context_features, features) for segment in segments]
        rows.append(np.zeros((0, 4 + len(features)), np.int64))
        came = np.concatenate(rows)
        kept = lasting(came, max(self._max_events, MAX_EVENTS))
        if found != [features] or 2 * len(kept) < len(came):
            number = int(paths[-1].stem[-6:]) + 1 if paths else 1
            new = directory / f"events-{number:06d}.log"
            try:
                _write_segment(new, features, kept)
            except OSError as error:
                if not found or not set(self._features) <= set(found[-1]):
                    raise
                _log.warning("%s: went on with the files there are, as no new one could be written: %s", new, error)
            else:
                _remove(directory, paths)
                paths, found = [new], [features]
        self._file_features = found[-1]
        self._opened = by_user(with_features(kept, features, self._features), self._max_events)
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


def _read_whole(path: Path, *, is_last: bool) -> Segment:
    """Read a segment, and cut off what is torn; only the last one may be.

    A process that was killed leaves less than a record. More of it is what a machine leaves that failed, if not damage
    to events that were acknowledged: it is kept in another file.
    """
    segment = read_segment(path)
    torn = path.stat().st_size - segment.size
    if not is_last:
        if torn:
            raise damage(path, segment.size, "a record that is not whole, though another file follows")
        return segment
    with path.open("r+b") as file:
        if torn:
            file.seek(segment.size)
            _set_aside(path.with_suffix(".torn"), file.read(), segment)
            _log.warning("%s: cut off %d bytes that are no whole events", path, torn)
            file.truncate(segment.size)
        # What a killed process wrote may not be on the disk yet; it counts as known from now on, so it must be.
        _synchronize(file.fileno())
    return segment


def _set_aside(path: Path, torn: bytes, segment: Segment) -> None:
    """Keep what is cut off, if it may have been events."""
    if len(torn) < segment.width:
        return
    with path.open("ab") as file:
        file.write(torn)
        _synchronize(file.fileno())
    _log.warning(
        "%s: keeps what is cut off; it was never acknowledged if the machine failed, otherwise the disk has damaged "
        "events",
        path,
    )


def _write_segment(path: Path, features: tuple[str, ...], rows: np.ndarray) -> None:
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        file.write(header_bytes(features))
        for start in range(0, len(rows), _BLOCK):
            file.write(record_bytes(rows[start : start + _BLOCK]))


def _remove(directory: Path, paths: list[Path]) -> None:
    """Remove the files whose events are in a newer one, once that is sure to stay.

    The last of them goes first: whatever is left of them when the process is killed came before the rest of what is in
    the new file, so that events of one second, each read where it comes first, stay in their order.
    """
    synchronize(directory)
    for path in reversed(paths):
        path.unlink()
        synchronize(directory)


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
