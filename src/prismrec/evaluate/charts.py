"""The figures of a report as charts: Altair's, so that a notebook shows them, and they can be changed and saved.

Takes a `Report`; each chart is made of the frame of the same name in `frames.py`. Colours and lines are such that they
can be read on light and on dark.

    from prismrec.api import charts, evaluate

    charts.trade_offs(evaluate(Path("run"), "test")).save("trade_offs.svg")
"""

from typing import Any

import altair as alt
import polars as pl

from prismrec.evaluate import frames
from prismrec.evaluate.findings import Report
from prismrec.evaluate.metrics.exposure import SHARES

COLOURS = ["#3b7dd8", "#d9730d", "#2f9e63", "#b5489a", "#8a7d1f", "#6f66cf", "#c0453f", "#4a9aa5", "#8b8f98"]
_DASHES: tuple[list[int], ...] = ([6, 3], [2, 2], [8, 3, 2, 3], [12, 4])
"""Of the baselines, told apart without colours too; models have whole lines."""
_WIDTH, _NARROW, _HEIGHT = 360, 250, 220  # as wide as a phone takes with letters that can be read
_GREY = "#8889"
_FONT = "Arial, Helvetica, sans-serif"  # of known widths


def headline(report: Report) -> alt.VConcatChart:
    """Recall and NDCG at headline_k of every method, with intervals."""
    return _styled(alt.vconcat(_intervals(report, "recall"), _intervals(report, "ndcg")))


def accuracy(report: Report, metric: str = "recall") -> alt.LayerChart:
    """One metric at headline_k of every method, with intervals."""
    return _styled(_intervals(report, metric))


def spread(report: Report, metric: str = "coverage") -> alt.LayerChart:
    """Coverage, or `gini` of exposure, at headline_k of every method."""
    frame = frames.metrics(report).filter(metric=metric, k=report.headline_k)
    value = alt.X("value:Q", title=f"{metric}@{report.headline_k}", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(frame).encode(x=value, y=_methods())
    bars = base.mark_bar().encode(color=_colour(report, shown=False))
    numbers = base.mark_text(align="left", dx=4, fontSize=12).encode(text=alt.Text("value:Q", format=".3f"))
    return _styled((bars + numbers).properties(width=_NARROW, height={"step": 24}))


def deciles(report: Report) -> alt.Chart:
    """Recall by popularity decile of the target, a line for each method."""
    return _styled(
        alt.Chart(frames.deciles(report).drop_nulls("recall"))
        .mark_line(point=True)
        .encode(
            x=_decile("popularity decile of the target: 1 head, 10 tail"),
            y=alt.Y("recall:Q", title=f"recall@{report.headline_k}"),
            color=_colour(report),
            strokeDash=_dash(report),
        )
        .properties(width=_WIDTH, height=_HEIGHT)
    )


def exposure(report: Report) -> alt.LayerChart:
    """Share of the recommendations that each popularity decile gets; the line is its share of what people do."""
    lines = (
        alt.Chart(frames.deciles(report).drop_nulls("exposure"))
        .mark_line(point=True)
        .encode(
            x=_decile("popularity decile of the recommended item"),
            y=alt.Y("exposure:Q", title="share of the recommendations", axis=alt.Axis(format="%")),
            color=_colour(report),
            strokeDash=_dash(report),
        )
    )
    fair = alt.Chart(pl.DataFrame({"exposure": [0.1]})).mark_rule(color=_GREY, strokeDash=[5, 4]).encode(y="exposure:Q")
    return _styled((fair + lines).properties(width=_WIDTH, height=_HEIGHT))


def concentration(report: Report) -> alt.LayerChart:
    """How much of the recommendations the most shown items have; in grey, the most chosen of the training events."""
    x = alt.X(
        "items:Q",
        title="share of the catalogue, the most shown first",
        scale=alt.Scale(type="log", domain=[SHARES[0], 1]),
        axis=alt.Axis(format="~%", values=[0.0001, 0.001, 0.01, 0.1, 1]),
    )
    y = alt.Y("exposure:Q", title="share of the recommendations", axis=alt.Axis(format="%"))
    frame, of_events = frames.concentration(report), pl.col("method") == frames.EVENTS
    chosen, shown = frame.filter(of_events), frame.filter(~of_events)
    lines = alt.Chart(shown).mark_line().encode(x=x, y=y, color=_colour(report), strokeDash=_dash(report))
    events = alt.Chart(chosen).mark_line(color=_GREY, strokeWidth=5).encode(x=x, y=y)
    return _styled((events + lines).properties(width=_WIDTH, height=_HEIGHT))


def trade_offs(report: Report) -> alt.LayerChart:
    """Recall against coverage: a line over the first run's dial of popularity, a point for each method as it is."""
    frame = frames.trade_offs(report)
    x = alt.X(
        "coverage:Q",
        title=f"coverage@{report.headline_k}",
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=alt.Axis(tickCount=4, format="~%"),
    )
    y = alt.Y("recall:Q", title=f"recall@{report.headline_k}", scale=alt.Scale(zero=False))
    low = alt.Y("low:Q", title="")
    shown = frame.filter(pl.col("coverage") > 0)  # where nothing is recommended there is no logarithm
    dial = alt.Chart(shown.drop_nulls("popularity")).encode(x=x, y=y)
    line = dial.mark_line(point=True, color=COLOURS[0], strokeWidth=2).encode(order="popularity:Q")
    words = dial.mark_text(dy=-12, fontSize=11).encode(text=alt.Text("popularity:Q"))
    intervals = dial.mark_rule(color=COLOURS[0], opacity=0.5).encode(y=low, y2="high:Q")
    methods = alt.Chart(shown.filter(pl.col("popularity").is_null())).encode(x=x, y=y, color=_colour(report))
    points = methods.mark_point(filled=True, size=90, opacity=1)
    ranges = methods.mark_rule(opacity=0.5).encode(y=low, y2="high:Q")
    return _styled((points + line + words + intervals + ranges).properties(width=_WIDTH, height=_HEIGHT + 40))


def heads(report: Report) -> alt.FacetChart:
    """How the attention is spread over the heads of each model."""
    bars = alt.Chart(frames.heads(report)).mark_bar(color=COLOURS[0])
    encoded = bars.encode(
        x=alt.X("head:O", title="head", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("share:Q", title="share of the attention", axis=alt.Axis(format="%")),
    )
    return _faceted(encoded)


def vectors(report: Report) -> alt.FacetChart:
    """The share of the recommended items that each vector found, of each model that has several."""
    bars = alt.Chart(frames.vectors(report).filter(frames.SEVERAL)).mark_bar(color=COLOURS[0])
    encoded = bars.encode(
        x=alt.X("vector:O", title="vector", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("found:Q", title="share of the items found", axis=alt.Axis(format="%")),
    )
    return _faceted(encoded)


def recall_lost(report: Report) -> alt.FacetChart:
    """The recall lost without each vector, with intervals, of each model that has several."""
    base = alt.Chart(frames.vectors(report).drop_nulls("recall_lost")).encode(
        x=alt.X("vector:O", title="vector", axis=alt.Axis(labelAngle=0))
    )
    title = f"recall@{report.headline_k} lost"
    ranges = base.mark_rule(color=COLOURS[0], strokeWidth=2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    return _faceted(
        ranges + base.mark_point(filled=True, size=70, opacity=1, color=COLOURS[0]).encode(y="recall_lost:Q")
    )


def cosines(report: Report) -> alt.FacetChart:
    """How alike each two vectors of a user are, of each model."""
    squares = alt.Chart(frames.cosines(report)).encode(
        x=alt.X("vector:O", title="vector", axis=alt.Axis(labelAngle=0)), y=alt.Y("other:O", title="vector")
    )
    colour = alt.Color(
        "cosine:Q", title="cosine", scale=alt.Scale(domain=[-1, 0, 1], range=["#d9730d", "#8882", "#3b7dd8"])
    )
    number = alt.Text("cosine:Q", format=".2f")
    return _faceted(squares.mark_rect().encode(color=colour) + squares.mark_text(fontSize=11).encode(text=number))


def curves(report: Report) -> alt.FacetChart:
    """The loss, its parts and the validation recall in the course of training."""
    lines = (
        alt.Chart(frames.curves(report).filter(frames.DRAWN))
        .mark_line(point={"size": 12})
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=4)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color("method:N", title=None, sort=None, scale=alt.Scale(range=COLOURS), legend=_LEGEND),
        )
        .properties(width=0.4 * _WIDTH, height=110)
    )
    return _styled(
        lines.facet(facet=alt.Facet("metric:N", title=None, sort=None), columns=2).resolve_scale(y="independent")
    )


_LEGEND = alt.Legend(orient="bottom", labelLimit=260, columns=2, columnPadding=30, symbolOpacity=1)


def _colour(report: Report, shown: bool = True) -> alt.Color:
    """A method has the same colour in all charts."""
    names = [method.name for method in report.methods]
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(names))]
    legend = _LEGEND if shown else None
    return alt.Color("method:N", title=None, sort=None, scale=alt.Scale(domain=names, range=colours), legend=legend)


