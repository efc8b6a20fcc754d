import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prismrec.errors import SearchIndexError
from prismrec.index import exact
from prismrec.index.base import Filter
from prismrec.index.exact import ExactIndex


def test_worked_by_hand() -> None:
    index = ExactIndex(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))
    scores, rows = index.search(np.array([[1, 0], [0, 1]], np.float32), 2)
    np.testing.assert_array_equal(rows, [[1, 3], [2, 3]])
    np.testing.assert_allclose(scores, [[1.0, 0.6], [1.0, 0.8]])


def test_a_tie_for_the_last_place_goes_to_the_lower_row() -> None:
    scores, rows = ExactIndex(np.array([[1], [2], [1], [1], [2], [1]], np.float32)).search(np.ones((1, 1)), 4)
    np.testing.assert_array_equal(rows, [[2, 5, 1, 3]])
    np.testing.assert_array_equal(scores, [[2, 2, 1, 1]])


@given(
    vectors=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-2, 2)),
    queries=arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.integers(-2, 2)),
    k=st.integers(1, 35),
)
def test_equals_sorting_the_whole_catalogue(vectors: np.ndarray, queries: np.ndarray, k: int) -> None:
    _, rows = ExactIndex(vectors).search(queries, k)
    expected = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k] + 1
    np.testing.assert_array_equal(rows[:, : expected.shape[1]], expected)
    assert (rows[:, expected.shape[1] :] == 0).all()


@st.composite
def _filtered(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Filter]:
    """Vectors of small integers, where ties are frequent; categories from 0, which is none, to 4; a filter."""
    num_items = draw(st.integers(1, 20))
    vectors = draw(arrays(np.float32, (num_items, 2), elements=st.integers(-2, 2)))
    categories = draw(arrays(np.int64, (num_items, draw(st.integers(0, 3))), elements=st.integers(0, 4)))
    keys = st.lists(st.integers(0, 5), max_size=3).map(tuple)
    rows = st.lists(st.integers(-1, 22), max_size=25).map(lambda rows: np.array(rows, np.int64))
    where = Filter(draw(st.none() | keys), draw(keys), draw(st.none() | rows), draw(rows))
    return vectors, categories, where


@given(_filtered(), st.integers(1, 25))
def test_a_filtered_search_equals_sorting_what_is_allowed(case: tuple[np.ndarray, np.ndarray, Filter], k: int) -> None:
    vectors, categories, where = case
    queries = np.array([[1, 2], [0, 0]], np.float32)
    scores, rows = ExactIndex(vectors, categories).search(queries, k, where)
    for query, found_scores, found in zip(queries, scores, rows, strict=True):
        allowed = [
            row
            for row, keys in enumerate(categories, start=1)
            if (where.categories is None or set(where.categories) & set(keys) - {0})
            and not set(where.excluded_categories) & set(keys) - {0}
            and (where.rows is None or row in where.rows)
            and row not in where.excluded_rows
        ]
        expected = sorted(allowed, key=lambda row: (-vectors[row - 1] @ query, row))[:k]
        assert found.tolist() == expected + [0] * (k - len(expected))
        assert found_scores.tolist() == [vectors[row - 1] @ query for row in expected] + [-np.inf] * (k - len(expected))


@pytest.mark.parametrize("shape", [(2, 1), (4, 1), (3,)])
def test_categories_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SearchIndexError, match=r"categories: expected shape \[3, C\], found "):
        ExactIndex(np.ones((3, 2), np.float32), np.ones(shape, np.int64))


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).integers(-5, 5, (40, 4)).astype(np.float32)
    whole = ExactIndex(vectors).search(vectors, 7)
    monkeypatch.setattr(exact, "_BLOCK_SCORES", 90)
    for blocked, expected in zip(ExactIndex(vectors).search(vectors, 7), whole, strict=True):
        np.testing.assert_array_equal(blocked, expected)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3,)])
def test_a_catalogue_without_vectors_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SearchIndexError, match="item vectors: expected shape"):
        ExactIndex(np.zeros(shape, np.float32))
