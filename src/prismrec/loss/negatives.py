"""The one engine of negatives: which items a batch is contrasted with, and what each of them weighs.

Sources are mixed as configured: the queue (a FIFO of recent positives, this batch's included), draws
from the batch, draws from the catalogue, a hard part of the queue, or the catalogue as a whole.
Negatives from the queue make the contrastive loss equal to inverse-propensity weighting (Multi-CLRec,
arXiv 2005.12964, section 3), since an item enters it as often as it is a positive. Ids are kept, not
vectors, so that every step sees the queue encoded by the current weights.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismrec.config import LossConfig
from prismrec.errors import ConfigError
from prismrec.loss.ranks import gather_rows


class Negatives(NamedTuple):
    """Distinct items that every example of a batch is contrasted with."""

    ids: Tensor
    """int64 [N], catalogue rows, rising."""
    weight: Tensor
    """Of each [N]."""
    alike_weight: Tensor | None
    """Of each for examples whose category routes to the same head [N]; None if there is no hard part."""


class Seen(NamedTuple):
    """Negatives that do not count for some of the moments, since their histories hold them already."""

    moment: Tensor
    """int64 [K], not falling."""
    entry: Tensor
    """int64 [K], place among the negatives."""


class NegativeSampler(nn.Module):
    """Draw the negatives of a batch and weigh them.

    With `deduplicate` an item counts once, however often it was drawn. `log_q` is a dial from debiasing (0)
    to likelihood (1): weights are divided by (their expectation)^log_q, which with 1 makes the softmax over the
    negatives an unbiased estimate of that over the catalogue, whatever the mixture of sources (log-q correction:
    Bengio and Senecal, 2008; sampling without repeats as in arXiv 2101.08769).

    Args:
        config: sizes of the sources, and the dial.
        item_counts: training events of each catalogue row [I + 1]; row 0 is padding.

    Raises:
        ConfigError: the whole catalogue is the only source, and it is too large for that.
    """

    share: Tensor
    queue: Tensor

    def __init__(self, config: LossConfig, item_counts: Tensor) -> None:
        super().__init__()
        self.config = config
        self.num_items = len(item_counts) - 1
        if not (config.queue_size + config.in_batch_negatives + config.uniform_negatives or self.takes_all):
            raise ConfigError(
                f"loss.full_softmax_items={config.full_softmax_items} is below the catalogue's {self.num_items} items "
                "and there is no other source of negatives: raise it, or set loss.queue_size or loss.uniform_negatives"
            )
        counts = item_counts.double().clamp(min=1)
        counts[0] = 0
        self.register_buffer("share", (counts / counts.sum()).float(), persistent=False)
        self.register_buffer("queue", torch.zeros(config.queue_size, dtype=torch.int64), persistent=False)

    @property
    def takes_all(self) -> bool:
        """Whether the catalogue is small enough to be the negatives as a whole."""
        return self.num_items <= self.config.full_softmax_items

    @torch.no_grad()
    def forward(self, positives: Tensor) -> Negatives:
        """The negatives of a batch of positives (ids [B]), which the queue takes in first.

        Where several ranks train together, the batch is that of all of them, unless the scope is local.
        """
        if self.config.negatives_scope == "global":
            positives = gather_rows(positives)
        self.queue = push(self.queue, positives)
        if self.takes_all:
            ids = torch.arange(1, self.num_items + 1, device=self.share.device)
            return Negatives(ids, (self.num_items * self.share[1:]) ** (1 - self.config.log_q), None)
        hard, easy = self.queue.tensor_split([self.config.hard_queue_size])
        # places of the batch without repeats: its targets are independent draws, and so are any of them
        place = torch.randperm(len(positives), device=positives.device)[: self.config.in_batch_negatives]
        in_batch = positives[place]
        uniform = torch.randint(1, self.num_items + 1, (self.config.uniform_negatives,), device=positives.device)
        ids, entry = torch.unique(torch.cat([hard, easy, in_batch, uniform]), return_inverse=True)
        kept = ids != 0  # empty slots of the queue
        in_hard, in_easy = (
            torch.bincount(part, minlength=len(ids))[kept].to(self.share.dtype)
            for part in entry.tensor_split([len(hard)])
        )
        ids = ids[kept]
        share, chance = self.share[ids], torch.full((len(ids),), 1 / self.num_items, device=self.share.device)
        # an item that counts once gains nothing from a place that the queue holds too
        further = place < len(positives) - len(easy) if self.config.deduplicate else place >= 0
        draws: list[tuple[int | Tensor, Tensor]] = [((easy != 0).sum() + further.sum(), share), (len(uniform), chance)]
        expected = self._expected(draws)
        in_easy = (in_easy > 0).to(self.share.dtype) if self.config.deduplicate else in_easy
        weight = self._corrected(in_easy, expected)
        if not len(hard):
            return Negatives(ids, weight, None)
        return Negatives(ids, weight, self._corrected(in_easy + in_hard, expected + (hard != 0).sum() * share))

    def _expected(self, draws: list[tuple[int | Tensor, Tensor]]) -> Tensor:
        """Weight that each item has on average before the correction: of n draws with chance q each, per source.

        sum n q, or 1 - prod (1 - q)^n if an item counts once
        """
        if self.config.deduplicate:
            return -torch.expm1(torch.stack([number * torch.log1p(-chance) for number, chance in draws]).sum(0))
        return torch.stack([number * chance for number, chance in draws]).sum(0)

    def _corrected(self, weight: Tensor, expected: Tensor) -> Tensor:
        return torch.where(weight > 0, weight * expected**-self.config.log_q, 0.0)


@torch.no_grad()
def find_seen(history: Tensor, ids: Tensor, moment: Tensor, every_position: bool) -> Seen:
    """Which negatives the history before each moment holds.

    Where seen items are not recommended, nothing is learned by telling them from the target; a model that tries to
    moves its vectors away from what the user likes.

    Args:
        history: int64 [S, T], newest first, 0 where padded.
        ids: of the negatives, rising [N].
        moment: the G of interest, rising: of the S whole histories, or of the S * T of their positions.
        every_position: which of both.
    """
    entry = torch.searchsorted(ids, history).clamp(max=len(ids) - 1)
    row, position = (ids[entry] == history).nonzero(as_tuple=True)
    positions = history.shape[1] if every_position else 1
    count = (position + 1).clamp(max=positions)  # an event is seen from its own position and all newer ones
    event = torch.repeat_interleave(torch.arange(len(row), device=row.device), count)
    newer = torch.arange(len(event), device=row.device) - (count.cumsum(0) - count)[event]
    seen_at = row[event] * positions + newer
    place = torch.searchsorted(moment, seen_at).clamp(max=len(moment) - 1)
    kept = moment[place] == seen_at
    place, order = place[kept].sort()
    return Seen(place, entry[row, position][event[kept][order]])


def push(queue: Tensor, ids: Tensor) -> Tensor:
    """Append a batch to the queue and drop as many of the oldest entries: [Q, ...], [B, ...] -> [Q, ...].

    A batch larger than the queue leaves its newest Q entries.
    """
    return torch.cat([queue, ids])[len(ids) :]
