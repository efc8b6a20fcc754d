"""Training examples, never materialised: (user, position) pairs, shuffled globally, from which batches are gathered.

The order of an epoch is a permutation drawn from (seed, epoch) alone, so training can resume at any step.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Self

import numpy as np

from prismrec.config import HistoryConfig
from prismrec.data.history import HistoryBatch, gather_histories
from prismrec.data.ranges import flat_ranges
from prismrec.data.shuffle import shuffle_events
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch, find_targets, users_of

_SHUFFLE = 1  # what is drawn to deal events is not what is drawn to order batches


class TargetLoader:
    """What the loaders share: the targets of a store, and how many of them make a step.

    With `new_only`, items that a user has chosen before are no targets. Several ranks get one batch in parts: put side
    by side in their order they are what a single process gets. A part may be empty.

    Args:
        store: the prepared data.
        config: what a history is.
        batch_size: targets per step, of all ranks together.
        seed: of the order.
        new_only: see above.
        since: events of a user before this one are no targets, [U].
        part: rank of this process, and number of ranks.
    """

    def __init__(
        self,
        store: Store,
        config: HistoryConfig,
        batch_size: int,
        seed: int,
        *,
        new_only: bool = False,
        since: np.ndarray | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._store = store
        self._config = config
        self._batch_size = batch_size
        self._seed = seed
        self._new_only = new_only
        self._since = since
        self._part = part
        self._user_keys = store.users["key"].to_numpy()
        self._targets = find_targets(store, config.before_target_time, new_only, since)

    @property
    def num_examples(self) -> int:
        return len(self._targets)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_examples // self._batch_size)

    def _shuffled(self, epoch: int) -> Self:
        """The loader of an epoch for which events are dealt anew."""
        store = shuffle_events(self._store, np.random.default_rng((self._seed, epoch, _SHUFFLE)), self._since)
        ordered = self._config.model_copy(update={"shuffle": False})
        return type(self)(
            store,
            ordered,
            self._batch_size,
            self._seed,
            new_only=self._new_only,
            since=self._since,
            part=self._part,
        )

    def _own(self, sizes: np.ndarray) -> slice:
        """Which units of a batch are of this rank's part; those of it are as many targets as those of any, nearly."""
        rank, ranks = self._part
        return slice(*np.searchsorted(share_out(sizes, ranks), (rank, rank + 1)))

    def _batch(self, history: HistoryBatch, moment: np.ndarray, events: np.ndarray) -> TrainBatch:
        """A batch whose targets are these events of the store [B], of these moments [B]."""
        store = self._store
        weight = None if store.weight is None else np.asarray(store.weight[events], dtype=np.float32)
        return TrainBatch(history, moment, store.item[events].astype(np.int64), weight)


class ExampleLoader(TargetLoader):
    """Batches of training examples, one history for each moment: every target once per epoch.

    Targets that share a history (a basket, if `before_target_time`) stay together, so that the history is
    encoded once for all of them.
    """

    @functools.cached_property
    def _moments(self) -> np.ndarray:
        return _moments(self._targets.end, self._batch_size)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[TrainBatch]:
        """The batches of an epoch, in its order, from `first_step` on; `batch_size` targets each on average."""
        if self._config.shuffle:
            yield from self._shuffled(epoch).batches(epoch, first_step)
            return
        sizes = np.diff(self._moments)
        order = np.random.default_rng((self._seed, epoch)).permutation(len(sizes))
        for batch in fill_batches(sizes[order], self._batch_size)[first_step:]:
            moments = np.sort(order[batch])
            yield self._gather(moments[self._own(sizes[moments])])

    def _gather(self, moments: np.ndarray) -> TrainBatch:
        store = self._store
        first, last = self._moments[moments], self._moments[moments + 1]
        targets = self._targets.position[flat_ranges(first, last)]
        leading = self._targets.position[first]
        users = users_of(store, leading)
        history = gather_histories(
            store,
            start=store.offsets[users],
            end=self._targets.end[first],
            now=store.time[leading],
            user=self._user_keys[users],
            config=self._config,
        )
        return self._batch(history, np.repeat(np.arange(len(moments)), last - first), targets)


def share_out(sizes: np.ndarray, ranks: int) -> np.ndarray:
    """The rank that each unit of a batch is for, not falling, by the number of targets of each unit."""
    return np.asarray((np.cumsum(sizes) - sizes) * ranks // max(int(sizes.sum()), 1))


def fill_batches(sizes: np.ndarray, batch_size: int) -> list[slice]:
    """Cut units of `sizes` targets, none larger than a batch, into ceil(total / batch_size) batches, none empty."""
    filled = np.cumsum(sizes)
    steps = -(-int(sizes.sum()) // batch_size)
    bounds = np.searchsorted((filled - 1) // batch_size, np.arange(steps + 1))
    return [slice(first, last) for first, last in itertools.pairwise(bounds)]


def _moments(ends: np.ndarray, largest: int) -> np.ndarray:
    """Where runs of targets with the same history begin, none longer than `largest`, and the number of targets."""
    place = np.arange(len(ends))
    new = np.ones(len(ends), dtype=bool)
    new[1:] = ends[1:] != ends[:-1]
    start = np.maximum.accumulate(np.where(new, place, 0))
    return np.append(np.flatnonzero((place - start) % largest == 0), len(ends))
