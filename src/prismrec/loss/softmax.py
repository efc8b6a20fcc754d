"""The weighted softmax that carries the queue's weights, in the reference's form and in an exact, faster one."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prismrec.loss.products import inner_product, product
from prismrec.loss.rows import select_columns, select_rows

REFERENCE_EPSILON = 1e-8
_CACHED_LOGITS = 131_072  # 512 KB of float32, which the cache of a core holds


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
    scaled: Tensor,
    vectors: Tensor,
    negatives: Tensor,
    weights: Tensor | None,
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
        positive: logits of the positive [B, V], without the margin; -inf where a vector does not count. Or [B, 1], of
            one vector only, if `joint`.
        scaled: user vectors over the temperature [G, V, D].
        vectors: of the negatives [N, D].
        negatives: their logits, `scaled @ vectors.T` [G, V, N]; -inf where one does not count, as a target of the
            moment does not. Overwritten.
        weights: not negative [N, C]; a target of column c counts entry n with weight [n, c]. None if `negatives` has
            the logarithm of the only column added.
        own_weight: sum of the weights of the entries that are the target [B, C].
        column: column of each target [B].
        positive_ids: ids [B].
        moment: which of the G each target belongs to [B].
        margin: subtracted from the positive's logit.
        joint: normalise over (vector, item) pairs, not over the items of each vector.

    Returns:
        Log-probabilities, of the shape of `positive`.
    """
    with torch.no_grad():
        siblings = _sibling_weights(positive_ids, moment, own_weight, column)
        as_negative = torch.where(own_weight.amax(-1, keepdim=True) > 0, 0.0, -torch.inf)  # [B, 1]
        largest, rivals = negatives.amax(-1), positive + as_negative
        if joint:
            largest, rivals = largest.amax(1, keepdim=True), rivals.amax(1, keepdim=True)
        largest.scatter_reduce_(0, moment[:, None].expand_as(rivals), rivals, "amax")
        largest = largest.nan_to_num(neginf=0.0)  # no negative at all
    mass: Tensor = _Mass.apply(scaled, vectors, negatives, largest, weights)  # type: ignore[no-untyped-call]
    shifted = positive - largest[moment]
    own = shifted - margin
    total, among_others = own, (shifted + as_negative).exp()
    if joint:
        total, among_others = own.logsumexp(1, keepdim=True), among_others.sum(1, keepdim=True)
        mass = mass.sum(1, keepdim=True)
    others = select_columns(select_rows(mass, moment), column)
    if siblings is not None:
        others = others + siblings @ among_others
    log_others = torch.where(others > 0, others.clamp(min=torch.finfo(others.dtype).tiny).log(), -torch.inf)
    return own - torch.logaddexp(total, log_others)


class _Mass(torch.autograd.Function):
    """Sum over the negatives of their weighted exponentials [G, V, C], whose gradients are matrix products as well.

        m_vc = sum_n w_nc p_vn,  p_vn = exp(<x_v, y_n> - largest_v)
        dm_vc / dx_v = sum_n w_nc p_vn y_n,  dm_vc / dy_n = w_nc p_vn x_v

    With one column, whose weights are in the logits, the incoming gradient goes into the thin factors of these
    products, so that nothing else passes over the G * V * N exponentials. Those are taken in place, a part at a time
    that stays in a core's cache.
    """

    @staticmethod
    def forward(
        ctx: Any, scaled: Tensor, vectors: Tensor, logits: Tensor, largest: Tensor, weights: Tensor | None
    ) -> Tensor:
        shifts = largest.expand(logits.shape[:2]).reshape(-1, 1)
        exponentials = logits.flatten(0, 1)
        rows = len(exponentials) if logits.is_cuda else max(1, _CACHED_LOGITS // max(logits.shape[-1], 1))
        masses = []
        for part, shift in zip(exponentials.split(rows), shifts.split(rows), strict=True):
            part.sub_(shift).exp_()
            masses.append(part.sum(-1, keepdim=True) if weights is None else part @ weights)
        ctx.save_for_backward(scaled, vectors, exponentials, weights)
        return torch.cat(masses).unflatten(0, logits.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        scaled, vectors, exponentials, weights = ctx.saved_tensors
        gradient, flat = gradient.flatten(0, 1), scaled.flatten(0, 1)
        if weights is None:
            of_scaled = gradient * product(exponentials, vectors)
            of_vectors = inner_product(exponentials, gradient * flat)
        else:
            of_logits = exponentials * (gradient @ weights.T)
            of_scaled, of_vectors = product(of_logits, vectors), inner_product(of_logits, flat)
        return of_scaled.view_as(scaled), of_vectors, None, None, None


def _sibling_weights(positive_ids: Tensor, moment: Tensor, weight: Tensor, column: Tensor) -> Tensor | None:
    """Weight of each target as a negative of the others of its moment [B, B]; equal items count once.

    From the weight of each target as a negative [B, C]; None if every moment has one target.
    """
    if (moment[1:] != moment[:-1]).all():
        return None
    same_moment, same_item = moment[:, None] == moment, positive_ids[:, None] == positive_ids
    copies = (same_moment & same_item).sum(0)
    return (same_moment & ~same_item) * (weight.T[column] / copies)
