"""The HTTP application: JSON requests in, recommendations with their reasons out.

Takes a host of a bundle; gives an ASGI application. The types of ids are those of the bundle. What is wrong
with a request is said in one form, `{"error": {"code", "message", "request_id"}}`; nothing here imports torch.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from prismrec.data.store import Store
from prismrec.errors import ArtifactError, DataError, PrismRecError, SearchIndexError
from prismrec.serve import examples
from prismrec.serve.events import StoreUnavailableError
from prismrec.serve.explorer import add_explorer
from prismrec.serve.gate import OPEN, Gate, refusal, success
from prismrec.serve.host import Host
from prismrec.serve.limits import check_limits
from prismrec.serve.messages import (
    Answers,
    Appended,
    Event,
    Health,
    Recommendations,
    RecommendQuery,
    Refusal,
    Similar,
    SimilarQuery,
    UserEvents,
    batch_of,
    category_type,
    id_type,
    of_types,
)
from prismrec.serve.metrics import Metrics
from prismrec.serve.service import UnknownItemError
from prismrec.serve.settings import ServeConfig

_log = logging.getLogger(__name__)
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 408, 413, 415, 422, 429, 431, 503)
}
_STATUS: dict[type[PrismRecError], tuple[int, str]] = {
    UnknownItemError: (404, "unknown_item"),
    DataError: (422, "invalid_request"),
    StoreUnavailableError: (503, "store_unavailable"),
    SearchIndexError: (503, "index_unavailable"),
    ArtifactError: (409, "bundle_unusable"),
}
_UNAVAILABLE = {
    "store_unavailable": "the events cannot be reached; try again",
    "index_unavailable": "the vector database cannot be reached; try again",
}
"""In place of messages that name other servers."""


def create_app(host: Host, settings: ServeConfig, metrics: Metrics, key: str | None = None) -> Gate:
    """Build the application.

    Args:
        host: has the bundle.
        settings: the limits.
        metrics: where the service counts.
        key: what clients must send; none, or an empty one, lets everybody in, but nobody change the bundle over HTTP.
    """
    store = host.current.service.bundle.store
    app = FastAPI(
        title="PrismRec",
        version=version("prismrec"),
        description="Several interests per user.",
        lifespan=lambda app: _lifespan(app, host, metrics),
        responses=_REFUSED,
        redirect_slashes=False,  # to where the header Host says
    )
    _answer_errors(app)
    _add_questions(app, host, settings, metrics, store)
    _add_watching(app, host, metrics)
    if settings.explorer:
        add_explorer(app, host)
    if key:
        _add_changes(app, host, metrics)
        _describe_key(app)
    return Gate(app, settings, metrics, key)


def _add_questions(app: FastAPI, host: Host, settings: ServeConfig, metrics: Metrics, store: Store) -> None:
    user, item, category = id_type(store.user_ids), id_type(store.item_ids), category_type(store.items)
    event: Any = of_types(Event, item)
    recommend_query: Any = of_types(RecommendQuery, user, item, category, event)
    similar_query: Any = of_types(SimilarQuery, item, category)
    user_events: Any = of_types(UserEvents, user, event)
    recommend_queries: Any = batch_of(recommend_query, settings.max_batch)
    similar_queries: Any = batch_of(similar_query, settings.max_batch)
    users_events: Any = batch_of(user_events, settings.max_batch)

    async def recommended(queries: Sequence[Any]) -> list[Recommendations]:
        check_limits(queries, settings)
        answers = await host.current.recommend(queries)
        for answer in answers:
            metrics.candidates.observe(len(answer.items))
            metrics.empty.inc(not answer.items)
            metrics.fallbacks.inc(answer.fallback is not None)
        return answers

    async def likened(queries: Sequence[Any]) -> list[Similar]:
        check_limits(queries, settings)
        return await asyncio.to_thread(host.current.service.similar, queries)

    async def appended(users: Sequence[Any]) -> list[Appended]:
        check_limits(users, settings)
        answers = await asyncio.to_thread(host.current.service.append, users)
        metrics.events.inc(sum(answer.events for answer in answers))
        return answers

    @app.post("/v1/recommend", response_model=Recommendations)
    async def recommend(
        query: Annotated[recommend_query, Body(openapi_examples=examples.of_recommend(store))],
    ) -> Response:
        """Recommend items to one user, known or described by events, and say which events they follow from."""
        return success((await recommended([query]))[0])

    @app.post("/v1/recommend/batch", response_model=Answers[Recommendations])
    async def recommend_batch(batch: recommend_queries) -> Response:
        """Recommend items to several users."""
        return success(Answers(answers=await recommended(batch.queries)))

    @app.post("/v1/similar", response_model=Similar, responses={404: {"model": Refusal}})
    async def similar(query: Annotated[similar_query, Body(openapi_examples=examples.of_similar(store))]) -> Response:
        """Find the items that are most like an item."""
        return success((await likened([query]))[0])

    @app.post("/v1/similar/batch", response_model=Answers[Similar], responses={404: {"model": Refusal}})
    async def similar_batch(batch: similar_queries) -> Response:
        """Find what is like several items."""
        return success(Answers(answers=await likened(batch.queries)))

    @app.post("/v1/events", response_model=Appended)
    async def events(user: Annotated[user_events, Body(openapi_examples=examples.of_events(store))]) -> Response:
        """Remember events of a user; the next request reflects them, and they are safe when this is answered."""
        return success((await appended([user]))[0])

    @app.post("/v1/events/batch", response_model=Answers[Appended])
    async def events_batch(batch: users_events) -> Response:
        """Remember events of several users. After an error some may have been kept; to send all again does no harm."""
        return success(Answers(answers=await appended(batch.queries)))


def _add_watching(app: FastAPI, host: Host, metrics: Metrics) -> None:
    @app.get("/health")
    @app.get("/ready")
    async def health() -> Health:
        """Say what is being served. Nobody is let in before the bundle is open and warm."""
        return _health(host)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def scrape() -> Response:
        """Say what Prometheus scrapes."""
        metrics.info.clear()
        metrics.info.labels(host.current.model).set(1)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _add_changes(app: FastAPI, host: Host, metrics: Metrics) -> None:
    @app.post("/v1/admin/reload", responses={409: {"model": Refusal}})
    async def reload() -> Health:
        """Serve the bundle that is now at the path given at the start; no request fails meanwhile."""
        await host.reload()
        metrics.swaps.inc()
        return _health(host)

    @app.post("/v1/admin/rollback", responses={409: {"model": Refusal}})
    async def roll_back() -> Health:
        """Serve the bundle before this one again."""
        await host.roll_back()
        metrics.swaps.inc()
        return _health(host)


def _describe_key(app: FastAPI) -> None:
    """Say in the description that the gate asks for a key."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        description = describe()
        description["components"]["securitySchemes"] = {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
        description["security"] = [{"key": []}]
        for path in OPEN:
            description["paths"][path]["get"]["security"] = []
        return description

    app.openapi = described  # type: ignore[method-assign]


@contextlib.asynccontextmanager
async def _lifespan(_: FastAPI, host: Host, metrics: Metrics) -> AsyncIterator[None]:
    """SIGHUP changes the bundle, as servers do."""
    loop = asyncio.get_running_loop()
    changes: set[asyncio.Task[Any]] = set()

    def change() -> None:
        task = loop.create_task(_reload_logged(host, metrics))
        changes.add(task)
        task.add_done_callback(changes.discard)

    with contextlib.suppress(
        NotImplementedError, RuntimeError, ValueError
    ):  # only the main thread may, and not everywhere
        loop.add_signal_handler(signal.SIGHUP, change)
    if host.has_moved:  # what was signalled during the start
        change()
    yield
    host.close()


async def _reload_logged(host: Host, metrics: Metrics) -> None:
    try:
        _log.info("serving %s", (await host.reload()).path)
        metrics.swaps.inc()
    except PrismRecError as error:
        _log.error("still serving %s: %s", host.current.path, error)


def _health(host: Host) -> Health:
    service = host.current.service
    return Health(
        status="ok",
        version=version("prismrec"),
        model=host.current.model,
        items=service.bundle.store.num_items,
        users=service.bundle.store.num_users,
    )


def _answer_errors(app: FastAPI) -> None:
    """Give every error the form of `Refusal`; messages of defects stay in the log."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if isinstance(first["input"], bytes):
            first["msg"] = "expected JSON, and the header Content-Type: application/json"
        where = ".".join(str(part) for part in first["loc"][1:] if first["type"] != "json_invalid")
        return refusal(422, "invalid_request", f"{where or 'body'}: {first['msg']}", request.scope)

    @app.exception_handler(PrismRecError)
    async def refused(request: Request, error: PrismRecError) -> JSONResponse:
        status, code = next(known for kind, known in _STATUS.items() if isinstance(error, kind))
        if code in _UNAVAILABLE:
            _log.error("%s", error, extra={"fields": {"request_id": request.scope["request_id"]}})
        return refusal(status, code, _UNAVAILABLE.get(code, str(error)), request.scope)

    @app.exception_handler(OSError)
    async def unwritten(request: Request, error: OSError) -> JSONResponse:
        _log.error("events could not be written", exc_info=error)
        return refusal(503, "store_unavailable", "the events could not be written; try again", request.scope)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return refusal(error.status_code, code, str(error.detail), request.scope, error.headers)

    @app.exception_handler(Exception)
    async def defect(request: Request, _: Exception) -> JSONResponse:
        return refusal(500, "internal_server_error", "the server could not answer; its log says why", request.scope)
