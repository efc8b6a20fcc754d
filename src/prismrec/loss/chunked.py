"""A loss and its gradients taken part by part, so that the logits of a whole batch never exist at once.

The gradient of each part is taken right after its value, while its logits are at hand, and kept for the
backward pass, which only scales it (as Liger Kernel's fused linear cross-entropy does, arXiv 2410.10989).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Part = Callable[..., Tensor]
"""Loss of one part, from its slice of each tensor."""
Slices = Sequence[slice]
"""Of one part: which rows of each tensor it takes."""


def sum_in_chunks(parts: Sequence[tuple[Part, Slices]], *tensors: Tensor) -> Tensor:
    """Sum of `part(*(tensor[rows] for ...))` over all parts, with gradients to the tensors.

    The first derivative only. Without gradients to take, the parts are just added.

    Args:
        parts: functions and the rows of each tensor that they take; all give a scalar.
        tensors: what gradients flow to.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        total: Tensor = _SumInChunks.apply(parts, *tensors)  # type: ignore[no-untyped-call]
        return total
    return torch.stack([part(*_sliced(tensors, rows)) for part, rows in parts]).sum()


class _SumInChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Sequence[tuple[Part, Slices]], *tensors: Tensor) -> Tensor:
        total = tensors[0].new_zeros(())
        gradients: list[Tensor | None] = [None] * len(tensors)
        for part, rows in parts:
            inputs = [piece.detach().requires_grad_(piece.requires_grad) for piece in _sliced(tensors, rows)]
            with torch.enable_grad():
                loss = part(*inputs)
            needed = [index for index, piece in enumerate(inputs) if piece.requires_grad]
            found = torch.autograd.grad(loss, [inputs[index] for index in needed], allow_unused=True)
            for index, gradient in zip(needed, found, strict=True):
                if gradient is not None:
                    gradients[index] = _added(gradients[index], gradient, tensors[index], rows[index])
            total += loss.detach()
        pairs = zip(gradients, tensors, strict=True)
        ctx.save_for_backward(
            *(torch.zeros_like(each) if found is None and each.requires_grad else found for found, each in pairs)
        )
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        return None, *(None if gradient is None else gradient * scale for gradient in ctx.saved_tensors)


def _added(total: Tensor | None, gradient: Tensor, tensor: Tensor, rows: slice) -> Tensor:
    """Add the gradient of some rows of a tensor; that of a whole tensor in its own layout, which is fastest."""
    if total is None:
        total = torch.zeros_like(gradient if gradient.shape == tensor.shape else tensor)
    total[rows] += gradient
    return total


def _sliced(tensors: Sequence[Tensor], rows: Slices) -> list[Tensor]:
    return [tensor[piece] for tensor, piece in zip(tensors, rows, strict=True)]
