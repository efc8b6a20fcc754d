"""Bootstrap intervals: exact where the answer is known, close to theory elsewhere."""

import numpy as np
import pytest

from prismrec.evaluate.bootstrap import bootstrap


def test_column_without_values_is_none() -> None:
    assert bootstrap(np.full((3, 1), np.nan), seed=0) == [None]
    assert bootstrap(np.zeros((0, 1)), seed=0) == [None]


def test_constant_values_have_no_spread() -> None:
    (estimate,) = bootstrap(np.full((5, 1), 0.3), seed=0)
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.3, 0.3, 0.3))


def test_users_without_a_value_are_left_out_and_counted() -> None:
    (estimate,) = bootstrap(np.array([[1.0], [np.nan], [3.0], [np.nan]]), seed=0)
    assert estimate is not None
    assert estimate.value == 2
    assert estimate.users == 2
    assert (estimate.low, estimate.high) == (1, 3)


def test_weighted_means_are_ratios_of_sums_over_the_users_drawn() -> None:
    values, weights = np.array([[1.0], [0.0], [np.nan]]), np.array([[9.0], [1.0], [5.0]])
    (estimate,) = bootstrap(values, seed=0, weights=weights)
    assert estimate is not None
    assert (estimate.value, estimate.users) == (0.9, 2)
    assert (estimate.low, estimate.high) == (0, 1)  # those who draw one of the users only, whatever the weight
    equal = bootstrap(values, seed=0, weights=np.full((3, 1), 7.0))
    assert equal == bootstrap(values, seed=0)


def test_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.tile([0.0, 1.0], 200)[:, None]  # mean 0.5, standard error 0.5 / sqrt(400) = 0.025
    (estimate,) = bootstrap(values, seed=1, num_resamples=4000)
    assert estimate is not None
    assert estimate.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.004)
    assert estimate.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.004)


def test_same_seed_same_interval_and_equal_columns_agree() -> None:
    values = np.random.default_rng(0).random((50, 1))
    first, second = bootstrap(np.hstack([values, values]), seed=3)
    (again,), (other,) = bootstrap(values, seed=3), bootstrap(values, seed=4)
    assert first is not None
    assert second is not None
    assert again is not None
    assert first.model_dump() == pytest.approx(second.model_dump(), rel=1e-12)
    assert first.model_dump() == pytest.approx(again.model_dump(), rel=1e-12)
    assert other != again
