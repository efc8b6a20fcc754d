"""One training step: draw the negatives, encode each distinct item once, take the loss.

Everything stays on the device: the catalogue's raw feature ids, the queue of catalogue rows, the batch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.loss.negatives import NegativeSampler, find_seen
from prismrec.loss.ranks import draw_apart
from prismrec.loss.rows import select_rows
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.user_encoder import UserContext, UserEmbedding
from prismrec.train.objective import Examples, Objective


class TrainStep(nn.Module):
    """Model, objective and negatives; called with a batch, gives the loss and the metrics."""

    features: Tensor

    def __init__(self, config: Config, store: Store, model: MultiInterestModel) -> None:
        super().__init__()
        self.model = model
        self.objective = Objective(config.loss, config.model)
        self.negatives = NegativeSampler(config.loss, torch.from_numpy(store.item_counts))
        self.num_negatives = 1
        """Distinct ones of the last call."""
        self.exclude_seen = config.exclude_seen
        self.every_position = config.model.encoder.kind != "none"
        self.register_buffer("features", torch.from_numpy(np.array(store.item_features)), persistent=False)

    def forward(
        self, batch: TrainBatch, bfloat16: bool = False, with_metrics: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch against its negatives; the queue takes the batch's targets in."""
        device = self.features.device
        history = {
            name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in vars(batch.history).items()
        }
        target = torch.from_numpy(batch.target).to(device, non_blocking=True)
        weight = None if batch.weight is None else torch.from_numpy(batch.weight).to(device)
        if self.negatives.config.negatives_scope == "local":
            draw_apart()
        negatives = self.negatives(target)
        self.num_negatives = len(negatives.ids)
        draw_apart()  # dropout is of the own part of the batch

        clicks = history.pop("item")
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            rows, index = torch.unique(torch.cat([clicks.flatten(), target, negatives.ids]), return_inverse=True)
            distinct = self.model.items(self.features[rows])
            in_clicks, in_target, in_negatives = index.split([clicks.numel(), len(target), len(negatives.ids)])
            context = UserContext(mask=clicks != 0, **history)
            clicked = distinct.select(in_clicks.view_as(clicks))
            user = self.model.users(clicked, context, self.every_position)
        # Cosines are divided by a small temperature: bfloat16 would lose what separates neighbours.
        positive, negative = (distinct.select(part).float() for part in (in_target, in_negatives))
        # positions without a target, such as padding, take no part
        moment = torch.from_numpy(batch.moment).to(device, non_blocking=True)
        used, moment = torch.unique_consecutive(moment, return_inverse=True)
        interests, heads = (select_rows(part.float(), used) for part in (user.interests, user.heads))
        examples = Examples(UserEmbedding(interests, heads, user.weights), moment, positive, target, weight)
        seen = find_seen(clicks, negatives.ids, used, self.every_position) if self.exclude_seen else None
        return self.objective(examples, negatives, negative, seen, with_metrics)
