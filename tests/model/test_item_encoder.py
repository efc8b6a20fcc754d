import pytest
import torch
from torch import nn

from prismrec.model.item_encoder import ItemEmbedding, ItemEncoder
from prismrec.model.layers import unit_norm

FEATURES = ("item_id", "brand", "category", "top_category")


def encoder(category_positions: tuple[int, ...]) -> ItemEncoder:
    """One table per feature: item i -> i + 1, brand -> 10 times that, and so on, in both dimensions."""
    made = ItemEncoder(FEATURES, dict.fromkeys(FEATURES, (5,)), 2, category_positions)
    for place, embedding in enumerate(made.embeddings):
        table: nn.Embedding = embedding.tables[0]
        table.weight.data = 10.0**place * torch.arange(13.0)[:, None].expand(13, 2).clone()
    return made


def test_an_item_is_the_mean_of_its_features() -> None:
    found = encoder((2, 3))(torch.tensor([1, 2, 3, 4]))
    assert found.item.tolist() == pytest.approx([(2 + 30 + 400 + 5000) / 4] * 2)
    assert found.category.tolist() == pytest.approx([(400 + 5000) / 2] * 2)


def test_absent_features_count_as_zero() -> None:
    found = encoder((2, 3))(torch.tensor([1, 0, 3, 0]))
    assert found.item.tolist() == pytest.approx([(2 + 400) / 4] * 2)
    assert found.category.tolist() == pytest.approx([400 / 2] * 2)


def test_values_of_one_feature_count_as_their_mean() -> None:
    """Three tags and two categories; one tag is missing, and an item may have none."""
    names = ("item_id", "category", "category", "tags", "tags", "tags")
    made = ItemEncoder(names, dict.fromkeys(names, (5,)), 2, (1, 2))
    for place, embedding in enumerate(made.embeddings):
        embedding.tables[0].weight.data = 10.0**place * torch.arange(13.0)[:, None].expand(13, 2).clone()
    found = made(torch.tensor([[1, 2, 3, 4, 1, 0], [1, 2, 0, 0, 0, 0]]))
    # ids x are in row x + 1: (20 + 30) / 2 + 10 and (400 + 100) / 2 + 100 beside 2
    expected = [[(2 + 35 + 350) / 3] * 2, [(2 + 30 + 0) / 3] * 2]
    torch.testing.assert_close(found.item, torch.tensor(expected))
    torch.testing.assert_close(found.category, torch.tensor([[35.0] * 2, [30.0] * 2]))


def test_without_categories_an_item_is_its_own() -> None:
    found = encoder(())(torch.tensor([[1, 2, 3, 4]]))
    torch.testing.assert_close(found.category, found.item)


def test_padding_is_zero() -> None:
    assert encoder((2, 3))(torch.zeros(1, 4, dtype=torch.int64)).item.tolist() == [[0, 0]]


def test_select_gathers_with_the_gradient_of_indexing() -> None:
    torch.manual_seed(0)
    index, weight = torch.tensor([[2, 0], [2, 2]]), torch.randn(2, 2, 3)
    plain, gathered = (torch.arange(9.0).view(3, 3).requires_grad_() for _ in range(2))
    (plain[index] * weight).sum().backward()
    selected = ItemEmbedding(gathered, gathered.detach()).select(index)
    (selected.item * weight).sum().backward()
    assert selected.category.tolist() == plain[index].tolist()
    assert plain.grad is not None
    assert gathered.grad is not None
    torch.testing.assert_close(gathered.grad, plain.grad)


def test_gradients_are_summed_in_one_order_whatever_the_threads() -> None:
    """Large enough to run in parallel, where the gradient of plain indexing adds in the order of the threads."""
    torch.manual_seed(0)
    index, weight = torch.randint(0, 10, (4000,)), torch.randn(4000, 32)
    gradients = []
    for _ in range(5):
        table = torch.zeros(10, 32, requires_grad=True)
        (ItemEmbedding(table, table).select(index).item * weight).sum().backward()
        gradients.append(table.grad)
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


def test_an_item_starts_as_its_features() -> None:
    torch.manual_seed(0)
    made = ItemEncoder(FEATURES, dict.fromkeys(FEATURES, (1009, 1013)), 64, (2, 3))
    alike = unit_norm(made(torch.tensor([[i, 7, 8, 9] for i in range(1, 101)])).item)
    other = unit_norm(made(torch.tensor([[i, 10 + i, 200 + i, 300 + i] for i in range(1, 101)])).item)
    assert (alike @ alike.T).min() > 0.9
    assert (other @ other.T).mean() < 0.1
    alone = unit_norm(ItemEncoder(("item_id",), {"item_id": (1009, 1013)}, 64, ())(torch.arange(1, 101)[:, None]).item)
    assert (alone @ alone.T).mean() < 0.1
