"""The report's files and tables, from a literal report."""

import io
import json
import re
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from prismrec.evaluate.bootstrap import Estimate
from prismrec.evaluate.findings import Example, ItemName, Recommended, Report, Target
from prismrec.evaluate.page import render
from prismrec.evaluate.report import print_report, write_report
from prismrec.evaluate.words import in_words

from .conftest import method


class _Tags(HTMLParser):
    """Checks that every opened tag is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_files_are_written_and_replaced(report: Report, tmp_path: Path) -> None:
    for _ in range(2):
        write_report(report, tmp_path)
        assert Report.model_validate_json((tmp_path / "report.json").read_text()) == report
        assert "&lt;first&gt; &amp; best" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_json_holds_value_and_interval_of_each_metric(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["methods"][0]["metrics"]["recall@10"] == {"value": 0.5, "low": 0.49, "high": 0.51, "users": 7}
    assert content["methods"][0]["recall_by_decile"]["10"][:2] == [0.5, None]


def test_page_is_well_formed_self_contained_and_escaped(report: Report) -> None:
    page = render(report)
    tags = _Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    assert not {"script", "link", "img"} & set(tags.seen)
    assert "<first>" not in page
    assert not re.findall(r"(?:src|href)=.(?!#)", page)
    assert "http" not in page
    assert tags.seen.count("svg") == tags.seen.count("figure") == 13
    assert tags.seen.count("section") == 9


HOSTILE = "<img src=x onerror=alert(1)> \u202e & 日本"


def test_titles_are_text_whatever_they_hold(report: Report) -> None:
    item = {"item_id": HOSTILE, "title": HOSTILE, "category": HOSTILE}
    example = Example(
        user_id=HOSTILE,
        recall=0.5,
        history=[ItemName(**item)],
        targets=[Target(**item, rank=None)],
        recommended=[Recommended(**item, rank=1, interest=0, is_target=False)],
    )
    page = render(report.model_copy(update={"examples": [example]}))
    assert "<img" not in page
    assert page.count(f"<bdi>{escape(HOSTILE)}</bdi>") == 1 + 3 * 2


def test_a_name_does_not_turn_the_text_around_it(report: Report) -> None:
    """Wherever an override of direction stands, its element or its isolate ends it."""
    methods = [each.model_copy(update={"name": HOSTILE + each.name}) for each in report.methods]
    page = render(report.model_copy(update={"settings": {**report.settings, "run": HOSTILE}, "methods": methods}))
    assert "<img" not in page
    for override in re.finditer("\u202e", page):
        before = page[: override.start()][-2000:]
        assert re.search(r"(<bdi>|<text[^<>]*>|<title>|=\"|<pre[^<>]*>|\u2068)[^<]*$", before)


def test_headings_and_names_for_those_who_do_not_see_the_charts(report: Report) -> None:
    page = render(report)
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)
    charts = re.findall(r'<figure><h3>(.*?)</h3><div class="chart" role="img" aria-label="(.*?)"', page)
    assert len(charts) == page.count("<figure>")
    assert all(label.startswith(title) for title, label in charts)
    assert page.count("<summary>The numbers</summary>") == len(charts)


def test_sections_without_anything_to_show_are_left_out(report: Report) -> None:
    bare = report.model_copy(
        update={"examples": [], "curves": [], "trade_offs": [], "data": None, "methods": [method("popular", 0.4)]}
    )
    page = render(bare)
    sections = set(re.findall('<section id="([a-z-]+)"', page))
    assert sections == {"metrics", "popularity", "debiased", "settings"}
    assert set(re.findall('href="#([a-z-]+)"', page)) == sections


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (
            0.05,
            0.15,
            "That is 0.1000 more than \u2068popular\u2069 (0.1000 [0.0500, 0.1500]), the best of 1 baselines.",
        ),
        (
            -0.15,
            -0.05,
            "That is 0.1000 less than \u2068popular\u2069 (-0.1000 [-0.1500, -0.0500]), the best of 1 baselines.",
        ),
        (
            -0.05,
            0.1,
            "That is not to be told apart from \u2068popular\u2069 (0.0000 [-0.0500, 0.1000]), the best of"
            " 1 baselines.",
        ),
    ],
)
def test_losses_are_said_as_plainly_as_wins(report: Report, low: float, high: float, verdict: str) -> None:
    value = 0.0 if low < 0 < high else (low + high) / 2
    gap = Estimate(value=value, low=low, high=high, users=7)
    compared = report.methods[1].model_copy(update={"advantage": gap})
    said = list(in_words(report.model_copy(update={"methods": [report.methods[0], compared]})))
    first = "\u2068<first> & best\u2069 finds 50 % of what users went on to among its first 10 items: "
    assert said[0].startswith(first + "recall@10 0.5")
    assert said[1:] == [verdict, "It shows 25 % of the catalogue to anyone."]


def test_a_report_without_any_hit_still_renders(report: Report) -> None:
    nothing = method("none", 0.0, recall_by_decile={k: [None] * 10 for k in (5, 10)})
    assert "<svg" in render(report.model_copy(update={"methods": [nothing]}))


def test_printed_tables_fit_a_narrow_terminal(report: Report) -> None:
    text = io.StringIO()
    five = report.model_copy(update={"methods": [*report.methods, *report.methods[1:] * 3]})
    print_report(five, Console(file=text, width=80))
    assert "tail_recall@10" in text.getvalue()
    assert "…" not in text.getvalue()


def test_printed_tables(report: Report) -> None:
    text = io.StringIO()
    print_report(report, Console(file=text, width=220))
    printed = text.getvalue()
    assert "test: 1,000 users, full catalogue" in printed
    assert "0.4000 [0.3900, 0.4100]" in printed
    assert "0.1000 [0.0900, 0.1100]" in printed
    assert "1: 0.0440, 2: 0.0000" in printed
    assert "0.7654" in printed
