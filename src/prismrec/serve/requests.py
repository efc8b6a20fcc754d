"""Whom to recommend to: known users, or users described by events.

Takes a table of users or events in original ids; gives distinct users with their position in the
store and their given events in the store's integers. What breaks the schema is an error with its row.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from prismrec.data.columns import Column, column_keys, dwell_column, feature_column, is_no_id, time_column
from prismrec.data.schema import DWELL, ITEM, TIME, USER
from prismrec.data.store import Store
from prismrec.data.tables import Table
from prismrec.errors import DataError, listed_names, shortened, shown
from prismrec.serve.events import Events
from prismrec.serve.histories import NEW_USER


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

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Request and columns of each given event, those of a request oldest first."""
        events = self.events.sort("request", "time", maintain_order=True)
        return events["request"].to_numpy(), events.drop("request").to_numpy()

    def given(self, start: int, stop: int) -> list[Events]:
        """The given events of some requests, oldest first."""
        request, rows = self._rows
        bounds = np.searchsorted(request, np.arange(start, stop + 1))
        return [Events.of_rows(rows[first:last]) for first, last in itertools.pairwise(bounds.tolist())]

    @property
    def newest(self) -> int:
        """Time of the newest given event; 0 without events."""
        return int(self.events["time"].max() or 0)  # type: ignore[arg-type]


def known_users(store: Store, start: int, stop: int) -> Requests:
    """Users of the store by their positions, without further events."""
    return Requests(store.user_ids[start:stop], np.arange(start, stop), _no_events(store))


def read_requests(store: Store, users: pl.DataFrame) -> Requests:
    """Read a table of users (`user_id` alone) or of events (`user_id, item_id, timestamp`, dwell, context).

    Raises:
        DataError: the table is empty, lacks a column, has another type of id than the store, has a null
            or a negative number where none may be, or names without events a user the store does not know.
    """
    asked = read_ids(users, USER, store.user_ids)
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
        .with_columns(asked, read_ids(users, ITEM, store.item_ids))
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
    columns = [time_column("users", TIME, _column(users, TIME).dtype)]
    if DWELL in users.columns:
        columns.append(dwell_column("users", DWELL, users[DWELL].dtype))
    context = [name for name in store.schema.context_features if name in users.columns]
    columns += [feature_column("users", name, users[name].dtype, "leave it out") for name in context]
    values = _checked(users, columns)
    absent = pl.Series(np.zeros(len(users), np.int64))
    return pl.DataFrame(
        {
            "time": values[TIME],
            DWELL: values[DWELL].cast(pl.Int64) if DWELL in values.columns else absent,
            **{
                name: column_keys(values[name]) if name in context else absent for name in store.schema.context_features
            },
        }
    )


def read_ids(frame: pl.DataFrame, name: str, like: pl.Series, table: str = "users") -> pl.Series:
    """A column of ids in the type the store has them in; numbers may stand for text, as CSV has no types.

    Raises:
        DataError: the column is missing, of another type, or holds what is no id; `table` is its table's name.
    """
    given = _column(frame, name, table).dtype
    integers = given.is_integer() and like.dtype.is_integer()
    text = like.dtype == pl.String and (given.is_integer() or isinstance(given, pl.Categorical | pl.Enum))
    if given != like.dtype and not integers and not text:
        raise DataError(
            f"{table}: column {name!r}: expected {like.dtype} ids as in the store, found {shortened(given)}"
        )
    ids = pl.col(name).cast(like.dtype, strict=False)
    return _checked(frame, [Column(name, ids, is_no_id(ids, like.dtype), f"an id of type {like.dtype}")], table)[name]


def _column(frame: pl.DataFrame, name: str, table: str = "users") -> pl.Series:
    if name not in frame.columns:
        raise DataError(f"{table}: expected a column {name!r}, found only {listed_names(frame.columns)}")
    return frame[name]


def _checked(frame: pl.DataFrame, columns: list[Column], table: str = "users") -> pl.DataFrame:
    """The values of columns, none of which may be refused."""
    Table(table, frame.lazy()).check(columns)
    return frame.select(column.values for column in columns)


def _refuse_unknown(user_ids: pl.Series, position: pl.Series) -> None:
    unknown = user_ids.filter(position.is_null())
    if len(unknown):
        raise DataError(
            f"users: expected users of the store, found {len(unknown)} unknown, the first {shown(unknown[0])}; "
            f"leave them out, or give their events in columns {USER}, {ITEM}, {TIME}"
        )
