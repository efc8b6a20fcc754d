"""The weighted softmax that carries the queue's weights, in the reference's form and in an exact, faster one."""

import torch
from torch import Tensor

from prismrec.loss.rows import select_columns, select_rows

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


def shared_positive_log_prob(
    positive: Tensor,
    negatives: Tensor,
    weights: Tensor,
    own_weight: Tensor,
    column: Tensor,
    positive_ids: Tensor,
    moment: Tensor,
    *,
    margin: float,
    joint: bool,
) -> Tensor:
    """`positive_log_prob` at a fraction of its cost, where all targets have the same negatives.

    The sum over the negatives is taken once for each moment, without the entries that are one of its targets;
    those of the other targets are added again for each target.

    Args:
        positive: logits of the positive [B, V], without the margin; -inf where a vector does not count.
        negatives: logits of the negatives [G, V, N]; -inf where one is a target of the moment.
        weights: not negative [N, C]; a target of column c counts entry n with weight [n, c].
        own_weight: sum of the weights of the entries that are the target [B, C].
        column: column of each target [B].
        positive_ids: ids [B].
        moment: which of the G each target belongs to [B].
        margin: subtracted from the positive's logit.
        joint: normalise over (vector, item) pairs, not over the items of each vector.

    Returns:
        Log-probabilities [B, V].
    """
    with torch.no_grad():
        siblings = _sibling_weights(positive_ids, moment, own_weight, column)
        as_negative = torch.where(own_weight.amax(-1, keepdim=True) > 0, 0.0, -torch.inf)  # [B, 1]
        largest = negatives.amax(-1)  # [G, V]
        largest.scatter_reduce_(0, moment[:, None].expand_as(positive), positive + as_negative, "amax")
        if joint:
            largest = largest.amax(1, keepdim=True).expand_as(largest)
        largest = largest.nan_to_num(neginf=0.0)  # no negative at all
    mass = (negatives - largest[..., None]).exp_() @ weights  # [G, V, C]
    shifted = positive - largest[moment]
    others = select_columns(select_rows(mass, moment), column)
    if siblings is not None:
        others = others + siblings @ (shifted + as_negative).exp()
    own = shifted - margin
    total = own
    if joint:
        total, others = own.logsumexp(1, keepdim=True), others.sum(1, keepdim=True)
    log_others = torch.where(others > 0, others.clamp(min=torch.finfo(others.dtype).tiny).log(), -torch.inf)
    return own - torch.logaddexp(total, log_others)


def _sibling_weights(positive_ids: Tensor, moment: Tensor, weight: Tensor, column: Tensor) -> Tensor | None:
    """Weight of each target as a negative of the others of its moment [B, B]; equal items count once.

    From the weight of each target as a negative [B, C]; None if every moment has one target.
    """
    if (moment[1:] != moment[:-1]).all():
        return None
    same_moment, same_item = moment[:, None] == moment, positive_ids[:, None] == positive_ids
    copies = (same_moment & same_item).sum(0)
    return (same_moment & ~same_item) * (weight.T[column] / copies)
