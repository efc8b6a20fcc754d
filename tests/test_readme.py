"""The README lists every file with what its first line says; `python tests/test_readme.py` writes the list anew."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README, SOURCE = ROOT / "README.md", ROOT / "src" / "prismrec"


def files() -> str:
    """One line per module: path and first sentence of its docstring."""
    paths = sorted(SOURCE.rglob("*.py"), key=lambda path: (len(path.relative_to(SOURCE).parts) > 1, path))
    lines = []
    for path in paths:
        if path.name != "__init__.py":
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            first = " ".join(docstring.split("\n\n")[0].split()).rstrip(".")
            lines.append(f"- `{path.relative_to(SOURCE).as_posix()}`: {first}")
    return "\n".join(lines)


def written(readme: str) -> str:
    """The README with the list as it should be."""
    return re.sub(r"(## The files\n\n).*?(\n\n(?!- ))", lambda found: found[1] + files() + found[2], readme, flags=re.S)


def test_every_file_is_listed_as_it_describes_itself() -> None:
    readme = README.read_text()
    assert "- `cli.py`: " in readme
    assert written(readme) == readme, "run python tests/test_readme.py"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
