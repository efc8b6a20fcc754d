"""Contrastive losses of one or several user vectors against a positive item and shared negatives.

`contrastive_loss` is what training takes: every example has the same candidates, each with a weight.
`multi_vector_loss` and `single_vector_loss` are the reference's own form, with a weight for every pair
of an example and a negative; the tests hold the two equal.
"""

import itertools
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from prismrec.loss.chunked import Part, Slices, sum_in_chunks
from prismrec.loss.negatives import Seen
from prismrec.loss.products import linear
from prismrec.loss.ranks import summed
from prismrec.loss.rows import select_rows
from prismrec.loss.softmax import REFERENCE_EPSILON, positive_log_prob, shared_positive_log_prob

Reading = Literal["expectation", "log_sum_exp", "maximum"]
LOGITS_PER_CHUNK = {"cpu": 8_000_000, "cuda": 64_000_000}
"""32 MB of float32 fit the caches of a server; a GPU starts slowly, and so on more at once."""


class Candidates(NamedTuple):
    """What every example is contrasted with."""

    vectors: Tensor
    """Unit item vectors [N, D]."""
    ids: Tensor
    """int64 [N]; an entry that is an example's own positive does not count for it."""
    weights: Tensor
    """Not negative [N, C]: an example of column c counts entry n with weight [n, c]."""


class Positives(NamedTuple):
    """The B examples; those of a moment are next to each other."""

    vectors: Tensor
    """Unit item vectors [B, D]."""
    ids: Tensor
    """int64 [B]."""
    moment: Tensor
    """int64 [B], not falling: which of the G moments each followed."""
    prob_vector: Tensor
    """p(vector | positive) [B, V], for the expectation."""
    column: Tensor
    """int64 [B], the column of `Candidates.weights` that holds for it."""


