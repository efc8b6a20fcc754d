import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.index.exact import ExactIndex
from prismrec.index.faiss_index import FaissIndex
from prismrec.index.merge import NO_INTEREST, retrieve

ITEMS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], np.float32)
AXES = np.array([[[1, 0], [0, 1]]], np.float32)  # one user, two interests


def test_an_item_has_its_best_score_and_the_vector_that_gave_it() -> None:
    found = retrieve(ExactIndex(ITEMS), AXES, 4)
    np.testing.assert_array_equal(found.item, [[1, 3, 2, 4]])
    np.testing.assert_allclose(found.score, [[1.0, 1.0, 0.8, 0.0]], atol=1e-7)
    np.testing.assert_array_equal(found.interest, [[0, 1, 0, 1]])


def test_excluded_items_make_room_for_the_next() -> None:
    found = retrieve(ExactIndex(ITEMS), AXES, 2, [np.array([1, 3, 1])])
    np.testing.assert_array_equal(found.item, [[2, 4]])
    np.testing.assert_allclose(found.score, [[0.8, 0.0]], atol=1e-7)


def test_places_without_an_item_are_marked() -> None:
    found = retrieve(ExactIndex(ITEMS), AXES, 3, [np.array([1, 2, 3])])
    np.testing.assert_array_equal(found.item, [[4, 0, 0]])
    np.testing.assert_array_equal(found.score, [[0, -np.inf, -np.inf]])
    np.testing.assert_array_equal(found.interest, [[1, NO_INTEREST, NO_INTEREST]])


def test_each_user_has_its_own_exclusions() -> None:
    found = retrieve(ExactIndex(ITEMS), np.repeat(AXES, 3, 0), 1, [np.array([1]), np.array([], int), np.arange(1, 5)])
    np.testing.assert_array_equal(found.item, [[3], [1], [0]])


def test_a_vector_whose_best_items_are_all_excluded_still_contributes() -> None:
    # Vector 0 must look past its first six items to reach row 7, which beats everything vector 1 has.
    angles = np.array([0, 1, 2, 3, 4, 5, 6, 120, 121]) * np.pi / 180
    items = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    found = retrieve(ExactIndex(items), AXES, 1, [np.arange(1, 7)])
    np.testing.assert_array_equal(found.item, [[7]])
    np.testing.assert_array_equal(found.interest, [[0]])


def test_a_zero_vector_is_none() -> None:
    """Its scores of 0 would be ahead of the third item's -1, and of those that are left."""
    interests = np.array([[[0, 0], [1, 0]], [[0, 0], [0, 0]]], np.float32)
    found = retrieve(ExactIndex(ITEMS), interests, 3, [np.array([1]), np.array([], int)])
    np.testing.assert_array_equal(found.item, [[2, 3, 4], [0, 0, 0]])
    np.testing.assert_allclose(found.score, [[0.8, 0, -1], [-np.inf] * 3], atol=1e-7)
    np.testing.assert_array_equal(found.interest, [[1, 1, 1], [NO_INTEREST] * 3])


def test_no_users() -> None:
    assert retrieve(ExactIndex(ITEMS), np.zeros((0, 2, 2), np.float32), 3, []).item.shape == (0, 3)


def test_exclusions_for_another_number_of_users_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one array for each of 1 users, found 2"):
        retrieve(ExactIndex(ITEMS), AXES, 1, [np.array([1]), np.array([1])])


@st.composite
def _cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, list[np.ndarray]]:
    """Small integers as coordinates: inner products are exact, and ties are frequent."""
    num_items, num_users = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    items = rng.integers(-2, 3, (num_items, 3)).astype(np.float32)
    interests = rng.integers(-2, 3, (num_users, draw(st.integers(1, 4)), 3)).astype(np.float32)
    rows = st.lists(st.integers(1, num_items), max_size=2 * num_items)
    exclude = [np.array(draw(rows), np.int64) for _ in range(num_users)]
    return items, interests, draw(st.integers(1, 30)), exclude


@given(_cases())
def test_equals_brute_force(case: tuple[np.ndarray, np.ndarray, int, list[np.ndarray]]) -> None:
    items, interests, k, exclude = case
    found = retrieve(ExactIndex(items), interests, k, exclude)
    for user, vectors in enumerate(interests):
        present = np.flatnonzero(vectors.any(axis=1))
        scores = items @ vectors[present].T  # [I, V]
        allowed = [row for row in range(1, len(items) + 1) if row not in exclude[user] and len(present)]
        expected = sorted(allowed, key=lambda row: (-scores[row - 1].max(), row))[:k]
        padding = [0] * (k - len(expected))
        assert found.item[user].tolist() == expected + padding
        assert found.score[user, : len(expected)].tolist() == [scores[row - 1].max() for row in expected]
        assert found.interest[user, : len(expected)].tolist() == [present[scores[row - 1].argmax()] for row in expected]


@given(_cases(), st.integers(0, 4))
def test_zero_vectors_change_nothing(case: tuple[np.ndarray, np.ndarray, int, list[np.ndarray]], place: int) -> None:
    items, interests, k, exclude = case
    place = min(place, interests.shape[1])
    for index in (ExactIndex(items), FaissIndex.build(items, interests)):
        without = retrieve(index, interests, k, exclude)
        found = retrieve(index, np.insert(interests, place, 0.0, axis=1), k, exclude)
        np.testing.assert_array_equal(found.item, without.item)
        np.testing.assert_array_equal(found.score, without.score)
        np.testing.assert_array_equal(found.interest, without.interest + (without.interest >= place))


@given(_cases())
def test_faiss_finds_as_good_items(case: tuple[np.ndarray, np.ndarray, int, list[np.ndarray]]) -> None:
    items, interests, k, exclude = case
    found = retrieve(FaissIndex.build(items, interests), interests, k, exclude)
    np.testing.assert_array_equal(found.score, retrieve(ExactIndex(items), interests, k, exclude).score)
    for rows, excluded in zip(found.item, exclude, strict=True):
        assert not np.isin(rows[rows > 0], excluded).any()
