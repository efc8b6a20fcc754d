"""Results are kept line by line, the latest counts, and tables show means, intervals and what differs."""

import datetime as dt

import pytest
from records import Result, append, environment, read
from report import half_width, report, rows, table

from prismrec.errors import DataError

BASE = {
    "dataset": "ml1m",
    "method": "sasrec",
    "seed": 0,
    "split": "test",
    "parameters": 1000,
    "train_seconds": 60.0,
    "train_cpu_seconds": 50.0,
    "settings": {"lr": 0.001},
    "notes": {"epochs": 3, "best_epoch": 2},
    "counts": {"users": 10, "items": 20, "events": 100, "targets": 9, "users_evaluated": 9},
    "store": "abc",
    "date": "2026-11-24T00:00:00+00:00",
    "command": "python run.py",
    "machine": {"cpu": "x", "device": "CPU", "threads": 1},
    "versions": {"commit": "c0ffee"},
}


def result(ndcg: float = 0.1, **fields) -> Result:
    metrics = {
        "ndcg@10": {"value": ndcg, "low": ndcg - 0.01, "high": ndcg + 0.01},
        "gini@10": {"value": 1 - ndcg},
    }
    return Result.model_validate({**BASE, "metrics": metrics, **fields})


def test_the_latest_result_counts(tmp_path) -> None:
    append(tmp_path, [result(0.1), result(0.2, seed=1)])
    append(tmp_path, [result(0.3)])
    assert [found.metrics["ndcg@10"]["value"] for found in read(tmp_path / "ml1m.jsonl")] == [0.3, 0.2]


def test_a_foreign_line_is_refused(tmp_path) -> None:
    (tmp_path / "ml1m.jsonl").write_text('{"dataset": "ml1m"}\n')
    with pytest.raises(DataError, match="line 1"):
        read(tmp_path / "ml1m.jsonl")


def test_seeds_are_averaged_with_an_interval() -> None:
    (row,) = rows([result(0.1), result(0.2, seed=1), result(0.3, seed=2)])
    mean = row.mean("ndcg@10")
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.2, 0.19, 0.21))
    assert mean.over_seeds == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert half_width([1.0, 2.0]) == pytest.approx(12.706 * 0.5)


def test_settings_that_differ_name_the_rows() -> None:
    found = rows([result(), result(settings={"lr": 0.01}), result(method="ease", settings={})])
    assert [row.name for row in found] == ["sasrec", "sasrec (lr=0.01)", "ease"]  # by what most do not have


def test_a_table_is_sorted_and_the_best_is_bold() -> None:
    lines = table([result(0.1), result(0.2, method="ease", notes={})], "ndcg@10").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| ease", "| sasrec"]
    assert "**.2000** [.1900, .2100]" in lines[2]
    assert "**.8000**" in lines[2]  # a low Gini is best
    assert "**" not in lines[3]
    assert "| 3 (2) |" in lines[3]


def test_a_report_needs_results_on_the_same_data() -> None:
    day = dt.date(2026, 11, 24)
    assert "## ml1m, test" in report([result()], ["test"], day)
    with pytest.raises(DataError, match="found none"):
        report([result()], ["valid"], day)
    with pytest.raises(DataError, match="one prepared store"):
        report([result(), result(method="ease", store="other")], ["test"], day)


def test_the_environment_is_told() -> None:
    told = environment()
    assert set(told) == {"date", "command", "machine", "versions"}
    assert "torch" in told["versions"]
