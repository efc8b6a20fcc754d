"""What `matthew.py` measured, as tables in Markdown and as curves in SVG.

Takes its results, as they are in its JSON file; gives text.
"""

from itertools import product
from typing import Any

import altair as alt
import polars as pl
import vl_convert

MEASURES = {
    "gini": ("Gini of exposure", "{:.3f}"),
    "coverage": ("coverage", "{:.3f}"),
    "top_share": ("exposure of the top 1 %", "{:.3f}"),
    "head_share": ("exposure of the old head", "{:.3f}"),
    "log_gini": ("Gini of the log", "{:.3f}"),
    "log_events": ("events in the log", "{:,.0f}"),
    "preference": ("mean preference", "{:.3f}"),
    "chosen": ("share chosen", "{:.4f}"),
}
DRAWN = ("gini", "log_gini", "preference")
COLOURS = {
    "likelihood": "#d9822b",
    "debiased": "#1f8fff",
    "dialled": "#9a6cf0",
    "popular": "#c94f6d",
    "random": "#8b8f94",
    "oracle": "#2ca36b",
}
GREY = "#7a828b"
"""Of text and axes: readable on white and on black alike."""


def report(results: dict[str, Any]) -> str:
    """The tables, one for each quality, with the command, the machine and the date."""
    settings = results["settings"]
    lines = [
        results["header"],
        "",
        f"    {results['command']}",
        "",
        f"All models: {' '.join(settings['all'])}; the rest are defaults. Means over seeds. The old head is the tenth "
        "of the items with the most events at the start.",
        "",
        *(f"- `{name}`: {' '.join(settings[name])}" for name in ("debiased", "dialled")),
    ]
    for quality in dict.fromkeys(world["quality"] for world in results["worlds"]):
        lines += ["", *_table(results, quality)]
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any]) -> str:
    """Curves of DRAWN by round, a column for each quality, as an SVG file without a background."""
    rounds = pl.DataFrame(results["rounds"])
    qualities = rounds["quality"].unique(maintain_order=True).to_list()
    panels = [
        _panel(rounds.filter(quality=quality), measure, quality) for measure, quality in product(DRAWN, qualities)
    ]
    grid = alt.concat(*panels, columns=len(qualities)).resolve_scale(color="shared")
    chart = (
        grid.configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(labelColor=GREY, titleColor=GREY, gridColor=GREY, gridOpacity=0.25, domainColor=GREY)
        .configure_legend(labelColor=GREY, titleColor=GREY, orient="top", labelFontSize=12)
        .configure_title(color=GREY, fontSize=12)
    )
    return str(vl_convert.vegalite_to_svg(chart.to_json()))


def _table(results: dict[str, Any], quality: float) -> list[str]:
    worlds = [world for world in results["worlds"] if world["quality"] == quality]
    sizes = [
        f"{sum(world[name] for world in worlds) / len(worlds):,.0f} {name}" for name in ("users", "items", "events")
    ]
    start = sum(world["log_gini"] for world in worlds) / len(worlds)
    rounds = pl.DataFrame(results["rounds"]).filter(quality=quality)
    means = rounds.group_by("method", "round", maintain_order=True).agg(pl.col(*MEASURES).mean())
    lines = [
        f"**Quality {quality:g}** ({_meaning(quality)}). Start: {', '.join(sizes)}, Gini of the log {start:.3f}.",
        "",
        f"| method | round | {' | '.join(title for title, _ in MEASURES.values())} |",
        f"| --- |{' ---: |' * (len(MEASURES) + 1)}",
    ]
    for row in means.iter_rows(named=True):
        cells = [form.format(row[name]) for name, (_, form) in MEASURES.items()]
        lines.append(f"| {row['method']} | {row['round']} | {' | '.join(cells)} |")
    return lines


def _meaning(quality: float) -> str:
    if not quality:
        return "preferences are taste alone"
    return f"{quality:.0%} of preferences are the item's popularity in the data, the rest is taste"


def _panel(rounds: pl.DataFrame, measure: str, quality: float) -> alt.LayerChart | alt.FacetChart:
    """Means over seeds as lines, all seeds as points."""
    base = alt.Chart(
        rounds.select("method", "round", measure),
        title=f"{MEASURES[measure][0]}, quality {quality:g}",
        width=300,
        height=150,
    ).encode(
        x=alt.X("round:O", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("method:N", title=None, scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))),
    )
    scale = alt.Scale(zero=False)
    lines = base.mark_line(strokeWidth=2).encode(y=alt.Y(f"mean({measure}):Q", title=None, scale=scale))
    points = base.mark_point(size=14, filled=True, aria=False).encode(y=alt.Y(f"{measure}:Q", title=None))
    return alt.layer(lines, points)
