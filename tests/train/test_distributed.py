"""Several real processes train as one does: the same losses, checkpoints that any number of them goes on from.

Every process imports PyTorch and TorchRec, which takes longer than what it trains here, so one start of two
processes makes all the runs that are compared with those of a single process.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from rich.console import Console

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.model.encode import encode_items
from prismrec.model.run import load_run
from prismrec.toml import dump_toml
from prismrec.train.checkpoint import Checkpoint, load_checkpoint
from prismrec.train.trainer import train

pytest.importorskip("torchrec", reason="needs `make distributed`")

MakeConfig = Callable[..., Config]
QUIET = Console(quiet=True)
STEPS = 20
PATIENCE = 600  # seconds; no test takes so long, but a process that waits for ever is to be noticed
SETTINGS = (
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=5",
    "train.validate_every=10",
    "model.hashing.num_hashes=4",
)
TRANSFORMER = (
    "model.encoder.kind=transformer",
    "model.encoder.dropout=0",
    "loss.in_batch_negatives=16",
    "loss.uniform_negatives=16",
    "loss.usage_weight=0.1",
    "loss.diversity_weight=0.1",
)
# With batches of two targets one of two ranks often has nothing to do.
CASES: dict[str, tuple[str, ...]] = {
    "reference, by rows": ("train.sharding=row_wise",),
    "transformer, by tables": ("train.sharding=table_wise", *TRANSFORMER),
    "users' ids, as planned": (*TRANSFORMER, "model.user_id=true", "loss.queue_size=0", "loss.reading=log_sum_exp"),
    "batches of one and two": ("train.batch_size=2",),
    "windows of one and two": ("train.batch_size=2", *TRANSFORMER),
}
LOCAL = ("loss.negatives_scope=local", *TRANSFORMER, "model.encoder.dropout=0.2")

TRAIN_ALL = """
import sys
from pathlib import Path
import torch
from rich.console import Console
from prismrec.toml import load_config
from prismrec.train.distributed import join_ranks
from prismrec.train.checkpoint import Checkpoint, load_checkpoint
from prismrec.train.trainer import train

torch.set_num_threads(1)
store, folder = map(Path, sys.argv[1:])
with join_ranks():
    for config in sorted(folder.glob("*.toml")):
        train(store, config.with_suffix(""), load_config(config), console=Console(quiet=True))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes, *arguments]
    return subprocess.run([*map(str, command)], env=environment(), capture_output=True, text=True, timeout=PATIENCE)


def start(store: Store, out: Path, *arguments: object) -> subprocess.Popen[str]:
    """`prismrec train` in the background."""
    command = [sys.executable, "-m", "prismrec", "train", store.path, "--out", out, *arguments]
    return subprocess.Popen([*map(str, command)], env=environment(), stdout=-1, stderr=-1, text=True)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run) if line["kind"] == "train"]


