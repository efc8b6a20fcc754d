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
        gradients = [torch.zeros_like(tensor) if tensor.requires_grad else tensor.new_empty(0) for tensor in tensors]
        for part, rows in parts:
            inputs = [piece.detach().requires_grad_(piece.requires_grad) for piece in _sliced(tensors, rows)]
            with torch.enable_grad():
                loss = part(*inputs)
            needed = [index for index, piece in enumerate(inputs) if piece.requires_grad]
            found = torch.autograd.grad(loss, [inputs[index] for index in needed], allow_unused=True)
            for index, gradient in zip(needed, found, strict=True):
                if gradient is not None:
                    gradients[index][rows[index]] += gradient
            total += loss.detach()
        ctx.needed = [tensor.requires_grad for tensor in tensors]
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        pairs = zip(ctx.saved_tensors, ctx.needed, strict=True)
        return None, *(gradient * scale if needed else None for gradient, needed in pairs)


def _sliced(tensors: Sequence[Tensor], rows: Slices) -> list[Tensor]:
    return [tensor[piece] for tensor, piece in zip(tensors, rows, strict=True)]
