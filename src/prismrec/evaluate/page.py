"""A report as one static HTML page: inline style, inline SVG, no script, every text escaped.

Takes a report; gives the page. Charts are those of `charts.py`; each has its numbers in a table under it.
"""

from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import polars as pl
import vl_convert

from prismrec.evaluate import charts, frames
from prismrec.evaluate.findings import Example, ItemName, Report
from prismrec.evaluate.page_style import STYLE
from prismrec.evaluate.tables import NONE, Table, all_metrics, data, debiased, diagnostics, summary
from prismrec.evaluate.words import in_words
from prismrec.toml import dump_toml, parse_config

Section = tuple[str, str, str]
"""Its name in the address, its title and its content."""


def render(report: Report) -> str:
    """The page of a report."""
    settings = report.settings
    title = f"PrismRec evaluation: {settings['run']} on {settings['split']}"
    sections = [section for section in _sections(report) if section[2]]
    links = "".join(f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text, _ in sections)
    body = "\n".join(
        f'<section id="{name}">\n<h2>{escape(text)}</h2>\n{content}\n</section>' for name, text, content in sections
    )
    lead = "".join(f"<p>{escape(sentence)}</p>" for sentence in in_words(report))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n'
        f'<header><h1>{escape(title)}</h1>\n<div class="lead">{lead}</div>\n'
        f'<p class="note">{escape(str(settings["date"]))} · seed {escape(str(settings["seed"]))}</p></header>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{body}\n</main></body></html>\n'
    )


def _sections(report: Report) -> Iterator[Section]:
    k = report.headline_k
    yield "metrics", "Beside the baselines", _metrics(report)
    yield (
        "popularity",
        "By popularity of the target",
        _figure(
            report,
            charts.deciles,
            frames.deciles(report).drop("exposure").drop_nulls("recall"),
            f"Recall@{k} of targets by popularity. Each decile holds a tenth of the training interactions: 1 is the"
            " head, 10 the long tail. A method that finds only what all buy is high on the left and nowhere else.",
        ),
    )
    yield "exposure", "Do the rich get richer?", _exposure(report)
    yield "debiased", "Debiased", _table(debiased(report))
    yield "trade-offs", "Accuracy against coverage", _trade_offs(report)
    yield "interests", "Heads and vectors", _interests(report)
    yield (
        "training",
        "Training",
        _figure(report, charts.curves, frames.curves(report), "Losses and validation recall by step.", table=False),
    )
    yield "examples", "Examples", _examples(report)
    yield "data", "Data", "" if report.data is None else _table(data(report))
    yield "settings", "Settings", _settings(report)


def _metrics(report: Report) -> str:
    headline = frames.metrics(report).filter(pl.col("metric").is_in(["recall", "ndcg"]), k=report.headline_k)
    caption = "Means over users; lines are 95 % bootstrap intervals."
    every = "".join(f"<h3>At {k}</h3>{_table(all_metrics(report, k))}" for k in report.ks)
    return (
        _figure(report, charts.headline, headline, caption, table=False)
        + _table(summary(report))
        + f"<details><summary>Every metric with its interval</summary>{every}</details>"
    )


def _exposure(report: Report) -> str:
    shown = frames.deciles(report).drop("recall").drop_nulls("exposure")
    return _figure(
        report,
        charts.exposure,
        shown,
        "Who is shown: the share of all recommendations that goes to each decile. Each has a tenth of what people did"
        " in training (dashed): what lies above is shown more than it was wanted, and grows if trained on again.",
    ) + _figure(
        report,
        charts.concentration,
        frames.concentration(report),
        "How much of all recommendations the most shown items have; if all were shown alike, lines would be dashed."
        " Coverage and Gini of exposure are in the tables above.",
    )


