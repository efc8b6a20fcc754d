import math

import pytest
import torch

from prismrec.model.layers import PathwiseLinear, UnitLayerNorm, dense, floor_log2, of_clicks, unit_norm, unit_normal


@pytest.mark.parametrize("scale", [1.0, 3.0, 1e-4])
def test_unit_norm(scale: float) -> None:
    assert unit_norm(torch.tensor([3.0, -4.0]) * scale).tolist() == pytest.approx([0.6, -0.8])


def test_unit_norm_of_zero_is_zero_and_has_a_gradient() -> None:
    x = torch.zeros(2, requires_grad=True)
    unit_norm(x).sum().backward()
    assert unit_norm(x).tolist() == [0.0, 0.0]
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_unit_normal_rows_have_length_near_one() -> None:
    torch.manual_seed(0)
    assert unit_normal(50, 400).norm(dim=-1).mean().item() == pytest.approx(1.0, abs=0.01)


def test_a_layer_of_clicks_is_computed_for_no_others() -> None:
    """Doubles 1 and 5; padding is not looked at."""
    seen = []

    def double(clicks: torch.Tensor) -> torch.Tensor:
        seen.append(clicks.flatten().tolist())
        return 2 * clicks

    x = torch.tensor([[[1.0], [3.0]], [[torch.nan], [5.0]]], requires_grad=True)
    found = of_clicks(double, torch.tensor([[True, False], [False, True]]), x)
    assert (seen, found.tolist()) == ([[1.0, 5.0]], [[[2.0], [0.0]], [[0.0], [10.0]]])
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[2.0], [0.0]], [[0.0], [2.0]]]


@pytest.mark.parametrize("kind", [dense(5, 4), PathwiseLinear(3, 5, 4)])
def test_what_is_shared_is_beside_every_users_own(kind: torch.nn.Module) -> None:
    own, shared = torch.randn(2, 3, 3), torch.randn(3, 2)
    beside = torch.cat([own, shared.expand(2, -1, -1)], -1)
    torch.testing.assert_close(kind(own, shared), kind(beside))


def test_dense_starts_with_a_zero_bias() -> None:
    layer = dense(3, 2)
    assert layer.bias.tolist() == [0.0, 0.0]
    assert dense(3, 2, bias=False).bias is None


def test_pathwise_linear_has_a_layer_per_path() -> None:
    layer = PathwiseLinear(2, 2, 1)
    layer.weight.data = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    layer.bias.data = torch.tensor([[10.0], [20.0]])
    assert layer(torch.tensor([[[1.0, 1.0], [1.0, 2.0]]])).tolist() == [[[13.0], [31.0]]]


@pytest.mark.parametrize(("unit", "scale"), [(False, 1.0), (True, 1 / math.sqrt(2))])
def test_layer_norm(unit: bool, scale: float) -> None:
    layer = UnitLayerNorm(2, unit)
    assert layer(torch.tensor([5.0, 9.0])).tolist() == pytest.approx([-scale, scale])
    layer.gamma.data, layer.beta.data = torch.tensor([2.0, 3.0]), torch.tensor([0.5, 0.25])
    assert layer(torch.tensor([5.0, 9.0])).tolist() == pytest.approx([0.5 - 2 * scale, 0.25 + 3 * scale])


def test_unit_layer_norm_gives_unit_vectors() -> None:
    torch.manual_seed(0)
    assert UnitLayerNorm(16, unit=True)(torch.randn(5, 16)).norm(dim=-1).tolist() == pytest.approx([1.0] * 5)


def test_floor_log2_is_exact_around_powers() -> None:
    assert floor_log2(torch.tensor([0, 1, 2, 3, 4, 7, 8, 1000]), 62).tolist() == [0, 0, 1, 1, 2, 2, 3, 9]
    assert floor_log2(torch.tensor([0, 3, 4, 2**40]), 2).tolist() == [0, 1, 2, 2]
    powers = 2 ** torch.arange(1, 33)
    assert floor_log2(powers, 62).tolist() == list(range(1, 33))
    assert floor_log2(powers - 1, 62).tolist() == list(range(32))
