"""The item tower: the mean of the hashed embeddings of an item's id and features."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from prismrec.loss.rows import select_rows
from prismrec.model.embeddings import HashedEmbedding
from prismrec.model.layers import unit_norm

ID_SCALE = 0.3
"""First weights of ids, to those of features. As large, they would be noise in every item that is rare."""


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
    """Encode raw feature ids [..., F] as the mean of the features' embeddings; absent features (id 0) count as zero.

    Neighbouring columns of one name are one feature of several values, whose embedding is the mean of theirs. An item
    with features starts as their mean, nearly; what sets it apart from those like it, its id learns from events.

    Args:
        features: names of the F columns, `item_id` first.
        primes: hash moduli of each feature.
        dim: D.
        category_positions: which columns form the category embedding; without any it is the item's own.
    """

    def __init__(
        self,
        features: Sequence[str],
        primes: Mapping[str, Sequence[int]],
        dim: int,
        category_positions: Sequence[int],
    ) -> None:
        super().__init__()
        names = list(dict.fromkeys(features))
        starts = [features.index(name) for name in names]
        self.columns = [slice(start, stop) for start, stop in itertools.pairwise([*starts, len(features)])]
        id_scale = ID_SCALE if len(names) > 1 else 1.0
        self.embeddings = nn.ModuleList(
            HashedEmbedding(primes[name], dim, scale=1.0 if place else id_scale) for place, name in enumerate(names)
        )
        self.categories = tuple(place for place, start in enumerate(starts) if start in category_positions)

    def forward(self, ids: Tensor) -> ItemEmbedding:
        """[..., F] int64 -> embeddings [..., D]."""
        parts = [
            _mean_of_values(embedding, ids[..., columns])
            for embedding, columns in zip(self.embeddings, self.columns, strict=True)
        ]
        item = torch.stack(parts).mean(0)
        if not self.categories:
            return ItemEmbedding(item, item)
        category = torch.stack([parts[place] for place in self.categories]).mean(0)
        return ItemEmbedding(item, category)


def scored_vectors(embeddings: Tensor, norm: Literal["unit", "free"]) -> Tensor:
    """What users' vectors are compared with: item embeddings [..., D] scaled to length one, or as they are."""
    return unit_norm(embeddings) if norm == "unit" else embeddings


def _mean_of_values(embedding: nn.Module, ids: Tensor) -> Tensor:
    """Embed the values of one feature, [..., L] int64 -> [..., D]."""
    if ids.shape[-1] == 1:
        return embedding(ids[..., 0])
    return embedding(ids).sum(-2) / (ids != 0).sum(-1, keepdim=True).clamp(min=1)
