"""How often ids share rows of hashed tables: expected of random ones, and found among those there are.

Takes distinct ids and the moduli of the tables; gives shares of the ids.
"""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

_KEYS = 2**63  # ids are below


class Collisions(BaseModel):
    """Shares of n distinct ids, each from 0 to 1."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    in_a_table: float
    """Share their row of a table with another id; mean over the tables."""
    in_every_table: float
    """Share their row of each table with some other id, not always the same: no row is theirs alone."""
    the_same: float
    """Share the rows of all tables with one and the same id, and so cannot be told from it."""


def expected_collisions(count: int, primes: Sequence[int]) -> Collisions:
    """What n random ids are expected to share.

    An id is alone in a table of p rows with chance (1 - 1/p)^(n-1). Tables are independent, and two ids are the same
    if they are in the product of all moduli.

    Args:
        count: n.
        primes: p, the modulus of each table.
    """
    shares = [_shared(count, prime) for prime in primes]
    return Collisions(
        in_a_table=math.fsum(shares) / len(shares),
        in_every_table=math.prod(shares),
        the_same=_shared(count, math.prod(primes)),
    )


def _shared(count: int, rows: int) -> float:
    return -math.expm1(max(count - 1, 0) * math.log1p(-1 / rows))


def found_collisions(ids: np.ndarray, primes: Sequence[int]) -> Collisions:
    """What these ids share.

    Args:
        ids: distinct, int64 [n].
        primes: the modulus of each table.
    """
    if not len(ids):
        return Collisions(in_a_table=0.0, in_every_table=0.0, the_same=0.0)
    shared = np.stack([_is_shared(ids % prime) for prime in primes])
    product = math.prod(primes)
    # rows of all tables are equal where the product of the moduli divides the difference; no id is as large as 2^63
    the_same = _is_shared(ids % product).mean() if product < _KEYS else 0.0
    return Collisions(
        in_a_table=float(shared.mean()), in_every_table=float(shared.all(0).mean()), the_same=float(the_same)
    )


def _is_shared(rows: np.ndarray) -> np.ndarray:
    """Whether a row comes up more than once, bool [n]."""
    _, place, counts = np.unique(rows, return_inverse=True, return_counts=True)
    return np.asarray(counts[place] > 1)
