"""The bundle being served, and the change to another one without a failed request.

Takes the path of a bundle and a way to open it; a new bundle at that path (or one that a symbolic link
there now points to) takes over when it is open and warm, and the one before it can be called back.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from prismrec.artifact import fitting_parts, read_manifest
from prismrec.data.schema import ITEM, USER
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, PrismRecError
from prismrec.export.reader import KIND, WEIGHTS
from prismrec.serve.batching import Batcher
from prismrec.serve.exploration import Explorer
from prismrec.serve.limits import is_light
from prismrec.serve.memory import give_back
from prismrec.serve.messages import AnyRecommendQuery, Recommendations, category_dtype
from prismrec.serve.service import Service

_WARMING = (1, 8)  # queries asked together, so that no first request finds buffers not yet there


@dataclass(frozen=True)
class Serving:
    """A service that is ready, and the thread that asks it."""

    path: Path
    service: Service
    recommend: Batcher[AnyRecommendQuery, Recommendations]

    @property
    def model(self) -> str:
        """First digits of the SHA-256 of the weights."""
        return str(self.service.bundle.manifest["files"][WEIGHTS]["sha256"][:12])

    @cached_property
    def explorer(self) -> Explorer:
        """What looks into the service."""
        return Explorer(self.service)


class Host:
    """Holds what is served now; its methods run on the event loop, so that no request falls between two bundles."""

    def __init__(self, path: Path, open_service: Callable[[Path], Service], *, on_loop: bool = False) -> None:
        """Open and warm the bundle.

        Args:
            path: a bundle, or a link to one.
            open_service: opens a service on a bundle.
            on_loop: whether it answers what is light within milliseconds, without asking another server; see `Batcher`.

        Raises:
            PrismRecError: the bundle cannot be served.
        """
        self._path, self._open_service, self._on_loop = path, open_service, on_loop
        self._changing = asyncio.Lock()
        self._previous: tuple[Path, dict[str, Any]] | None = None
        self.current = self._open(path.resolve())

    @property
    def has_moved(self) -> bool:
        """Whether the path, a link, means another bundle than the one that is served."""
        return self._path.resolve() != self.current.path

    async def reload(self) -> Serving:
        """Serve what is at the path now; if that cannot be served, what was served goes on.

        Raises:
            ArtifactError: it cannot be served, whatever the reason.
        """
        return await self._change_to(self._path.resolve())

    async def roll_back(self) -> Serving:
        """Serve the bundle before this one again.

        Raises:
            ArtifactError: there was none, it can no longer be served, or another is now in its place.
        """
        if self._previous is None:
            raise ArtifactError("expected a bundle served before this one, there was none")
        return await self._change_to(*self._previous)

    def close(self) -> None:
        """Answer what waits, then let go of the events."""
        self.current.recommend.close()
        self.current.service.appended.close()

    async def _change_to(self, path: Path, manifest: dict[str, Any] | None = None) -> Serving:
        async with self._changing:
            try:
                opened = await asyncio.to_thread(self._open, path, manifest)
            except (PrismRecError, OSError) as error:
                raise ArtifactError(str(error)) from error
            before, self.current = self.current, opened
            served = before.service.bundle.manifest
            if (before.path, served) != (path, opened.service.bundle.manifest):
                self._previous = before.path, served  # unless the same was opened again
            await asyncio.to_thread(before.recommend.close)  # what came before the change is answered by what was there
            del before
            await asyncio.to_thread(give_back)
            return opened

    def _open(self, path: Path, manifest: dict[str, Any] | None = None) -> Serving:
        """Open and warm a bundle, only the one of this manifest if it is given."""
        service = self._open_service(path)
        _check_in_place(path, service.bundle.manifest, manifest)
        if hasattr(self, "current"):
            _check_same_types(self.current.service, service)
        settings = service.settings
        with fitting_parts(path, KIND):
            for size in _WARMING:
                service.recommend(service.sample_queries(size))
        batcher = Batcher(
            service.recommend,
            settings.encoder_batch,
            settings.workers,
            on_loop=(lambda query: is_light(query, service.num_events(query.user_id))) if self._on_loop else None,
        )
        return Serving(path, service, batcher)


def _check_in_place(path: Path, opened: dict[str, Any], expected: dict[str, Any] | None) -> None:
    """Refuse a bundle that took the place of the one expected, or whose place was taken while it was being read."""
    if expected is not None and opened != expected:
        raise ArtifactError(
            f"{path}: expected the bundle served before, found another one in its place; keep each bundle at a path of "
            "its own, and let a link say which one to serve"
        )
    if read_manifest(path, KIND, checksums=False) != opened:
        raise ArtifactError(f"{path}: expected a bundle that stays, but another took its place just now; try again")


def _check_same_types(old: Service, new: Service) -> None:
    """Refuse a bundle whose ids or categories have other types: clients would have to change with it."""
    expected, found = (_types(service.bundle.store) for service in (old, new))
    for name, dtype in expected.items():
        if dtype != found[name]:
            raise ArtifactError(
                f"{new.bundle.path}: expected {name} of type {dtype} as served until now, found {found[name]}; "
                "start a server of its own for it"
            )


def _types(store: Store) -> dict[str, pl.DataType | None]:
    """Of what requests hold; None for categories where there are none."""
    return {USER: store.user_ids.dtype, ITEM: store.item_ids.dtype, "category": category_dtype(store.items)}
