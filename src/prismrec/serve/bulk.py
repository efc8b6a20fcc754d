"""Recommendations for more users than fit one file or one machine: parts of the users in, a Parquet file of each out.

Takes a bundle and ranges of its users, or files that name users or hold their events, here or in an object store; each
range or file is a part. A killed call goes on with the parts that are left when it is made again.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from prismrec.data.columns import column_keys
from prismrec.data.store import Store
from prismrec.data.tables import read_table
from prismrec.engine import Engine, LocalEngine
from prismrec.errors import ConfigError, DataError
from prismrec.export.reader import manifest_checksum, open_once
from prismrec.locations import fetched, find_tables, fingerprint, stamp
from prismrec.parts import Part, Tables, Written, write_parts
from prismrec.serve.recommender import Recommender, as_tables
from prismrec.serve.requests import Requests, known_users, read_requests

_USERS_PER_PART = 51_200  # whole batches

_log = logging.getLogger(__name__)


class _Survey(NamedTuple):
    """What must be known of all files of users before the first recommendation."""

    keys: np.ndarray
    """Stable keys of the users, int64."""
    newest: int
    ignored: int


def recommend_parts(
    bundle: Path,
    out: str,
    users: str | None = None,
    *,
    k: int,
    include_seen: bool = False,
    engine: Engine | None = None,
    console: Console | None = None,
) -> Written:
    """Recommend up to k items to each user, as `Recommender.recommend` does.

    Args:
        bundle: the bundle directory.
        out: a folder or the URL of one, for `part-00000.parquet` and so on.
        users: None for every known user; or a file, folder, glob or URL of tables of users or of events. All rows of a
            user are in one file.
        k: items per user.
        include_seen: also recommend items of the user's history.
        engine: where the parts are worked on; here by default.
        console: where progress is shown; standard error by default.

    Raises:
        ConfigError: k is below 1.
        DataError: a table cannot be read or breaks the schema, or a user is in two files.
        ArtifactError: the bundle is damaged, or there is something else in the folder.
    """
    if k < 1:
        raise ConfigError(f"k={k}: expected at least 1")
    engine, console = engine or LocalEngine(), console or Console(stderr=True)
    store = open_once(bundle).store
    now, asked = store.manifest["max_time"], store.num_users
    sources: list[tuple[int, int]] | list[str]
    if users is None:
        sources = [(start, min(start + _USERS_PER_PART, asked)) for start in range(0, asked, _USERS_PER_PART)]
        stamps = [""] * len(sources)
    else:
        sources = find_tables(users)
        stamps = [stamp(file) for file in sources]
        surveys = engine.map(lambda: functools.partial(_survey, open_once(bundle).store), sources, "users", console)
        asked = _count_users(sources, surveys)
        now = max([now, *(survey.newest for survey in surveys)])
        if ignored := sum(survey.ignored for survey in surveys):
            _log.warning("ignored %d given events of items that are not in the catalogue", ignored)

    def open_work() -> Callable[[tuple[int, int] | str], Tables]:
        recommender = Recommender(open_once(bundle))
        store = recommender.bundle.store
        return lambda source: as_tables(recommender.batches(_requests(store, source), k, include_seen, now))

    settings = (manifest_checksum(bundle), k, include_seen, now)
    parts = [Part(source, fingerprint(source, mark, settings)) for source, mark in zip(sources, stamps, strict=True)]
    written = write_parts(out, parts, open_work, engine, "recommend", console)
    if empty := asked - written.users:
        _log.warning(
            "%d users got no recommendations: they have no events in the catalogue, or nothing is left that they have "
            "not seen",
            empty,
        )
    return written


def _requests(store: Store, source: tuple[int, int] | str) -> Requests:
    if not isinstance(source, str):
        return known_users(store, *source)
    with fetched(source) as path:
        table = read_table(path)
    if table.is_empty():
        return known_users(store, 0, 0)
    try:
        return read_requests(store, table)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None


def _survey(store: Store, file: str) -> _Survey:
    requests = _requests(store, file)
    return _Survey(column_keys(requests.user_ids).to_numpy(), requests.newest, requests.num_ignored)


def _count_users(files: list[str], surveys: list[_Survey]) -> int:
    """The number of users of all files; none may be in two."""
    keys = np.concatenate([survey.keys for survey in surveys])
    order = np.argsort(keys, kind="stable")
    repeated = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if not len(keys):
        raise DataError(f"{files[0]}: expected at least one row in these files, found empty tables")
    if len(repeated):
        owner = np.repeat(np.arange(len(files)), [len(survey.keys) for survey in surveys])
        first, second = (files[owner[order[repeated[0] + step]]] for step in (0, 1))
        raise DataError(
            f"{second}: expected all rows of a user in one file, found {len(repeated):,} again, the first in {first}; "
            "write the table partitioned by user, or recommend to one file"
        )
    return len(keys)
