"""The reference ported as it stands, to compare with: pair by pair, every occurrence encoded, tables updated whole.

Logits are the sum of a product that is broadcast over users, vectors, negatives and dimensions; each click, target
and negative is embedded where it occurs; Adam takes dense gradients of the tables, as TensorFlow's default does.
"""

import numpy as np
import torch
from torch import Tensor, nn

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.loss.contrastive import vector_probabilities
from prismrec.loss.negatives import push
from prismrec.loss.regularizers import balance_loss, semantic_loss, sharpness_loss
from prismrec.loss.softmax import weighted_softmax
from prismrec.model.layers import unit_norm
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.routing import PrototypeRouter
from prismrec.model.run import build_model
from prismrec.model.user_encoder import UserContext


def broadcast_loss(interests: Tensor, positive: Tensor, negatives: Tensor, weights: Tensor, prob: Tensor) -> Tensor:
    """Sum over users of -sum_v p(v | positive) log p(v, positive), jointly normalised.

    Args:
        interests: unit user vectors [B, V, D].
        positive: unit item vectors [B, D].
        negatives: unit item vectors [Q, D].
        weights: of each negative for each user [B, Q].
        prob: p(v | positive) [B, V].
    """
    items = torch.cat([positive[:, None], negatives.expand(len(positive), -1, -1)], 1)  # [B, 1 + Q, D]
    logits = (interests[:, :, None] * items[:, None]).sum(-1) / 0.07  # [B, V, 1 + Q]
    counts = torch.cat([torch.ones_like(weights[:, :1]), weights], 1)[:, None]
    return -(prob * weighted_softmax(logits, counts, (1, 2))[..., 0].log()).sum()


class PortedStep(nn.Module):
    """A training step of the reference."""

    features: Tensor
    queue: Tensor

    def __init__(self, config: Config, store: Store) -> None:
        super().__init__()
        self.model: MultiInterestModel = build_model(config, store.schema)
        for module in self.model.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = False
        model = config.model
        self.router = PrototypeRouter(model.num_heads, model.embedding_dim, model.temperature)
        self.num_interests = model.num_interests
        self.optimizer = torch.optim.Adam([*self.model.parameters(), *self.router.parameters()], lr=1e-3)
        self.register_buffer("features", torch.from_numpy(np.array(store.item_features)))
        self.register_buffer("queue", torch.randint(1, len(self.features), (config.loss.queue_size,)))

    def forward(self, batch: TrainBatch) -> float:
        """Train on a batch; its loss."""
        device = self.queue.device
        history = {name: torch.from_numpy(array).to(device) for name, array in vars(batch.history).items()}
        target, clicks = torch.from_numpy(batch.target).to(device), history.pop("item")
        self.queue = push(self.queue, target)
        user = self.model.users(self.model.items(self.features[clicks]), UserContext(mask=clicks != 0, **history))
        moment = torch.from_numpy(batch.moment).to(device)
        embedded = self.model.items(self.features[target])
        positive = unit_norm(embedded.item)
        negatives = unit_norm(self.model.items(self.features[self.queue]).item)
        prob_head = self.router(embedded.category)
        prob = vector_probabilities(prob_head, self.num_interests)
        weights = (target[:, None] != self.queue).float()
        loss = broadcast_loss(user.interests[moment], positive, negatives, weights, prob) / len(target)
        loss = loss + balance_loss(prob_head) + sharpness_loss(prob_head)
        heads = user.heads[moment]
        loss = loss + semantic_loss(heads, positive, vector_probabilities(prob_head, heads.shape[1]), 0.07)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
