"""How much each click counts: the context co-action, and p(item) from context or from queries."""

import torch
from torch import Tensor, nn

from prismrec.loss.softmax import weighted_softmax
from prismrec.model.layers import dense, of_clicks, unit_normal


class ContextCoAction(nn.Module):
    """Let the user's present context act on each click's context.

    tanh(k + tanh(k) Q), k = dense(keys), Q = dense(query) reshaped to [D, D].
    """

    def __init__(self, query_dim: int, key_dim: int, dim: int) -> None:
        super().__init__()
        self.query = dense(query_dim, dim * dim)
        self.key = dense(key_dim, dim)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """[B, Dq], [B, T, D] of `self.key` -> [B, T, D]."""
        action = self.query(query).unflatten(-1, (key.shape[-1], key.shape[-1]))
        return torch.tanh(key + torch.tanh(key) @ action)


class ContextAttention(nn.Module):
    """p(item) over a user's clicks from item and context, optionally with a learned position bias."""

    def __init__(self, dim: int, max_length: int | None = None) -> None:
        super().__init__()
        self.position = unit_normal(max_length, dim) if max_length else None
        self.hidden = dense(dim * (3 if max_length else 2), 4 * dim)
        self.score = dense(4 * dim, 1)

    def forward(self, items: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """[B, T, D], [B, T] bool, [B, T, D] -> [B, T]."""
        inputs = [items, context]
        if self.position is not None:
            # not len(items), which would be a constant where the model is exported
            inputs.insert(1, self.position.expand(items.shape[0], -1, -1))
        score = of_clicks(lambda *parts: self.score(torch.tanh(self.hidden(torch.cat(parts, -1)))), mask, *inputs)
        return weighted_softmax(score.squeeze(-1), mask.to(score.dtype))


class QueryAttention(nn.Module):
    """p(item) as the mean over queries of softmax_t(<query, item_t> / temperature), of unit vectors.

    Users without a query get zeros.
    """

    def __init__(self, dim: int, transform: bool = True, temperature: float = 0.07) -> None:
        super().__init__()
        self.transform = dense(dim, dim) if transform else None
        self.temperature = temperature

    def forward(self, items: Tensor, mask: Tensor, queries: Tensor, query_mask: Tensor) -> Tensor:
        """[B, T, D], [B, T] bool, [B, N, D], [B, N] bool -> [B, T]."""
        if self.transform is not None:
            queries = queries + self.transform(queries)
        cosine = queries @ items.transpose(1, 2)  # [B, N, T]
        prob = weighted_softmax(cosine / self.temperature, mask[:, None].to(cosine.dtype))
        counted = query_mask[..., None].to(cosine.dtype)
        return (prob * counted).sum(1) / (counted.sum(1) + 1e-8)
