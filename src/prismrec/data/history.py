"""Histories as padded arrays, newest event first: the one form in which training, export and serving see a user.

Takes a store (or arrays of one user's events) and the position each history ends at; gives a
`HistoryBatch`, the input of the user encoder.
"""

from dataclasses import dataclass, fields

import numpy as np

from prismrec.config import HistoryConfig
from prismrec.data.spliced import EventArray
from prismrec.data.store import Store


@dataclass(frozen=True)
class HistoryBatch:
    """Padded histories, newest first; padding has item row 0 and zeros everywhere."""

    item: np.ndarray
    """int64 [B, T], catalogue rows."""
    time: np.ndarray
    """int64 [B, T], seconds."""
    dwell: np.ndarray
    """int64 [B, T], seconds; 0 where unknown."""
    recent: np.ndarray
    """bool [B, T], the newest events, whose categories form the context query."""
    context: np.ndarray
    """int64 [B, T, C], keys of the context features."""
    now: np.ndarray
    """int64 [B], seconds: when the recommendation is wanted."""
    user: np.ndarray
    """int64 [B], user keys; 0 for unknown users."""

    def raw_inputs(self, item_features: np.ndarray) -> dict[str, np.ndarray]:
        """The user encoder's named inputs, in PyTorch and in ONNX: rows replaced by raw feature ids [B, T, F]."""
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "item"}
        return {"item": item_features[self.item], **others}


def stored_histories(store: Store, users: np.ndarray, now: int, config: HistoryConfig) -> HistoryBatch:
    """Whole histories of the store's users [B] (positions from 0), as seen at `now`."""
    return gather_histories(
        store,
        start=store.offsets[users],
        end=store.offsets[users + 1],
        now=np.full(len(users), now),
        user=store.users["key"].to_numpy()[users],
        config=config,
    )


def gather_histories(
    store: Store, start: np.ndarray, end: np.ndarray, now: np.ndarray, user: np.ndarray, config: HistoryConfig
) -> HistoryBatch:
    """Gather the newest `max_length` events of each range [start, end) of a store.

    Args:
        start: first event of each user, int64 [B].
        end: one past the newest event allowed, int64 [B].
        now: time of each request, int64 [B].
        user: user keys, int64 [B].
        config: history length and what counts as recent.
    """
    steps = np.arange(config.max_length)
    positions = end[:, None] - 1 - steps
    mask = positions >= start[:, None]
    positions = positions[mask]

    def gather(column: EventArray) -> np.ndarray:
        gathered = np.zeros((*mask.shape, *column.shape[1:]), np.int64)
        gathered[mask] = column[positions]
        return gathered

    no_context = np.zeros((*mask.shape, len(store.schema.context_features)), np.int64)
    return HistoryBatch(
        item=gather(store.item),
        time=gather(store.time),
        dwell=np.zeros(mask.shape, np.int64) if store.dwell is None else gather(store.dwell),
        recent=mask & (steps < config.recent_events),
        context=no_context if store.context is None else gather(store.context),
        now=now.astype(np.int64),
        user=user.astype(np.int64),
    )
