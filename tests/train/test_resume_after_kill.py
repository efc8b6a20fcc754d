"""Training that is killed, really and at any moment, goes on to the very bits of training that is not.

Each case runs training in a process of its own, which dies by SIGKILL at a chosen moment; a new process
resumes, perhaps to be killed again, and this one finishes. Moments are the n-th time that a file is about to be put in
place, or a number of lines in the log, seen from outside.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.model.run import load_run
from prismrec.toml import dump_toml
from prismrec.train.trainer import train

from ..commands import Commands, Moment

MakeConfig = Callable[..., Config]
QUIET = Console(quiet=True)
SETTINGS = ("train.max_steps=60", "train.checkpoint_every=7", "train.validate_every=10", "train.patience=100")

# The n-th time that a file is about to be put in its place, or so many lines in the log.
# One run puts in place: checkpoint 1 (of step 0: its tensors, then its manifest), config 1; checkpoint 2 (of step 7);
# after the validation of step 10, checkpoint 3, then config 2, model 1 and manifest 1; and so on.
CASES: dict[str, list[tuple[str, int]]] = {
    "before the first checkpoint": [("0.safetensors", 1)],
    "before the settings": [("config.toml", 1)],
    "before the tensors of a checkpoint": [("7.safetensors", 1)],
    "between tensors and checkpoint": [("checkpoint/manifest.json", 2)],
    "between a validation and its checkpoint": [("10.safetensors", 1)],
    "between a checkpoint and its weights": [("model-*.safetensors", 1)],
    "between weights and manifest": [("run/manifest.json", 2)],
    "again and again": [("lines", 3), ("lines", 15), ("run/manifest.json", 1), ("lines", 40)],
}


Kill = Callable[..., None]


@pytest.fixture
def kill(commands: Commands, store: Store, tmp_path: Path) -> Kill:
    """Train the run `run` in a process of its own until it is killed."""

    def kill(config: Config, name: str, times: int, *options: object) -> None:
        out, settings, log = tmp_path / "run", tmp_path / "settings.toml", tmp_path / "run" / "metrics.jsonl"
        settings.write_text(dump_toml(config))
        if name == "lines":
            moment = Moment(until=lambda: log.exists() and log.read_bytes().count(b"\n") >= times)
        else:
            moment = Moment(change=times, name=name)
        outcome = commands("train", store.path, "--out", out, "--config", settings, *options, moment=moment)
        assert outcome.killed, outcome.said
        if (out / "manifest.json").exists():
            load_run(out)  # what is there stays whole

    return kill


@pytest.fixture(scope="module")
def config(make_config: MakeConfig) -> Config:
    return make_config(*SETTINGS)


@pytest.fixture(scope="module")
def uninterrupted(store: Store, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(store.path, tmp_path_factory.mktemp("uninterrupted") / "run", config, console=QUIET)


def log_lines(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


def assert_same(run: Path, expected: Path) -> None:
    for mine, theirs in zip(*(log_lines(path) for path in (run, expected)), strict=True):
        assert mine == theirs
    (weights,) = expected.glob("model-*.safetensors")
    for name in (weights.name, "config.toml"):
        assert (run / name).read_bytes() == (expected / name).read_bytes()
    assert json.loads((run / "manifest.json").read_text()) == json.loads((expected / "manifest.json").read_text())
    assert {path.name for path in run.iterdir()} == {path.name for path in expected.iterdir()}
    load_run(run)
    assert file_bytes(run / "checkpoint") == file_bytes(expected / "checkpoint")


def file_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("moments", CASES.values(), ids=CASES)
def test_killed_and_resumed(
    store: Store, config: Config, uninterrupted: Path, kill: Kill, tmp_path: Path, moments: list[tuple[str, int]]
) -> None:
    out = tmp_path / "run"
    for turn, moment in enumerate(moments):
        kill(config, *moment, *["--resume"] * (turn > 0))
    began = (out / "config.toml").exists()
    train(store.path, out, None if began else config, resume=True, console=QUIET)
    assert_same(out, uninterrupted)


def test_killed_while_the_last_weights_are_written(
    store: Store, config: Config, uninterrupted: Path, kill: Kill, tmp_path: Path
) -> None:
    """Nothing is left to train, but the weights of the last checkpoint are not in place yet."""
    validations = [json.loads(line) for line in log_lines(uninterrupted) if '"valid"' in line]
    recalls = [line["recall@4"] for line in validations]
    gains = sum(recall > max(recalls[:place], default=-1.0) for place, recall in enumerate(recalls))
    kill(config, "model-*.safetensors", gains)
    train(store.path, tmp_path / "run", resume=True, console=QUIET)
    assert_same(tmp_path / "run", uninterrupted)


def test_a_warm_start_is_not_lost(
    store: Store, config: Config, uninterrupted: Path, kill: Kill, tmp_path: Path
) -> None:
    """Killed before the first regular checkpoint, and resumed without naming the older run again."""
    expected = train(store.path, tmp_path / "expected", config, warm_start=uninterrupted, console=QUIET)
    kill(config, "checkpoint/manifest.json", 2, "--warm-start", uninterrupted)
    train(store.path, tmp_path / "run", resume=True, console=QUIET)
    assert_same(tmp_path / "run", expected)


CONTEXTUAL = (
    "model.encoder.kind=transformer",
    "model.encoder.num_layers=1",
    "model.encoder.dropout=0.3",
    "loss.hard_queue_size=16",
    "loss.in_batch_negatives=8",
    "loss.uniform_negatives=8",
    "history.max_length=4",
)


def test_dropout_and_sampled_negatives_go_on_as_they_would_have(
    store: Store, make_config: MakeConfig, kill: Kill, tmp_path: Path
) -> None:
    """A contextual encoder, killed twice, at steps that no checkpoint is of."""
    config = make_config(*SETTINGS, *CONTEXTUAL, "train.max_steps=40")
    expected = train(store.path, tmp_path / "expected", config, console=QUIET)
    kill(config, "lines", 12)
    kill(config, "lines", 26, "--resume")
    train(store.path, tmp_path / "run", resume=True, console=QUIET)
    assert_same(tmp_path / "run", expected)
