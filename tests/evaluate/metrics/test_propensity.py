"""Inverse-propensity estimates of recall: by hand, by their properties, and on data of known exposure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.evaluate.bootstrap import Estimate
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.measure import Catalogue, measure
from prismrec.evaluate.metrics.popularity import deciles, found_targets
from prismrec.evaluate.metrics.propensity import LARGEST, ips_recall, snips_recall, target_weights, user_weights

COUNTS = np.array([16, 4, 1, 0])


def test_weights_by_hand() -> None:
    """Inverse square roots 1/4, 1/2, 1 (and 1 for an item without events) have the mean 11/16."""
    targets = ItemSets.from_lists([[1, 2], [3, 4]])
    assert target_weights(COUNTS, targets, 0.5) == pytest.approx(np.array([1 / 4, 1 / 2, 1, 1]) / (11 / 16))
    assert target_weights(COUNTS, targets, 0.0) == pytest.approx(np.ones(4))


def test_one_rare_target_does_not_decide_everything() -> None:
    """Cut to w, the weight of the rare one is 20 times the mean of (99 * 10**-6 + w) / 100 if w = 2.475 * 10**-5."""
    counts = np.array([10**6] * 99 + [1])
    weights = target_weights(counts, ItemSets.from_lists([range(1, 101)]), 1.0)
    assert weights.max() == pytest.approx(LARGEST)
    assert weights[:99] == pytest.approx(80 / 99)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.sampled_from([0.5, 1.0]))
def test_no_weight_is_above_the_largest_and_only_those_are_cut(counts: list[int], power: float) -> None:
    weights = target_weights(np.array(counts), ItemSets.from_lists([range(1, len(counts) + 1)]), power)
    assert weights.mean() == pytest.approx(1)
    assert weights.max() <= LARGEST * (1 + 1e-9)
    uncut = weights < LARGEST * (1 - 1e-9)
    scale = (weights * np.maximum(counts, 1.0) ** power)[uncut]
    assert scale == pytest.approx(scale[:1].repeat(len(scale)))


def test_estimates_by_hand() -> None:
    """Of user 0 the rarer target is found, of user 1 nothing, and user 2 has no target."""
    targets, found = ItemSets.from_lists([[1, 2], [3], []]), np.array([False, True, False])
    nothing = pytest.approx(np.nan, nan_ok=True)
    weights = np.array([0.5, 2.5, 3.0])
    assert ips_recall(found, targets, weights).tolist() == [1.25, 0.0, nothing]  # a user may have more than one
    assert snips_recall(found, targets, weights).tolist() == [pytest.approx(2.5 / 3), 0.0, nothing]
    assert user_weights(targets, weights).tolist() == [1.5, 3.0, nothing]


def test_with_one_target_each_a_rare_one_counts_for_more_users() -> None:
    """Bought 9 and 1 times, so weights 1 : 9; who finds the rare target for one user of two has found 9 of 10."""
    targets = ItemSets.from_lists([[1], [2]])
    method = measure_lists(targets, lists=np.array([[3], [2]]), counts=np.array([9, 1, 5]))
    assert method["recall@1"].value == 0.5
    assert method["snips_recall_linear@1"].value == pytest.approx(0.9)
    assert method["ips_recall_linear@1"].value == pytest.approx(0.9)  # weights 0.2 and 1.8, over two users
    assert method["snips_recall_sqrt@1"].value == pytest.approx(0.75)
    # resamples have the first user only, both, or the second only
    assert (method["snips_recall_linear@1"].low, method["snips_recall_linear@1"].high) == (0, 1)
    assert method["ips_recall_linear@1"].high == pytest.approx(1.8)


def measure_lists(targets: ItemSets, lists: np.ndarray, counts: np.ndarray) -> dict[str, Estimate]:
    catalogue = Catalogue(counts, deciles(counts), None)
    return measure("lists", "model", lists, targets, catalogue, [lists.shape[1]], seed=0).metrics


USERS = st.lists(st.sets(st.integers(1, 8), min_size=1, max_size=5), min_size=1, max_size=6)


@given(USERS, st.integers(0, 2**32 - 1))
def test_equal_propensities_give_plain_recall(sets: list[set[int]], seed: int) -> None:
    lists = np.random.default_rng(seed).permuted(np.tile(np.arange(9), (len(sets), 1)), axis=1)[:, :4]
    targets = ItemSets.from_lists(sets)
    found = found_targets(lists, targets)
    recall = [len(own & set(row.tolist())) / len(own) for own, row in zip(sets, lists, strict=True)]
    weights = target_weights(np.full(8, 7), targets, 1.0)
    assert ips_recall(found, targets, weights) == pytest.approx(recall)
    assert snips_recall(found, targets, weights) == pytest.approx(recall)
    assert user_weights(targets, weights) == pytest.approx(np.ones(len(sets)))


@given(USERS, st.lists(st.integers(0, 1000), min_size=8, max_size=8), st.sampled_from([0.5, 1.0]))
def test_a_self_normalised_estimate_is_a_share(sets: list[set[int]], counts: list[int], power: float) -> None:
    targets = ItemSets.from_lists(sets)
    weights = target_weights(np.array(counts), targets, power)
    assert snips_recall(np.ones(len(weights), bool), targets, weights) == pytest.approx(np.ones(len(sets)))
    some = snips_recall(targets.item <= 3, targets, weights)
    assert ((some >= 0) & (some <= 1 + 1e-12)).all()


def test_they_recover_the_recall_that_even_exposure_would_show() -> None:
    """4,000 users like half of 40 items, whatever these are; item i is noticed with propensity p_i.

    The list is of the 10 most noticed items. Of what users like it holds a quarter, but of what they were seen to do
    far more. Standard errors are below .005; ten targets a user leave a bias below .01.
    """
    rng = np.random.default_rng(0)
    propensity = np.linspace(0.9, 0.1, 40)
    noticed = (rng.random((4000, 40)) < 0.5) & (rng.random((4000, 40)) < propensity)
    users, items = np.nonzero(noticed)
    targets = ItemSets.from_pairs(users, items + 1, 4000)
    method = measure_lists(targets, np.tile(np.arange(1, 11), (4000, 1)), 1000 * propensity)
    assert method["recall@10"].value > 0.4
    assert method["snips_recall_linear@10"].value == pytest.approx(0.25, abs=0.015)
    assert method["ips_recall_linear@10"].value == pytest.approx(0.25, abs=0.015)


def test_they_recover_it_from_one_target_of_each_user() -> None:
    """As above, but of each user one of the noticed items is the target, as where the last event is left out.

    The standard error is below .005.
    """
    rng = np.random.default_rng(0)
    propensity = np.linspace(0.9, 0.1, 40)
    target = rng.choice(40, 8000, p=propensity / propensity.sum())
    targets = ItemSets.from_pairs(np.arange(8000), target + 1, 8000)
    method = measure_lists(targets, np.tile(np.arange(1, 11), (8000, 1)), 1000 * propensity)
    assert method["recall@10"].value == pytest.approx(propensity[:10].sum() / 20, abs=0.02)  # .40
    estimate = method["snips_recall_linear@10"]
    assert estimate.value == pytest.approx(0.25, abs=0.015)
    assert estimate.low < 0.25 < estimate.high
