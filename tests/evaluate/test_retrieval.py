"""Lists over the full catalogue equal those that are served: `index.merge.retrieve` over an exact index."""

import numpy as np
import pytest
import torch

from prismrec.evaluate import retrieval
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.retrieval import interest_scorer, merge_interests, merge_with_finders, ranked_lists
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


def test_a_zero_vector_scores_nothing_by_hand() -> None:
    interests = np.array([[[0, 0], [-1, 0]], [[0, 0], [0, 0]]], np.float32)
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    scorer = interest_scorer(interests, vectors, CPU)
    assert scorer(slice(0, 2)).tolist() == [[[-np.inf] * 3, [-1, pytest.approx(-0.6), 0]], [[-np.inf] * 3] * 2]
    items, scores = ranked_lists(scorer, ItemSets.from_lists([[], []]), 3, 2, 2)
    assert items.tolist() == [[[0, 0], [3, 2]], [[0, 0], [0, 0]]]
    assert merge_interests(items, scores).tolist() == [[3, 2], [0, 0]]


@pytest.mark.parametrize("num_seen", [0, 35])
def test_zero_vectors_equal_serving_and_leaving_them_out(num_seen: int) -> None:
    rng = np.random.default_rng(3)
    interests, vectors = unit(rng, 7, 3, 8), unit(rng, 40, 8)
    vectors[:, 0] = -np.abs(vectors[:, 0])
    interests[:, :, 0] += 2.0  # far from everything, so that scores of 0 would be ahead
    absent = rng.random((7, 3)) < 0.5
    absent[0], absent[1] = True, False
    interests[absent] = 0.0
    seen = [rng.permutation(40)[:num_seen] + 1 for _ in range(7)]
    served = retrieve(ExactIndex(vectors), interests, 10, seen).item
    lists = ranked_lists(interest_scorer(interests, vectors, CPU), ItemSets.from_lists(seen), 40, 10, 3)
    merged = merge_interests(*lists)
    np.testing.assert_array_equal(merged, served)
    for user in range(1, 7):
        there, sets = interests[user : user + 1, ~absent[user]], ItemSets.from_lists([seen[user]])
        if there.size:
            alone = ranked_lists(interest_scorer(there, vectors, CPU), sets, 40, 10, there.shape[1])
            np.testing.assert_array_equal(merged[user], merge_interests(*alone)[0])
    assert not merged[0].any()


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
    assert merge_with_finders(items, scores)[1].tolist() == [[0, 1, 1]]


def test_short_lists_are_filled_with_zero() -> None:
    items = np.array([[[1, 0], [1, 0]]])
    scores = np.array([[[0.9, -np.inf], [0.8, -np.inf]]], np.float32)
    assert merge_interests(items, scores).tolist() == [[1, 0]]
    assert merge_with_finders(items, scores)[1].tolist() == [[0, -1]]


def test_of_two_vectors_with_the_same_score_the_first_found_the_item() -> None:
    items = np.array([[[5], [5]]])
    scores = np.array([[[0.5], [0.5]]], np.float32)
    assert merge_with_finders(items, scores)[1].tolist() == [[0]]
