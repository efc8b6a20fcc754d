"""The batch of a step as a whole, where several processes ("ranks") train together and each holds a part of it.

A mean over the batch is one of all ranks' examples, its gradient that of the own examples: the trainer adds up
the gradients of all ranks. In a single process nothing is communicated.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn import functional


def number_of_ranks() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def summed(x: Tensor) -> Tensor:
    """Sum over the ranks, with the gradient of the own part."""
    if number_of_ranks() == 1:
        return x
    total: Tensor = _Summed.apply(x)  # type: ignore[no-untyped-call]
    return total


def batch_mean(values: Tensor) -> Tensor:
    """Mean over the examples of all ranks, [B, ...] -> [...]."""
    if number_of_ranks() == 1:
        return values.mean(0)
    return summed(values.sum(0)) / summed(values.new_tensor(len(values)))


@torch.no_grad()
def gather_rows(x: Tensor) -> Tensor:
    """Rows of all ranks, those of rank 0 first, [B, ...] -> [sum of B, ...]."""
    ranks = number_of_ranks()
    if ranks == 1:
        return x
    length = torch.tensor([len(x)], device=x.device)
    lengths = [torch.empty_like(length) for _ in range(ranks)]
    distributed.all_gather(lengths, length)
    longest = int(max(lengths))
    padded = functional.pad(x, (0, 0) * (x.ndim - 1) + (0, longest - len(x)))
    rows = [torch.empty_like(padded) for _ in range(ranks)]
    distributed.all_gather(rows, padded)
    return torch.cat([part[:length] for part, length in zip(rows, lengths, strict=True)])


def draw_apart() -> None:
    """From here on each rank draws random numbers of its own, from the last seed; rank 0 goes on as it would alone."""
    if number_of_ranks() > 1 and distributed.get_rank():
        state = np.random.SeedSequence((torch.initial_seed(), distributed.get_rank())).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0] >> np.uint64(1)))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient
