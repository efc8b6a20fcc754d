"""The whole model: what holds for every setting, with real shapes of input."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from prismrec.config import HashingConfig
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes

Inputs = dict[str, Tensor]
MakeModel = Callable[..., MultiInterestModel]
MakeInputs = Callable[..., Inputs]

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "one vector": {"num_interests": 1},
    "a vector per head": {"num_interests": 4},
    "position bias": {"position_bias": True},
    "query attention": {"attention": "query"},
    "hard routing": {"routing": "hard"},
    "straight through": {"routing": "straight_through"},
    "equalised heads": {"equalize_heads": True},
    "no prior": {"head_prior": False},
    "dense per path": {"per_path_dense": True},
    "layer norm": {"layer_norm": "standard"},
    "unit layer norm": {"layer_norm": "unit"},
    "user id": {"user_id": True},
    "transformer": {"encoder": {"kind": "transformer"}},
    "transformer, a vector per head, user id": {
        "encoder": {"kind": "transformer", "num_layers": 1},
        "num_interests": 4,
        "user_id": True,
    },
    "hstu": {"encoder": {"kind": "hstu"}},
    "hstu, adaptive, hard": {"encoder": {"kind": "hstu"}, "adaptive_interests": True, "routing": "hard"},
}
KINDS = ("none", "transformer", "hstu")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@every_setting
def test_shapes_and_norms(taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]) -> None:
    served = taught(**settings)(**make_inputs([6, 3, 1]))
    vectors = settings.get("num_interests", 2)
    assert served.interests.shape == (3, vectors, 8)
    assert served.interest_weights.shape == (3, vectors, 6)
    norms = torch.ones(3, vectors)
    if settings.get("adaptive_interests"):
        norms[2] = served.interests[2].any(-1)  # one event has one vector
        assert norms[2].sum() == 1
    torch.testing.assert_close(served.interests.norm(dim=-1), norms)
    assert served.head_usage.shape == (3, 4)


@every_setting
def test_shares_sum_to_one_where_there_are_clicks(
    taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]
) -> None:
    inputs = make_inputs([6, 3, 0])
    served = taught(**settings)(**inputs)
    shares = served.interest_weights.sum(-1)
    # with hard routing an interest may get no click at all
    assert all(share == pytest.approx(1.0, abs=1e-5) or share == 0 for share in shares[:2].flatten().tolist())
    assert served.head_usage.sum(-1).tolist() == [pytest.approx(1.0), pytest.approx(1.0), 0.0]
    by_heads = served.head_usage.unflatten(1, (served.interest_shares.shape[1], -1)).sum(2)
    torch.testing.assert_close(served.interest_shares, by_heads)
    assert served.interest_weights[2].abs().sum().item() == 0
    assert served.interest_weights[1, :, 3:].abs().max().item() == 0


@every_setting
def test_an_empty_history_gives_finite_vectors(
    taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]
) -> None:
    model = taught(**settings)
    served = model(**make_inputs([0, 4]))
    assert all(part.isfinite().all() for part in served)
    served.interests.sum().backward()
    assert all(p.grad is None or p.grad.to_dense().isfinite().all() for p in model.parameters())


@every_setting
def test_padding_changes_nothing(taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]) -> None:
    short, long = taught(length=4, **settings), taught(length=9, **settings)
    state = short.state_dict()
    for name, tensor in long.state_dict().items():
        tensor.narrow(0, 0, len(state[name])).copy_(state[name])  # the prior and the bias of positions are longer
    inputs = make_inputs([4, 2, 0], length=4)
    padded = {
        name: torch.cat([part, torch.zeros(3, 5, *part.shape[2:], dtype=part.dtype)], 1) if part.dim() > 1 else part
        for name, part in inputs.items()
    }
    plain, more = short(**inputs), long(**padded)
    torch.testing.assert_close(plain.interests, more.interests, rtol=0, atol=1e-5)
    torch.testing.assert_close(plain.interest_weights, more.interest_weights[..., :4], rtol=0, atol=1e-5)


@every_kind
def test_the_rest_of_a_batch_changes_nothing(taught: MakeModel, make_inputs: MakeInputs, kind: str) -> None:
    model, inputs = taught(encoder={"kind": kind}), make_inputs([6, 3, 0, 5])
    together = model(**inputs).interests
    alone = [model(**{name: part[row : row + 1] for name, part in inputs.items()}).interests for row in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


@every_setting
def test_the_order_of_users_does_not_matter(
    taught: MakeModel, make_inputs: MakeInputs, settings: dict[str, Any]
) -> None:
    model, inputs, order = taught(**settings), make_inputs([6, 3, 0, 5]), torch.tensor([2, 0, 3, 1])
    plain, permuted = model(**inputs), model(**{name: part[order] for name, part in inputs.items()})
    for one, other in zip(plain, permuted, strict=True):
        torch.testing.assert_close(one[order], other, rtol=0, atol=1e-6)


@every_kind
def test_dropout_is_for_training_alone(taught: MakeModel, make_inputs: MakeInputs, kind: str) -> None:
    model, inputs = taught(encoder={"kind": kind, "dropout": 0.5}), make_inputs([6, 3])
    torch.manual_seed(0)
    served = [model(**inputs).interests for _ in range(2)]
    assert torch.equal(*served)
    model.train()
    assert torch.equal(model(**inputs).interests, served[0]) == (kind == "none")


def test_the_order_of_older_clicks_does_not_matter(taught: MakeModel, make_inputs: MakeInputs) -> None:
    """Beyond the recent ones only a click's circumstances count; with a position bias its place does too."""
    inputs = make_inputs([6])
    order = torch.tensor([0, 1, 5, 3, 2, 4])
    permuted = {name: part[:, order] if part.dim() > 1 else part for name, part in inputs.items()}
    for settings, same in (({}, True), ({"position_bias": True}, False)):
        model = taught(**settings)
        plain, other = model(**inputs).interests, model(**permuted).interests
        assert torch.allclose(plain, other, atol=1e-5) == same


