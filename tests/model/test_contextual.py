"""The contextual user tower: one pass over all positions equals the loop that encodes each prefix on its own."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from prismrec.model.contextual import strongest
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.user_encoder import UserContext, UserEmbedding

MakeModel = Callable[..., MultiInterestModel]
MakeInputs = Callable[..., dict[str, Tensor]]
LENGTHS = [6, 3, 1, 0]

SETTINGS: dict[str, dict[str, Any]] = {
    f"{kind}, {name}": {"encoder": {"kind": kind}, **more}
    for kind in ("transformer", "hstu")
    for name, more in {
        "two heads a vector": {},
        "a vector per head, adaptive": {"num_interests": 4, "adaptive_interests": True},
        "adaptive, hard, user id": {"adaptive_interests": True, "routing": "hard", "user_id": True},
    }.items()
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def encode(model: MultiInterestModel, inputs: dict[str, Tensor], every_position: bool = False) -> UserEmbedding:
    context = UserContext(inputs["item"][..., 0] != 0, *(inputs[name] for name in UserContext._fields[1:]))
    return model.users(model.items(inputs["item"]), context, every_position)


def prefix(inputs: dict[str, Tensor], user: int, position: int) -> dict[str, Tensor]:
    """One user's events from `position` on, newest first, as of the time of the event that came next."""
    now = inputs["now"][user] if position == 0 else inputs["time"][user, position - 1]
    found = {"now": now[None], "user": inputs["user"][user : user + 1]}
    for name in inputs.keys() - found.keys():
        rest = inputs[name][user, position:]
        found[name] = torch.cat([rest, torch.zeros_like(inputs[name][user, :position])])[None]
    return found


def sorted_by_time(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Newest first, as histories are."""
    return inputs | {"time": inputs["time"].sort(dim=1, descending=True).values}


@every_setting
def test_one_pass_equals_each_prefix_on_its_own(
    taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]
) -> None:
    model, inputs = taught(**settings), sorted_by_time(make_inputs(LENGTHS))
    at_once = encode(model, inputs, every_position=True).interests.unflatten(0, (len(LENGTHS), 6))
    for user, length in enumerate(LENGTHS):
        for position in range(length):
            alone = encode(model, prefix(inputs, user, position)).interests
            torch.testing.assert_close(at_once[user, position], alone[0], rtol=0, atol=1e-5)
    newest = at_once[0, 0], at_once[0, 3]
    assert not torch.allclose(*newest, atol=1e-2)  # positions differ, or equality would mean little


@every_setting
def test_the_newest_position_is_the_whole_history(
    taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]
) -> None:
    model, inputs = taught(**settings), sorted_by_time(make_inputs(LENGTHS))
    whole, every = encode(model, inputs), encode(model, inputs, every_position=True)
    torch.testing.assert_close(whole.interests, every.interests[::6], rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.heads, every.heads[::6], rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.weights, every.weights, rtol=0, atol=1e-6)


@every_setting
def test_shapes_weights_and_norms(taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]) -> None:
    model, inputs = taught(**settings), make_inputs(LENGTHS)
    vectors = settings.get("num_interests", 2)
    for every_position, moments in ((False, 4), (True, 24)):
        user = encode(model, inputs, every_position)
        assert user.interests.shape == (moments, vectors, 8)
        assert user.heads.shape == user.interests.shape
        assert user.weights.shape == (4, 4, 6)
        norms, there = user.interests.norm(dim=-1), user.interests.any(-1)
        torch.testing.assert_close(norms, there.float())
        assert there.any(1).all()
        assert there.all() or settings.get("adaptive_interests")
    assert (user.weights >= 0).all()
    torch.testing.assert_close(user.weights.sum((1, 2)), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    for row, length in enumerate(LENGTHS):
        assert not user.weights[row, :, length:].any()


@every_setting
def test_histories_without_events_are_finite(
    taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]
) -> None:
    model = taught(**settings)
    user = encode(model, make_inputs([0, 0]), every_position=True)
    assert all(part.isfinite().all() for part in user)
    user.interests.sum().backward()
    gradients = [parameter.grad.to_dense() for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_setting
@pytest.mark.parametrize("newest", [1, 2, 5])
def test_what_is_newer_changes_nothing_at_all(
    taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any], newest: int
) -> None:
    """Not what comes next either, but for its time, which is when the recommendation is asked for."""
    model, inputs = taught(**settings), sorted_by_time(make_inputs([6, 6]))
    other = {name: part.clone() for name, part in inputs.items()}
    for name in ("item", "dwell", "context"):
        other[name][:, :newest] += 3
    other["time"][:, : newest - 1] += 12_345
    other["now"] += 98_765
    before, after = (encode(model, x, every_position=True).interests.unflatten(0, (2, 6)) for x in (inputs, other))
    assert torch.equal(before[:, newest:], after[:, newest:])
    assert not torch.allclose(before[:, :newest], after[:, :newest], atol=1e-4)


@pytest.mark.parametrize("kind", ["transformer", "hstu"])
def test_short_histories_get_the_vectors_that_most_of_them_is_routed_to(
    taught: MakeModel, make_inputs: MakeInputs, kind: str
) -> None:
    settings = {"encoder": {"kind": kind}, "num_interests": 4}
    inputs = make_inputs([1, 2, 3, 4, 6, 0])
    user = encode(taught(adaptive_interests=True, **settings), inputs)
    everything = encode(taught(**settings), inputs)
    there = user.interests.any(-1)
    assert there.sum(1).tolist() == [1, 2, 2, 3, 3, 1]
    shares = user.weights.sum(-1)  # [B, H], and a head is a vector
    for row in range(5):
        assert shares[row][there[row]].min() >= shares[row][~there[row]].max()
    assert torch.equal(user.interests, everything.interests * there[..., None])


@pytest.mark.parametrize(
    ("share", "events", "expected"),
    [
        ([0.1, 0.5, 0.4], 0, [False, True, False]),
        ([0.1, 0.5, 0.4], 1, [False, True, False]),
        ([0.1, 0.5, 0.4], 2, [False, True, True]),
        ([0.1, 0.5, 0.4], 3, [False, True, True]),
        ([0.1, 0.5, 0.4], 4, [True, True, True]),
        ([0.1, 0.5, 0.4], 1000, [True, True, True]),
        ([0.25, 0.25, 0.25, 0.25], 3, [True, True, False, False]),  # the first of equals
        ([0.0, 0.6, 0.0, 0.4, 0.0], 7, [True, True, False, True, False]),
        ([0.0, 0.6, 0.0, 0.4, 0.0], 8, [True, True, True, True, False]),
    ],
)
def test_strongest(share: list[float], events: int, expected: list[bool]) -> None:
    assert strongest(torch.tensor([share]), torch.tensor([events])).tolist() == [expected]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**20), st.integers(0, 2**31))
def test_the_strongest_are_as_many_as_the_history_is_long(vectors: int, events: int, seed: int) -> None:
    share = torch.randint(4, (3, vectors), generator=torch.Generator().manual_seed(seed)).float()  # with ties
    kept = strongest(share, torch.full((3,), events))
    assert kept.sum(-1).tolist() == [min(vectors, max(events, 1).bit_length())] * 3
    for row, chosen in zip(share, kept, strict=True):
        if not chosen.all():
            assert row[chosen].min() >= row[~chosen].max()
