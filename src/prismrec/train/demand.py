"""What the ranks of a training look up in a step, counted in batches of the store as they would get them.

Takes a store and the settings; gives means over a few steps. Nothing is trained and no table is made.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from prismrec.config import Config
from prismrec.data.loader import ExampleLoader, share_out
from prismrec.data.schema import Schema
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.data.windows import WindowLoader
from prismrec.errors import TrainingError
from prismrec.loss.negatives import NegativeSampler

SAMPLED_STEPS = 8


class Demand(NamedTuple):
    """Of one step, means over the sampled ones; of ranks the one with most."""

    distinct: dict[str, float]
    """Distinct ids that a rank looks up, by the path of the embedding in the model."""
    items: float
    """Distinct items that a rank encodes."""
    histories: float
    """Histories of a rank, S."""
    length: float
    """Events of the longest history, T; all are padded to it."""
    steps: int
    """Of an epoch."""


def sample_demand(store: Store, config: Config, ranks: int, steps: int = SAMPLED_STEPS) -> Demand:
    """Count what the first steps of an epoch look up, with a queue that is full.

    Raises:
        TrainingError: there is nothing to train on.
    """
    kind = ExampleLoader if config.model.encoder.kind == "none" else WindowLoader
    settings = config.train
    loader = kind(store, config.history, settings.batch_size, settings.seed, new_only=config.exclude_seen)
    if not loader.num_examples:
        raise TrainingError(
            f"{store.path}: no training event has an earlier one of the same user: nothing to learn from"
        )
    torch.manual_seed(settings.seed)
    draw = _Negatives(store, config, ranks)
    counted: list[dict[str, float]] = []
    for batch in islice(loader.batches(0), steps):
        parts = list(_parts(batch, ranks, every_position=config.model.encoder.kind != "none"))
        negatives = draw([part.target for part in parts])
        found = [_count(store, part, drawn) for part, drawn in zip(parts, negatives, strict=True)]
        counted.append({name: max(each[name] for each in found) for name in found[0]})
    means = {name: float(np.mean([each[name] for each in counted])) for name in counted[0]}
    items, histories, length = (means.pop(name) for name in ("items", "histories", "length"))
    return Demand(means, items, histories, length, loader.steps_per_epoch)


def embedding_paths(schema: Schema, *, user_id: bool) -> dict[str, str]:
    """The feature of each hashed embedding, by its path in the model."""
    names = dict.fromkeys(schema.item_features)
    paths = {f"items.embeddings.{place}": name for place, name in enumerate(names)}
    paths |= {f"users.context.{place}": name for place, name in enumerate(schema.context_features)}
    return paths | ({"users.user": "user_id"} if user_id else {})


def ids_of(store: Store, path: str) -> np.ndarray:
    """Distinct ids of the store that an embedding will be asked for, by its path in the model."""
    if path == "users.user":
        found = store.users["key"].to_numpy()
    elif path.startswith("users.context"):
        assert store.context is not None
        found = np.asarray(store.context)[:, int(path.rsplit(".", 1)[1])]
    else:
        names = np.array(store.schema.item_features)
        name = list(dict.fromkeys(store.schema.item_features))[int(path.rsplit(".", 1)[1])]
        found = store.item_features[:, names == name]
    distinct = np.unique(found)
    return distinct[distinct != 0]


class _Part(NamedTuple):
    """What one rank has of a batch."""

    item: np.ndarray
    context: np.ndarray
    user: np.ndarray
    target: np.ndarray


def _parts(batch: TrainBatch, ranks: int, *, every_position: bool) -> Iterator[_Part]:
    history = batch.history
    rows, length = history.item.shape
    row = batch.moment // length if every_position else batch.moment
    rank_of = share_out(np.bincount(row, minlength=rows), ranks)
    for rank in range(ranks):
        own = rank_of == rank
        yield _Part(history.item[own], history.context[own], history.user[own], batch.target[own[row]])


class _Negatives:
    """Draws the negatives of every rank as training does."""

    def __init__(self, store: Store, config: Config, ranks: int) -> None:
        counts = torch.from_numpy(store.item_counts)
        self._scope = config.loss.negatives_scope
        self._samplers = [NegativeSampler(config.loss, counts) for _ in range(ranks if self._scope == "local" else 1)]
        trained = counts.double()
        for sampler in self._samplers:
            if len(sampler.queue):  # as if as many targets had come before
                sampler.queue = torch.multinomial(trained, len(sampler.queue), replacement=True)

    def __call__(self, targets: list[np.ndarray]) -> list[np.ndarray]:
        if self._scope == "global":
            drawn = self._samplers[0](torch.from_numpy(np.concatenate(targets))).ids.numpy()
            return [drawn] * len(targets)
        pairs = zip(self._samplers, targets, strict=True)
        return [sampler(torch.from_numpy(target)).ids.numpy() for sampler, target in pairs]


def _count(store: Store, part: _Part, negatives: np.ndarray) -> dict[str, float]:
    rows = np.unique(np.concatenate([part.item.ravel(), part.target, negatives]))
    features, names = store.item_features[rows], np.array(store.schema.item_features)
    ids = [features[:, names == name] for name in dict.fromkeys(store.schema.item_features)]
    counted = {f"items.embeddings.{place}": len(np.unique(column)) for place, column in enumerate(ids)}
    columns = range(part.context.shape[-1])
    context = {f"users.context.{place}": len(np.unique(part.context[..., place])) for place in columns}
    shape = {"users.user": len(np.unique(part.user)), "items": len(rows), "histories": len(part.item)}
    length = int((part.item != 0).sum(-1).max(initial=0))
    return {name: float(count) for name, count in (counted | context | shape | {"length": length}).items()}
