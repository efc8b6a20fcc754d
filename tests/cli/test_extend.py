"""New items through the command line: without torch, and whole or not at all."""

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prismrec.data.tables import read_table

PROGRAM = """
import sys
sys.modules['torch'] = None  # importing it fails
from prismrec.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    sys.exit(ended.code)
"""


@pytest.fixture(params=["text, Parquet", "integers, CSV, processes"])
def shop(request: pytest.FixtureRequest, shops: dict[str, Any]) -> Any:
    return shops[request.param]


@pytest.fixture
def new(shop: Any, tmp_path: Path) -> Path:
    """Two new items, in a file of the kind that the shop has."""
    return _write_new(tmp_path / f"new{shop.shop.items.suffix}", shop)


@pytest.fixture
def new_parquet(made: Any, tmp_path: Path) -> Path:
    """The same of the first shop."""
    return _write_new(tmp_path / "new.parquet", made)


def _write_new(path: Path, shop: Any) -> Path:
    text = shop.shop.frame.schema["item_id"] == pl.String
    ids = ["item 1001", "item 1002"] if text else [1001, 1002]
    frame = pl.DataFrame({"item_id": ids, "category": [3, 4], "title": ["A", "B"]})
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return path


def _without_torch(*arguments: object, file_bytes: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the command line where torch cannot be imported, and no file may grow beyond a size."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    limit = None if file_bytes is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, preexec_fn=limit)


def test_new_items_are_recommended_without_torch(shop: Any, new: Path, tmp_path: Path) -> None:
    extended, recs = tmp_path / "extended", tmp_path / "recs.parquet"
    done = _without_torch("extend", shop.bundle, "--items", new, "--out", extended)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{extended}\n", "")
    done = _without_torch("recommend", extended, "--k=62", "--include-seen", "--out", recs)
    assert (done.returncode, done.stderr) == (0, "")
    found = pl.read_parquet(recs)
    assert found.schema["item_id"] == shop.shop.frame.schema["item_id"]
    assert len(found) == 40 * 62  # everyone, the whole catalogue
    for item in read_table(new)["item_id"]:
        assert len(found.filter(item_id=item)) == 40


def test_scores_of_old_items_are_as_before(made: Any, call: Any, new_parquet: Path, tmp_path: Path) -> None:
    extended = tmp_path / "extended"
    assert call("extend", made.bundle, "--items", new_parquet, "--out", extended).status == 0
    for bundle, k in ((made.bundle, 60), (extended, 62)):
        call("recommend", bundle, f"--k={k}", "--include-seen", "--out", tmp_path / f"{k}.parquet")
    before, after = (pl.read_parquet(tmp_path / f"{k}.parquet") for k in (60, 62))
    both = before.join(after, on=["user_id", "item_id"], suffix="_after")
    assert len(both) == len(before) == 40 * 60
    np.testing.assert_allclose(both["score_after"], both["score"], rtol=0, atol=1e-6)


def test_a_disk_that_is_full_leaves_what_was_there(made: Any, new_parquet: Path, tmp_path: Path) -> None:
    """A real failure in the middle of writing: no file may grow beyond a limit."""
    there = shutil.copytree(made.bundle, tmp_path / "there")
    before = (there / "manifest.json").read_bytes()
    for out in (there, tmp_path / "new"):
        done = _without_torch("extend", made.bundle, "--items", new_parquet, "--out", out, file_bytes=60_000)
        assert done.returncode == 1
        assert re.fullmatch(r"prismrec: .*: File too large\n", done.stderr)
    assert (there / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.parquet", "there"]
