"""Where a report goes: report.json and report.html in the run's directory, and tables in the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismrec.atomic import replacing_file, write_json
from prismrec.evaluate.findings import Report
from prismrec.evaluate.page import render
from prismrec.evaluate.tables import deciles, diagnostics, summary

JSON_FILE, HTML_FILE = "report.json", "report.html"


def write_report(report: Report, run: Path) -> None:
    """Write `report.json` and `report.html` into a run's directory, each whole or not at all."""
    write_json(run / JSON_FILE, report.model_dump(mode="json"))
    with replacing_file(run / HTML_FILE) as temporary:
        temporary.write_text(render(report), encoding="utf-8")


def print_report(report: Report, console: Console) -> None:
    """Print the summary, recall by decile and the models' diagnostics as tables, a column per method."""
    for table in (summary(report), deciles(report), diagnostics(report)):
        printed = Table(
            title=table.title, caption=table.note, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD
        )
        printed.add_column(min_width=max(map(len, table.header)))
        for method, *_ in table.rows:
            printed.add_column(escape(method), justify="right", overflow="fold")
        _, *measures = zip(table.header, *table.rows, strict=True)
        for measure in measures:
            printed.add_row(*map(escape, measure))
        console.print(printed)
