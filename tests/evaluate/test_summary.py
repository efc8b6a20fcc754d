"""Training curves and days, from literal logs and seconds."""

import json
from pathlib import Path

import pytest

from prismrec.errors import ArtifactError
from prismrec.evaluate.findings import Curve
from prismrec.evaluate.summary import _day, read_curves


def write(run: Path, *lines: dict[str, object]) -> Path:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_losses_and_validations_without_what_is_not_finite(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        {"kind": "train", "step": 10, "epoch": 0, "loss": 8.5, "usage_loss": 0.25},
        {"kind": "valid", "step": 10, "epoch": 0, "recall@50": 0.5},
        {"kind": "train", "step": 20, "epoch": 0, "loss": 7.5, "usage_loss": float("nan")},
    )
    assert read_curves(run, "a") == [
        Curve(method="a", kind="train", metric="loss", steps=[10, 20], values=[8.5, 7.5]),
        Curve(method="a", kind="train", metric="usage_loss", steps=[10], values=[0.25]),
        Curve(method="a", kind="valid", metric="recall@50", steps=[10], values=[0.5]),
    ]


def test_no_log_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path, "a") == []


def test_a_line_that_a_training_still_writes_is_left_out(tmp_path: Path) -> None:
    run = write(tmp_path, {"kind": "train", "step": 1, "epoch": 0, "loss": 2.0})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert [curve.values for curve in read_curves(run, "a")] == [[2.0]]


@pytest.mark.parametrize("points", [1, 200, 201, 5000])
def test_long_curves_are_thinned_and_keep_their_end(tmp_path: Path, points: int) -> None:
    run = write(tmp_path, *({"kind": "train", "step": step, "epoch": 0, "loss": step / 2} for step in range(points)))
    (curve,) = read_curves(run, "a")
    assert min(points, 100) <= len(curve.steps) <= 200
    assert curve.steps[-1] == points - 1
    assert curve.values == [step / 2 for step in curve.steps]


def test_days_of_any_year() -> None:
    assert _day(86_399) == "1970-01-01"
    assert _day(1_700_000_000) == "2023-11-14"
    assert _day(100 * 146_097 * 86_400) == "41970-01-01"  # 400 years have 146,097 days; milliseconds come out so late


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\xff",
        b"[" * 100_000,
        b"3",
        b'{"loss": 2.0}',
        b'{"kind": "train", "step": 1, "loss": "x"}',
        b'{"kind": "train", "step": 1.5, "loss": 2.0}',
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "train", "step": 1, "epoch": 0, "loss": 2.0}\n' + line + b"\n")
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl, line 2: expected metrics of a step as JSON"):
        read_curves(tmp_path, "a")
