"""The objective by hand: two users, items on the axes of a plane, categories that route to one head each."""

import pytest
import torch
from torch import Tensor

from prismrec.config import LossConfig, ModelConfig
from prismrec.loss.contrastive import multi_vector_loss, shared_multi_vector_loss, single_vector_loss
from prismrec.loss.regularizers import balance_loss, semantic_loss, sharpness_loss
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.user_encoder import UserEmbedding
from prismrec.train.objective import Objective

X, Y = [2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]
POSITIVE_IDS, NEGATIVE_IDS = torch.tensor([7, 8]), torch.tensor([0, 7, 8, 9, 9, 8])
POSITIVE = ItemEmbedding(torch.tensor([X, Y]), torch.tensor([X, Y]))
SHARE = torch.tensor([0.5, 0.125, 0.25, 0.0625, 0.0625, 0.25])  # of the training targets, by id
NEGATIVE = ItemEmbedding(torch.tensor([X, X, Y, Y, Y, Y]), torch.tensor([X, X, Y, X, X, Y]))


def user(num_vectors: int) -> UserEmbedding:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, num_vectors + 2, 4, generator=generator), dim=-1)
    return UserEmbedding(vectors[:, :num_vectors], vectors[:, num_vectors:], torch.zeros(2, 2, 3))


def objective(num_interests: int = 2, **settings: object) -> Objective:
    loss = LossConfig.model_validate({"queue_size": 6, "deduplicate": False, "temperature": 0.5, **settings})
    made = Objective(loss, ModelConfig(embedding_dim=4, num_heads=2, num_interests=num_interests))
    made.router.prototypes.data = torch.eye(2, 4)
    return made


def loss_of(made: Objective, query_weights: Tensor | None = None) -> tuple[float, dict[str, float]]:
    users = user(1 if made.config.kind == "single_vector" else 2)
    loss, metrics = made(users, torch.arange(2), POSITIVE, NEGATIVE, POSITIVE_IDS, NEGATIVE_IDS, SHARE, query_weights)
    return loss.item(), {name: value.item() for name, value in metrics.items()}


