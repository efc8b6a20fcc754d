"""Training that goes on with what was appended: from the very state it had, on what it has not seen."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from prismrec.config import Config, HistoryConfig, PrepareConfig
from prismrec.data.append import append
from prismrec.data.compact import compact
from prismrec.data.loader import ExampleLoader
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.data.targets import find_targets
from prismrec.data.windows import WindowLoader
from prismrec.errors import ArtifactError, ConfigError, TrainingError
from prismrec.evaluate.evaluator import evaluate
from prismrec.export.bundle import export
from prismrec.export.reader import open_bundle
from prismrec.model.run import load_run
from prismrec.toml import load_config
from prismrec.train.checkpoint import load_checkpoint
from prismrec.train.continuation import continued_settings, first_new_events, open_earlier_run
from prismrec.train.trainer import Trainer, train

from ..commands import Commands, Moment
from .conftest import group_events, group_items

QUIET = Console(quiet=True)
MakeConfig = Callable[..., Config]


def table(rows: list) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


FIRST = [("a", item, item) for item in range(1, 6)] + [("b", 1, 1), ("b", 2, 2)]
SECOND = [("a", 6, 6), ("a", 7, 7), ("b", 3, 3), ("b", 4, 4), ("c", 1, 1), ("c", 2, 2)]


@pytest.fixture
def small(tmp_path: Path) -> Store:
    """a: items 1 to 7, of which 1 to 3 were for training and 4 and 5 now are; b: 1 to 4, of which 1 and 2 were."""
    prepare(table(FIRST), None, tmp_path / "small", PrepareConfig(), QUIET)
    return append(tmp_path / "small", table(SECOND), console=QUIET)


def test_targets_are_new_by_hand(small: Store) -> None:
    since = first_new_events(small, 0)
    # b's first two events were for training; c is new, and its first event has no history
    assert (small.offsets.tolist(), since.tolist()) == ([0, 7, 11, 13], [3, 9, 11])
    assert find_targets(small, before_target_time=False, since=since).position.tolist() == [3, 4, 12]
    assert find_targets(small, before_target_time=True, new_only=True, since=since).position.tolist() == [3, 4, 12]
    assert first_new_events(small, 1).tolist() == [5, 9, 13]
    with pytest.raises(ArtifactError, match=r"expected at least 2 parts, as train\.new_since has it, found 1"):
        first_new_events(small, 2)


@pytest.mark.parametrize("loader", [ExampleLoader, WindowLoader])
@pytest.mark.parametrize("shuffle", [False, True])
def test_loaders_give_new_targets_after_whole_histories(
    small: Store, loader: type[ExampleLoader] | type[WindowLoader], shuffle: bool
) -> None:
    config = HistoryConfig(max_length=9, shuffle=shuffle)
    loaded = loader(small, config, 2, seed=0, since=first_new_events(small, 0))
    assert loaded.num_examples == 3
    seen = []
    for batch in loaded.batches(0):
        item = batch.history.item.reshape(len(batch.history.item), -1)
        row, place = (
            np.divmod(batch.moment, item.shape[1]) if loader is WindowLoader else (batch.moment, 0 * batch.moment)
        )
        seen += [(target, tuple(sorted(item[r][p:]))) for target, r, p in zip(batch.target, row, place, strict=True)]
    found = {int(target): tuple(int(one) for one in history if one) for target, history in seen}
    if shuffle:  # what is new is dealt among the new moments
        assert found.keys() == {4, 5, 2}
        assert min(map(len, (found[4], found[5]))) == 3
    else:
        assert found == {4: (1, 2, 3), 5: (1, 2, 3, 4), 2: (1,)}


def split_days(tmp_path: Path) -> tuple[Store, pl.DataFrame]:
    """The tiny world without each user's last two events, and these."""
    events = group_events()
    last = pl.col("timestamp").rank("ordinal", descending=True).over("user_id") <= 2
    store = prepare(events.filter(~last), group_items(), tmp_path / "store", PrepareConfig(), QUIET)
    return store, events.filter(last)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, make_config: MakeConfig) -> tuple[Path, Path]:
    """A store to which something was appended, and a run on it before."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    store, day = split_days(folder)
    run = train(store.path, folder / "run", make_config("train.max_steps=8"), console=QUIET)
    append(store.path, day, console=QUIET)
    return store.path, run


def test_it_goes_on_from_the_very_state(world: tuple[Path, Path], tmp_path: Path, said: Console) -> None:
    store, run = Store.open(world[0]), open_earlier_run(world[1])
    config = load_config(world[1] / "config.toml", ["train.new_since=0", "train.learning_rate=0.003"])
    trainer = Trainer(store, tmp_path / "out", config, said)
    trainer.go_on_from(run)
    checkpoint = run.checkpoint
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, run.weights[name])
    assert torch.equal(trainer.step.negatives.queue, checkpoint.queue)
    assert (checkpoint.queue > 0).all()
    states = trainer.optimizers.state_dict()
    for mine, theirs in zip(states[:2], checkpoint.optimizers[:2], strict=True):
        assert len(mine["state"]) == len(theirs["state"]) > 0
        for key, state in theirs["state"].items():
            assert all(
                torch.equal(torch.as_tensor(mine["state"][key][name]), torch.as_tensor(state[name])) for name in state
            )
    assert states[0]["param_groups"][0]["initial_lr"] == trainer.config.train.learning_rate == 0.003
    assert trainer.progress.step == 0
    # each user's events 4 and 5 were for validation and testing, and are new targets
    assert "on 320 targets that are new to it" in said.export_text()


def test_a_continued_run_learns_and_can_be_continued(world: tuple[Path, Path], tmp_path: Path) -> None:
    store, run = world
    second = train(store, tmp_path / "second", continue_from=run, console=QUIET)
    config = load_run(second).config
    assert (config.train.new_since, config.train.warmup_steps) == (0, 0)
    assert config.model == load_run(run).config.model
    found = evaluate(second, "test", [4], [run], console=QUIET).methods
    assert found[0].metrics["recall@4"].value > found[1].metrics["recall@4"].value
    with pytest.raises(
        TrainingError, match="nothing that followed part 1 is a target of training: append newer events"
    ):
        train(store, tmp_path / "third", continue_from=second, console=QUIET)


def test_a_bundle_has_one_piece_with_everything(world: tuple[Path, Path], tmp_path: Path) -> None:
    store, bundle = Store.open(world[0]), open_bundle(export(world[1], tmp_path / "bundle"))
    assert (store.num_parts, bundle.store.num_parts) == (1, 0)
    np.testing.assert_array_equal(bundle.store.item, np.asarray(store.item))


def test_it_goes_on_after_compaction_of_the_state_it_knows(
    make_config: MakeConfig, tmp_path: Path, world: tuple[Path, Path]
) -> None:
    store, day = split_days(tmp_path)
    run = train(store.path, tmp_path / "run", make_config("train.max_steps=2"), console=QUIET)
    append(compact(store, store.path), day, console=QUIET)
    train(
        store.path,
        tmp_path / "second",
        continued_settings(run, ["train.max_steps=2"]),
        continue_from=run,
        console=QUIET,
    )
    assert load_run(tmp_path / "second").config.train.new_since == 0
    whole = compact(Store.open(world[0]), tmp_path / "whole")
    with pytest.raises(ArtifactError, match=r"whole: expected the store that .* was trained on, with or without later"):
        train(whole, tmp_path / "other", continue_from=world[1], console=QUIET)


def test_another_model_is_refused(world: tuple[Path, Path], tmp_path: Path) -> None:
    for setting in ("model.num_heads=2", "history.max_length=5", "loss.queue_size=32"):
        with pytest.raises(
            ConfigError, match=f"--continue-from: {setting.split('.')[0]}.* is not that of .*run; leave it"
        ):
            train(
                world[0],
                tmp_path / "run",
                continued_settings(world[1], [setting]),
                continue_from=world[1],
                console=QUIET,
            )
    with pytest.raises(ConfigError, match="expected one of them, found both"):
        train(world[0], tmp_path / "run", warm_start=world[1], continue_from=world[1], console=QUIET)
    assert not (tmp_path / "run" / "config.toml").exists()


@pytest.mark.parametrize(
    ("name", "times"), [("config.toml", 1), ("checkpoint/manifest.json", 2), ("model-*.safetensors", 1)]
)
def test_killed_and_resumed(
    world: tuple[Path, Path], commands: Commands, tmp_path: Path, name: str, times: int
) -> None:
    store, run = world
    expected = train(store, tmp_path / "expected", continue_from=run, console=QUIET)
    out = tmp_path / "out"
    moment = Moment(change=times, name=name)
    assert commands("train", store, "--out", out, "--continue-from", run, moment=moment).killed
    train(store, out, resume=True, continue_from=run, console=QUIET)
    (weights,) = expected.glob("model-*.safetensors")
    for file in (weights.name, "config.toml", "metrics.jsonl"):
        assert (out / file).read_bytes() == (expected / file).read_bytes()
    manifests = [json.loads((path / "manifest.json").read_text()) for path in (out, expected)]
    assert manifests[0] == manifests[1]
    progress = [load_checkpoint(path).progress for path in (out, expected)]
    assert progress[0] == progress[1]
