"""The pieces that the page of a report is made of, as HTML; every text that comes in is escaped.

Names, titles and ids may be in any script: each stands in a `<bdi>`, so that its direction ends with it.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import polars as pl
import vl_convert

from prismrec.evaluate.tables import NONE, Table


def name(value: object) -> str:
    """A name, title or id of the data."""
    return f"<bdi>{escape(str(value))}</bdi>"


def table(content: Table) -> str:
    """A table with its title and note; nothing if it has no rows."""
    if not content.rows:
        return ""
    title = f"<h3>{escape(content.title)}</h3>" if content.title else ""
    return title + _grid(content)


def folded(content: Table) -> str:
    """A table that its title unfolds; nothing if it has no rows."""
    return f"<details><summary>{escape(content.title)}</summary>{_grid(content)}</details>" if content.rows else ""


def figure(title: str, says: str, chart: Any, numbers: pl.DataFrame) -> str:
    """A chart with what it shows in words, and its numbers to unfold.

    Args:
        title: above the chart.
        says: below it; both also stand for it where it is not seen.
        chart: of Altair.
        numbers: the first column names the row.
    """
    # roles of Vega's groups have no names of their own, and HTML needs no namespaces
    drawing = re.sub(r' (role|aria-\w+|xmlns(:\w+)?)="[^"]*"', "", vl_convert.vegalite_to_svg(chart.to_dict()))
    cells = [[_cell(value) for value in row] for row in numbers.iter_rows()]
    return (
        f'<figure><h3>{escape(title)}</h3><div class="chart" role="img" aria-label="{escape(f"{title}. {says}")}">'
        f"{drawing}</div><figcaption>{escape(says)}</figcaption>"
        f"{folded(Table('The numbers', numbers.columns, cells))}</figure>"
    )


def side_by_side(*parts: str) -> str:
    """Parts in two columns, or one where the page is narrow; nothing without any."""
    present = "\n".join(part for part in parts if part)
    return f'<div class="figures">\n{present}\n</div>\n' if present else ""


def _grid(content: Table) -> str:
    """Cells that scroll sideways where they are wider than the page."""
    header = "".join(f'<th scope="col">{name(cell)}</th>' for cell in content.header)
    head = f"<thead><tr>{header}</tr></thead>\n" if any(content.header) else ""
    rows = "\n".join(
        f'<tr><th scope="row">{name(first)}</th>{"".join(f"<td>{name(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in content.rows
    )
    note = f'<p class="note">{escape(content.note)}</p>' if content.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(content.title or "numbers")}"><table>'
        f"{head}<tbody>\n{rows}\n</tbody></table></div>{note}"
    )


def tiles(shown: Sequence[tuple[str, str, str]]) -> str:
    """The few numbers to look at first: what each is, the number, and what goes with it."""
    cells = (
        f'<div><dt>{name(what)}</dt><dd class="value">{escape(number)}</dd><dd class="note">{escape(beside)}</dd></div>'
        for what, number, beside in shown
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)
