"""The report's files and tables, from a literal report."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from prismrec.evaluate.bootstrap import Estimate
from prismrec.evaluate.findings import Diagnostics, Method, Report
from prismrec.evaluate.page import render
from prismrec.evaluate.report import print_report, write_report


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, users=7)


def method(name: str, recall: float, **fields: object) -> Method:
    metrics = ("recall", "hit_rate", "ndcg", "mrr", "tail_recall")
    return Method(
        name=name,
        kind="baseline",
        metrics={f"{metric}@{k}": estimate(recall) for metric in metrics for k in (5, 10)},
        catalogue={f"{metric}@{k}": 0.25 for metric in ("coverage", "gini", "mean_popularity") for k in (5, 10)},
        recall_by_decile={k: [recall, None, *[0.0] * 8] for k in (5, 10)},
    ).model_copy(update=fields)


@pytest.fixture
def report() -> Report:
    found = Diagnostics(
        head_usage=[0.99, 0.01],
        head_entropy=0.08,
        dead_heads=[1],
        cosine_mean=0.31,
        cosine_max=0.62,
        found=[0.8, 0.2],
        vectors_used=1.5,
        recall_lost=[estimate(0.044), estimate(0.0)],
        auc=0.7654,
    )
    return Report(
        settings={"run": "runs/<first>", "split": "test", "seed": 3, "date": "2024-05-06T07:08:09+00:00"},
        counts={"users": 1234, "users_evaluated": 1000},
        ks=[5, 10],
        headline_k=10,
        methods=[
            method("<first> & best", 0.5, kind="model", diagnostics=found),
            method("popular", 0.4, advantage=estimate(0.1)),
        ],
    )


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
    assert "http" not in page
    assert tags.seen.count("rect") == 2 * 10  # one bar per method and decile


def test_bars_share_one_scale(report: Report) -> None:
    page = render(report)
    assert 'height="90.0"' in page  # recall 0.5, the highest
    assert 'height="72.0"' in page  # recall 0.4


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
