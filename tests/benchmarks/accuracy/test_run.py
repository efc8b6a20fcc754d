"""The command line, whole, on a small data set; and what it says where it cannot go on."""

import polars as pl
import pytest
from peers.elsewhere import hand_over
from protocol import K
from records import read
from run import main
from settings import method_settings

TINY = ("--set", "prismrec.train.max_steps=2", "--set", "prismrec.model.embedding_dim=16")


@pytest.fixture
def call(shop_by_name, tmp_path):
    """Call the benchmark on the shop's events."""

    def call(*arguments: str) -> int:
        fixed = ["--dataset", "shop", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
        return main([*fixed, "--peers-python", str(tmp_path / "nowhere"), *arguments])

    return call


def test_methods_seeds_and_splits(call, tmp_path, capsys) -> None:
    status = call("--methods", "popularity,prismrec", "--seeds", "0,1", "--split", "valid,test", *TINY)
    assert (status, capsys.readouterr().err.count("error")) == (0, 0)
    found = [(each.method, each.seed, each.split) for each in read(tmp_path / "out" / "shop.jsonl")]
    trained = [("popularity", 0), ("prismrec", 0), ("prismrec", 1)]  # counting is the same for every seed
    assert found == [(method, seed, split) for method, seed in trained for split in ("valid", "test")]
    newest = read(tmp_path / "out" / "shop.jsonl")[-1]
    assert newest.settings["train"]["max_steps"] == 2
    assert newest.settings["train"]["validate_k"] == 10
    assert "seed" not in newest.settings["train"]
    assert newest.counts["users_evaluated"] == 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "sasrek"), "expected one of popularity"),
        (("--methods", "prismrec-none"), "found neither"),
        (("--methods", "sasrec"), "expected the Python of the peers' environment"),
        (("--methods", "ease", "--set", "sasrec.lr=1"), "expected METHOD.KEY=VALUE"),
        (("--methods", "ease", "--set", "ease.rank=1"), "expected one of the settings of ease: regularization"),
        (("--methods", "ease", "--set", "ease.regularization=high"), "expected a value of type float"),
        (("--methods", "ease", "--split", "train"), "expected valid, test"),
        (("--methods", "ease", "--seeds", "one"), "expected numbers from 0 up"),
        (("--methods", "prismrec", "--set", "prismrec.train.epoch=1"), "train.epoch"),
    ],
)
def test_what_cannot_be_run_is_said(call, capsys, arguments, message) -> None:
    assert call(*arguments) == 1
    assert message in capsys.readouterr().err


def test_what_another_environment_is_given(make_task) -> None:
    task = make_task(method_settings("esasrec", "ml1m", []))
    hand_over(task)
    train = pl.read_parquet(task.folder / "train.parquet")
    assert len(train) == 400 * 14  # without the last two of each user
    history = pl.read_parquet(task.folder / "test_history.parquet")
    assert history.filter(user_id=1000)["item_id"].to_list() == task.store.item_ids[task.store.item[:15] - 1].to_list()
    assert not (task.folder / "test_targets.parquet").exists()  # only the validation's are handed over
    targets = pl.read_parquet(task.folder / "validation_targets.parquet")
    assert targets.filter(user_id=1000)["item_id"].to_list() == [task.store.item_ids[int(task.store.item[14]) - 1]]
    assert pl.read_parquet(task.folder / "validation_seen.parquet").height == 400 * 14
    assert f'"k": {K}' in (task.folder / "task.json").read_text()
