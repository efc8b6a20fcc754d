import math

import pytest
import torch
from torch import nn

from prismrec.model.attention import ContextAttention, ContextCoAction, QueryAttention


def test_co_action_of_one_dimension() -> None:
    """tanh(k + tanh(k) Q) with k = 2 * 0.25 + 0.1 and Q = 3 * 0.5 + 0.2."""
    layer = ContextCoAction(1, 1, 1)
    for part, weight, bias in ((layer.key, 2.0, 0.1), (layer.query, 3.0, 0.2)):
        nn.init.constant_(part.weight, weight)
        nn.init.constant_(part.bias, bias)
    found = layer(torch.tensor([[0.5]]), layer.key(torch.tensor([[[0.25]]])))
    assert found.item() == pytest.approx(math.tanh(0.6 + math.tanh(0.6) * 1.7))


def test_co_action_multiplies_from_the_right() -> None:
    layer = ContextCoAction(1, 2, 2)
    nn.init.eye_(layer.key.weight)
    nn.init.zeros_(layer.query.weight)
    layer.query.bias.data = torch.tensor([1.0, 2.0, 3.0, 4.0])  # Q = [[1, 2], [3, 4]]
    found = layer(torch.zeros(1, 1), layer.key(torch.tensor([[[0.5, 0.25]]])))
    a, b = math.tanh(0.5), math.tanh(0.25)
    expected = [math.tanh(0.5 + a + 3 * b), math.tanh(0.25 + 2 * a + 4 * b)]
    assert found.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("max_length", [None, 4])
def test_context_attention_sums_to_one_over_the_clicks(max_length: int | None) -> None:
    torch.manual_seed(0)
    layer = ContextAttention(8, max_length)
    mask = torch.tensor([[True, True, False, False], [True, False, False, False]])
    prob = layer(torch.randn(2, 4, 8), mask, torch.randn(2, 4, 8))
    assert prob.sum(1).tolist() == pytest.approx([1.0, 1.0])
    assert prob[~mask].abs().max().item() < 1e-6


def test_only_a_position_bias_tells_equal_clicks_apart() -> None:
    torch.manual_seed(0)
    items, context, mask = torch.ones(1, 3, 4), torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)
    assert ContextAttention(4)(items, mask, context)[0].tolist() == pytest.approx([1 / 3] * 3)
    assert ContextAttention(4, 3)(items, mask, context)[0].unique().numel() == 3


def test_query_attention_is_the_mean_over_queries() -> None:
    layer = QueryAttention(2, transform=False, temperature=0.5)
    items = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    queries = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 9.0]]])
    prob = layer(items, mask, queries, torch.tensor([[True, True, False]]))
    first = math.exp(2) / (math.exp(2) + 1)
    assert prob[0].tolist() == pytest.approx([(first + 0.5) / 2, (1 - first + 0.5) / 2, 0.0], abs=1e-6)


def test_without_a_query_nothing_counts() -> None:
    layer = QueryAttention(2)
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert layer(torch.randn(1, 3, 2), mask, torch.randn(1, 3, 2), ~mask).tolist() == [[0.0, 0.0, 0.0]]
