"""Embeddings of raw integer ids, bucketised numbers and times of day; id 0 is padding and embeds to zero.

Hashing happens here and nowhere else, so that training, export and serving cannot differ.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prismrec.model.layers import dense

SPARE_ROWS = 8  # of the reference: a table has prime + 8 rows
HOUR, DAY, HOURS, DAYS = 3600, 86400, 24, 7


def _table(rows: int, width: int, dim: int, sparse: bool = False, scale: float = 1.0) -> nn.Embedding:
    table = nn.Embedding(rows, width, sparse=sparse)
    nn.init.normal_(table.weight, std=scale * dim**-0.5)
    return table


class HashedTables(nn.ModuleList):
    """A table for each modulus; called with ids, gives their rows of all tables side by side.

    Row of id x in table i: `x % prime_i + 1`.
    """

    def __init__(self, primes: Sequence[int], width: int, dim: int, sparse: bool, scale: float) -> None:
        super().__init__(_table(prime + SPARE_ROWS, width, dim, sparse, scale) for prime in primes)
        self.primes = tuple(primes)
        self.width = width

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 -> [..., tables * width]; what id 0 gives does not count."""
        return torch.cat([table(ids % prime + 1) for table, prime in zip(self, self.primes, strict=True)], -1)


class HashedEmbedding(nn.Module):
    """Ids hashed by several prime moduli into several tables, concatenated and projected ("bloom" embedding).

    A single table of the full width is used as it is.

    Args:
        primes: one modulus per table.
        dim: D, width of the result.
        width: width of each table; by default D / number of tables.
        sparse: give sparse gradients, for large tables and row-wise optimisers.
        scale: of the first weights.
    """

    def __init__(
        self, primes: Sequence[int], dim: int, width: int | None = None, sparse: bool = True, scale: float = 1.0
    ) -> None:
        super().__init__()
        width = width or dim // len(primes)
        self.primes = tuple(primes)
        self.tables = HashedTables(primes, width, dim, sparse, scale)
        projected = len(primes) > 1 or width != dim
        self.projection = dense(width * len(primes), dim, bias=False) if projected else None

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 -> [..., D]."""
        embedding = self.tables(ids)
        if self.projection is not None:
            embedding = self.projection(embedding)
        return torch.where((ids != 0)[..., None], embedding, 0.0)


class BucketEmbedding(nn.Module):
    """A number's bucket among sorted boundaries, `sum(x >= boundary) + 1`, embedded; 0 embeds to zero."""

    boundaries: Tensor

    def __init__(self, boundaries: Sequence[int], dim: int) -> None:
        super().__init__()
        # no weight: there even in a model on the meta device, whose weights are still to come
        self.register_buffer("boundaries", torch.tensor(boundaries, dtype=torch.int64, device="cpu"), persistent=False)
        self.table = _table(len(boundaries) + SPARE_ROWS, dim, dim)

    def forward(self, values: Tensor) -> Tensor:
        """[...] int64 -> [..., D]."""
        bucket = (values[..., None] >= self.boundaries).sum(-1) + 1
        return torch.where((values != 0)[..., None], self.table(bucket), 0.0)


class TimeEmbedding(nn.Module):
    """Hour of day and day of week of a Unix time in seconds (UTC), concatenated and projected; 0 embeds to zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hour = _table(HOURS + SPARE_ROWS, dim // 4, dim)
        self.day = _table(DAYS + SPARE_ROWS, dim // 4, dim)
        self.projection = dense(2 * (dim // 4), dim, bias=False)

    def forward(self, time: Tensor) -> Tensor:
        """[...] int64 -> [..., D]."""
        hour = self.hour(time // HOUR % HOURS + 1)
        day = self.day(time // DAY % DAYS + 1)
        embedding = self.projection(torch.cat([hour, day], -1))
        return torch.where((time != 0)[..., None], embedding, 0.0)


def primes_from(start: int, count: int) -> tuple[int, ...]:
    """The first `count` primes that are at least `start`."""
    found: list[int] = []
    candidate = max(start, 2)
    while len(found) < count:
        if all(candidate % divisor for divisor in range(2, int(candidate**0.5) + 1)):
            found.append(candidate)
        candidate += 1
    return tuple(found)
