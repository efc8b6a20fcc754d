from pathlib import Path

import numpy as np
import pytest

from prismrec.errors import SearchIndexError
from prismrec.index.base import Filter
from prismrec.index.exact import ExactIndex
from prismrec.index.faiss_index import FaissIndex
from prismrec.index.merge import retrieve

DIMENSION = 16


def _clustered(size: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).normal(size=(40, DIMENSION))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 40, size)] + 0.3 * rng.normal(size=(size, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


ITEMS, USERS = _clustered(4000, 1), _clustered(300, 2)
OF_ONE_VECTOR = USERS[:, None]


@pytest.fixture(scope="module")
def approximate() -> FaissIndex:
    return FaissIndex.build(ITEMS, OF_ONE_VECTOR, exact_below=4000)


def test_small_catalogues_are_searched_exactly() -> None:
    index = FaissIndex.build(ITEMS, OF_ONE_VECTOR)
    assert index.is_exact
    assert index.description == {
        "kind": "flat",
        "parameters": {},
        "num_vectors": 4000,
        "dimension": 16,
        "recall@100": 1.0,
        "recall_users": 0,
    }


def test_the_described_recall_is_what_one_measures(approximate: FaissIndex) -> None:
    assert not approximate.is_exact
    assert approximate.description["kind"] == "ivf_pq"
    assert approximate.description["parameters"]["nprobe"] < approximate.description["parameters"]["cells"]
    assert approximate.description["recall_users"] == 300
    _, found = approximate.search(USERS, 100)
    _, true = ExactIndex(ITEMS).search(USERS, 100)
    recall = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(found, true, strict=True)])
    assert recall >= 0.99
    assert approximate.description["recall@100"] == pytest.approx(recall, abs=1e-3)


def test_recall_is_that_of_the_lists_users_get() -> None:
    """Of three vectors merged, and so a narrower search does than each vector alone would need."""
    users = USERS.reshape(100, 3, DIMENSION)
    index = FaissIndex.build(ITEMS, users, exact_below=4000)
    found, true = (retrieve(each, users, 100).item for each in (index, ExactIndex(ITEMS)))
    recall = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(found, true, strict=True)])
    assert recall >= 0.99
    assert index.description["recall@100"] == pytest.approx(recall, abs=1e-3)
    assert index.description["recall_users"] == 100


@pytest.mark.parametrize("k", [1, 3, 10])
def test_short_lists_are_found_as_well(approximate: FaissIndex, k: int) -> None:
    """Though the best item is not always among the two or four that are best by their codes."""
    scores, _ = approximate.search(USERS, k)
    best, _ = ExactIndex(ITEMS).search(USERS, k)
    assert (scores >= best[:, -1:] - 1e-6).mean() >= 0.99


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.02])
def test_a_filter_costs_no_recall(approximate: FaissIndex, share: float) -> None:
    where = Filter(rows=np.flatnonzero(np.random.default_rng(3).random(4000) < share) + 1)
    _, found = approximate.search(USERS, 50, where)
    _, true = ExactIndex(ITEMS).search(USERS, 50, where)
    recall = np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(found, true, strict=True)])
    assert recall >= 0.97


def test_a_loaded_index_filters_by_the_categories_given(approximate: FaissIndex, tmp_path: Path) -> None:
    approximate.save(tmp_path / "index.faiss")
    categories = np.arange(4000)[:, None] % 2 + 1
    loaded = FaissIndex.load(tmp_path / "index.faiss", approximate.description, categories)
    _, rows = loaded.search(USERS, 100, Filter(categories=(2,)))
    assert (rows > 0).all()
    assert (rows % 2 == 0).all()


def test_where_no_search_of_cells_reaches_the_recall_all_vectors_are_searched() -> None:
    index = FaissIndex.build(ITEMS[:1100], OF_ONE_VECTOR[:20], exact_below=1000, min_recall=1.01)
    assert (index.description["kind"], index.description["recall@100"]) == ("flat", 1.0)


def test_coarse_codes_have_more_of_what_they_find_ordered_by_vectors() -> None:
    """One coordinate is a thousand times the others, whose differences decide."""
    items, users = (np.column_stack([np.full(len(each), 1000), each]).astype(np.float32) for each in (ITEMS, USERS))
    items[::2, 0] += 1
    index = FaissIndex.build(items, users[:, None], exact_below=4000)
    scores, _ = index.search(users, 100)
    best, _ = ExactIndex(items).search(users, 100)
    assert (scores >= best[:, -1:] - 0.01).mean() >= 0.98


def test_an_approximate_index_needs_user_vectors() -> None:
    with pytest.raises(SearchIndexError, match=r"expected user vectors .* found none"):
        FaissIndex.build(ITEMS, OF_ONE_VECTOR[:0], exact_below=1000)


def test_identical_items_count_as_found_whichever_comes_back() -> None:
    copies = np.repeat(ITEMS[:1000], 4, axis=0)
    index = FaissIndex.build(copies, OF_ONE_VECTOR[:50], exact_below=1000)
    assert index.description["recall@100"] >= 0.99


def test_save_and_load_give_the_same_results(approximate: FaissIndex, tmp_path: Path) -> None:
    approximate.save(tmp_path / "index.faiss")
    loaded = FaissIndex.load(tmp_path / "index.faiss", approximate.description)
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]
    for found, expected in zip(loaded.search(USERS, 10), approximate.search(USERS, 10), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("field", ["num_vectors", "dimension"])
def test_an_index_of_another_size_is_refused(approximate: FaissIndex, tmp_path: Path, field: str) -> None:
    approximate.save(tmp_path / "index.faiss")
    with pytest.raises(SearchIndexError, match=rf"expected .*'{field}': 3.*export the bundle again"):
        FaissIndex.load(tmp_path / "index.faiss", {**approximate.description, field: 3})


@pytest.mark.parametrize("content", [b"", b"not an index"])
def test_another_file_is_refused(approximate: FaissIndex, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.faiss").write_bytes(content)
    with pytest.raises(SearchIndexError, match=r"index\.faiss: expected a Faiss index"):
        FaissIndex.load(tmp_path / "index.faiss", approximate.description)


@pytest.mark.parametrize("exact_below", [50_000, 1000])
def test_vectors_are_those_indexed(exact_below: int) -> None:
    index = FaissIndex.build(ITEMS, OF_ONE_VECTOR, exact_below=exact_below)
    np.testing.assert_array_equal(index.vectors(np.array([4000, 1, 7])), ITEMS[[3999, 0, 6]])
