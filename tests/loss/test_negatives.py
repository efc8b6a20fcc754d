from collections import deque

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from prismrec.loss.negatives import appearances, expected_weights, hard_mask, negative_weights, push


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


@settings(deadline=None)
@given(st.integers(1, 10), st.lists(st.lists(st.integers(1, 99), max_size=12), max_size=6))
def test_the_queue_is_a_fifo(size: int, batches: list[list[int]]) -> None:
    queue, expected = torch.zeros(size, dtype=torch.int64), deque([0] * size, maxlen=size)
    for batch in batches:
        queue = push(queue, torch.tensor(batch, dtype=torch.int64))
        expected.extend(batch)
    assert queue.tolist() == list(expected)


def test_empty_slots_and_accidental_hits_do_not_count() -> None:
    weights = negative_weights(torch.tensor([7, 8]), torch.tensor([0, 7, 8, 9, 7]))
    assert weights.tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 1, 1]]


def test_hard_mask() -> None:
    positive = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    negative = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    assert hard_mask(positive, negative).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_appearances() -> None:
    assert appearances(torch.tensor([5, 3, 5, 0, 5, 3])).tolist() == [3, 2, 3, 1, 3, 2]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_inverse_appearances_count_each_id_once(ids: list[int]) -> None:
    assert (1 / appearances(torch.tensor(ids))).sum().item() == pytest.approx(len(set(ids)))


def test_expected_weights_by_hand() -> None:
    share = torch.tensor([0.5, 0.1])
    torch.testing.assert_close(expected_weights(share, 3, deduplicate=False), torch.tensor([1.5, 0.3]))
    torch.testing.assert_close(expected_weights(share, 3, deduplicate=True), torch.tensor([0.875, 0.271]))


@pytest.mark.parametrize("deduplicate", [False, True])
def test_corrected_queues_estimate_the_full_softmax_and_its_gradient(deduplicate: bool) -> None:
    """sum_i exp(z_i), and d/dz of it, over a catalogue of 6 from many queues of 4 drawn by unequal shares."""
    generator = torch.Generator().manual_seed(0)
    logits, share = torch.tensor([1.0, 0.5, -0.5, 0.0, 2.0, -1.0]), torch.tensor([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    queues = torch.multinomial(share, 4 * 200_000, replacement=True, generator=generator).view(-1, 4)
    weights = 1 / expected_weights(share, 4, deduplicate)[queues]
    if deduplicate:
        weights = weights / (queues[:, :, None] == queues[:, None, :]).sum(-1)
    gradient = torch.zeros(6).index_add_(0, queues.flatten(), (weights * logits.exp()[queues]).flatten()) / len(queues)
    torch.testing.assert_close(gradient, logits.exp(), rtol=0.03, atol=0.0)
