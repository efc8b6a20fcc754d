"""Causal sequence encoders: states of events that know of all older events, in one pass for every position.

Takes event embeddings [B, T, D], newest first; gives states [B, T, D]. Position t sees events t, t + 1, ...:
nothing newer. All blocks share one relative bias (as in T5, arXiv 1910.10683). Two kinds of block:

- `TransformerBlock`: pre-norm, softmax attention, gated feed-forward (RMSNorm, arXiv 1910.07467; SwiGLU,
  arXiv 2002.05202).
- `HSTUBlock`: pointwise SiLU attention that keeps the strength of a preference, gated by the item (HSTU,
  arXiv 2402.17152).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismrec.config import EncoderConfig
from prismrec.model.layers import Dense, floor_log2

TIME_BUCKETS = 32  # of log2(1 + seconds): up to 136 years
HIDDEN = -1e4  # softmax gives exp(-1e4) = 0 and so does silu, of which -inf would be none


class Relation(NamedTuple):
    """What lies between the present of each position and each event; position first."""

    visible: Tensor
    """bool [B, 1, T, T]: the position sees the event, its own or an older one."""
    distance: Tensor
    """int64 [T, T]: number of events between."""
    elapsed: Tensor
    """int64 [B, T, T]: bucket of the time between."""


def relate(mask: Tensor, time: Tensor, now: Tensor) -> Relation:
    """Relate every position to every event.

    Args:
        mask: true where there is an event [B, T].
        time: of each event, seconds [B, T].
        now: when each position is asked for a recommendation, seconds [B, T]; later than its newest event, which
            too may be long ago.
    """
    steps = torch.arange(mask.shape[1], device=mask.device)
    distance = steps - steps[:, None]
    seconds = (now[:, :, None] - time[:, None, :]).clamp(min=0)
    elapsed = floor_log2(1 + seconds, TIME_BUCKETS - 1)
    return Relation(((distance >= 0) & mask[:, None])[:, None], distance.clamp(min=0), elapsed)


class RelativeBias(nn.Module):
    """What attention adds for the distance and the time between a position and an event."""

    def __init__(self, num_heads: int, max_length: int) -> None:
        super().__init__()
        self.distance = nn.Parameter(torch.zeros(max_length, num_heads))
        self.elapsed = nn.Parameter(torch.zeros(TIME_BUCKETS, num_heads))

    def forward(self, relation: Relation) -> Tensor:
        """[B, heads, T, T]."""
        by_distance = nn.functional.embedding(relation.distance, self.distance)
        by_time = nn.functional.embedding(relation.elapsed, self.elapsed)
        return (by_distance + by_time).permute(0, 3, 1, 2)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then + gated feed-forward(norm(x))."""

    def __init__(self, dim: int, config: EncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        width = 8 * dim // 3
        self.attention_norm = nn.RMSNorm(dim, eps=1e-6)
        self.query_key_value = _linear(dim, 3 * dim)
        self.attended = _linear(dim, dim)
        self.feed_forward_norm = nn.RMSNorm(dim, eps=1e-6)
        self.gate_and_value = _linear(dim, 2 * width)
        self.gated = _linear(width, dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """States [B, T, D] -> [B, T, D]; `bias` [B, heads, T, T] is `HIDDEN` where an event is not visible."""
        query, key, value = _heads(self.query_key_value(self.attention_norm(x)), 3, self.num_heads)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        x = x + self.dropout(self.attended(attended.transpose(1, 2).flatten(2)))
        gate, inner = self.gate_and_value(self.feed_forward_norm(x)).chunk(2, -1)
        return x + self.dropout(self.gated(nn.functional.silu(gate) * inner))


class HSTUBlock(nn.Module):
    """x + dense(norm(sum_s silu(<q, k_s> + bias_s) v_s) * u), with u, v, q, k = silu(dense(norm(x)))."""

    def __init__(self, dim: int, config: EncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.input_norm = nn.LayerNorm(dim)
        self.projections = _linear(dim, 4 * dim)
        self.attended_norm = nn.LayerNorm(dim)
        self.output = _linear(dim, dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """States [B, T, D] -> [B, T, D]; `bias` [B, heads, T, T] is `HIDDEN` where an event is not visible."""
        projected = nn.functional.silu(self.projections(self.input_norm(x)))
        gate, rest = projected.tensor_split([x.shape[-1]], -1)
        query, key, value = _heads(rest, 3, self.num_heads)
        weights = nn.functional.silu(query @ key.transpose(-1, -2) + bias.to(query.dtype))
        attended = weights @ value
        return x + self.output(self.dropout(self.attended_norm(attended.transpose(1, 2).flatten(2)) * gate))


class SequenceEncoder(nn.Module):
    """Blocks of one kind, between dropout and a last normalisation."""

    def __init__(self, dim: int, config: EncoderConfig, max_length: int) -> None:
        super().__init__()
        block = {"transformer": TransformerBlock, "hstu": HSTUBlock}[config.kind]
        self.bias = RelativeBias(config.num_heads, max_length)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(dim, config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(dim, eps=1e-6)

    def forward(self, events: Tensor, relation: Relation) -> Tensor:
        """Encode events, newest first: embeddings [B, T, D] -> normalised states [B, T, D]."""
        # padding sees itself alone: a softmax of nothing but `HIDDEN` would keep no more than its rounding
        own = torch.eye(events.shape[1], dtype=torch.bool, device=events.device)
        bias = torch.where(relation.visible | own, self.bias(relation), HIDDEN)
        x = self.dropout(events)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)


def _heads(projected: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """[B, T, parts * D] -> parts of [B, heads, T, D / heads]."""
    return projected.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _linear(in_features: int, out_features: int) -> Dense:
    layer = Dense(in_features, out_features, bias=False)
    nn.init.normal_(layer.weight, std=0.4 * in_features**-0.5)
    return layer
