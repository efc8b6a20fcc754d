"""A search keeps every trial, goes on where it was killed, and knows nothing of what is for testing."""

import io
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import optuna
import polars as pl
import pytest
from rich.console import Console

from prismrec.artifact import alone
from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError, DataError, TrainingError
from prismrec.toml import dump_toml, load_config
from prismrec.train.trainer import train
from prismrec.train.tune import Tuned, print_trials, tune

from ..commands import Commands, Moment
from .conftest import group_events, group_items

MakeConfig = Callable[..., Config]
QUIET = Console(quiet=True)
SPACE_FILE = """
"model.num_interests" = [1, 2, 3]  # three do not divide four heads
"train.table_learning_rate" = {low = 0.01, high = 1.0, log = true}
"""
SPACE = tomllib.loads(SPACE_FILE)
TRIALS = 5


@pytest.fixture(scope="module")
def config(make_config: MakeConfig) -> Config:
    return make_config("train.epochs=1", "train.max_steps=12", "train.validate_every=6")


@pytest.fixture(scope="module")
def found(store: Store, config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Path, str]:
    """A search that nobody disturbs, its directory, and what it said."""
    said = Console(record=True, width=300, file=io.StringIO())
    out = tmp_path_factory.mktemp("found") / "search"
    tuned = tune(store.path, out, SPACE, trials=TRIALS, config=config, console=said)
    return tuned, out, said.export_text()


def lasting(trials: pl.DataFrame) -> pl.DataFrame:
    """All but how long it took."""
    return trials.drop("seconds")


def test_the_best_trial_is_a_run_of_these_settings(found: tuple[Tuned, Path, str]) -> None:
    tuned, out, _ = found
    assert tuned.trials["trial"].to_list() == [0, 1, 2, 3, 4]
    best = tuned.trials.filter(recall=tuned.recall).row(0, named=True)
    assert tuned.recall == tuned.trials["recall"].max()
    assert tuned.config.model.num_interests == best["model.num_interests"]
    assert tuned.config.train.table_learning_rate == best["train.table_learning_rate"]
    run = out / "trials" / f"{best['trial']:03d}"
    assert json.loads((run / "manifest.json").read_text())["valid_recall@4"] == tuned.recall
    assert load_config(run / "config.toml").train == tuned.config.train


def test_proposals_are_of_the_space(found: tuple[Tuned, Path, str]) -> None:
    trials = found[0].trials
    assert set(trials["model.num_interests"]) <= {1, 2, 3}
    assert trials["train.table_learning_rate"].is_between(0.01, 1).all()
    assert trials["train.table_learning_rate"].n_unique() == TRIALS


def test_settings_that_do_not_go_together_are_given_up(found: tuple[Tuned, Path, str]) -> None:
    tuned, out, text = found
    given_up = tuned.trials.filter(pl.col("model.num_interests") == 3)
    reason = "settings: model: num_heads=4 must be a multiple of num_interests=3"
    assert len(given_up) > 0
    assert given_up["recall"].null_count() == len(given_up)
    assert set(given_up["given_up"]) == {reason}
    assert f"given up: {reason}" in text
    others = tuned.trials.filter(pl.col("model.num_interests") != 3)
    assert others["recall"].null_count() == 0
    assert others["given_up"].null_count() == len(others)
    assert {path.name for path in (out / "trials").iterdir()} == {f"{trial:03d}" for trial in others["trial"]}


def test_it_says_where_it_stands(found: tuple[Tuned, Path, str]) -> None:
    tuned, _, text = found
    assert "trial 000 · 1 of 5\n" in text
    assert f"trial 004 · 5 of 5 · best recall {tuned.trials[:4]['recall'].max():.4f} in " in text
    assert " left\n" in text
    table = Console(record=True, width=200, file=io.StringIO())
    print_trials(tuned, table, most=2)
    printed = table.export_text()
    assert "5 trials, the best first" in printed
    assert f"{tuned.recall:.4g}" in printed


def test_what_it_writes(found: tuple[Tuned, Path, str], store: Store, tmp_path: Path) -> None:
    tuned, out, _ = found
    assert {path.name for path in out.iterdir()} == {"study.db", "trials", "trials.csv", "best.toml"}
    assert lasting(pl.read_csv(out / "trials.csv")).equals(lasting(tuned.trials))
    best = load_config(out / "best.toml")
    assert best == tuned.config
    train(store.path, tmp_path / "run", best, console=QUIET)
    again = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert again["valid_recall@4"] == tuned.recall


def test_others_can_read_the_study(found: tuple[Tuned, Path, str]) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{found[1] / 'study.db'}")
    study = optuna.load_study(study_name=None, storage=storage)
    assert study.best_value == found[0].recall
    storage.remove_session()
    storage.engine.dispose()


def test_a_longer_search_goes_on(found: tuple[Tuned, Path, str], store: Store, config: Config, tmp_path: Path) -> None:
    """Two trials, then five: the same five as at once."""
    first = tune(store.path, tmp_path / "search", SPACE, trials=2, config=config, console=QUIET)
    assert lasting(first.trials).equals(lasting(found[0].trials[:2]))
    more = tune(store.path, tmp_path / "search", SPACE, trials=TRIALS, config=config, console=QUIET)
    assert lasting(more.trials).equals(lasting(found[0].trials))
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "search" / "trials").rglob("*")}
    again = tune(store.path, tmp_path / "search", SPACE, trials=TRIALS, config=config, console=QUIET)
    assert again.trials.equals(more.trials)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "search" / "trials").rglob("*")} == runs


