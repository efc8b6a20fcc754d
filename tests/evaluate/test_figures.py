"""The figures of a report as frames and as charts, from a literal report."""

from collections.abc import Callable
from typing import Any

import altair as alt
import pytest
import vl_convert

from prismrec.evaluate import charts, frames
from prismrec.evaluate.findings import Report

from .conftest import method

CHARTS = ("headline", "accuracy", "deciles", "exposure", "concentration", "spread", "trade_offs", "heads", "vectors")
CHARTS += ("recall_lost", "cosines", "curves")
FIRST = "<first> & best"


def test_metrics_have_intervals_where_they_are_means_over_users(report: Report) -> None:
    found = frames.metrics(report).filter(method="popular", k=5)
    assert found.filter(metric="recall").row(0) == (
        "popular",
        "baseline",
        "recall",
        5,
        0.4,
        0.39,
        0.41000000000000003,
        7,
    )
    assert found.filter(metric="gini").row(0) == ("popular", "baseline", "gini", 5, 0.25, None, None, None)
    assert found.height == 5 + 3


def test_deciles(report: Report) -> None:
    assert frames.deciles(report).filter(method=FIRST).rows()[:3] == [
        (FIRST, 1, 0.5, 0.7),
        (FIRST, 2, None, 0.3),
        (FIRST, 3, 0.0, 0.0),
    ]


def test_concentration_ends_with_the_training_events(report: Report) -> None:
    found = frames.concentration(report)
    assert found["method"].unique(maintain_order=True).to_list() == [FIRST, frames.EVENTS]
    assert found.filter(method=frames.EVENTS).row(-1) == (frames.EVENTS, 1.0, 1.0)


def test_trade_offs(report: Report) -> None:
    found = frames.trade_offs(report)
    assert found["popularity"].to_list() == [0.0, 1.0, None]
    assert found.row(1) == (FIRST, 1.0, 0.5, 0.49, 0.51, 0.25, None, 0.2, 0.9)


def test_heads_and_vectors_are_counted_from_one(report: Report) -> None:
    assert frames.heads(report).rows() == [(FIRST, 1, 0.99), (FIRST, 2, 0.01)]
    assert frames.vectors(report).select("vector", "found", "recall_lost").rows() == [(1, 0.8, 0.044), (2, 0.2, 0.0)]
    assert frames.cosines(report).rows() == [(FIRST, 1, 2, 0.31)]


def test_curves_and_examples(report: Report) -> None:
    assert frames.curves(report).filter(metric="loss").rows() == [
        ("first", "train", "loss", 1, 3.0),
        ("first", "train", "loss", 2, 2.0),
    ]
    assert frames.examples(report).rows() == [
        ("7", 0.5, "history", 1, "1", "One", "odd", None, None),
        ("7", 0.5, "target", 1, "2", None, None, None, True),
        ("7", 0.5, "target", None, "3", "Three", "odd", None, True),
        ("7", 0.5, "recommended", 1, "2", None, None, 1, True),
    ]


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_drawn_in_the_colour_of_the_text(report: Report, name: str) -> None:
    chart: Callable[[Report], Any] = getattr(charts, name)
    made = chart(report)
    assert isinstance(made, alt.TopLevelMixin)
    drawn = vl_convert.vegalite_to_svg(made.to_dict())
    assert "currentColor" in drawn
    assert 'fill="white"' not in drawn


def test_a_chart_shows_each_method_in_its_colour(report: Report) -> None:
    drawn = vl_convert.vegalite_to_svg(charts.deciles(report).to_dict())
    for place, one in enumerate(report.methods):
        assert one.name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in drawn
        assert charts.COLOURS[place] in drawn


@pytest.mark.parametrize("name", CHARTS)
def test_charts_of_almost_nothing(report: Report, name: str) -> None:
    nothing = method("none", 0.0, recall_by_decile={10: [None] * 10})
    bare = report.model_copy(update={"methods": [nothing], "trade_offs": [], "curves": []})
    assert "<svg" in vl_convert.vegalite_to_svg(getattr(charts, name)(bare).to_dict())


def test_baselines_are_dashed_each_in_its_way(report: Report) -> None:
    drawn = vl_convert.vegalite_to_svg(charts.deciles(report).to_dict())
    assert 'stroke-dasharray="6,3"' in drawn
    assert 'stroke-dasharray="2,2"' not in drawn
