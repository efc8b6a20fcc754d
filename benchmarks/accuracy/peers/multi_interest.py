"""Training of ComiRec-SA, ComiRec-DR and MIND, and their answers.

As the authors train them: a batch is users drawn uniformly, of each one target drawn uniformly and the
history before it; the interest that scores the target highest is contrasted with it by sampled
softmax over negatives that the batch shares, drawn log-uniformly by popularity rank, without
replacement, and corrected by their log probability; Adam. An epoch is a number of steps. Targets may
be any event but the first (the authors leave out the first four, which few users of Beauty have).
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from protocol import Fitted, Settings, Stopwatch, Task, answer, validation_recall
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from peers.interests import DynamicRouting, Mind, MultiInterestPeer, SelfAttention, log_uniform, read_interest
from prismrec.data.ranges import events_before
from prismrec.data.store import Store
from prismrec.evaluate.baselines.popular import item_counts
from prismrec.evaluate.queries import Queries
from prismrec.evaluate.retrieval import Scorer, interest_scorer

_USERS_PER_BLOCK = 512


def comirec_sa(task: Task) -> Fitted:
    """ComiRec with self-attention."""
    settings = task.settings
    sizes = (settings["embedding_dim"], settings["num_interests"], settings["max_length"])
    return _fit(task, lambda: SelfAttention(*sizes))


def comirec_dr(task: Task) -> Fitted:
    """ComiRec with dynamic routing."""
    settings = task.settings
    sizes = (settings["embedding_dim"], settings["num_interests"], settings["max_length"])
    return _fit(task, lambda: DynamicRouting(*sizes, settings["routing_iterations"]))


def mind(task: Task) -> Fitted:
    """MIND."""
    settings = task.settings
    sizes = (settings["embedding_dim"], settings["num_interests"])
    return _fit(task, lambda: Mind(*sizes, settings["routing_iterations"]))


@dataclass(frozen=True)
class Examples:
    """Draws training examples: histories and their targets."""

    store: Store
    before_target_time: bool
    settings: Settings
    rng: np.random.Generator

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Histories, int64 [B, T], and targets, int64 [B], without end."""
        start, stop = self.store.split_bounds("train")
        start, stop = start[stop - start > 1], stop[stop - start > 1]
        while True:
            user = self.rng.integers(len(start), size=self.settings["batch_size"])
            position = self.rng.integers(start[user] + 1, stop[user])
            end = position
            if self.before_target_time:
                end = events_before(self.store.time, start[user], position, self.store.time[position])
            known = end > start[user]
            history = gather(self.store, start[user][known], end[known], self.settings["max_length"])
            yield history, torch.from_numpy(self.store.item[position[known]].astype(np.int64))


def gather(store: Store, start: np.ndarray, end: np.ndarray, length: int) -> Tensor:
    """The newest events of each range [start, end), oldest first and then 0, catalogue rows int64 [B, length]."""
    size = np.minimum(end - start, length)
    steps = np.arange(length)
    there = steps < size[:, None]
    positions = np.where(there, (end - size)[:, None] + steps, 0)
    return torch.from_numpy(np.where(there, store.item[positions], 0).astype(np.int64))


