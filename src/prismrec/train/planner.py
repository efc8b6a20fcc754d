"""Where embedding tables go: row by row over all ranks, or each whole to one, as TorchRec's planner finds best.

The planner weighs lookups, communication and memory of each way against each other.
"""

import os
from typing import Any, cast

import torch
from torch import nn
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import KernelConfig, PlannerError, TopologyFactory, TrainerConfig
from torchrec.distributed.types import ShardingPlan

from prismrec.config import TrainConfig
from prismrec.errors import ConfigError
from prismrec.train.distributed import Ranks, memory_of_rank

_RESERVED = 0.15  # share of the memory that is not for tables, TorchRec's own default


class Sharder(EmbeddingBagCollectionSharder):  # type: ignore[misc]
    """TorchRec's, which on a CPU does not offer row-wise bags, though they work."""

    def sharding_types(self, compute_device_type: str) -> list[str]:  # noqa: ARG002
        return ["row_wise", "table_wise"]


def plan_tables(collections: nn.ModuleDict, config: TrainConfig, machines: Topology) -> ShardingPlan:
    """Plan the tables of some embedding bag collections, each looked up by bags of one, without communication.

    Args:
        collections: of tables on the meta device.
        config: how they may be divided, and the size of a batch.
        machines: see `topology`.

    Raises:
        ConfigError: they do not fit into the memory of all ranks.
    """
    kinds = ["row_wise", "table_wise"] if config.sharding == "planner" else [config.sharding]
    names = [table.name for each in collections.values() for table in cast(Any, each).embedding_bag_configs()]
    bag_of_one = ParameterConstraints(sharding_types=kinds, compute_kernels=["fused"], pooling_factors=[1.0])
    planner = EmbeddingShardingPlanner(
        topology=machines,
        batch_size=max(config.batch_size // machines.world_size, 1),
        storage_reservation=FixedPercentageStorageReservation(_RESERVED),
        constraints=dict.fromkeys(names, bag_of_one),
    )
    try:
        return planner.plan(collections, [Sharder()])
    except (PlannerError, RuntimeError) as error:
        raise ConfigError(
            f"the embedding tables do not fit into {machines.world_size} processes: start more of them, or lower "
            f"model.hashing.max_rows ({error})"
        ) from error


def topology(ranks: Ranks, device: torch.device) -> Topology:
    """The machines that train, as the planner knows them."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size))
    return describe_machines(ranks.size, local, memory_of_rank(device, local), device.type)


def describe_machines(ranks: int, ranks_per_machine: int, memory: int, device_type: str) -> Topology:
    """Machines that need not be there, with so many bytes of memory for each rank, on its GPU if it has one."""
    host, gpu = (None, memory) if device_type == "cuda" else (memory, None)
    trainer = TrainerConfig(world_size=ranks, local_world_size=ranks_per_machine, ddr_cap_bytes=host, hbm_cap_bytes=gpu)
    return TopologyFactory.create_topology(trainer, kernel_config=KernelConfig(compute_device=device_type))
