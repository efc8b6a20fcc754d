import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prismrec.train.checkpoint import Progress
from prismrec.train.logs import METRICS, TENSORBOARD, TrainingLog


def lines(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def log(run: Path, progress: Progress, console: Console) -> TrainingLog:
    return TrainingLog(run, progress, total_steps=10, batch_size=32, console=console)


def test_lines_and_tensorboard_say_the_same(tmp_path: Path, said: Console) -> None:
    progress = Progress()
    with log(tmp_path, progress, said) as writing:
        progress.step, progress.epoch = 1, 0
        writing.write("train", {"loss": torch.tensor(2.5), "learning_rate": 0.5})
        progress.step, progress.epoch = 2, 1
        writing.write("valid", {"recall@50": 0.25})
    assert lines(tmp_path) == [
        {"kind": "train", "step": 1, "epoch": 0, "loss": 2.5, "learning_rate": 0.5},
        {"kind": "valid", "step": 2, "epoch": 1, "recall@50": 0.25},
    ]
    board = EventAccumulator(str(tmp_path / TENSORBOARD))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(1, 2.5)]
    assert [(event.step, event.value) for event in board.Scalars("valid/recall@50")] == [(2, 0.25)]


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path, said: Console) -> None:
    progress = Progress()
    with log(tmp_path, progress, said) as writing:
        for step in (1, 2, 3):
            progress.step = step
            writing.write("train", {"loss": step})
            if step == 2:
                progress.log_bytes = writing.size()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"kind": "tra')  # a line that a kill cut short
    progress.step = 2
    with log(tmp_path, progress, said) as writing:
        progress.step = 3
        writing.write("train", {"loss": 30})
    assert [line["loss"] for line in lines(tmp_path)] == [1, 2, 30]


def test_the_bar_shows_rate_loss_and_the_latest_validation(tmp_path: Path, said: Console) -> None:
    progress = Progress()
    with log(tmp_path, progress, said) as writing:
        for step in range(1, 5):
            progress.step = step
            writing.advance()
            writing.write("train", {"loss": 2.0 / step, "other": 9.0})
            if step == 2:
                writing.write("valid", {"recall@50": 0.125})
    shown = said.export_text()
    assert "4/10 steps" in shown
    assert "examples/s" in shown
    assert "loss 0.5000 · recall@50 0.1250" in shown


def test_the_log_is_closed_after_an_error(tmp_path: Path, said: Console) -> None:
    def fail() -> None:
        progress = Progress(step=1)
        with log(tmp_path, progress, said) as writing:
            writing.write("train", {"loss": 1.0})
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert len(lines(tmp_path)) == 1


def test_lines_that_were_lost_are_named_and_not_made_up(tmp_path: Path, said: Console) -> None:
    progress = Progress()
    with log(tmp_path, progress, said) as writing:
        for step in (1, 2):
            progress.step = step
            writing.write("train", {"loss": step})
        progress.log_bytes = writing.size()
    (tmp_path / METRICS).write_bytes((tmp_path / METRICS).read_bytes()[:-3])
    with log(tmp_path, progress, said) as writing:
        progress.step = 3
        writing.write("train", {"loss": 3})
    assert [line["loss"] for line in lines(tmp_path)] == [1, 3]
    assert "shorter than training left it" in " ".join(said.export_text().split())
