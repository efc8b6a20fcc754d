"""What every engine promises, whatever it is; a new engine is one more line in ENGINES."""

from collections.abc import Callable

import faiss
import numpy as np
import pytest

from prismrec.errors import SearchIndexError
from prismrec.index.base import Index
from prismrec.index.exact import ExactIndex
from prismrec.index.faiss_index import FaissIndex

DIMENSION = 8


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _faiss(kind: str, index: faiss.Index, vectors: np.ndarray, **parameters: int) -> FaissIndex:
    index.train(vectors)
    index.add(vectors)
    return FaissIndex(
        index, {"kind": kind, "parameters": parameters, "num_vectors": len(vectors), "dimension": vectors.shape[1]}
    )


def _flat(vectors: np.ndarray) -> Index:
    return FaissIndex.build(vectors, vectors)


def _ivf(vectors: np.ndarray) -> Index:
    cells = max(1, len(vectors) // 40)
    quantizer = faiss.IndexFlatIP(DIMENSION)
    index = faiss.IndexIVFFlat(quantizer, DIMENSION, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    return _faiss("ivf", index, vectors, nprobe=max(1, cells // 4))


def _hnsw(vectors: np.ndarray) -> Index:
    return _faiss("hnsw", faiss.IndexHNSWFlat(DIMENSION, 8, faiss.METRIC_INNER_PRODUCT), vectors, ef_search=16)


ENGINES: dict[str, Callable[[np.ndarray], Index]] = {
    "exact": ExactIndex,
    "faiss_flat": _flat,
    "faiss_ivf": _ivf,
    "faiss_hnsw": _hnsw,
}
VECTORS = _unit(np.random.default_rng(1).normal(size=(800, DIMENSION)))
QUERIES = _unit(np.random.default_rng(2).normal(size=(20, DIMENSION)))


@pytest.fixture(scope="module", params=ENGINES)
def build(request: pytest.FixtureRequest) -> Callable[[np.ndarray], Index]:
    return ENGINES[request.param]


@pytest.fixture(scope="module")
def index(build: Callable[[np.ndarray], Index]) -> Index:
    return build(VECTORS)


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


def test_equal_scores_come_by_lower_row(build: Callable[[np.ndarray], Index]) -> None:
    axes = np.eye(DIMENSION, dtype=np.float32)
    scores, rows = build(np.concatenate([axes, axes])).search(axes[:2], 3)
    np.testing.assert_array_equal(rows[:, :2], [[1, 9], [2, 10]])
    np.testing.assert_array_equal(scores, [[1, 1, 0], [1, 1, 0]])


def test_a_catalogue_of_one(build: Callable[[np.ndarray], Index]) -> None:
    scores, rows = build(VECTORS[:1]).search(VECTORS[:1], 2)
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
