"""Auxiliary losses against collapse: heads alive, sharp and distinct (Multi-CLRec, arXiv 2005.12964), vectors too."""

import math

import torch
from torch import Tensor

from prismrec.loss.ranks import batch_mean

SHARP_ENOUGH = 0.95


def balance_loss(prob_head: Tensor) -> Tensor:
    """Penalise heads that get less than their share of the batch: sum_h max(0, log(1/H) - log mean_b p_h) / H.

    Args:
        prob_head: p(head | positive) [B, H].
    """
    num_heads = prob_head.shape[-1]
    share = batch_mean(prob_head).clamp(min=torch.finfo(prob_head.dtype).tiny)  # a small temperature can make it 0
    return torch.relu(-math.log(num_heads) - share.log()).sum() / num_heads


def sharpness_loss(prob_head: Tensor) -> Tensor:
    """Push each positive to one head: -mean log max_h p_h, left alone above 0.95 so that routing stays soft.

    Args:
        prob_head: p(head | positive) [B, H].
    """
    largest = prob_head.amax(-1)
    return -batch_mean(torch.where(largest > SHARP_ENOUGH, 1.0, largest).log())


def semantic_loss(heads: Tensor, positive: Tensor, prob_head: Tensor, temperature: float = 0.07) -> Tensor:
    """Make each head say something of its own: cross-entropy of softmax_h(<head, positive> / temperature) to p_h.

    Args:
        heads: unit head vectors [B, H, D].
        positive: item vectors [B, D].
        prob_head: p(head | positive) [B, H].
        temperature: divisor of cosines.
    """
    cosine = torch.einsum("bhd,bd->bh", heads, positive)
    return -batch_mean((prob_head * torch.log_softmax(cosine / temperature, -1)).sum(-1))


def usage_loss(interests: Tensor, positive: Tensor, temperature: float = 0.07) -> Tensor:
    """Keep every vector in use: the balance loss of softmax_v(<vector, positive> / temperature).

    Args:
        interests: unit user vectors [B, V, D]; a zero vector is none.
        positive: item vectors [B, D].
        temperature: divisor of cosines.
    """
    logits = torch.einsum("bvd,bd->bv", interests, positive) / temperature
    return balance_loss(torch.softmax(logits.masked_fill(~interests.any(-1), -torch.inf), -1))


def diversity_loss(interests: Tensor) -> Tensor:
    """Keep a user's vectors apart: the mean squared cosine of two different ones.

    Args:
        interests: unit user vectors [G, V, D]; a zero vector is none.
    """
    num_interests = interests.shape[1]
    squared = (interests @ interests.transpose(1, 2)).square()
    apart = 1 - torch.eye(num_interests, dtype=squared.dtype, device=squared.device)
    return batch_mean((squared * apart).sum((1, 2))) / max(num_interests * (num_interests - 1), 1)


@torch.no_grad()
def head_metrics(prob_head: Tensor) -> dict[str, Tensor]:
    """How sharp routing is and how evenly heads are used in a batch, from p(head | positive) [B, H]."""
    usage = batch_mean(prob_head)
    return {
        "head_sharpness": batch_mean(prob_head.amax(-1)),
        "head_usage_max": usage.amax(),
        "head_usage_min": usage.amin(),
    }
