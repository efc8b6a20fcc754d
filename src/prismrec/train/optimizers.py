"""Optimisers: row-wise Adagrad (or sparse Adam) for embedding tables, AdamW for everything else, one schedule."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from prismrec.config import TrainConfig
from prismrec.model.embeddings import HashedEmbedding
from prismrec.train.distributed import ALONE, Ranks

if TYPE_CHECKING:
    from prismrec.train.sharded import ShardedAdagrad


class RowwiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator per row, for sparse gradients: a row that a step does not touch costs nothing.

    s_r += mean(g_r^2);  w_r -= lr * g_r / (sqrt(s_r) + epsilon)   (as FBGEMM and TorchRec have it)
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, epsilon: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr, "epsilon": epsilon})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, table.grad.coalesce(), group["lr"], group["epsilon"])

    def _update(self, table: Tensor, gradient: Tensor, lr: float, epsilon: float) -> None:
        rows, values = gradient.indices()[0], gradient.values()
        state: dict[str, Any] = self.state[table]
        if not state:
            state["squares"] = torch.zeros(len(table), device=table.device)
        squares = state["squares"]
        squares.index_add_(0, rows, values.square().mean(-1))
        scale = lr / (squares[rows].sqrt() + epsilon)
        table.index_add_(0, rows, values * -scale[:, None])


class Optimizers:
    """The optimisers of a model as one: gradients, clipping, step, schedule, state."""

    def __init__(
        self, modules: Iterable[nn.Module], config: TrainConfig, total_steps: int, ranks: Ranks = ALONE
    ) -> None:
        roots = list(modules)
        tables = [each.tables for root in roots for each in root.modules() if isinstance(each, HashedEmbedding)]
        self._tables = [table for each in tables for table in each.parameters()]  # none of those that are sharded
        known = {id(table) for table in self._tables}
        self._dense = [p for root in roots for p in root.parameters() if id(p) not in known]
        self._clip_norm, self._ranks = config.clip_norm, ranks
        by_name: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "rowwise_adagrad": RowwiseAdagrad,
            "sparse_adam": torch.optim.SparseAdam,
        }
        self._sharded = None if ranks.size == 1 else _sharded_adagrad(tables, config.table_learning_rate)
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(self._dense, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True),
            self._sharded or by_name[config.table_optimizer](self._tables, lr=config.table_learning_rate),
        ]
        self._schedules = [
            LambdaLR(optimizer, lambda step: learning_rate_factor(step, total_steps, config))
            for optimizer in self._optimizers
        ]

    def prepare(self) -> None:
        """To be called before the forward pass of a step."""
        if self._sharded is not None:
            self._sharded.prepare()

    def backward(self, loss: Tensor) -> None:
        """Take the gradients of the whole batch, over all ranks; sharded tables are updated on the way."""
        loss.backward()
        self._ranks.add_up_gradients(self._dense)

    def clip(self) -> Tensor:
        """Scale the dense gradients down to `clip_norm`, together; gives the norm that all gradients had.

        Sharded tables count with the gradients of what was looked up, not of their rows, of which there is none.
        """
        dense = nn.utils.get_total_norm([p.grad for p in self._dense if p.grad is not None])
        for table in self._tables:
            table.grad = None if table.grad is None else table.grad.coalesce()
        sparse = nn.utils.get_total_norm([table.grad.values() for table in self._tables if table.grad is not None])
        if self._sharded is not None:
            sparse = self._ranks.add_up(self._sharded.squared_gradient()).sqrt()
        if self._clip_norm:
            nn.utils.clip_grads_with_norm_(self._dense, self._clip_norm, dense)
        return torch.hypot(dense, sparse)

    def step(self) -> None:
        """Update, advance the schedule and clear gradients."""
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)

    @property
    def learning_rate(self) -> float:
        """Of the dense weights, now."""
        return float(self._schedules[0].get_last_lr()[0])

    def state_dict(self) -> list[dict[str, Any]]:
        """State of each optimiser, then of each schedule."""
        states = [optimizer.state_dict() for optimizer in self._optimizers]
        return states + [schedule.state_dict() for schedule in self._schedules]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore what `state_dict` gave."""
        parts: list[Any] = [*self._optimizers, *self._schedules]
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)

    def take_over(self, states: list[dict[str, Any]]) -> None:
        """Go on from the moments and accumulators of `state_dict`, under this one's own rates and schedule."""
        for optimizer, state in zip(self._optimizers, states, strict=False):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state["state"]})


def _sharded_adagrad(tables: list[Any], learning_rate: float) -> "ShardedAdagrad":
    from prismrec.train.sharded import ShardedAdagrad  # TorchRec need not be installed

    return ShardedAdagrad(tables, learning_rate)


def learning_rate_factor(step: int, total_steps: int, config: TrainConfig) -> float:
    """Linear warm-up from 1/warmup_steps to 1, then constant, linear or cosine decay to 0 at `total_steps`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    progress = min(progress, 1.0)
    if config.decay == "linear":
        return 1.0 - progress
    if config.decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
