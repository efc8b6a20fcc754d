"""Contrastive losses of one or several user vectors against a positive item and shared negatives.

Pure functions: normalised vectors in, a scalar loss and detached training metrics out.
"""

import torch
from torch import Tensor, nn

from prismrec.loss.softmax import REFERENCE_EPSILON, positive_log_prob, shared_positive_log_prob

Metrics = dict[str, Tensor]


def single_vector_loss(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    *,
    negative_weights: Tensor | None = None,
    query_weights: Tensor | None = None,
    temperature: float = 0.07,
    margin: float = 0.0,
    epsilon: float = REFERENCE_EPSILON,
    with_metrics: bool = True,
) -> tuple[Tensor, Metrics]:
    """Contrastive loss of CLRec for one vector per user.

    -log p(positive | query), p(i) proportional to w_i exp(<query, i> / temperature), w = 1 for the positive.

    Args:
        query: unit user vectors [B, D].
        positive: unit item vectors [B, D].
        negatives: unit item vectors [Q, D].
        negative_weights: weight of each negative for each user [B, Q]; 0 leaves it out.
        query_weights: weight of each user in the mean [B]; 0 or False masks it.
        temperature: divisor of cosines.
        margin: subtracted from the positive's cosine.
        epsilon: see `weighted_softmax`; 0 is exact.
        with_metrics: also compute the cosine metrics, which take one more pass over the negatives.

    Returns:
        The mean loss, and metrics by name.
    """
    prob_head = torch.ones(len(query), 1, dtype=query.dtype, device=query.device)
    return multi_vector_loss(
        query[:, None],
        positive,
        negatives,
        prob_head,
        negative_weights=negative_weights,
        query_weights=query_weights,
        temperature=temperature,
        margin=margin,
        joint=False,
        epsilon=epsilon,
        with_metrics=with_metrics,
    )


def multi_vector_loss(
    interests: Tensor,
    positive: Tensor,
    negatives: Tensor,
    prob_head: Tensor,
    *,
    negative_weights: Tensor | None = None,
    query_weights: Tensor | None = None,
    temperature: float = 0.07,
    margin: float = 0.0,
    joint: bool = True,
    epsilon: float = REFERENCE_EPSILON,
    with_metrics: bool = True,
) -> tuple[Tensor, Metrics]:
    """Disentangled contrastive loss of Multi-CLRec (arXiv 2005.12964).

    The expected log-likelihood under the routing of the positive, sum_v p(v | positive) log p(v, positive).
    `joint` normalises over all (vector, item) pairs; otherwise over the items of each vector.

    Args:
        interests: unit user vectors [B, V, D].
        positive: unit item vectors [B, D].
        negatives: unit item vectors [Q, D].
        prob_head: p(head | positive's category) [B, H]; H is a multiple of V, heads of a vector are adjacent.
        negative_weights, query_weights, temperature, margin, epsilon, with_metrics: as in `single_vector_loss`.

    Returns:
        The mean loss, and metrics by name.
    """
    scaled = interests / temperature
    positive_logits = torch.einsum("bvd,bd->bv", scaled, positive)
    negative_logits = scaled @ negatives.T  # [B, V, Q]
    log_prob = positive_log_prob(
        positive_logits - margin / temperature, negative_logits, negative_weights, joint=joint, epsilon=epsilon
    )
    loss = _expected_nll(log_prob, prob_head, query_weights)
    metrics = {"nll_loss": loss.detach()}
    if with_metrics:
        metrics |= _cosine_metrics(
            positive_logits.amax(-1) * temperature, negative_logits * temperature, negative_weights, query_weights
        )
    return loss, metrics


def shared_multi_vector_loss(
    interests: Tensor,
    moment: Tensor,
    positive: Tensor,
    negatives: Tensor,
    prob_head: Tensor,
    *,
    positive_ids: Tensor,
    negative_ids: Tensor,
    negative_weights: Tensor,
    query_weights: Tensor | None = None,
    temperature: float = 0.07,
    margin: float = 0.0,
    joint: bool = True,
) -> Tensor:
    """`multi_vector_loss` where every user has the same negatives, and one moment of a user several positives.

    Args:
        interests: unit user vectors of G moments [G, V, D].
        moment: which of them each positive belongs to [B].
        positive, negatives, prob_head, query_weights, temperature, margin, joint: as in `multi_vector_loss`.
        positive_ids, negative_ids: ids [B], [Q]; a negative that is the positive itself does not count.
        negative_weights: weight of each negative [Q].

    Returns:
        The mean loss.
    """
    scaled = interests / temperature
    of_target = nn.functional.embedding(moment, scaled.flatten(1)).unflatten(1, scaled.shape[1:])  # [B, V, D]
    log_prob = shared_positive_log_prob(
        torch.einsum("bvd,bd->bv", of_target, positive),
        scaled @ negatives.T,
        negative_weights,
        positive_ids,
        negative_ids,
        moment,
        margin=margin / temperature,
        joint=joint,
    )
    return _expected_nll(log_prob, prob_head, query_weights)


def _expected_nll(log_prob: Tensor, prob_head: Tensor, query_weights: Tensor | None) -> Tensor:
    """Mean over users of -sum_v p(v | positive) log p(v, positive), from [B, V] and [B, H]."""
    prob_vector = prob_head.unflatten(-1, (log_prob.shape[1], -1)).sum(-1)
    return -_weighted_mean((prob_vector * log_prob).sum(-1), query_weights)


def _weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return values.mean()
    weights = weights.to(values.dtype)
    # `where` keeps a masked row's infinity out of the sum
    return torch.where(weights > 0, values * weights, 0.0).sum() / (weights.sum() + 1e-8)


@torch.no_grad()
def _cosine_metrics(
    positive_cosine: Tensor, negative_cosine: Tensor, negative_weights: Tensor | None, query_weights: Tensor | None
) -> Metrics:
    """Cosine of the best vector to the positive [B]: least, largest, mean, and how often it beats all negatives."""
    metrics = {}
    if negative_weights is not None:
        metrics["negative_weight"] = negative_weights.mean()
        negative_cosine = negative_cosine + torch.log(negative_weights + 1e-8)[:, None]
    kept = torch.ones_like(positive_cosine, dtype=torch.bool)
    if query_weights is not None:
        kept = query_weights > 0
        metrics["query_weight"] = query_weights.to(positive_cosine.dtype).mean()
    ahead = (positive_cosine > negative_cosine.amax((1, 2))).to(positive_cosine.dtype)
    return metrics | {
        "cosine_min": torch.where(kept, positive_cosine, 1.0).amin(),
        "cosine_max": torch.where(kept, positive_cosine, -1.0).amax(),
        "cosine_mean": _weighted_mean(positive_cosine, kept),
        "rank1_accuracy": _weighted_mean(ahead, kept),
    }
