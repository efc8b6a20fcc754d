"""What training minimises: the contrastive loss against the negatives plus the auxiliary losses.

Takes encoded users, positives and negatives; gives the loss and the training metrics. Holds the one
parameter that only training needs, the router over categories.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismrec.config import LossConfig, ModelConfig
from prismrec.loss.contrastive import (
    Candidates,
    Positives,
    contrastive_loss,
    cosine_metrics,
    vector_probabilities,
)
from prismrec.loss.negatives import Negatives, Seen
from prismrec.loss.regularizers import (
    balance_loss,
    diversity_loss,
    head_metrics,
    semantic_loss,
    sharpness_loss,
    usage_loss,
)
from prismrec.loss.rows import select_rows
from prismrec.model.item_encoder import ItemEmbedding, scored_vectors
from prismrec.model.routing import PrototypeRouter
from prismrec.model.user_encoder import UserEmbedding

METRIC_EXAMPLES = 512


class Examples(NamedTuple):
    """The B targets of a batch and the G moments that they followed."""

    user: UserEmbedding
    """Of the G moments."""
    moment: Tensor
    """int64 [B], not falling."""
    positive: ItemEmbedding
    """Of the targets, [B, D] each."""
    ids: Tensor
    """int64 [B], catalogue rows."""
    weight: Tensor | None
    """[B] in the contrastive loss; the auxiliary losses are about the routing of items and count every example, as in
    the reference."""


class Objective(nn.Module):
    """Multi-CLRec's training objective (arXiv 2005.12964)."""

    def __init__(self, loss: LossConfig, model: ModelConfig) -> None:
        super().__init__()
        self.config = loss
        self.num_interests = model.num_interests
        self.item_norm = model.item_norm
        self.router = PrototypeRouter(model.num_heads, model.embedding_dim, model.temperature)

    def forward(
        self,
        examples: Examples,
        negatives: Negatives,
        embedded: ItemEmbedding,
        seen: Seen | None = None,
        with_metrics: bool = True,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            examples: the batch.
            negatives: which items it is contrasted with, and their weights.
            embedded: their embeddings [N, D].
            seen: which of them do not count for which moments.
            with_metrics: also give the metrics that cost time, of the first examples of this process.
        """
        prob_head = self.router(examples.positive.category)
        target = scored_vectors(examples.positive.item, self.item_norm)
        weights, column = self._weights(negatives, embedded, prob_head)
        positives = Positives(
            target, examples.ids, examples.moment, vector_probabilities(prob_head, self.num_interests), column
        )
        candidates = Candidates(scored_vectors(embedded.item, self.item_norm), negatives.ids, weights)
        loss = contrastive_loss(
            examples.user.interests,
            positives,
            candidates,
            seen,
            query_weights=examples.weight,
            temperature=self.config.temperature,
            margin=self.config.margin,
            joint=self.config.joint,
            reading=self.config.reading,
        )
        metrics = {"nll_loss": loss.detach(), "negatives": torch.tensor(float(len(negatives.ids)))}
        if with_metrics:
            metrics |= _metrics(examples, positives, candidates)
        return self._with_auxiliary(loss, examples, prob_head, target, metrics)

    @torch.no_grad()
    def _weights(self, negatives: Negatives, embedded: ItemEmbedding, prob_head: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [N, C] and the column of each example [B]: one for all, or one for each head if some are hard."""
        if negatives.alike_weight is None:
            return negatives.weight[:, None], torch.zeros_like(prob_head[:, 0], dtype=torch.int64)
        alike = nn.functional.one_hot(self.router(embedded.category).argmax(-1), prob_head.shape[-1]).bool()
        weights = torch.where(alike, negatives.alike_weight[:, None], negatives.weight[:, None])
        return weights, prob_head.argmax(-1)

    def _with_auxiliary(
        self, loss: Tensor, examples: Examples, prob_head: Tensor, target: Tensor, metrics: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        interests, moment, temperature = examples.user.interests, examples.moment, self.config.temperature

        def semantic() -> Tensor:
            heads = select_rows(examples.user.heads, moment)
            return semantic_loss(heads, target, vector_probabilities(prob_head, heads.shape[1]), temperature)

        auxiliary: dict[str, tuple[float, Callable[[], Tensor]]] = {
            "balance_loss": (self.config.balance_weight, lambda: balance_loss(prob_head)),
            "sharpness_loss": (self.config.sharpness_weight, lambda: sharpness_loss(prob_head)),
            "semantic_loss": (self.config.semantic_weight, semantic),
            "usage_loss": (
                self.config.usage_weight,
                lambda: usage_loss(select_rows(interests, moment), target, temperature),
            ),
            "diversity_loss": (self.config.diversity_weight, lambda: diversity_loss(interests)),
        }
        for name, (weight, auxiliary_loss) in auxiliary.items():
            if weight:
                metrics[name] = auxiliary_loss()
                loss = loss + weight * metrics[name]
        return loss, {name: value.detach() for name, value in (metrics | head_metrics(prob_head)).items()}


def _metrics(examples: Examples, positives: Positives, candidates: Candidates) -> dict[str, Tensor]:
    """Cosines of the first examples of the batch."""
    first = slice(METRIC_EXAMPLES)
    others = positives.ids[first, None] != candidates.ids
    return cosine_metrics(
        select_rows(examples.user.interests, positives.moment[first]),
        positives.vectors[first],
        candidates.vectors,
        candidates.weights.T[positives.column[first]] * others,
        None if examples.weight is None else examples.weight[first],
    )
