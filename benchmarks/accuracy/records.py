"""Results as JSON lines: one per data set, method, settings, seed and split; a later one replaces an earlier.

Takes records; appends them to `FOLDER/DATASET.jsonl` and reads them back.
"""

import datetime as dt
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from prismrec.errors import DataError


class Result(BaseModel):
    """What one method reached on one split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    method: str
    seed: int
    split: str
    metrics: dict[str, dict[str, float]]
    parameters: int
    train_seconds: float
    train_cpu_seconds: float
    settings: dict[str, Any]
    notes: dict[str, Any]
    counts: dict[str, int]
    """Users and items of the data set, users and targets of the split."""
    store: str
    """Fingerprint of the prepared data: results compare if it is the same."""
    date: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, ...]:
        """What a later result replaces."""
        return result_key(self.dataset, self.method, self.settings, self.seed, self.split)


def result_key(dataset: str, method: str, settings: dict[str, Any], seed: int, split: str) -> tuple[str, ...]:
    """What tells results apart."""
    return (dataset, method, json.dumps(settings, sort_keys=True), str(seed), split)


def append(folder: Path, results: Iterable[Result]) -> None:
    """Add results to the files of their data sets."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        with (folder / f"{result.dataset}.jsonl").open("a") as file:
            file.write(result.model_dump_json() + "\n")


def read(path: Path) -> list[Result]:
    """The latest result of each key, in the order of their first.

    Raises:
        DataError: a line is not a result.
    """
    results: dict[tuple[str, ...], Result] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            result = Result.model_validate_json(line)
        except ValidationError as error:
            raise DataError(f"{path}, line {number}: expected a result of this benchmark ({error})") from error
        results[result.key] = result
    return list(results.values())


def environment() -> dict[str, Any]:
    """Where, when and with what: the fields of a `Result` that do not depend on the method."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    machine = {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "load_average": round(psutil.getloadavg()[0], 1),
    }
    packages = {name: importlib.metadata.version(name) for name in ("prismrec", "torch", "numpy", "polars")}
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine,
        "versions": {"python": platform.python_version(), **packages, "commit": _commit()},
    }


def plain(metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Metrics with Python's own numbers, rounded to what the data can tell."""
    return {name: {part: float(np.round(value, 6)) for part, value in each.items()} for name, each in metrics.items()}


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The commit, with `+` if tracked files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if dirty else "")
