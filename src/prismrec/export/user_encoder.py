"""The exported user encoder: ONNX Runtime in place of PyTorch.

Takes histories; gives each user's interests. Nothing here imports torch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from prismrec.config import Config, HistoryConfig
from prismrec.data.history import HistoryBatch, stored_histories
from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.export.session import open_session

_USERS_PER_BATCH = 256
_SAMPLE_USERS = 1000  # on whom the encoder is checked and the index measured


class EncodedUsers(NamedTuple):
    """The encoder's outputs, float32, in the order of its graph."""

    vectors: np.ndarray
    """Unit vectors [B, V, D], or [B, V, D + 1] with a last 1 if popularity counts."""
    interest_weights: np.ndarray
    """Share of each past event in each interest [B, V, T], newest first; rows without events are zero."""
    head_usage: np.ndarray
    """p(head) of each user's history [B, H]."""
    interest_shares: np.ndarray
    """Share of each interest in the attention to each user's history [B, V]."""


class OnnxUserEncoder:
    """Runs `user_encoder.onnx` on the CPU."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load the graph.

        Args:
            path: the file.
            threads: for one run; all cores by default.

        Raises:
            ArtifactError: the file is not an ONNX graph that this ONNX Runtime can run, or of an older PrismRec.
        """
        self._session = open_session(path, "user", threads)
        outputs = [tensor.name for tensor in self._session.get_outputs()]
        if outputs != list(EncodedUsers._fields):
            expected, found = (", ".join(names) for names in (EncodedUsers._fields, outputs))
            raise ArtifactError(f"{path}: expected the outputs {expected}, found {found}; export again")
        self._inputs = {tensor.name for tensor in self._session.get_inputs()}

    def encode(self, batch: HistoryBatch, item_features: np.ndarray) -> EncodedUsers:
        """Encode histories; `item_features` [I + 1, F] turns catalogue rows into raw ids."""
        inputs = batch.raw_inputs(item_features)
        # inputs that a model's settings leave unused are not part of its graph
        used = {name: np.ascontiguousarray(array) for name, array in inputs.items() if name in self._inputs}
        return EncodedUsers(*self._session.run(EncodedUsers._fields, used))


def sample_histories(store: Store, config: Config) -> HistoryBatch:
    """Whole histories of a sample of the store's users, at the newest event's time."""
    users = sample_users(store, config.train.seed, _SAMPLE_USERS)
    return stored_histories(store, users, store.manifest["max_time"], config.history)


def sample_users(store: Store, seed: int, most: int) -> np.ndarray:
    """Positions of so many users of the store, of all if there are fewer, rising."""
    return np.sort(np.random.default_rng(seed).permutation(store.num_users)[:most])


def stored_vectors(
    store: Store,
    encoder: OnnxUserEncoder,
    config: HistoryConfig,
    users: range | np.ndarray,
    batch: int = _USERS_PER_BATCH,
) -> Iterator[tuple[pl.Series, np.ndarray]]:
    """Ids and interests [B, V, D] of users of the store (positions) at the newest event's time, so many at a time."""
    for start in range(0, len(users), batch):
        some = np.asarray(users[start : start + batch])
        histories = stored_histories(store, some, store.manifest["max_time"], config)
        yield store.user_ids[some], encoder.encode(histories, store.item_features).vectors
