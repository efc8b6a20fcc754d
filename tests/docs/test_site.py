"""The site builds without a warning, takes nothing from other hosts, and holds every setting and formula."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydantic import BaseModel

from prismrec.config import Config, PrepareConfig

ROOT = Path(__file__).parents[2]
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("use", "href")}


class Resources(HTMLParser):
    """What a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if (tag, name) in LOADED]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_there(site: Path) -> None:
    written = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert written | {"404"} == {page.stem for page in site.glob("*.html")}
    assert not list(site.rglob("*.py"))


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        resources = Resources()
        resources.feed(page.read_text())
        assert resources.found
        assert not [url for url in resources.found if re.match(r"(\w+:)?//", url)], page.name
    for style in site.rglob("*.css"):
        assert not re.findall(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", style.read_text()), style.name


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    method = (site / "method.html").read_text()
    assert method.count('display="block"') > 8
    for page in site.glob("*.html"):
        assert "arithmatex" not in page.read_text()
        assert not re.search(r"<mtext>\\|<mi>\\", page.read_text()), page.name  # a command that was not understood


def test_every_setting_is_there(site: Path) -> None:
    page = (site / "configuration.html").read_text()
    names = [*settings(PrepareConfig), *settings(Config)]
    assert len(names) > 70
    assert not [name for name in names if f"<code>{name}</code>" not in page]


def test_files_outside_the_site_are_named(site: Path) -> None:
    scaling = (site / "scaling.html").read_text()
    assert "results (<code>benchmarks/results/plan-2026-11-26.md</code>)" in scaling
    assert 'href="../' not in scaling


def settings(section: type[BaseModel]) -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        names += settings(field.annotation) if nested else [name]
    return names
