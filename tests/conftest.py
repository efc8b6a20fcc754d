"""What is made once for the whole session: PostgreSQL, Milvus, Redis, a small bundle, commands to be killed.

And which tests share a worker of pytest-xdist, and the last line of the session, which says how much bad input was
tried.
"""

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soak_processes import Postgres, Redis

from .commands import Commands

KILLS = ("test_full_disk.py", "test_kill.py", "test_kill_server.py")
"""Those that share the shop of `faults`."""


# not --dist loadgroup: with pytest 9.2 it groups nothing, pytest-dev/pytest-xdist#1386
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give files that share a costly fixture to one worker, as `--dist loadfile` does with the tests of a file."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = Path(super()._split_scope(nodeid))
            return "cli" if path.parent.name == "cli" else "kills" if path.name in KILLS else str(path)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # not in pytest's own directory: the user who runs the server may not look into it
    with tempfile.TemporaryDirectory(prefix="prismrec-") as data:
        server = Postgres(Path(data))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    return postgres.url


@pytest.fixture(scope="module")  # Milvus Lite breaks connections that have been idle for minutes
def milvus_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"milvus:{tmp_path_factory.mktemp('milvus') / 'items.db'}"


@pytest.fixture(scope="session")
def redis_program() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("needs the program redis-server on the PATH")


@pytest.fixture(scope="session")
def redis_server(redis_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One server for all tests that leave it up."""
    server = Redis(tmp_path_factory.mktemp("servers") / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_redis_server(redis_program: None, tmp_path: Path) -> Iterator[Redis]:
    """A server for one test, which may kill it."""
    server = Redis(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of a small store; to export it takes seconds, and so does what is imported for that."""
    from .serve.conftest import make_bundle

    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session", autouse=True)
def _exporters_untraced() -> Iterator[None]:
    """Coverage would follow the calls of PyTorch's exporters, which doubles their time, for none of our lines."""
    tracer = sys.gettrace()
    if tracer is None:
        yield
        return
    import torch.onnx

    def untraced(export: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            sys.settrace(None)
            try:
                return export(*arguments, **options)
            finally:
                sys.settrace(tracer)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", untraced(torch.export.export))
        patch.setattr(torch.onnx, "export", untraced(torch.onnx.export))
        yield


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(tmp_path_factory.mktemp("commands"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what `tests/faults` tried; here, since only this file is read by the process that has the terminal."""
    tried: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            tried.update(dict(getattr(report, "user_properties", ())).get("tried", {}))
    if tried:
        counts = ", ".join(f"{number:,} {what}" for what, number in sorted(tried.items()))
        terminalreporter.write_line(f"tried: {counts}")
