"""Lists over the full catalogue equal those that are served: `index.merge.retrieve` over an exact index."""

import numpy as np
import pytest
import torch

from prismrec.evaluate import retrieval
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.retrieval import interest_scorer, merge_interests, ranked_lists
from prismrec.index.exact import ExactIndex
from prismrec.index.merge import retrieve

CPU = torch.device("cpu")


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("num_interests", [1, 3])
@pytest.mark.parametrize("num_seen", [0, 15, 40])
def test_equals_serving(num_interests: int, num_seen: int) -> None:
    rng = np.random.default_rng(num_seen)
    interests, vectors = unit(rng, 7, num_interests, 8), unit(rng, 40, 8)
    seen = [rng.permutation(40)[:num_seen] + 1 for _ in range(7)]
    served = retrieve(ExactIndex(vectors), interests, 10, seen).item
    lists = ranked_lists(interest_scorer(interests, vectors, CPU), ItemSets.from_lists(seen), 40, 10, num_interests)
    np.testing.assert_array_equal(merge_interests(*lists), served)


def test_without_a_vector_equals_serving_the_others() -> None:
    rng = np.random.default_rng(1)
    interests, vectors = unit(rng, 5, 4, 8), unit(rng, 60, 8)
    items, scores = ranked_lists(interest_scorer(interests, vectors, CPU), ItemSets.from_lists([[]] * 5), 60, 12, 4)
    for vector in range(4):
        merged = merge_interests(np.delete(items, vector, axis=1), np.delete(scores, vector, axis=1))
        served = retrieve(ExactIndex(vectors), np.delete(interests, vector, axis=1), 12).item
        np.testing.assert_array_equal(merged, served)


def test_blocks_of_users_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    interests, vectors = unit(rng, 9, 2, 8), unit(rng, 30, 8)
    seen = ItemSets.from_lists([rng.permutation(30)[:4] + 1 for _ in range(9)])
    scorer = interest_scorer(interests, vectors, CPU)
    whole = ranked_lists(scorer, seen, 30, 5, 2)
    monkeypatch.setattr(retrieval, "_BLOCK_SCORES", 150)
    done: list[int] = []
    blocks = ranked_lists(scorer, seen, 30, 5, 2, done.append)
    np.testing.assert_array_equal(blocks[0], whole[0])
    assert done == [2, 2, 2, 2, 1]


def test_merging_keeps_the_best_score_of_an_item() -> None:
    items = np.array([[[1, 2, 3], [2, 4, 1]]])
    scores = np.array([[[0.9, 0.5, 0.1], [0.8, 0.7, 0.2]]], np.float32)
    assert merge_interests(items, scores).tolist() == [[1, 2, 4]]


def test_short_lists_are_filled_with_zero() -> None:
    items = np.array([[[1, 0], [1, 0]]])
    scores = np.array([[[0.9, -np.inf], [0.8, -np.inf]]], np.float32)
    assert merge_interests(items, scores).tolist() == [[1, 0]]
