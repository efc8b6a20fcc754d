"""Ranking metrics against numbers worked out by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.metrics.ranking import hit_rate, hits, mrr, ndcg, recall

Metric = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
METRICS = [recall, hit_rate, ndcg, mrr]


def score(metric: Metric, recommended: list[int], targets: list[int], k: int) -> float:
    sets = ItemSets.from_lists([targets])
    return float(metric(hits(np.array([recommended], np.int64).reshape(1, -1), sets), sets.sizes, k)[0])


@pytest.mark.parametrize("metric", METRICS)
def test_user_without_targets_has_no_value(metric: Metric) -> None:
    assert math.isnan(score(metric, [1, 2], [], 2))


@pytest.mark.parametrize("metric", METRICS)
def test_empty_list_scores_zero(metric: Metric) -> None:
    assert score(metric, [], [1], 2) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_filling_is_never_a_hit(metric: Metric) -> None:
    assert score(metric, [0, 0], [1], 2) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_no_users(metric: Metric) -> None:
    assert len(metric(np.zeros((0, 3), bool), np.zeros(0, np.int64), 3)) == 0


def test_recall_is_the_share_of_targets_found() -> None:
    assert score(recall, [5, 1, 2, 3], [1, 3, 8, 9], 4) == 0.5
    assert score(recall, [5, 1, 2, 3], [1, 3, 8, 9], 3) == 0.25
    assert score(recall, [1, 2], [1, 2, 3], 2) == pytest.approx(2 / 3)


def test_hit_rate_is_one_for_any_hit() -> None:
    assert score(hit_rate, [5, 1, 2], [1, 2], 2) == 1
    assert score(hit_rate, [5, 1, 2], [1, 2], 1) == 0


def test_ndcg_discounts_by_rank() -> None:
    # hits at ranks 2 and 3 of three targets, k = 3: (1/log2 3 + 1/log2 4) / (1 + 1/log2 3 + 1/log2 4)
    gain = 1 / math.log2(3) + 1 / 2
    assert score(ndcg, [5, 1, 2], [1, 2, 3], 3) == pytest.approx(gain / (1 + gain))


def test_ndcg_ideal_is_limited_by_k_and_by_the_number_of_targets() -> None:
    assert score(ndcg, [1, 2], [1, 2, 3, 4], 2) == pytest.approx(1)
    assert score(ndcg, [1, 5, 6], [1], 3) == pytest.approx(1)
    # a list shorter than k is still compared with the ideal list of length k
    assert score(ndcg, [1], [1, 2], 5) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_mrr_is_the_inverse_rank_of_the_first_hit() -> None:
    assert score(mrr, [5, 6, 1, 2], [1, 2], 4) == pytest.approx(1 / 3)
    assert score(mrr, [5, 6, 1, 2], [1, 2], 2) == 0


def test_each_user_counts_only_its_own_targets() -> None:
    targets = ItemSets.from_lists([[1], [2], [3]])
    found = hits(np.array([[1, 2], [1, 3], [9, 3]]), targets)
    assert found.tolist() == [[True, False], [False, False], [False, True]]
    assert recall(found, targets.sizes, 2).tolist() == [1, 0, 1]


LISTS = st.lists(st.integers(1, 30), unique=True, min_size=1, max_size=10)


@given(LISTS, LISTS, st.integers(1, 10))
def test_metrics_lie_between_zero_and_one_and_grow_when_a_target_moves_up(
    recommended: list[int], targets: list[int], k: int
) -> None:
    hits_first = sorted(recommended, key=lambda item: item not in targets)
    for metric in METRICS:
        value, best = score(metric, recommended, targets, k), score(metric, hits_first, targets, k)
        assert 0 <= value <= best + 1e-12 <= 1 + 1e-9


@given(LISTS, LISTS)
def test_recall_does_not_fall_with_k(recommended: list[int], targets: list[int]) -> None:
    values = [score(recall, recommended, targets, k) for k in range(1, 11)]
    assert values == sorted(values)
