"""Head usage and similarity of vectors by hand."""

import math

import numpy as np
import pytest

from prismrec.evaluate.metrics.interests import dead_heads, head_entropy, interest_similarity


def test_entropy_is_one_for_equal_use_and_zero_for_one_head() -> None:
    assert head_entropy(np.full(4, 0.25)) == pytest.approx(1)
    assert head_entropy(np.array([1.0, 0, 0, 0])) == 0
    assert head_entropy(np.array([1.0])) == 1


def test_entropy_by_hand() -> None:
    assert head_entropy(np.array([0.5, 0.5, 0, 0])) == pytest.approx(math.log(2) / math.log(4))


def test_dead_heads_have_less_than_a_tenth_of_an_equal_share() -> None:
    assert dead_heads(np.array([0.024, 0.026, 0.5, 0.45])) == [0]  # an equal share is 0.25


def test_similarity_of_three_vectors() -> None:
    interests = np.array([[[1.0, 0], [0, 1], [0.6, 0.8]], [[1, 0], [1, 0], [1, 0]]])
    mean, largest = interest_similarity(interests)
    np.testing.assert_allclose(mean, [(0 + 0.6 + 0.8) / 3, 1])
    np.testing.assert_allclose(largest, [0.8, 1])


def test_vectors_that_are_not_there_have_no_similarity() -> None:
    interests = np.array([[[1.0, 0], [0, 0], [0.6, 0.8]], [[1, 0], [0, 0], [0, 0]]])
    mean, largest = interest_similarity(interests)
    np.testing.assert_allclose([mean, largest], [[0.6], [0.6]])  # the second user has one vector
