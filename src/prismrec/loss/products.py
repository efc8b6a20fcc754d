"""Large matrix products of float32 on a CPU, by oneDNN where PyTorch has it; anything else by PyTorch as ever.

PyTorch takes these from MKL, which runs at less than half the speed on AMD's processors (benchmarks/training.py); on
others the two are level. oneDNN is reached by the operation that `torch.compile` puts in place of dense layers. It
compiles a kernel for every shape, so those that vary from step to step are rounded to one of a few.
"""

import platform
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HAS_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine().lower() in ("x86_64", "amd64")
_LEAST_WORK = 2**21  # multiplications, below which a call costs more than it saves
_LEAST_WIDTH = 16
_MANY_ROWS = 1024


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`: [..., K], [N, K], [N] -> [..., N]; the first derivative only."""
    if _is_faster(x, weight):
        result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return torch.nn.functional.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_onednn(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        rows, flat = gradient.flatten(0, -2), x.flatten(0, -2)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(rows, weight).view_as(x) if of_x else None,
            _of_weight(rows, flat) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    """`gradient.T @ x`, laid out as weights are, unless there are so many rows that to turn it around pays."""
    return inner_product(gradient, x) if len(x) >= _MANY_ROWS else product(gradient.T, x)


def product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, without a gradient: [M, K], [K, N] -> [M, N]."""
    return _by_onednn(left, right.T) if _is_faster(left, right.T) else left @ right


def inner_product(left: Tensor, right: Tensor) -> Tensor:
    """`left.T @ right`, without a gradient: [M, K], [M, N] -> [K, N]."""
    if left.shape[1] > right.shape[1]:  # the wider one as what oneDNN takes for weights is a quarter faster
        return inner_product(right, left).T
    if not _is_faster(left.T, right.T):
        return left.T @ right
    rows = _rounded_down(len(left))
    result = _call(left[:rows].T, right[:rows].T)
    return result if rows == len(left) else result.addmm_(left[rows:].T, right[rows:])


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    return (
        HAS_ONEDNN
        and not torch.compiler.is_compiling()  # nor exporting
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() * len(weight) >= _LEAST_WORK
        and min(weight.shape) >= _LEAST_WIDTH
        and not torch.is_autocast_enabled("cpu")
    )


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[M, K], [N, K], [N] -> [M, N], of rounded M; the smaller of input and result is copied for that."""
    rows = _rounded_down(len(x))
    if rows == len(x):
        return _call(x, weight, bias)
    if x.shape[1] <= len(weight):
        more = -len(x) % _step(len(x))
        return _call(torch.nn.functional.pad(x, (0, 0, 0, more)), weight, bias)[: len(x)]
    rest = torch.nn.functional.linear(x[rows:], weight, bias)
    return torch.cat([_call(x[:rows], weight, bias), rest])


def _rounded_down(size: int) -> int:
    return size - size % _step(size)


def _step(size: int) -> int:
    """What a size is rounded to: its five highest bits stay."""
    return 1 << max(size.bit_length() - 5, 0)


def _call(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(_plain(x), _plain(weight), bias, "none", [], "")
    return result


def _plain(matrix: Tensor) -> Tensor:
    """Without gaps between its rows or columns: with them oneDNN takes each number for itself."""
    return matrix if matrix.is_contiguous() or matrix.mT.is_contiguous() else matrix.contiguous()
