"""Many integer ranges at once, without a loop."""

from typing import Any

import numpy as np


def flat_ranges(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """The integers of all ranges [start, stop), one after another, int64."""
    sizes = stop - start
    return np.arange(sizes.sum()) + np.repeat(start - np.cumsum(sizes) + sizes, sizes)


def events_before(time: Any, start: np.ndarray, stop: np.ndarray, now: np.ndarray) -> np.ndarray:
    """First event of each range [start, stop), sorted by time, that is not older than `now`; binary search, [B]."""
    low, high = start.copy(), stop.copy()
    while (low < high).any():
        middle = (low + high) // 2
        older = (low < high) & (time[np.minimum(middle, len(time) - 1)] < now)
        low, high = np.where(older, middle + 1, low), np.where(older, high, middle)
    return low
