"""The questions an evaluation asks: for each user, what was known, when, and what should have been recommended.

Takes a store and a split; gives one query per user. The history is everything before the user's
first event of the split; the targets are the distinct items from there to the end of the split; the
time is that of the first such event. With `exclude_seen`, items of the history are neither targets
nor recommended.
"""

from dataclasses import dataclass

import numpy as np

from prismrec.data.ranges import events_before, flat_ranges
from prismrec.data.spliced import EventArray
from prismrec.data.store import Split, Store
from prismrec.errors import DataError
from prismrec.evaluate.item_sets import ItemSets


@dataclass(frozen=True)
class Queries:
    """One query per user that has a history and a target."""

    user: np.ndarray
    """int64 [B], rows of the store's users."""
    start: np.ndarray
    """int64 [B], first event of each history."""
    end: np.ndarray
    """int64 [B], one past the last event the model may see."""
    now: np.ndarray
    """int64 [B], seconds: time of the first target event."""
    targets: ItemSets
    seen: ItemSets
    """Items that must not come back; empty sets if seen items are kept."""
    counts: dict[str, int]
    """Users with events in the split, left out for want of a history or of a new target, and evaluated."""
    uniform: ItemSets | None = None
    """Those of the targets that came of exposure at random; None if the store does not say."""

    @property
    def num_users(self) -> int:
        return len(self.user)

    def select(self, rows: np.ndarray) -> "Queries":
        """The queries of some users."""
        user, start, end, now = (column[rows] for column in (self.user, self.start, self.end, self.now))
        uniform = None if self.uniform is None else self.uniform.select(rows)
        return Queries(user, start, end, now, self.targets.select(rows), self.seen.select(rows), self.counts, uniform)


def make_queries(
    store: Store,
    split: Split,
    *,
    exclude_seen: bool,
    before_target_time: bool = False,
    max_users: int | None = None,
    seed: int = 0,
) -> Queries:
    """Collect the queries of a split.

    Args:
        store: the prepared data.
        split: "valid" or "test".
        exclude_seen: leave items of the whole earlier history out of targets and recommendations.
        before_target_time: the model sees only events strictly older than the first target event.
        max_users: a random sample of so many of the split's users; all by default.
        seed: of that sample.

    Raises:
        DataError: the split is unknown, or no user has a history and a target in it.
    """
    if split not in ("valid", "test"):
        raise DataError(f"split: expected 'valid' or 'test', found {split!r}")
    first, last = store.split_bounds(split)
    user = np.flatnonzero(last > first)
    if max_users is not None and len(user) > max_users:
        user = np.sort(np.random.default_rng(seed).choice(user, max_users, replace=False))
    start, first, last = np.asarray(store.offsets[:-1])[user], first[user], last[user]
    now = np.asarray(store.time[first])
    end = events_before(store.time, start, first, now) if before_target_time else first
    seen = _item_sets(store, start, first)
    targets = _item_sets(store, first, last)
    uniform = None if store.uniform is None else _item_sets(store, first, last, of=store.uniform)
    if exclude_seen:
        targets = targets.minus(seen)
        uniform = None if uniform is None else uniform.minus(seen)
    else:
        seen = ItemSets.from_lists([[]] * len(user))
    has_history = end > start
    keep = has_history & (targets.sizes > 0)
    counts = {
        "users_with_events": len(user),
        "users_without_history": int((~has_history).sum()),
        "users_without_new_target": int((has_history & ~keep).sum()),
        "users_evaluated": int(keep.sum()),
        "targets": int(targets.sizes[keep].sum()),
    }
    if uniform is not None:
        uniform = uniform.select(keep)
        counts["uniform_targets"] = int(uniform.sizes.sum())
    if not keep.any():
        raise DataError(f"{store.path}: expected users with a history and a target in {split!r}, found none ({counts})")
    return Queries(
        user[keep], start[keep], end[keep], now[keep], targets.select(keep), seen.select(keep), counts, uniform
    )


def _item_sets(store: Store, start: np.ndarray, stop: np.ndarray, of: EventArray | None = None) -> ItemSets:
    """Items of the events start:stop of each user, or only `of` those that are marked there."""
    user, event = np.repeat(np.arange(len(start)), stop - start), flat_ranges(start, stop)
    if of is not None:
        marked = np.asarray(of[event])
        user, event = user[marked], event[marked]
    return ItemSets.from_pairs(user, store.item[event], len(start))
