"""What the explorer's page asks and is answered. Ids are text: a browser's numbers end at 2**53, and ids do not."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from prismrec.serve.messages import CategoryShare, Count, EventReference, Flag, Listed, Merge, Shown, check_fields

Id = Annotated[str, Field(max_length=1000)]
Point = tuple[float, float]


class ExploreQuery(BaseModel):
    """A user as known, with changes, and the settings of the answer as in `RecommendQuery`."""

    model_config = ConfigDict(extra="forbid")
    _checked_fields = model_validator(mode="before")(check_fields)

    user_id: Id | None = None
    """Without one, the added events are all that there is."""
    added: Listed[EventReference[Id]] = []
    removed: Listed[EventReference[Id]] = []
    k: Count = Field(20, ge=1)
    merge: Merge = "maximum"
    diversity: Annotated[float, Strict()] = Field(0.0, ge=0, le=1)
    include_seen: Flag = False


class FoundUser(BaseModel):
    """A user, and how much the bundle knows of them."""

    user_id: str
    events: int


class FoundUsers(BaseModel):
    """The first of those that match, of so many in all."""

    users: list[FoundUser]
    matching: int
    total: int


class FoundItem(BaseModel):
    """What the catalogue shows of an item."""

    item_id: str
    title: Shown = None
    category: Shown | list[Shown] = None
    events: int
    """In training."""


class FoundItems(BaseModel):
    """The most popular of those that match, of so many in all."""

    items: list[FoundItem]
    matching: int
    total: int


class PlacedItem(FoundItem):
    """A recommended item, its place on the map, and the interest that found it."""

    rank: int
    score: float
    interest: int | None
    position: Point


class PlacedEvent(BaseModel):
    """A past event and its share in each interest."""

    item_id: str
    title: Shown = None
    category: Shown | list[Shown] = None
    timestamp: int
    dwell: int
    weights: list[float]
    """In the order of `Exploration.interests`; of an interest they add up to one over all events."""
    position: Point


class PlacedInterest(BaseModel):
    """Where an interest leads, its share of the attention, and its place on the map."""

    interest: int
    share: float
    categories: list[CategoryShare]
    closest: list[FoundItem]
    """The best of its own list, whether or not they are among the items recommended."""
    position: Point


class Exploration(BaseModel):
    """Everything that the page shows of a user."""

    items: list[PlacedItem]
    interests: list[PlacedInterest]
    history: list[PlacedEvent]
    """What the model reads, newest first."""
    fallback: Literal["popular", "none"] | None


class Neighbour(FoundItem):
    """An item that is like another one."""

    cosine: float
    position: Point


class Fan(BaseModel):
    """A user, the interest that comes closest to an item, and its score there."""

    user_id: str
    interest: int
    score: float
    had: bool
    """The item is in the user's history already."""


class ItemView(BaseModel):
    """An item with the items that are most like it and the users whose interests come closest to it."""

    item: FoundItem
    position: Point
    neighbours: list[Neighbour]
    fans: list[Fan]
    looked_at: int
    """Users whose interests were compared: a sample, where there are many."""
    users: int


class MapView(BaseModel):
    """The items of most events on the plane along which they differ most, a list for each column."""

    item_ids: list[str]
    titles: list[Any]
    categories: list[Any]
    """The coarsest that the catalogue has."""
    positions: list[Point]
    spread: float
    """Share of the vectors' variance that the plane shows."""
    total: int
