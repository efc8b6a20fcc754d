"""The HTTP application: JSON requests in, recommendations with their reasons out.

Takes a bundle; gives a FastAPI application. The types of ids are those of the bundle. What is wrong
with a request is said in one form, `{"error": {"code", "message"}}`; nothing here imports torch.
"""

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, Strict, create_model
from starlette.exceptions import HTTPException

from prismrec.data.schema import DWELL, ITEM, TIME, USER
from prismrec.data.store import Store
from prismrec.errors import DataError
from prismrec.export.reader import WEIGHTS
from prismrec.serve.recommender import Recommender

_EVENTS_PER_INTEREST = 5
_MAX_EVENTS = 10_000

Shown = int | float | str | bool | None
Seconds = Annotated[int, Strict(), Field(ge=0, le=253_402_300_799)]  # to the end of the year 9999


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Event(_Body):
    """Something the user did; further fields are columns of context."""

    model_config = ConfigDict(extra="allow")

    item_id: int | str
    timestamp: Seconds
    """Seconds since 1970."""
    dwell: Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)] = 0
    """Seconds spent; 0 is unknown."""


class Query(_Body):
    """For whom, and how many."""

    user_id: int | str | None = Field(None)
    """A known user, or a name for a new one; without it, the events alone say who it is."""
    events: list[Event] = Field([], max_length=_MAX_EVENTS)
    """Added to what is known of the user; events of items outside the catalogue are left out."""
    k: Annotated[int, Strict()] = Field(20, ge=1, le=1000)
    """Number of items."""
    include_seen: Annotated[bool, Strict()] = False
    """Keep items of the user's history."""
    now: Seconds | None = None
    """Time of the request in seconds since 1970; that of the newest event by default."""


class Item(BaseModel):
    """A recommended item, with what the catalogue shows of it."""

    item_id: int | str
    rank: int
    score: float
    interest: int
    title: Shown = None
    category: Shown = None


class Cause(BaseModel):
    """A past event, its share in an interest, and the cosine of its item with the interest."""

    item_id: int | str
    timestamp: int
    weight: float
    closeness: float


class Interest(BaseModel):
    """One vector of the user: the events that formed it most, largest share first."""

    interest: int
    events: list[Cause]


class Answer(BaseModel):
    """Recommendations, best first; empty for a user of whom no event is known."""

    items: list[Item]
    interests: list[Interest]


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


class Refusal(BaseModel):
    """Every answer that is not a success."""

    error: Problem


class _UnknownUserError(DataError):
    pass


def create_app(bundle: Path) -> FastAPI:
    """Build the application of a bundle.

    Raises:
        ArtifactError: the bundle is missing, damaged or of another format.
        SearchIndexError: its index is not the one that its manifest describes.
    """
    recommender = Recommender.open(bundle)
    store, manifest = recommender.bundle.store, recommender.bundle.manifest
    app = FastAPI(title="PrismRec", version=version("prismrec"), description="Several interests per user.")
    _answer_errors(app)
    query_type: Any = _query_type(store)
    described = Body(openapi_examples=_examples(store))

    @app.get("/health")
    def health() -> Health:
        """Say what is being served."""
        return Health(
            status="ok",
            version=app.version,
            model=manifest["files"][WEIGHTS]["sha256"][:12],
            items=store.num_items,
            users=store.num_users,
        )

    @app.post("/v1/recommend", responses={404: {"model": Refusal}, 422: {"model": Refusal}})
    def recommend(query: Annotated[query_type, described]) -> Answer:
        """Recommend items to one user, known or described by events, and say which events they follow from."""
        return _answer(recommender, query)

    return app


def _answer(recommender: Recommender, query: Query) -> Answer:
    store = recommender.bundle.store
    users = _users(store, query)
    found = recommender.recommend(users, k=query.k, include_seen=query.include_seen, now=query.now)
    shown = [name for name in ("title", "category") if name in store.items.columns]
    catalogue = store.items.select(ITEM, *shown).filter(pl.col(ITEM).is_in(found[ITEM].implode()))
    items = found.join(catalogue, on=ITEM, how="left", maintain_order="left")
    formed = recommender.interests(users, now=query.now)
    return Answer(
        items=[Item.model_validate(row) for row in items.to_dicts()],
        interests=[
            Interest.model_validate({"interest": number, "events": events.head(_EVENTS_PER_INTEREST).to_dicts()})
            for (number,), events in formed.group_by(["interest"], maintain_order=True)
        ],
    )


