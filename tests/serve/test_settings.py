"""The page of the documentation and the image have what the code has."""

import re
import tomllib
from pathlib import Path

from prismrec.serve.settings import ServeConfig

ROOT = Path(__file__).parents[2]


def test_the_page_lists_every_setting() -> None:
    rows = []
    for name, field in ServeConfig.model_fields.items():
        rows.append(f"| `{name}` | {field.default} | {' '.join((field.description or '').split())} |")
    page = (ROOT / "docs" / "serving.md").read_text()
    assert "\n".join(rows) in page, "\n".join(rows)


def test_the_image_installs_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {
        re.split(r";", each)[0].strip() for each in (*project["dependencies"], *extras["pgvector"], *extras["redis"])
    }
    lines = (ROOT / "deploy" / "requirements.txt").read_text().splitlines()
    installed = {line for line in lines if not line.startswith("#")}
    assert installed <= asked
    assert not any(each.startswith(("torch", "onnxscript")) for each in installed)
