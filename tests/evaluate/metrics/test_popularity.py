"""Popularity deciles and recall by them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.metrics.popularity import deciles, recall_by_decile, tail_recall


def test_without_interactions_every_item_is_tail() -> None:
    assert deciles(np.zeros(3, np.int64)).tolist() == [10, 10, 10]
    assert deciles(np.zeros(0, np.int64)).tolist() == []


def test_ten_equal_items_are_one_decile_each() -> None:
    assert deciles(np.full(10, 7)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_deciles_hold_equal_shares_of_interactions_not_of_items() -> None:
    # sorted 5, 3, 1, 1, 0: shares before each are 0, .5, .8, .9, and the unseen item is tail
    assert deciles(np.array([1, 5, 0, 3, 1])).tolist() == [9, 1, 10, 6, 10]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_more_popular_items_are_never_in_a_later_decile(counts: list[int]) -> None:
    result = deciles(np.array(counts))
    by_popularity = np.argsort(-np.array(counts), kind="stable")
    assert (np.diff(result[by_popularity]) >= 0).all()
    assert set(result) <= set(range(1, 11))


def test_recall_by_decile_pools_pairs_over_users() -> None:
    targets = ItemSets.from_lists([[1, 2], [1, 3]])
    item_deciles = np.array([1, 1, 10])
    values = recall_by_decile(np.array([[1, 9], [3, 0]]), targets, item_deciles)
    assert values == [1 / 3, None, None, None, None, None, None, None, None, 1.0]


def test_tail_recall_looks_at_the_lower_half_only() -> None:
    targets = ItemSets.from_lists([[1, 2, 3], [1], [3]])
    values = tail_recall(np.array([[2, 1], [1, 0], [1, 2]]), targets, np.array([5, 6, 10]))
    np.testing.assert_array_equal(values, [0.5, np.nan, 0.0])
