"""What a batch is contrasted with, by hand, and the promise of log-q: whatever the sources, the full softmax."""

import itertools
import math
from collections import deque
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from prismrec.config import LossConfig
from prismrec.errors import ConfigError
from prismrec.loss.contrastive import Candidates, Positives, contrastive_loss
from prismrec.loss.negatives import Negatives, NegativeSampler, find_seen, push


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ([], [1, 2, 3]),
        ([10], [2, 3, 10]),
        ([10, 11, 12], [10, 11, 12]),
        ([10, 11, 12, 13, 14], [12, 13, 14]),
    ],
)
def test_push(batch: list[int], expected: list[int]) -> None:
    assert push(torch.tensor([1, 2, 3]), torch.tensor(batch, dtype=torch.int64)).tolist() == expected


def test_push_of_rows() -> None:
    queue = push(torch.tensor([[1, 10], [2, 20]]), torch.tensor([[3, 30]]))
    assert queue.tolist() == [[2, 20], [3, 30]]


HISTORIES = torch.tensor([[7, 5, 7, 9], [5, 3, 0, 0]])  # newest first
NEGATIVE_IDS = torch.tensor([2, 5, 7])


def test_what_whole_histories_have_seen() -> None:
    seen = find_seen(HISTORIES, NEGATIVE_IDS, torch.tensor([0, 1]), every_position=False)
    assert set(zip(seen.moment.tolist(), seen.entry.tolist(), strict=True)) == {(0, 1), (0, 2), (1, 1)}


def test_what_each_position_has_seen() -> None:
    """Position 2 of the first history saw 7 and 9, position 1 also 5; of the second, position 1 saw only 3."""
    moments = torch.tensor([0, 1, 2, 3, 4, 5])  # four positions of the first history, two of the second
    seen = find_seen(HISTORIES, NEGATIVE_IDS, moments, every_position=True)
    pairs = {(0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (4, 1)}
    assert set(zip(seen.moment.tolist(), seen.entry.tolist(), strict=True)) == pairs
    assert seen.moment.tolist() == sorted(seen.moment.tolist())
    later = find_seen(HISTORIES, NEGATIVE_IDS, torch.tensor([1, 4]), every_position=True)  # the only ones with targets
    assert set(zip(later.moment.tolist(), later.entry.tolist(), strict=True)) == {(0, 1), (0, 2), (1, 1)}


@settings(deadline=None)
@given(st.integers(0, 10), st.lists(st.lists(st.integers(1, 99), max_size=12), max_size=6))
def test_the_queue_is_a_fifo(size: int, batches: list[list[int]]) -> None:
    queue, expected = torch.zeros(size, dtype=torch.int64), deque([0] * size, maxlen=size)
    for batch in batches:
        queue = push(queue, torch.tensor(batch, dtype=torch.int64))
        expected.extend(batch)
    assert queue.tolist() == list(expected)


COUNTS = torch.tensor([99.0, 4, 2, 1, 0])  # shares 1/2, 1/4, 1/8, 1/8: padding has none, and no item has none


def mixed(**settings: object) -> LossConfig:
    """No source and no correction but those given."""
    off = {"queue_size": 0, "in_batch_negatives": 0, "uniform_negatives": 0, "log_q": 0.0}
    return LossConfig.model_validate(off | settings)


def sampler(queue: list[int], **settings: object) -> NegativeSampler:
    config = mixed(**{"queue_size": len(queue), "deduplicate": False, **settings})
    made = NegativeSampler(config, COUNTS)
    made.queue = torch.tensor(queue, dtype=torch.int64)
    return made


def assert_negatives(found: Negatives, ids: list[int], weight: list[float], alike: list[float] | None = None) -> None:
    assert found.ids.tolist() == ids
    assert found.weight.tolist() == pytest.approx(weight, rel=1e-5)
    assert (None if found.alike_weight is None else found.alike_weight.tolist()) == (alike and pytest.approx(alike))


def test_shares() -> None:
    assert sampler([0]).share.tolist() == [0, 0.5, 0.25, 0.125, 0.125]


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        ({}, [1, 3]),
        ({"deduplicate": True}, [1, 1]),
        # of four draws, 4/2 are expected to be item 1 and 4/4 item 2
        ({"log_q": 1.0}, [1 / 2, 3]),
        ({"log_q": 0.5}, [2**-0.5, 3]),
        # it is there at all with a chance of 1 - 1/16, or 1 - 81/256
        ({"log_q": 1.0, "deduplicate": True}, [16 / 15, 256 / 175]),
        ({"log_q": 0.5, "deduplicate": True}, [(16 / 15) ** 0.5, (256 / 175) ** 0.5]),
    ],
)
def test_the_queue_takes_the_batch_in_and_empty_slots_do_not_count(
    settings: dict[str, object], weight: list[float]
) -> None:
    made = sampler([4, 0, 0, 2, 2], **settings)  # becomes 0, 2, 2, 2, 1
    assert_negatives(made(torch.tensor([2, 1])), [1, 2], weight)
    assert made.queue.tolist() == [0, 2, 2, 2, 1]


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        # all three targets are drawn, and are in the queue as well
        ({}, [2, 4, 1]),
        ({"deduplicate": True}, [1, 1, 1]),
        ({"log_q": 1.0}, [2 / 3.5, 4 / 1.75, 1 / 0.875]),
        # but for an item that counts once they are no further draws: four are in the queue
        ({"log_q": 1.0, "deduplicate": True}, [16 / 15, 256 / 175, 4096 / 1695]),
    ],
)
def test_draws_from_the_batch(settings: dict[str, object], weight: list[float]) -> None:
    made = sampler([4, 3, 3, 3], in_batch_negatives=9, **settings)  # becomes 3, 2, 1, 2
    assert_negatives(made(torch.tensor([2, 1, 2])), [1, 2, 3], weight)


