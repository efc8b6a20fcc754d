"""EASE, a linear autoencoder with a closed form (Steck, WWW 2019, arXiv 1905.03375).

With X the binary matrix of training events [U, I] and P = (X'X + regularization I)^-1, the item-to-item
weights are B = -P / diag(P), zero on the diagonal; a user's scores are the sum of the rows of B of the
history. With fewer users than items, P comes from the smaller inverse (Woodbury):
P = (I - X'(XX' + regularization I)^-1 X) / regularization. Memory is a few float32 matrices of I x min(I, U).
"""

from collections.abc import Sequence

import numpy as np
import torch
from protocol import Fitted, Stopwatch, Task, answer
from torch import Tensor

from prismrec.data.ranges import flat_ranges
from prismrec.data.store import Store
from prismrec.errors import ConfigError
from prismrec.evaluate.queries import Queries
from prismrec.evaluate.retrieval import Scorer

MAX_WEIGHTS = 20_000**2
_USERS_PER_BLOCK = 2000


def ease(task: Task) -> Fitted:
    """Solve for the weights and answer.

    Raises:
        ConfigError: there are too many items and users for a dense matrix.
    """
    store, regularization = task.store, task.settings["regularization"]
    size = store.num_items * min(store.num_items, store.num_users)
    if size > MAX_WEIGHTS:
        raise ConfigError(
            f"ease: expected items x min(items, users) <= {MAX_WEIGHTS:,}, found {size:,}; use als instead"
        )
    stopwatch = Stopwatch()
    of_users = store.num_users < store.num_items
    factors = user_factors(store, regularization) if of_users else (item_weights(store, regularization),)
    taken = stopwatch.read()
    answer(task, lambda queries: _scorer(store, queries, factors))
    return Fitted(size, *taken)


def item_weights(store: Store, regularization: float) -> Tensor:
    """B, float32 [I, I]."""
    gram = torch.zeros(store.num_items, store.num_items)
    start, stop = store.split_bounds("train")
    for first in range(0, store.num_users, _USERS_PER_BLOCK):
        users = slice(first, first + _USERS_PER_BLOCK)
        block = _histories(store, start[users], stop[users])
        gram += torch.sparse.mm(block.T.to_sparse(), block)
    gram.diagonal().add_(regularization)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = inverse.div_(-inverse.diagonal().clone())
    weights.fill_diagonal_(0)
    return weights


def user_factors(store: Store, regularization: float) -> tuple[Tensor, Tensor]:
    """[I, U] and [U, I], whose product is B but for the diagonal, which only the items of the history would see."""
    chosen = _histories(store, *store.split_bounds("train"))  # [U, I]
    gram = torch.sparse.mm(chosen.to_sparse(), chosen.T)
    gram.diagonal().add_(regularization)
    solved = torch.cholesky_solve(chosen, torch.linalg.cholesky(gram))
    return chosen.T, solved.div_(1 - (chosen * solved).sum(0))


def _scorer(store: Store, queries: Queries, factors: Sequence[Tensor]) -> Scorer:
    """Multiplies histories with the factors of the weights, one after the other."""

    def score(block: slice) -> Tensor:
        scores = _histories(store, queries.start[block], queries.end[block]).to_sparse()
        for factor in factors:
            scores = scores @ factor
        return scores[:, None]

    return score


def _histories(store: Store, start: np.ndarray, stop: np.ndarray) -> Tensor:
    """Whether each item is among the events start:stop of each user, float32 [b, I]."""
    dense = torch.zeros(len(start), store.num_items)
    user = torch.from_numpy(np.repeat(np.arange(len(start)), stop - start))
    dense[user, torch.from_numpy(store.item[flat_ranges(start, stop)].astype(np.int64)) - 1] = 1
    return dense
