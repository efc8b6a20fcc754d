"""Rows of the events of many users, as the files of a log hold them: user, then the columns of `Events.rows`.

Takes and gives int64 [N, 4 + C] in the order in which the events came, or sorted by user and time.
"""

from dataclasses import dataclass

import numpy as np

from prismrec.serve.events import CONTEXT, TIME, arranged, firsts

_USER, _TIME, _CONTEXT = 0, 1 + TIME, 1 + CONTEXT


@dataclass(frozen=True, eq=False)
class ByUser:
    """Events to look up: `users` int64 [N], sorted, and `Events.rows` of each."""

    users: np.ndarray
    rows: np.ndarray


def by_user(rows: np.ndarray, max_events: int) -> ByUser:
    """Sort rows of many users, as `arranged` does those of one."""
    rows = _limited(_distinct(rows), max_events)
    rows.setflags(write=False)
    return ByUser(rows[:, _USER].copy(), rows[:, 1:])


def lasting(rows: np.ndarray, max_events: int) -> np.ndarray:
    """Sort rows, and leave out what no log reads that keeps so many events, whatever its context features.

    A log of fewer features finds more events to be the same, so that its newest ones go back further; that of none sets
    how far. Of the second where it begins, all events stay.
    """
    rows = _distinct(rows)
    kept = np.ones(len(rows), bool)
    for own in _larger(rows, max_events):
        bare = rows[own][firsts(rows[own, :_CONTEXT])]
        kept[own] = rows[own, _TIME] >= bare[-max_events:][0, _TIME]
    return rows[kept]


def with_features(rows: np.ndarray, features: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Rows of context features with other features in their place, known by their names; 0 where they have none."""
    if features == wanted:
        return rows
    result = np.zeros((len(rows), _CONTEXT + len(wanted)), np.int64)
    result[:, :_CONTEXT] = rows[:, :_CONTEXT]
    for place, name in enumerate(wanted):
        if name in features:
            result[:, _CONTEXT + place] = rows[:, _CONTEXT + features.index(name)]
    return result


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Rows sorted by user and time, in the order in which they came where these are the same; each once."""
    rows = rows[np.lexsort((rows[:, _TIME], rows[:, _USER]))]
    same = (rows[1:, [_USER, _TIME]] == rows[:-1, [_USER, _TIME]]).all(axis=1)
    tied, kept = np.zeros(len(rows), bool), np.ones(len(rows), bool)
    tied[1:] |= same
    tied[:-1] |= same
    # only events of one user and second can be equal, and they are few
    kept[tied] = firsts(rows[tied])
    return rows[kept]


def _limited(rows: np.ndarray, max_events: int) -> np.ndarray:
    """The newest rows of each user, of rows sorted by user."""
    kept = np.ones(len(rows), bool)
    for own in _larger(rows, max_events):
        rows[own.start : own.start + max_events, 1:] = arranged(rows[own, 1:], max_events)
        kept[own.start + max_events : own.stop] = False
    return rows[kept]


def _larger(rows: np.ndarray, max_events: int) -> list[slice]:
    """Where each user with more rows than these is, of rows sorted by user."""
    start = np.flatnonzero(np.diff(rows[:, _USER], prepend=-1))  # keys are from 0 up
    stop = np.append(start[1:], len(rows))
    found = stop - start > max_events
    return [slice(*bounds) for bounds in zip(start[found].tolist(), stop[found].tolist(), strict=True)]
