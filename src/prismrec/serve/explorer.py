"""The explorer over HTTP: a page at `/`, its files, and the answers that it shows.

Takes an application and the host of a bundle. The page needs no network but this server, and nothing in it runs that is
not one of its files: titles and ids are shown as text, and the browser is told to refuse everything else.
"""

import asyncio
import hashlib
import importlib.resources
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from prismrec.serve.exploration import Explorer
from prismrec.serve.explorer_messages import (
    Exploration,
    ExploreQuery,
    FoundItems,
    FoundUsers,
    ItemView,
    MapView,
)
from prismrec.serve.gate import PAGE, success
from prismrec.serve.host import Host
from prismrec.serve.messages import Refusal

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",  # ask whether it is still the same
}
_THREADS = 4
Search = Annotated[str, Query(max_length=200)]


def add_explorer(app: FastAPI, host: Host) -> None:
    """Add the page and what it asks for."""
    _add_page(app)
    # of its own: what is made when first asked for takes long, and events shall not wait for it
    threads = ThreadPoolExecutor(_THREADS, "explorer")

    async def look(at: Callable[[Explorer], BaseModel]) -> Response:
        return success(await asyncio.get_running_loop().run_in_executor(threads, at, host.current.explorer))

    @app.get("/explorer/users", response_model=FoundUsers)
    async def users(search: Search = "") -> Response:
        """Find known users by a part of their ids."""
        return await look(lambda explorer: explorer.users(search))

    @app.get("/explorer/items", response_model=FoundItems)
    async def items(search: Search = "") -> Response:
        """Find items by a part of their titles or ids, the most popular first."""
        return await look(lambda explorer: explorer.items(search))

    @app.get("/explorer/item", response_model=ItemView, responses={404: {"model": Refusal}})
    async def item(item_id: Annotated[str, Query(max_length=1000)]) -> Response:
        """Show an item, what is like it, and whose interests come closest to it."""
        return await look(lambda explorer: explorer.item(item_id))

    @app.get("/explorer/map", response_model=MapView)
    async def item_map() -> Response:
        """Show the most popular items on a plane."""
        return await look(Explorer.map)

    @app.post("/explorer/user", response_model=Exploration)
    async def explore(query: ExploreQuery) -> Response:
        """Show a user's interests, what formed them and what they lead to, with events added or removed."""
        return await look(lambda explorer: explorer.explore(query))


def _add_page(app: FastAPI) -> None:
    files = {
        file.name: file.read_bytes()
        for file in (importlib.resources.files("prismrec.serve") / "page").iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }

    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:16]}"' for name, content in files.items()}

    def file_or_unchanged(request: Request, name: str) -> Response:
        headers = {**_PAGE_HEADERS, "etag": tags[name]}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(files[name], media_type=_TYPES[name.rpartition(".")[2]], headers=headers)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return file_or_unchanged(request, "explorer.html")

    @app.get(PAGE + "{name}", include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return file_or_unchanged(request, name)