def _trade_offs(report: Report) -> str:
    users = report.counts.get("trade_off_users", 0)
    return _figure(
        report,
        charts.trade_offs,
        frames.trade_offs(report),
        "The line is the first run over its dial of popularity, from 0 to 1, without training again; dots are the"
        f" methods as they are. Up is more accurate, right is more of the catalogue. On {users:,} users, the same for"
        " all: coverage grows with their number.",
    )


def _interests(report: Report) -> str:
    return "".join(
        [
            _figure(
                report, charts.heads, frames.heads(report), "How the attention to the past is spread over the heads."
            ),
            _figure(
                report,
                charts.vectors,
                frames.vectors(report),
                f"The share of all items in lists of {report.headline_k} that each vector found; and, in the table, the"
                " recall lost when it is removed.",
            ),
            _figure(
                report,
                charts.cosines,
                frames.cosines(report).drop_nulls("cosine"),
                "How alike two vectors of a user are: their cosine, mean over users. Near 1 they are one interest.",
            ),
            _table(diagnostics(report)) if any(method.diagnostics for method in report.methods) else "",
        ]
    )


def _figure(
    report: Report,
    chart: Callable[[Report], Any],
    frame: pl.DataFrame,
    caption: str,
    *,
    table: bool = True,
) -> str:
    """A chart with its caption and its numbers; nothing, if there is nothing to draw."""
    if frame.is_empty():
        return ""
    drawing = vl_convert.vegalite_to_svg(chart(report).to_dict())
    numbers = ""
    if table:
        cells = [[_cell(value) for value in row] for row in frame.iter_rows()]
        numbers = f"<details><summary>The numbers</summary>{_table(Table('', frame.columns, cells))}</details>"
    return (
        f'<figure><div class="chart" role="img" aria-label="{escape(caption)}">{drawing}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>{numbers}"
    )


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "\n".join(
        f'<tr><th scope="row"><bdi>{escape(first)}</bdi></th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in table.rows
    )
    title = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title or "numbers")}"><table>{title}'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>{note}"
    )


def _examples(report: Report) -> str:
    return "".join(_example(example, report.headline_k) for example in report.examples)


def _example(example: Example, k: int) -> str:
    targets = [
        f"<li{' class=hit' if target.rank else ''}>{_item(target)}"
        f" <small>{f'at {target.rank}' if target.rank else 'not found'}</small></li>"
        for target in example.targets
    ]
    recommended = [
        f"<li{' class=hit' if item.is_target else ''}>{_item(item)} <small>interest {item.interest + 1}</small></li>"
        for item in example.recommended
    ]
    lists = [
        ("Lately", "ul", [f"<li>{_item(item)}</li>" for item in example.history]),
        ("Recommended", "ol", recommended),
        ("Went on to", "ul", targets),
    ]
    columns = "".join(f"<div><h4>{name}</h4><{tag}>{''.join(rows)}</{tag}></div>" for name, tag, rows in lists)
    user = f"<bdi>{escape(str(example.user_id))}</bdi>"
    return (
        f'<article><h3>User {user}: recall@{k} {example.recall:.2f}</h3><div class="columns">{columns}</div></article>'
    )


def _item(item: ItemName) -> str:
    name = f"<bdi>{escape(item.title if item.title is not None else str(item.item_id))}</bdi>"
    return name if item.category is None else f"{name} <small><bdi>{escape(item.category)}</bdi></small>"


def _settings(report: Report) -> str:
    settings = report.settings
    rows = [[name, str(value)] for name, value in settings.items() if name not in ("config", "command")]
    config = settings.get("config")
    counts = [[name.replace("_", " "), f"{value:,}"] for name, value in report.counts.items()]
    return "".join(
        [
            f"<p>Again: <code>{escape(settings['command'])}</code></p>" if "command" in settings else "",
            _table(Table("Counts", ["", ""], counts)),
            _table(Table("Protocol", ["", ""], rows)),
            "" if config is None else f"<h3>Configuration</h3><pre>{escape(dump_toml(parse_config(config)))}</pre>",
        ]
    )


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)