def unit(rows: list[list[float]]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


EASY = [[0.0, 0, 1, 1, 1, 1], [0.0, 1, 0, 1, 1, 0]]
WEIGHTS = {
    "easy": ({}, EASY),
    # ids 9 and 8 come twice among all six, and twice each among the last four
    "without duplicates": (
        {"deduplicate": True},
        [[0.0, 0, 1 / 2, 1 / 2, 1 / 2, 1 / 2], [0.0, 1, 0, 1 / 2, 1 / 2, 0]],
    ),
    # of the first four, user 0 keeps those of category X, user 1 those of Y
    "hard part": ({"hard_queue_size": 4}, [[0.0, 0, 0, 1, 1, 1], [0.0, 0, 0, 0, 1, 0]]),
    # the last four with duplicates counted there: 8, 9, 9, 8
    "both": (
        {"hard_queue_size": 2, "deduplicate": True},
        [[0.0, 0, 1 / 2, 1 / 2, 1 / 2, 1 / 2], [0.0, 0, 0, 1 / 2, 1 / 2, 0]],
    ),
    # divided by six times the share of the id
    "corrected by log-q": (
        {"log_q": 1.0},
        [[0.0, 0, 4 / 6, 16 / 6, 16 / 6, 4 / 6], [0.0, 8 / 6, 0, 16 / 6, 16 / 6, 0]],
    ),
    "half corrected": (
        {"log_q": 0.5},
        [[0.0, 0, 2 / 6**0.5, 4 / 6**0.5, 4 / 6**0.5, 2 / 6**0.5], [0.0, (8 / 6) ** 0.5, 0, 4 / 6**0.5, 4 / 6**0.5, 0]],
    ),
}


@pytest.mark.parametrize(("settings", "weights"), WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("joint", [True, False])
def test_the_multi_vector_loss_and_its_weights(
    settings: dict[str, object], weights: list[list[float]], joint: bool
) -> None:
    made = objective(joint=joint, margin=0.1, balance_weight=0, sharpness_weight=0, semantic_weight=0, **settings)
    expected, _ = multi_vector_loss(
        user(2).interests,
        unit([X, Y]),
        unit([X, X, Y, Y, Y, Y]),
        made.router(POSITIVE.category),
        negative_weights=torch.tensor(weights),
        temperature=0.5,
        margin=0.1,
        joint=joint,
        epsilon=0.0,
    )
    loss, metrics = loss_of(made)
    assert loss == pytest.approx(expected.item())
    assert metrics["negative_weight"] == pytest.approx(sum(map(sum, weights)) / 12)
    assert metrics["queue_filled"] == pytest.approx(5 / 6)


def test_metrics_of_the_queue() -> None:
    _, metrics = loss_of(objective(hard_queue_size=3, deduplicate=True))
    found = {name: metrics[name] for name in metrics if name.startswith(("hard_count", "appearances"))}
    # categories X, X, Y: two are like user 0's and one like user 1's; then 9, 9, 8
    assert found == {"hard_count_max": 2, "hard_count_min": 1, "appearances_max": 2, "appearances_min": 1}


def test_empty_slots_are_no_duplicates() -> None:
    made = objective(deduplicate=True)
    _, metrics = made(
        user(2), torch.arange(2), POSITIVE, NEGATIVE, POSITIVE_IDS, torch.tensor([0, 0, 0, 0, 0, 7]), SHARE
    )
    assert metrics["appearances_max"].item() == 1


def test_auxiliary_losses_are_added_with_their_weights() -> None:
    made = objective(balance_weight=0.5, sharpness_weight=2.0, semantic_weight=0.25)
    prob = made.router(POSITIVE.category)
    loss, metrics = loss_of(made)
    expected = {
        "balance_loss": balance_loss(prob).item(),
        "sharpness_loss": sharpness_loss(prob).item(),
        "semantic_loss": semantic_loss(user(2).heads, unit([X, Y]), prob, 0.5).item(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    total = 0.5 * expected["balance_loss"] + 2 * expected["sharpness_loss"] + 0.25 * expected["semantic_loss"]
    assert loss == pytest.approx(metrics["nll_loss"] + total)


def test_query_weights_weigh_the_contrastive_loss_alone() -> None:
    """As in the reference: the auxiliary losses are about the routing of items, and count every example."""
    auxiliary = ("balance_loss", "sharpness_loss", "semantic_loss")
    loss, weighted = loss_of(objective(), torch.tensor([1.0, 0.0]))
    _, plain = loss_of(objective())
    assert weighted["nll_loss"] != pytest.approx(plain["nll_loss"])
    assert {name: weighted[name] for name in auxiliary} == {name: plain[name] for name in auxiliary}
    assert weighted["query_weight"] == 0.5
    assert loss == pytest.approx(weighted["nll_loss"] + sum(plain[name] for name in auxiliary))


def test_the_single_vector_loss() -> None:
    made = objective(num_interests=1, kind="single_vector", hard_queue_size=4)
    expected, _ = single_vector_loss(
        user(1).interests[:, 0],
        unit([X, Y]),
        unit([X, X, Y, Y, Y, Y]),
        negative_weights=torch.tensor(WEIGHTS["hard part"][1]),
        temperature=0.5,
        epsilon=0.0,
    )
    loss, metrics = loss_of(made)
    assert loss == pytest.approx(expected.item())
    assert "semantic_loss" not in metrics


def test_costly_metrics_can_be_left_out() -> None:
    _, metrics = objective()(
        user(2), torch.arange(2), POSITIVE, NEGATIVE, POSITIVE_IDS, NEGATIVE_IDS, SHARE, with_metrics=False
    )
    assert "nll_loss" in metrics
    assert "rank1_accuracy" not in metrics


def test_the_queue_teaches_items_but_the_choice_of_hard_ones_teaches_nothing() -> None:
    made = objective(hard_queue_size=4, balance_weight=0, sharpness_weight=0, semantic_weight=0)
    item, category = NEGATIVE.item.clone().requires_grad_(), NEGATIVE.category.clone().requires_grad_()
    loss, _ = made(user(2), torch.arange(2), POSITIVE, ItemEmbedding(item, category), POSITIVE_IDS, NEGATIVE_IDS, SHARE)
    loss.backward()
    assert category.grad is None
    assert item.grad is not None
    assert item.grad.abs().sum(1).bool().tolist() == [False, False, False, True, True, True]


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("log_q", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("joint", "margin"), [(True, 0.0), (True, 0.1), (False, 0.0), (False, 0.1)])
@pytest.mark.parametrize("temperature", [0.5, 0.02])
def test_shared_negatives_give_the_same_loss_and_gradients(
    deduplicate: bool, log_q: float, joint: bool, margin: float, temperature: float
) -> None:
    """Without metrics the negatives are summed once for all targets of a moment; some are among them, some not."""
    settings = {"queue_size": 40, "temperature": temperature, "margin": margin, "joint": joint}
    made = objective(deduplicate=deduplicate, log_q=log_q, **settings)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 12, (40,), generator=generator)
    catalogue = torch.randn(14, 4, generator=generator)
    share = torch.softmax(torch.randn(14, generator=generator), 0)
    positive_ids, moment = torch.tensor([3, 4, 13, 5, 3]), torch.tensor([0, 0, 1, 2, 2])
    weights = torch.tensor([1.0, 0.5, 1.0, 2.0, 0.0])
    found = []
    for with_metrics in (True, False):
        items = catalogue.clone().requires_grad_()
        raw = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        vectors = torch.nn.functional.normalize(raw, dim=-1)
        users = UserEmbedding(vectors[:, :2], vectors[:, 2:], torch.zeros(3, 2, 3))
        embedded = [ItemEmbedding(items[rows], items[rows]) for rows in (positive_ids, ids)]
        loss, _ = made(users, moment, *embedded, positive_ids, ids, share[ids], weights, with_metrics)
        loss.backward()
        found.append((loss.detach(), items.grad, raw.grad))
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("joint", [True, False])
def test_shared_negatives_at_the_limits_stay_finite(joint: bool) -> None:
    """A queue that holds only the targets themselves, and a target whose sibling is far ahead but not in the queue."""
    generator = torch.Generator().manual_seed(0)
    for positive_ids, queue in (([1], [1, 0]), ([1, 2], [1, 1]), ([1, 3], [1, 2])):
        ids, queue_ids = torch.tensor(positive_ids), torch.tensor(queue)
        raw = torch.randn(1, 2, 4, generator=generator).requires_grad_()
        catalogue = torch.randn(4, 4, generator=generator)
        loss = shared_multi_vector_loss(
            torch.nn.functional.normalize(raw, dim=-1),
            torch.zeros_like(ids),
            unit(catalogue[ids].tolist()),
            unit(catalogue[queue_ids].tolist()),
            torch.full((len(ids), 2), 0.5),
            positive_ids=ids,
            negative_ids=queue_ids,
            negative_weights=(queue_ids != 0).float(),
            temperature=0.005,
            margin=1.0,
            joint=joint,
        )
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(raw.grad).all()
        if len(ids) == 1 and not joint:
            assert loss.item() == 0.0  # nothing to tell it from
