"""What `--help` says, and that docs/cli.md says the same; `python tests/cli/test_help.py` writes that page."""

import contextlib
import io
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pytest

from prismrec.cli import app, main

VERBS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
INTRODUCTION = """\
# The command line

Each verb reads one directory and writes another. Results go to standard output, progress and warnings to standard
error. After a mistake there is one line on standard error, and the status is 1; it is 2 after wrong usage, and 130
after Ctrl-C. `python -m prismrec` is the same command.
"""


def help_of(*verb: str) -> str:
    text, narrow = io.StringIO(), mock.patch.dict("os.environ", COLUMNS="80")
    with narrow, contextlib.redirect_stdout(text), pytest.raises(SystemExit, match="0"):
        main([*verb, "--help"])
    return text.getvalue()


def page() -> str:
    blocks = [(f"prismrec {verb}", help_of(verb)) for verb in VERBS]
    sections = [f"## {title}\n\n```text\n{text}```\n" for title, text in blocks]
    return "\n".join([INTRODUCTION, f"```text\n{help_of()}```\n", *sections])


def test_the_verbs_are_those_of_the_contract() -> None:
    assert VERBS == [
        "prepare",
        "append",
        "compact",
        "train",
        "plan",
        "tune",
        "evaluate",
        "export",
        "extend",
        "recommend",
        "load",
        "serve",
        "demo",
        "doctor",
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_a_whole_summary_and_an_example(verb: str) -> None:
    text = help_of(verb)
    assert text.startswith(f"Usage: prismrec {verb} ")
    assert f"\n  Example:\n    prismrec {verb}" in text
    summary = text.splitlines()[2].strip()
    assert f"  {verb:<11}{summary}\n" in help_of()


@pytest.mark.parametrize("command", [command for command in app.registered_commands if command.callback])
def test_every_option_is_explained(command) -> None:
    for name, annotation in command.callback.__annotations__.items():
        assert name == "return" or annotation.__metadata__[0].help


def test_the_page_of_the_documentation_is_what_help_says() -> None:
    assert PAGE.read_text() == page(), f"run python {Path(__file__).name} to write {PAGE.name} again"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"prismrec {version('prismrec')}\n"


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, prismrec, prismrec.cli\n"
        "try: prismrec.cli.main(['train', '--help'])\n"
        "finally: print(sorted({'torch', 'polars', 'faiss', 'numpy', 'onnxruntime', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_torchrun_can_start_it() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "prismrec", "--version"]
    assert subprocess.run(torchrun, capture_output=True, text=True, check=True).stdout.startswith("prismrec ")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
