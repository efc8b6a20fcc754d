"""A report as one static HTML page: inline style, inline SVG, no script, every text escaped.

Takes a report; gives the page. Charts are those of `charts.py`; each has its numbers in a table under it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from typing import Any

import polars as pl

from prismrec.evaluate import charts, frames
from prismrec.evaluate.findings import Report
from prismrec.evaluate.page_examples import examples
from prismrec.evaluate.page_parts import figure, folded, name, side_by_side, table, tiles
from prismrec.evaluate.page_style import STYLE
from prismrec.evaluate.tables import Table, all_metrics, data, debiased, diagnostics, dial, summary
from prismrec.evaluate.words import best_baseline, in_words
from prismrec.toml import dump_toml, parse_config

Section = tuple[str, str, str, str]
"""Its name in the address and in the contents, its title and its content."""


def render(report: Report) -> str:
    """The page of a report."""
    settings = report.settings
    title = escape(f"PrismRec evaluation: {settings['run']} on {settings['split']}")
    sections = [section for section in _sections(report) if section[3]]
    links = "".join(f'<li><a href="#{place}">{escape(text)}</a></li>' for place, text, _, _ in sections)
    body = "\n".join(
        f'<section id="{place}">\n<h2>{escape(text)}</h2>\n{content}\n</section>'
        for place, _, text, content in sections
    )
    lead = "".join(f"<p>{escape(sentence)}</p>" for sentence in in_words(report))
    made = " · ".join((f"split {name(settings['split'])}", name(settings["date"]), f"seed {name(settings['seed'])}"))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title><style>{STYLE}</style></head>\n<body>\n'
        f'<header><h1>Evaluation of {name(settings["run"])}</h1><p class="note">PrismRec · {made}</p>\n'
        f'<div class="lead">{lead}</div>\n{_first_numbers(report)}</header>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{body}\n</main></body></html>\n'
    )


def _first_numbers(report: Report) -> str:
    k, first, best = report.headline_k, report.methods[0], best_baseline(report)
    shown = [
        (f"{metric}@{k}", f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}")
        for metric in ("recall", "ndcg")
        if (found := first.metrics.get(f"{metric}@{k}"))
    ]
    if best and (gap := best.advantage):
        shown.append((f"recall@{k}, beside {best.name}", f"{gap.value:+.4f}", f"{gap.low:+.4f} to {gap.high:+.4f}"))
    if (coverage := first.catalogue.get(f"coverage@{k}")) is not None:
        shown.append((f"coverage@{k}", f"{100 * coverage:.1f} %", "of the catalogue"))
    return tiles(shown)


def _sections(report: Report) -> Iterator[Section]:
    yield "metrics", "Accuracy", "Beside the baselines", _metrics(report)
    yield "popularity", "Popularity", "Popularity: do the rich get richer?", _popularity(report)
    yield "debiased", "Debiased", "Debiased", table(debiased(report))
    yield "trade-offs", "Coverage", "Accuracy against coverage", _trade_offs(report)
    yield "interests", "Vectors", "Heads and vectors", _interests(report)
    yield "training", "Training", "Training", _training(report)
    yield "examples", "Examples", "Examples", examples(report)
    yield "data", "Data", "Data", "" if report.data is None else table(data(report))
    yield "settings", "Settings", "Settings", _settings(report)


def _metrics(report: Report) -> str:
    k = report.headline_k
    return (
        side_by_side(
            _figure(
                report,
                charts.accuracy,
                _measured(report, "recall"),
                f"Recall@{k}",
                "The share of what users went on to that was found: means over users, with 95 % bootstrap intervals.",
            ),
            _figure(
                report,
                partial(charts.accuracy, metric="ndcg"),
                _measured(report, "ndcg"),
                f"NDCG@{k}",
                "Likewise, what is found counting the more, the higher it stands in the list.",
            ),
        )
        + table(summary(report))
        + "".join(folded(all_metrics(report, each)) for each in report.ks)
    )


def _popularity(report: Report) -> str:
    k, by_decile = report.headline_k, frames.deciles(report)
    return side_by_side(
        _figure(
            report,
            charts.deciles,
            _wide(by_decile.drop_nulls("recall"), "decile", "recall"),
            f"Recall@{k} by popularity of the target",
            "Each decile holds a tenth of the training interactions: 1 is the head, 10 the long tail. A method that"
            " finds only what all buy is high on the left and nowhere else.",
        ),
        _figure(
            report,
            charts.exposure,
            _wide(by_decile.drop_nulls("exposure"), "decile", "exposure"),
            "Who is shown",
            "The share of all recommendations that goes to each decile. Each has a tenth of what people did in training"
            " (dashed): what lies above is shown more than it was wanted, and grows if trained on again.",
        ),
        _figure(
            report,
            charts.concentration,
            _wide(frames.concentration(report), "items", "exposure"),
            "How concentrated it is",
            "The share of all recommendations that the most shown items have, and in grey, broad, the share of the"
            " training events that the most chosen have: lines above it are more concentrated than people are.",
        ),
        "<div>"
        + _figure(
            report,
            charts.spread,
            _measured(report, "coverage").select("method", "value"),
            "Coverage",
            "The share of the catalogue that is shown to anyone.",
        )
        + _figure(
            report,
            partial(charts.spread, metric="gini"),
            _measured(report, "gini").select("method", "value"),
            "Gini of exposure",
            "0 if all items are shown alike, near 1 if a few get everything.",
        )
        + "</div>",
    )


def _trade_offs(report: Report) -> str:
    on_dial = any(each.popularity is not None for each in report.trade_offs)
    line = "The line is the first run over its dial of popularity, from 0 to 1, without training again; dots" * on_dial
    return side_by_side(
        _figure(
            report,
            charts.trade_offs,
            frames.trade_offs(report),
            "Recall against coverage",
            f"{line or 'Dots'} are the methods as they are, with the intervals of recall. Up is more accurate, right is"
            " more of the catalogue.",
        ),
        f"<div>{table(dial(report))}</div>" if on_dial else "",
    )


def _interests(report: Report) -> str:
    k, vectors = report.headline_k, frames.vectors(report)
    return side_by_side(
        _figure(
            report,
            charts.heads,
            frames.heads(report),
            "Head usage",
            "How the attention to the past is spread over the heads.",
        ),
        _figure(
            report,
            charts.vectors,
            vectors.filter(frames.SEVERAL).select("method", "vector", "found"),
            "Found by each vector",
            f"The share of all items in lists of {k} that each vector found: gave its best score.",
        ),
        _figure(
            report,
            charts.recall_lost,
            vectors.drop("found").drop_nulls("recall_lost"),
            "Lost without each vector",
            f"Recall@{k} lost when it is removed, with intervals. Around zero, the others find the same.",
        ),
        _figure(
            report,
            charts.cosines,
            frames.cosines(report).drop_nulls("cosine"),
            "Similarity of vectors",
            "How alike two vectors of a user are: their cosine, mean over users. Near 1 they are one interest.",
        ),
    ) + folded(diagnostics(report))


def _training(report: Report) -> str:
    lines = frames.curves(report).filter(frames.DRAWN)
    return side_by_side(
        _figure(report, charts.curves, lines, "By step", "The loss, its parts, and the recall on the validation split.")
    )


def _settings(report: Report) -> str:
    settings = report.settings
    rows = [[each, str(value)] for each, value in settings.items() if each not in ("config", "command")]
    config = settings.get("config")
    toml = "" if config is None else escape(dump_toml(parse_config(config, "configuration of the report")))
    again = escape(settings.get("command", ""))
    counts = [[each.replace("_", " "), f"{value:,}"] for each, value in report.counts.items()]
    return "".join(
        [
            f'<h3>Again</h3><pre class="command" dir="auto">{again}</pre>' if again else "",
            side_by_side(
                f"<div>{table(Table('Counts', ['', ''], counts))}</div>",
                f"<div>{table(Table('Protocol', ['', ''], rows))}</div>",
            ),
            f'<h3>Configuration</h3><pre tabindex="0" dir="auto">{toml}</pre>' if toml else "",
        ]
    )


def _figure(report: Report, chart: Callable[[Report], Any], numbers: pl.DataFrame, title: str, says: str) -> str:
    """A chart of a report; nothing, if there is nothing to draw."""
    return "" if numbers.is_empty() else figure(title, says, chart(report), numbers)


def _measured(report: Report, metric: str) -> pl.DataFrame:
    found = frames.metrics(report).filter(metric=metric, k=report.headline_k)
    return found.select("method", "value", "low", "high", "users")


def _wide(points: pl.DataFrame, index: str, values: str) -> pl.DataFrame:
    """A row per `index` and a column per method."""
    return points.pivot("method", index=index, values=values, aggregate_function="first", maintain_order=True)
