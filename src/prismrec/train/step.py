"""One training step: push the batch to the queue, encode each distinct item once, take the loss.

Everything stays on the device: the catalogue's raw feature ids, the queue of catalogue rows, the batch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from prismrec.config import Config
from prismrec.data.loader import TrainBatch
from prismrec.data.store import Store
from prismrec.loss.contrastive import Metrics
from prismrec.loss.negatives import push
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.user_encoder import UserContext, UserEmbedding
from prismrec.train.objective import Objective


class TrainStep(nn.Module):
    """Model, objective and queue; called with a batch, gives the loss and the metrics."""

    features: Tensor
    share: Tensor
    queue: Tensor

    def __init__(self, config: Config, store: Store, model: MultiInterestModel) -> None:
        super().__init__()
        self.model = model
        self.objective = Objective(config.loss, config.model)
        self.register_buffer("features", torch.from_numpy(np.array(store.item_features)), persistent=False)
        counts = torch.from_numpy(store.item_counts).double().clamp(min=1)
        self.register_buffer("share", (counts / counts.sum()).float(), persistent=False)
        self.register_buffer("queue", torch.zeros(config.loss.queue_size, dtype=torch.int64), persistent=False)

    def forward(self, batch: TrainBatch, bfloat16: bool = False, with_metrics: bool = True) -> tuple[Tensor, Metrics]:
        """The loss of a batch against the queue, which takes the batch's targets in."""
        device = self.queue.device
        history = {
            name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in vars(batch.history).items()
        }
        target = torch.from_numpy(batch.target).to(device, non_blocking=True)
        weight = None if batch.weight is None else torch.from_numpy(batch.weight).to(device)
        self.queue = push(self.queue, target)

        clicks = history.pop("item")
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            rows, index = torch.unique(torch.cat([clicks.flatten(), target, self.queue]), return_inverse=True)
            distinct = self.model.items(self.features[rows])
            in_clicks, in_target, in_queue = index.split([clicks.numel(), len(target), len(self.queue)])
            user = self.model.users(
                distinct.select(in_clicks.view_as(clicks)), UserContext(mask=clicks != 0, **history)
            )
        # Cosines are divided by a small temperature: bfloat16 would lose what separates neighbours.
        positive, negatives = (distinct.select(part).float() for part in (in_target, in_queue))
        moment = torch.from_numpy(batch.moment).to(device, non_blocking=True)
        user = UserEmbedding(*(part.float() for part in user))
        share = self.share[self.queue]
        return self.objective(user, moment, positive, negatives, target, self.queue, share, weight, with_metrics)
