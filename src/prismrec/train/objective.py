"""What training minimises: the contrastive loss against the queue plus the three auxiliary losses.

Takes encoded users, positives and queue entries; gives the loss and the training metrics. Holds the
one parameter that only training needs, the router over categories.
"""

from typing import Any

import torch
from torch import Tensor, nn

from prismrec.config import LossConfig, ModelConfig
from prismrec.loss.contrastive import Metrics, multi_vector_loss, shared_multi_vector_loss
from prismrec.loss.negatives import appearances, expected_weights, hard_mask, negative_weights
from prismrec.loss.regularizers import balance_loss, head_metrics, semantic_loss, sharpness_loss
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.layers import select_rows, unit_norm
from prismrec.model.routing import PrototypeRouter
from prismrec.model.user_encoder import UserEmbedding


class Objective(nn.Module):
    """Multi-CLRec's training objective (arXiv 2005.12964)."""

    def __init__(self, loss: LossConfig, model: ModelConfig) -> None:
        super().__init__()
        self.config = loss
        self.router = PrototypeRouter(model.num_heads, model.embedding_dim, model.temperature)

    def forward(
        self,
        user: UserEmbedding,
        moment: Tensor,
        positive: ItemEmbedding,
        negatives: ItemEmbedding,
        positive_ids: Tensor,
        negative_ids: Tensor,
        negative_share: Tensor,
        query_weights: Tensor | None = None,
        with_metrics: bool = True,
    ) -> tuple[Tensor, Metrics]:
        """The loss of a batch.

        Args:
            user: encoded histories of G moments.
            moment: which of them each target followed [B].
            positive: embeddings of the B targets.
            negatives: embeddings of the Q queue entries, oldest first.
            positive_ids, negative_ids: their ids [B], [Q]; id 0 is an empty slot.
            negative_share: share of each queue entry's id in the training targets [Q], for `log_q`.
            query_weights: weight of each example in the contrastive loss [B]; the auxiliary losses are about the
                routing of items and count every example, as in the reference.
            with_metrics: also give the metrics; without them, negatives that all examples share cost far less.
        """
        config, prob_head, target = self.config, self.router(positive.category), unit_norm(positive.item)
        loss, metrics = self._contrastive_loss(
            user.interests,
            moment,
            target,
            negatives,
            prob_head,
            (positive_ids, negative_ids, negative_share),
            query_weights,
            with_metrics,
        )
        if config.kind == "single_vector":
            return loss, metrics
        auxiliary = {
            "balance_loss": balance_loss(prob_head),
            "sharpness_loss": sharpness_loss(prob_head),
            "semantic_loss": semantic_loss(select_rows(user.heads, moment), target, prob_head, config.temperature),
        }
        weights = (config.balance_weight, config.sharpness_weight, config.semantic_weight)
        total = loss + sum(weight * part for weight, part in zip(weights, auxiliary.values(), strict=True))
        detached = {name: value.detach() for name, value in auxiliary.items()}
        return total, metrics | detached | head_metrics(prob_head)

    def _contrastive_loss(
        self,
        interests: Tensor,
        moment: Tensor,
        positive: Tensor,
        negatives: ItemEmbedding,
        prob_head: Tensor,
        ids: tuple[Tensor, Tensor, Tensor],
        query_weights: Tensor | None,
        with_metrics: bool,
    ) -> tuple[Tensor, Metrics]:
        config, vectors = self.config, unit_norm(negatives.item)
        routing = torch.ones_like(prob_head[:, :1]) if config.kind == "single_vector" else prob_head
        shared: dict[str, Any] = {
            "query_weights": query_weights,
            "temperature": config.temperature,
            "margin": config.margin,
            "joint": config.joint,
        }
        if not (with_metrics or config.hard_queue_size or config.epsilon):
            positive_ids, negative_ids, share = ids
            loss = shared_multi_vector_loss(
                interests,
                moment,
                positive,
                vectors,
                routing,
                positive_ids=positive_ids,
                negative_ids=negative_ids,
                negative_weights=self._entry_weights(negative_ids, share),
                **shared,
            )
            return loss, {"nll_loss": loss.detach()}
        pair_weights, metrics = self._negative_weights(prob_head, negatives, *ids)
        loss, found = multi_vector_loss(
            select_rows(interests, moment),
            positive,
            vectors,
            routing,
            negative_weights=pair_weights,
            epsilon=config.epsilon,
            with_metrics=with_metrics,
            **shared,
        )
        return loss, metrics | found

    @torch.no_grad()
    def _entry_weights(self, ids: Tensor, share: Tensor) -> Tensor:
        """Weights [Q] of the entries of a queue without a hard part: no empty slots, no duplicates, log-q."""
        weights = (ids != 0).to(share.dtype)
        if self.config.deduplicate:
            weights = weights / appearances(ids)
        if self.config.log_q:
            weights = weights * expected_weights(share, len(ids), self.config.deduplicate) ** -self.config.log_q
        return weights

    @torch.no_grad()
    def _negative_weights(
        self, prob_head: Tensor, negatives: ItemEmbedding, positive_ids: Tensor, negative_ids: Tensor, share: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Weights [B, Q]: no empty slots or accidental hits, same-head entries in the hard part, no duplicates after.

        The hard part is not de-duplicated, as in the reference.
        """
        config = self.config
        weights = negative_weights(positive_ids, negative_ids)
        metrics: Metrics = {"queue_filled": (negative_ids != 0).float().mean()}
        hard = config.hard_queue_size
        expected = expected_weights(share, len(negative_ids) - hard, config.deduplicate)
        if hard:
            same_head = hard_mask(prob_head, self.router(negatives.category))
            in_hard_part = same_head[:, :hard].sum(-1)
            metrics |= {"hard_count_max": in_hard_part.amax(), "hard_count_min": in_hard_part.amin()}
            weights = torch.cat([weights[:, :hard] * same_head[:, :hard], weights[:, hard:]], 1)
            expected = expected + same_head * expected_weights(share, hard, deduplicate=False)
        if config.deduplicate:
            counts = torch.where(negative_ids[hard:] != 0, appearances(negative_ids[hard:]), 1)
            metrics |= {"appearances_max": counts.amax(), "appearances_min": counts.amin()}
            weights = torch.cat([weights[:, :hard], weights[:, hard:] / counts], 1)
        if config.log_q:
            weights = torch.where(weights > 0, weights * expected**-config.log_q, 0.0)
        return weights, metrics