def contrastive_loss(
    interests: Tensor,
    positives: Positives,
    candidates: Candidates,
    seen: Seen | None = None,
    *,
    query_weights: Tensor | None = None,
    temperature: float = 0.07,
    margin: float = 0.0,
    joint: bool = True,
    reading: Reading = "expectation",
) -> Tensor:
    """Negative log-likelihood of the positives under a softmax over (vector, item) pairs.

        p(v, i) proportional to w_i exp(<z_v, i> / temperature), w = 1 for the positive

    read in one of three ways:

        expectation   -sum_v p(v | i) log p(v, i), the reference's, with its routing (Multi-CLRec, arXiv 2005.12964)
        log_sum_exp   -log sum_v p(v, i), a mixture's likelihood (mixture of softmaxes, arXiv 1711.03953)
        maximum       -log p(i), p(i) proportional to w_i max_v exp(<z_v, i> / temperature): as items are served

    The negatives are summed once for all positives of a moment, and a part of the moments at a time, so that
    memory does not grow with the batch.

    Args:
        interests: unit user vectors of G moments [G, V, D]; a zero vector is none, each moment needs one.
        positives: the examples.
        candidates: their negatives.
        seen: which of them do not count for which moments; none of these is a target of its moment.
        query_weights: weight of each example in the mean [B]; 0 masks it.
        temperature: divisor of cosines.
        margin: subtracted from the positive's cosine.
        joint: normalise over (vector, item) pairs; otherwise over items for each vector, which only the
            expectation can be read from.
        reading: what of p(v, i) is maximised.

    Returns:
        The mean loss.
    """
    if not joint and reading != "expectation":
        raise ValueError(f"reading={reading!r} needs the joint softmax")
    if query_weights is None:
        query_weights = torch.ones_like(positives.vectors[:, 0])
    query_weights = query_weights.to(positives.vectors.dtype)
    if seen is None:
        seen = Seen(*positives.moment.new_empty(2, 0))

    def of_rows(moments: slice, rows: slice, known: slice) -> tuple[Part, Slices]:
        def loss(interests: Tensor, positive: Tensor, negatives: Tensor, prob_vector: Tensor) -> Tensor:
            part = Positives(
                positive,
                positives.ids[rows],
                positives.moment[rows] - moments.start,
                prob_vector,
                positives.column[rows],
            )
            log_prob = _log_prob(
                interests / temperature,
                part,
                candidates._replace(vectors=negatives),
                Seen(seen.moment[known] - moments.start, seen.entry[known]),
                margin=margin / temperature,
                joint=joint,
                maximum=reading == "maximum",
            )
            nll = _nll(log_prob, prob_vector, reading)
            # `where` keeps a masked row's infinity out of the sum
            return torch.where(query_weights[rows] > 0, nll * query_weights[rows], 0.0).sum()

        return loss, [moments, rows, slice(None), rows]

    candidates = _rounded(candidates)
    logits_per_chunk = LOGITS_PER_CHUNK[interests.device.type]
    rows_per_chunk = max(1, logits_per_chunk // max(len(candidates.ids) * interests.shape[1], 1))
    parts = [of_rows(*slices) for slices in _chunks(len(interests), rows_per_chunk, positives.moment, seen.moment)]
    total = sum_in_chunks(parts, interests, positives.vectors, candidates.vectors, positives.prob_vector)
    total, weight = summed(torch.stack([total, query_weights.sum()]))
    return total / (weight + 1e-8)


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
) -> Tensor:
    """The reference's disentangled contrastive loss, sum_v p(v | positive) log p(v, positive), pair by pair.

    Args:
        interests: unit user vectors [B, V, D].
        positive: item vectors [B, D].
        negatives: item vectors [Q, D].
        prob_head: p(head | positive's category) [B, H]; H is a multiple of V, heads of a vector are adjacent.
        negative_weights: weight of each negative for each user [B, Q]; 0 leaves it out.
        query_weights, temperature, margin, joint: as in `contrastive_loss`.
        epsilon: see `weighted_softmax`; 0 is exact.

    Returns:
        The mean loss.
    """
    scaled = interests / temperature
    log_prob = positive_log_prob(
        torch.einsum("bvd,bd->bv", scaled, positive) - margin / temperature,
        scaled @ negatives.T,
        negative_weights,
        joint=joint,
        epsilon=epsilon,
    )
    nll = _nll(log_prob, vector_probabilities(prob_head, interests.shape[1]), "expectation")
    return weighted_mean(nll, query_weights)


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
) -> Tensor:
    """The reference's contrastive loss (CLRec) of one vector per user [B, D]: `multi_vector_loss` with V = 1."""
    return multi_vector_loss(
        query[:, None],
        positive,
        negatives,
        torch.ones_like(query[:, :1]),
        negative_weights=negative_weights,
        query_weights=query_weights,
        temperature=temperature,
        margin=margin,
        joint=False,
        epsilon=epsilon,
    )


def vector_probabilities(prob_head: Tensor, num_interests: int) -> Tensor:
    """p(vector | positive), the sum over the heads of each vector: [B, H] -> [B, V]."""
    return prob_head.unflatten(-1, (num_interests, -1)).sum(-1)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of [B] under weights [B] that are not negative; where a weight is 0 the value may be infinite."""
    if weights is None:
        return values.mean()
    weights = weights.to(values.dtype)
    return torch.where(weights > 0, values * weights, 0.0).sum() / (weights.sum() + 1e-8)


@torch.no_grad()
def cosine_metrics(
    interests: Tensor, positive: Tensor, negatives: Tensor, pair_weights: Tensor, query_weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Cosine of the best vector to the positive: least, largest, mean, and how often it beats all negatives.

    Args:
        interests: unit user vectors [B, V, D].
        positive: item vectors [B, D].
        negatives: item vectors [N, D].
        pair_weights: weight of each negative for each user [B, N]; the logarithm is added to its cosine, as in the
            reference.
        query_weights: weight of each user [B]; 0 leaves it out.
    """
    best = torch.einsum("bvd,bd->bv", interests, positive).amax(-1)
    rivals = ((interests @ negatives.T).amax(1) + torch.log(pair_weights + 1e-8)).amax(-1)
    kept = torch.ones_like(best, dtype=torch.bool) if query_weights is None else query_weights > 0
    metrics = {"query_weight": query_weights.to(best.dtype).mean()} if query_weights is not None else {}
    return metrics | {
        "negative_weight": pair_weights.mean(),
        "cosine_min": torch.where(kept, best, 1.0).amin(),
        "cosine_max": torch.where(kept, best, -1.0).amax(),
        "cosine_mean": weighted_mean(best, kept),
        "rank1_accuracy": weighted_mean((best > rivals).to(best.dtype), kept),
    }