def kill_rank(job: subprocess.Popen[str], rank: int, run: Path, steps: int) -> None:
    """Kill one of the processes of a job once so many steps are logged."""
    log = run / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < steps:
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    for process in psutil.Process(job.pid).children(recursive=True):
        if process.environ().get("RANK") == str(rank):
            process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def folder(store: Store, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by two processes, one after the other."""
    folder = tmp_path_factory.mktemp("runs")
    for name, overrides in {**CASES, "local": LOCAL}.items():
        (folder / f"{name}.toml").write_text(dump_toml(make_config(*SETTINGS, *overrides)))
    (folder / "all.py").write_text(TRAIN_ALL)
    done = torchrun(2, folder / "all.py", store.path, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(
    folder: Path, store: Store, make_config: MakeConfig, tmp_path: Path, name: str
) -> None:
    one = train(store.path, tmp_path / "run", make_config(*SETTINGS, *CASES[name]), console=QUIET)
    two = folder / name
    assert len(losses(one)) == STEPS
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-4)
    recalls = [[line["recall@4"] for line in lines(run) if line["kind"] == "valid"] for run in (one, two)]
    np.testing.assert_allclose(*recalls, atol=1e-6)
    np.testing.assert_allclose(*(encode_items(load_run(run).model, store) for run in (one, two)), atol=1e-3)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    states = [checkpoint_of(run) for run in (one, two)]
    assert [*states[0].modules[0]] == [*states[1].modules[0]]
    squares = [state.optimizers[1]["state"][0]["squares"] for state in states]
    torch.testing.assert_close(*squares, rtol=1e-3, atol=1e-6)


def checkpoint_of(run: Path) -> Checkpoint:
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None
    return checkpoint


def test_local_negatives_are_others(folder: Path) -> None:
    """Each process contrasts with a draw from its own half, and keeps a queue of its own."""
    queues = checkpoint_of(folder / "local").queue
    assert queues.shape == (2, 64)
    assert not torch.equal(*queues)
    assert np.isfinite(losses(folder / "local")).all()
    assert losses(folder / "local")[-1] < losses(folder / "local")[0]


@pytest.fixture(scope="module")
def config(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "settings.toml"
    path.write_text(dump_toml(make_config(*SETTINGS)))
    return path


@pytest.fixture(scope="module")
def uninterrupted(store: Store, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(store.path, tmp_path_factory.mktemp("uninterrupted") / "run", make_config(*SETTINGS), console=QUIET)


@pytest.fixture(scope="module")
def killed(store: Store, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two processes of which one was killed at step 8; its last checkpoint is of step 5."""
    out = tmp_path_factory.mktemp("killed") / "run"
    job = start(store, out, "--config", config, "--nproc", 2)
    kill_rank(job, 1, out, steps=8)
    said, complaint = job.communicate(timeout=PATIENCE)
    assert job.returncode == 1
    assert said == ""
    last = complaint.splitlines()[-1]
    assert last.startswith("prismrec: rank 1 (process ")
    assert last.endswith("was killed by SIGKILL, so that training stopped; the same command with --resume goes on from "
                         "the last checkpoint")  # fmt: skip
    assert "Traceback" not in complaint
    return out


@pytest.mark.parametrize("processes", [1, 3])
def test_any_number_of_processes_goes_on(
    store: Store, killed: Path, uninterrupted: Path, tmp_path: Path, processes: int
) -> None:
    out = tmp_path / "run"
    subprocess.run(["cp", "-r", killed, out], check=True)
    job = start(store, out, "--resume", "--nproc", processes)
    said, complaint = job.communicate(timeout=PATIENCE)
    assert (job.returncode, said) == (0, f"{out}\n"), complaint
    assert len(losses(out)) == STEPS
    np.testing.assert_allclose(losses(out), losses(uninterrupted), atol=1e-4)
    load_run(out)


def test_all_are_started_again_when_one_is_lost(
    store: Store, config: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    job = start(store, tmp_path / "run", "--config", config, "--nproc", 2, "--restarts", 1)
    kill_rank(job, 0, tmp_path / "run", steps=8)
    said, complaint = job.communicate(timeout=PATIENCE)
    assert (job.returncode, said) == (0, f"{tmp_path / 'run'}\n"), complaint
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(uninterrupted), atol=1e-4)


def test_what_is_wrong_is_said_once(store: Store, tmp_path: Path) -> None:
    """Only the first rank plans; the other hears of it and does not wait. Nothing is written."""
    job = start(store, tmp_path / "run", "--nproc", 2, "--set", "train.table_optimizer=sparse_adam")
    said, complaint = job.communicate(timeout=PATIENCE)
    assert (job.returncode, said) == (1, "")
    assert complaint.splitlines() == [
        "prismrec: train.table_optimizer='sparse_adam': several processes train tables by rowwise_adagrad only"
    ]
    assert not (tmp_path / "run").exists()  # or the corrected command would be refused


def test_without_torchrec_it_says_what_to_install(store: Store, tmp_path: Path) -> None:
    missing = "import sys; sys.modules['torchrec'] = None; from prismrec.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", missing, "train", str(store.path), "--out", str(tmp_path / "run"), "--nproc", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("prismrec: training in several processes needs TorchRec")
    assert "make distributed" in done.stderr
