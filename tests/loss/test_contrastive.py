"""The loss of training: by hand, against the pair form, against brute force, and at its limits.

Numbers worked out by hand: two orthogonal interests, the positive along the first; its
logits are 1 and 0 at temperature 1, those of the one negative 0 and 1.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from prismrec.loss import contrastive
from prismrec.loss.contrastive import (
    Candidates,
    Positives,
    contrastive_loss,
    multi_vector_loss,
)
from prismrec.loss.negatives import Seen

MakeProblem = Callable  # of tests/loss/conftest.py
INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
POSITIVE = torch.tensor([[1.0, 0.0]])
NEGATIVE = torch.tensor([[0.0, 1.0]])
PROB = torch.tensor([[0.75, 0.25]])
FORMS = [("expectation", True), ("expectation", False), ("log_sum_exp", True), ("maximum", True)]
every_form = pytest.mark.parametrize(("reading", "joint"), FORMS)
seeds = st.integers(0, 2**31)


def unit(shape: tuple[int, ...], seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


def contrast(
    reading: str = "expectation",
    joint: bool = True,
    *,
    ids: Sequence[int] = (1,),
    positive: Tensor = POSITIVE,
    interests: Tensor = INTERESTS,
    negatives: Tensor = NEGATIVE,
    negative_ids: Sequence[int] = (2,),
    weights: Sequence[float] = (1.0,),
    temperature: float = 1.0,
    margin: float = 0.0,
) -> float:
    """The loss of one moment by literal numbers."""
    count = len(ids)
    return contrastive_loss(
        interests,
        Positives(
            positive,
            torch.tensor(ids),
            torch.zeros(count, dtype=torch.int64),
            PROB.expand(count, -1),
            torch.zeros(count, dtype=torch.int64),
        ),
        Candidates(negatives, torch.tensor(negative_ids), torch.tensor(weights)[:, None]),
        temperature=temperature,
        margin=margin,
        joint=joint,
        reading=reading,
    ).item()


# Negatives (0.6, 0.8) of weight 0.5 and (0, 1) of weight 2. Terms of the sum over (vector, item) pairs at
# temperature 1: positive e and 1; first negative e^.6 / 2 and e^.8 / 2; second negative 2 and 2e.
TWO = {"negatives": torch.tensor([[0.6, 0.8], [0.0, 1.0]]), "negative_ids": (2, 3), "weights": (0.5, 2.0)}
BY_HAND = {
    ("expectation", True): 2.5786000 - 0.75,  # log(2.7182818 + 1 + 0.9110594 + 1.1127705 + 2 + 5.4365637)
    ("expectation", False): 0.75 * 0.7279924 + 0.25 * 2.0214594,  # log(e + .911 + 2) - 1, log(1 + 1.113 + 5.437)
    ("log_sum_exp", True): 2.5786000 - 1.3132617,  # log(e + 1)
    ("maximum", True): 2.2265262 - 1,  # log(2.7182818 + max(0.911, 1.113) + max(2, 5.4365637))
}


@every_form
def test_readings_by_hand(reading: str, joint: bool) -> None:
    assert contrast(reading, joint, **TWO) == pytest.approx(BY_HAND[reading, joint], abs=1e-6)


@pytest.mark.parametrize(
    ("reading", "joint", "expected"),
    [
        # the positive's logits fall from 2 and 0 to 1.5 and -0.5; the negative's are 0 and 2
        ("expectation", True, math.log(math.exp(1.5) + math.exp(-0.5) + 1 + math.exp(2)) - 0.75 * 1.5 + 0.25 * 0.5),
        ("log_sum_exp", True, math.log(1 + (1 + math.exp(2)) / (math.exp(1.5) + math.exp(-0.5)))),
        ("maximum", True, math.log(1 + math.exp(2 - 1.5))),
    ],
)
def test_readings_with_margin_and_temperature(reading: str, joint: bool, expected: float) -> None:
    assert contrast(reading, joint, temperature=0.5, margin=0.25) == pytest.approx(expected)


def test_readings_of_one_vector_are_one() -> None:
    interests, positives, candidates = one_target_each(vectors=1)
    losses = [contrastive_loss(interests, positives, candidates, joint=joint, reading=r) for r, joint in FORMS]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0])


@pytest.mark.parametrize("reading", ["log_sum_exp", "maximum"])
def test_only_the_expectation_can_be_conditional(reading: str) -> None:
    with pytest.raises(ValueError, match=f"reading='{reading}' needs the joint softmax"):
        contrast(reading, joint=False)


def test_the_items_own_entry_and_its_copies_do_not_count() -> None:
    plain = contrast(**TWO)
    negatives = torch.cat([POSITIVE, TWO["negatives"], POSITIVE])
    assert contrast(negatives=negatives, negative_ids=(1, 2, 3, 1), weights=(9.0, 0.5, 2.0, 7.0)) == pytest.approx(
        plain
    )


def test_another_target_of_the_moment_counts_as_often_as_it_is_a_candidate() -> None:
    """Targets (1, 0) and (0, 1); only the second is a candidate, of weight 0.5 + 1.5."""
    targets = torch.cat([POSITIVE, NEGATIVE])
    found = contrast(
        ids=(1, 2), positive=targets, negatives=NEGATIVE.expand(2, -1), negative_ids=(2, 2), weights=(0.5, 1.5)
    )
    first = math.log(3 * (1 + math.e)) - 0.75  # 1 + e of its own, twice that of the other
    second = math.log(1 + math.e) - 0.25  # nothing but itself
    assert found == pytest.approx((first + second) / 2)


def one_target_each(
    vectors: int = 2, batch: int = 3, items: int = 4, columns: int = 1
) -> tuple[Tensor, Positives, Candidates]:
    return (
        unit((batch, vectors, 5), 0),
        Positives(
            unit((batch, 5), 1),
            torch.arange(batch),
            torch.arange(batch),
            torch.softmax(unit((batch, vectors), 2), -1),
            torch.arange(batch) % columns,
        ),
        Candidates(unit((items, 5), 3), torch.arange(10, 10 + items), unit((items, columns), 4).abs()),
    )


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(
            leaves, torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True), strict=True
        )
    ]


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("columns", [1, 3])
def test_gradients_of_each_argument_are_those_of_the_pair_form(joint: bool, columns: int) -> None:
    interests, positives, candidates = one_target_each(columns=columns)
    leaves = [x.requires_grad_() for x in (interests, positives.vectors, candidates.vectors, positives.prob_vector)]
    shared = contrastive_loss(interests, positives, candidates, margin=0.1, joint=joint)
    pairs = multi_vector_loss(
        interests,
        positives.vectors,
        candidates.vectors,
        positives.prob_vector,
        negative_weights=candidates.weights[:, positives.column].T,
        margin=0.1,
        joint=joint,
        epsilon=0.0,
    )
    torch.testing.assert_close(shared, pairs)
    for found, expected in zip(gradients(shared, leaves), gradients(pairs, leaves), strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected)


structures = st.fixed_dictionaries(
    {
        "seed": seeds,
        "moments": st.integers(1, 4),
        "vectors": st.integers(1, 3),
        "candidates": st.integers(1, 12),
        "columns": st.integers(1, 3),
    }
)


@settings(deadline=None)
@given(
    structure=structures,
    joint=st.booleans(),
    margin=st.sampled_from([0.0, 0.2]),
    temperature=st.sampled_from([0.02, 0.07, 1.0]),
    logits_per_chunk=st.sampled_from([1, 30, 10**6]),
    weighted=st.booleans(),
)
def test_equals_the_pair_form_and_its_gradients(
    make_problem: MakeProblem,
    structure: dict[str, int],
    joint: bool,
    margin: float,
    temperature: float,
    logits_per_chunk: int,
    weighted: bool,
) -> None:
    """Ids that repeat, targets of one moment, accidental hits, weights of 0, whatever is taken at a time."""
    problem = make_problem(**structure)
    positives, candidates = problem.examples()
    more = {
        "query_weights": problem.query_weights if weighted else None,
        "temperature": temperature,
        "margin": margin,
        "joint": joint,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrastive, "LOGITS_PER_CHUNK", {"cpu": logits_per_chunk})
        shared = contrastive_loss(problem.unit_interests(), positives, candidates, **more)
        with torch.no_grad():
            without_gradients = contrastive_loss(problem.unit_interests(), positives, candidates, **more)
    pairs = multi_vector_loss(
        problem.unit_interests()[problem.moment],
        positives.vectors,
        candidates.vectors,
        positives.prob_vector,
        negative_weights=problem.pair_weights(),
        epsilon=0.0,
        **more,
    )
    torch.testing.assert_close(shared, pairs)
    torch.testing.assert_close(without_gradients, pairs)
    for found, expected in zip(
        gradients(2 * shared, problem.leaves), gradients(2 * pairs, problem.leaves), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def brute_force(
    problem, vectors: Tensor, seen: Tensor, reading: str, joint: bool, temperature: float, margin: float
) -> Tensor:
    """The loss from the full table of p(v, i), example by example, from unit vectors [G, V, D]; zero ones left out.

    Nor do entries count that the moment has seen, bool [G, N].
    """
    positives, candidates = problem.examples()
    total, weights = torch.zeros((), dtype=torch.float64), problem.pair_weights() * ~seen[problem.moment]
    for row, moment in enumerate(problem.moment.tolist()):
        kept = vectors[moment].detach().abs().sum(-1) > 0
        own = (vectors[moment, kept] @ positives.vectors[row] - margin) / temperature
        others = weights[row].log() + vectors[moment, kept] @ candidates.vectors.T / temperature
        if reading == "maximum":
            own, others = own.amax(0, keepdim=True), others.amax(0, keepdim=True)
        table = torch.cat([own[:, None], others], 1)
        log_prob = (own - table.logsumexp((0, 1))) if joint else (own - table.logsumexp(1))
        if reading == "expectation":
            prob = positives.prob_vector[row, kept]
            log_prob = (prob / prob.sum() * log_prob).sum()
        else:
            log_prob = log_prob.logsumexp(0)
        total = total - problem.query_weights[row] * log_prob
    return total / (problem.query_weights.sum() + 1e-8)


@every_form
@settings(deadline=None, max_examples=25)
@given(structure=structures, chunk=st.sampled_from([1, 10**6]), absent=seeds, margin=st.sampled_from([0.0, 0.3]))
def test_readings_equal_brute_force_and_absent_vectors_leave_no_trace(
    make_problem: MakeProblem,
    reading: str,
    joint: bool,
    structure: dict[str, int],
    chunk: int,
    absent: int,
    margin: float,
) -> None:
    """Each moment lacks some of its vectors, or none, and has seen some of the negatives."""
    problem = make_problem(**structure)
    ids, own = problem.examples()[1].ids, problem.examples()[0].ids
    seen = torch.rand(len(problem.interests), len(ids), generator=torch.Generator().manual_seed(absent)) < 0.3
    for row, moment in enumerate(problem.moment):
        seen[moment] &= own[row] != ids  # the targets of a moment are new
    shape = problem.interests.shape[:2]
    present = torch.rand(shape, generator=torch.Generator().manual_seed(absent)) < 0.6
    present[:, 0] |= ~present.any(1)
    vectors = problem.unit_interests() * present[..., None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrastive, "LOGITS_PER_CHUNK", {"cpu": chunk})
        found = contrastive_loss(
            vectors,
            *problem.examples(),
            Seen(*seen.nonzero(as_tuple=True)),
            query_weights=problem.query_weights,
            temperature=0.3,
            margin=margin,
            joint=joint,
            reading=reading,
        )
    expected = brute_force(problem, vectors, seen, reading, joint, 0.3, margin)
    torch.testing.assert_close(found, expected)
    leaves = [vectors, *problem.leaves]
    for mine, theirs in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)
    assert not gradients(found, [vectors])[0][~present].any()


def test_routing_to_a_vector_that_is_absent_teaches_nothing() -> None:
    routing = torch.tensor([[-200.0, 200.0]], requires_grad=True)  # the softmax of the first underflows
    interests = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    zero = torch.zeros(1, dtype=torch.int64)
    loss = contrastive_loss(
        interests,
        Positives(POSITIVE, zero + 1, zero, torch.softmax(routing, -1), zero),
        Candidates(NEGATIVE, zero + 2, torch.ones(1, 1)),
    )
    loss.backward()
    assert loss.item() == 0.0
    assert routing.grad.isfinite().all()
    assert interests.grad.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_an_absent_vector_does_not_drown_one_that_is_far_from_everything() -> None:
    """Logits of -200 for the positive and the negative alike: exp(-200) is 0 in float32, but half is half."""
    opposite = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    zero = torch.zeros(1, dtype=torch.int64)
    for reading, joint in FORMS:
        loss = contrastive_loss(
            opposite,
            Positives(POSITIVE, zero + 1, zero, torch.tensor([[1.0, 0.0]]), zero),
            Candidates(POSITIVE, zero + 2, torch.ones(1, 1)),
            temperature=0.005,
            reading=reading,
            joint=joint,
        )
        assert loss.item() == pytest.approx(math.log(2))


@every_form
def test_gradients_are_those_of_the_value(make_problem: MakeProblem, reading: str, joint: bool) -> None:
    problem = make_problem(3, moments=3, vectors=2, candidates=4)
    positives, candidates = problem.examples()
    assert len(positives.ids) > 3  # of one moment there are several

    def loss(interests: Tensor, positive: Tensor, negatives: Tensor, routing: Tensor) -> Tensor:
        return contrastive_loss(
            interests,
            positives._replace(vectors=positive, prob_vector=torch.softmax(routing, -1)),
            candidates._replace(vectors=negatives),
            query_weights=problem.query_weights,
            temperature=0.5,
            margin=0.1,
            joint=joint,
            reading=reading,
        )

    leaves = (problem.unit_interests(), positives.vectors, candidates.vectors, problem.routing)
    assert torch.autograd.gradcheck(loss, tuple(leaf.detach().requires_grad_() for leaf in leaves))


@every_form
@pytest.mark.parametrize(
    ("ids", "candidate_ids"), [((1,), (1, 1)), ((1, 2), (1, 1)), ((1, 3), (1, 2)), ((2, 2), (2, 3))]
)
def test_limits_stay_finite(reading: str, joint: bool, ids: tuple[int, ...], candidate_ids: tuple[int, ...]) -> None:
    """Candidates that are only the targets themselves, and a target far ahead of the others that is no candidate."""
    catalogue = torch.eye(4, 5).float()
    interests = torch.tensor([[[0.0, 1, 0, 0, 0], [0.0, 0, -1, 0, 0]]], requires_grad=True)
    count = len(ids)
    positives = Positives(
        catalogue[list(ids)],
        torch.tensor(ids),
        torch.zeros(count, dtype=torch.int64),
        torch.full((count, 2), 0.5),
        torch.zeros(count, dtype=torch.int64),
    )
    candidates = Candidates(catalogue[list(candidate_ids)], torch.tensor(candidate_ids), torch.ones(2, 1))
    for temperature, margin in itertools.product((0.02, 0.005), (0.0, 1.0)):
        loss = contrastive_loss(
            interests, positives, candidates, temperature=temperature, margin=margin, joint=joint, reading=reading
        )
        (gradient,) = torch.autograd.grad(loss, interests)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        if ids == (1,) and (reading, joint) != ("expectation", True):
            assert loss.item() == 0.0  # nothing to tell it from


@every_form
def test_a_masked_moment_without_any_vector_is_no_infinity(reading: str, joint: bool) -> None:
    interests, positives, candidates = one_target_each(batch=2)
    alone = contrastive_loss(
        interests[:1],
        Positives(*(part[:1] for part in positives)),
        candidates,
        joint=joint,
        reading=reading,
    )
    broken = (interests * torch.tensor([1.0, 0.0])[:, None, None]).requires_grad_()
    weights = torch.tensor([1.0, 0.0])
    loss = contrastive_loss(broken, positives, candidates, query_weights=weights, joint=joint, reading=reading)
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert broken.grad[0].abs().max() > 1e-3
    assert not broken.grad[1].any()
