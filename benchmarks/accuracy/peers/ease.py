"""EASE, a linear autoencoder with a closed form (Steck, WWW 2019, arXiv 1905.03375).

With X the binary matrix of training events and P = (X'X + regularization I)^-1, the item-to-item
weights are B = -P / diag(P), zero on the diagonal; a user's scores are the sum of the rows of B of the
history. Memory is four I x I matrices of float32, so the catalogue must be small.
"""

import numpy as np
import torch
from protocol import Fitted, Stopwatch, Task, answer
from torch import Tensor

from prismrec.data.ranges import flat_ranges
from prismrec.data.store import Store
from prismrec.errors import ConfigError
from prismrec.evaluate.queries import Queries
from prismrec.evaluate.retrieval import Scorer

MAX_ITEMS = 20_000
_USERS_PER_BLOCK = 2000


def ease(task: Task) -> Fitted:
    """Solve for the weights and answer.

    Raises:
        ConfigError: the catalogue is too large for an I x I matrix.
    """
    num_items = task.store.num_items
    if num_items > MAX_ITEMS:
        raise ConfigError(f"ease: expected at most {MAX_ITEMS:,} items, found {num_items:,}; use als instead")
    stopwatch = Stopwatch()
    weights = item_weights(task.store, task.settings["regularization"])
    taken = stopwatch.read()
    answer(task, lambda queries: _scorer(task.store, queries, weights))
    return Fitted(num_items * (num_items - 1), *taken)


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


def _scorer(store: Store, queries: Queries, weights: Tensor) -> Scorer:
    def score(block: slice) -> Tensor:
        return (_histories(store, queries.start[block], queries.end[block]).to_sparse() @ weights)[:, None]

    return score


def _histories(store: Store, start: np.ndarray, stop: np.ndarray) -> Tensor:
    """Whether each item is among the events start:stop of each user, float32 [b, I]."""
    dense = torch.zeros(len(start), store.num_items)
    user = torch.from_numpy(np.repeat(np.arange(len(start)), stop - start))
    dense[user, torch.from_numpy(store.item[flat_ranges(start, stop)].astype(np.int64)) - 1] = 1
    return dense
