"""What one request may cost, in terms of the settings.

Takes the queries of a request as validated models; refuses those that would keep others waiting for long.
"""

from collections.abc import Sequence
from typing import Any

from prismrec.errors import DataError
from prismrec.serve.messages import AnyRecommendQuery, Restrictions
from prismrec.serve.service import POOL, depth
from prismrec.serve.settings import ServeConfig

_EVENTS = ("events", "without_events")
_LISTS = ("exclude_items", "exclude_categories", "only_items", "only_categories")
_LIGHT = 1000


def check_limits(queries: Sequence[Any], settings: ServeConfig) -> None:
    """Refuse queries that ask for too much, each or together.

    Raises:
        DataError: a query has too large a k or too long a list, or all together look at too many items.
    """
    longest = {
        **dict.fromkeys(_EVENTS, settings.max_events),
        **dict.fromkeys(_LISTS, settings.max_listed),
    }
    for query in queries:
        if getattr(query, "k", 1) > settings.max_k:
            raise DataError(f"k: expected at most {settings.max_k}, found {query.k}")
        for name, most in longest.items():
            found = len(getattr(query, name, None) or ())
            if found > most:
                raise DataError(f"{name}: expected at most {most}, found {found}")
    results = sum(depth(query) for query in queries if isinstance(query, Restrictions))
    if results > settings.max_results:
        raise DataError(
            f"k: expected at most {settings.max_results} items for all queries together, found {results} "
            f"(where diversity is wanted, {POOL} k of a query); send several requests"
        )


def is_light(query: AnyRecommendQuery, known_events: int) -> bool:
    """Whether a query is answered within milliseconds: it is about no more than 1000 items and events.

    Args:
        query: names some of them, and looks at others.
        known_events: of its user.
    """
    named = sum(len(getattr(query, name) or ()) for name in (*_EVENTS, *_LISTS))
    return depth(query) + named + known_events <= _LIGHT
