"""Popularity baselines by hand."""

import numpy as np

from prismrec.evaluate.baselines.popular import item_counts, popularity_scorer, recent_item_counts
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.retrieval import ranked_lists


def test_counts_are_of_training_events_only(make_store) -> None:
    store = make_store([[(1, 1), (2, 2), (1, 3), (3, 4), (4, 5)], [(2, 1), (2, 2), (3, 3)]], 5)
    assert item_counts(store).tolist() == [2, 2, 0, 0, 0]


def test_recent_is_the_last_tenth_of_training_time(make_store) -> None:
    store = make_store([[(1, 0), (1, 89), (2, 90), (3, 100), (4, 200), (4, 300)]], 4)
    assert recent_item_counts(store).tolist() == [0, 1, 1, 0]


def test_no_training_events(make_store) -> None:
    store = make_store([[(1, 0)]], 2)
    assert item_counts(store).tolist() == [0, 0]
    assert recent_item_counts(store).tolist() == [0, 0]


def test_ranks_by_count_then_tie_breaker_then_row_and_leaves_seen_out() -> None:
    scorer = popularity_scorer(np.array([1, 5, 1, 0, 1]), np.array([2, 0, 3, 0, 2]))
    items, _ = ranked_lists(scorer, ItemSets.from_lists([[], [2, 3], [1, 2, 3]]), 5, 3)
    assert items[:, 0].tolist() == [[2, 3, 1], [1, 5, 4], [5, 4, 0]]
