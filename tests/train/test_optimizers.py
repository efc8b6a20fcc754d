import copy
import math

import pytest
import torch
from torch import Tensor, nn

from prismrec.config import TrainConfig
from prismrec.model.embeddings import HashedEmbedding
from prismrec.train.optimizers import Optimizers, RowwiseAdagrad, learning_rate_factor


def sparse(rows: list[int], values: list[list[float]], size: int = 3) -> Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), (size, 2), check_invariants=True)


def test_rowwise_adagrad() -> None:
    table = nn.Parameter(torch.zeros(3, 2))
    optimizer = RowwiseAdagrad([table], lr=0.1)
    table.grad = sparse([1], [[3.0, 4.0]])
    optimizer.step()  # mean square 12.5
    first = [-0.1 * 3 / math.sqrt(12.5), -0.1 * 4 / math.sqrt(12.5)]
    assert table.tolist() == [[0, 0], pytest.approx(first), [0, 0]]
    table.grad = sparse([1, 2], [[3.0, 4.0], [1.0, 1.0]])
    optimizer.step()  # 25 by now, and 1
    second = [first[0] - 0.1 * 3 / 5, first[1] - 0.1 * 4 / 5]
    assert table.tolist() == [[0, 0], pytest.approx(second), pytest.approx([-0.1, -0.1])]


def test_rows_that_come_twice_are_added_first() -> None:
    table = nn.Parameter(torch.zeros(3, 2))
    table.grad = sparse([2, 2], [[1.0, 0.0], [1.0, 0.0]])
    RowwiseAdagrad([table], lr=1.0).step()
    assert table[2].tolist() == pytest.approx([-2 / math.sqrt(2), 0])


@pytest.mark.parametrize(
    ("decay", "factors"),
    [
        ("none", {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 14: 1.0}),
        ("linear", {0: 0.25, 3: 1.0, 4: 1.0, 9: 0.5, 14: 0.0, 20: 0.0}),
        ("cosine", {0: 0.25, 3: 1.0, 4: 1.0, 9: 0.5, 14: 0.0, 20: 0.0}),
    ],
)
def test_schedule(decay: str, factors: dict[int, float]) -> None:
    config = TrainConfig.model_validate({"warmup_steps": 4, "decay": decay})
    assert {step: learning_rate_factor(step, 14, config) for step in factors} == pytest.approx(factors, abs=1e-12)


def test_schedule_without_warm_up_and_shorter_than_it() -> None:
    assert learning_rate_factor(0, 10, TrainConfig(warmup_steps=0)) == 1.0
    assert learning_rate_factor(2, 3, TrainConfig(warmup_steps=10)) == pytest.approx(0.3)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = HashedEmbedding((5,), 2)
        self.dense = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.dense.weight)


def optimizers(model: Model, **settings: object) -> Optimizers:
    config = TrainConfig.model_validate({"warmup_steps": 0, "decay": "none", "learning_rate": 0.5, **settings})
    return Optimizers([model], config, total_steps=10)


@pytest.mark.parametrize(("clip_norm", "scale"), [(1.0, 0.2), (10.0, 1.0), (0.0, 1.0)])
def test_clipping_scales_dense_gradients_only_and_tells_the_norm_of_all(clip_norm: float, scale: float) -> None:
    model = Model()
    model.dense.weight.grad = torch.tensor([[3.0, 4.0]])
    table = model.table.tables[0].weight
    table.grad = sparse([1, 1], [[6.0, 0.0], [6.0, 0.0]], size=13)
    norm = optimizers(model, clip_norm=clip_norm).clip()
    assert norm.item() == pytest.approx(13.0)
    assert model.dense.weight.grad.tolist() == [pytest.approx([3 * scale, 4 * scale])]
    assert table.grad.to_dense()[1].tolist() == [12, 0]


@pytest.mark.parametrize("where", ["dense", "table"])
def test_the_norm_tells_of_a_gradient_that_is_not_finite(where: str) -> None:
    model = Model()
    model.dense.weight.grad = torch.tensor([[math.inf if where == "dense" else 1.0, 0.0]])
    model.table.tables[0].weight.grad = sparse([1], [[math.nan if where == "table" else 1.0, 0.0]], size=13)
    assert not optimizers(model).clip().isfinite()


def test_step_updates_both_kinds_and_clears_gradients() -> None:
    model = Model()
    table = model.table.tables[0].weight
    before = table.detach().clone()
    both = optimizers(model, table_learning_rate=0.25)
    model.dense.weight.grad = torch.tensor([[2.0, -3.0]])
    table.grad = sparse([4], [[1.0, 1.0]], size=13)
    both.clip()
    both.step()
    assert model.dense.weight.tolist() == [pytest.approx([-0.5, 0.5])]  # Adam's first step is the learning rate
    assert (before - table)[4].tolist() == pytest.approx([0.25, 0.25])
    assert (before - table).abs().sum().item() == pytest.approx(0.5)
    assert model.dense.weight.grad is None
    assert table.grad is None


def test_weight_decay_shrinks_dense_weights_and_is_off_by_default() -> None:
    for settings, expected in (({}, 1.0), ({"weight_decay": 0.1}, 1 - 0.5 * 0.1)):
        model = Model()
        nn.init.ones_(model.dense.weight)
        model.dense.weight.grad = torch.zeros(1, 2)
        optimizers(model, **settings).step()
        assert model.dense.weight.tolist() == [pytest.approx([expected, expected])]


@pytest.mark.parametrize("table_optimizer", ["rowwise_adagrad", "sparse_adam"])
def test_state_survives(table_optimizer: str) -> None:
    def steps(model: Model, both: Optimizers, count: int) -> None:
        for _ in range(count):
            (model.dense(model.table(torch.tensor([1, 2, 7])) + 1).square().sum()).backward()
            both.clip()
            both.step()

    torch.manual_seed(0)
    whole = Model()
    torch.nn.init.ones_(whole.dense.weight)
    twin = Model()
    both = optimizers(whole, table_optimizer=table_optimizer, warmup_steps=5)
    steps(whole, both, 2)
    twin.load_state_dict(whole.state_dict())
    again = optimizers(twin, table_optimizer=table_optimizer, warmup_steps=5)
    again.load_state_dict(copy.deepcopy(both.state_dict()))
    assert again.learning_rate == both.learning_rate == pytest.approx(0.5 * 3 / 5)
    steps(whole, both, 2)
    steps(twin, again, 2)
    for mine, theirs in zip(whole.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)