class SampledSoftmax(nn.Module):
    """Cross-entropy of targets against negatives shared by the batch, both corrected by their expected number.

    Drawing until n distinct items came up draws item i with probability 1 - (1 - p_i)^tries; `tries` is
    the number for which these sum to n.
    """

    def __init__(self, store: Store, num_negatives: int) -> None:
        super().__init__()
        self.num_negatives = min(num_negatives, store.num_items // 2)
        by_rank = np.argsort(-item_counts(store), kind="stable")
        probability = torch.empty(store.num_items, dtype=torch.float64)
        probability[torch.from_numpy(by_rank)] = log_uniform(store.num_items)
        self.probability = probability
        expected = -torch.expm1(self._tries() * torch.log1p(-probability))
        self.log_expected = torch.cat([expected.new_zeros(1), expected.log()]).float()

    def forward(self, interest: Tensor, target: Tensor, items: Tensor) -> Tensor:
        """Mean loss of interests [B, D] and targets, catalogue rows [B], with item embeddings [I + 1, D]."""
        negatives = self.probability.multinomial(self.num_negatives) + 1
        positive = (interest * items[target]).sum(dim=1) - self.log_expected[target]
        negative = interest @ items[negatives].T - self.log_expected[negatives]
        negative = negative.masked_fill(negatives == target[:, None], -torch.inf)
        logits = torch.cat([positive[:, None], negative], dim=1)
        return cross_entropy(logits, torch.zeros_like(target))

    def _tries(self) -> float:
        """By bisection, since the sum rises with the number."""
        low, high = 1.0, 1e12
        for _ in range(100):
            middle = (low * high) ** 0.5
            drawn = float(-torch.expm1(middle * torch.log1p(-self.probability)).sum())
            low, high = (middle, high) if drawn < self.num_negatives else (low, middle)
        return high


def _fit(task: Task, extractor: Callable[[], nn.Module]) -> Fitted:
    torch.manual_seed(task.seed)
    settings, store = task.settings, task.store
    model = MultiInterestPeer(store.num_items, settings["embedding_dim"], extractor())
    loss = SampledSoftmax(store, settings["negatives_per_target"] * settings["batch_size"])
    optimizer = torch.optim.Adam(model.parameters(), settings["learning_rate"])
    examples = Examples(store, task.dataset.before_target_time, settings, np.random.default_rng(task.seed)).batches()
    validation, num_interests = task.validation(), settings["num_interests"]

    def train_epoch() -> None:
        model.train()
        for _ in range(settings["steps_per_epoch"]):
            history, target = next(examples)
            interest = read_interest(model(history), model.items[target])
            optimizer.zero_grad()
            loss(interest, target, model.items).backward()
            optimizer.step()

    def validate() -> float:
        return validation_recall(task, validation, _scorer(model, store, validation, settings), num_interests)

    stopwatch = Stopwatch()
    notes = train_epochs(model, train_epoch, validate, settings)
    taken = stopwatch.read()
    answer(task, lambda queries: _scorer(model, store, queries, settings), num_interests)
    return Fitted(sum(weight.numel() for weight in model.parameters()), *taken, notes)


def train_epochs(
    model: nn.Module, train_epoch: Callable[[], None], validate: Callable[[], float], settings: Settings
) -> dict[str, float]:
    """Train until `patience` epochs bring nothing better, or the time is up; leaves the best weights in the model."""
    stopwatch, best_recall, best_epoch, best = Stopwatch(), -1.0, 0, model.state_dict()
    for epoch in range(1, settings["epochs"] + 1):
        train_epoch()
        model.eval()
        recall = validate()
        print(f"epoch {epoch}: validation recall {recall:.4f}, {stopwatch.cpu():,.0f} s of processor time", flush=True)
        if recall > best_recall:
            best_recall, best_epoch, best = recall, epoch, copy.deepcopy(model.state_dict())
        if epoch - best_epoch >= settings["patience"] or 0 < settings["max_cpu_seconds"] <= stopwatch.cpu():
            break
    model.load_state_dict(best)
    return {"epochs": epoch, "best_epoch": best_epoch, "valid_recall": best_recall}


def _scorer(model: MultiInterestPeer, store: Store, queries: Queries, settings: Settings) -> Scorer:
    with torch.no_grad():
        interests = [
            model(gather(store, queries.start[block], queries.end[block], settings["max_length"]))
            for block in (slice(i, i + _USERS_PER_BLOCK) for i in range(0, queries.num_users, _USERS_PER_BLOCK))
        ]
        items = model.items[1:].numpy()
    return interest_scorer(torch.cat(interests).numpy(), items, torch.device("cpu"))
