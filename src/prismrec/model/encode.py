"""From a trained model to NumPy vectors: the whole catalogue, or a batch of users."""

from typing import NamedTuple

import numpy as np
import torch

from prismrec.data.history import HistoryBatch
from prismrec.data.store import Store
from prismrec.errors import TrainingError
from prismrec.model.multi_interest import MultiInterestModel

ITEMS_PER_BATCH = 65_536
_REMEDY = "train again with a lower train.learning_rate or train.table_learning_rate"


class UserEncoding(NamedTuple):
    """Vectors of a batch of users, float32."""

    vectors: np.ndarray
    """Unit vectors [B, V, D], or [B, V, D + 1] with a last 1 if popularity counts; zero where there is none."""
    head_usage: np.ndarray
    """p(head) of each user's history [B, H]."""
    interest_weights: np.ndarray
    """Share of each past event in each interest [B, V, T]."""
    interest_shares: np.ndarray
    """Share of each interest in the attention to each user's history [B, V]."""


@torch.inference_mode()
def encode_items(model: MultiInterestModel, store: Store) -> np.ndarray:
    """Vectors of the whole catalogue, float32 [I, D] or [I, D + 1]; row i is catalogue row i + 1.

    They are unit vectors, unless `item_norm` is free. If popularity counts, each has one more dimension that holds
    its part of the score.

    Raises:
        TrainingError: training has spoilt the weights: vectors are not finite, or most are zero.
    """
    device = next(model.parameters()).device
    features = store.item_features
    parts = [
        model.encode_items(torch.from_numpy(features[start : start + ITEMS_PER_BATCH].copy()).to(device)).cpu().numpy()
        for start in range(1, len(features), ITEMS_PER_BATCH)
    ]
    vectors = np.concatenate(parts) if parts else np.zeros((0, model.config.embedding_dim), np.float32)
    _check_finite(vectors, "items")
    if 2 * np.count_nonzero(vectors.any(axis=1)) < len(vectors):  # squares of weights that have overflowed
        raise TrainingError(f"the model's vectors of items: expected numbers, found zeros for most items; {_REMEDY}")
    if not model.popularity_weight or not len(vectors):
        return vectors
    part = model.popularity_weight * log_popularity(store.item_counts[1:])
    return np.column_stack([vectors, part.astype(np.float32)])


def log_popularity(counts: np.ndarray) -> np.ndarray:
    """Log of each item's share of training events [I] over that of the average item, one event added to each.

    log((n_i + 1) / mean_j(n_j + 1))
    """
    return np.log((counts + 1) / np.mean(counts + 1))


@torch.inference_mode()
def encode_users(model: MultiInterestModel, batch: HistoryBatch, item_features: np.ndarray) -> UserEncoding:
    """Encode histories; `item_features` [I + 1, F] turns catalogue rows into raw ids.

    Raises:
        TrainingError: training has spoilt the weights: vectors are not finite.
    """
    device = next(model.parameters()).device
    inputs = batch.raw_inputs(item_features)
    served = model(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()})
    encoded = UserEncoding(*(part.float().cpu().numpy() for part in (served[0], served[2], served[1], served[3])))
    _check_finite(encoded.vectors, "users")
    return encoded


def _check_finite(vectors: np.ndarray, whose: str) -> None:
    if not np.isfinite(vectors).all():
        raise TrainingError(f"the model's vectors of {whose}: expected finite numbers, found others; {_REMEDY}")
