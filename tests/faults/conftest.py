"""A shop for all, and a count of what was tried; `tests/conftest.py` says it at the end of the session.

Takes `tried("HTTP requests", 12)` from tests and fixtures; gives the numbers with pytest's reports, which reach the
terminal from every worker of pytest-xdist.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..commands import Commands
from .shop import Shop, make_shop

_counts: Counter[str] = Counter()


@pytest.fixture(scope="session")
def tried() -> Callable[[str, int], None]:
    """Count so many more of something."""

    def count(what: str, number: int = 1) -> None:
        _counts[what] += number

    return count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    report = yield
    if _counts:
        report.user_properties.append(("tried", dict(_counts)))
        _counts.clear()
    return report


@pytest.fixture(scope="session")
def shop(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"), commands)
