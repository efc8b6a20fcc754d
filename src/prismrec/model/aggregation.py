"""From H heads to V vectors, and from V vectors to the best few."""

import torch
from torch import Tensor, nn

from prismrec.model.layers import PathwiseLinear


class HeadAggregation(nn.Module):
    """Attention-weighted *mean* of the heads of each path (ABAE, He et al. 2017, as the reference uses it).

    weights = softmax_h(<head, query> / temperature); result = mean_h weights * head. Without a query the
    mean head is one; `transform` adds a dense layer of the query to it, one per path.
    """

    def __init__(self, num_paths: int, dim: int, transform: bool, temperature: float = 1.0) -> None:
        super().__init__()
        self.transform = PathwiseLinear(num_paths, dim, dim) if transform else None
        self.temperature = temperature

    def forward(self, heads: Tensor, query: Tensor | None = None) -> Tensor:
        """[B, V, H/V, D], [B, V, D] -> [B, V, D]."""
        query = heads.mean(2) if query is None else query
        if self.transform is not None:
            query = query + self.transform(query)
        weights = torch.softmax((heads @ query[..., None]) / self.temperature, 2)
        return (weights * heads).mean(2)


def select_top_vectors(vectors: Tensor, scores: Tensor, top_k: int) -> Tensor:
    """The `top_k` vectors of each user with the highest scores, best first: [B, V, D], [B, V] -> [B, top_k, D]."""
    best = scores.topk(top_k, dim=1).indices
    return vectors.gather(1, best[..., None].expand(-1, -1, vectors.shape[-1]))
