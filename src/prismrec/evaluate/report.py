"""Where a report goes: report.json and report.html in the run's directory, and tables in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from prismrec.artifact import replacing_file, write_json
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
    """Print the summary, recall by decile and the models' diagnostics as tables."""
    for table in (summary(report), deciles(report), diagnostics(report)):
        printed = Table(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
        for column, heading in enumerate(table.header):
            printed.add_column(heading, justify="left" if column == 0 else "right", overflow="fold")
        for row in table.rows:
            printed.add_row(*row)
        console.print(printed)
