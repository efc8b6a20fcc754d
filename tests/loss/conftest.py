"""Random contrastive problems with every structure that training meets."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from prismrec.loss.contrastive import Candidates, Positives

DIM, CATALOGUE = 5, 9


class Problem(NamedTuple):
    """Leaves to take gradients for, and what they are looked up by."""

    interests: Tensor
    """[G, V, D], not normalised."""
    catalogue: Tensor
    """Items [I, D], not normalised."""
    routing: Tensor
    """Logits of p(vector | positive) [B, V]."""
    positive_ids: Tensor
    moment: Tensor
    column: Tensor
    candidate_ids: Tensor
    weights: Tensor
    query_weights: Tensor

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.interests, self.catalogue, self.routing

    def unit_interests(self) -> Tensor:
        return torch.nn.functional.normalize(self.interests, dim=-1)

    def examples(self) -> tuple[Positives, Candidates]:
        items = torch.nn.functional.normalize(self.catalogue, dim=-1)
        prob = torch.softmax(self.routing, -1)
        return (
            Positives(items[self.positive_ids], self.positive_ids, self.moment, prob, self.column),
            Candidates(items[self.candidate_ids], self.candidate_ids, self.weights),
        )

    def pair_weights(self) -> Tensor:
        """Weight of each candidate for each example [B, N]."""
        weights = self.weights[:, self.column].T
        return torch.where(self.positive_ids[:, None] == self.candidate_ids, 0.0, weights)


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    """Draw a problem: moments with one to three targets, ids that repeat, weights and examples of weight 0."""

    def build(seed: int, moments: int = 4, vectors: int = 3, candidates: int = 8, columns: int = 2) -> Problem:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

        def integers(high: int, size: int) -> Tensor:
            return torch.randint(high, (size,), generator=generator)

        def weights(*shape: int) -> Tensor:
            drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * 3 - 0.5
            return drawn.clamp(min=0.0)

        moment = torch.repeat_interleave(integers(3, moments) + 1)
        size = len(moment)
        return Problem(
            interests=normal(moments, vectors, DIM),
            catalogue=normal(CATALOGUE, DIM),
            routing=normal(size, vectors),
            positive_ids=integers(CATALOGUE, size),
            moment=moment,
            column=integers(columns, size),
            candidate_ids=integers(CATALOGUE, candidates),
            weights=weights(candidates, columns),
            query_weights=weights(size),
        )

    return build
