"""Every target of `fuzz.py` for a moment, from whole content on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prismrec.config import Config
from prismrec.serve.event_segments import record_bytes
from prismrec.toml import dump_toml

from .strange import TIMES

ROWS = np.arange(12, dtype=np.int64).reshape(2, 6)
CORPUS = {
    "manifest": b'{"kind": "store", "format_version": 2, "files": {"a": {"bytes": 3, "sha256": "x"}, "../b": {}}}',
    "segment": b'["page", "shop"]\n' + record_bytes(ROWS),
    "toml": dump_toml(Config()).encode(),
    "settings": b"train.epochs=5\nmodel.routing=hard\nmodel.dwell_boundaries=[1, 2]",
    "values": ROWS[0, :5].tobytes() + b"\n" + ROWS[1, :3].tobytes(),
}


@pytest.mark.parametrize("target", CORPUS)
def test_a_target_holds(tmp_path: Path, tried, target: str) -> None:
    pytest.importorskip("atheris")
    corpus, temporary = tmp_path / "corpus", tmp_path / "temporary"
    corpus.mkdir()
    temporary.mkdir()
    (corpus / "whole").write_bytes(CORPUS[target])
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), target, str(corpus)]
    options = [f"-atheris_runs={1500 * TIMES}", "-max_len=4096", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        command + options + ["-seed=1"] * (TIMES == 1),
        capture_output=True,
        text=True,
        timeout=120 * TIMES,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [runs] = re.findall(r"Done (\d+) (?:runs )?in", done.stderr) or ["0"]
    assert int(runs) >= 1000, done.stderr[-3000:]
    tried("inputs by coverage", int(runs))
