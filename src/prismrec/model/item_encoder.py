"""The item tower: the mean of the hashed embeddings of an item's id and features."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismrec.model.embeddings import HashedEmbedding
from prismrec.model.layers import select_rows


class ItemEmbedding(NamedTuple):
    """Unnormalised embeddings of items and of their categories, [..., D] each."""

    item: Tensor
    category: Tensor

    def select(self, index: Tensor) -> "ItemEmbedding":
        """Gather along the first dimension, so that each distinct item is encoded once per step."""
        return ItemEmbedding(*(select_rows(part, index) for part in self))

    def float(self) -> "ItemEmbedding":
        return ItemEmbedding(self.item.float(), self.category.float())


class ItemEncoder(nn.Module):
    """Encode raw feature ids [..., F] as the mean of F embeddings; absent features (id 0) count as zero.

    Args:
        features: names of the F features, `item_id` first.
        primes: hash moduli of each feature.
        dim: D.
        category_positions: which features form the category embedding; without any it is the item's own.
    """

    def __init__(
        self,
        features: Sequence[str],
        primes: Mapping[str, Sequence[int]],
        dim: int,
        category_positions: Sequence[int],
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(HashedEmbedding(primes[name], dim) for name in features)
        self.category_positions = tuple(category_positions)

    def forward(self, ids: Tensor) -> ItemEmbedding:
        """[..., F] int64 -> embeddings [..., D]."""
        parts = [embedding(ids[..., column]) for column, embedding in enumerate(self.embeddings)]
        item = torch.stack(parts).mean(0)
        if not self.category_positions:
            return ItemEmbedding(item, item)
        category = torch.stack([parts[column] for column in self.category_positions]).mean(0)
        return ItemEmbedding(item, category)
