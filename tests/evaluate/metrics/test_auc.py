"""AUC by hand and against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.errors import DataError
from prismrec.evaluate.metrics.auc import auc, pair_scores


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0]])
def test_needs_both_labels(labels: list[int]) -> None:
    with pytest.raises(DataError, match="both labels"):
        auc(np.zeros(len(labels)), np.array(labels))


def test_refuses_other_labels_and_shapes() -> None:
    with pytest.raises(DataError, match="0 or 1"):
        auc(np.zeros(2), np.array([0, 2]))
    with pytest.raises(DataError, match=r"\[2\] and \[3\]"):
        auc(np.zeros(2), np.array([0, 1, 1]))


def test_order_and_ties() -> None:
    assert auc(np.array([0.1, 0.9]), np.array([0, 1])) == 1
    assert auc(np.array([0.9, 0.1]), np.array([0, 1])) == 0
    assert auc(np.array([0.5, 0.5]), np.array([0, 1])) == 0.5
    # positives 3 and 2, negatives 2 and 1: won 3 pairs, tied one of four
    assert auc(np.array([3, 2, 2, 1.0]), np.array([1, 1, 0, 0])) == 0.875


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_equals_the_share_of_ordered_pairs(pairs: list[tuple[int, bool]]) -> None:
    positives = [score for score, label in pairs if label]
    negatives = [score for score, label in pairs if not label]
    if not positives or not negatives:
        return
    won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    scores, labels = np.array([s for s, _ in pairs], float), np.array([label for _, label in pairs])
    assert auc(scores, labels) == pytest.approx(won / (len(positives) * len(negatives)))


def test_a_pair_scores_by_its_best_vector() -> None:
    interests = np.array([[[1.0, 0], [0, 1]], [[1, 0], [0, -1]]])
    np.testing.assert_allclose(pair_scores(interests, np.array([[0.6, 0.8], [0.6, 0.8]])), [0.8, 0.6])
