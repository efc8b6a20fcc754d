"""docs/configuration.md is what the code says."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_is_up_to_date() -> None:
    written = runpy.run_path(str(DOCS / "configuration.py"))
    assert (DOCS / "configuration.md").read_text() == written["page"](), "run python docs/configuration.py"
    assert "| `max_length` |" in written["page"]()


def test_every_setting_says_what_it_means() -> None:
    rows = [line for line in (DOCS / "configuration.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert not [row for row in rows if row.endswith("|  |")]
