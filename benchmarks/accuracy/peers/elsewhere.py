"""Methods that run in an environment of their own: RecTools' transformers and implicit's ALS.

Takes a task; writes Parquet tables of what the method may know to the task's folder, runs a script of
`isolated/` with the other environment's Python there, which writes the lists, and reads what it
tells of the training. All ids are the original ones, all tables are in the store's order.

history: user_id, item_id of each query, oldest first; seen: what must not come back; targets: of the
validation alone. task.json: seed, k, validate_k, splits, settings.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
from protocol import Fitted, K, Task

from prismrec.atomic import write_json
from prismrec.data.ranges import flat_ranges
from prismrec.data.store import Store
from prismrec.errors import ConfigError, TrainingError
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.queries import Queries

_SCRIPTS = Path(__file__).parent.parent / "isolated"


def transformer(task: Task) -> Fitted:
    """SASRec, gSASRec or eSASRec, as the settings say."""
    return _run("rectools_sasrec.py", task)


def als(task: Task) -> Fitted:
    """Matrix factorisation for implicit feedback (Hu, Koren and Volinsky, ICDM 2008)."""
    return _run("implicit_als.py", task)


def _run(script: str, task: Task) -> Fitted:
    if not task.peers_python.is_file():
        raise ConfigError(
            f"{task.peers_python}: expected the Python of the peers' environment, found none; make it as "
            "benchmarks/accuracy/README.md says, or name it with --peers-python"
        )
    hand_over(task)
    command = [str(task.peers_python), "-W", "ignore", str(_SCRIPTS / script), str(task.folder)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise TrainingError(f"{' '.join(command)}: ended with status {done.returncode}; its messages are above")
    return Fitted(**json.loads((task.folder / "fitted.json").read_text()))


def hand_over(task: Task) -> None:
    """Write what a method of another environment may know."""
    task.folder.mkdir(parents=True, exist_ok=True)
    store, validation = task.store, task.validation()
    start, stop = store.split_bounds("train")
    _events(store, np.arange(store.num_users), start, stop).write_parquet(task.folder / "train.parquet")
    store.item_ids.to_frame().write_parquet(task.folder / "items.parquet")
    for name, queries in [("validation", validation), *task.queries.items()]:
        _events(store, queries.user, queries.start, queries.end).write_parquet(task.folder / f"{name}_history.parquet")
        _pairs(store, queries, queries.seen).write_parquet(task.folder / f"{name}_seen.parquet")
    _pairs(store, validation, validation.targets).write_parquet(task.folder / "validation_targets.parquet")
    content = {
        "seed": task.seed,
        "k": min(K, store.num_items),
        "validate_k": min(task.dataset.validate_k, store.num_items),
        "splits": list(task.queries),
        "settings": task.settings,
    }
    write_json(task.folder / "task.json", content)


def _events(store: Store, user: np.ndarray, start: np.ndarray, stop: np.ndarray) -> pl.DataFrame:
    """Events start:stop of the store's users [B]."""
    events = flat_ranges(start, stop)
    return pl.DataFrame(
        {
            "user_id": store.user_ids[np.repeat(user, stop - start)],
            "item_id": store.item_ids[store.item[events] - 1],
            "timestamp": store.time[events],
        }
    )


def _pairs(store: Store, queries: Queries, sets: ItemSets) -> pl.DataFrame:
    """The sets of the queries' users."""
    return pl.DataFrame({"user_id": store.user_ids[queries.user[sets.user]], "item_id": store.item_ids[sets.item - 1]})