CIRCUMSTANCES = [
    *itertools.product(KINDS, ["item", "time", "dwell", "context", "now"]),
    ("none", "recent"),  # a sequence model knows by itself what is recent
]


@pytest.mark.parametrize(("kind", "changed"), CIRCUMSTANCES)
def test_every_circumstance_counts(taught: MakeModel, make_inputs: MakeInputs, kind: str, changed: str) -> None:
    inputs = make_inputs([6])
    part = inputs[changed]
    other = inputs | {changed: ~part if part.dtype == torch.bool else part + 7200}
    model = taught(encoder={"kind": kind})
    assert not torch.allclose(model(**inputs).interests, model(**other).interests, atol=1e-4)


@every_kind
def test_the_user_id_counts_only_if_asked(taught: MakeModel, make_inputs: MakeInputs, kind: str) -> None:
    inputs = make_inputs([6])
    other = inputs | {"user": inputs["user"] + 1}
    for user_id in (False, True):
        model = taught(user_id=user_id, encoder={"kind": kind})
        assert torch.equal(model(**inputs).interests, model(**other).interests) != user_id


def test_top_vectors_are_those_that_match_some_click(taught: MakeModel, make_inputs: MakeInputs) -> None:
    inputs = make_inputs([6, 2])
    everything = taught(num_interests=4)(**inputs)
    model = taught(num_interests=4, top_vectors=2)
    served = model(**inputs)
    clicks = model.encode_items(inputs["item"])
    for user, length in enumerate((6, 2)):
        scores = (everything.interests[user] @ clicks[user, :length].T).amax(1)
        best = scores.argsort(descending=True)[:2]
        torch.testing.assert_close(served.interests[user], everything.interests[user, best])
        torch.testing.assert_close(served.interest_weights[user], everything.interest_weights[user, best])
        torch.testing.assert_close(served.interest_shares[user], everything.interest_shares[user, best])
    torch.testing.assert_close(served.head_usage, everything.head_usage)


def test_popularity_is_one_more_dimension_of_the_vectors_that_there_are(
    taught: MakeModel, make_inputs: MakeInputs
) -> None:
    settings = {"encoder": {"kind": "hstu"}, "adaptive_interests": True, "num_interests": 4}
    inputs = make_inputs([6, 2, 1])
    plain, more = taught(**settings)(**inputs).interests, taught(popularity=0.3, **settings)(**inputs).interests
    assert torch.equal(more[..., :-1], plain)
    assert more[..., -1].sum(1).tolist() == [3, 2, 1]  # of them, floor(log2(events)) + 1
    assert torch.equal(more[..., -1] == 1, plain.any(-1))


def test_items_have_unit_vectors(make_model: MakeModel) -> None:
    vectors = make_model().encode_items(torch.tensor([[3, 1], [4, 1], [0, 0]]))
    assert vectors.norm(dim=-1).tolist() == [pytest.approx(1), pytest.approx(1), 0.0]


def test_items_of_free_norm_have_their_embeddings_as_vectors(make_model: MakeModel) -> None:
    model, ids = make_model(item_norm="free"), torch.tensor([[3, 1], [4, 1], [0, 0]])
    torch.testing.assert_close(model.encode_items(ids), model.items(ids).item)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (HashingConfig(num_hashes=2), (53, 59)),
        (HashingConfig(num_hashes=2, rows_per_id=0.5), (29, 31)),
        (HashingConfig(num_hashes=2, max_rows=20), (23, 29)),
        (HashingConfig(num_hashes=1, rows_per_id=0.01), (11,)),
        (HashingConfig(primes={"item_id": (5, 7, 11)}), (5, 7, 11)),
    ],
)
def test_moduli_are_sized_by_the_number_of_ids(config: HashingConfig, expected: tuple[int, ...]) -> None:
    assert resolve_primes(config, {"item_id": 51}).primes == {"item_id": expected}
