"""Training examples for encoders that read a sequence once and learn at every position of it.

A window is a stretch of a user's events with all the targets that follow its positions, so that one
pass of a causal encoder gives as many examples as there are events. Windows are cut anew every epoch,
from a random place, so that every target is seen once per epoch after histories of any length up to T.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from prismrec.data.history import gather_histories
from prismrec.data.loader import TargetLoader, fill_batches
from prismrec.data.ranges import flat_ranges
from prismrec.data.targets import TrainBatch, users_of

_SORTED_BATCHES = 16


class _Windows(NamedTuple):
    """W windows: the events each ends before, and its targets `first:last`."""

    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @property
    def num_targets(self) -> np.ndarray:
        return self.last - self.first

    def select(self, rows: np.ndarray | slice) -> "_Windows":
        return _Windows(*(column[rows] for column in self))


class WindowLoader(TargetLoader):
    """Batches of windows: every training event that has a history is a target once per epoch.

    Windows of like length share a batch, and a batch is as long as its longest window, since padding costs
    as much as events. The order of an epoch depends on (seed, epoch) alone, as `ExampleLoader`'s does.
    """

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[TrainBatch]:
        """The batches of an epoch, in its order, from `first_step` on; `batch_size` targets each on average."""
        if self._config.shuffle:
            yield from self._shuffled(epoch).batches(epoch, first_step)
            return
        if not self.num_examples:
            return
        rng = np.random.default_rng((self._seed, epoch))
        windows = self._cut(rng)
        windows = windows.select(rng.permutation(len(windows.end)))
        group = np.cumsum(windows.num_targets) // (_SORTED_BATCHES * self._batch_size)
        windows = windows.select(np.lexsort((windows.end - windows.start, group)))
        batches = fill_batches(windows.num_targets, self._batch_size)
        for step in rng.permutation(len(batches))[first_step:]:
            batch = windows.select(batches[step])
            yield self._gather(batch.select(self._own(batch.num_targets)))

    def _cut(self, rng: np.random.Generator) -> _Windows:
        """All windows of an epoch; those of users with more than T events begin at a random place."""
        offsets, ends, length = self._store.offsets, self._targets.end, self._config.max_length
        user = users_of(self._store, self._targets.position)
        newest = np.append(user[1:] != user[:-1], True)
        start, end = offsets[user[newest]], ends[newest]  # [U], of users with targets
        shift = np.where(end - start > length, rng.integers(0, length, len(end)), 0)
        count = -(-(end + shift - start) // length)
        place = flat_ranges(np.zeros_like(count), count)
        start, end, shift = (np.repeat(column, count) for column in (start, end, shift))
        upper = np.minimum(end, end + shift - place * length)
        lower = np.maximum(start, end + shift - (place + 1) * length)
        first, last = (np.searchsorted(ends, bound, side="right") for bound in (lower, upper))
        kept = last > first
        first, last, start = first[kept], last[kept], start[kept]
        end = ends[last - 1]  # events after the last history would be read in vain
        windows = _Windows(np.maximum(start, end - length), end, first, last)
        return _split(windows, self._batch_size)

    def _gather(self, windows: _Windows) -> TrainBatch:
        store, length = self._store, int((windows.end - windows.start).max(initial=1))
        history = gather_histories(
            store,
            start=windows.start,
            end=windows.end,
            now=store.time[windows.end],
            user=self._user_keys[users_of(store, windows.start)],
            config=self._config.model_copy(update={"max_length": length}),
        )
        window = np.repeat(np.arange(len(windows.end)), windows.num_targets)
        rows = flat_ranges(windows.first, windows.last)
        moment = window * length + windows.end[window] - self._targets.end[rows]
        order = np.argsort(moment, kind="stable")
        return self._batch(history, moment[order], self._targets.position[rows[order]])


def _split(windows: _Windows, largest: int) -> _Windows:
    """Give windows with more than `largest` targets several times, with a part of the targets each."""
    count = -(-windows.num_targets // largest)
    place = flat_ranges(np.zeros_like(count), count)
    repeated = windows.select(np.repeat(np.arange(len(count)), count))
    first = repeated.first + place * largest
    return repeated._replace(first=first, last=np.minimum(first + largest, repeated.last))
