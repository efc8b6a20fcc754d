"""What training says: a progress bar with rate and time left, `metrics.jsonl`, and TensorBoard."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from prismrec.model.run import METRICS
from prismrec.train.checkpoint import Progress

TENSORBOARD = "tensorboard"


class Silence:
    """The log of all ranks but the first, which says nothing; as `TrainingLog`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self) -> None:
        pass

    def write(self, kind: str, metrics: dict[str, Tensor | float]) -> None:
        pass

    def size(self) -> int:
        return 0


class TrainingLog:
    """Writes metrics of the step that `progress` is at; a context manager."""

    def __init__(
        self, run: Path, progress: Progress, total_steps: int, batch_size: int, console: Console, *, board: bool = True
    ) -> None:
        self._progress = progress
        self._path = run / METRICS
        self._path.touch()
        written = self._path.read_bytes()[: progress.log_bytes]
        if len(written) < progress.log_bytes:
            console.print(
                f"{self._path}: shorter than training left it; goes on without the lines that are lost", markup=False
            )
        with self._path.open("r+b") as file:
            file.truncate(written.rfind(b"\n") + 1)
        self._file = self._path.open("a")
        self._board = SummaryWriter(str(run / TENSORBOARD), purge_step=progress.step + 1) if board else None
        self._bar = ProgressBar(
            TextColumn("[bold]train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps · {task.fields[rate]:,.0f} examples/s · {task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=total_steps, completed=progress.step, rate=0.0, status="")
        self._batch_size = batch_size
        self._status: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()
        self._file.close()

    def advance(self) -> None:
        """Move the bar by one step."""
        speed = self._bar.tasks[self._task].speed or 0.0
        self._bar.update(self._task, advance=1, rate=speed * self._batch_size)

    def write(self, kind: str, metrics: dict[str, Tensor | float]) -> None:
        """Append one line of metrics of a `kind` (train, valid) and show its first value until the next of its kind."""
        step = self._progress.step
        values = {name: float(value) for name, value in metrics.items()}
        self._file.write(json.dumps({"kind": kind, "step": step, "epoch": self._progress.epoch, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        first = next(iter(values))
        self._status[kind] = f"{first} {values[first]:.4f}"
        self._bar.update(self._task, status=" · ".join(self._status.values()))

    def size(self) -> int:
        """Bytes of metrics written so far, which are on disk when this returns."""
        os.fsync(self._file.fileno())
        return self._file.tell()
