"""The weighted softmax that carries the queue's weights, in the reference's form and in an exact one."""

from collections.abc import Sequence

import torch
from torch import Tensor

REFERENCE_EPSILON = 1e-8


def weighted_softmax(
    logits: Tensor, weights: Tensor, dim: int | Sequence[int] = -1, epsilon: float = REFERENCE_EPSILON
) -> Tensor:
    """Softmax with a non-negative weight on each exponential.

        y = n / sum(n),  n = w * exp(logits - max(logits)) + epsilon

    `epsilon` keeps rows without any weight finite (they become uniform) and floors log-probabilities
    near log(epsilon); it is part of the reference (Multi-CLRec, arXiv 2005.12964).

    Args:
        logits: any shape.
        weights: broadcastable to `logits`, not negative.
        dim: the dimension, or dimensions, that the result sums to one over.
    """
    shifted = logits - logits.amax(dim, keepdim=True)
    numerator = shifted.exp() * weights + epsilon
    return numerator / numerator.sum(dim, keepdim=True)


def weighted_log_softmax(
    logits: Tensor, weights: Tensor | None = None, dim: int | Sequence[int] = -1, epsilon: float = 0.0
) -> Tensor:
    """Logarithm of `weighted_softmax`; with `epsilon=0` an exact log-sum-exp that has no floor.

    Without weights it is the plain log-softmax, whatever `epsilon` is. With `epsilon=0`, entries of
    weight zero get -inf.
    """
    if weights is None:
        return logits - logits.logsumexp(dim, keepdim=True)
    if epsilon:
        return weighted_softmax(logits, weights, dim, epsilon).log()
    weighted = logits + torch.log(weights)
    return weighted - weighted.logsumexp(dim, keepdim=True)
