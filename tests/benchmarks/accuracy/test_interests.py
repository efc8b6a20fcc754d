"""ComiRec and MIND: the parts against their definitions, and the whole on data of two interests a user."""

import numpy as np
import pytest
import torch
from peers.counting import popularity
from peers.interests import DynamicRouting, Mind, MultiInterestPeer, SelfAttention, log_uniform, read_interest, route
from peers.multi_interest import SampledSoftmax, comirec_dr, comirec_sa, gather, mind
from score import score
from settings import method_settings

QUICK = ("embedding_dim=16", "batch_size=128", "max_length=8", "steps_per_epoch=100", "epochs=6", "learning_rate=0.03")


@pytest.mark.parametrize(("name", "method"), [("comirec_sa", comirec_sa), ("comirec_dr", comirec_dr), ("mind", mind)])
def test_two_interests_are_found(make_task, name, method) -> None:
    """A target is one of the 24 items of two groups, of which the user had 15: the best there is hits all at 10."""
    task = make_task(method_settings(name, "shop", QUICK))
    fitted = method(task)
    found = score(task.lists_path("test"), task.store, task.queries["test"])["hit_rate@10"]["value"]
    assert found > 0.5, f"by chance it is 10 of 105, {10 / 105:.2f}"
    assert fitted.parameters > task.store.num_items * 16
    assert 1 <= fitted.notes["best_epoch"] <= fitted.notes["epochs"] <= 6


def test_popularity_is_no_better_than_chance_there(make_task) -> None:
    task = make_task()
    popularity(task)
    assert score(task.lists_path("test"), task.store, task.queries["test"])["hit_rate@10"]["value"] < 0.25


def test_a_seed_gives_the_same_lists_again(make_task, tmp_path) -> None:
    task = make_task(method_settings("mind", "shop", (*QUICK, "epochs=1")))
    mind(task)
    first = task.lists_path("test").read_bytes()
    mind(task)
    assert task.lists_path("test").read_bytes() == first


def test_histories_are_oldest_first_and_end_in_padding(shop) -> None:
    history = gather(shop, np.array([0, 16]), np.array([3, 32]), 5)
    assert history[0].tolist() == [*shop.item[:3].tolist(), 0, 0]
    assert history[1].tolist() == shop.item[27:32].tolist()


def test_routing_by_hand() -> None:
    """Two orthogonal items and two interests that start out preferring one each."""
    capsules = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]).expand(1, 2, 2, 2)
    mask = torch.ones(1, 2, dtype=torch.bool)
    first = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    share = 1 / (1 + np.exp(-1))
    once = route(capsules, mask, first, 1)[0, 0]
    raw = np.array([2 * share, 2 * (1 - share)])
    squared = raw @ raw
    np.testing.assert_allclose(once, squared / (1 + squared) * raw / np.sqrt(squared), rtol=1e-6)
    agreed = route(capsules, mask, first, 3)[0]
    assert agreed[0, 0] > once[0]
    assert agreed[0, 1] < once[1]


@pytest.mark.parametrize("extractor", [SelfAttention(8, 4, 6), DynamicRouting(8, 4, 6, 3), Mind(8, 4, 3)])
def test_padding_does_not_count(extractor) -> None:
    model = MultiInterestPeer(20, 8, extractor).eval()
    history = torch.tensor([[1, 2, 3, 4, 0, 0]])
    with torch.no_grad():
        before = model(history)
        model.items[0] = 100
        torch.testing.assert_close(model(history), before)


def test_mind_has_fewer_interests_for_short_histories() -> None:
    model = MultiInterestPeer(20, 8, Mind(8, 4, 3)).eval()
    with torch.no_grad():
        found = model(torch.tensor([[1] + [0] * 15, [1, 2, 3, 4] + [0] * 12, list(range(1, 17))]))
    assert [len(torch.unique(user, dim=0)) for user in found] == [1, 2, 4]


def test_the_reading_is_hard() -> None:
    interests = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]]])
    target = torch.tensor([[0.1, 0.9], [0.5, 0.9]])
    assert read_interest(interests, target).tolist() == [[0.0, 1.0], [3.0, 0.0]]


def test_expected_numbers_of_negatives_sum_to_their_number(shop) -> None:
    loss = SampledSoftmax(shop, 50)
    assert float(loss.log_expected[1:].exp().sum()) == pytest.approx(50, rel=1e-4)
    assert float(log_uniform(100).sum()) == pytest.approx(1)


def test_a_target_among_the_negatives_does_not_count_against_itself(shop) -> None:
    loss = SampledSoftmax(shop, shop.num_items)  # half of the catalogue
    loss.probability = torch.zeros(shop.num_items, dtype=torch.float64)
    loss.probability[:2], loss.num_negatives = 0.5, 2
    loss.log_expected = torch.zeros(shop.num_items + 1)
    items = torch.eye(shop.num_items + 1)
    found = loss(items[[1]], torch.tensor([1]), items)
    assert float(found) == pytest.approx(np.log(1 + np.exp(-1.0)))  # item 2 alone, with score 0
