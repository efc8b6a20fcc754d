"""Head usage, similarity and use of vectors by hand."""

import math

import numpy as np
import pytest

from prismrec.evaluate.metrics.interests import (
    dead_heads,
    head_entropy,
    interest_similarity,
    mean_cosines,
    vector_usage,
)


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


def test_vector_usage_by_hand() -> None:
    finders = np.array([[0, 0, 2, 0], [2, 2, 2, -1], [-1, -1, -1, -1]])  # the last user has no list
    share, used = vector_usage(finders, 3)
    np.testing.assert_allclose(share, [3 / 7, 0, 4 / 7])
    assert used == 1.5  # two vectors, then one


def test_without_any_list_no_vector_is_used() -> None:
    share, used = vector_usage(np.full((2, 3), -1), 2)
    assert (share.tolist(), used) == ([0.0, 0.0], 0.0)


def test_mean_cosines_are_over_the_users_who_have_both() -> None:
    first = [[1, 0], [0.6, 0.8], [0, 0]]
    second = [[1, 0], [0, 1], [0, 0]]
    found = mean_cosines(np.array([first, second], np.float32))
    assert found[0][1] == pytest.approx((0.6 + 0) / 2)
    assert found[0][0] == pytest.approx(1)
    assert found[0][2] is None
    assert found[2] == [None, None, None]
    assert found[1][0] == found[0][1]
