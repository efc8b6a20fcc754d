"""Causal encoders against loops over positions, heads and events, and what a position may know."""

import pytest
import torch
from torch import Tensor, nn

from prismrec.config import EncoderConfig
from prismrec.model.sequence import TIME_BUCKETS, HSTUBlock, Relation, SequenceEncoder, TransformerBlock, relate

DIM, HEADS, LENGTH, LENGTHS = 8, 2, 6, (6, 4, 1)
both_kinds = pytest.mark.parametrize("kind", ["transformer", "hstu"])
silu = nn.functional.silu


def encoder(kind: str, num_layers: int = 2, max_length: int = LENGTH) -> SequenceEncoder:
    """In float64, with biases as after training."""
    torch.manual_seed(0)
    made = SequenceEncoder(DIM, EncoderConfig(kind=kind, num_layers=num_layers, num_heads=HEADS), max_length).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval()


def histories(lengths: tuple[int, ...] = LENGTHS, length: int = LENGTH) -> tuple[Tensor, Relation]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    gaps = torch.randint(0, 3000, (len(lengths), LENGTH), generator=generator).cumsum(1)[:, :length]
    time = torch.where(mask, 1_000_000 - gaps, 0)
    events = torch.randn(len(lengths), LENGTH, DIM, generator=generator, dtype=torch.float64)[:, :length]
    return events, relate(mask, time, torch.cat([torch.full((len(lengths), 1), 1_000_050), time[:, :-1]], 1))


def test_relations_by_hand() -> None:
    relation = relate(torch.tensor([[True, True, False]]), torch.tensor([[100, 93, 0]]), torch.tensor([[101, 100, 93]]))
    assert relation.visible.tolist() == [[[[True, True, False], [False, True, False], [False, False, False]]]]
    assert relation.distance.tolist() == [[0, 1, 2], [0, 0, 1], [0, 0, 0]]
    # seconds 1, 8 and 101; 0, 7 and 100; 0 (the event is newer), 0 and 93
    assert relation.elapsed.tolist() == [[[1, 3, 6], [0, 3, 6], [0, 0, 6]]]


@pytest.mark.parametrize("power", range(1, 40))
def test_buckets_begin_at_powers_of_two(power: int) -> None:
    now = torch.tensor([[2**power - 2, 2**power - 1]])
    elapsed = relate(torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.int64), now).elapsed
    assert elapsed[0, :, 0].tolist() == [min(power - 1, TIME_BUCKETS - 1), min(power, TIME_BUCKETS - 1)]


def visible_bias(made: SequenceEncoder, relation: Relation, user: int, position: int, head: int) -> dict[int, Tensor]:
    """By event that the position sees: what is added for distance and time."""
    return {
        event: made.bias.distance[event - position, head]
        + made.bias.elapsed[relation.elapsed[user, position, event], head]
        for event in range(position, LENGTHS[user])
    }


def transformer_by_loops(made: SequenceEncoder, x: Tensor, relation: Relation) -> Tensor:
    block, width = made.blocks[0], DIM // HEADS
    assert isinstance(block, TransformerBlock)
    states = torch.zeros_like(x)
    for user, position in ((user, position) for user in range(len(x)) for position in range(LENGTH)):
        attended = torch.zeros(DIM, dtype=x.dtype)
        for head in range(HEADS):
            rows = slice(head * width, (head + 1) * width)
            weights, total = {}, 0.0
            for event, bias in visible_bias(made, relation, user, position, head).items():
                query = block.query_key_value(block.attention_norm(x[user, position]))[:DIM][rows]
                key = block.query_key_value(block.attention_norm(x[user, event]))[DIM : 2 * DIM][rows]
                weights[event] = torch.exp(query @ key / width**0.5 + bias)
                total = total + weights[event]
            for event, weight in weights.items():
                value = block.query_key_value(block.attention_norm(x[user, event]))[2 * DIM :][rows]
                attended[rows] += weight / total * value
        state = x[user, position] + block.attended(attended)
        gate, inner = block.gate_and_value(block.feed_forward_norm(state)).chunk(2)
        states[user, position] = state + block.gated(gate * torch.sigmoid(gate) * inner)
    return states


