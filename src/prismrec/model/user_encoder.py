"""The user tower: a sequence of clicks with context becomes V unit vectors.

Reads top to bottom: contexts -> p(item) -> heads -> vectors.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismrec.config import ModelConfig
from prismrec.loss.softmax import weighted_softmax
from prismrec.model.aggregation import HeadAggregation
from prismrec.model.attention import ContextAttention, ContextCoAction, QueryAttention
from prismrec.model.embeddings import BucketEmbedding, HashedEmbedding, TimeEmbedding
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.layers import UnitLayerNorm, dense, of_clicks, unit_norm
from prismrec.model.routing import DisentangleLayer


class UserContext(NamedTuple):
    """What is known of a user's clicks besides the items; newest first, zero where padded."""

    mask: Tensor
    """bool [B, T]: there is a click."""
    recent: Tensor
    """bool [B, T]: the click's category forms the context query."""
    time: Tensor
    """int64 [B, T], seconds."""
    dwell: Tensor
    """int64 [B, T], seconds."""
    context: Tensor
    """int64 [B, T, C], raw ids of further context features."""
    now: Tensor
    """int64 [B], seconds."""
    user: Tensor
    """int64 [B], raw user ids."""


class UserEmbedding(NamedTuple):
    """The user tower's result."""

    interests: Tensor
    """Unit vectors [B, V, D]."""
    heads: Tensor
    """Unit head vectors [B, H, D]."""
    weights: Tensor
    """p(head, item) [B, H, T]: what each click gives to each head."""


class HistoryEncoder(nn.Module):
    """What the user towers share: embeddings of all that is known of events and users besides the items."""

    def __init__(
        self,
        config: ModelConfig,
        context_primes: tuple[tuple[int, ...], ...],
        user_primes: tuple[int, ...] | None,
    ) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.dwell = BucketEmbedding(config.dwell_boundaries, dim)
        self.elapsed = BucketEmbedding(config.elapsed_boundaries, dim)
        self.time = TimeEmbedding(dim)
        self.context = nn.ModuleList(HashedEmbedding(primes, dim) for primes in context_primes)
        self.user = HashedEmbedding(user_primes, dim) if user_primes else None

    def circumstances(self, dwell: Tensor, elapsed: Tensor, context: Tensor) -> list[Tensor]:
        """How long each event was, how long ago (seconds [...]), and its context features [..., C]: [..., D] each."""
        features = [embedding(context[..., i]) for i, embedding in enumerate(self.context)]
        return [self.dwell(dwell), self.elapsed(elapsed), *features]


class UserEncoder(HistoryEncoder):
    """Multi-CLRec's multi-vector sequence encoder.

    Args:
        config: the model's settings.
        max_length: T.
        context_primes: hash moduli of each further context feature.
        user_primes: hash moduli of the user id, if it is used.
    """

    def __init__(
        self,
        config: ModelConfig,
        max_length: int,
        context_primes: tuple[tuple[int, ...], ...] = (),
        user_primes: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(config, context_primes, user_primes)
        dim = config.embedding_dim
        self.num_interests = config.num_interests
        self.position_prior = nn.Parameter(torch.randn(max_length) * dim**-0.5)
        self.co_action = ContextCoAction(dim * (3 if user_primes else 2), 3 * dim, dim)
        self.norm = None if config.layer_norm == "none" else UnitLayerNorm(dim, unit=config.layer_norm == "unit")
        self.attention: ContextAttention | QueryAttention
        if config.attention == "query":
            self.attention = QueryAttention(dim, temperature=config.temperature)
        else:
            self.attention = ContextAttention(dim, max_length if config.position_bias else None)
        self.disentangle = DisentangleLayer(
            config.num_heads,
            dim,
            prior=config.head_prior,
            equalize=config.equalize_heads,
            per_path=config.per_path_dense,
            routing=config.routing,
            temperature=config.temperature,
        )
        self.mean_query = dense(dim, dim)
        self.aggregation = HeadAggregation(config.num_interests, dim, transform=False)

    def forward(self, clicks: ItemEmbedding, user: UserContext, every_position: bool = False) -> UserEmbedding:
        """Encode whole histories, clicks [B, T, D] and their contexts; it knows of no other positions."""
        if every_position:
            raise ValueError("only a contextual encoder encodes every position of a history")
        items = clicks.item if self.norm is None else self.norm(clicks.item)
        interests, heads, weights = self.pool(items, user.mask, self._prob_item(items, clicks.category, user))
        return UserEmbedding(unit_norm(interests), unit_norm(heads), weights)

    def pool(self, items: Tensor, mask: Tensor, prob_item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Route clicks to heads and merge heads into vectors, not yet normalised.

        Args:
            items: click embeddings [B, T, D].
            mask: true where there is a click [B, T].
            prob_item: p(item) [B, T].

        Returns:
            Vectors [B, V, D], heads [B, H, D] and p(head, item) [B, H, T].
        """
        heads, weights = self.disentangle(items, mask, prob_item)
        mean = (prob_item[:, None] @ unit_norm(items)).squeeze(1)
        query = (mean + self.mean_query(mean))[:, None].expand(-1, self.num_interests, -1)
        interests = self.aggregation(heads.unflatten(1, (self.num_interests, -1)), query)
        return interests, heads, weights

    def _prob_item(self, items: Tensor, categories: Tensor, user: UserContext) -> Tensor:
        if isinstance(self.attention, QueryAttention):
            unit = unit_norm(items)
            return self.attention(unit, user.mask, unit, user.recent)
        elapsed = user.now[:, None] - user.time
        key = of_clicks(self._context_key, user.mask, categories, user.dwell, elapsed, user.time, user.context)
        context = self.co_action(self._context_query(categories, user), key)
        return self.attention(items, user.mask, context)

    def _context_query(self, categories: Tensor, user: UserContext) -> Tensor:
        """The present: time of day, categories of recent clicks under the position prior, [B, 2D or 3D]."""
        prior = weighted_softmax(self.position_prior.expand(user.recent.shape), user.recent.to(categories.dtype))
        parts = [self.time(user.now), (prior[:, None] @ categories).squeeze(1)]
        if self.user is not None:
            parts.append(self.user(user.user))
        return torch.cat(parts, -1)

    def _context_key(self, categories: Tensor, dwell: Tensor, elapsed: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Each click's circumstances: how long, how long ago, when, in which category, [..., D]."""
        circumstances = self.circumstances(dwell, elapsed, context)
        mean = sum(circumstances[1:], circumstances[0]) / len(circumstances)
        return self.co_action.key(torch.cat([mean, self.time(time), categories], -1))