def test_draws_from_the_batch_are_different_places_of_it() -> None:
    torch.manual_seed(0)
    made, targets = sampler([], in_batch_negatives=2), torch.tensor([1, 2, 3])
    drawn = [tuple(made(targets).ids.tolist()) for _ in range(60)]
    assert set(drawn) == {(1, 2), (1, 3), (2, 3)}
    assert {made(torch.tensor([4, 4, 4])).weight.item() for _ in range(5)} == {2.0}


@pytest.mark.parametrize(
    ("settings", "of_one", "of_two"),
    [
        ({}, 1.0, 2.0),
        ({"deduplicate": True}, 1.0, 1.0),
        ({"log_q": 1.0}, 2.0, 4.0),  # two draws from four items: half a one is expected of each
        ({"log_q": 1.0, "deduplicate": True}, 16 / 7, 16 / 7),  # 1 - 9/16
    ],
)
def test_uniform_draws(settings: dict[str, object], of_one: float, of_two: float) -> None:
    torch.manual_seed(0)
    made, found = sampler([], uniform_negatives=2, **settings), set()
    for _ in range(200):
        negatives = made(torch.tensor([1]))
        found.add(tuple(negatives.ids.tolist()))
        expected = of_two if len(negatives.ids) == 1 else of_one
        assert negatives.weight.tolist() == pytest.approx([expected] * len(negatives.ids))
    assert found == set(itertools.combinations(range(1, 5), 2)) | {(item,) for item in range(1, 5)}


@pytest.mark.parametrize(
    ("settings", "weight", "alike"),
    [
        # hard 0, 1, 1, 2; the rest 2, 2, 3
        ({}, [0, 2, 1], [2, 3, 1]),
        ({"deduplicate": True}, [0, 1, 1], [2, 2, 1]),
        # expected of three draws, and of three more (one slot is empty)
        ({"log_q": 1.0}, [0, 2 / 0.75, 1 / 0.375], [2 / 3, 3 / 1.5, 1 / 0.75]),
        (
            {"log_q": 1.0, "deduplicate": True},
            [0, 64 / 37, 512 / 169],
            [2 / (7 / 8 + 1.5), 2 / (37 / 64 + 0.75), 1 / (169 / 512 + 0.375)],
        ),
    ],
)
def test_the_hard_part_counts_only_for_examples_that_route_alike(
    settings: dict[str, object], weight: list[float], alike: list[float]
) -> None:
    made = sampler([4, 0, 1, 1, 2, 2, 2], hard_queue_size=4, **settings)
    assert_negatives(made(torch.tensor([3])), [1, 2, 3], weight, alike)


@pytest.mark.parametrize(
    ("log_q", "weight"),
    [(0.0, [2, 1, 0.5, 0.5]), (0.5, [2**0.5, 1, 0.5**0.5, 0.5**0.5]), (1.0, [1, 1, 1, 1])],
)
def test_a_small_catalogue_is_the_negatives_as_a_whole(log_q: float, weight: list[float]) -> None:
    made = sampler([0, 0, 1], full_softmax_items=4, hard_queue_size=1, log_q=log_q, deduplicate=True)
    assert made.takes_all
    assert_negatives(made(torch.tensor([3])), [1, 2, 3, 4], weight)
    assert made.queue.tolist() == [0, 1, 3]
    assert not sampler([0], full_softmax_items=3).takes_all


