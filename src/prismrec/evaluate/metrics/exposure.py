"""Which part of the catalogue is shown: coverage, Gini and concentration of exposure, popularity of what is shown.

Takes lists of catalogue rows [U, k] (0 fills short lists and is not counted); gives one number,
or a few.
"""

import numpy as np

from prismrec.evaluate.metrics.popularity import NUM_DECILES

SHARES = [round(10 ** (step / 8 - 4), 6) for step in range(33)]
"""Of the catalogue, from a ten-thousandth to all of it: where `concentration` is taken."""


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


def concentration(shown: np.ndarray) -> list[float]:
    """Share of all exposure [I] that the most shown `SHARES` of the catalogue have.

    The Lorenz curve (1905) read from its steep end, where it can be told apart: with x sorted falling,
    `sum_{i <= s I} x_i / sum x`, linear between items. If all items are shown alike, it is s.
    """
    total = np.concatenate([[0], np.cumsum(np.sort(shown)[::-1])])
    places = np.array(SHARES) * len(shown)
    return (np.interp(places, np.arange(len(total)), total) / max(total[-1], 1)).tolist()


def exposure_by_decile(recommended: np.ndarray, item_deciles: np.ndarray) -> list[float]:
    """Share of all recommendations that goes to the items of each popularity decile [I], 1 (head) to 10 (tail).

    Each decile has a tenth of the training interactions: a larger share of the recommendations makes the rich richer.
    """
    shown = exposure(recommended, len(item_deciles))
    by_decile = np.bincount(item_deciles, shown, NUM_DECILES + 1)[1:]
    return (by_decile / max(shown.sum(), 1)).tolist()
