import math

import pytest
import torch
from torch import nn

from prismrec.model.aggregation import HeadAggregation, select_top_vectors


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


HEADS = torch.tensor([[[[1.0, 0.0], [3.0, 0.0]]]])  # one user, one path, two heads


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_weighted_mean_of_heads(temperature: float) -> None:
    second = sigmoid((3 - 1) / temperature)  # softmax(1, 3)
    found = HeadAggregation(1, 2, transform=False, temperature=temperature)(HEADS, torch.tensor([[[1.0, 0.0]]]))
    assert found.flatten().tolist() == pytest.approx([((1 - second) * 1 + second * 3) / 2, 0.0])


def test_without_a_query_the_mean_head_is_one() -> None:
    second = sigmoid(6 - 2)
    found = HeadAggregation(1, 2, transform=False)(HEADS)
    assert found.flatten().tolist() == pytest.approx([((1 - second) * 1 + second * 3) / 2, 0.0])


def test_the_query_is_transformed_per_path() -> None:
    """Queries (1, 0): the first path adds itself to it, the second takes it back."""
    layer = HeadAggregation(2, 2, transform=True)
    assert layer.transform is not None
    layer.transform.weight.data = torch.stack([torch.eye(2), -torch.eye(2)])
    nn.init.zeros_(layer.transform.bias)
    found = layer(HEADS.expand(1, 2, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    second = sigmoid(6 - 2)
    assert found[0, 0].tolist() == pytest.approx([((1 - second) * 1 + second * 3) / 2, 0.0])
    assert found[0, 1].tolist() == pytest.approx([1.0, 0.0])  # a zero query weighs both the same


def test_one_head_per_path_is_itself() -> None:
    heads = torch.randn(2, 3, 1, 4)
    torch.testing.assert_close(HeadAggregation(3, 4, transform=False)(heads), heads[:, :, 0])


def test_top_vectors_come_best_first() -> None:
    vectors = torch.arange(12.0).view(2, 3, 2)
    scores = torch.tensor([[0.1, 0.3, 0.2], [9.0, -1.0, 0.0]])
    assert select_top_vectors(vectors, scores, 2).tolist() == [[[2, 3], [4, 5]], [[6, 7], [10, 11]]]
