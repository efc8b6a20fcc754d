"""What is made twice is the same twice, byte for byte: all verbs, each time in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl

from .test_extremes import tables

VERBS = """
prepare --events events.parquet --items items.parquet --out store
train store --out run --set train.deterministic=true --set train.max_steps=20 --set train.validate_every=10
evaluate run --split test --k 10 --examples 1
export run --out bundle
recommend bundle --k 10 --out recs.parquet
"""
PROGRAM = """
import sys
from prismrec.cli import main

for line in sys.argv[1].strip().splitlines():
    try:
        main(line.split())
    except SystemExit as ended:
        assert not ended.code, line
"""
SETTINGS = (
    "--set model.embedding_dim=16 --set model.encoder.num_layers=1 --set train.batch_size=32 --set train.device=cpu"
)


def make(folder: Path, hash_seed: int) -> dict[str, bytes]:
    """All files that the verbs leave in a folder that starts with tables alone."""
    verbs = VERBS.replace("train store", f"train store {SETTINGS}")
    surroundings = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "SOURCE_DATE_EPOCH": "1700000000", "COLUMNS": "80"}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, verbs], cwd=folder, env=surroundings, check=True, capture_output=True
    )
    made = {path for path in folder.rglob("*") if path.is_file() and path.parent != folder}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in {*made, folder / "recs.parquet"}}


def test_twice(tmp_path: Path) -> None:
    """At the same place, since a run tells where its store is."""
    (tmp_path / "work").mkdir()
    found = []
    for turn in (1, 2):
        work = tmp_path / "work"
        events, items = tables(num_items=200, events=40)
        events.with_columns(dwell=pl.col("item_id") % 7).write_parquet(work / "events.parquet")
        items.write_parquet(work / "items.parquet")
        found.append(make(work, hash_seed=turn))
        work.rename(tmp_path / str(turn))
        work.mkdir()
    first, second = found
    assert first.keys() == second.keys()
    assert {"recs.parquet", "run/report.html", "run/checkpoint/manifest.json", "bundle/index.faiss"} <= first.keys()
    assert [name for name in first if first[name] != second[name]] == []
