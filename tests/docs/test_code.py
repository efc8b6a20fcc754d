"""The code of the documentation and of the README runs, page by page, on forty households of the demo's data.

A block of `python` or `sh` is run, in the order of its page; one of `toml` with a title is written to that file. What
cannot be run here has the comment `<!-- not run: why -->` on the line before it.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from prismrec.cli import main
from prismrec.data.datasets import complete_journey

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of TorchRec's import
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?P<before>^[^\n]*\n)?^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$", re.M | re.S
)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n")
FEW = "--set train.epochs=1 --set model.embedding_dim=16"
STORE = "prismrec prepare --events events.parquet --items items.parquet --out store\n"
BEFORE = {
    "report.md": f"{STORE}prismrec train store --out run {FEW}",
    "scaling.md": f"{STORE}prismrec train store --out sunday {FEW}",
    "serving.md": f"{STORE}prismrec train store --out run {FEW}\nprismrec export run --out bundles/current",
}
"""What a page takes for granted."""


class Block(NamedTuple):
    language: str
    title: str | None
    code: str
    line: int
    run: bool


Tables = dict[str, pl.DataFrame]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("code"))
        run = NOT_RUN.fullmatch(fence["before"] or "") is None
        yield Block(fence["language"], fence["title"], fence["code"], line, run)


@pytest.fixture(scope="module")
def tables() -> Tables:
    """What the pages find under the names they use: 40 households, the last days of the year apart."""
    events, items = complete_journey()
    households = events["user_id"].unique().sort().head(40)
    events = events.filter(pl.col("user_id").is_in(households.implode()))
    events = events.join(items, on="item_id", how="semi").sort("timestamp")
    events = events.group_by("user_id").tail(40).sort("timestamp")
    late = pl.col("timestamp") >= pl.datetime(2017, 12, 28)
    items = items.join(events, on="item_id", how="semi")
    new = pl.Series("item_id", [99_000_001, 99_000_002])
    new_items = items.head(2).with_columns(new)
    yours = {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at"}
    return {
        "events": events.filter(~late),
        "items": items,
        "monday": events.filter(late),
        "new_items": new_items,
        "new": new_items.with_columns(item_id=new + 2),
        "purchases": events.rename(yours),
        "products": items.rename({"item_id": "sku"}),
        "visitors": events.head(20).with_columns(user_id=pl.lit(99_000_000)).unique("timestamp"),
    }


@pytest.fixture
def folder(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, frame in tables.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "big.toml").write_text("[train]\nbatch_size = 16\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prismrec.data.datasets.complete_journey", lambda: (tables["events"], tables["items"]))
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {}
    if not any(block.run and block.language in ("python", "sh") for block in blocks(page)):
        return
    shell(BEFORE.get(page.name, ""))
    for block in blocks(page):
        if block.run and block.language == "python":
            exec(compile("\n" * block.line + block.code, page, "exec"), names)
        elif block.run and block.language == "sh":
            shell(block.code)
        elif block.title:
            (folder / block.title).write_text(block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_escapes(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= {"python", "sh", "toml", "text"}
    assert page.read_text().count("\n```") == 2 * len(list(blocks(page)))


def test_what_is_not_run_is_found() -> None:
    serving = list(blocks(ROOT / "docs" / "serving.md"))
    assert [block.run for block in serving].count(False) == 5
    assert serving[0].code == "prismrec serve bundle --host 0.0.0.0 --port 8000\n"


def shell(code: str) -> None:
    """Run lines of shell; those of PrismRec in this process, which saves its start."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["prismrec"]:
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
            assert not ended.value.code, line
        elif words:
            subprocess.run(["bash", "-ec", line], check=True)
