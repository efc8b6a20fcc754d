"""Parts worked on by many processes at once, on one machine or many: Ray Data.

Each part is a row; a pool of as many actors as the cluster has CPUs maps the rows, each having opened the work once.
All machines see the same files, by the same paths or URLs, and have PrismRec installed.
"""

import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from rich.console import Console

from prismrec.errors import PrismRecError

_ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each CPU has an actor


class RayEngine:
    """The cluster that `RAY_ADDRESS` names or that runs on this machine, or else one of this machine's CPUs."""

    def __init__(self) -> None:
        if not ray.is_initialized():
            ray.init(logging_level=logging.WARNING, runtime_env={"env_vars": _ONE_THREAD})

    def map(
        self, open_work: Callable[[], Callable[[Any], Any]], parts: Sequence[Any], label: str, console: Console
    ) -> list[Any]:
        if not parts:
            return []
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        rows = ray.data.from_items([{"place": place} for place in range(len(parts))], override_num_blocks=len(parts))
        done = rows.map_batches(
            _Worker,
            fn_constructor_args=(open_work, parts),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(len(parts), int(ray.cluster_resources()["CPU"]))),
        )
        results: list[Any] = [None] * len(parts)
        with console.status(label) as status:
            for number, row in enumerate(done.iter_rows(), start=1):
                result = pickle.loads(row["result"])
                if isinstance(result, PrismRecError):
                    raise result
                results[row["place"]] = result
                status.update(f"{label}: {number:,} of {len(parts):,} parts")
        return results


class _Worker:
    """Does the parts of one actor; a user's mistake is a result like any other, which the driver raises."""

    def __init__(self, open_work: Callable[[], Callable[[Any], Any]], parts: Sequence[Any]) -> None:
        self._open_work, self._parts = open_work, parts
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        place = int(rows["place"][0])
        try:
            self._work = self._work or self._open_work()
            result = self._work(self._parts[place])
        except PrismRecError as error:
            result = error
        return {"place": [place], "result": [pickle.dumps(result)]}