def hstu_by_loops(made: SequenceEncoder, x: Tensor, relation: Relation) -> Tensor:
    block, width = made.blocks[0], DIM // HEADS
    assert isinstance(block, HSTUBlock)
    states = torch.zeros_like(x)

    def parts(user: int, event: int) -> tuple[Tensor, ...]:
        return silu(block.projections(block.input_norm(x[user, event]))).split(DIM)  # u, q, k, v

    for user, position in ((user, position) for user in range(len(x)) for position in range(LENGTH)):
        attended = torch.zeros(DIM, dtype=x.dtype)
        for head in range(HEADS):
            rows = slice(head * width, (head + 1) * width)
            for event, bias in visible_bias(made, relation, user, position, head).items():
                query, key, value = parts(user, position)[1][rows], *(part[rows] for part in parts(user, event)[2:])
                attended[rows] += silu(query @ key + bias) * value
        gated = block.attended_norm(attended) * parts(user, position)[0]
        states[user, position] = x[user, position] + block.output(gated)
    return states


@pytest.mark.parametrize(("kind", "by_loops"), [("transformer", transformer_by_loops), ("hstu", hstu_by_loops)])
def test_one_block_equals_loops(kind: str, by_loops) -> None:
    made, (events, relation) = encoder(kind, num_layers=1), histories()
    expected = by_loops(made, events, relation)
    expected = made.norm.weight * expected / (expected.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    found = made(events, relation)
    for user, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[user, :length], expected[user, :length])


@both_kinds
@pytest.mark.parametrize("newest", range(1, LENGTH))
def test_what_is_newer_changes_nothing_at_all(kind: str, newest: int) -> None:
    made, (events, relation) = encoder(kind), histories()
    other = events.clone()
    other[:, :newest] *= -1.0
    before, after = made(events, relation), made(other, relation)
    for user, length in enumerate(LENGTHS):
        assert torch.equal(before[user, newest:length], after[user, newest:length])
    assert not torch.isclose(before[:, :newest], after[:, :newest]).all(-1).any()


@both_kinds
def test_what_is_older_counts(kind: str) -> None:
    made, (events, relation) = encoder(kind), histories((6,))
    for event in range(LENGTH):
        other = events.clone()
        other[:, event] *= -1.0
        changed = ~torch.isclose(made(events, relation), made(other, relation)).all(-1)
        assert changed[0].tolist() == [position <= event for position in range(LENGTH)]


@both_kinds
def test_what_padding_holds_changes_nothing_at_all(kind: str) -> None:
    made, (events, relation) = encoder(kind), histories()
    other = events.clone()
    for user, length in enumerate(LENGTHS):
        other[user, length:] = 100.0
    before, after = made(events, relation), made(other, relation)
    for user, length in enumerate(LENGTHS):
        assert torch.equal(before[user, :length], after[user, :length])
    assert after.isfinite().all()


@both_kinds
def test_how_much_padding_there_is_changes_nothing(kind: str) -> None:
    short = encoder(kind)(*histories((4, 1, 0), length=4))
    long = encoder(kind)(*histories((4, 1, 0), length=6))
    torch.testing.assert_close(short[0], long[0, :4])
    torch.testing.assert_close(short[1:, 0], long[1:, 0])


@both_kinds
def test_an_empty_history_is_as_exact_as_any_other(kind: str) -> None:
    """Scores survive in single precision, which a sum with a large number would not leave of them."""
    made, (events, relation) = encoder(kind), histories((0, 1))
    exact = made(events, relation)[:, 0]
    torch.testing.assert_close(made.float()(events.float(), relation)[:, 0].double(), exact, rtol=1e-5, atol=1e-5)


@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_histories_without_events_are_finite(kind: str, dtype: torch.dtype) -> None:
    events, relation = histories((0, 0))
    assert not relation.visible.any()
    made = encoder(kind).to(dtype)
    states = made(events.to(dtype).requires_grad_(), relation)
    states.sum().backward()
    assert states.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())
