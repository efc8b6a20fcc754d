from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from prismrec.config import Config
from prismrec.data.loader import ExampleLoader
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.data.windows import WindowLoader
from prismrec.loss.negatives import Seen
from prismrec.loss.regularizers import diversity_loss
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.user_encoder import UserContext
from prismrec.train.objective import Examples
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


WINDOWS = ("model.encoder.dropout=0.0", "history.max_length=5")


@pytest.fixture
def windows(store: Store, make_config: MakeConfig) -> Iterator[TrainBatch]:
    return WindowLoader(store, make_config(*WINDOWS).history, 32, seed=0).batches(0)


def test_a_batch_joins_the_queue_before_its_loss_is_taken(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch]
) -> None:
    step, first, second, third = make_step(), next(batches), next(batches), next(batches)
    _, metrics = step(first)
    assert step.negatives.queue.tolist() == [0] * 32 + first.target.tolist()
    assert metrics["negatives"].item() == len(set(first.target.tolist()))
    step(second)
    step(third)
    assert step.negatives.queue.tolist() == second.target.tolist() + third.target.tolist()


def test_empty_slots_and_the_examples_own_items_are_no_negatives(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch]
) -> None:
    batch = next(batches)
    _, metrics = make_step("loss.deduplicate=false")(batch)
    target = torch.from_numpy(batch.target)
    counted = (target[:, None] != target).float().sum() / (32 * len(target.unique()))
    assert metrics["negative_weight"].item() == pytest.approx(counted.item())


def test_a_small_catalogue_is_contrasted_as_a_whole(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch], store: Store
) -> None:
    _, metrics = make_step("loss.full_softmax_items=64", "loss.log_q=1.0")(next(batches))
    assert store.num_items == 64
    assert metrics["negatives"].item() == 64
    assert metrics["negative_weight"].item() == pytest.approx(63 / 64)


def plain_loss(step: TrainStep, batch: TrainBatch) -> Tensor:
    """The loss with every click, target and negative encoded on its own, and all moments kept."""
    inputs = {name: torch.from_numpy(array) for name, array in vars(batch.history).items()}
    clicks, target = inputs.pop("item"), torch.from_numpy(batch.target)
    assert batch.weight is not None
    negatives = step.negatives(target)

    def items(rows: Tensor) -> ItemEmbedding:
        return step.model.items(step.features[rows])

    user = step.model.users(items(clicks), UserContext(mask=clicks != 0, **inputs), step.every_position)
    moment, weight = torch.from_numpy(batch.moment), torch.from_numpy(batch.weight)
    examples = Examples(user, moment, items(target), target, weight)
    positions = clicks.shape[1] if step.every_position else 1
    seen = [
        (index, entry)
        for index in range(len(user.interests))
        for entry, item in enumerate(negatives.ids.tolist())
        if item in clicks[index // positions, index % positions :].tolist()
    ]
    loss: Tensor
    loss, _ = step.objective(examples, negatives, items(negatives.ids), Seen(*torch.tensor(seen).T.contiguous()))
    return loss


SAMPLED = ("loss.in_batch_negatives=16", "loss.uniform_negatives=16", "loss.log_q=0.5")
OVERRIDES = {
    "default": (),
    "hard part": ("loss.hard_queue_size=32",),
    "log-q, user id": ("loss.log_q=0.5", "model.user_id=true"),
    "samples": SAMPLED,
    "whole catalogue": ("loss.full_softmax_items=64", "loss.reading=log_sum_exp"),
    "transformer": ("model.encoder.kind=transformer", *SAMPLED, *WINDOWS),
    "hstu, adaptive": ("model.encoder.kind=hstu", "model.adaptive_interests=true", "loss.usage_weight=1.0", *WINDOWS),
}


@pytest.mark.parametrize("overrides", OVERRIDES.values(), ids=OVERRIDES)
def test_encoding_distinct_items_once_changes_neither_loss_nor_gradient(
    make_step: Callable[..., TrainStep],
    batches: Iterator[TrainBatch],
    windows: Iterator[TrainBatch],
    overrides: tuple[str, ...],
) -> None:
    step = make_step(*overrides)
    batch = next(windows if step.every_position else batches)
    torch.manual_seed(0)
    loss, _ = step(batch)
    loss.backward()
    gradients = {name: p.grad.to_dense() for name, p in step.named_parameters() if p.grad is not None}
    step.zero_grad()
    step.negatives.queue.zero_()
    torch.manual_seed(0)
    plain = plain_loss(step, batch)
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for name, parameter in step.named_parameters():
        assert (parameter.grad is None) == (name not in gradients)
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad.to_dense(), rtol=1e-3, atol=1e-5)


def test_positions_that_no_target_follows_take_no_part(
    make_step: Callable[..., TrainStep], windows: Iterator[TrainBatch]
) -> None:
    """The diversity loss is over moments, padding is none of them, and more targets at one change nothing."""
    step = make_step("model.encoder.kind=transformer", "loss.diversity_weight=1.0", *WINDOWS)
    whole = next(windows)
    kept = slice(0, 5)  # the positions of the first window, so that most have no target
    times = [1, 1, 1, 1, 6]
    moment, target = (np.repeat(part[kept], times) for part in (whole.moment, whole.target))
    batch = replace(whole, moment=moment, target=target, weight=np.ones(10, np.float32))
    inputs = {name: torch.from_numpy(array) for name, array in vars(batch.history).items()}
    clicks = inputs.pop("item")
    user = step.model.users(
        step.model.items(step.features[clicks]), UserContext(mask=clicks != 0, **inputs), every_position=True
    )
    _, metrics = step(batch)
    expected = diversity_loss(user.interests[torch.from_numpy(whole.moment[kept])])
    assert len(user.interests) > 5
    assert metrics["diversity_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


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
    assert state
    assert all(name.startswith(("model.", "objective.")) for name in state)


@pytest.mark.parametrize("kind", ["none", "transformer", "hstu"])
def test_bfloat16_stays_close(
    make_step: Callable[..., TrainStep], batches: Iterator[TrainBatch], windows: Iterator[TrainBatch], kind: str
) -> None:
    overrides = () if kind == "none" else (f"model.encoder.kind={kind}", *WINDOWS)
    batch = next(batches if kind == "none" else windows)
    (exact, _), (rough, _) = make_step(*overrides)(batch), make_step(*overrides)(batch, bfloat16=True)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)
    rough.backward()
