from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from prismrec.config import Config
from prismrec.data.loader import ExampleLoader, TrainBatch
from prismrec.data.store import Store
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.user_encoder import UserContext
from prismrec.train.settings import resolve_config
from prismrec.train.step import TrainStep

MakeConfig = Callable[..., Config]


@pytest.fixture
def make_step(store: Store, make_config: MakeConfig, tmp_path: object) -> Callable[..., TrainStep]:
    def build(*overrides: str) -> TrainStep:
        config = resolve_config(store, store.path / "run", make_config(*overrides), resume=False)
        torch.manual_seed(0)
        model = MultiInterestModel(config.model, store.schema, config.history.max_length)
        return TrainStep(config, store, model)

    return build


@pytest.fixture
def batches(store: Store, make_config: MakeConfig) -> Iterator[TrainBatch]:
    return ExampleLoader(store, make_config().history, 32, seed=0).batches(0)


def test_a_batch_joins_the_queue_before_its_loss_is_taken(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch]
) -> None:
    step, first, second, third = make_step(), next(batches), next(batches), next(batches)
    _, metrics = step(first)
    assert step.queue.tolist() == [0] * 32 + first.target.tolist()
    assert metrics["queue_filled"].item() == 0.5
    step(second)
    step(third)
    assert step.queue.tolist() == second.target.tolist() + third.target.tolist()


def test_empty_slots_and_the_examples_own_items_are_no_negatives(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch]
) -> None:
    batch = next(batches)
    _, metrics = make_step("loss.deduplicate=false")(batch)
    target = torch.from_numpy(batch.target)
    counted = (target[:, None] != target).float().sum() / (32 * 64)
    assert metrics["negative_weight"].item() == pytest.approx(counted.item())


def plain_loss(step: TrainStep, batch: TrainBatch) -> Tensor:
    """The loss with every click, target and queue entry encoded on its own."""
    inputs = {name: torch.from_numpy(array) for name, array in vars(batch.history).items()}
    clicks, target = inputs.pop("item"), torch.from_numpy(batch.target)

    def items(rows: Tensor) -> ItemEmbedding:
        return step.model.items(step.features[rows])

    user = step.model.users(items(clicks), UserContext(mask=clicks != 0, **inputs))
    assert batch.weight is not None
    loss: Tensor
    loss, _ = step.objective(
        user,
        torch.from_numpy(batch.moment),
        items(target),
        items(step.queue),
        target,
        step.queue,
        step.share[step.queue],
        torch.from_numpy(batch.weight),
    )
    return loss


@pytest.mark.parametrize("overrides", [(), ("loss.hard_queue_size=32",), ("loss.log_q=0.5", "model.user_id=true")])
def test_encoding_distinct_items_once_changes_neither_loss_nor_gradient(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch], overrides: tuple[str, ...]
) -> None:
    step, batch = make_step(*overrides), next(batches)
    loss, _ = step(batch)
    loss.backward()
    gradients = {name: p.grad.to_dense() for name, p in step.named_parameters() if p.grad is not None}
    step.zero_grad()
    plain = plain_loss(step, batch)
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for name, parameter in step.named_parameters():
        assert (parameter.grad is None) == (name not in gradients)
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad.to_dense(), rtol=1e-3, atol=1e-5)


def test_weights_of_events_weigh_their_examples(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch], store: Store
) -> None:
    batch = next(batches)
    assert batch.weight is not None
    assert set(batch.weight.tolist()) == {0.5, 1.0, 2.0}
    _, metrics = make_step()(batch)
    assert metrics["query_weight"].item() == pytest.approx(batch.weight.mean())


def test_queue_and_features_are_no_weights(make_step: Callable[..., TrainStep]) -> None:
    state = make_step().state_dict()
    assert all(name.startswith(("model.", "objective.")) for name in state)


def test_bfloat16_stays_close(make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch]) -> None:
    batch = next(batches)
    (exact, _), (rough, _) = make_step()(batch), make_step()(batch, bfloat16=True)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)
    rough.backward()
