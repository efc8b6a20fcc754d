"""What a training will take, before it begins: tables, memory, collisions, communication and speed of a cluster.

Takes a store, the settings and the cluster; gives a `Plan`. Nothing is trained and no table is made, so that tables
may be larger than the memory of this machine. benchmarks/plan.py compares plans with what is measured.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.model.embeddings import HashedEmbedding
from prismrec.model.run import build_model
from prismrec.train.collisions import Collisions, expected_collisions, found_collisions
from prismrec.train.demand import Demand, embedding_paths, ids_of, sample_demand
from prismrec.train.objective import Objective
from prismrec.train.placement import FLOAT, GIB, Cluster, TablePlan, place_tables
from prismrec.train.settings import size_tables

ID, LENGTH = 8, 4  # bytes
RESERVED = 0.15
"""Share of the memory that TorchRec's planner leaves free of tables, by its own default."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class FeaturePlan(_Part):
    """One hashed embedding."""

    feature: str
    path: str
    """In the model."""
    ids: int
    """Distinct ids of the store."""
    primes: list[int]
    distinct_per_step: float
    """Distinct ids that the rank with most of them looks up in a step."""
    expected: Collisions
    """Of as many random ids."""
    found: Collisions
    """Of the store's own."""


class MemoryPlan(_Part):
    """Bytes of one rank."""

    tables: int
    table_optimizer: int
    dense: int
    """Weights, gradients and AdamW's two moments, of all that is no table."""
    catalogue: int
    """Raw ids of every item's features, shares of items, queue of negatives."""
    activations: int
    """Roughly, see `activation_bytes`."""

    @property
    def total(self) -> int:
        return self.tables + self.table_optimizer + self.dense + self.catalogue + self.activations


class CommunicationPlan(_Part):
    """Bytes that a rank sends in a step, mean over the ranks."""

    ids: float
    rows_forward: float
    rows_backward: float
    dense: float
    targets: float

    @property
    def total(self) -> float:
        return self.ids + self.rows_forward + self.rows_backward + self.dense + self.targets


class SpeedPlan(_Part):
    """Examples a second of all ranks, as far as can be said."""

    one_rank: float | None
    """Given or measured."""
    all_ranks: float | None
    """batch / (batch / (N one_rank) + bytes / bandwidth); without a bandwidth communication counts as nothing."""
    seconds_per_epoch: float | None


class Plan(_Part):
    """All of it."""

    ranks: int
    memory_per_rank: int
    batch_size: int
    steps_per_epoch: int
    dense_weights: int
    tables: list[TablePlan]
    features: list[FeaturePlan]
    memory: list[MemoryPlan]
    """Of each rank."""
    fits: bool
    communication: CommunicationPlan
    speed: SpeedPlan
    notes: list[str]
    """What to know, and what to do if it does not fit."""


def make_plan(store: Store, config: Config, cluster: Cluster, examples_per_second: float | None = None) -> Plan:
    """Plan the training of a store.

    Args:
        store: what will be trained on.
        config: the settings, tables still to be sized.
        cluster: where.
        examples_per_second: of one rank with its part of a batch, if known.

    Raises:
        ConfigError: several processes cannot train such tables.
        TrainingError: there is nothing to train on.
    """
    config = size_tables(config, store)
    with torch.device("meta"):
        model, objective = build_model(config, store.schema), Objective(config.loss, config.model)
    paths = embedding_paths(store.schema, user_id=config.model.user_id)
    tables, refused, notes = place_tables(model, paths, config, cluster)
    demand = sample_demand(store, config, cluster.ranks)
    dense = count_dense([model, objective])
    memory = [_memory_of(rank, tables, dense, store, config, demand) for rank in range(cluster.ranks)]
    communication = communication_per_step(
        tables,
        demand.distinct,
        cluster,
        dense,
        config.train.batch_size if config.loss.negatives_scope == "global" else 0,
    )
    speed = estimate_speed(
        config.train.batch_size,
        cluster.ranks,
        examples_per_second,
        communication.total,
        cluster.bandwidth,
        demand.steps * config.train.batch_size,
    )
    fits = not refused and max(each.total for each in memory) <= cluster.memory
    if not fits:
        notes.append(advise(tables, memory, cluster, config.model.hashing.rows_per_id))
    return Plan(
        ranks=cluster.ranks,
        memory_per_rank=cluster.memory,
        batch_size=config.train.batch_size,
        steps_per_epoch=demand.steps,
        dense_weights=dense,
        tables=tables,
        features=[
            _feature_plan(path, name, ids_of(store, path), config.model.hashing.primes[name], demand)
            for path, name in paths.items()
        ],
        memory=memory,
        fits=fits,
        communication=communication,
        speed=speed,
        notes=notes,
    )


def count_dense(modules: Iterable[nn.Module]) -> int:
    """Weights of modules that are in no hashed table."""
    roots = list(modules)
    tables = [each.tables for root in roots for each in root.modules() if isinstance(each, HashedEmbedding)]
    known = {id(weight) for each in tables for weight in each.parameters()}
    return sum(weight.numel() for root in roots for weight in root.parameters() if id(weight) not in known)


