import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.train.hardware import has_bfloat16, keep_freed_memory, trains_in_bfloat16
from prismrec.train.trainer import train

CPU = torch.device("cpu")

FAULTS = """
import resource, sys
import torch
from prismrec.train.hardware import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum(fill() for _ in range(30)))
"""


@pytest.mark.parametrize("there", [True, False])
def test_by_default_large_models_train_in_bfloat16_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": there})
    assert [trains_in_bfloat16("auto", CPU, dim) for dim in (64, 255, 256)] == [False, False, there]
    assert [trains_in_bfloat16(precision, CPU, 512) for precision in ("float32", "bfloat16")] == [False, True]


def test_a_processor_has_bfloat16_by_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({"avx512_f": True, "avx512_bf16": False}, False), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert has_bfloat16(CPU) == expected


def test_training_says_that_bfloat16_is_emulated(
    store: Store, make_config: Callable[..., Config], tmp_path: Path, said: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("train.device=cpu", "train.precision=bfloat16", "train.max_steps=1")
    warning = "train.precision='bfloat16': cpu only emulates it; float32 is many times faster"
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=there: {"avx512_bf16": found})
        train(store.path, tmp_path / str(there), config, console=said)
        assert said.export_text().count(warning) == (not there)


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALL_HUGE = HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text()


@pytest.mark.skipif(sys.platform != "linux" or ALL_HUGE, reason="of glibc, with pages of one size")
def test_freed_memory_is_there_for_the_next_tensor() -> None:
    """64 MiB are 16,384 pages, each of which the system maps again for 30 tensors; kept ones it maps a few times."""
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", FAULTS, mode], stdout=-1, text=True, check=True).stdout)
        for mode in ("kept", "given back")
    }
    assert faults["given back"] > 30 * 16_384
    assert faults["kept"] < faults["given back"] / 2


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
@pytest.mark.parametrize(("most", "kept"), [(2**31, 2**30), (2**25, 2**25)], ids=["2.35", "2.34"])
def test_older_libraries_keep_the_largest_blocks_that_they_can(
    monkeypatch: pytest.MonkeyPatch, most: int, kept: int
) -> None:
    """To set one threshold ends the adaptation of the other, which then would stay at 128 KB."""
    thresholds = {-3: 2**17, -1: 2**17}

    def mallopt(what: int, value: int) -> int:
        taken = what != -3 or value <= most
        thresholds.update({what: value} if taken else {})
        return int(taken)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert thresholds == {-3: kept, -1: 2**31 - 1}
