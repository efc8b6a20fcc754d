"""Taking a loss part by part changes neither it nor its gradients."""

import itertools

import pytest
import torch
from torch import Tensor

from prismrec.loss.chunked import Part, Slices, sum_in_chunks


def parts_of(bounds: list[int]) -> list[tuple[Part, Slices]]:
    """sum over rows of x * y, each part with the whole of y; x is cut at the bounds."""

    def part(x: Tensor, y: Tensor, unused: Tensor) -> Tensor:
        return (x @ y).sum()

    return [(part, [slice(*cut), slice(None), slice(None)]) for cut in itertools.pairwise(bounds)]


@pytest.mark.parametrize("bounds", [[0, 3], [0, 1, 3], [0, 1, 2, 3]])
def test_value_and_gradients_by_hand(bounds: list[int]) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    y, unused = torch.tensor([1.0, -1.0], requires_grad=True), torch.zeros(2, requires_grad=True)
    total = sum_in_chunks(parts_of(bounds), x, y, unused)
    (3 * total).backward()
    assert total.item() == -3.0
    assert x.grad.tolist() == [[3.0, -3.0]] * 3
    assert y.grad.tolist() == [27.0, 36.0]
    assert unused.grad.tolist() == [0.0, 0.0]


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, y = torch.ones(3, 2), torch.tensor([1.0, 2.0], requires_grad=True)
    total = sum_in_chunks(parts_of([0, 2, 3]), x, y, torch.zeros(2))
    total.backward()
    assert (x.grad, y.grad.tolist()) == (None, [3.0, 3.0])


def test_without_gradients_the_parts_are_added() -> None:
    x, y = torch.ones(3, 2), torch.tensor([1.0, 2.0], requires_grad=True)
    with torch.no_grad():
        total = sum_in_chunks(parts_of([0, 2, 3]), x, y, torch.zeros(2))
    assert (total.item(), total.requires_grad) == (9.0, False)
    plain = sum_in_chunks(parts_of([0, 2, 3]), x, y.detach(), torch.zeros(2))
    assert (plain.item(), plain.requires_grad) == (9.0, False)
