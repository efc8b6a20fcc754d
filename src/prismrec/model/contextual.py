"""The user tower on a contextual encoder: a causal sequence model under the interest heads.

Reads top to bottom: events with their circumstances -> states -> p(event), p(head | event) -> vectors, at the
newest position (serving) or at every position in one pass (training). Same inputs and outputs as `UserEncoder`.
"""

import torch
from torch import Tensor, nn

from prismrec.config import ModelConfig
from prismrec.loss.contrastive import vector_probabilities
from prismrec.model.embeddings import TimeEmbedding
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.layers import dense, floor_log2, unit_norm, unit_normal
from prismrec.model.routing import PrototypeRouter, Routing
from prismrec.model.sequence import SequenceEncoder, relate
from prismrec.model.user_encoder import HistoryEncoder, UserContext, UserEmbedding


class ContextualUserEncoder(HistoryEncoder):
    """Encode a user's clicks, with context, to V unit vectors.

    Args:
        config: the model's settings.
        max_length: T, the longest history.
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
        self.present = TimeEmbedding(dim)
        self.sequence = SequenceEncoder(dim, config.encoder, max_length)
        self.interests = CausalInterests(
            config.num_heads,
            config.num_interests,
            dim,
            routing=config.routing,
            temperature=config.temperature,
            adaptive=config.adaptive_interests,
        )

    def forward(self, clicks: ItemEmbedding, user: UserContext, every_position: bool = False) -> UserEmbedding:
        """Encode histories, newest first.

        Args:
            clicks: embeddings [B, T, D].
            user: the rest that is known of the clicks.
            every_position: encode each prefix of each history, as of the time of the event after it, [B * T, ...];
                otherwise the whole history, [B, ...].

        Returns:
            A `UserEmbedding`; its weights p(head, event) are those of whole histories.
        """
        now = torch.cat([user.now[:, None], user.time[:, :-1]], 1)
        events = nn.functional.rms_norm(clicks.item + self._circumstances(user, now), clicks.item.shape[-1:])
        relation = relate(user.mask, user.time, now)
        states = self.sequence(events, relation)
        positions = states.shape[1] if every_position else 1
        interests, weights = self.interests(states, unit_norm(clicks.item), relation.visible[:, 0, :positions])
        interests = interests.flatten(0, 1)
        return UserEmbedding(interests, interests, weights)

    def _circumstances(self, user: UserContext, now: Tensor) -> Tensor:
        """How long, when, when the next event came, and the context features, [B, T, D]."""
        parts = [
            *self.circumstances(user.dwell, now - user.time, user.context),
            self.time(user.time),
            self.present(now),
        ]
        if self.user is not None:
            parts.append(self.user(user.user)[:, None].expand_as(parts[0]))
        return sum(parts[1:], parts[0]) / len(parts)


class CausalInterests(nn.Module):
    """Route the events before each position to heads, and form a vector per interest and position.

    p(head, s | t) = p(s | t) p(head | s), with p(s | t) by attention of position t over the events that it sees and
    p(head | s) by prototypes. An interest's heads are summed; its vector is the state of the position plus the pooled
    events, and so is personal from the first step on, where a state alone may stay the same for everybody; learned
    weights take the pooled events back where the order of events tells more. Two dense layers of both and of the
    interest's prior are added, at first with nothing.
    """

    def __init__(
        self, num_heads: int, num_interests: int, dim: int, *, routing: Routing, temperature: float, adaptive: bool
    ) -> None:
        super().__init__()
        self.num_interests = num_interests
        self.router = PrototypeRouter(num_heads, dim, temperature)
        self.routing: Routing = routing
        self.adaptive = adaptive
        self.query = dense(dim, dim, bias=False)
        self.key = dense(dim, dim, bias=False)
        self.prior = unit_normal(num_interests, 2 * dim)
        self.of_state = dense(dim, 2 * dim)
        self.of_pooled = dense(dim, 2 * dim, bias=False)
        self.of_history = nn.Parameter(torch.ones(dim))
        self.output = dense(2 * dim, dim)
        nn.init.zeros_(self.output.weight)

    def forward(self, states: Tensor, items: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Form the vectors of the P newest positions.

        Args:
            states: of the sequence encoder [B, T, D].
            items: unit embeddings of the events [B, T, D].
            visible: which events each of the positions sees, bool [B, P, T].

        Returns:
            Unit vectors [B, P, V, D], zero where there is none, and p(head, event) [B, H, T] of the newest position.
        """
        states, keys = states[:, : visible.shape[1]], self.key(states)
        score = self.query(states) @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5
        prob_event = torch.softmax(score.masked_fill(~visible, -1e4), -1) * visible  # [B, P, T]
        prob_head = self.router(items, self.routing)  # [B, T, H]
        prob_vector = vector_probabilities(prob_head, self.num_interests)
        routed = prob_vector[..., None] * items[..., None, :]  # [B, T, V, D]
        pooled = (prob_event @ routed.flatten(2)).unflatten(-1, routed.shape[2:])  # [B, P, V, D]
        hidden = self.of_pooled(pooled) + self.of_state(states)[:, :, None] + self.prior
        start = states[:, :, None] * states.shape[-1] ** -0.5 + self.of_history * (self.num_interests * pooled)
        vectors = unit_norm((start + self.output(nn.functional.silu(hidden))).float())
        if self.adaptive:
            vectors = vectors * strongest(prob_event @ prob_vector, visible.sum(-1))[..., None]
        return vectors, prob_event[:, 0, None] * prob_head.transpose(1, 2)


def strongest(share: Tensor, events: Tensor) -> Tensor:
    """Which vectors a history gets: its floor(log2(events)) + 1 strongest, at least one.

    Args:
        share: of the history in each vector [..., V].
        events: number of events [...].

    Returns:
        bool [..., V].
    """
    place = torch.arange(share.shape[-1], device=share.device)
    other, own = share[..., None, :], share[..., None]
    rank = ((other > own) | ((other == own) & (place < place[:, None]))).sum(-1)  # ONNX knows no stable sort
    return rank <= floor_log2(events, 62)[..., None]
