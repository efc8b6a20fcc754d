from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from prismrec.model.embeddings import BucketEmbedding, HashedEmbedding, TimeEmbedding, primes_from


def number_rows(table: nn.Embedding, scale: float = 1.0) -> None:
    """Make every entry of a row the row's number, so that outputs tell which rows were read."""
    table.weight.data = scale * torch.arange(len(table.weight)).float()[:, None].expand_as(table.weight).clone()


def hashed(primes: tuple[int, ...], dim: int, width: int | None = None) -> HashedEmbedding:
    embedding = HashedEmbedding(primes, dim, width)
    for table in embedding.tables:
        number_rows(table)
    if embedding.projection is not None:
        nn.init.eye_(embedding.projection.weight)
    return embedding


def test_each_hash_reads_its_own_row() -> None:
    embedding = hashed((5, 7), dim=4)
    # 12 % 5 + 1 = 3 and 12 % 7 + 1 = 6; 35 is divisible by both
    assert embedding(torch.tensor([[12], [35]])).tolist() == [[[3, 3, 6, 6]], [[1, 1, 1, 1]]]
    assert [len(table.weight) for table in embedding.tables] == [13, 15]


def test_padding_is_zero_and_teaches_nothing() -> None:
    embedding = hashed((5, 7), dim=4)
    out = embedding(torch.tensor([0, 12]))
    assert out[0].tolist() == [0, 0, 0, 0]
    out.sum().backward()
    for table, row in zip(embedding.tables, (3, 6), strict=True):
        gradient = table.weight.grad
        assert gradient is not None
        assert gradient.is_sparse
        assert gradient.to_dense().abs().sum(1).nonzero().flatten().tolist() == [row]


@pytest.mark.parametrize(
    ("primes", "width", "projected"),
    [((5,), None, False), ((5,), 2, True), ((5, 7), None, True), ((5, 7, 11), 4, True)],
)
def test_a_single_table_of_full_width_is_not_projected(
    primes: tuple[int, ...], width: int | None, projected: bool
) -> None:
    embedding = HashedEmbedding(primes, 4, width)
    assert (embedding.projection is not None) == projected
    assert embedding(torch.tensor([1, 2, 3])).shape == (3, 4)


def test_large_ids() -> None:
    assert hashed((5, 7), dim=4)(torch.tensor([2**63 - 1])).tolist() == [[3, 3, 1, 1]]  # 2^63 = 3 mod 5, 1 mod 7


@pytest.mark.parametrize(("value", "row"), [(1, 1), (9, 1), (10, 2), (19, 2), (20, 3), (10**12, 3)])
def test_buckets(value: int, row: int) -> None:
    embedding = BucketEmbedding((10, 20), dim=2)
    number_rows(embedding.table)
    assert embedding(torch.tensor([[value, 0]])).tolist() == [[[row, row], [0, 0]]]


@settings(deadline=None)
@given(st.integers(1, 2**33))
def test_hour_and_day_are_those_of_the_calendar(seconds: int) -> None:
    embedding = TimeEmbedding(dim=4)
    number_rows(embedding.hour)
    number_rows(embedding.day, scale=100)
    embedding.projection.weight.data = torch.ones(4, 2)
    moment = datetime.fromtimestamp(seconds, UTC)
    days_since_thursday = (moment.weekday() - 3) % 7  # the epoch began on one
    assert embedding(torch.tensor(seconds)).tolist() == [moment.hour + 1 + 100 * (days_since_thursday + 1)] * 4


def test_no_time_is_zero() -> None:
    assert TimeEmbedding(dim=8)(torch.tensor([0, 3600]))[0].tolist() == [0.0] * 8


def test_the_boundaries_are_no_weights() -> None:
    assert BucketEmbedding((10, 20), dim=2).state_dict().keys() == {"table.weight"}


@pytest.mark.parametrize(
    ("start", "count", "expected"),
    [(0, 3, (2, 3, 5)), (11, 4, (11, 13, 17, 19)), (24, 2, (29, 31)), (25, 1, (29,)), (1000, 1, (1009,)), (5, 0, ())],
)
def test_primes_from(start: int, count: int, expected: tuple[int, ...]) -> None:
    assert primes_from(start, count) == expected
