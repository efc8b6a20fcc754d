"""Confidence intervals by resampling users with replacement (Efron's percentile bootstrap)."""

import numpy as np
from pydantic import BaseModel, ConfigDict

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95


class Estimate(BaseModel):
    """A mean over users with its confidence interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float
    users: int
    """Users that have a value; the others are left out."""


def bootstrap(values: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES) -> list[Estimate | None]:
    """Mean of each column with its 95 % percentile interval; None for a column without values.

    The same seed draws the same users for every call with as many users, so that intervals of two
    methods rest on the same resamples.

    Args:
        values: one row per user, one column per metric, [U, M]; NaN where a user has no value.
        seed: of the resampling.
        num_resamples: how many times U users are drawn.
    """
    present = ~np.isnan(values)
    table = np.hstack([np.where(present, values, 0.0), present])
    rng = np.random.default_rng(seed)
    users = len(values)
    sums = np.stack(
        [np.bincount(rng.integers(users, size=users), minlength=users) @ table for _ in range(num_resamples)]
    )
    total, count = np.hsplit(sums, 2)
    with np.errstate(invalid="ignore"):
        means = total / count  # NaN where a resample drew no user with a value
    return [
        _estimate(values[present[:, column], column], means[:, column]) if present[:, column].any() else None
        for column in range(values.shape[1])
    ]


def _estimate(values: np.ndarray, means: np.ndarray) -> Estimate:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high), users=len(values))
