import subprocess
import sys

import pytest
import torch

from prismrec.train.hardware import has_bfloat16, trains_in_bfloat16

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


def test_a_processor_trains_in_bfloat16_only_if_told_to() -> None:
    found = [trains_in_bfloat16(precision, CPU, 512) for precision in ("auto", "float32", "bfloat16")]
    assert found == [False, False, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_does_for_large_models() -> None:
    gpu = torch.device("cuda")
    assert [trains_in_bfloat16("auto", gpu, dim) for dim in (128, 256)] == [False, has_bfloat16(gpu)]


def test_a_processor_has_bfloat16_by_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({"avx512_f": True, "avx512_bf16": False}, False), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert has_bfloat16(CPU) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_there_for_the_next_tensor() -> None:
    """64 MiB are 16,384 pages, each of which the system maps again for 30 tensors; kept ones it maps a few times."""
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", FAULTS, mode], stdout=-1, text=True, check=True).stdout)
        for mode in ("kept", "given back")
    }
    assert faults["given back"] > 30 * 16_384
    assert faults["kept"] < faults["given back"] / 2
