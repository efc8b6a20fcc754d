"""Whom to recommend to: known users, or users described by events.

Takes a table of users or events in original ids; gives distinct users with their position in the
store and their given events in the store's integers. What breaks the schema is an error with its row.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from prismrec.data.columns import column_keys, feature_column
from prismrec.data.schema import DWELL, ITEM, TIME, USER
from prismrec.data.store import Store
from prismrec.errors import DataError

NEW_USER = -1


@dataclass(frozen=True)
class Requests:
    """The users of one call, in the order in which they first appear."""

    user_ids: pl.Series
    """Distinct original ids [R]."""
    position: np.ndarray
    """int64 [R], position of each user in the store, or `NEW_USER`."""
    events: pl.DataFrame
    """Given events of items in the catalogue: `request` (position in `user_ids`), `item` (catalogue row),
    `time`, `dwell`, and one key column per context feature."""
    num_ignored: int = 0
    """Given events whose item is not in the catalogue."""

    @property
    def newest(self) -> int:
        """Time of the newest given event; 0 without events."""
        return int(self.events["time"].max() or 0)  # type: ignore[arg-type]


def every_user(store: Store) -> Requests:
    """All users of the store, without further events."""
    return Requests(store.user_ids, np.arange(store.num_users), _no_events(store))


def read_requests(store: Store, users: pl.DataFrame) -> Requests:
    """Read a table of users (`user_id` alone) or of events (`user_id, item_id, timestamp`, dwell, context).

    Raises:
        DataError: the table is empty, lacks a column, has another type of id than the store, has a null
            or a negative number where none may be, or names without events a user the store does not know.
    """
    if users.is_empty():
        raise DataError("users: expected at least one row, found an empty table")
    asked = _ids(users, USER, store.user_ids)
    user_ids = asked.unique(maintain_order=True)
    known = pl.DataFrame({USER: store.user_ids, "position": np.arange(store.num_users)})
    position = user_ids.to_frame().join(known, on=USER, how="left", maintain_order="left")["position"]
    if users.columns == [USER]:
        _refuse_unknown(user_ids, position)
        return Requests(user_ids, position.to_numpy(), _no_events(store))

    request = pl.DataFrame({USER: user_ids, "request": np.arange(len(user_ids))})
    catalogue = pl.DataFrame({ITEM: store.item_ids, "item": np.arange(1, store.num_items + 1)})
    events = (
        _event_columns(store, users)
        .with_columns(asked, _ids(users, ITEM, store.item_ids))
        .join(request, on=USER, how="left", maintain_order="left")
        .join(catalogue, on=ITEM, how="left", maintain_order="left")
    )
    found = events.drop_nulls("item").select(_no_events(store).columns)
    return Requests(user_ids, position.fill_null(NEW_USER).to_numpy(), found, len(events) - len(found))


def _no_events(store: Store) -> pl.DataFrame:
    columns = ["request", "item", "time", DWELL, *store.schema.context_features]
    return pl.DataFrame(schema=dict.fromkeys(columns, pl.Int64))


def _event_columns(store: Store, users: pl.DataFrame) -> pl.DataFrame:
    """Time, dwell and context keys of each given event; what is optional and absent is 0."""
    absent = pl.Series(np.zeros(len(users), np.int64))
    dwell = _non_negative(users, DWELL) if DWELL in users.columns else absent
    context = {
        name: _context_keys(users, name) if name in users.columns else absent for name in store.schema.context_features
    }
    return pl.DataFrame({"time": _seconds(users), DWELL: dwell, **context})


def _column(users: pl.DataFrame, name: str) -> pl.Series:
    if name not in users.columns:
        raise DataError(f"users: expected a column {name!r}, found only {', '.join(users.columns)}")
    return users[name]


def _ids(users: pl.DataFrame, name: str, like: pl.Series) -> pl.Series:
    """A column of ids in the type the store has them in."""
    ids = _column(users, name)
    if isinstance(ids.dtype, pl.Categorical | pl.Enum):
        ids = ids.cast(pl.String)
    if ids.dtype != like.dtype and not (ids.dtype.is_integer() and like.dtype.is_integer()):
        raise DataError(f"users: column {name!r}: expected {like.dtype} ids as in the store, found {ids.dtype}")
    ids = ids.cast(like.dtype, strict=False)
    _refuse(ids.is_null(), users[name], f"column {name!r}", f"an id of type {like.dtype}")
    return ids


def _seconds(users: pl.DataFrame) -> pl.Series:
    time = _column(users, TIME)
    if time.dtype.is_temporal() and time.dtype not in (pl.Time, pl.Duration):
        seconds = time.cast(pl.Datetime("us")).dt.epoch("s").alias(TIME)
        return _non_negative(users.with_columns(seconds), TIME, nulls=False)
    return _non_negative(users, TIME, nulls=False)


def _non_negative(users: pl.DataFrame, name: str, nulls: bool = True) -> pl.Series:
    """A column of whole seconds; null counts as 0 where allowed."""
    column = users[name]
    if not column.dtype.is_integer():
        raise DataError(f"users: column {name!r}: expected whole seconds or datetimes, found {column.dtype}")
    invalid = (column < 0).fill_null(not nulls)
    _refuse(invalid, column, f"column {name!r}", "seconds from 0 up")
    return column.fill_null(0).cast(pl.Int64)


def _context_keys(users: pl.DataFrame, name: str) -> pl.Series:
    feature = feature_column("users", name, users[name].dtype, "leave it out")
    _refuse(users.select(invalid=feature.invalid)["invalid"], users[name], f"column {name!r}", feature.expected)
    return column_keys(users.select(feature.values).to_series())


def _refuse(invalid: pl.Series, column: pl.Series, where: str, expected: str) -> None:
    row = invalid.arg_max()
    if row is not None and invalid[row]:
        raise DataError(f"users: {where}, row {row + 1}: expected {expected}, found {column[row]!r}")


def _refuse_unknown(user_ids: pl.Series, position: pl.Series) -> None:
    unknown = user_ids.filter(position.is_null())
    if len(unknown):
        raise DataError(
            f"users: expected users of the store, found {len(unknown)} unknown, the first {unknown[0]!r}; "
            f"leave them out, or give their events in columns {USER}, {ITEM}, {TIME}"
        )