def test_another_seed_proposes_others(found: tuple[Tuned, Path, str], store: Store, config: Config, tmp_path: Path):
    other = tune(store.path, tmp_path / "search", SPACE, trials=1, config=config, seed=1, console=QUIET).trials
    rate = "train.table_learning_rate"
    assert other[rate][0] != found[0].trials[rate][0]


@pytest.mark.parametrize(
    ("name", "times"),
    [("checkpoint/manifest.json", 1), ("model-*.safetensors", 2), ("trials.csv", 2), ("best.toml", 1)],
    ids=["before the first trial has begun", "in a trial", "after a trial", "before any result"],
)
def test_killed_it_goes_on_to_the_same(
    found: tuple[Tuned, Path, str],
    store: Store,
    config: Config,
    commands: Commands,
    tmp_path: Path,
    name: str,
    times: int,
) -> None:
    (tmp_path / "config.toml").write_text(dump_toml(config))
    (tmp_path / "space.toml").write_text(SPACE_FILE)
    files = ["--config", tmp_path / "config.toml", "--space", tmp_path / "space.toml", "--out", tmp_path / "search"]
    moment = Moment(change=times, name=name)
    assert commands("tune", store.path, *files, "--trials", TRIALS, moment=moment).killed
    tuned = tune(store.path, tmp_path / "search", SPACE, trials=TRIALS, config=config, console=QUIET)
    assert lasting(tuned.trials).equals(lasting(found[0].trials))
    assert tuned[:2] == found[0][:2]
    assert (tmp_path / "search" / "best.toml").read_bytes() == (found[1] / "best.toml").read_bytes()


def test_what_is_for_testing_changes_nothing(
    found: tuple[Tuned, Path, str], make_store: Callable[..., Store], config: Config, tmp_path: Path
) -> None:
    last = pl.col("timestamp") == pl.col("timestamp").max().over("user_id")
    other = group_events().with_columns(item_id=pl.when(last).then(0).otherwise("item_id"))
    changed = make_store(other, group_items())
    tuned = tune(changed.path, tmp_path / "search", SPACE, trials=2, config=config, console=QUIET)
    assert lasting(tuned.trials).equals(lasting(found[0].trials[:2]))


def test_the_same_settings_are_trained_once(store: Store, config: Config, tmp_path: Path) -> None:
    space = {"model.num_interests": [2], "model.num_heads": [4]}
    tuned = tune(store.path, tmp_path / "search", space, trials=3, config=config, console=QUIET)
    assert tuned.trials["recall"].to_list() == [tuned.recall] * 3
    assert [path.name for path in (tmp_path / "search" / "trials").iterdir()] == ["000"]


def test_where_nothing_can_be_trained(store: Store, config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none of 2 trials could be trained; the last: settings: model: num_heads"):
        tune(store.path, tmp_path / "search", {"model.num_interests": [3]}, trials=2, config=config, console=QUIET)
    assert not (tmp_path / "search" / "best.toml").exists()


@pytest.mark.parametrize("changed", ["space", "seed", "config", "store"])
def test_another_search_is_not_gone_on_with(
    found: tuple[Tuned, Path, str],
    make_store: Callable[..., Store],
    store: Store,
    make_config: MakeConfig,
    config: Config,
    changed: str,
) -> None:
    given = {
        "space": {**SPACE, "model.num_interests": [1, 2]} if changed == "space" else SPACE,
        "seed": int(changed == "seed"),
        "config": make_config() if changed == "config" else config,
    }
    path = make_store().path if changed == "store" else store.path
    with pytest.raises(ConfigError, match=f"holds a search with another {changed}; choose another --out"):
        tune(path, found[1], trials=TRIALS, console=QUIET, **given)


def test_two_at_once_are_refused(found: tuple[Tuned, Path, str], store: Store, config: Config) -> None:
    with alone(found[1], "search"), pytest.raises(ArtifactError, match="expected a search that nobody is changing"):
        tune(store.path, found[1], SPACE, trials=TRIALS, config=config, console=QUIET)


def test_without_validation_there_is_nothing_to_compare(make_store: Callable[..., Store], tmp_path: Path) -> None:
    two_each = group_events().filter(pl.int_range(pl.len()).over("user_id") < 2)
    with pytest.raises(DataError, match="expected users with a history and a target in 'valid', found none"):
        tune(make_store(two_each).path, tmp_path / "search", SPACE, trials=1, console=QUIET)
    assert not (tmp_path / "search").exists()


def test_other_files_are_left_alone(store: Store, config: Config, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ArtifactError, match="expected a new directory or that of a search, found something else"):
            tune(store.path, out, SPACE, config=config, console=QUIET)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "study.db").write_text("no database at all, but a text that is long enough to be read")
    with pytest.raises(ArtifactError, match=r"study\.db: expected a study of Optuna, could not read it"):
        tune(store.path, tmp_path / "search", SPACE, config=config, console=QUIET)


def test_without_the_extra(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'prismrec\[tune\]'"):
        tune(store.path, tmp_path / "search", SPACE, console=QUIET)


def test_optuna_says_nothing_and_stays_as_it_was(
    store: Store, config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    tune(store.path, tmp_path / "search", {"model.num_interests": [2]}, trials=1, config=config, console=QUIET)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
