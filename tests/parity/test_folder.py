"""No golden file goes unchecked: an empty folder or a file that no test reads is a failure, not a skip."""

from pathlib import Path


def test_the_folder_holds_golden_files(golden_dir: Path) -> None:
    assert list(golden_dir.rglob("*.npz")), f"{golden_dir}: no golden files"


def test_nothing_else_is_there(golden_dir: Path) -> None:
    known = {"README.md", "manifest.json"}
    others = [path for path in golden_dir.rglob("*") if path.is_file() and path.suffix != ".npz"]
    assert {path.name for path in others} <= known, "no parity check reads these files: add one, never skip a file"
