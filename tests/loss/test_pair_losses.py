"""The reference's form of the losses, and its metrics.

Numbers worked out by hand: two orthogonal interests, the positive along the first, temperature 1. Logits of the
positive are 1 and 0, those of the one negative 0 and 1; L = log(1 + e) = 1.3132617.
"""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from prismrec.loss.contrastive import (
    Candidates,
    Positives,
    contrastive_loss,
    cosine_metrics,
    multi_vector_loss,
    single_vector_loss,
    vector_probabilities,
    weighted_mean,
)

INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
POSITIVE = torch.tensor([[1.0, 0.0]])
NEGATIVE = torch.tensor([[0.0, 1.0]])
PROB = torch.tensor([[0.75, 0.25]])
L = math.log(1 + math.e)
seeds = st.integers(0, 2**31)


def test_single() -> None:
    loss = single_vector_loss(POSITIVE, POSITIVE, NEGATIVE, temperature=1.0)
    assert loss.item() == pytest.approx(L - 1)  # -log(e / (e + 1))


def test_single_with_temperature_margin_and_weights() -> None:
    weights = torch.tensor([[0.5]])
    loss = single_vector_loss(
        POSITIVE, POSITIVE, NEGATIVE, negative_weights=weights, temperature=0.5, margin=0.25, epsilon=0.0
    )
    positive = math.exp((1 - 0.25) / 0.5)
    assert loss.item() == pytest.approx(-math.log(positive / (positive + 0.5)))


def test_conditional() -> None:
    loss = multi_vector_loss(INTERESTS, POSITIVE, NEGATIVE, PROB, temperature=1.0, joint=False)
    assert loss.item() == pytest.approx(-0.75 * (1 - L) - 0.25 * (0 - L))


def test_joint() -> None:
    loss = multi_vector_loss(INTERESTS, POSITIVE, NEGATIVE, PROB, temperature=1.0, joint=True)
    assert loss.item() == pytest.approx(math.log(2 + 2 * math.e) - 0.75)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
def test_joint_with_weights(epsilon: float) -> None:
    loss = multi_vector_loss(
        INTERESTS, POSITIVE, NEGATIVE, PROB, temperature=1.0, negative_weights=torch.tensor([[0.5]]), epsilon=epsilon
    )
    assert loss.item() == pytest.approx(math.log(math.e + 1 + 0.5 * (1 + math.e)) - 0.75)


def test_margin_lowers_the_positive_only() -> None:
    loss = multi_vector_loss(INTERESTS, POSITIVE, NEGATIVE, PROB, temperature=1.0, joint=False, margin=0.5)
    first = 0.5 - math.log(math.exp(0.5) + 1)
    second = -0.5 - math.log(math.exp(-0.5) + math.e)
    assert loss.item() == pytest.approx(-0.75 * first - 0.25 * second)


def test_adjacent_heads_make_a_vector() -> None:
    prob = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    assert vector_probabilities(prob, 2).tolist() == PROB.tolist()
    loss = multi_vector_loss(INTERESTS, POSITIVE, NEGATIVE, prob, temperature=1.0, joint=False)
    assert loss.item() == pytest.approx(L - 0.75)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (torch.tensor([True, False]), L - 1),
        (torch.tensor([0.0, 1.0]), L),
        (torch.tensor([2.0, 1.0]), (2 * (L - 1) + L) / 3),
        (None, (L - 1 + L) / 2),
    ],
)
def test_query_weights(weights: Tensor | None, expected: float) -> None:
    """The first user's logits are 1 and 0, the second's the other way round."""
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positive = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = single_vector_loss(query, positive, NEGATIVE, temperature=1.0, query_weights=weights)
    assert loss.item() == pytest.approx(expected)
    shared = contrastive_loss(
        query[:, None],
        Positives(positive, torch.tensor([1, 2]), torch.arange(2), torch.ones(2, 1), torch.zeros(2, dtype=torch.int64)),
        Candidates(NEGATIVE, torch.tensor([3]), torch.ones(1, 1)),
        query_weights=weights,
        temperature=1.0,
    )
    assert shared.item() == pytest.approx(expected)


