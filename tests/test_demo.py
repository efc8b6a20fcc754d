"""The demo on a sixteenth of its households: every step, and what a newcomer sees."""

import io
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from prismrec import demo
from prismrec.data.datasets import complete_journey
from prismrec.errors import ArtifactError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    events, items = complete_journey()
    events = events.filter(pl.col("user_id") % 16 == 0)
    monkeypatch.setattr(demo, "complete_journey", lambda: (events, items.join(events, on="item_id", how="semi")))
    monkeypatch.setattr(demo, "SETTINGS", (*demo.SETTINGS, "train.max_steps=4", "train.batch_size=256"))


def test_the_data_is_a_year_of_purchases() -> None:
    events, items = complete_journey()
    assert (len(events), events["user_id"].n_unique()) == (1_469_307, 2_469)
    assert items.columns == ["item_id", "title", "category", "top_category", "brand", "product_type"]
    assert items.filter(item_id=1082185)["title"].to_list() == ["Bananas 40 LB"]


@pytest.mark.usefixtures("small")
def test_the_demo_runs_and_runs_again(tmp_path: Path) -> None:
    printed = io.StringIO()
    for _ in range(2):
        bundle = demo.run_demo(tmp_path / "demo", Console(file=printed, width=120))
    assert (bundle / "manifest.json").exists()
    assert (tmp_path / "demo" / "multi" / "report.html").exists()
    text = printed.getvalue()
    for wanted in ("Household", "like these purchases", "recall@50", "co-visitation", "single (V=1"):
        assert wanted in text


@pytest.mark.usefixtures("small")
def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "multi").mkdir()
    (tmp_path / "multi" / "thesis.txt").write_text("the only copy")
    with pytest.raises(ArtifactError, match="expected a run of an earlier demo"):
        demo.run_demo(tmp_path, Console(file=io.StringIO()))
    assert (tmp_path / "multi" / "thesis.txt").read_text() == "the only copy"
