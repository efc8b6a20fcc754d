"""Which part of the catalogue is shown: coverage, Gini of exposure, mean popularity of what is shown.

Takes lists of catalogue rows [U, k] (0 fills short lists and is not counted); gives one number.
"""

import numpy as np


def exposure(recommended: np.ndarray, num_items: int) -> np.ndarray:
    """How often each catalogue row 1..I is recommended, int64 [I]."""
    return np.bincount(recommended.ravel(), minlength=num_items + 1)[1:]


def coverage(recommended: np.ndarray, num_items: int) -> float:
    """Share of the catalogue that is recommended to anyone: `distinct recommended items / I`."""
    return float((exposure(recommended, num_items) > 0).mean()) if num_items else 0.0


def gini(recommended: np.ndarray, num_items: int) -> float:
    """Inequality of exposure x over the whole catalogue, never-shown items included; 0 if all are shown alike.

    With x sorted rising and i from 1: `sum_i (2i - I - 1) x_i / (I sum x)`; one item alone gives 1 - 1 / I.
    """
    shown = np.sort(exposure(recommended, num_items)).astype(np.float64)
    if shown.sum() == 0:
        return 0.0
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(weights @ shown / (num_items * shown.sum()))


def mean_popularity(recommended: np.ndarray, counts: np.ndarray) -> float:
    """Mean training interactions `counts` [I] of the recommended items, each recommendation counted once."""
    shown = exposure(recommended, len(counts))
    return float(shown @ counts / shown.sum()) if shown.sum() else 0.0
