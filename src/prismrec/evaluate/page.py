"""A report as one static HTML page: inline style, inline SVG, no script, every text escaped."""

import json
from html import escape

from prismrec.evaluate.findings import Report
from prismrec.evaluate.tables import Table, all_metrics, deciles, diagnostics, summary

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b7dd8; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.note { color: #777; font-size: .85rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: .85rem; }
rect { fill: var(--bar); } text { font-size: 9px; fill: currentColor; text-anchor: middle; }
pre { overflow-x: auto; font-size: .8rem; }
"""
_BAR_WIDTH, _CHART_HEIGHT = 26, 90


def render(report: Report) -> str:
    """The page of a report."""
    settings = report.settings
    title = f"PrismRec evaluation: {settings['run']} on {settings['split']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(str(settings["date"]))} · seed {escape(str(settings["seed"]))}</p>',
        _table(summary(report)),
        _table(deciles(report)),
        _charts(report),
        _table(diagnostics(report)),
        *(_table(all_metrics(report, k)) for k in report.ks),
        _table(Table("Counts", ["", ""], [[name, f"{value:,}"] for name, value in report.counts.items()])),
        f"<h2>Settings</h2><pre>{escape(json.dumps(settings, indent=2, default=str))}</pre>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table><thead><tr>{header}</tr></thead>\n'
        f'<tbody>\n{rows}\n</tbody></table></div><p class="note">{escape(table.note)}</p>'
    )


def _charts(report: Report) -> str:
    """Recall by decile, one chart per method on a common scale."""
    by_method = [(method.name, method.recall_by_decile[report.headline_k]) for method in report.methods]
    highest = max((value or 0.0 for _, values in by_method for value in values), default=0.0) or 1.0
    figures = (
        f"<figure>{_bars(values, highest)}<figcaption>{escape(name)}</figcaption></figure>"
        for name, values in by_method
    )
    return f'<div class="charts">{"".join(figures)}</div>'


def _bars(values: list[float | None], highest: float) -> str:
    bars = []
    for place, value in enumerate(values):
        height = _CHART_HEIGHT * (value or 0.0) / highest
        left, top = place * _BAR_WIDTH, _CHART_HEIGHT - height + 12
        middle = left + (_BAR_WIDTH - 4) / 2
        label = "none" if value is None else f"{100 * value:.1f}"
        bars.append(
            f'<rect x="{left}" y="{top:.1f}" width="{_BAR_WIDTH - 4}" height="{height:.1f}"/>'
            f'<text x="{middle}" y="{top - 2:.1f}">{label}</text>'
            f'<text x="{middle}" y="{_CHART_HEIGHT + 22}">{place + 1}</text>'
        )
    size = f'width="{_BAR_WIDTH * len(values)}" height="{_CHART_HEIGHT + 26}"'
    return f'<svg role="img" aria-label="recall in percent by popularity decile" {size}>{"".join(bars)}</svg>'
