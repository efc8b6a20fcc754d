"""The weighted softmax that carries the queue's weights, in the reference's form and in an exact, faster one."""

import torch
from torch import Tensor

REFERENCE_EPSILON = 1e-8


def weighted_softmax(
    logits: Tensor, weights: Tensor, dim: int | tuple[int, ...] = -1, epsilon: float = REFERENCE_EPSILON
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


def positive_log_prob(
    positive: Tensor, negatives: Tensor, weights: Tensor | None, *, joint: bool, epsilon: float
) -> Tensor:
    """Log p(positive) of each vector, under a softmax that counts each negative with its weight.

        log p_v = z_v - log(sum_v' exp z_v' + sum_v',i w_i exp z_v',i)

    with v' = v alone unless `joint`. Only the positive's probability is formed, in few passes over the
    negatives, since those are nearly all of a training step's memory traffic. With weights and an
    `epsilon`, it is the logarithm of the reference's `weighted_softmax` instead.

    Args:
        positive: logits of the positive [B, V].
        negatives: logits of the negatives [B, V, Q].
        weights: not negative [B, Q]; None counts all.
        joint: normalise over (vector, item) pairs, not over the items of each vector.
        epsilon: 0 is exact.

    Returns:
        Log-probabilities [B, V].
    """
    dim = (1, 2) if joint else (2,)
    if weights is not None and epsilon:
        logits = torch.cat([positive[..., None], negatives], -1)
        counts = torch.cat([torch.ones_like(weights[:, :1]), weights], -1)[:, None]
        return weighted_softmax(logits, counts, dim, epsilon)[..., 0].log()
    if weights is not None:
        negatives = negatives + weights.log()[:, None]  # log 0 leaves an entry out, of the maximum too
    with torch.no_grad():
        largest = torch.maximum(negatives.amax(dim, keepdim=True), positive[..., None].amax(dim, keepdim=True))
    shifted = positive - largest.squeeze(-1)
    total = shifted.exp() + (negatives - largest).exp_().sum(-1)
    return shifted - (total.sum(1, keepdim=True) if joint else total).log()
