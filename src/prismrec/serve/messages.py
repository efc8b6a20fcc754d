"""What the service is asked and what it answers, as validated models; ids have the types of a bundle's tables.

Pydantic checks the requests and describes them in OpenAPI; `id_type` gives the strict type of a column of ids.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, Strict, create_model, model_validator
from pydantic_core import PydanticCustomError

from prismrec.data.schema import CATEGORY_FEATURES

UserId = TypeVar("UserId")
ItemId = TypeVar("ItemId")
Category = TypeVar("Category")
Did = TypeVar("Did", bound="Event[Any]")
Query = TypeVar("Query")

Listed = Annotated[list[Query], Field(fail_fast=True)]  # to collect the faults of a long list takes seconds
Shown = int | float | str | bool | None
Merge = Literal["maximum", "quota", "reciprocal_rank_fusion"]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict()]
_Text = Annotated[str, Strict(), Field(min_length=0)]  # any length, but no half of a surrogate pair
Seconds = Annotated[int, Strict(), Field(ge=0, le=253_402_300_799)]  # to the end of the year 9999


_MAX_FIELDS = 100


def check_fields(value: object) -> object:
    """Refuse an object of very many fields, or a list of such: to collect what is wrong with each takes long.

    Raises:
        PydanticCustomError: there are more than 100.
    """
    if isinstance(value, dict):
        objects = [value]
        for each in value.values():
            if isinstance(each, list):
                objects += [part for part in each if isinstance(part, dict)]
        found = max(map(len, objects))
        if found > _MAX_FIELDS:
            raise PydanticCustomError("too_many_fields", f"expected at most {_MAX_FIELDS} fields, found {found}")
    return value


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Event(_Body, Generic[ItemId]):
    """Something a user did; further fields are columns of context."""

    model_config = ConfigDict(extra="allow")

    item_id: ItemId
    timestamp: Seconds
    """Seconds since 1970."""
    dwell: Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)] = 0
    """Seconds spent; 0 is unknown."""


class EventReference(_Body, Generic[ItemId]):
    """Which of a user's events."""

    item_id: ItemId
    timestamp: Seconds


class _Question(_Body):
    _checked_fields = model_validator(mode="before")(check_fields)


class Restrictions(_Question, Generic[ItemId, Category]):
    """Which items may come back. An item of several categories is of each of them."""

    exclude_items: Listed[ItemId] = []
    """Never these items."""
    exclude_categories: Listed[Category] = []
    """Nothing of these categories."""
    only_items: Listed[ItemId] | None = None
    """Nothing but these items."""
    only_categories: Listed[Category] | None = None
    """Nothing but items of these categories."""
    k: Count = Field(20, ge=1)
    """Number of items."""


class RecommendQuery(Restrictions[ItemId, Category], Generic[UserId, ItemId, Category, Did]):
    """For whom, how many, and how the interests share the places."""

    user_id: UserId | None = None
    """A known user, or a name for a new one; without it, the events alone say who it is."""
    events: Listed[Did] = []
    """Added to what is known of the user, for this answer; those of items outside the catalogue are left out."""
    without_events: Listed[EventReference[ItemId]] = []
    """Left out of what is known of the user, for this answer: what would be if they had not been."""
    include_seen: Flag = False
    """Keep items of the user's history."""
    now: Seconds | None = None
    """Time of the request in seconds since 1970; that of the newest event by default."""
    merge: Merge = "maximum"
    """How one list is made of those of the interests: by the best score, in turns, or by agreement of ranks."""
    diversity: Annotated[float, Strict()] = Field(0.0, ge=0, le=1)
    """From 0, the best items whatever they are, to 1, items as unlike each other as can be."""


class SimilarQuery(Restrictions[ItemId, Category]):
    """What is like an item."""

    item_id: ItemId


class UserEvents(_Question, Generic[UserId, Did]):
    """Events to remember of a user."""

    user_id: UserId
    events: Listed[Did] = Field(min_length=1)


AnyRecommendQuery = RecommendQuery[Any, Any, Any, Any]
AnyUserEvents = UserEvents[Any, Any]


class Item(BaseModel):
    """A recommended item, with what the catalogue shows of it."""

    item_id: int | str
    rank: int
    score: float
    """Inner product with the vector that found it, or the sum over ranks of reciprocal-rank fusion."""
    interest: int | None
    """The number of the interest that found it; null if none did."""
    title: Shown = None
    category: Shown | list[Shown] = None


class Cause(BaseModel):
    """A past event, its share in an interest, and the cosine of its item with the interest."""

    item_id: int | str
    title: Shown = None
    timestamp: int
    weight: float
    closeness: float


class CategoryShare(BaseModel):
    """A category and its share of the items closest to an interest; an item of several counts in each."""

    category: Shown
    share: float


class Interest(BaseModel):
    """One vector of the user: where it leads, and the events that formed it most, largest share first."""

    interest: int
    share: float
    """Of the attention to the user's events; those of all interests add up to one."""
    categories: list[CategoryShare]
    events: list[Cause]


class Recommendations(BaseModel):
    """Items, best first, with the interests that found them."""

    items: list[Item]
    interests: list[Interest]
    fallback: Literal["popular", "none"] | None = None
    """Set if no event of the user is known: the items are the most popular ones, or there are none."""


class Similar(BaseModel):
    """Items by falling cosine with the one asked about."""

    items: list[Item]


class Appended(BaseModel):
    """What is now remembered."""

    events: int
    unknown_items: int
    """Events among them of items outside the catalogue: kept for a bundle that has them."""


class Answers(_Body, Generic[Query]):
    """The answers to a batch, in the order of its queries."""

    answers: list[Query]


class Health(BaseModel):
    """What is being served."""

    status: str
    version: str
    model: str
    """First digits of the SHA-256 of the weights."""
    items: int
    users: int


class Problem(BaseModel):
    """Why there is no answer."""

    code: str
    message: str
    request_id: str


class Refusal(BaseModel):
    """Every answer that is not a success."""

    error: Problem


def of_types(model: Any, *types: Any) -> Any:
    """A generic model with types that are known at run time only, under its plain name."""
    return create_model(model.__name__, __base__=model[types], __doc__=model.__doc__)


def batch_of(query: Any, most: int) -> Any:
    """A model of up to so many queries in one request."""
    return create_model(
        f"Batch[{query.__name__}]",
        __base__=_Question,
        __doc__="Several queries; the answers come in their order, and one that is wrong fails all.",
        queries=(Listed[query], Field(min_length=1, max_length=most)),
    )


def category_type(items: pl.DataFrame) -> Any:
    """What categories look like in requests."""
    dtype = category_dtype(items)
    if dtype is None or not (dtype == pl.String or dtype.is_integer()):
        return _Text | int
    return id_type(pl.Series(dtype=dtype))


def category_dtype(items: pl.DataFrame) -> pl.DataType | None:
    """The type of a catalogue's categories, those in lists included; None without categories."""
    dtype = items.schema.get(CATEGORY_FEATURES[0])
    return dtype.inner if isinstance(dtype, pl.List) else dtype  # type: ignore[return-value]


def id_type(ids: pl.Series) -> Any:
    """The strict type of a column of ids, for pydantic."""
    if ids.dtype == pl.String:
        return _Text
    low, high = pl.select(low=ids.dtype.min(), high=ids.dtype.max()).row(0)  # type: ignore[attr-defined]
    return Annotated[int, Strict(), Field(ge=low, le=high)]
