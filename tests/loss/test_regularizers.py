import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from prismrec.loss.regularizers import (
    balance_loss,
    diversity_loss,
    head_metrics,
    semantic_loss,
    sharpness_loss,
    usage_loss,
)


@pytest.mark.parametrize(
    ("prob", "expected"),
    [
        ([[0.5, 0.5]], 0.0),
        ([[0.9, 0.1], [0.9, 0.1]], math.log(0.5 / 0.1) / 2),  # the head above its share costs nothing
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),  # sharp users, balanced batch
        ([[0.7, 0.2, 0.05, 0.05]], (math.log(0.25 / 0.2) + 2 * math.log(0.25 / 0.05)) / 4),
    ],
)
def test_balance(prob: list[list[float]], expected: float) -> None:
    assert balance_loss(torch.tensor(prob)).item() == pytest.approx(expected, abs=1e-7)


def test_balance_of_a_head_that_nothing_reaches_is_finite() -> None:
    logits = torch.tensor([[0.0, -200.0]], requires_grad=True)  # its softmax underflows
    loss = balance_loss(torch.softmax(logits, -1))
    loss.backward()
    assert 40 < loss.item() < 50
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_sharpness_leaves_the_sharp_alone() -> None:
    prob = torch.tensor([[0.9, 0.1], [0.96, 0.04]], requires_grad=True)
    loss = sharpness_loss(prob)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.9) / 2)
    assert prob.grad is not None
    assert prob.grad.flatten().tolist() == pytest.approx([-1 / 0.9 / 2, 0, 0, 0])


def test_semantic() -> None:
    """Cosines 1 and 0: cross-entropy of softmax(2, 0) to (0.75, 0.25)."""
    heads, positive = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1.0, 0.0]])
    loss = semantic_loss(heads, positive, torch.tensor([[0.75, 0.25]]), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 1) - 0.75 * 2)


def test_usage() -> None:
    """Cosines 1 and 0, then 0.6 and 0.8: at temperature 0.2, softmax(5, 0) and softmax(3, 4)."""
    interests = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).expand(2, -1, -1)
    positive = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    second = (1 / (1 + math.exp(5)) + 1 / (1 + math.exp(-1))) / 2  # 0.3689: below its half
    assert usage_loss(interests, positive, temperature=0.2).item() == pytest.approx(math.log(0.5 / second) / 2)


def test_usage_of_a_vector_that_is_absent_is_none() -> None:
    interests = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]], requires_grad=True)
    positive = torch.tensor([[0.0, -1.0], [0.6, 0.8]])
    second = 1 / (1 + math.exp(0.2)) / 2  # nothing of the first example, though its present vector is at -1
    loss = usage_loss(interests, positive, temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(0.5 / second) / 2)
    assert interests.grad.isfinite().all()
    assert interests.grad[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("interests", "expected"),
    [
        ([[[1.0, 0.0], [0.0, 1.0]]], 0.0),
        ([[[1.0, 0.0], [-1.0, 0.0]]], 1.0),  # as bad as the same vector twice
        ([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]], (0.36 + 0.0 + 0.64) / 3),
        ([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.0, 1.0]]], (0.36 + 1.0) / 2),
        ([[[1.0, 0.0], [0.0, 0.0]]], 0.0),  # an absent vector is apart from all
        ([[[1.0, 0.0]]], 0.0),
    ],
)
def test_diversity(interests: list[list[list[float]]], expected: float) -> None:
    assert diversity_loss(torch.tensor(interests)).item() == pytest.approx(expected)


def test_diversity_drives_vectors_apart_and_not_their_lengths() -> None:
    """d/dz_1 of the squared cosine c = 0.6 is 2 c z_2, counted once for each order of the pair, over two pairs."""
    interests = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]], requires_grad=True)
    diversity_loss(interests).backward()
    assert interests.grad[0].tolist() == [pytest.approx([0.72, 0.96]), pytest.approx([1.2, 0.0])]


def test_head_metrics() -> None:
    metrics = head_metrics(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]))
    assert {name: value.item() for name, value in metrics.items()} == {
        "head_sharpness": pytest.approx(0.75),
        "head_usage_max": pytest.approx(0.5),
        "head_usage_min": pytest.approx(0.1),
    }


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.01, 5.0), st.integers(0, 2**31))
def test_no_loss_is_negative(batch: int, heads: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    prob = torch.softmax(torch.randn(batch, heads, generator=generator) / temperature, -1)
    vectors = torch.nn.functional.normalize(torch.randn(batch, heads + 1, 4, generator=generator), dim=-1)
    assert balance_loss(prob).item() >= 0
    assert sharpness_loss(prob).item() >= 0
    assert semantic_loss(vectors[:, 1:], vectors[:, 0], prob).item() >= -1e-6
    assert usage_loss(vectors[:, 1:], vectors[:, 0], temperature).item() >= 0
    assert diversity_loss(vectors).item() >= 0
