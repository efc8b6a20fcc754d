"""What training takes from the hardware: the numbers it multiplies in, their order, and memory that it keeps."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Literal

import torch

_LARGE = 256
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_BLOCKS, _NEVER = (2**30, 2**25), 2**31 - 1
"""Blocks that are kept: before 2.35, glibc refuses what is above 32 MB."""


def trains_in_bfloat16(precision: Literal["auto", "float32", "bfloat16"], device: torch.device, dim: int) -> bool:
    """Whether encoders of vectors [dim] multiply in bfloat16: as set; by default large ones, on hardware that has it.

    For smaller ones the conversions cost as much as is gained, or more; a processor that has to emulate it is many
    times slower (docs/speed.md).
    """
    if precision == "auto":
        return dim >= _LARGE and has_bfloat16(device)
    return precision == "bfloat16"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)  # avx512_bf16, amx_bf16


def keep_freed_memory() -> None:
    """Let glibc keep what large tensors leave for the next step; other allocators are left as they are.

    Otherwise it gives it back, and the system maps it again page by page, which has cost up to a third of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS)  # the first that is taken
        mallopt(_TRIM_THRESHOLD, _NEVER)


@contextlib.contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Let PyTorch take only algorithms that give the same bits each time, or fail where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
