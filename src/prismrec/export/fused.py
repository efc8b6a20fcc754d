"""The item tower in a few large operations, for serving: a graph of hundreds of small ones costs more in its nodes.

Takes a trained item encoder; gives a module with the same outputs, to rounding, or the encoder itself if its features
are hashed in different ways.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prismrec.model.embeddings import HashedEmbedding
from prismrec.model.item_encoder import ItemEmbedding, ItemEncoder


def fuse_item_encoder(encoder: ItemEncoder) -> nn.Module:
    """The same item encoder in fewer operations, if all features have as many tables of one width."""
    embeddings = [embedding for embedding in encoder.embeddings if isinstance(embedding, HashedEmbedding)]
    shapes = {(len(each.tables), each.tables[0].embedding_dim, each.projection is None) for each in embeddings}
    return FusedItemEncoder(encoder, embeddings) if len(shapes) == 1 else encoder


class FusedItemEncoder(nn.Module):
    """All tables of all features in one, looked up at once; all projections and means in one product.

    With e_c the concatenated rows of column c's id, P_f its feature's projection and w_c its share in the means, an
    item is sum_c w_c e_c P_f(c): one product of all columns side by side with all projections on top of each other.
    """

    primes: Tensor
    offsets: Tensor
    table: Tensor
    item_projection: Tensor
    category_projection: Tensor

    def __init__(self, encoder: ItemEncoder, embeddings: list[HashedEmbedding]) -> None:
        super().__init__()
        self.columns = encoder.columns
        self.features = [
            place for place, columns in enumerate(self.columns) for _ in range(columns.stop - columns.start)
        ]
        tables = [[cast(nn.Embedding, table).weight.detach() for table in each.tables] for each in embeddings]
        rows = torch.tensor([[len(table) for table in each] for each in tables])  # [F, H]
        starts = (rows.flatten().cumsum(0) - rows.flatten()).reshape(rows.shape)
        self.register_buffer("primes", torch.tensor([each.primes for each in embeddings])[self.features])  # [L, H]
        self.register_buffer("offsets", starts[self.features] + 1)
        self.register_buffer("table", torch.cat([table for each in tables for table in each]))
        projections = [_projection(each) for each in embeddings]
        self.register_buffer("item_projection", _stacked(projections, self.features) / len(self.columns))
        self.in_category = [column for column, place in enumerate(self.features) if place in encoder.categories]
        if self.in_category:
            chosen = [self.features[column] for column in self.in_category]
            self.register_buffer("category_projection", _stacked(projections, chosen) / len(encoder.categories))

    def forward(self, ids: Tensor) -> ItemEmbedding:
        """[..., L] int64 -> embeddings [..., D]; see `ItemEncoder`."""
        rows = functional.embedding(ids[..., None] % self.primes + self.offsets, self.table).flatten(-2)  # [..., L, W]
        rows = rows * self._shares(ids)[..., None]
        item = rows.flatten(-2) @ self.item_projection
        if not self.in_category:
            return ItemEmbedding(item, item)
        return ItemEmbedding(item, rows[..., self.in_category, :].flatten(-2) @ self.category_projection)

    def _shares(self, ids: Tensor) -> Tensor:
        """Share of each column in its feature's mean [..., L]; absent values have none."""
        present = (ids != 0).float()
        if len(self.columns) == len(self.features):
            return present
        counts = [present[..., columns].sum(-1, keepdim=True).clamp(min=1) for columns in self.columns]
        return present / torch.cat([counts[place] for place in self.features], -1)


def _stacked(projections: list[Tensor], features: list[int]) -> Tensor:
    return torch.cat([projections[place] for place in features])


def _projection(embedding: HashedEmbedding) -> Tensor:
    """[W, D]."""
    if embedding.projection is None:
        return torch.eye(cast(nn.Embedding, embedding.tables[0]).embedding_dim)
    return embedding.projection.weight.detach().T
