"""Work done part by part: one part after another here, or many at once on a Ray cluster.

Takes a function that opens the work, and the parts; gives what the work returned for each, in their order. The work
must depend on its part alone, so that the engine makes no difference to the result.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.progress import track

from prismrec.errors import ConfigError


class Engine(Protocol):
    """Where parts are worked on."""

    def map(
        self, open_work: Callable[[], Callable[[Any], Any]], parts: Sequence[Any], label: str, console: Console
    ) -> list[Any]:
        """Do the work for every part.

        Args:
            open_work: called once by every process that works; gives the function of a part. With Ray, it and the
                parts are pickled.
            parts: what the function is called with.
            label: of the progress bar.
            console: where that is shown.
        """


class LocalEngine:
    """One part after the other, in this process."""

    def map(
        self, open_work: Callable[[], Callable[[Any], Any]], parts: Sequence[Any], label: str, console: Console
    ) -> list[Any]:
        if not parts:
            return []
        work = open_work()
        if len(parts) == 1:
            return [work(parts[0])]
        return [work(part) for part in track(parts, label, console=console, transient=True)]


def open_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        ConfigError: there is none, or it is not installed.
    """
    if name == "local":
        return LocalEngine()
    if name == "ray":
        try:
            from prismrec.ray_engine import RayEngine
        except ImportError:
            raise ConfigError("--engine ray: expected Ray Data, found none; pip install 'prismrec[ray]'") from None
        return RayEngine()
    raise ConfigError(f"--engine {name}: expected local or ray")