def _log_prob(
    scaled: Tensor,
    positives: Positives,
    candidates: Candidates,
    seen: Seen,
    *,
    margin: float,
    joint: bool,
    maximum: bool,
) -> Tensor:
    """Log p(v, positive) [b, V] of a chunk, or [b, 1] of the maximum, from vectors over the temperature [g, V, D]."""
    positive = torch.einsum("bvd,bd->bv", select_rows(scaled, positives.moment), positives.vectors)
    example, entry = (positives.ids[:, None] == candidates.ids).nonzero(as_tuple=True)
    own_weight = candidates.weights.new_zeros(len(positive), candidates.weights.shape[1])
    own_weight.index_add_(0, example, candidates.weights[entry])
    absent = ~scaled.any(-1)
    some_absent = bool(absent.any())
    if some_absent:
        positive = positive.masked_fill(absent[positives.moment], -torch.inf)
    with torch.no_grad():
        one_column = candidates.weights.shape[1] == 1
        bias = candidates.weights[:, 0].log() if one_column else None
        negatives = linear(scaled, candidates.vectors, bias)  # [g, V, N]
        negatives.transpose(1, 2)[positives.moment[example], entry] = -torch.inf
        negatives.transpose(1, 2)[seen.moment, seen.entry] = -torch.inf
        if some_absent:
            negatives.masked_fill_(absent[..., None], -torch.inf)
        if maximum:  # of each item, only the vector that is best for it counts
            best, vector = negatives.max(1, keepdim=True)
            negatives.fill_(-torch.inf).scatter_(1, vector, best)
    return shared_positive_log_prob(
        positive.amax(1, keepdim=True) if maximum else positive,
        scaled,
        candidates.vectors,
        negatives,
        None if one_column else candidates.weights,
        own_weight,
        positives.column,
        positives.ids,
        positives.moment,
        margin=margin,
        joint=joint,
    )


def _rounded(candidates: Candidates) -> Candidates:
    """With some of weight 0 at the end, to a multiple of 64: products of even sizes are faster."""
    more = -len(candidates.ids) % 64
    if not more:
        return candidates
    pad = torch.nn.functional.pad
    return Candidates(
        pad(candidates.vectors, (0, 0, 0, more)),
        pad(candidates.ids, (0, more), value=-1),
        pad(candidates.weights, (0, 0, 0, more)),
    )


def _nll(log_prob: Tensor, prob_vector: Tensor, reading: Reading) -> Tensor:
    """Negative log-likelihood [B] from log p(v, positive) [B, V], which is -inf where a vector does not count."""
    if reading != "expectation":
        return -log_prob.logsumexp(-1)
    counts = log_prob > -torch.inf
    counted = torch.where(counts, prob_vector, 0.0)
    # the share is 1, without a gradient, where all vectors count; routing to one that does not can make it 0
    share = (counted.sum(-1) / prob_vector.sum(-1)).clamp(min=1e-12)
    return -(counted * torch.where(counts, log_prob, 0.0)).sum(-1) / share


def _chunks(num_moments: int, size: int, moment: Tensor, seen_moment: Tensor) -> list[tuple[slice, ...]]:
    """Cut moments into runs of `size`: which moments, which of their positives, and which of what they have seen."""
    if num_moments <= size:  # nothing to wait for the device for
        return [(slice(0, num_moments), slice(0, len(moment)), slice(0, len(seen_moment)))] if len(moment) else []
    starts = torch.arange(0, num_moments + size, size, device=moment.device).clamp(max=num_moments)
    edges = (starts, torch.searchsorted(moment, starts), torch.searchsorted(seen_moment, starts))
    moments, rows, seen = ([slice(*ends) for ends in itertools.pairwise(edge.tolist())] for edge in edges)
    return [chunk for chunk in zip(moments, rows, seen, strict=True) if chunk[1].stop > chunk[1].start]
