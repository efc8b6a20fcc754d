"""The objective by hand: two users, items on the axes of a space, categories that route to one head each."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from prismrec.config import LossConfig, ModelConfig
from prismrec.loss.contrastive import Candidates, Positives, contrastive_loss, multi_vector_loss, vector_probabilities
from prismrec.loss.negatives import Negatives
from prismrec.loss.regularizers import balance_loss, diversity_loss, semantic_loss, sharpness_loss, usage_loss
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.user_encoder import UserEmbedding
from prismrec.train import objective as module
from prismrec.train.objective import Examples, Objective

X, Y, Z = [2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0]
POSITIVE_IDS = torch.tensor([7, 8])
POSITIVE = ItemEmbedding(torch.tensor([X, Y]), torch.tensor([X, Y]))
EMBEDDED = ItemEmbedding(torch.tensor([X, Y, Z, Z]), torch.tensor([X, Y, X, Y]))
IDS, WEIGHT, ALIKE = torch.tensor([7, 8, 9, 10]), torch.tensor([1.0, 2.0, 0.5, 0.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
PAIR_WEIGHTS = {
    "one weight for all": (Negatives(IDS, WEIGHT, None), [[0.0, 2, 0.5, 0], [1.0, 0, 0.5, 0]]),
    # user 0 and items 7 and 9 are of category X, user 1 and items 8 and 10 of Y
    "a hard part": (Negatives(IDS, WEIGHT, ALIKE), [[0.0, 2, 3, 0], [1.0, 0, 0.5, 4]]),
}
every_weight = pytest.mark.parametrize(("negatives", "pair_weights"), PAIR_WEIGHTS.values(), ids=PAIR_WEIGHTS)
AUXILIARY = ("balance", "sharpness", "semantic", "usage", "diversity")
OFF = {f"{name}_weight": 0.0 for name in AUXILIARY}
REFERENCE = {"reading": "expectation", **OFF, "balance_weight": 1.0, "sharpness_weight": 1.0, "semantic_weight": 1.0}


def unit(rows: list[list[float]]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def examples(moment: Tensor | None = None, weight: Tensor | None = None, heads: int = 2) -> Examples:
    """Users of two interests; by default a moment for each of the two targets."""
    moment = torch.arange(2) if moment is None else moment
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, 2 + heads, 4, generator=generator), dim=-1)
    moments = int(moment.max()) + 1
    user = UserEmbedding(vectors[:moments, :2], vectors[:moments, 2:], torch.zeros(moments, heads, 3))
    return Examples(user, moment, POSITIVE, POSITIVE_IDS, weight)


def objective(num_heads: int = 2, **settings: Any) -> Objective:
    loss = LossConfig.model_validate({"temperature": 0.5, **REFERENCE, **settings})
    made = Objective(loss, ModelConfig(embedding_dim=4, num_heads=num_heads, num_interests=2))
    made.router.prototypes.data = torch.eye(num_heads, 4)
    return made


def call(
    made: Objective, given: Examples, negatives: Negatives = PAIR_WEIGHTS["a hard part"][0], with_metrics: bool = True
) -> tuple[float, dict[str, float]]:
    with torch.no_grad():
        loss, metrics = made(given, negatives, EMBEDDED, with_metrics=with_metrics)
    return loss.item(), {name: value.item() for name, value in metrics.items()}


@every_weight
@pytest.mark.parametrize("joint", [True, False])
def test_the_contrastive_loss_and_its_weights(
    negatives: Negatives, pair_weights: list[list[float]], joint: bool
) -> None:
    made = objective(joint=joint, margin=0.1, **OFF)
    expected = multi_vector_loss(
        examples().user.interests,
        unit([X, Y]),
        unit([X, Y, Z, Z]),
        made.router(POSITIVE.category),
        negative_weights=torch.tensor(pair_weights),
        temperature=0.5,
        margin=0.1,
        joint=joint,
        epsilon=0.0,
    )
    loss, metrics = call(made, examples(), negatives)
    assert loss == metrics["nll_loss"] == pytest.approx(expected.item())
    assert metrics["negative_weight"] == pytest.approx(sum(map(sum, pair_weights)) / 8)
    assert metrics["negatives"] == 4


@pytest.mark.parametrize("reading", ["expectation", "log_sum_exp", "maximum"])
def test_the_reading_is_that_of_the_settings(reading: str) -> None:
    zero, given = torch.zeros(2, dtype=torch.int64), examples()
    expected = contrastive_loss(
        given.user.interests,
        Positives(unit([X, Y]), POSITIVE_IDS, given.moment, torch.eye(2), zero),  # routing is all but one-hot
        Candidates(unit([X, Y, Z, Z]), IDS, WEIGHT[:, None]),
        temperature=0.5,
        reading=reading,
    )
    loss, _ = call(objective(reading=reading, **OFF), given, Negatives(IDS, WEIGHT, None))
    assert loss == pytest.approx(expected.item(), abs=1e-5)


def test_items_of_free_norm_are_compared_as_they_are() -> None:
    """A user at X alone: scores of the target X of length 2, and of Y of length 3 and Z, which are at right angles."""
    made = Objective(
        LossConfig.model_validate({"temperature": 0.5, **OFF, "reading": "log_sum_exp"}),
        ModelConfig(embedding_dim=4, num_heads=1, num_interests=1, item_norm="free"),
    )
    user = UserEmbedding(unit([X])[:, None], unit([X])[:, None], torch.zeros(1, 1, 3))
    given = Examples(
        user, torch.zeros(1, dtype=torch.int64), POSITIVE.select(torch.tensor([0])), POSITIVE_IDS[:1], None
    )
    loss, _ = call(made, given, Negatives(IDS, torch.tensor([0.0, 1.0, 1.0, 0.0]), None))
    assert loss == pytest.approx(math.log(1 + 2 * math.exp(-2 / 0.5)), rel=1e-5)


def test_targets_of_one_moment_are_negatives_of_each_other() -> None:
    together = torch.zeros(2, dtype=torch.int64)
    made, given = objective(**OFF), examples(together)
    expected = multi_vector_loss(
        given.user.interests.expand(2, -1, -1),
        unit([X, Y]),
        unit([X, Y, Z, Z]),
        made.router(POSITIVE.category),
        negative_weights=torch.tensor(PAIR_WEIGHTS["a hard part"][1]),
        temperature=0.5,
        epsilon=0.0,
    )
    assert call(made, given)[0] == pytest.approx(expected.item())


def test_auxiliary_losses_are_added_with_their_weights() -> None:
    weights = {"balance": 0.5, "sharpness": 2.0, "semantic": 0.25, "usage": 3.0, "diversity": 0.75}
    made, given = objective(**{f"{name}_weight": weight for name, weight in weights.items()}), examples()
    prob, target = made.router(POSITIVE.category), unit([X, Y])
    loss, metrics = call(made, given)
    expected = {
        "balance": balance_loss(prob).item(),
        "sharpness": sharpness_loss(prob).item(),
        "semantic": semantic_loss(given.user.heads, target, prob, 0.5).item(),
        "usage": usage_loss(given.user.interests, target, 0.5).item(),
        "diversity": diversity_loss(given.user.interests).item(),
    }
    assert {name: metrics[f"{name}_loss"] for name in expected} == pytest.approx(expected)
    total = sum(weights[name] * value for name, value in expected.items())
    assert total > 0.1
    assert loss == pytest.approx(metrics["nll_loss"] + total)


@pytest.mark.parametrize("name", AUXILIARY)
def test_an_auxiliary_loss_without_weight_is_not_taken(name: str) -> None:
    on = {f"{other}_weight": 1.0 for other in AUXILIARY}
    _, metrics = call(objective(**(on | {f"{name}_weight": 0.0})), examples())
    assert {f"{other}_loss" for other in AUXILIARY} - metrics.keys() == {f"{name}_loss"}


def test_what_counts_targets_and_what_counts_moments() -> None:
    """Both targets follow one moment: its vectors are in use for each of them, but apart only once."""
    given = examples(torch.zeros(2, dtype=torch.int64), heads=4)
    made = objective(num_heads=4, usage_weight=1.0, diversity_weight=1.0)
    prob, both = made.router(POSITIVE.category), (2, -1, -1)
    _, metrics = call(made, given)
    expected = {
        "usage_loss": usage_loss(given.user.interests.expand(both), unit([X, Y]), 0.5).item(),
        "diversity_loss": diversity_loss(given.user.interests).item(),
        "semantic_loss": semantic_loss(given.user.heads.expand(both), unit([X, Y]), prob, 0.5).item(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_heads_that_are_vectors_are_distinct_by_the_routing_to_vectors() -> None:
    """A contextual encoder gives its two vectors as heads; two of the four prototypes belong to each."""
    made, given = objective(num_heads=4), examples(heads=2)
    prob = vector_probabilities(made.router(POSITIVE.category), 2)
    expected = semantic_loss(given.user.heads, unit([X, Y]), prob, 0.5)
    assert call(made, given)[1]["semantic_loss"] == pytest.approx(expected.item())


def test_query_weights_weigh_the_contrastive_loss_alone() -> None:
    """As in the reference: the auxiliary losses are about the routing of items, and count every example."""
    auxiliary = ("balance_loss", "sharpness_loss", "semantic_loss")
    loss, weighted = call(objective(), examples(weight=torch.tensor([1.0, 0.0])))
    _, plain = call(objective(), examples())
    assert weighted["nll_loss"] != pytest.approx(plain["nll_loss"])
    assert {name: weighted[name] for name in auxiliary} == {name: plain[name] for name in auxiliary}
    assert weighted["query_weight"] == 0.5
    assert loss == pytest.approx(weighted["nll_loss"] + sum(plain[name] for name in auxiliary))


def test_costly_metrics_can_be_left_out() -> None:
    (with_metrics, every), (without, few) = (call(objective(), examples(), with_metrics=on) for on in (True, False))
    assert without == with_metrics
    assert every.keys() - few.keys() == {
        "negative_weight",
        "cosine_min",
        "cosine_max",
        "cosine_mean",
        "rank1_accuracy",
    }


def test_cosines_are_those_of_the_first_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    cosines = (examples().user.interests @ unit([X, Y]).unsqueeze(-1)).amax((1, 2))
    _, metrics = call(objective(), examples())
    assert metrics["cosine_mean"] == pytest.approx(cosines.mean().item())
    monkeypatch.setattr(module, "METRIC_EXAMPLES", 1)
    _, metrics = call(objective(), examples())
    assert metrics["cosine_mean"] == pytest.approx(cosines[0].item())


def test_negatives_teach_items_but_the_choice_of_hard_ones_teaches_nothing() -> None:
    item, category = EMBEDDED.item.clone().requires_grad_(), EMBEDDED.category.clone().requires_grad_()
    alike = torch.tensor([0.0, 0.0, 3.0, 0.0])
    negatives = Negatives(IDS, torch.tensor([0.0, 1.0, 0.0, 0.0]), alike)
    loss, _ = objective(**OFF)(examples(), negatives, ItemEmbedding(item, category))
    loss.backward()
    assert category.grad is None
    assert item.grad.abs().sum(1).bool().tolist() == [False, True, True, False]
