"""Commands of `prismrec` in processes of their own, which may be killed by SIGKILL at a moment.

To import PyTorch and what exports takes seconds, so one process imports all of it, and each command is a fork of that.
"""

import multiprocessing
import runpy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("child.py")
IMPORTED = (
    "pytest",
    "faiss",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "torch",
    "torch._dynamo",
    "torch.onnx",
    "torch.utils.tensorboard",
    "prismrec.cli",
    "prismrec.data.append",
    "prismrec.data.prepare",
    "prismrec.evaluate.evaluator",
    "prismrec.evaluate.report",
    "prismrec.export.bundle",
    "prismrec.export.extend",
    "prismrec.serve.bulk",
    "prismrec.serve.recommender",
    "prismrec.train.trainer",
    "prismrec.train.tune",
)
DEADLINE = 300


@dataclass(frozen=True)
class Moment:
    """When a process is killed: so many seconds after its start, or when it is about to change a file that often."""

    seconds: float = DEADLINE
    change: int = 0
    name: str = ""
    """Count only what puts a file of a path that ends so in its place."""
    until: Callable[[], bool] | None = None
    """Asked again and again; kill once it is true."""

    def __str__(self) -> str:
        return f"before change {self.change} of a file" if self.change else f"after {self.seconds:.3f} s"


@dataclass(frozen=True)
class Outcome:
    """How a process ended."""

    status: int
    said: str
    seconds: float
    changes: int
    """Of files that count: made or opened to be written, renamed, removed."""

    @property
    def killed(self) -> bool:
        return self.status == -9


class Commands:
    """Runs commands; what they say goes to a file in a folder."""

    def __init__(self, folder: Path) -> None:
        self._said = folder / "said.txt"
        self._context = multiprocessing.get_context("forkserver")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setenv("COLUMNS", "80")
            self._context.set_forkserver_preload(list(IMPORTED))
            assert self("--version").status == 0

    def __call__(self, *arguments: object, moment: Moment = Moment(), largest_file: int = 0) -> Outcome:
        changes = self._context.RawValue("i", 0)
        dies = (moment.change, moment.name)
        given = ([str(argument) for argument in arguments], str(self._said), changes, dies, largest_file)
        process = self._context.Process(target=runpy.run_path, args=(str(CHILD), {"given": given}))
        began = time.monotonic()
        process.start()
        while moment.until and process.is_alive() and time.monotonic() < began + DEADLINE:
            if moment.until():
                process.kill()
            time.sleep(0.001)
        process.join(moment.seconds)
        hangs = moment.seconds == DEADLINE and process.is_alive()
        process.kill()
        process.join()
        said = self._said.read_text() if self._said.exists() else ""
        assert not hangs, f"hangs: {' '.join(given[0])}: {said}"
        return Outcome(process.exitcode, said, time.monotonic() - began, changes.value)

    def succeed(self, *arguments: object) -> Outcome:
        outcome = self(*arguments)
        assert outcome.status == 0, outcome.said
        return outcome
