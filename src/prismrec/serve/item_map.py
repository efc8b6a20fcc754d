"""A plane through the space of vectors, on which items and interests can be drawn.

Takes vectors of items; gives places on the two axes along which they differ most (principal components, Pearson 1901).
The plane is linear, so an interest stands where its own vector is, not where some drawing put it.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ItemMap:
    """Two axes, scaled so that the items that it was made of lie within -1 and 1."""

    centre: np.ndarray
    """Mean of the items, float32 [D]."""
    axes: np.ndarray
    """Float32 [D, 2]."""
    spread: float
    """Share of the items' variance that the plane shows."""

    @classmethod
    def of(cls, vectors: np.ndarray) -> "ItemMap":
        """The plane of items [N, D]; axes point where they lean to the most popular, the first, item's side."""
        centre = vectors.mean(axis=0)
        centred = (vectors - centre).astype(np.float64)
        variance, directions = np.linalg.eigh(centred.T @ centred)
        axes = directions[:, :-3:-1]
        axes = axes * np.where(centred[0] @ axes < 0, -1, 1)  # the sign of an axis is anyone's choice
        largest = np.abs(centred @ axes).max(initial=0.0)
        spread = variance[-2:].sum() / max(variance.sum(), np.finfo(np.float64).tiny)
        return cls(centre, (axes / max(largest, np.finfo(np.float32).tiny)).astype(np.float32), float(spread))

    def place(self, vectors: np.ndarray) -> list[tuple[float, float]]:
        """Where vectors [N, D] are on it."""
        return [(x, y) for x, y in np.round((vectors - self.centre) @ self.axes, 4).tolist()]
