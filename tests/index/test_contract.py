"""What every engine promises, whatever it is; a new engine is one more line in ENGINES."""

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest

from prismrec.errors import SearchIndexError
from prismrec.index.base import Filter, Index
from prismrec.index.engines import load_index, open_index
from prismrec.index.exact import ExactIndex
from prismrec.index.faiss_index import FaissIndex

DIMENSION = 8


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


Build = Callable[[np.ndarray, np.ndarray | None], Index]


def _flat(vectors: np.ndarray, categories: np.ndarray | None = None) -> Index:
    built = FaissIndex.build(vectors, vectors[:, None])
    return FaissIndex(built._index, built.description, categories)


def _ivf_pq(vectors: np.ndarray, categories: np.ndarray | None = None) -> Index:
    """Not all of its four cells are searched; a few vectors are too few for cells."""
    built = FaissIndex.build(vectors, vectors[:, None], exact_below=100, min_recall=0.9)
    return FaissIndex(built._index, built.description, categories)


ENGINES: dict[str, Build | str] = {
    "exact": ExactIndex,
    "faiss_flat": _flat,
    "faiss_ivf_pq": _ivf_pq,
    "pgvector": "postgres_url",
    "milvus": "milvus_url",
}
"""Engines in this process by what builds them, servers by the fixture that gives their URL."""
VECTORS = _unit(np.random.default_rng(1).normal(size=(800, DIMENSION)))
QUERIES = _unit(np.random.default_rng(2).normal(size=(20, DIMENSION)))


CATEGORIES = np.stack([np.arange(800) % 4 + 1, np.where(np.arange(800) % 3, np.arange(800) % 20 + 11, 0)], 1)
FILTERS = {
    "none": Filter(),
    "a category": Filter(categories=(2,)),
    "any of two categories": Filter(categories=(12, 3)),
    "a category of no item": Filter(categories=(99, 0)),
    "no category": Filter(categories=()),
    "excluded category": Filter(excluded_categories=(1,)),
    "every category excluded": Filter(excluded_categories=(1, 2, 3, 4)),
    "rows": Filter(rows=np.array([700, 3, 3, 41, 800, 801, 0])),
    "many rows": Filter(rows=np.arange(1, 800, 2)),
    "no rows": Filter(rows=np.empty(0, np.int64)),
    "excluded rows": Filter(excluded_rows=np.arange(5, 205)),
    "all": Filter(categories=(1, 3), excluded_categories=(11, 13), rows=np.arange(1, 400), excluded_rows=np.arange(9)),
}


@pytest.fixture(scope="module", params=ENGINES)
def build(request: pytest.FixtureRequest) -> Build:
    engine = ENGINES[request.param]
    if not isinstance(engine, str):
        return engine
    url = request.getfixturevalue(engine)
    names = (f"contract_{number}" for number in count())

    def load(vectors: np.ndarray, categories: np.ndarray | None = None) -> Index:
        name = next(names)
        load_index(url, name, vectors, categories, fingerprint="contract")
        return open_index(url, name, fingerprint="contract", num_vectors=len(vectors), dimension=DIMENSION)

    return load


@pytest.fixture(scope="module")
def index(build: Build) -> Index:
    return build(VECTORS, CATEGORIES)


def test_num_vectors_is_the_catalogue(index: Index) -> None:
    assert index.num_vectors == 800


@pytest.mark.parametrize("k", [1, 7, 100, 799, 800, 1000])
def test_every_place_is_filled_while_items_last(index: Index, k: int) -> None:
    scores, rows = index.search(QUERIES, k)
    assert scores.shape == rows.shape == (20, k)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    found = min(k, 800)
    for query in range(20):
        assert len(set(rows[query, :found])) == found
        assert rows[query, :found].min() >= 1
        assert rows[query, :found].max() <= 800
    assert (rows[:, found:] == 0).all()
    assert (scores[:, found:] == -np.inf).all()


def test_scores_are_inner_products_best_first(index: Index) -> None:
    scores, rows = index.search(QUERIES, 50)
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", QUERIES, VECTORS[rows - 1]), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_the_nearest_are_found(index: Index) -> None:
    _, rows = index.search(QUERIES, 10)
    nearest = np.argsort(-QUERIES @ VECTORS.T, axis=1)[:, :10] + 1
    recall = np.mean([len(np.intersect1d(found, true)) / 10 for found, true in zip(rows, nearest, strict=True)])
    assert recall >= (1.0 if index.is_exact else 0.7)


def test_an_item_finds_itself(index: Index) -> None:
    _, rows = index.search(VECTORS[:30], 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(1, 31))


def test_equal_scores_come_by_lower_row(build: Build) -> None:
    axes = np.eye(DIMENSION, dtype=np.float32)
    scores, rows = build(np.concatenate([axes, axes]), None).search(axes[:2], 3)
    np.testing.assert_array_equal(rows[:, :2], [[1, 9], [2, 10]])
    np.testing.assert_array_equal(scores, [[1, 1, 0], [1, 1, 0]])


