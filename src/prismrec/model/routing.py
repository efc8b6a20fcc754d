"""Prototype routing of clicks to heads, and the heads that result."""

from typing import Literal

import torch
from torch import Tensor, nn

from prismrec.loss.products import linear
from prismrec.model.layers import PathwiseLinear, dense, unit_norm, unit_normal

Routing = Literal["soft", "log", "hard", "straight_through"]


class PrototypeRouter(nn.Module):
    """p(head | x) = softmax_h(cosine(x, prototype_h) / temperature)."""

    def __init__(self, num_heads: int, dim: int, temperature: float = 0.07) -> None:
        super().__init__()
        self.prototypes = unit_normal(num_heads, dim)
        self.temperature = temperature

    def forward(self, x: Tensor, routing: Routing = "soft") -> Tensor:
        """Route [..., D] to [..., H].

        `soft` gives probabilities, `log` their logarithms, `hard` a one-hot without gradient,
        `straight_through` a one-hot with the gradient of `soft`.
        """
        logits = linear(unit_norm(x), unit_norm(self.prototypes)) / self.temperature
        if routing == "log":
            return torch.log_softmax(logits, -1)
        soft = torch.softmax(logits, -1)
        if routing == "soft":
            return soft
        hard = nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        return hard if routing == "hard" else (hard - soft).detach() + soft


class DisentangleLayer(nn.Module):
    """Split a user's clicks into H heads: p(head, item) = p(item) p(head | item) weighs unit item vectors.

    Args:
        prior: give the dense layers a learned vector per head, so that an empty head is not filled by others.
        equalize: normalise each head's weights to one, so that small interests are as long as large ones.
        per_path: a dense layer of its own for each head, instead of one shared by all.
    """

    def __init__(
        self,
        num_heads: int,
        dim: int,
        *,
        prior: bool = True,
        equalize: bool = False,
        per_path: bool = False,
        routing: Routing = "soft",
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.router = PrototypeRouter(num_heads, dim, temperature)
        self.routing: Routing = routing
        self.equalize = equalize
        self.prior = unit_normal(num_heads, dim) if prior else None
        width = 2 * dim if prior else dim
        if per_path:
            layers: list[nn.Module] = [PathwiseLinear(num_heads, width, dim), PathwiseLinear(num_heads, dim, dim)]
        else:
            layers = [dense(width, dim), dense(dim, dim)]
        self.transform = nn.Sequential(layers[0], nn.Tanh(), layers[1])

    def forward(self, items: Tensor, mask: Tensor, prob_item: Tensor) -> tuple[Tensor, Tensor]:
        """Form the heads.

        Args:
            items: click embeddings [B, T, D].
            mask: true where there is a click [B, T].
            prob_item: p(item) [B, T].

        Returns:
            Heads [B, H, D] and p(head, item) [B, H, T].
        """
        joint = self.router(items, self.routing).transpose(1, 2) * prob_item[:, None]
        joint = torch.where(mask[:, None], joint, 0.0)
        weights = joint / (joint.sum(-1, keepdim=True) + 1e-8) if self.equalize else joint
        pooled = weights @ unit_norm(items)
        first, tanh, second = self.transform
        return second(tanh(first(pooled, self.prior))) + pooled, joint
