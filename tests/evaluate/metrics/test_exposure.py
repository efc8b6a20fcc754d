"""Coverage, Gini, concentration and popularity of what is shown, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.evaluate.metrics.exposure import (
    SHARES,
    concentration,
    coverage,
    exposure_by_decile,
    gini,
    mean_popularity,
)

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


def test_concentration_by_hand() -> None:
    """Exposures 3, 1, 0, 0 of 4 items: a tenth of the catalogue is .4 of the first item, and has .4 * 3 / 4 of all."""
    found = dict(zip(SHARES, concentration(np.array([0, 0, 1, 3])), strict=True))
    assert (SHARES[0], SHARES[-1]) == (0.0001, 1.0)
    assert found[0.1] == pytest.approx(0.3)
    assert found[0.0001] == pytest.approx(0.0003)
    assert found[1.0] == 1


def test_items_shown_alike_have_what_they_are() -> None:
    assert concentration(np.array([1, 1, 1, 1])) == pytest.approx(SHARES)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_concentration_rises_to_one_and_is_never_below_equality(rows: list[int]) -> None:
    found = concentration(np.bincount([*rows, 1], minlength=10)[1:])
    assert found == sorted(found)
    assert found[-1] == pytest.approx(1)
    assert all(share >= equal - 1e-9 for share, equal in zip(found, SHARES, strict=True))


def test_exposure_by_decile_by_hand() -> None:
    shares = exposure_by_decile(np.array([[1, 2], [1, 3], [1, 0]]), np.array([1, 1, 10]))
    assert shares == pytest.approx([0.8, *[0] * 8, 0.2])
    assert exposure_by_decile(NOTHING, np.array([1, 2])) == [0] * 10
