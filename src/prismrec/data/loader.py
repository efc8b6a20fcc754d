"""Training examples, never materialised: (user, position) pairs, shuffled globally, from which batches are gathered.

The order of an epoch is a permutation drawn from (seed, epoch) alone, so training can resume at any step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prismrec.config import HistoryConfig
from prismrec.data.history import HistoryBatch, gather_histories
from prismrec.data.store import Store


@dataclass(frozen=True)
class TrainBatch:
    """Histories and the event that followed each."""

    history: HistoryBatch
    target: np.ndarray
    """int64 [B], catalogue rows."""
    weight: np.ndarray | None
    """float32 [B], weights of the events, if the store has them."""


class ExampleLoader:
    """Batches of training examples: every training event that has a history is a target once per epoch."""

    def __init__(self, store: Store, config: HistoryConfig, batch_size: int, seed: int) -> None:
        self._store = store
        self._config = config
        self._batch_size = batch_size
        self._seed = seed
        self._user_keys = store.users["key"].to_numpy()
        self._targets = _target_positions(store)
        if config.before_target_time:
            # Computed once: the first event of each target's basket, where its history ends.
            self._ends = _group_starts(store)[self._targets]
            kept = self._ends > store.offsets[self._user_of(self._targets)]
            self._targets, self._ends = self._targets[kept], self._ends[kept]
        else:
            self._ends = self._targets

    @property
    def num_examples(self) -> int:
        return len(self._targets)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_examples // self._batch_size)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[TrainBatch]:
        """The batches of an epoch, in its order, from `first_step` on."""
        order = np.random.default_rng((self._seed, epoch)).permutation(self.num_examples)
        for start in range(first_step * self._batch_size, self.num_examples, self._batch_size):
            yield self._gather(np.sort(order[start : start + self._batch_size]))

    def _user_of(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._store.offsets, positions, side="right") - 1

    def _gather(self, examples: np.ndarray) -> TrainBatch:
        store, targets = self._store, self._targets[examples]
        users = self._user_of(targets)
        history = gather_histories(
            store,
            start=store.offsets[users],
            end=self._ends[examples],
            now=store.time[targets],
            user=self._user_keys[users],
            config=self._config,
        )
        weight = None if store.weight is None else np.asarray(store.weight[targets], dtype=np.float32)
        return TrainBatch(history, store.item[targets].astype(np.int64), weight)


def _target_positions(store: Store) -> np.ndarray:
    """Training events with at least one event before them, int64."""
    starts, ends = store.split_bounds("train")
    lengths = np.maximum(ends - starts - 1, 0)
    first = np.repeat(starts + 1 - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return first + np.arange(lengths.sum())


def _group_starts(store: Store) -> np.ndarray:
    """For each event, the first event of the same user at the same time, int64 [N]."""
    time = np.asarray(store.time)
    new = np.ones(len(time), dtype=bool)
    new[1:] = time[1:] != time[:-1]
    new[store.offsets[:-1][np.diff(store.offsets) > 0]] = True
    return np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))
