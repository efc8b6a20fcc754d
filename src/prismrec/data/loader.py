"""Training examples, never materialised: (user, position) pairs, shuffled globally, from which batches are gathered.

The order of an epoch is a permutation drawn from (seed, epoch) alone, so training can resume at any step.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prismrec.config import HistoryConfig
from prismrec.data.history import HistoryBatch, gather_histories
from prismrec.data.ranges import flat_ranges
from prismrec.data.store import Store


@dataclass(frozen=True)
class TrainBatch:
    """Histories and the event that followed each."""

    history: HistoryBatch
    """Of G moments."""
    moment: np.ndarray
    """int64 [B], which of the histories each target followed."""
    target: np.ndarray
    """int64 [B], catalogue rows."""
    weight: np.ndarray | None
    """float32 [B], weights of the events, if the store has them."""


class ExampleLoader:
    """Batches of training examples: every training event that has a history is a target once per epoch.

    Targets that share a history (a basket, if `before_target_time`) stay together, so that the history is
    encoded once for all of them.
    """

    def __init__(self, store: Store, config: HistoryConfig, batch_size: int, seed: int) -> None:
        self._store = store
        self._config = config
        self._batch_size = batch_size
        self._seed = seed
        self._user_keys = store.users["key"].to_numpy()
        targets = _target_positions(store)
        ends = targets
        if config.before_target_time:
            ends = _group_starts(store)[targets]
            kept = ends > store.offsets[self._user_of(targets)]
            targets, ends = targets[kept], ends[kept]
        self._targets = targets
        self._moments = _moments(ends, batch_size)
        self._ends = ends[self._moments[:-1]]

    @property
    def num_examples(self) -> int:
        return len(self._targets)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_examples // self._batch_size)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[TrainBatch]:
        """The batches of an epoch, in its order, from `first_step` on; `batch_size` targets each on average."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._ends))
        filled = np.cumsum(np.diff(self._moments)[order])
        # no moment is larger than a batch, so that no batch is empty
        step = (filled - 1) // self._batch_size
        bounds = np.searchsorted(step, np.arange(self.steps_per_epoch + 1))
        for first, last in itertools.pairwise(bounds[first_step:]):
            yield self._gather(np.sort(order[first:last]))

    def _user_of(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._store.offsets, positions, side="right") - 1

    def _gather(self, moments: np.ndarray) -> TrainBatch:
        store = self._store
        first, last = self._moments[moments], self._moments[moments + 1]
        targets = self._targets[flat_ranges(first, last)]
        leading = self._targets[first]
        users = self._user_of(leading)
        history = gather_histories(
            store,
            start=store.offsets[users],
            end=self._ends[moments],
            now=store.time[leading],
            user=self._user_keys[users],
            config=self._config,
        )
        weight = None if store.weight is None else np.asarray(store.weight[targets], dtype=np.float32)
        moment = np.repeat(np.arange(len(moments)), last - first)
        return TrainBatch(history, moment, store.item[targets].astype(np.int64), weight)


def _moments(ends: np.ndarray, largest: int) -> np.ndarray:
    """Where runs of targets with the same history begin, none longer than `largest`, and the number of targets."""
    place = np.arange(len(ends))
    new = np.ones(len(ends), dtype=bool)
    new[1:] = ends[1:] != ends[:-1]
    start = np.maximum.accumulate(np.where(new, place, 0))
    return np.append(np.flatnonzero((place - start) % largest == 0), len(ends))


def _target_positions(store: Store) -> np.ndarray:
    """Training events with at least one event before them, int64."""
    starts, ends = store.split_bounds("train")
    return flat_ranges(np.minimum(starts + 1, ends), ends)


def _group_starts(store: Store) -> np.ndarray:
    """For each event, the first event of the same user at the same time, int64 [N]."""
    time = np.asarray(store.time)
    new = np.ones(len(time), dtype=bool)
    new[1:] = time[1:] != time[:-1]
    new[store.offsets[:-1][np.diff(store.offsets) > 0]] = True
    return np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))
