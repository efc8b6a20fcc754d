"""Products that oneDNN takes are those of PyTorch, whatever the sizes; so are their gradients."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from prismrec.loss import products
from prismrec.loss.products import inner_product, linear, product

# not multiples of what sizes are rounded to, and tall, wide and square
SIZES = [(4157, 64, 340), (999, 512, 65), (4156, 16, 913), (1031, 257, 40), (17, 2048, 2048), (4096, 64, 64)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With oneDNN, where it is there, and without."""
    monkeypatch.setattr(products, "HAS_ONEDNN", request.param and products.HAS_ONEDNN)


@pytest.mark.usefixtures("onednn")
def test_values_and_gradients_by_hand() -> None:
    """Ones times twos: each number is a count."""
    x = torch.ones(200, 128, requires_grad=True)
    weight = torch.full((256, 128), 2.0, requires_grad=True)
    bias = torch.full((256,), 0.5, requires_grad=True)
    result = linear(x, weight, bias)
    assert result.unique().tolist() == [256.5]
    of_x, of_weight, of_bias = torch.autograd.grad(result.sum(), [x, weight, bias])
    assert (of_x.unique().tolist(), of_weight.unique().tolist(), of_bias.unique().tolist()) == ([512], [200], [200])


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("size", SIZES)
def test_products_of_any_layout(size: tuple[int, int, int]) -> None:
    m, k, n = size
    left, right, other = normal(m, k), normal(k, n, seed=1), normal(m, n, seed=2)
    wide = normal(m, 2 * k, seed=3)
    close = {"rtol": 1e-5, "atol": 1e-3}
    torch.testing.assert_close(product(left, right), left @ right, **close)
    torch.testing.assert_close(product(other, right.T), other @ right.T, **close)
    torch.testing.assert_close(product(wide[:, k:], right), wide[:, k:] @ right, **close)
    torch.testing.assert_close(inner_product(left, other), left.T @ other, **close)
    torch.testing.assert_close(inner_product(other, left), other.T @ left, **close)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_dense_layer_and_its_gradients(size: tuple[int, int, int], with_bias: bool) -> None:
    m, k, n = size
    leaves = [normal(1, m, k), normal(n, k, seed=1), normal(n, seed=2)][: 3 if with_bias else 2]
    weights = normal(1, m, n, seed=3)

    def results(layer: object) -> list[torch.Tensor]:
        inputs = [leaf.clone().requires_grad_() for leaf in leaves]
        result = layer(*inputs)  # type: ignore[operator]
        return [result, *torch.autograd.grad((result * weights).sum(), inputs)]

    for found, expected in zip(results(linear), results(torch.nn.functional.linear), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("onednn")
def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight = normal(512, 128), normal(128, 128, seed=1).requires_grad_()
    linear(x, weight).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(128, -1), rtol=1e-5, atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 70), st.integers(0, 20), st.integers(0, 20))
def test_small_and_empty_ones(m: int, k: int, n: int) -> None:
    left, right, other = normal(m, k), normal(k, n), normal(m, n)
    torch.testing.assert_close(product(left, right), left @ right)
    torch.testing.assert_close(inner_product(left, other), left.T @ other)
    assert linear(left, right.T).shape == (m, n)


@given(st.integers(1, 10**7))
def test_sizes_are_rounded_by_less_than_a_sixteenth(size: int) -> None:
    step = products._step(size)
    assert size // step <= 31
    assert -size % step < size / 16
