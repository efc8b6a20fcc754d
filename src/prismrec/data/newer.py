"""Which events of a new day a store has room for: those that are newer than their user's, and not left out by settings.

Takes the day's events in the store's types, and the store; gives the events to append, still unread.
"""

from collections import Counter

import numpy as np
import polars as pl

from prismrec.config import PrepareConfig
from prismrec.data.columns import Column
from prismrec.data.ranges import flat_ranges
from prismrec.data.schema import ITEM, TIME, USER
from prismrec.data.store import Store
from prismrec.data.tables import Table

_NEWEST, _OLD, _NUMBER = "__newest", "__old", "__number"


def without_left_out(table: Table, store: Store, config: PrepareConfig, late: str) -> tuple[Table, Counter[str]]:
    """The events without those that the store's own events keep out, and the numbers of these by reason.

    Args:
        table: events in the store's types.
        store: what they are to be appended to.
        config: what to leave out.
        late: whether to "refuse" the table for an event that is not newer than its user's newest, or to "drop" it.

    Raises:
        DataError: an event is late, and that is to be refused; the message names file and row.
    """
    known = _known_users(table, store)
    table, dropped = _without_late(table, known, late)
    if config.repeats == "drop":
        table, dropped["repeated_item"] = _without(table, _items_of(known, store), [USER, ITEM])
    if config.min_user_events > 1:
        what = pl.struct(ITEM) if config.repeats == "drop" else pl.struct(pl.all())
        counts = table.collect(table.frame.group_by(USER).agg(what.n_unique().alias(_NUMBER)))
        few = counts.filter(pl.col(_NUMBER) < config.min_user_events).join(known, on=USER, how="anti")
        table, dropped["user_with_few_events"] = _without(table, few.select(USER), [USER])
    return table, dropped


def _known_users(table: Table, store: Store) -> pl.DataFrame:
    """Those of the table's users that the store has: id, row in the store, and time of the newest event."""
    users = table.collect(table.frame.select(pl.col(USER).unique()))
    rows = store.user_ids.to_frame().with_row_index("row").join(users, on=USER, how="semi")
    newest = store.time[store.offsets[rows["row"].to_numpy().astype(np.int64) + 1] - 1]
    return rows.with_columns(pl.Series(_NEWEST, newest, pl.Int64))


def _without_late(table: Table, known: pl.DataFrame, late: str) -> tuple[Table, Counter[str]]:
    newest = known.lazy().select(USER, _NEWEST)
    joined = table.then(lambda frame: frame.join(newest, on=USER, how="left", maintain_order="left"))
    is_late = (pl.col(TIME) <= pl.col(_NEWEST)).fill_null(False)
    if late == "refuse":
        remedy = "prepare a store of all events, or leave out those that come late (--late drop)"
        expected = f"a moment after the user's newest event in the store ({remedy})"
        joined.check([Column(TIME, pl.col(TIME), is_late, expected)])
        return table, Counter()
    number = joined.collect(joined.frame.select(is_late.sum())).item()
    return joined.then(lambda frame: frame.filter(~is_late).drop(_NEWEST)), Counter(late=number)


def _items_of(users: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Ids of users of the store and of the items they have had."""
    row = users["row"].to_numpy().astype(np.int64)
    start, stop = store.offsets[row], store.offsets[row + 1]
    ids = users[USER][np.repeat(np.arange(len(row)), stop - start)]
    return pl.DataFrame({USER: ids, ITEM: store.item_ids[store.item[flat_ranges(start, stop)] - 1]}).unique()


def _without(table: Table, rows: pl.DataFrame, names: list[str]) -> tuple[Table, int]:
    """The table without rows that have these values, in its order, and how many those were."""
    marked = rows.lazy().with_columns(pl.lit(True).alias(_OLD))
    joined = table.then(lambda frame: frame.join(marked, on=names, how="left", maintain_order="left"))
    number = joined.collect(joined.frame.select(pl.col(_OLD).is_not_null().sum())).item()
    return joined.then(lambda frame: frame.filter(pl.col(_OLD).is_null()).drop(_OLD)), number
