"""Inverse-propensity estimates of recall: by hand, by their properties, and on data of known exposure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.metrics.propensity import LARGEST, ips_recall, snips_recall, target_weights

COUNTS = np.array([16, 4, 1, 0])


def test_weights_by_hand() -> None:
    """Inverse square roots 1/4, 1/2, 1 (and 1 for an item without events) have the mean 11/16."""
    targets = ItemSets.from_lists([[1, 2], [3, 4]])
    assert target_weights(COUNTS, targets, 0.5) == pytest.approx(np.array([1 / 4, 1 / 2, 1, 1]) / (11 / 16))
    assert target_weights(COUNTS, targets, 0.0) == pytest.approx(np.ones(4))


def test_one_rare_target_does_not_decide_everything() -> None:
    counts = np.array([10**6] * 99 + [1])
    weights = target_weights(counts, ItemSets.from_lists([range(1, 101)]), 1.0)
    # cut to 20 times the mean, which then is (20 + 99 / 10**4) / 100
    assert weights.max() == pytest.approx(LARGEST / ((LARGEST + 99e-4) / 100), rel=1e-3)
    assert weights.mean() == pytest.approx(1)


def test_estimates_by_hand() -> None:
    """Of user 0 the rarer target is found, of user 1 nothing, and user 2 has no target."""
    targets, weights = ItemSets.from_lists([[1, 2], [3], []]), np.array([0.5, 1.5, 1.0])
    lists = np.array([[2, 4], [4, 0], [1, 2]])
    assert ips_recall(lists, targets, weights).tolist() == [0.75, 0.0, pytest.approx(np.nan, nan_ok=True)]
    assert snips_recall(lists, targets, weights).tolist() == [0.75, 0.0, pytest.approx(np.nan, nan_ok=True)]
    weights = np.array([0.5, 2.5, 1.0])
    assert ips_recall(lists, targets, weights)[0] == 1.25  # a user may have more than one
    assert snips_recall(lists, targets, weights)[0] == pytest.approx(2.5 / 3)


USERS = st.lists(st.sets(st.integers(1, 8), min_size=1, max_size=5), min_size=1, max_size=6)


@given(USERS, st.integers(0, 2**32 - 1))
def test_equal_propensities_give_plain_recall(sets: list[set[int]], seed: int) -> None:
    targets, lists = (
        ItemSets.from_lists(sets),
        np.random.default_rng(seed).permuted(np.tile(np.arange(9), (len(sets), 1)), axis=1),
    )
    lists = lists[:, :4]
    recall = [len(own & set(row.tolist())) / len(own) for own, row in zip(sets, lists, strict=True)]
    weights = target_weights(np.full(8, 7), targets, 1.0)
    assert ips_recall(lists, targets, weights) == pytest.approx(recall)
    assert snips_recall(lists, targets, weights) == pytest.approx(recall)


@given(USERS, st.lists(st.integers(0, 1000), min_size=8, max_size=8), st.sampled_from([0.5, 1.0]))
def test_a_self_normalised_estimate_is_a_share(sets: list[set[int]], counts: list[int], power: float) -> None:
    targets = ItemSets.from_lists(sets)
    weights = target_weights(np.array(counts), targets, power)
    everything = np.tile(np.arange(1, 9), (len(sets), 1))
    assert snips_recall(everything, targets, weights) == pytest.approx(np.ones(len(sets)))
    some = snips_recall(everything[:, :3], targets, weights)
    assert ((some >= 0) & (some <= 1 + 1e-12)).all()


def test_they_recover_the_recall_that_even_exposure_would_show() -> None:
    """4,000 users like half of 40 items, whatever these are; item i is noticed with propensity p_i.

    The list is of the 10 most noticed items. Of what users like it holds a quarter, but of what they were seen to do
    far more. Standard errors are below .005; normalised over ten targets a user, the estimate is biased by about .02.
    """
    rng = np.random.default_rng(0)
    propensity = np.linspace(0.9, 0.1, 40)
    liked = rng.random((4000, 40)) < 0.5
    noticed = liked & (rng.random((4000, 40)) < propensity)
    users, items = np.nonzero(noticed)
    targets = ItemSets.from_pairs(users, items + 1, 4000)
    lists = np.tile(np.arange(1, 11), (4000, 1))
    plain = np.nanmean(ips_recall(lists, targets, np.ones(len(users))))
    weights = target_weights(1000 * propensity, targets, 1.0)
    assert plain > 0.4
    assert np.nanmean(snips_recall(lists, targets, weights)) == pytest.approx(0.27, abs=0.02)
    assert np.nanmean(ips_recall(lists, targets, weights)) == pytest.approx(0.25, abs=0.02)
