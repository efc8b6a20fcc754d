import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.index.policies import POLICIES, Policy, Ranking, diversify, maximum, quota, reciprocal_rank_fusion

SCORES = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, -np.inf], [0.4, 0.3, 0.2]], np.float32)
ROWS = np.array([[1, 2, 3], [2, 4, 0], [5, 1, 6]])


def _assert_ranking(found: Ranking, item: list[int], score: list[float], interest: list[int]) -> None:
    assert found.item.tolist() == item
    np.testing.assert_allclose(found.score, score, rtol=1e-6)
    assert found.interest.tolist() == interest
    assert (found.item.dtype, found.score.dtype, found.interest.dtype) == (np.int64, np.float32, np.int64)


def test_maximum() -> None:
    _assert_ranking(maximum(SCORES, ROWS), [1, 2, 3, 4, 5, 6], [0.9, 0.8, 0.7, 0.5, 0.4, 0.2], [0, 0, 0, 1, 2, 2])


def test_quota_takes_turns_and_passes_over_what_is_taken() -> None:
    _assert_ranking(quota(SCORES, ROWS), [1, 2, 5, 3, 4, 6], [0.9, 0.6, 0.4, 0.7, 0.5, 0.2], [0, 1, 2, 0, 1, 2])


def test_reciprocal_rank_fusion_favours_what_lists_agree_on() -> None:
    """Items 1 and 2 are in two lists, at ranks 1 and 2 each: 1/61 + 1/62; the lower row comes first."""
    twice = 1 / 61 + 1 / 62
    _assert_ranking(
        reciprocal_rank_fusion(SCORES, ROWS), [1, 2, 5, 4, 3, 6], [twice, twice, 1 / 61, 1 / 62, 1 / 63, 1 / 63],
        [0, 1, 2, 1, 0, 2],
    )  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_empty_lists(policy: Policy) -> None:
    found = policy(np.full((3, 4), -np.inf, np.float32), np.zeros((3, 4), np.int64))
    _assert_ranking(found, [], [], [])


@st.composite
def _lists(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    depth, scores, rows = draw(st.integers(1, 8)), [], []
    for _ in range(draw(st.integers(1, 4))):
        found = draw(st.lists(st.integers(1, 12), max_size=depth, unique=True))
        missing = depth - len(found)
        rows.append(found + [0] * missing)
        scores.append(
            sorted(draw(st.lists(st.integers(-3, 3), min_size=len(found), max_size=len(found))), reverse=True)
            + [-np.inf] * missing
        )
    return np.array(scores, np.float32), np.array(rows)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@given(lists=_lists())
def test_every_item_comes_once_and_from_a_list_that_holds_it(
    policy: Policy, lists: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, rows = lists
    found = policy(scores, rows)
    assert sorted(found.item) == sorted(set(rows[rows > 0].tolist()))
    assert all(item in rows[interest] for item, interest in zip(found.item, found.interest, strict=True))


@given(_lists())
def test_of_one_list_every_policy_keeps_the_order(lists: tuple[np.ndarray, np.ndarray]) -> None:
    scores, rows = lists[0][:1] - np.arange(lists[0].shape[1]), lists[1][:1]
    for policy in POLICIES.values():
        assert policy(scores, rows).item.tolist() == rows[rows > 0].tolist()


@given(_lists())
def test_quota_gives_each_list_its_turn(lists: tuple[np.ndarray, np.ndarray]) -> None:
    """As long as every list has items left, numbers of items differ by one at most."""
    scores, rows = lists
    found = quota(scores, rows)
    present = (rows[:, 0] > 0).sum()
    for round_end in range(present, len(found.item) + 1, present or 1):
        taken = set(found.item[:round_end].tolist())
        if not present or not all(set(row[row > 0].tolist()) - taken for row in rows if row[0]):
            break
        counts = np.bincount(found.interest[:round_end], minlength=len(rows))[rows[:, 0] > 0]
        assert counts.max() - counts.min() <= 1


RANKING = Ranking(np.array([7, 8, 9]), np.array([1.0, 0.9, 0.5], np.float32), np.array([0, 0, 1]))
VECTORS = np.array([[1, 0], [1, 0], [0, 1]], np.float32)


def test_without_diversity_the_order_stays() -> None:
    assert diversify(RANKING, VECTORS, 3, 0.0).item.tolist() == [7, 8, 9]


def test_diversity_prefers_what_is_unlike_the_chosen() -> None:
    """After item 7, item 8 (score .8 of 0 to 1, its twin) gains .5 * .8 - .5 * 1 = -.1, item 9 gains 0."""
    found = diversify(RANKING, VECTORS, 2, 0.5)
    _assert_ranking(found, [7, 9], [1.0, 0.5], [0, 1])


def test_a_little_diversity_changes_nothing_yet() -> None:
    """.8 * .8 - .2 * 1 = .44 is above 0."""
    assert diversify(RANKING, VECTORS, 2, 0.2).item.tolist() == [7, 8]


def test_diversify_gives_no_more_than_there_is() -> None:
    assert diversify(RANKING, VECTORS, 10, 1.0).item.tolist() == [7, 9, 8]
    empty = Ranking(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    assert len(diversify(empty, np.empty((0, 2), np.float32), 3, 0.5).item) == 0