def test_a_catalogue_of_one(build: Build) -> None:
    scores, rows = build(VECTORS[:1], None).search(VECTORS[:1], 2)
    np.testing.assert_array_equal(rows, [[1, 0]])
    np.testing.assert_allclose(scores[0], [1.0, -np.inf], rtol=1e-6)


def test_no_queries_give_no_results(index: Index) -> None:
    scores, rows = index.search(np.zeros((0, DIMENSION), np.float32), 5)
    assert scores.shape == rows.shape == (0, 5)


@pytest.mark.parametrize("shape", [(2, DIMENSION + 1), (DIMENSION,), (1, 2, DIMENSION)])
def test_queries_of_another_shape_are_refused(index: Index, shape: tuple[int, ...]) -> None:
    with pytest.raises(SearchIndexError, match=r"queries: expected shape \[N, 8\]"):
        index.search(np.zeros(shape, np.float32), 5)


def test_k_below_one_is_refused(index: Index) -> None:
    with pytest.raises(SearchIndexError, match="k: expected at least 1, found 0"):
        index.search(QUERIES, 0)


def _allowed(where: Filter) -> list[int]:
    """The rows that a filter allows, by its definition."""
    excluded = set(where.excluded_rows.tolist())
    rows = range(1, 801) if where.rows is None else set(where.rows.tolist()) & set(range(1, 801))
    allowed = []
    for row in sorted(rows):
        categories = set(CATEGORIES[row - 1].tolist()) - {0}
        if (
            row not in excluded
            and (where.categories is None or categories & set(where.categories))
            and not categories & set(where.excluded_categories)
        ):
            allowed.append(row)
    return allowed


@pytest.mark.parametrize("k", [1, 30, 500])
@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
def test_a_filter_leaves_the_nearest_of_the_items_allowed(index: Index, where: Filter, k: int) -> None:
    allowed = np.array(_allowed(where), np.int64)
    scores, rows = index.search(QUERIES, k, where)
    assert scores.shape == rows.shape == (20, k)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    num_found = min(k, len(allowed))
    nearest = allowed[np.argsort(-QUERIES @ VECTORS[allowed - 1].T, axis=1)[:, :num_found]]
    shared = 0
    for query in range(20):
        found = rows[query, :num_found]
        assert len(set(found)) == num_found
        assert set(found) <= set(allowed)
        np.testing.assert_allclose(scores[query, :num_found], VECTORS[found - 1] @ QUERIES[query], atol=1e-6)
        shared += len(np.intersect1d(found, nearest[query]))
    assert shared >= (1.0 if index.is_exact else 0.8) * 20 * num_found
    assert (np.diff(scores[:, :num_found], axis=1) <= 0).all()
    assert (rows[:, num_found:] == 0).all()
    assert (scores[:, num_found:] == -np.inf).all()


def test_a_filter_applies_to_one_search_only(index: Index) -> None:
    before = index.search(QUERIES, 10)
    index.search(QUERIES, 10, FILTERS["many rows"])
    for found, expected in zip(index.search(QUERIES, 10), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("where", [Filter(categories=(1,)), Filter(categories=()), Filter(excluded_categories=(1,))])
def test_categories_that_the_index_was_not_given_are_refused(build: Build, where: Filter) -> None:
    index = build(VECTORS[:5], None)
    np.testing.assert_array_equal(
        index.search(VECTORS[:1], 5, Filter(excluded_rows=np.arange(2, 9)))[1], [[1, 0, 0, 0, 0]]
    )
    with pytest.raises(SearchIndexError, match="filter by categories: expected an index that was given"):
        index.search(QUERIES, 5, where)


def test_a_catalogue_without_categories_has_nothing_of_any(build: Build) -> None:
    index = build(VECTORS[:5], np.zeros((5, 0), np.int64))
    np.testing.assert_array_equal(index.search(VECTORS[:1], 2, Filter(categories=(1,)))[1], [[0, 0]])
    every = index.search(VECTORS[:1], 5)[1]
    np.testing.assert_array_equal(index.search(VECTORS[:1], 5, Filter(excluded_categories=(1,)))[1], every)


@pytest.mark.parametrize("rows", [[800, 1, 7, 7, 1], [5], []])
def test_vectors_come_in_the_order_of_the_rows(index: Index, rows: list[int]) -> None:
    vectors = index.vectors(np.array(rows, np.int64))
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(rows), DIMENSION))
    np.testing.assert_array_equal(vectors, VECTORS[np.array(rows, np.int64) - 1])


@pytest.mark.parametrize("row", [0, -1, 801])
def test_vectors_of_other_rows_are_refused(index: Index, row: int) -> None:
    with pytest.raises(SearchIndexError, match=f"rows: expected catalogue rows from 1 to 800, found {row}"):
        index.vectors(np.array([1, row]))