def _intervals(report: Report, metric: str) -> alt.LayerChart:
    frame = frames.metrics(report).filter(metric=metric, k=report.headline_k)
    base = alt.Chart(frame).encode(y=_methods(), color=_colour(report, shown=False))
    title = f"{metric}@{report.headline_k}"
    low = alt.X("low:Q", title=title, scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(tickCount=4))
    ranges = base.mark_rule(strokeWidth=2).encode(x=low, x2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q")
    return (ranges + points).properties(width=_NARROW, height={"step": 24})


def _methods() -> alt.Y:
    return alt.Y("method:N", sort=None, title=None, axis=alt.Axis(labelLimit=240))


def _dash(report: Report) -> alt.StrokeDash:
    """A baseline has the same dashes in all charts."""
    baselines = [method.name for method in report.methods if method.kind == "baseline"]
    dashes = [
        _DASHES[baselines.index(method.name) % len(_DASHES)] if method.name in baselines else [1, 0]
        for method in report.methods
    ]
    names = [method.name for method in report.methods]
    return alt.StrokeDash(
        "method:N", title=None, sort=None, scale=alt.Scale(domain=names, range=dashes), legend=_LEGEND
    )


def _decile(title: str) -> alt.X:
    return alt.X("decile:O", title=title, axis=alt.Axis(labelAngle=0))


def _faceted(chart: Any) -> alt.FacetChart:
    """A panel for each model."""
    panels = chart.properties(width=_WIDTH, height=100)
    return _styled(
        panels.facet(facet=alt.Facet("method:N", title=None, sort=None), columns=1).resolve_scale(x="independent")
    )


def _styled(chart: Any) -> Any:
    """In the colour of the text around it, on no background."""
    quiet = {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
    }
    return (
        chart.configure(
            background="transparent", font=_FONT, aria=False, padding={"left": 10, "right": 24, "top": 6, "bottom": 4}
        )
        .configure_view(stroke=None)
        .configure_axis(**quiet, gridColor="#8883", domainColor="#888", tickColor="#888", titleFontSize=12)
        .configure_legend(labelColor="currentColor", titleColor="currentColor", labelFontSize=12)
        .configure_header(labelColor="currentColor", labelFontSize=12, labelFontWeight="bold")
        .configure_text(color="currentColor")
    )
