"""ComiRec-SA, ComiRec-DR and MIND: three ways from a history to several vectors.

Controllable Multi-Interest Framework for Recommendation (KDD 2020, arXiv 2005.09347) and Multi-Interest
Network with Dynamic Routing (CIKM 2019, arXiv 1904.08030), written from the papers; where those leave
a choice, as in the authors' code (github.com/THUDM/ComiRec): routing weights of each position in
ComiRec-DR, a ReLU layer after routing in MIND, gradients through the last routing iteration alone,
initial values. MIND has no user profile here, since no method is given one.
"""

import math

import torch
from torch import Tensor, nn

_EPSILON = 1e-9


class MultiInterestPeer(nn.Module):
    """Item embeddings, whose row 0 is padding, and an extractor of interests."""

    def __init__(self, num_items: int, dim: int, extractor: nn.Module) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.empty(num_items + 1, dim))
        nn.init.xavier_uniform_(self.items)
        self.extractor = extractor

    def forward(self, history: Tensor) -> Tensor:
        """Vectors of each history.

        Args:
            history: catalogue rows, oldest first and then 0, int64 [B, T].

        Returns:
            Interests, float32 [B, V, D].
        """
        mask = history > 0
        interests: Tensor = self.extractor(self.items[history] * mask[..., None], mask)
        return interests


class SelfAttention(nn.Module):
    """ComiRec-SA: V attentions over the history, `softmax(W2 tanh(W1 (E + P)))`, each a weighted sum of E."""

    def __init__(self, dim: int, num_interests: int, max_length: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(max_length, dim))
        nn.init.xavier_uniform_(self.position)
        self.hidden = _dense(dim, 4 * dim)
        self.heads = _dense(4 * dim, num_interests)

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """From E [B, T, D] and which of it is there [B, T] to interests [B, V, D]."""
        weights = self.heads(torch.tanh(self.hidden(embedded + self.position)))
        weights = weights.masked_fill(~mask[..., None], -torch.inf).softmax(dim=1)
        return weights.transpose(1, 2) @ embedded


class DynamicRouting(nn.Module):
    """ComiRec-DR: capsules of the history's items are routed to V capsules; a map per position and interest."""

    def __init__(self, dim: int, num_interests: int, max_length: int, iterations: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(max_length, dim, num_interests * dim))
        self.num_interests, self.iterations = num_interests, iterations

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """From E [B, T, D] and which of it is there [B, T] to interests [B, V, D]."""
        users, length, dim = embedded.shape
        mapped = torch.einsum("btd,tdk->btk", embedded, self.maps)
        capsules = mapped.view(users, length, self.num_interests, dim).transpose(1, 2)
        return route(capsules, mask, embedded.new_zeros(users, self.num_interests, length), self.iterations)


class Mind(nn.Module):
    """MIND's B2I routing: one map for all, random first logits, and `max(1, min(V, log2 |history|))` interests.

    A history of fewer interests has its first one in place of the rest, which leaves every maximum as it is.
    """

    def __init__(self, dim: int, num_interests: int, iterations: int) -> None:
        super().__init__()
        self.map = _dense(dim, dim, bias=False)
        self.dense = _dense(dim, dim)
        self.num_interests, self.iterations = num_interests, iterations

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """From E [B, T, D] and which of it is there [B, T] to interests [B, V, D]."""
        users, length, _ = embedded.shape
        capsules = self.map(embedded)[:, None].expand(-1, self.num_interests, -1, -1)
        number = mask.sum(dim=1).clamp(min=2).log2().floor().clamp(max=self.num_interests)
        spare = torch.arange(self.num_interests, device=mask.device) >= number[:, None]
        first = self._first_logits(users, length).masked_fill(spare[..., None], -torch.inf)
        routed = route(capsules, mask, first, self.iterations)
        interests = torch.relu(self.dense(routed))
        return torch.where(spare[..., None], interests[:, :1], interests)

    def _first_logits(self, users: int, length: int) -> Tensor:
        """Normal, [B, V, T]; drawn anew in training, else always the same, so that lists can be repeated."""
        if self.training:
            return torch.randn(users, self.num_interests, length)
        return torch.randn(1, self.num_interests, length, generator=torch.Generator().manual_seed(0))


def route(capsules: Tensor, mask: Tensor, logits: Tensor, iterations: int) -> Tensor:
    """Route items to interests by agreement; only the last iteration has a gradient.

    Args:
        capsules: the items as each interest sees them, [B, V, T, D].
        mask: which items are there, bool [B, T].
        logits: the first routing logits, [B, V, T].
        iterations: at least 1.

    Returns:
        Interests [B, V, D], of length below 1.
    """
    fixed = capsules.detach()
    for _ in range(iterations - 1):
        interests = _squash(_weights(logits, mask) @ fixed)
        logits = logits + (fixed @ interests.transpose(2, 3)).squeeze(3)
    return _squash(_weights(logits, mask) @ capsules).squeeze(2)


def _dense(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A dense layer with TensorFlow's initial values."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _weights(logits: Tensor, mask: Tensor) -> Tensor:
    """Each item's share of each interest, [B, V, 1, T]; the shares of one item sum to 1."""
    return (logits.softmax(dim=1) * mask[:, None])[:, :, None]


def _squash(vectors: Tensor) -> Tensor:
    """`|v|^2 / (1 + |v|^2) * v / |v|`, over the last dimension."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    return squared / (1 + squared) / (squared + _EPSILON).sqrt() * vectors


def read_interest(interests: Tensor, target: Tensor) -> Tensor:
    """The interest [B, D] that scores its target [B, D] highest: the hard reading of both papers."""
    best = (interests @ target[:, :, None]).squeeze(2).argmax(dim=1)
    return interests[torch.arange(len(best), device=best.device), best]


def log_uniform(num_items: int) -> Tensor:
    """Probability of each popularity rank, most popular first, float64 [I]: TensorFlow's candidate sampler.

    `(log(rank + 2) - log(rank + 1)) / log(I + 1)`, rank from 0.
    """
    edges = torch.arange(1, num_items + 2, dtype=torch.float64).log()
    return edges.diff() / math.log(num_items + 1)
