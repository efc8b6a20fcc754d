"""`prismrec plan` through the command line: tables to read, JSON to compute with, and nothing written."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of TorchRec's import


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_plan_in_words(made: Any, call: Any) -> None:
    before = files(made.folder)
    done = call("plan", made.store, "--set", "model.embedding_dim=16", "--memory", "1")
    assert (done.status, done.err) == (0, "")
    assert "item_id" in done.out
    assert "examples/s unknown: give --examples-per-second of one process, or --measure 20." in done.out
    assert done.out.endswith("It fits.\n")
    assert files(made.folder) == before


def test_a_measured_plan_of_several_machines(made: Any, call: Any) -> None:
    few = ["--set=train.batch_size=32", "--set=model.embedding_dim=16", "--set=train.device=cpu"]
    done = call("plan", made.store, *few, "--nproc=2", "--nodes=2", "--bandwidth=1", "--measure=2", "--json")
    assert done.status == 0
    plan = json.loads(done.out)
    assert (plan["ranks"], len(plan["memory"])) == (4, 4)
    sent = sum(plan["communication"].values())
    assert sent > 0
    seconds = 32 / (4 * plan["speed"]["one_rank"]) + sent / 1e9
    assert plan["speed"]["all_ranks"] == pytest.approx(32 / seconds)


def test_a_plan_that_does_not_fit_says_what_would(made: Any, call: Any) -> None:
    small = call("plan", made.store, "--memory=0.001")
    assert small.status == 0
    assert "It does not fit.\nBesides the tables a rank needs" in small.out
