"""The golden numbers of the reference: one folder of `.npz` files, from GOLDEN_DIR or tests/golden.

Shapes come from the arrays, arguments from `manifest.json`, and what both leave out from the file's name.
"""

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

COMMITTED = Path(__file__).parents[1] / "golden"
GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", COMMITTED))
FILES = sorted(GOLDEN_DIR.rglob("*.npz"))

NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
ARGUMENT = re.compile(rf"(\w+)\s*=\s*(True|False|None|{NUMBER}|\[[^\]]*\]|\([^)]*\))")


def pytest_generate_tests(metafunc: Any) -> None:
    """Run a test that asks for `golden` once per file of its kind; trajectories have a module of their own."""
    if "golden" in metafunc.fixturenames:
        trajectories = "trajectory" in metafunc.module.__name__
        chosen = [path for path in FILES if path.stem.startswith("train_trajectory") == trajectories]
        metafunc.parametrize("golden", chosen, ids=[path.stem for path in chosen])


@pytest.fixture
def golden_dir() -> Path:
    return GOLDEN_DIR


@pytest.fixture
def golden_arguments(golden: Path) -> dict[str, Any]:
    """Arguments of a golden file: flags in its name (`__unit_True`), then `key=value` and `{...}` of its note."""
    flags = re.findall(r"(?:^|_)([a-z]+)_(True|False)", golden.stem)
    found: dict[str, Any] = {name: value == "True" for name, value in flags}
    note = _note(golden)
    for literal in re.findall(r"\{.*?\}", note):
        found |= ast.literal_eval(literal)
    return found | {key: ast.literal_eval(value) for key, value in ARGUMENT.findall(note)}


def _note(golden: Path) -> str:
    """The note of a file's manifest entry, or of the committed file of the same name."""
    for manifest in (GOLDEN_DIR / "manifest.json", COMMITTED / "manifest.json"):
        entries = json.loads(manifest.read_text()) if manifest.exists() else {}
        if golden.stem in entries:
            return str(entries[golden.stem].get("note", ""))
    return ""
