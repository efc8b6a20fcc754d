"""Events that users produced after the bundle was made, and what every store of them promises.

Takes and gives events in stable integer keys (`data/schema.py: stable_keys`), so that they outlive the bundle: the next
one may have other catalogue rows and other context features. Two stores: `EventLog` (`event_log.py`), files of one
process on one machine, and `RedisEvents` (`redis_events.py`), shared by many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from prismrec.errors import DataError, PrismRecError

ITEM, TIME, DWELL, CONTEXT = range(4)
"""Columns of `Events.rows`; the context features begin at the last of them."""
MAX_EVENTS = 10_000
"""Newest events of each user that a store keeps to read, unless told otherwise."""


class StoreUnavailableError(PrismRecError):
    """The server that holds the events does not answer, or refuses to."""


@dataclass(frozen=True, eq=False)
class Events:
    """Events of one user, oldest first."""

    item: np.ndarray
    """int64 [N], keys."""
    time: np.ndarray
    """int64 [N], seconds since 1970, up to the year 9999."""
    dwell: np.ndarray
    """int64 [N], seconds; 0 where unknown."""
    context: np.ndarray
    """int64 [N, C], keys of the context features, in the order their names were given to the store; 0 is none."""

    @classmethod
    def none(cls, num_features: int) -> "Events":
        """No events, of so many context features."""
        return cls.of_rows(np.zeros((0, CONTEXT + num_features), np.int64))

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> "Events":
        """Events from their `rows`, without a copy."""
        return cls(rows[:, ITEM], rows[:, TIME], rows[:, DWELL], rows[:, CONTEXT:])

    @property
    def rows(self) -> np.ndarray:
        """One array of all columns: item, time, dwell, context features; int64 [N, 3 + C]."""
        return np.column_stack([self.item, self.time, self.dwell, self.context]).astype(np.int64, copy=False)

    def __len__(self) -> int:
        return len(self.item)


class EventStore(Protocol):
    """Appended events of each user; safe to use from several threads.

    A store is opened for certain context features, by name. Features stored earlier and not named now are left out of
    what is read; features named for the first time are 0 in older events.
    """

    def read(self, users: Sequence[int]) -> list[Events]:
        """The newest events of each user key, in the order of `users`; none for a user without any.

        Sorted by time, events of one second in the order in which they came; an event that came twice, all its
        columns the same, counts once. Where a user has more events than the store keeps, the oldest are left out,
        and of the oldest second kept those that came last.

        Raises:
            StoreUnavailableError: the store is a server that does not answer.
        """

    def append(self, user: int, events: Events) -> None:
        """Add events to a user key, in any order of time; when this returns they are durable, and read from now on.

        Appending the same events again changes nothing that is read, so a caller may try again after any error: events
        whose append failed may have been stored all the same.

        Raises:
            DataError: the events have another number of context features than the store.
            OSError: a file could not be written.
            StoreUnavailableError: the store is a server that does not answer.
        """

    def close(self) -> None:
        """Let go of files and connections; the store is of no use afterwards."""


def merged(older: Events, newer: Events) -> Events:
    """Both, sorted by time, in one second `older` first; an event that is in both, all columns the same, once."""
    return Events.of_rows(arranged(np.concatenate([older.rows, newer.rows])))


def arranged(rows: np.ndarray, limit: int | None = None) -> np.ndarray:
    """`Events.rows` as a store reads them, from rows in the order in which they came; see `EventStore.read`."""
    rows = rows[firsts(rows)]
    newest = np.argsort(-rows[:, TIME], kind="stable")[:limit]
    rows = rows[np.sort(newest)]
    return rows[np.argsort(rows[:, TIME], kind="stable")]


def firsts(rows: np.ndarray) -> np.ndarray:
    """Which rows of an integer array [N, K] have no equal row before them, bool [N]."""
    order = np.lexsort(rows.T)
    repeated = (rows[order[1:]] == rows[order[:-1]]).all(axis=1)
    first = np.ones(len(rows), bool)
    first[order[1:][repeated]] = False
    return first


def check_context(events: Events, names: Sequence[str]) -> None:
    """Refuse events of other context features than those of a store.

    Raises:
        DataError: the number of columns differs.
    """
    found = events.context.shape[1]
    if found != len(names):
        raise DataError(f"events: expected {len(names)} context features ({', '.join(names) or 'none'}), found {found}")
