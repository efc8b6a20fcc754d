import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from prismrec.loss.softmax import positive_log_prob, weighted_softmax

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 1.0, 1.0], [1 / 6, 2 / 6, 3 / 6]),
        ([1.0, 0.0, 1.0], [1 / 4, 0.0, 3 / 4]),
        ([2.0, 1.0, 0.0], [2 / 4, 2 / 4, 0.0]),
    ],
)
def test_weighted_softmax(weights: list[float], expected: list[float]) -> None:
    found = weighted_softmax(torch.tensor([0.0, LN2, LN3]), torch.tensor(weights), epsilon=0.0)
    assert found.tolist() == pytest.approx(expected)


def test_a_row_without_weight_is_uniform() -> None:
    assert weighted_softmax(torch.tensor([5.0, -3.0]), torch.zeros(2)).tolist() == [0.5, 0.5]


def test_epsilon_floors_probabilities() -> None:
    found = weighted_softmax(torch.tensor([0.0, -100.0]), torch.ones(2))
    assert found.tolist() == pytest.approx([1.0, 1e-8])


def test_softmax_over_two_dimensions() -> None:
    logits = torch.tensor([[[0.0, LN2], [LN3, LN4]]])
    found = weighted_softmax(logits, torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), dim=(1, 2), epsilon=0.0)
    assert found.flatten().tolist() == pytest.approx([1 / 7, 2 / 7, 0.0, 4 / 7])


POSITIVE = torch.tensor([[0.0, LN2]])
NEGATIVES = torch.tensor([[[0.0, LN3], [LN2, LN4]]])


@pytest.mark.parametrize(
    ("weights", "joint", "expected"),
    [
        (None, False, [1 / (1 + 1 + 3), 2 / (2 + 2 + 4)]),
        ([1.0, 0.5], False, [1 / (1 + 1 + 1.5), 2 / (2 + 2 + 2)]),
        (None, True, [1 / (5 + 8), 2 / (5 + 8)]),
        ([1.0, 0.5], True, [1 / (3.5 + 6), 2 / (3.5 + 6)]),
        ([0.0, 0.0], False, [1.0, 1.0]),
        ([0.0, 0.0], True, [1 / 3, 2 / 3]),
    ],
)
def test_positive_log_prob(weights: list[float] | None, joint: bool, expected: list[float]) -> None:
    given_weights = None if weights is None else torch.tensor([weights])
    exact = positive_log_prob(POSITIVE, NEGATIVES, given_weights, joint=joint, epsilon=0.0)
    assert exact.exp().flatten().tolist() == pytest.approx(expected)
    reference = positive_log_prob(POSITIVE, NEGATIVES, given_weights, joint=joint, epsilon=1e-8)
    assert reference.exp().flatten().tolist() == pytest.approx(expected)


def test_a_negative_left_out_does_not_count_however_close_it_is() -> None:
    negatives = torch.tensor([[[200.0, 0.0]]], requires_grad=True)
    found = positive_log_prob(torch.zeros(1, 1), negatives, torch.tensor([[0.0, 1.0]]), joint=False, epsilon=0.0)
    assert found.item() == pytest.approx(-LN2)
    found.sum().backward()
    assert negatives.grad is not None
    assert negatives.grad.tolist() == [[[0.0, -0.5]]]


def test_epsilon_silences_hard_positives_and_the_exact_form_does_not() -> None:
    for epsilon, gradient in ((1e-8, 0.0), (0.0, 1.0)):
        positive = torch.tensor([[-30.0]], requires_grad=True)
        positive_log_prob(positive, torch.zeros(1, 1, 1), torch.ones(1, 1), joint=False, epsilon=epsilon).backward()
        assert positive.grad is not None
        assert positive.grad.item() == pytest.approx(gradient, abs=1e-4)


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6))


@settings(deadline=None)
@given(sizes, st.integers(0, 2**31), st.booleans(), st.floats(0.1, 10.0))
def test_the_exact_form_is_the_limit_of_the_references(
    size: tuple[int, int, int], seed: int, joint: bool, scale: float
) -> None:
    batch, vectors, queue = size
    positive, negatives = scale * random((batch, vectors), seed), scale * random(size, seed + 1)
    weights = random((batch, queue), seed + 2).clamp(min=0.0)
    exact, reference = (
        positive_log_prob(positive, negatives, weights, joint=joint, epsilon=epsilon) for epsilon in (0.0, 1e-250)
    )
    torch.testing.assert_close(exact, reference)


@settings(deadline=None)
@given(sizes, st.integers(0, 2**31), st.booleans(), st.floats(-500.0, 500.0))
def test_a_shift_of_all_logits_changes_nothing(
    size: tuple[int, int, int], seed: int, joint: bool, shift: float
) -> None:
    batch, vectors, queue = size
    positive, negatives = random((batch, vectors), seed), random(size, seed + 1)
    weights = random((batch, queue), seed + 2).abs()
    plain = positive_log_prob(positive, negatives, weights, joint=joint, epsilon=0.0)
    shifted = positive_log_prob(positive + shift, negatives + shift, weights, joint=joint, epsilon=0.0)
    torch.testing.assert_close(plain, shifted)
    assert (plain <= 0).all()
