"""The whole model: an item tower and a user tower that share the item embeddings."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismrec.config import HashingConfig, ModelConfig
from prismrec.data.schema import Schema
from prismrec.model.aggregation import select_top_vectors
from prismrec.model.contextual import ContextualUserEncoder
from prismrec.model.embeddings import primes_from
from prismrec.model.item_encoder import ItemEncoder, scored_vectors
from prismrec.model.layers import unit_norm
from prismrec.model.user_encoder import UserContext, UserEncoder

SMALLEST_TABLE = 11
_TINY = 1e-12  # divides in place of nothing


class ServedUser(NamedTuple):
    """What serving needs of a user."""

    interests: Tensor
    """Unit vectors [B, V, D], or [B, V, D + 1] with a last 1 if popularity counts; zero where there is none."""
    interest_weights: Tensor
    """Share of each click in each interest [B, V, T]; rows sum to one, or are zero without clicks."""
    head_usage: Tensor
    """p(head) of the user's history [B, H]; zero without clicks."""
    interest_shares: Tensor
    """Share of each interest in the attention to the user's history [B, V]; sums to one if all V are served, zero
    without clicks."""


class MultiInterestModel(nn.Module):
    """Multi-CLRec's towers for one schema.

    Args:
        config: the model's settings, with `hashing.primes` given for every feature (see `resolve_primes`).
        schema: the features of the store it was built for.
        max_length: T, length of the history.
        popularity_weight: weight of an item's log popularity in its score; if not 0, served vectors have one more
            dimension, in which users are 1 and items their weighted log popularity (see `encode`).
    """

    def __init__(self, config: ModelConfig, schema: Schema, max_length: int, popularity_weight: float = 0.0) -> None:
        super().__init__()
        self.popularity_weight = popularity_weight
        primes = config.hashing.primes
        self.config = config
        self.max_length = max_length
        self.schema = schema
        self.items = ItemEncoder(schema.item_features, primes, config.embedding_dim, schema.category_positions)
        user_encoder = UserEncoder if config.encoder.kind == "none" else ContextualUserEncoder
        self.users = user_encoder(
            config,
            max_length,
            context_primes=tuple(primes[name] for name in schema.context_features),
            user_primes=primes["user_id"] if config.user_id else None,
        )

    def encode_items(self, ids: Tensor) -> Tensor:
        """Item vectors of raw feature ids, [I, F] -> [I, D]; of length one unless `item_norm` is free."""
        return scored_vectors(self.items(ids).item, self.config.item_norm)

    def forward(
        self, item: Tensor, time: Tensor, dwell: Tensor, recent: Tensor, context: Tensor, now: Tensor, user: Tensor
    ) -> ServedUser:
        """Encode users for serving, from raw ids: item [B, T, F]; the rest as in `HistoryBatch`."""
        mask = (item != 0).any(-1)  # an item added to a bundle has no id of its own, only features
        encoded = self.users(self.items(item), UserContext(mask, recent, time, dwell, context, now, user))
        by_interest = encoded.weights.unflatten(1, (self.config.num_interests, -1)).sum(2)  # [B, V, T]
        attention = by_interest.sum(-1, keepdim=True)  # [B, V, 1]
        weights, shares = by_interest / attention.clamp(min=_TINY), attention / attention.sum(1, True).clamp(min=_TINY)
        interests = encoded.interests
        if self.config.top_vectors is not None:
            similarity = interests @ unit_norm(self.items(item).item).transpose(1, 2)  # [B, V, T]
            scores = torch.where(mask[:, None], similarity, -1.0).amax(-1)
            scores = torch.where(interests.any(-1), scores, -2.0)  # a vector that is not there comes last
            interests, weights, shares = (
                select_top_vectors(each, scores, self.config.top_vectors) for each in (interests, weights, shares)
            )
        if self.popularity_weight:
            interests = torch.cat([interests, interests.any(-1, keepdim=True).to(interests.dtype)], -1)
        usage = encoded.weights.sum(-1)
        return ServedUser(interests, weights, usage / usage.sum(-1, keepdim=True).clamp(min=_TINY), shares.squeeze(-1))


def resolve_primes(config: HashingConfig, distinct: dict[str, int]) -> HashingConfig:
    """Give every feature its moduli: the configured ones, or the first primes from its number of distinct ids.

    Args:
        config: the hashing settings.
        distinct: number of distinct ids per feature.
    """
    primes = dict(config.primes)
    for feature, count in distinct.items():
        start = min(max(int(count * config.rows_per_id), SMALLEST_TABLE), config.max_rows)
        primes.setdefault(feature, primes_from(start, config.num_hashes))
    return config.model_copy(update={"primes": primes})