THREE = torch.tensor([0.0, 5, 3, 2])
SIZES = {
    "queue": {"queue_size": 4},
    "queue with a hard part": {"queue_size": 4, "hard_queue_size": 2},
    "batch": {"queue_size": 0, "in_batch_negatives": 2},
    "batch as a whole": {"queue_size": 0, "in_batch_negatives": 9},
    "queue and batch": {"queue_size": 4, "in_batch_negatives": 1},
    "queue shorter than the batch": {"queue_size": 1, "in_batch_negatives": 2},
    "queue whose easy part is shorter": {"queue_size": 4, "hard_queue_size": 3, "in_batch_negatives": 2},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("deduplicate", [False, True])
def test_corrected_weights_are_one_on_average_over_all_that_can_be_drawn(
    sizes: dict[str, int], deduplicate: bool
) -> None:
    """Exactly: every sequence of four targets, the last three of which are the batch, with its probability."""
    made = NegativeSampler(mixed(log_q=1.0, deduplicate=deduplicate, **sizes), THREE)
    for seed in range(3):
        average, alike = torch.zeros(4), torch.zeros(4)
        for drawn in itertools.product((1, 2, 3), repeat=4):
            torch.manual_seed(seed)  # the same places of the batch
            made.queue = torch.tensor([0, 0, 0, *drawn[:1]])[4 - made.config.queue_size :]
            negatives = made(torch.tensor(drawn[1:]))
            probability = math.prod(made.share[item].item() for item in drawn)
            average[negatives.ids] += probability * negatives.weight
            if negatives.alike_weight is not None:
                alike[negatives.ids] += probability * negatives.alike_weight
        assert average.tolist() == pytest.approx([0, 1, 1, 1], abs=1e-5)
        assert alike.tolist() == (pytest.approx([0, 1, 1, 1], abs=1e-5) if "hard_queue_size" in sizes else [0] * 4)


class World:
    """A long-tailed catalogue of unit vectors, and a user of two interests near its most popular items."""

    def __init__(self, num_items: int = 200) -> None:
        generator = torch.Generator().manual_seed(0)

        def unit(*shape: int) -> Tensor:
            return torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)

        self.items = unit(num_items + 1, 8)
        self.interests = torch.nn.functional.normalize(self.items[[1, 2]] + 0.5 * unit(2, 8), dim=-1)[None]
        self.counts = torch.cat([torch.zeros(1), (3000 / torch.arange(1, num_items + 1)).round()])
        self.target = 7

    def gradient(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Of the loss of one example, to the user's vectors."""
        interests, zero = self.interests.clone().requires_grad_(), torch.zeros(1, dtype=torch.int64)
        positives = Positives(self.items[[self.target]], zero + self.target, zero, torch.tensor([[0.7, 0.3]]), zero)
        candidates = Candidates(self.items[ids], ids, weights[:, None])
        (gradient,) = torch.autograd.grad(
            contrastive_loss(interests, positives, candidates, temperature=0.5), interests
        )
        return gradient

    def errors(self, config: LossConfig, draws: int) -> list[float]:
        """Relative distance of the average gradient from that of the full softmax, after each draw of negatives."""
        torch.manual_seed(1)
        made = NegativeSampler(config, self.counts)
        ids = torch.arange(1, len(self.items))
        full, total, errors = self.gradient(ids, torch.ones(len(ids))), torch.zeros(1, 2, 8), []
        for count in range(1, draws + 1):
            made.queue = torch.multinomial(made.share, config.queue_size, replacement=True)
            batch = torch.multinomial(made.share, max(config.queue_size // 2, 1), replacement=True)
            batch[0] = self.target
            negatives = made(batch)
            total += self.gradient(negatives.ids, negatives.weight)
            errors.append(((total / count - full).norm() / full.norm()).item())
        return errors


def of_queue(size: int) -> dict[str, int]:
    return {"queue_size": size}


def of_all(size: int) -> dict[str, int]:
    return {"queue_size": size // 2, "in_batch_negatives": size // 4, "uniform_negatives": size // 4}


@pytest.mark.parametrize("mixture", [of_queue, of_all])
@pytest.mark.parametrize("deduplicate", [False, True])
def test_the_gradient_converges_to_that_of_the_full_softmax(
    mixture: Callable[[int], dict[str, int]], deduplicate: bool
) -> None:
    world = World()
    few, many = (world.errors(mixed(log_q=1.0, deduplicate=deduplicate, **mixture(size)), 120) for size in (8, 96))
    assert max(few[:5]) > 0.1 > few[-1]  # averaging over draws helps
    assert many[-1] < 0.025 < few[-1]  # the rest is the bias of a logarithm, which more negatives take away
    uncorrected = world.errors(mixed(log_q=0.0, deduplicate=deduplicate, **mixture(96)), 120)
    assert uncorrected[-1] > max(3 * many[-1], 0.05)


def test_a_catalogue_too_large_for_the_only_source_is_an_error() -> None:
    config = mixed(full_softmax_items=3)
    with pytest.raises(ConfigError, match=r"full_softmax_items=3 is below the catalogue's 4 items"):
        NegativeSampler(config, COUNTS)
