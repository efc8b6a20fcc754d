"""How well a model orders labelled (user, item) pairs: AUC, the paper's offline measure.

Takes a run and a frame `user_id, item_id, label`; gives one number. Users are encoded from their
events before a split, as for its evaluation.
"""

import numpy as np
import polars as pl

from prismrec.data.columns import id_column
from prismrec.data.ranges import events_before
from prismrec.data.schema import ITEM, USER
from prismrec.data.store import Split
from prismrec.data.tables import Table
from prismrec.errors import DataError, shown
from prismrec.evaluate.candidates import encode_range
from prismrec.evaluate.metrics.auc import auc, pair_scores
from prismrec.model.encode import encode_items
from prismrec.model.run import Run

LABEL = "label"
_PAIRS_PER_BATCH = 16_384


def labelled_auc(run: Run, pairs: pl.DataFrame, split: Split = "test") -> float:
    """AUC of a model's scores (largest inner product over a user's vectors) on labelled pairs.

    Args:
        run: the trained model and its store.
        pairs: `user_id`, `item_id` in the ids of the events table, and `label` 0 or 1.
        split: users are encoded from their events before this split, at the time of its first event
            (of their last event, if they have none in the split).

    Raises:
        DataError: a column is missing, an id is unknown, a user has no earlier event, or the labels
            are not 0 and 1 with both present.
    """
    missing = {USER, ITEM, LABEL} - set(pairs.columns)
    if missing:
        raise DataError(
            f"labelled pairs: expected columns user_id, item_id, label; {', '.join(sorted(missing))} missing"
        )
    users = _rows(pairs, USER, run.store.user_ids)
    items = _rows(pairs, ITEM, run.store.item_ids)
    given = pairs.schema[LABEL]
    if not (given.is_numeric() or given in (pl.Boolean, pl.String)):
        raise DataError(f"labelled pairs: column {LABEL!r}: expected 0 and 1, found {given}")
    labels = pairs[LABEL].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    start, end, now = _histories(run, split)
    empty = np.flatnonzero(end[users] <= start[users])
    if len(empty):
        first = int(empty[0])
        raise DataError(
            f"labelled pairs: row {first + 1}: user {shown(pairs[USER][first])} has no event before {split!r}"
        )
    item_vectors = encode_items(run.model, run.store)
    scores = np.empty(len(pairs), np.float32)
    for begin in range(0, len(pairs), _PAIRS_PER_BATCH):
        block = slice(begin, begin + _PAIRS_PER_BATCH)
        user, place = np.unique(users[block], return_inverse=True)
        encoded = encode_range(run.model, run.store, user, start[user], end[user], now[user], run.config.history)
        scores[block] = pair_scores(encoded.vectors[place], item_vectors[items[block]])
    return auc(scores, labels)


def _histories(run: Run, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First event, one past the last event, and request time of every user of the store, int64 [U] each."""
    store = run.store
    start, first, stop = np.asarray(store.offsets[:-1]), store.split_bounds(split)[0], np.asarray(store.offsets[1:])
    in_split = first < stop
    now = np.asarray(store.time)[np.where(in_split, first, stop - 1)]
    if not run.config.history.before_target_time:
        return start, first, now
    return start, np.where(in_split, events_before(store.time, start, first, now), first), now


def _rows(pairs: pl.DataFrame, column: str, ids: pl.Series) -> np.ndarray:
    """Position of each id in the store's ids."""
    given = id_column("labelled pairs", column, pairs.schema[column])
    Table("labelled pairs", pairs.lazy()).check([given])
    known = pl.DataFrame({column: ids, "row": np.arange(len(ids))})
    wanted = pairs.select(given.values.cast(ids.dtype, strict=False))
    rows = wanted.join(known, on=column, how="left", maintain_order="left")["row"]
    if rows.null_count():
        unknown = int(rows.is_null().arg_max() or 0)
        raise DataError(
            f"labelled pairs: row {unknown + 1}: {column} {shown(pairs[column][unknown])} is not in the store"
        )
    return rows.to_numpy()