def activation_bytes(config: Config, demand: Demand, features: int) -> int:
    """Bytes kept for the backward pass of one rank, roughly, in float32.

    4 (S T D (20 L + 10 V + 10) + S T^2 (4 heads + 6) + 3 I F D), of S histories of T events, L layers, V vectors, width
    D, and I items of F features; without an encoder 4 (S T (10 D + 4 H) + 3 I F D), with H heads.
    """
    model = config.model
    dim, rows = model.embedding_dim, demand.histories * demand.length
    items = 3 * demand.items * features * dim
    if model.encoder.kind == "none":
        return round(FLOAT * (rows * (10 * dim + 4 * model.num_heads) + items))
    by_event = dim * (20 * model.encoder.num_layers + 10 * model.num_interests + 10)
    by_pair = demand.length * (4 * model.encoder.num_heads + 6)
    return round(FLOAT * (rows * (by_event + by_pair) + items))


def communication_per_step(
    tables: Sequence[TablePlan], distinct: dict[str, float], cluster: Cluster, dense_weights: int, targets: int
) -> CommunicationPlan:
    """Bytes that each of N ranks sends in a step, mean over the ranks.

    Of a table of width w in which each rank looks up n ids: 8 n (N-1)/N for ids. If it is divided by rows, 4 n (N-1)
    for lengths and 4 n w (N-1) for rows, forward and backward; if it is on one rank, an N-th of both. On processors
    rows of tables divided by rows are twice as many forward, since gloo scatters a sum by an all-reduce. Dense
    gradients, reduced in a ring, are 8 P (N-1)/N; B targets that all ranks gather are 8 B (N-1)/N.

    Args:
        tables: of all features.
        distinct: n, by path of the embedding.
        cluster: N, and which device.
        dense_weights: P.
        targets: B; 0 if they are not gathered.
    """
    others, ranks = cluster.ranks - 1, cluster.ranks
    ids = forward = backward = 0.0
    for table in tables:
        by_rows = table.sharding == "row_wise"
        count = distinct[table.path] * others / (1 if by_rows else ranks)
        ids += ID * distinct[table.path] * others / ranks + LENGTH * count
        backward += FLOAT * table.width * count
        forward += FLOAT * table.width * count * (2 if by_rows and cluster.device == "cpu" else 1)
    return CommunicationPlan(
        ids=ids,
        rows_forward=forward,
        rows_backward=backward,
        dense=2 * FLOAT * dense_weights * others / ranks,
        targets=ID * targets * others / ranks,
    )


def estimate_speed(
    batch_size: int,
    ranks: int,
    examples_per_second: float | None,
    bytes_per_step: float,
    bandwidth: float | None,
    examples: int,
) -> SpeedPlan:
    """Examples a second, if computation divides by the ranks and communication comes on top of it.

    Args:
        batch_size: examples of a step, of all ranks.
        ranks: N.
        examples_per_second: of one rank with its part of a batch, if known.
        bytes_per_step: that each rank sends.
        bandwidth: bytes a second of each rank, if known.
        examples: of an epoch.
    """
    if examples_per_second is None:
        return SpeedPlan(one_rank=None, all_ranks=None, seconds_per_epoch=None)
    sending = bytes_per_step / bandwidth if bandwidth is not None else 0.0
    rate = batch_size / (batch_size / (ranks * examples_per_second) + sending)
    return SpeedPlan(one_rank=examples_per_second, all_ranks=rate, seconds_per_epoch=examples / rate)


def advise(tables: Sequence[TablePlan], memory: Sequence[MemoryPlan], cluster: Cluster, rows_per_id: float) -> str:
    """What to change where a training does not fit."""
    others = max(each.total - each.tables - each.table_optimizer for each in memory)
    room = min(cluster.memory - others, (1 - RESERVED) * cluster.memory)
    if room <= 0:
        return (
            f"Besides the tables a rank needs {others / GIB:.2f} GiB: lower train.batch_size, or give it more memory."
        )
    needed = sum(table.weight_bytes + table.optimizer_bytes for table in tables)
    rows = rows_per_id * min(room * cluster.ranks / needed, 1.0)
    return (
        f"The tables need {needed / GIB:.2f} GiB, and each rank has room for {room / GIB:.2f} GiB of them: take "
        f"{math.ceil(needed / room)} ranks or more, or set model.hashing.rows_per_id={rows:.3g}, or a lower max_rows; "
        "then more ids share rows, as the collisions say."
    )


def _feature_plan(path: str, name: str, ids: np.ndarray, primes: Sequence[int], demand: Demand) -> FeaturePlan:
    return FeaturePlan(
        feature=name,
        path=path,
        ids=len(ids),
        primes=list(primes),
        distinct_per_step=demand.distinct[path],
        expected=expected_collisions(len(ids), primes),
        found=found_collisions(ids, primes),
    )


def _memory_of(
    rank: int, tables: Sequence[TablePlan], dense: int, store: Store, config: Config, demand: Demand
) -> MemoryPlan:
    items, columns = store.item_features.shape
    return MemoryPlan(
        tables=sum(FLOAT * table.width * table.rows_of_rank[rank] for table in tables),
        table_optimizer=sum(table.optimizer_bytes_per_row * table.rows_of_rank[rank] for table in tables),
        dense=4 * FLOAT * dense,
        catalogue=items * (ID * columns + FLOAT) + ID * config.loss.queue_size,
        activations=activation_bytes(config, demand, len(set(store.schema.item_features))),
    )