def _users(store: Store, query: Query) -> pl.DataFrame:
    """The query as a table for `Recommender`: a user, or events."""
    if query.events:
        user = _unused_id(store.user_ids) if query.user_id is None else query.user_id
        users = pl.Series(USER, [user], store.user_ids.dtype).new_from_index(0, len(query.events))
        return _events(store, query.events).with_columns(users)
    if query.user_id is None:
        raise DataError("expected user_id or events, found neither")
    user = pl.Series(USER, [query.user_id], store.user_ids.dtype)
    if not user.is_in(store.user_ids.implode()).item():
        raise _UnknownUserError(f"user_id: {query.user_id!r} is not known; give the user's events")
    return user.to_frame()


def _events(store: Store, events: Sequence[Event]) -> pl.DataFrame:
    context = {name for event in events for name in event.model_extra or {}}
    unknown = sorted(context - set(store.schema.context_features))
    if unknown:
        known = ", ".join(store.schema.context_features) or "none"
        raise DataError(f"events: {unknown[0]!r} is not a column of context; this model has {known}")
    columns = [
        pl.Series(ITEM, [event.item_id for event in events], store.item_ids.dtype),
        pl.Series(TIME, [event.timestamp for event in events]),
        pl.Series(DWELL, [event.dwell for event in events]),
    ]
    for name in sorted(context):
        try:
            columns.append(pl.Series(name, [(event.model_extra or {}).get(name) for event in events]))
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            raise DataError(f"events: {name}: expected integers or text, the same in every event") from None
    return pl.DataFrame(columns)


def _unused_id(ids: pl.Series) -> Any:
    """An id of no user, for one who gives none."""
    candidates = pl.int_range(len(ids) + 1, eager=True).cast(ids.dtype, strict=False)
    return candidates.filter(~candidates.is_in(ids.implode()))[0]


def _query_type(store: Store) -> Any:
    """`Query` with the types of ids of this store."""
    fields = Query.model_fields
    event = create_model("Event", __base__=Event, item_id=(_id_type(store.item_ids), ...))
    return create_model(
        "Query",
        __base__=Query,
        user_id=(_id_type(store.user_ids) | None, fields["user_id"]),
        events=(list[event], fields["events"]),
    )


def _id_type(ids: pl.Series) -> Any:
    """The strict type of a column of ids, for pydantic."""
    if ids.dtype == pl.String:
        return Annotated[str, Strict(), Field(min_length=0)]  # any length, but no half of a surrogate pair
    low, high = pl.select(low=ids.dtype.min(), high=ids.dtype.max()).row(0)  # type: ignore[attr-defined]
    return Annotated[int, Strict(), Field(ge=low, le=high)]


def _examples(store: Store) -> Any:
    item, time = store.item_ids[0], store.manifest["max_time"]
    return {
        "a known user": {"value": {"user_id": store.user_ids[0], "k": 10}},
        "a new user": {"value": {"events": [{"item_id": item, "timestamp": time}], "k": 10}},
    }


def _answer_errors(app: FastAPI) -> None:
    """Give every error the form of `Refusal`; messages of defects stay in the log."""

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if first["type"] != "json_invalid")
        return _refusal(422, "invalid_request", f"{where or 'body'}: {first['msg']}")

    @app.exception_handler(_UnknownUserError)
    def unknown(_: Request, error: _UnknownUserError) -> JSONResponse:
        return _refusal(404, "unknown_user", str(error))

    @app.exception_handler(DataError)
    def refused(_: Request, error: DataError) -> JSONResponse:
        return _refusal(422, "invalid_request", str(error))

    @app.exception_handler(HTTPException)
    def failed(_: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return _refusal(error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    def defect(_: Request, __: Exception) -> JSONResponse:
        return _refusal(500, "internal_server_error", "the server could not answer; its log says why")


def _refusal(status: int, code: str, message: str) -> JSONResponse:
    text = message.encode(errors="replace").decode()  # a request may hold half a surrogate pair
    return JSONResponse(Refusal(error=Problem(code=code, message=text)).model_dump(), status)
