import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from prismrec.model.layers import unit_norm
from prismrec.model.routing import DisentangleLayer, PrototypeRouter

P = math.e / (math.e + 1)  # softmax(1, 0)


def router(temperature: float = 1.0) -> PrototypeRouter:
    layer = PrototypeRouter(2, 2, temperature)
    layer.prototypes.data = torch.tensor([[2.0, 0.0], [0.0, 5.0]])  # their length does not matter
    return layer


def test_soft() -> None:
    assert router()(torch.tensor([[3.0, 0.0], [0.0, 0.1]])).tolist() == [
        pytest.approx([P, 1 - P]),
        pytest.approx([1 - P, P]),
    ]


def test_temperature() -> None:
    expected = math.exp(4) / (math.exp(4) + 1)
    assert router(0.25)(torch.tensor([1.0, 0.0]))[0].item() == pytest.approx(expected)


def test_log() -> None:
    x = torch.tensor([3.0, 0.0])
    assert router()(x, "log").tolist() == pytest.approx([math.log(P), math.log(1 - P)])


def test_hard_has_no_gradient() -> None:
    x = torch.tensor([[3.0, 1.0], [1.0, 3.0]], requires_grad=True)
    hard = router()(x, "hard")
    assert hard.tolist() == [[1, 0], [0, 1]]
    assert not hard.requires_grad


def test_straight_through_has_the_gradient_of_soft() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    gradients = []
    for routing in ("soft", "straight_through"):
        x = torch.tensor([[3.0, 1.0], [1.0, 3.0]], requires_grad=True)
        out = router()(x, routing)
        (out * weight).sum().backward()
        gradients.append(x.grad)
    assert out.tolist() == [pytest.approx([1, 0]), pytest.approx([0, 1])]
    torch.testing.assert_close(*gradients)


@settings(deadline=None)
@given(st.floats(0.01, 100.0), st.integers(0, 2**31))
def test_the_length_of_a_vector_does_not_matter(scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    layer, x = PrototypeRouter(3, 4), torch.randn(2, 4)
    torch.testing.assert_close(layer(x), layer(scale * x), rtol=1e-3, atol=1e-5)


def silent(layer: DisentangleLayer) -> DisentangleLayer:
    """Leave only the pooled items of each head."""
    for parameter in layer.transform.parameters():
        nn.init.zeros_(parameter)
    layer.router.prototypes.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return layer


ITEMS = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.0, 9.0]]])
MASK = torch.tensor([[True, True, False]])
PROB_ITEM = torch.tensor([[0.75, 0.25, 0.0]])


def test_heads_pool_unit_items_by_joint_probability() -> None:
    heads, joint = silent(DisentangleLayer(2, 2, temperature=1.0))(ITEMS, MASK, PROB_ITEM)
    expected = [[0.75 * P, 0.25 * (1 - P)], [0.75 * (1 - P), 0.25 * P]]
    assert joint[0, :, :2].tolist() == [pytest.approx(row) for row in expected]
    assert joint[0, :, 2].tolist() == [0, 0]
    assert heads[0].tolist() == [pytest.approx(row) for row in expected]  # the items are the axes


def test_equalised_heads_are_as_long_however_small_their_share() -> None:
    heads, _ = silent(DisentangleLayer(2, 2, equalize=True, routing="hard"))(ITEMS, MASK, PROB_ITEM)
    assert heads[0].tolist() == [pytest.approx([1, 0]), pytest.approx([0, 1])]


def test_hard_routing_gives_each_item_to_one_head() -> None:
    _, joint = silent(DisentangleLayer(2, 2, routing="hard"))(ITEMS, MASK, PROB_ITEM)
    assert joint[0].tolist() == [[0.75, 0, 0], [0, 0.25, 0]]


@pytest.mark.parametrize(("prior", "per_path"), [(True, False), (False, True), (False, False), (True, True)])
def test_what_tells_empty_heads_apart(prior: bool, per_path: bool) -> None:
    torch.manual_seed(0)
    layer = DisentangleLayer(3, 4, prior=prior, per_path=per_path)
    for module in layer.transform:
        if not isinstance(module, nn.Tanh):
            nn.init.normal_(module.bias)
    heads, _ = layer(torch.zeros(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool), torch.zeros(1, 2))
    differ = not torch.allclose(heads[0, 0], heads[0, 1])
    assert differ == (prior or per_path)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_joint_probabilities_sum_to_those_of_items(seed: int, prior: bool, equalize: bool) -> None:
    torch.manual_seed(seed)
    layer = DisentangleLayer(3, 4, prior=prior, equalize=equalize)
    mask = torch.rand(2, 5) < 0.7
    prob_item = torch.rand(2, 5)
    _, joint = layer(torch.randn(2, 5, 4), mask, prob_item)
    torch.testing.assert_close(joint.sum(1), torch.where(mask, prob_item, 0.0))


def test_the_order_of_items_does_not_matter() -> None:
    torch.manual_seed(0)
    layer = DisentangleLayer(3, 4)
    items, prob_item, mask = torch.randn(2, 5, 4), torch.rand(2, 5), torch.ones(2, 5, dtype=torch.bool)
    order: Tensor = torch.randperm(5)
    plain, permuted = layer(items, mask, prob_item)[0], layer(items[:, order], mask, prob_item[:, order])[0]
    torch.testing.assert_close(plain, permuted)
    assert not torch.allclose(unit_norm(plain[0]), unit_norm(plain[1]))
