"""The queue of negatives: a FIFO of recent positives' ids, and the weight each entry has for each example.

Sampling negatives from the queue makes the contrastive loss equal to inverse-propensity weighting
(Multi-CLRec, arXiv 2005.12964, section 3), since an item enters it as often as it is a positive.
Ids are kept, not vectors, so that every step sees the queue encoded by the current weights.
"""

import torch
from torch import Tensor


def push(queue: Tensor, ids: Tensor) -> Tensor:
    """Append a batch to the queue and drop as many of the oldest entries: [Q, ...], [B, ...] -> [Q, ...].

    A batch larger than the queue leaves its newest Q entries.
    """
    return torch.cat([queue, ids])[len(ids) :]


def negative_weights(positive_ids: Tensor, queue_ids: Tensor) -> Tensor:
    """1 for entries that count as negatives, 0 for empty slots (id 0) and accidental hits: [B], [Q] -> [B, Q]."""
    counts = (queue_ids != 0) & (positive_ids[:, None] != queue_ids)
    return counts.to(torch.get_default_dtype())


def hard_mask(positive_prob_head: Tensor, negative_prob_head: Tensor) -> Tensor:
    """1 where a negative's category routes to the same head as the positive's: [B, H], [Q', H] -> [B, Q']."""
    return (positive_prob_head.argmax(-1)[:, None] == negative_prob_head.argmax(-1)).to(positive_prob_head.dtype)


def appearances(queue_ids: Tensor) -> Tensor:
    """How often each entry's id occurs in the queue: [Q] -> [Q], in O(Q log Q)."""
    _, inverse, counts = torch.unique(queue_ids, return_inverse=True, return_counts=True)
    return counts[inverse]


def expected_weights(share: Tensor, size: int, deduplicate: bool) -> Tensor:
    """Weight that an id has in all of a queue together, on average over queues.

        size * share, or 1 - (1 - share)^size if de-duplicated (the chance that it is there at all)

    Dividing an entry's weight by it (the log-q correction of Bengio and Senecal, 2008, for sampling with
    repeats) makes the softmax over the queue an unbiased estimate of that over the catalogue.

    Args:
        share: probability that a draw is this id, of each entry [Q].
        size: number of draws.
        deduplicate: whether an entry's weight is 1 / its number of appearances.
    """
    return -torch.expm1(size * torch.log1p(-share)) if deduplicate else size * share
