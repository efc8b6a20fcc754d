"""From a bundle and two addresses to a host: which index searches it, and where events are kept.

Takes a path and URLs as the command line gives them.
"""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from prismrec.artifact import fitting_parts
from prismrec.errors import ArtifactError
from prismrec.export.reader import KIND, Bundle, open_bundle
from prismrec.index.base import Index
from prismrec.index.engines import load_index, open_index
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import EventStore
from prismrec.serve.host import Host
from prismrec.serve.metrics import Metrics
from prismrec.serve.service import Service
from prismrec.serve.settings import ServeConfig

_BLOCK = 10_000  # items committed together
_REDIS = ("redis://", "rediss://", "unix://")


def open_host(
    path: Path, settings: ServeConfig, metrics: Metrics, *, index: str | None = None, events: str | None = None
) -> Host:
    """Open a bundle to serve it, and whatever takes its place later.

    Args:
        path: the bundle, or a link to it.
        settings: the service's.
        metrics: where it counts.
        index: URL of the engine that holds the bundle's vectors; the bundle's own index by default.
        events: a directory, or the URL of a Redis server; `PATH.events` by default.

    Raises:
        ArtifactError: the bundle or the events are damaged, or another process keeps events there.
        SearchIndexError: the engine does not hold this bundle's vectors.
        StoreUnavailableError: the Redis server cannot be reached.
    """
    kept_at = events or f"{path}.events"
    kept: list[tuple[EventStore, tuple[str, ...]]] = []

    def open_service(bundle_path: Path) -> Service:
        bundle = open_bundle(bundle_path, settings.threads)
        features = bundle.store.schema.context_features
        if not kept:
            kept.append((_open_events(kept_at, features, settings.max_events), features))
        ((store, expected),) = kept
        if features != expected:
            raise ArtifactError(
                f"{bundle_path}: expected the columns of context served until now, {_list(expected)}, found "
                f"{_list(features)}; start a server of its own for it"
            )
        searched = _index(bundle, index)
        with fitting_parts(bundle_path, KIND):
            return Service(bundle, searched, store, settings, metrics)

    try:
        return Host(path, open_service, on_loop=index is None and not kept_at.startswith(_REDIS))
    except BaseException:
        for store, _ in kept:
            store.close()
        raise


def load_vectors(path: Path, url: str, console: Console) -> str:
    """Write a bundle's item vectors to a server, for `open_host` to search there; goes on where a failure stopped it.

    Returns:
        What the server calls them.

    Raises:
        ArtifactError: the bundle is missing or damaged.
        SearchIndexError: the server cannot be reached or refuses the work, or holds other vectors of this name.
    """
    bundle = open_bundle(path)
    rows = np.arange(1, bundle.index.num_vectors + 1)
    blocks = (bundle.index.vectors(rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK))
    with Progress(*Progress.get_default_columns(), console=console) as shown:
        task = shown.add_task("load", total=len(rows))
        load_index(
            url,
            table_name(bundle),
            blocks,
            bundle.store.item_categories,
            fingerprint=bundle.fingerprint,
            progress=lambda loaded: shown.update(task, completed=loaded),
        )
    return table_name(bundle)


def _open_events(where: str, features: tuple[str, ...], most: int) -> EventStore:
    if where.startswith(_REDIS):
        from prismrec.serve.redis_events import RedisEvents  # an extra

        return RedisEvents(where, features, max_events=most)
    return EventLog(Path(where), features, max_events=most)


def _index(bundle: Bundle, url: str | None) -> Index:
    if url is None:
        return bundle.index
    description = bundle.manifest["index"]
    return open_index(
        url,
        table_name(bundle),
        fingerprint=bundle.fingerprint,
        num_vectors=description["num_vectors"],
        dimension=description["dimension"],
    )


def table_name(bundle: Bundle) -> str:
    """What servers call a bundle's vectors: bundles stand side by side, so that one can follow the other."""
    return f"prismrec_{bundle.fingerprint[:16]}"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
