"""Small tables, prepared without a word."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from prismrec.config import PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Store

Event = tuple[Any, Any, Any]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    """Prepare events, (user, item, time) or a table, with the settings given by name."""

    def make(events: list[Event] | Any, items: Any = None, **settings: Any) -> Store:
        if isinstance(events, list):
            events = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
        out = tmp_path_factory.mktemp("prepare") / "store"
        return prepare(events, items, out, PrepareConfig(**settings), Console(quiet=True))

    return make