def test_the_infinite_value_of_a_masked_example_stays_out() -> None:
    values = torch.tensor([3.0, torch.inf, 6.0], requires_grad=True)
    mean = weighted_mean(values, torch.tensor([1.0, 0.0, 0.5]))
    mean.backward()
    assert mean.item() == pytest.approx(4.0)
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([2 / 3, 0.0, 1 / 3])


def test_metrics() -> None:
    """Best cosines to the positives: 0.8 and -0.6, the second user masked; negatives 0.6 and (left out) 1.0."""
    metrics = cosine_metrics(
        torch.tensor([[[0.8, 0.6], [0.0, 1.0]], [[-0.6, 0.8], [-1.0, 0.0]]]),
        torch.tensor([[1.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[0.0, 1.0], [0.6, 0.8]]),
        torch.tensor([[0.0, 0.0], [1.0, 0.5]]),
        torch.tensor([1.0, 0.0]),
    )
    assert {name: value.item() for name, value in metrics.items()} == {
        "negative_weight": pytest.approx(0.375),
        "query_weight": 0.5,
        "cosine_min": pytest.approx(0.8),
        "cosine_max": pytest.approx(0.8),
        "cosine_mean": pytest.approx(0.8),
        "rank1_accuracy": pytest.approx(1.0),
    }


def test_the_logarithm_of_a_weight_decides_the_first_rank() -> None:
    """A positive of cosine 0.6 is behind a negative of 0.8, but ahead of one that weighs half: 0.8 - 0.69."""
    interests, positive = torch.tensor([[[0.6, 0.8]]]), torch.tensor([[1.0, 0.0]])
    for weight, rank1 in ((1.0, 0.0), (0.5, 1.0)):
        metrics = cosine_metrics(interests, positive, NEGATIVE, torch.tensor([[weight]]))
        assert metrics["rank1_accuracy"].item() == rank1
        assert "query_weight" not in metrics


def unit(shape: tuple[int, ...], seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 8), st.booleans(), seeds)
def test_the_order_of_negatives_does_not_matter(batch: int, vectors: int, queue: int, joint: bool, seed: int) -> None:
    interests, positive, negatives = unit((batch, vectors, 5), seed), unit((batch, 5), seed + 1), unit((queue, 5), seed)
    prob = torch.softmax(unit((batch, 2 * vectors), seed + 3), -1)
    weights = unit((batch, queue), seed + 4).abs()
    order = torch.randperm(queue, generator=torch.Generator().manual_seed(seed))
    plain, permuted = (
        multi_vector_loss(
            interests, positive, negatives[o], prob, negative_weights=weights[:, o], joint=joint, epsilon=0.0
        )
        for o in (torch.arange(queue), order)
    )
    torch.testing.assert_close(plain, permuted)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.booleans(), seeds)
def test_a_negative_twice_at_half_the_weight_is_once(
    batch: int, vectors: int, times: int, joint: bool, seed: int
) -> None:
    interests, positive, negatives = unit((batch, vectors, 5), seed), unit((batch, 5), seed + 1), unit((3, 5), seed + 2)
    prob = torch.softmax(unit((batch, vectors), seed + 3), -1)
    once = multi_vector_loss(interests, positive, negatives, prob, joint=joint)
    repeated = multi_vector_loss(
        interests,
        positive,
        negatives.repeat(times, 1),
        prob,
        negative_weights=torch.full((batch, 3 * times), 1 / times, dtype=torch.float64),
        joint=joint,
        epsilon=0.0,
    )
    torch.testing.assert_close(once, repeated)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), seeds)
def test_one_vector_is_the_single_loss(batch: int, queue: int, seed: int) -> None:
    query, positive, negatives = unit((batch, 5), seed), unit((batch, 5), seed + 1), unit((queue, 5), seed + 2)
    single = single_vector_loss(query, positive, negatives, margin=0.1)
    for joint in (True, False):
        prob = torch.full((batch, 4), 0.25, dtype=torch.float64)
        multi = multi_vector_loss(query[:, None], positive, negatives, prob, joint=joint, margin=0.1)
        torch.testing.assert_close(single, multi)
