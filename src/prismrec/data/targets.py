"""Which events are training targets, and the history that each of them follows.

Takes a store; gives targets in store order with the end of each one's history, for the loaders.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from prismrec.data.history import HistoryBatch
from prismrec.data.ranges import flat_ranges
from prismrec.data.store import Store

_SORTED_EVENTS = 4_000_000


@dataclass(frozen=True)
class TrainBatch:
    """Histories and the events that followed moments of them."""

    history: HistoryBatch
    """Of S users, [S, T]."""
    moment: np.ndarray
    """int64 [B], not falling: the moment each target followed, among the S of whole histories or, with `WindowLoader`,
    the S * T of all their positions."""
    target: np.ndarray
    """int64 [B], catalogue rows."""
    weight: np.ndarray | None
    """float32 [B], weights of the events, if the store has them."""


@dataclass(frozen=True)
class Targets:
    """Training events that have a history: event `position[i]` follows the events of its user before `end[i]`."""

    position: np.ndarray
    """int64 [N], rising."""
    end: np.ndarray
    """int64 [N], not falling, and rising from user to user."""

    def __len__(self) -> int:
        return len(self.position)


def find_targets(
    store: Store, before_target_time: bool, new_only: bool = False, since: np.ndarray | None = None
) -> Targets:
    """All training targets: every training event with an older one.

    Args:
        store: the prepared data.
        before_target_time: the older one is of an earlier time.
        new_only: leave out events with an item that the user's older events have, as is fit where seen items are not
            recommended.
        since: the first event of each user that may be a target, int64 [U]; by default the first of all.
    """
    starts, ends = store.split_bounds("train")
    starts = starts + 1 if since is None else np.maximum(starts + 1, since)
    position = flat_ranges(np.minimum(starts, ends), ends)
    if new_only:
        position = position[_is_new(store)[position]]
    if not before_target_time:
        return Targets(position, position)
    end = _group_starts(store)[position]
    kept = end > store.offsets[users_of(store, position)]
    return Targets(position[kept], end[kept])


def users_of(store: Store, positions: np.ndarray) -> np.ndarray:
    """The user of each event, int64."""
    return np.searchsorted(store.offsets, positions, side="right") - 1


def _is_new(store: Store) -> np.ndarray:
    """Whether each event is its user's first with its item, bool [N].

    Some users at a time, since sorting takes fifty bytes an event.
    """
    new = np.zeros(store.num_events, dtype=bool)
    begins = np.searchsorted(store.offsets, np.arange(0, store.num_events, _SORTED_EVENTS))  # users
    for first, last in itertools.pairwise([*np.unique(begins), store.num_users]):
        start, stop = store.offsets[first], store.offsets[last]
        user = np.repeat(np.arange(last - first), np.diff(store.offsets[first : last + 1]))
        pair = user * (store.num_items + 1) + np.asarray(store.item[start:stop])
        new[start + np.unique(pair, return_index=True)[1]] = True
    return new


def _group_starts(store: Store) -> np.ndarray:
    """For each event, the first event of the same user at the same time, int64 [N]."""
    time = np.asarray(store.time)
    new = np.ones(len(time), dtype=bool)
    new[1:] = time[1:] != time[:-1]
    new[store.offsets[:-1][np.diff(store.offsets) > 0]] = True
    return np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))
