"""Coverage, Gini and mean popularity by hand."""

import numpy as np
import pytest

from prismrec.evaluate.metrics.exposure import coverage, gini, mean_popularity

NOTHING = np.zeros((2, 3), np.int64)


def test_empty_lists() -> None:
    assert coverage(NOTHING, 4) == 0
    assert gini(NOTHING, 4) == 0
    assert mean_popularity(NOTHING, np.array([5, 4, 3, 2])) == 0


def test_coverage_counts_distinct_items_of_the_whole_catalogue() -> None:
    assert coverage(np.array([[1, 2], [2, 0]]), 8) == 0.25


def test_gini_is_zero_when_all_items_are_shown_alike() -> None:
    assert gini(np.array([[1, 2], [3, 4]]), 4) == pytest.approx(0)


def test_gini_of_one_item_alone() -> None:
    assert gini(np.array([[2], [2]]), 4) == pytest.approx(0.75)  # 1 - 1/4


def test_gini_by_hand() -> None:
    # exposures 0, 0, 1, 3 of 4 items: (1 * (2*3-5) + 3 * (2*4-5)) / (4 * 4) = 10 / 16
    assert gini(np.array([[4, 3], [4, 0], [4, 0]]), 4) == pytest.approx(0.625)


def test_mean_popularity_weighs_by_exposure() -> None:
    assert mean_popularity(np.array([[1, 3], [1, 0]]), np.array([10, 7, 4])) == pytest.approx((10 + 4 + 10) / 3)
