"""One change at a time: what is missing is run, once, and differences are taken seed by seed."""

import ablations
import pytest
from ablations import METRICS, main, table
from peers.prismrec_model import config_path
from records import Result, read

from prismrec.toml import load_config

TINY = ("train.max_steps=2", "model.embedding_dim=16")


def result(seed: int, *values: float) -> Result:
    metrics = {name: {"value": value} for name, value in zip(METRICS, values, strict=True)}
    return Result.model_construct(seed=seed, metrics=metrics, train_cpu_seconds=50.0)


def test_differences_are_taken_seed_by_seed() -> None:
    base = [result(0, 0.1, 0.1, 0.1, 0.1), result(1, 0.3, 0.1, 0.1, 0.1)]
    change = [result(0, 0.2, 0.1, 0.1, 0.0), result(1, 0.36, 0.1, 0.1, 0.1)]
    first, second = table({"as it is": base, "V = 1": change}).splitlines()[2:]
    assert first.startswith("| as it is | .2000 |  | .1000 |  |")
    # differences .10 and .06: mean .08, standard deviation .04 / sqrt 2, half width 12.706 * .02
    assert second.startswith("| V = 1 | .2800 | +.0800 ± .2541 | .1000 | +.0000 ± .0000 |")
    assert second.endswith("| .0500 | -.0500 ± .6353 | 50 |")


def test_a_change_that_is_not_known_is_said(tmp_path, capsys) -> None:
    arguments = ["--dataset=ml1m", f"--work={tmp_path}", f"--out={tmp_path}", "--seeds=0", "--changes=V = 3"]
    assert main(arguments) == 1
    assert "--changes V = 3: expected some of as it is; V = 1" in capsys.readouterr().err


def test_only_what_is_missing_is_run(shop_by_name, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(ablations, "CHANGES", {"as it is": TINY, "V = 1": (*TINY, "model.num_interests=1")})
    arguments = ["--dataset=shop", f"--work={tmp_path / 'work'}", f"--out={tmp_path / 'out'}", "--split=valid,test"]
    assert main([*arguments, "--seeds=0", "--changes=V = 1"]) == 0
    assert main([*arguments, "--seeds=0"]) == 0
    assert capsys.readouterr().out.count("V = 1, seed 0") == 1
    found = read(tmp_path / "out" / "shop.jsonl")
    assert [(each.settings["model"]["num_interests"], each.split) for each in found] == [
        (interests, split) for interests in (1, 4) for split in ("valid", "test")
    ]
    (page,) = (tmp_path / "out").glob("shop-*.md")
    assert [line.split(" | ")[0] for line in page.read_text().splitlines()[4:]] == ["| as it is", "| V = 1"]


@pytest.mark.parametrize("change", ablations.CHANGES)
def test_every_change_is_a_change_of_known_settings(change) -> None:
    path = config_path("prismrec-transformer", "amazon_beauty")
    changed = load_config(path, ablations.CHANGES[change])
    assert (changed == load_config(path)) == (change == "as it is")
