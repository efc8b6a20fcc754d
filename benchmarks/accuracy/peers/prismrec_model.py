"""PrismRec under the benchmark's protocol: a configuration file and overrides, trained by `prismrec train`."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from lists import write_lists
from protocol import VALIDATE_USERS, Fitted, K, Settings, Stopwatch, Task

from prismrec.errors import ConfigError
from prismrec.evaluate.candidates import find_candidates
from prismrec.model.run import load_run
from prismrec.toml import load_config, parse_config
from prismrec.train.trainer import train

CONFIGS = Path(__file__).parent.parent / "configs"
NAME = "prismrec"


def prismrec_settings(method: str, dataset: Dataset, seed: int, overrides: Sequence[str]) -> Settings:
    """The whole configuration of `prismrec` or `prismrec-NAME`, with what the protocol fixes.

    Raises:
        ConfigError: there is no such file, or a key or value in it or in the overrides is not valid.
    """
    protocol = [
        f"train.seed={seed}",
        f"train.validate_k={dataset.validate_k}",
        f"train.validate_users={VALIDATE_USERS}",
        f"history.before_target_time={str(dataset.before_target_time).lower()}",
        "exclude_seen=true",
    ]
    path = config_path(method, dataset.name)
    return load_config(path, [*overrides, *protocol]).model_dump(mode="json", exclude_none=True)


def without_seed(settings: Settings) -> Settings:
    """A whole configuration without its seed, which is a field of its own in the results."""
    return {**settings, "train": {key: value for key, value in settings["train"].items() if key != "seed"}}


def config_path(method: str, dataset: str) -> Path:
    """`configs/DATASET/NAME.toml` if it is there, else `configs/NAME.toml`; NAME is `default` for plain `prismrec`.

    Raises:
        ConfigError: neither is there.
    """
    name = method.removeprefix(NAME).removeprefix("-") or "default"
    paths = [CONFIGS / dataset / f"{name}.toml", CONFIGS / f"{name}.toml"]
    for path in paths:
        if path.is_file():
            return path
    raise ConfigError(f"--methods {method}: expected a configuration {paths[0]} or {paths[1]}, found neither")


def prismrec(task: Task) -> Fitted:
    """Train, keep the weights of the best validation, answer."""
    run = task.folder / "run"
    if run.exists():
        shutil.rmtree(run)
    stopwatch = Stopwatch()
    train(task.store.path, run, parse_config(task.settings))
    taken = stopwatch.read()
    trained = load_run(run)
    for split, queries in task.queries.items():
        candidates = find_candidates(trained.model, task.store, queries, trained.config.history, K)
        write_lists(task.lists_path(split), task.store, queries.user, candidates.merged())
    notes = {name: trained.manifest[name] for name in trained.manifest if name.startswith(("best_", "valid_"))}
    return Fitted(sum(weight.numel() for weight in trained.model.parameters()), *taken, notes)
