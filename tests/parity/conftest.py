"""The golden numbers of the reference: one folder of `.npz` files, from GOLDEN_DIR or tests/golden."""

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
FILES = sorted(GOLDEN_DIR.glob("*.npz"))


@pytest.fixture
def golden_arguments(golden: Path) -> dict[str, Any]:
    """Arguments of a golden file: `key=value` and `{...}` of its note, and flags in its name (`__unit_True`)."""
    note = json.loads((GOLDEN_DIR / "manifest.json").read_text())[golden.stem]["note"]
    found = {key: ast.literal_eval(value) for key, value in re.findall(r"(\w+)=([-\w.]+)", note)}
    for literal in re.findall(r"\{.*?\}", note):
        found |= ast.literal_eval(literal)
    flags = re.findall(r"__(?:\w+?_)??([a-z]+)_(True|False)", golden.stem)
    return found | {name: value == "True" for name, value in flags}


def pytest_generate_tests(metafunc: Any) -> None:
    """Run a test that asks for `golden` once per file of its kind; trajectories have a module of their own."""
    if "golden" in metafunc.fixturenames:
        trajectories = "trajectory" in metafunc.module.__name__
        chosen = [path for path in FILES if path.stem.startswith("train_trajectory") == trajectories]
        metafunc.parametrize("golden", chosen, ids=[path.stem for path in chosen])
