"""Why items were recommended: of each, the nearest events of the interest that found it, as the catalogue shows them.

Takes what formed users' interests, and recommendations; gives Polars frames. Nothing here imports torch.
"""

import polars as pl

from prismrec.data.schema import ITEM, TIME, USER
from prismrec.data.store import Store
from prismrec.errors import DataError, listed_names
from prismrec.serve.item_vectors import ItemVectors

_PAIR = (USER, ITEM, "interest")
_EVENT = "event_"
_SHOWN = ("title", "category")


def recommended(given: pl.DataFrame) -> pl.DataFrame:
    """User, item and interest of recommendations.

    Raises:
        DataError: a column is missing.
    """
    if not set(_PAIR) <= set(given.columns):
        raise DataError(
            f"recommendations: expected columns {', '.join(_PAIR)}, as recommend gives them, found "
            f"{listed_names(given.columns)}"
        )
    return given.select(_PAIR)


def nearest_events(pairs: pl.DataFrame, formed: pl.DataFrame, vectors: ItemVectors, num_events: int) -> pl.DataFrame:
    """Of each recommendation, the events nearest to it among those of its interest.

    Args:
        pairs: `user_id, item_id, interest`.
        formed: which events formed the interests of these users, as `Recommender.interests` gives them.
        vectors: of the items.
        num_events: events of a recommendation, at most.

    Returns:
        `user_id, item_id, interest, event_item_id, timestamp, closeness`: the cosine of both items, largest first.
    """
    events = formed.filter(pl.col("weight") > 0).select(USER, "interest", pl.col(ITEM).alias(_EVENT + ITEM), TIME)
    found = pairs.with_row_index("place").join(events, on=[USER, "interest"], maintain_order="left_right")
    found = found.with_columns(closeness=vectors.closeness(found[ITEM], found[_EVENT + ITEM]))
    nearest = found.sort("place", "closeness", descending=[False, True], maintain_order=True)
    return nearest.group_by("place", maintain_order=True).head(num_events).drop("place")


def with_titles(frame: pl.DataFrame, store: Store) -> pl.DataFrame:
    """The frame with what the catalogue shows of its events' items, or of its items where it has none of events."""
    prefix = _EVENT if _EVENT + ITEM in frame.columns else ""
    names = [name for name in (ITEM, *_SHOWN) if name in store.items.columns]
    shown = store.items.select(pl.col(name).alias(prefix + name) for name in names)
    return frame.join(shown, on=prefix + ITEM, how="left", maintain_order="left")
