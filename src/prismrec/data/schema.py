"""Names of the columns and features that flow through PrismRec, and the stable integer key of an id.

Everything downstream of `prepare` sees integers only: an item is its 1-based row in the catalogue
(0 is padding), a feature value is its 63-bit key (0 is "none").
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel, ConfigDict

USER, ITEM, TIME = "user_id", "item_id", "timestamp"
DWELL, WEIGHT, UNIFORM = "dwell", "weight", "uniform"
CATEGORY_FEATURES = ("category", "top_category")
KNOWN_ITEM_FEATURES = ("brand", *CATEGORY_FEATURES)
TITLE = "title"


class Schema(BaseModel):
    """Which features a store holds; a model is built for exactly one schema."""

    model_config = ConfigDict(frozen=True)

    item_features: tuple[str, ...]
    """Columns of `item_features.npy`, `item_id` first; then those of `KNOWN_ITEM_FEATURES` present, then others; the
    name of a column of lists comes as often as its longest list has values."""
    context_features: tuple[str, ...] = ()
    """Extra id columns of events."""
    has_dwell: bool = False
    has_weight: bool = False
    has_uniform: bool = False
    """Events say whether they came of random exposure; no model reads it, only evaluation does, so it is not in
    `fingerprint`."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that a model depends on: the hash by which a run knows its store."""
        return hashlib.sha256(self.model_dump_json(exclude={"has_uniform"}).encode()).hexdigest()

    @property
    def category_positions(self) -> tuple[int, ...]:
        """Columns of `item_features` that hold categories, coarse or fine; may be empty."""
        return tuple(i for i, name in enumerate(self.item_features) if name in CATEGORY_FEATURES)


def stable_keys(values: Iterable[int | str | None]) -> np.ndarray:
    """Map ids to non-negative int64 keys that never change between machines or versions.

    Integers from 0 up become `value + 1`, so small ids stay collision-free under a prime modulus and
    0 stays free for padding; anything else becomes the low 63 bits of BLAKE2b of its text; None is 0.
    """
    return np.fromiter((_stable_key(value) for value in values), dtype=np.int64)


def _stable_key(value: int | str | None) -> int:
    if value is None:
        return 0
    if isinstance(value, int) and 0 <= value < 2**63 - 1:
        return value + 1
    digest = hashlib.blake2b(str(value).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") & (2**63 - 1)) or 1
