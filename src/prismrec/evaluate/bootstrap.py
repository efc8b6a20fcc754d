"""Confidence intervals by resampling users with replacement (Efron's percentile bootstrap)."""

import numpy as np
from pydantic import BaseModel, ConfigDict

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95


class Estimate(BaseModel):
    """A mean over users, weighted or not, with its confidence interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float
    users: int
    """Users that have a value; the others are left out."""


def bootstrap(
    values: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES, weights: np.ndarray | None = None
) -> list[Estimate | None]:
    """Mean of each column with its 95 % percentile interval; None for a column without values.

    The same seed draws the same users for every call with as many users, so that intervals of two
    methods rest on the same resamples.

    Args:
        values: one row per user, one column per metric, [U, M]; NaN where a user has no value.
        seed: of the resampling.
        num_resamples: how many times U users are drawn.
        weights: of each value where they differ, above 0, [U, M]: the mean is `sum of weight * value / sum of weight`,
            and both sums are of the users drawn, so that the interval is that of the ratio.
    """
    present = ~np.isnan(values)
    weight = np.where(present, 1.0 if weights is None else weights, 0.0)
    table = np.hstack([np.where(present, weight * values, 0.0), weight])
    rng = np.random.default_rng(seed)
    users = len(values)
    sums = np.stack(
        [np.bincount(rng.integers(users, size=users), minlength=users) @ table for _ in range(num_resamples)]
    )
    total, count = np.hsplit(sums, 2)
    with np.errstate(invalid="ignore"):
        means = total / count  # NaN where a resample drew no user with a value
    return [
        _estimate(values[kept, column], weight[kept, column], means[:, column]) if kept.any() else None
        for column, kept in enumerate(present.T)
    ]


def _estimate(values: np.ndarray, weights: np.ndarray, means: np.ndarray) -> Estimate:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    value = float(np.average(values, weights=weights))
    return Estimate(value=value, low=float(low), high=float(high), users=len(values))
